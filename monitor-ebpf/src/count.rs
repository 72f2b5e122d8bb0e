//! Adds one packet to the counters of one hook of one interface.
//!
//! The slot is this CPU's own and both hooks run with softirqs off, so nothing comes between on one CPU and the
//! additions are plain ones. (A kernel with PREEMPT_RT that runs softirqs in parallel on one CPU may lose some.)
//! Almost every packet is plain (no GSO, no tag in metadata, ordinary headers) and stays in `packet`; the rest is `careful`.

use core::{hint::black_box, mem::offset_of};

use aya_ebpf::bindings::__sk_buff;
use monitor_ebpf::{ClassCounters, DirectionCounters, SIZE_BOUNDS, flag};

use crate::{frame, parse, wire::wire};

const ETHERNET: usize = frame::ETHERNET as usize;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Classes and sizes an index of four bits can name; the verifier has to see that none lies outside the slot.
const PLACES: usize = 16;
const _: () = assert!(PLACES * size_of::<ClassCounters>() <= size_of::<DirectionCounters>());
const _: () = assert!(
    offset_of!(DirectionCounters, sizes) + PLACES * size_of::<u64>() <= size_of::<DirectionCounters>()
);

/// Counts a packet. `malformed` is told of a frame whose headers are broken.
#[inline(always)]
pub(crate) fn packet(
    skb: *mut __sk_buff,
    counters: *mut DirectionCounters,
    malformed: impl Fn(*mut __sk_buff),
) {
    // SAFETY: the context is valid.
    let (len, offloaded) = unsafe { ((*skb).len, (*skb).gso_size | (*skb).vlan_present) };
    let plain = if offloaded == 0 { parse::quick::<ETHERNET>(skb) } else { None };
    let Some(plain) = plain else { return careful(skb, counters, malformed) };
    let blur = blur(len);
    let class = class(counters, plain.class, blur);
    // SAFETY: see the callers for `counters`; nobody else writes this CPU's slot while the program runs.
    unsafe {
        (*class).skbs += 1;
        (*class).skb_bytes += u64::from(len);
        *size(counters, bucket(len), blur) += 1;
        if plain.tcp_flags & (SYN | FIN | RST) != 0 {
            flags(&mut *counters, plain.tcp_flags);
        }
    }
}

/// Counts any packet, at leisure.
#[inline(never)]
fn careful(skb: *mut __sk_buff, counters: *mut DirectionCounters, malformed: impl Fn(*mut __sk_buff)) {
    let frame = parse::any(skb);
    let wire = wire(skb, frame);
    if frame.malformed {
        malformed(skb);
    }
    let class = class(counters, bounded(frame.class), 0);
    // SAFETY: as in `packet`.
    unsafe {
        (*class).skbs += 1;
        (*class).skb_bytes += u64::from((*skb).len);
        (*class).extra_packets += wire.full;
        (*class).extra_bytes += wire.extra_bytes;
        if wire.full != 0 {
            *size(counters, bounded(bucket_of(wire.full_size) as usize), 0) += wire.full;
        }
        *size(counters, bucket(wire.last_size), blur((*skb).len)) += 1;
        flags(&mut *counters, frame.tcp_flags);
    }
}

/// The compiler knows what a function can return and would leave the mask out; the verifier does not and needs it.
#[inline(always)]
fn bounded(index: usize) -> usize {
    black_box(index) % PLACES
}

/// Always 0, for no skb is 256 MiB long; but the verifier does not know that. Without CAP_PERFMON it refuses (against
/// Spectre; it also makes the program some 10 ns slower then) a pointer to a map's value that each path moves by another constant: with some bits of the index unknown,
/// there is no constant. A number from a function with a symbol of its own is unknown to it anyway.
#[inline(always)]
const fn blur(len: u32) -> usize {
    (len >> 28) as usize
}

#[inline(always)]
const fn class(counters: *mut DirectionCounters, class: usize, blur: usize) -> *mut ClassCounters {
    counters.cast::<ClassCounters>().wrapping_add(class | blur)
}

#[inline(always)]
const fn size(counters: *mut DirectionCounters, bucket: usize, blur: usize) -> *mut u64 {
    let sizes = counters.wrapping_byte_add(offset_of!(DirectionCounters, sizes)).cast::<u64>();
    sizes.wrapping_add(bucket | blur)
}

/// Counts control flags: a connection's first and last segments, rare beside its others.
#[inline(always)]
fn flags(counters: &mut DirectionCounters, flags: u8) {
    if flags & SYN != 0 {
        let syn = if flags & ACK == 0 { flag::SYN } else { flag::SYNACK };
        counters.tcp_flags[syn] += 1;
    }
    if flags & FIN != 0 {
        counters.tcp_flags[flag::FIN] += 1;
    }
    if flags & RST != 0 {
        counters.tcp_flags[flag::RST] += 1;
    }
}

/// Position of a size among [`SIZE_BOUNDS`], by three or four comparisons.
#[inline(always)]
const fn bucket(size: u32) -> usize {
    if size <= SIZE_BOUNDS[4] {
        if size <= SIZE_BOUNDS[1] {
            if size <= SIZE_BOUNDS[0] { 0 } else { 1 }
        } else if size <= SIZE_BOUNDS[2] {
            2
        } else if size <= SIZE_BOUNDS[3] {
            3
        } else {
            4
        }
    } else if size <= SIZE_BOUNDS[6] {
        if size <= SIZE_BOUNDS[5] { 5 } else { 6 }
    } else if size <= SIZE_BOUNDS[8] {
        if size <= SIZE_BOUNDS[7] { 7 } else { 8 }
    } else if size <= SIZE_BOUNDS[9] {
        9
    } else {
        10
    }
}

/// [`bucket`] with a symbol of its own, checked once; see `walk_network`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bucket_of(size: u32) -> u64 {
    bucket(size) as u64
}
