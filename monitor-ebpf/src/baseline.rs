//! What the benchmark compares the real programs with; never attached to anything.
#![no_std]
#![no_main]

mod runtime;

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    btf_maps::PerCpuArray,
    macros::{btf_map, classifier, raw_tracepoint},
    programs::{RawTracePointContext, TcContext},
};

#[btf_map]
static SLOT: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();

/// Does nothing: what the kernel's own run loop costs.
#[classifier]
fn empty(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Does nothing on a tracepoint.
#[raw_tracepoint]
fn empty_trace(_ctx: RawTracePointContext) -> i32 {
    0
}

/// Two additions in one static slot, without looking at the packet.
#[classifier]
fn one_slot(ctx: TcContext) -> i32 {
    if let Some(slot) = SLOT.get_ptr_mut(0) {
        // SAFETY: the pointer is this CPU's own value and the program is not re-entered on one CPU.
        unsafe {
            (*slot)[0] += 1;
            (*slot)[1] += u64::from(ctx.len());
        }
    }
    TC_ACT_UNSPEC
}
