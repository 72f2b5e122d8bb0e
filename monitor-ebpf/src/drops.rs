//! Counts the packets that the kernel drops, by namespace, reason and kernel function: `kfree_skb` as a raw tracepoint.
//!
//! Whose a packet is: the namespace of the socket that was to receive it, where the kernel says which; else of the device
//! it is at; else of the socket it belongs to. The first of them that is watched. The pointer to the device can be stale,
//! because queues use its place for something else; then no watched namespace is found behind it.
//!
//! The kernel runs a tracing program never twice at once on one CPU, so that the additions are plain ones; what it skips
//! for that it counts itself (`recursion_misses`).
#![no_std]
#![no_main]

mod netns;
mod runtime;

use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    btf_maps::{PerCpuArray, PerCpuHashMap, ProgramArray},
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use monitor_ebpf::trace::{self, ABSENT, PlaceKey, REST, ReasonKey};
use netns::{pointer, watched};

/// See [`trace::PROGRAMS_MAP`].
#[btf_map]
static PROGRAMS: ProgramArray<1> = ProgramArray::new();
/// See [`trace::PLACES_MAP`].
#[btf_map]
static PLACES: PerCpuHashMap<PlaceKey, u64, { trace::PLACES }> = PerCpuHashMap::new();
/// See [`trace::REASONS_MAP`].
#[btf_map]
static REASONS: PerCpuHashMap<ReasonKey, u64, { trace::REASONS }> = PerCpuHashMap::new();
/// See [`trace::OTHER_MAP`].
#[btf_map]
static OTHER: PerCpuArray<u64, { trace::OTHERS }> = PerCpuArray::new();

#[unsafe(no_mangle)]
static SKB_SK: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static HAS_RX_SK: Global<u32> = Global::new(0);

/// What is attached for good.
#[raw_tracepoint]
fn kfree_skb(ctx: RawTracePointContext) -> i32 {
    // SAFETY: nothing here has a destructor that the jump would leave out.
    unsafe { PROGRAMS.tail_call(&ctx, 0) };
    0
}

/// What counts.
#[raw_tracepoint]
fn dropped(ctx: RawTracePointContext) -> i32 {
    let (skb, location, reason) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1), ctx.arg::<u32>(2));
    match owner(&ctx, skb) {
        Some(netns) => count(netns, location, reason),
        None => count_other(reason),
    }
    0
}

/// The number of the watched namespace a packet belongs to.
#[inline(always)]
fn owner(ctx: &RawTracePointContext, skb: u64) -> Option<u64> {
    let mut seen = 0;
    if HAS_RX_SK.load() == 1 {
        let socket = ctx.arg::<u64>(3);
        if socket != 0 {
            seen = netns::of_socket(socket);
            if let Some(netns) = watched(seen) {
                return Some(netns);
            }
        }
    }
    let net = netns::of_packet(skb);
    if net != 0 && net != seen {
        if let Some(netns) = watched(net) {
            return Some(netns);
        }
        seen = net;
    }
    let socket = pointer(skb, SKB_SK.load());
    if socket == 0 {
        return None;
    }
    let net = netns::of_socket(socket);
    if net == seen { None } else { watched(net) }
}

#[inline(always)]
fn count(netns: u64, location: u64, reason: u32) {
    let place = PlaceKey { netns, location, reason, reserved: 0 };
    if let Some(count) = PLACES.get_ptr_mut(place) {
        return add(count);
    }
    // Another CPU may be first, or the table full.
    let _inserted = PLACES.insert(place, 0, BPF_NOEXIST.into());
    match PLACES.get_ptr_mut(place) {
        Some(count) => add(count),
        None => count_reason(netns, reason),
    }
}

#[inline(always)]
fn count_reason(netns: u64, reason: u32) {
    let key = ReasonKey { netns, reason, reserved: 0 };
    if let Some(count) = REASONS.get_ptr_mut(key) {
        return add(count);
    }
    let _inserted = REASONS.insert(key, 0, BPF_NOEXIST.into());
    if let Some(count) = REASONS.get_ptr_mut(key) {
        return add(count);
    }
    match REASONS.get_ptr_mut(ReasonKey { netns, reason: REST, reserved: 0 }) {
        Some(count) => add(count),
        None => count_other(reason),
    }
}

#[inline(always)]
fn count_other(reason: u32) {
    let last = trace::OTHERS as u32 - 1;
    if let Some(count) = OTHER.get_ptr_mut(if reason < last { reason } else { last }) {
        add(count);
    }
}

#[inline(always)]
fn add(count: *mut u64) {
    // SAFETY: the value is this CPU's own and lives as long as the program runs; see the file's comment.
    unsafe { *count += 1 };
}
