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

use core::{hint::black_box, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY, TC_ACT_UNSPEC},
    btf_maps::{LruHashMap, PerCpuHashMap},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, classifier},
    programs::TcContext,
};
use monitor_ebpf::talk::{
    self, DNS_PORT, DnsKey, DnsRole, LATENCY_BOUNDS, LATENCY_PLACES, RCODES, REPEAT_NS, RoleKey,
};

use self::{frame::protocol, packet::Packet};

const UDP_HEADER: u32 = 8;
const PORT: u16 = DNS_PORT.to_be();
/// "This is a response", in the third byte of the header.
const RESPONSE: u8 = 0x80;

/// See [`talk::DNS_MAP`].
#[btf_map]
static DNS: PerCpuHashMap<RoleKey, DnsRole, { 2 * talk::SLOTS }, { place::NO_PREALLOC }> =
    PerCpuHashMap::new();
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
    let mut packet = MaybeUninit::uninit();
    let packet = Packet::zeroed(&mut packet);
    if !packet::read(skb, packet) {
        return;
    }
    let is_dns = packet.source_port == PORT || packet.destination_port == PORT;
    if is_dns && packet.protocol == protocol::UDP {
        note(skb, packet, receives);
    }
}

#[inline(never)]
fn note(skb: *mut __sk_buff, packet: &Packet, receives: bool) {
    let ctx = TcContext::new(skb);
    // The number, flags and the answer code. What is shorter than a header is no DNS.
    let header = ctx.load::<[u8; 12]>((packet.transport + UDP_HEADER) as usize);
    let (Ok(header), Some(cookie)) = (header, place::netns(place::slot(skb))) else { return };
    let id = u16::from_be_bytes([header[0], header[1]]);
    let is_response = header[2] & RESPONSE != 0;
    let Packet { source, destination, source_port, destination_port, family, .. } = *packet;
    // Without branches: without CAP_PERFMON a pointer may not be another one on each path.
    if !((is_response & (source_port == PORT)) | (!is_response & (destination_port == PORT))) {
        return;
    }
    // It is asked where it gets queries and sends responses.
    let server = is_response != receives;
    // Known when the program is loaded, unlike who asks.
    let (local, remote, local_port, remote_port) = if receives {
        (destination, source, destination_port, source_port)
    } else {
        (source, destination, source_port, destination_port)
    };
    let key = DnsKey { cookie, local, remote, local_port, remote_port, id, family, server: server.into() };
    let Some(role) = DNS.get_ptr_mut(RoleKey { cookie, server: server.into() }) else { return };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    if is_response { response(role, &key, header[3], now) } else { query(role, &key, now) }
}

/// The first of repeated queries is the one that waits: its asker does.
#[inline(always)]
fn query(role: *mut DnsRole, key: &DnsKey, now: u64) {
    // SAFETY: the value is this CPU's own and lives as long as the program runs; only a field's address is taken.
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
        // SAFETY: as in `query`.
        return add(unsafe { &raw mut (*role).unmatched }, 1);
    };
    let nanoseconds = now.saturating_sub(since);
    // The verifier has to see that both indexes stay inside; the compiler would leave the masks out.
    let code = black_box(code as usize) % RCODES;
    let bucket = black_box(latency_bucket(nanoseconds) as usize) % LATENCY_PLACES;
    // SAFETY: as in `query`; the indexes are below the arrays' lengths.
    unsafe {
        add((&raw mut (*role).codes).cast::<u64>().add(code), 1);
        add((&raw mut (*role).latencies).cast::<u64>().add(bucket), 1);
        add(&raw mut (*role).nanoseconds, nanoseconds);
    }
}

/// With a symbol of its own the verifier does not know what comes out; a constant for each path it would refuse without
/// CAP_PERFMON.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn latency_bucket(nanoseconds: u64) -> u64 {
    let mut bucket = 0;
    while bucket < LATENCY_BOUNDS.len() && nanoseconds > LATENCY_BOUNDS[bucket] {
        bucket += 1;
    }
    bucket as u64
}

#[inline(always)]
fn add(to: *mut u64, count: u64) {
    // SAFETY: the callers point into this CPU's value of a map.
    unsafe { *to += count };
}
