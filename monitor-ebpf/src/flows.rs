//! Who talks with whom: packets and bytes of each conversation, in a map of fixed size. Opt-in.
//!
//! Attached directly after the counting program, so that both see the same packets. The map is a plain hash, not an LRU:
//! the kernel throws entries out of an LRU without a word, and while there is room for others. Here a new flow that finds no
//! room is counted with the others that found none, and user space makes room. As in `count`, values are this CPU's
//! own and additions plain ones.
#![no_std]
#![no_main]

mod frame;
mod load;
mod packet;
mod parse;
mod place;
mod runtime;
mod tunnel;
mod walk;
#[allow(dead_code, reason = "sizes of segments are of no interest here")]
mod wire;

use core::{hint::black_box, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST, TC_ACT_UNSPEC},
    btf_maps::PerCpuHashMap,
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::{btf_map, classifier},
    programs::TcContext,
};
use monitor_ebpf::talk::{self, Amount, Flow, FlowKey, Talked};

use self::packet::Packet;

/// See [`talk::FLOWS_MAP`].
#[btf_map]
static FLOWS: PerCpuHashMap<FlowKey, Flow, { talk::FLOWS }> = PerCpuHashMap::new();
/// See [`talk::NO_ROOM_MAP`].
#[btf_map]
static NO_ROOM: PerCpuHashMap<u64, Talked, { talk::SLOTS }, { place::NO_PREALLOC }> = PerCpuHashMap::new();

#[classifier]
fn ingress(ctx: TcContext) -> i32 {
    note(ctx.skb.skb, place::receives(true));
    TC_ACT_UNSPEC
}

#[classifier]
fn egress(ctx: TcContext) -> i32 {
    note(ctx.skb.skb, place::receives(false));
    TC_ACT_UNSPEC
}

#[inline(always)]
fn note(skb: *mut __sk_buff, receives: bool) {
    let mut packet = MaybeUninit::uninit();
    let packet = Packet::zeroed(&mut packet);
    if !packet::read(skb, packet) {
        return;
    }
    let amount = amount(skb);
    let key = key(place::slot(skb), packet, receives);
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let flow = FLOWS.get_ptr_mut(key).or_else(|| {
        // One by one: else a call writes byte by byte.
        let zero = || Amount { packets: black_box(0), bytes: black_box(0) };
        let new = Flow { talked: Talked { receive: zero(), transmit: zero() }, first: now, last: now };
        // Another CPU may be first, or the map full.
        let _inserted = FLOWS.insert(key, new, BPF_NOEXIST.into());
        FLOWS.get_ptr_mut(key)
    });
    match flow {
        // SAFETY: the value is this CPU's own and lives as long as the program runs; only fields' addresses are taken.
        Some(flow) => unsafe {
            // An entry that another CPU made is 0 on this one.
            if (*flow).first == 0 {
                (*flow).first = now;
            }
            (*flow).last = now;
            add(&raw mut (*flow).talked, receives, amount);
        },
        None => no_room(key.slot, receives, amount),
    }
}

#[inline(never)]
fn no_room(slot: u64, receives: bool, amount: Amount) {
    if let Some(talked) = place::netns(slot).and_then(|netns| NO_ROOM.get_ptr_mut(netns)) {
        // SAFETY: as in `note`.
        unsafe { add(talked, receives, amount) };
    }
}

/// # Safety
/// `talked` must point into this CPU's value of a map.
#[inline(always)]
unsafe fn add(talked: *mut Talked, receives: bool, amount: Amount) {
    // SAFETY: the caller's promise.
    unsafe {
        let to = if receives { &raw mut (*talked).receive } else { &raw mut (*talked).transmit };
        (*to).packets += amount.packets;
        (*to).bytes += amount.bytes;
    }
}

/// As the default counters count it.
#[inline(always)]
fn amount(skb: *mut __sk_buff) -> Amount {
    // SAFETY: the context is valid.
    let (len, offloaded) = unsafe { (u64::from((*skb).len), (*skb).gso_size | (*skb).vlan_present) };
    if offloaded == 0 {
        return Amount { packets: 1, bytes: len };
    }
    let wire = wire::wire(skb, parse::any(skb));
    Amount { packets: 1 + wire.full, bytes: len + wire.extra_bytes }
}

#[inline(always)]
const fn key(slot: u64, packet: &Packet, receives: bool) -> FlowKey {
    let Packet { source, destination, source_port, destination_port, family, protocol, transport: _ } =
        *packet;
    let (local, remote, local_port, remote_port) = if receives {
        (destination, source, destination_port, source_port)
    } else {
        (source, destination, source_port, destination_port)
    };
    FlowKey { slot, local, remote, local_port, remote_port, family, protocol, reserved: 0 }
}
