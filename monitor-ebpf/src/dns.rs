//! DNS over UDP, port 53: queries, answers by code, and how long they took. Opt-in.
//!
//! The namespace asks (client) or is asked (server); a query is matched with its answer by namespace, both ends and the
//! number in it. DNS over TCP, TLS and HTTPS is not seen, nor is what stays on `lo`.
#![no_std]
#![no_main]

#[allow(dead_code, reason = "its numbers are enough here")]
mod frame;
mod load;
mod packet;
mod place;
mod runtime;

use core::hint::black_box;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY, TC_ACT_UNSPEC},
    btf_maps::{LruHashMap, PerCpuHashMap},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, classifier},
    programs::TcContext,
};
use monitor_ebpf::talk::{
    self, DNS_PORT, DnsCounters, DnsKey, DnsRole, LATENCY_BOUNDS, LATENCY_PLACES, RCODES, REPEAT_NS,
};

use self::{frame::protocol, packet::Packet};

const UDP_HEADER: u32 = 8;
const PORT: u16 = DNS_PORT.to_be();
/// "This is a response", in the third byte of the header.
const RESPONSE: u8 = 0x80;

/// See [`talk::DNS_MAP`].
#[btf_map]
static DNS: PerCpuHashMap<u64, DnsCounters, { talk::SLOTS }, { place::NO_PREALLOC }> = PerCpuHashMap::new();
/// See [`talk::PENDING_MAP`].
#[btf_map]
static PENDING: LruHashMap<DnsKey, u64, { talk::PENDING }> = LruHashMap::new();

#[classifier]
fn ingress(ctx: TcContext) -> i32 {
    look(ctx.skb.skb, place::receives(true));
    TC_ACT_UNSPEC
}

#[classifier]
fn egress(ctx: TcContext) -> i32 {
    look(ctx.skb.skb, place::receives(false));
    TC_ACT_UNSPEC
}

/// Almost every packet is none of DNS and ends here.
#[inline(always)]
fn look(skb: *mut __sk_buff, receives: bool) {
    let mut packet = Packet::default();
    if !packet::read(skb, &mut packet) {
        return;
    }
    let is_dns = packet.source_port == PORT || packet.destination_port == PORT;
    if is_dns && packet.protocol == protocol::UDP {
        note(skb, &packet, receives);
    }
}

#[inline(never)]
fn note(skb: *mut __sk_buff, packet: &Packet, receives: bool) {
    let ctx = TcContext::new(skb);
    // The number, flags and the answer code. What is shorter than a header is no DNS.
    let header = ctx.load::<[u8; 12]>((packet.transport + UDP_HEADER) as usize);
    let (Ok(header), Some(cookie)) = (header, place::netns(place::slot(skb))) else { return };
    let Some(counters) = DNS.get_ptr_mut(cookie) else { return };
    let id = u16::from_be_bytes([header[0], header[1]]);
    let is_response = header[2] & RESPONSE != 0;
    let (asker, asked, port, to) = if is_response {
        (packet.destination, packet.source, packet.destination_port, packet.source_port)
    } else {
        (packet.source, packet.destination, packet.source_port, packet.destination_port)
    };
    if to != PORT {
        return;
    }
    // It is asked where it gets queries and sends responses.
    let server = is_response != receives;
    let key =
        DnsKey { cookie, asker, asked, port, id, family: packet.family, server: server.into(), reserved: 0 };
    // SAFETY: the value is this CPU's own and lives as long as the program runs; only fields' addresses are taken.
    let role = unsafe { if server { &raw mut (*counters).server } else { &raw mut (*counters).client } };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    if is_response { response(role, &key, header[3], now) } else { query(role, &key, now) }
}

/// The first of repeated queries is the one that waits: its asker does.
#[inline(always)]
fn query(role: *mut DnsRole, key: &DnsKey, now: u64) {
    // SAFETY: see `note`.
    add(unsafe { &raw mut (*role).queries }, 1);
    // SAFETY: one word.
    let waits = PENDING.get_ptr(key).map(|since| unsafe { since.read_volatile() });
    if waits.is_none_or(|since| now.saturating_sub(since) > REPEAT_NS) {
        // A table of this kind is never full.
        let _inserted = PENDING.insert(key, now, BPF_ANY.into());
    }
}

#[inline(always)]
fn response(role: *mut DnsRole, key: &DnsKey, code: u8, now: u64) {
    // SAFETY: one word.
    let waits = PENDING.get_ptr(key).map(|since| unsafe { since.read_volatile() });
    // Of two responses at the same time one takes the query away.
    let Some(since) = waits.filter(|_| PENDING.remove(key).is_ok()) else {
        // SAFETY: see `note`.
        return add(unsafe { &raw mut (*role).unmatched }, 1);
    };
    let nanoseconds = now.saturating_sub(since);
    // The verifier has to see that both indexes stay inside; the compiler would leave the masks out.
    let code = black_box(code as usize) % RCODES;
    let bucket = black_box(bucket(nanoseconds)) % LATENCY_PLACES;
    // SAFETY: see `note`; the indexes are below the arrays' lengths.
    unsafe {
        add((&raw mut (*role).codes).cast::<u64>().add(code), 1);
        add((&raw mut (*role).latencies).cast::<u64>().add(bucket), 1);
        add(&raw mut (*role).nanoseconds, nanoseconds);
    }
}

#[inline(always)]
fn bucket(nanoseconds: u64) -> usize {
    let mut bucket = 0;
    while bucket < LATENCY_BOUNDS.len() && nanoseconds > LATENCY_BOUNDS[bucket] {
        bucket += 1;
    }
    bucket
}

#[inline(always)]
fn add(to: *mut u64, count: u64) {
    // SAFETY: the callers point into this CPU's value of a map.
    unsafe { *to += count };
}
