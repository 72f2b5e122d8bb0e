//! Whose a kernel structure is, for the tracing programs: which watched namespace it leads to.

use aya_ebpf::{Global, btf_maps::HashMap, helpers::bpf_probe_read_kernel, macros::btf_map};
use monitor_ebpf::trace::{self, ABSENT, NetnsKey};

/// `BPF_F_NO_PREALLOC`.
pub(crate) const NO_PREALLOC: usize = 1;

/// See [`trace::WATCHED_MAP`].
#[btf_map]
static WATCHED: HashMap<NetnsKey, u64, { trace::WATCHED }, NO_PREALLOC> = HashMap::new();

#[unsafe(no_mangle)]
static SKB_DEV: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static DEV_NET: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SOCK_NET: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static NET_COOKIE: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static NET_INUM: Global<u32> = Global::new(ABSENT);

/// The namespace of a socket; 0 where there is none.
#[inline(always)]
pub(crate) fn of_socket(socket: u64) -> u64 {
    pointer(socket, SOCK_NET.load())
}

/// The namespace of the device a packet is at; 0 where there is none.
#[inline(always)]
pub(crate) fn of_packet(skb: u64) -> u64 {
    match pointer(skb, SKB_DEV.load()) {
        0 => 0,
        device => pointer(device, DEV_NET.load()),
    }
}

/// The number of a namespace, if it is watched.
#[inline(always)]
pub(crate) fn watched(net: u64) -> Option<u64> {
    if net == 0 {
        return None;
    }
    let cookie = match NET_COOKIE.load() {
        ABSENT => 0,
        offset => read::<u64>(net, offset)?,
    };
    let key = NetnsKey { cookie, inum: read::<u32>(net, NET_INUM.load())?, reserved: 0 };
    // SAFETY: user space alone writes the value, once, before the namespace is watched.
    WATCHED.get_ptr(key).map(|number| unsafe { *number })
}

/// A pointer out of a kernel structure; 0 where there is none.
#[inline(always)]
pub(crate) fn pointer(base: u64, offset: u32) -> u64 {
    read(base, offset).unwrap_or(0)
}

#[inline(always)]
pub(crate) fn read<T>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address, and fails where it is none.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}
