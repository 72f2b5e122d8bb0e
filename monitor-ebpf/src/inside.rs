//! Programs for an end counted inside its namespace: ifindexes repeat across namespaces, so each such end gets an
//! instance of its own with one slot of its own.
//!
//! No diagnostics here: a ring buffer for each interface would cost more memory than its counters.
#![no_std]
#![no_main]

mod count;
mod frame;
mod load;
mod parse;
mod runtime;
mod tunnel;
mod walk;
mod wire;

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    btf_maps::PerCpuArray,
    macros::{btf_map, classifier},
    programs::TcContext,
};
use monitor_ebpf::Counters;

/// See [`monitor_ebpf::OWN_MAP`].
#[btf_map]
static OWN: PerCpuArray<Counters, 1> = PerCpuArray::new();

#[classifier]
fn ingress(ctx: TcContext) -> i32 {
    if let Some(slot) = OWN.get_ptr_mut(0) {
        // SAFETY: the slot is this CPU's own and lives as long as the program runs; only a field's address is taken.
        count::packet(ctx.skb.skb, unsafe { &raw mut (*slot).ingress }, |_| {});
    }
    TC_ACT_UNSPEC
}

#[classifier]
fn egress(ctx: TcContext) -> i32 {
    if let Some(slot) = OWN.get_ptr_mut(0) {
        // SAFETY: as in `ingress`.
        count::packet(ctx.skb.skb, unsafe { &raw mut (*slot).egress }, |_| {});
    }
    TC_ACT_UNSPEC
}
