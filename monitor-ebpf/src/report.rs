//! Rare diagnostics, at debug level.
//!
//! They cost nothing while debug is off: the level is a read-only global, so the verifier removes the whole branch
//! when the program is loaded (see [`monitor_ebpf::LOG_LEVEL`]).

use aya_ebpf::bindings::__sk_buff;
use aya_log_ebpf::debug;

/// A frame counted as unknown because a header it announces is broken or missing.
#[inline(never)]
pub(crate) fn malformed(skb: *mut __sk_buff) {
    // SAFETY: the kernel hands every classifier a valid context.
    let (ifindex, len) = unsafe { ((*skb).ifindex, (*skb).len) };
    debug!(skb, "ifindex {}: malformed frame of {} bytes counted as unknown", ifindex, len);
}

/// A packet at an interface nobody made a chunk for: it passes uncounted.
#[inline(never)]
pub(crate) fn no_slot(skb: *mut __sk_buff) {
    // SAFETY: the kernel hands every classifier a valid context.
    let ifindex = unsafe { (*skb).ifindex };
    debug!(skb, "ifindex {}: no slot, packet not counted", ifindex);
}
