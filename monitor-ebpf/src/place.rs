//! Where an instance of an opt-in program is attached, and whose packets these are.

use aya_ebpf::{Global, bindings::__sk_buff, btf_maps::HashMap, macros::btf_map};
use monitor_ebpf::talk;

/// `BPF_F_NO_PREALLOC`: only user space inserts.
pub(crate) const NO_PREALLOC: usize = 1;

/// See [`talk::SLOTS_MAP`].
#[btf_map]
static SLOTS: HashMap<u64, talk::Slot, { talk::SLOTS }, NO_PREALLOC> = HashMap::new();

#[unsafe(no_mangle)]
static SLOT: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static INSIDE: Global<u32> = Global::new(0);

/// The slot of the interface a packet is at.
#[inline(always)]
pub(crate) fn slot(skb: *mut __sk_buff) -> u64 {
    match SLOT.load() {
        // SAFETY: the kernel hands every classifier a valid context.
        0 => u64::from(unsafe { (*skb).ifindex }),
        slot => slot,
    }
}

/// Whether the namespace receives what is at this hook: at the host end of its veth it is the other way round.
#[inline(always)]
pub(crate) fn receives(ingress: bool) -> bool {
    ingress == (INSIDE.load() == 1)
}

/// The namespace of a slot; none where nobody looks at it any more.
#[inline(always)]
pub(crate) fn netns(slot: u64) -> Option<u64> {
    // SAFETY: user space alone writes the value, before the programs are attached; the cookie never changes.
    SLOTS.get_ptr(slot).map(|slot| unsafe { (*slot).cookie })
}
