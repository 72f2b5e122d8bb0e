//! What an skb becomes on the wire: GSO segments, repeated headers, offloaded tags.

use aya_ebpf::bindings::__sk_buff;

use crate::{frame::Frame, tunnel};

/// Bytes of a VLAN tag that is in the skb's metadata and goes onto the wire.
const TAG: u64 = 4;
/// `gso_size` of packets whose segments are of unequal size (SCTP): `GSO_BY_FRAGS` in `include/linux/skbuff.h`.
const GSO_BY_FRAGS: u64 = 0xffff;
/// `gso_segs` is a u16 in the kernel.
const MAX_SEGMENTS: u64 = 0xffff;

/// What an skb becomes on the wire: `full` packets of one size and a last one.
pub(crate) struct Wire {
    /// Packets beside the last one.
    pub(crate) full: u64,
    pub(crate) full_size: u32,
    pub(crate) last_size: u32,
    /// Bytes beyond `skb->len`.
    pub(crate) extra_bytes: u64,
}

/// GSO: each segment repeats the headers; an offloaded tag goes onto each packet.
#[inline(always)]
pub(crate) fn wire(skb: *mut __sk_buff, frame: Frame) -> Wire {
    // SAFETY: the context is valid.
    let (len, tagged, gso_size, gso_segs) = unsafe {
        ((*skb).len.into(), (*skb).vlan_present, u64::from((*skb).gso_size), u64::from((*skb).gso_segs))
    };
    let tag = if tagged != 0 { TAG } else { 0 };
    let one = Wire { full: 0, full_size: 0, last_size: (len + tag) as u32, extra_bytes: tag };
    if gso_size == 0 {
        return one;
    }
    let headers = u64::from(tunnel::headers(skb, frame));
    if headers > len {
        return one;
    }
    let payload: u64 = len - headers;
    // An untrusted sender's packet (SKB_GSO_DODGY) has gso_segs 0 until the kernel segments it.
    let segments = if gso_segs != 0 { gso_segs } else { divide_up(payload, gso_size) };
    let segments = segments.clamp(1, MAX_SEGMENTS);
    // Sizes unknown: as good as equal.
    let gso_size = if gso_size == GSO_BY_FRAGS { divide_up(payload, segments) } else { gso_size };
    let full = segments - 1;
    Wire {
        full,
        full_size: (headers + gso_size + tag) as u32,
        last_size: (headers + payload.saturating_sub(full * gso_size) + tag) as u32,
        extra_bytes: full * headers + segments * tag,
    }
}

/// Rounds up. Zero by zero, which cannot come here, would otherwise bring a panic into the program.
#[inline(always)]
const fn divide_up(bytes: u64, by: u64) -> u64 {
    if by == 0 { 0 } else { bytes.div_ceil(by) }
}
