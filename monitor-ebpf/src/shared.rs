//! Programs for host ends: one instance for all of them, which finds an interface's slot by its ifindex.
//!
//! No packet is changed, dropped or redirected, and nothing is ever inserted into a map: user space makes the chunks.
#![no_std]
#![no_main]

mod count;
mod frame;
mod load;
mod parse;
mod report;
mod runtime;
mod tunnel;
mod walk;
mod wire;

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    btf_maps::{ArrayOfMaps, PerCpuArray},
    macros::{btf_map, classifier},
    programs::TcContext,
};
use monitor_ebpf::{CHUNK_SLOTS, CHUNKS as CHUNK_COUNT, Counters};

type Chunk = PerCpuArray<Counters, { CHUNK_SLOTS as usize }>;

/// See [`monitor_ebpf::CHUNKS_MAP`].
#[btf_map]
static CHUNKS: ArrayOfMaps<Chunk, { CHUNK_COUNT as usize }> = ArrayOfMaps::new();

#[classifier]
fn ingress(ctx: TcContext) -> i32 {
    if let Some(slot) = slot(&ctx) {
        // SAFETY: the slot is this CPU's own and lives as long as the program runs; only a field's address is taken.
        count::packet(ctx.skb.skb, unsafe { &raw mut (*slot).ingress }, report::malformed);
    }
    TC_ACT_UNSPEC
}

#[classifier]
fn egress(ctx: TcContext) -> i32 {
    if let Some(slot) = slot(&ctx) {
        // SAFETY: as in `ingress`.
        count::packet(ctx.skb.skb, unsafe { &raw mut (*slot).egress }, report::malformed);
    }
    TC_ACT_UNSPEC
}

/// The counters of the interface the packet is at; a packet of an interface without a chunk passes uncounted.
#[inline(always)]
fn slot(ctx: &TcContext) -> Option<*mut Counters> {
    // SAFETY: the kernel hands every classifier a valid context.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    let slot = CHUNKS.get_value_ptr_mut(ifindex / CHUNK_SLOTS, &(ifindex % CHUNK_SLOTS));
    if slot.is_none() {
        report::no_slot(ctx.skb.skb);
    }
    slot
}
