//! The few kernel calls that aya 0.14 lacks: what a link is attached to, which links an interface has, detaching a
//! link, opening a pin of any kind, deleting an entry of an array of maps, and waiting until every CPU has left a program.
#![allow(unsafe_code, reason = "bpf(2) and membarrier(2) take pointers")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use super::Hook;

// enum bpf_cmd and enum bpf_attach_type of <linux/bpf.h>.
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// `MEMBARRIER_CMD_GLOBAL` of <linux/membarrier.h>: `synchronize_rcu()`.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
/// Links listed per hook; more than anyone attaches.
const LINKS: usize = 64;

/// What a TCX link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    /// Identity of the link.
    pub(crate) id: u32,
    /// The program it runs.
    pub(crate) program: u32,
    /// Index of the interface in the namespace it is in; 0 once the interface is gone or the link detached.
    pub(crate) ifindex: u32,
}

/// `struct bpf_link_info` as far as it is read: the common part, then `tcx` of its union.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    ifindex: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct DetachAttr {
    link_fd: u32,
}

/// What a link is attached to (`BPF_OBJ_GET_INFO_BY_FD`).
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = RawLinkInfo::default();
    let mut attr =
        InfoAttr { fd: number(link), len: size_of::<RawLinkInfo>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: `attr` is the `info` member of `union bpf_attr`; the kernel writes at most `len` bytes to `info`.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(LinkInfo { id: info.id, program: info.prog_id, ifindex: info.ifindex })
}

/// Opens what is pinned at a path: a map, a program or a link.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = PinAttr { path: path.as_ptr() as u64, ..PinAttr::default() };
    // SAFETY: `attr` is the `BPF_OBJ_GET` member of `union bpf_attr`; the path ends with a zero and lives until then.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attr, size_of::<PinAttr>()) };
    match i32::try_from(fd) {
        // SAFETY: the kernel gave this descriptor, to nobody else.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The links of one hook of an interface of the calling thread's namespace, in the order they run.
/// `EINVAL` where the kernel has no TCX.
pub(super) fn tcx_links(ifindex: u32, hook: Hook) -> io::Result<Vec<u32>> {
    let (mut programs, mut links) = ([0_u32; LINKS], [0_u32; LINKS]);
    let mut attr = QueryAttr {
        ifindex,
        attach_type: match hook {
            Hook::Ingress => BPF_TCX_INGRESS,
            Hook::Egress => BPF_TCX_EGRESS,
        },
        prog_ids: programs.as_mut_ptr() as u64,
        link_ids: links.as_mut_ptr() as u64,
        count: LINKS as u32,
        ..QueryAttr::default()
    };
    // SAFETY: `attr` is the `query` member of `union bpf_attr`; the kernel writes at most `count` numbers to each array.
    match unsafe { bpf(BPF_PROG_QUERY, &mut attr) } {
        Ok(()) => Ok(links.into_iter().take(attr.count as usize).collect()),
        // Kernels before 6.6.3 say ENOENT where nothing is attached.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Detaches a link now, whoever else holds it; returns when no CPU runs its program for this link.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = DetachAttr { link_fd: number(link) };
    // SAFETY: `attr` is the `link_detach` member of `union bpf_attr`, without pointers.
    unsafe { bpf(BPF_LINK_DETACH, &mut attr) }
}

/// Deletes an entry of a map with keys of four bytes.
pub(super) fn delete_element(map: BorrowedFd<'_>, key: u32) -> io::Result<()> {
    let mut attr = ElemAttr { map_fd: number(map), key: (&raw const key) as u64, ..ElemAttr::default() };
    // SAFETY: `attr` is the element member of `union bpf_attr`; the kernel reads four bytes at `key`.
    unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) }
}

/// Takes an entry out of a hash: what it held at the moment it went. Says whether it was there. `value` is the whole of
/// it, of all possible CPUs for a per-CPU map.
pub(crate) fn take_element<K>(map: BorrowedFd<'_>, key: &K, value: &mut [u64]) -> io::Result<bool> {
    let mut attr = ElemAttr {
        map_fd: number(map),
        key: (&raw const *key) as u64,
        value: value.as_mut_ptr() as u64,
        ..ElemAttr::default()
    };
    // SAFETY: `attr` is the element member of `union bpf_attr`; the callers' maps have keys of this type and values of
    // this length.
    match unsafe { bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) } {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits until every program that was running when called has ended (an RCU grace period).
pub(crate) fn wait_for_programs() -> io::Result<()> {
    // SAFETY: membarrier takes no pointer.
    match unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// # Safety
/// `attr` must be the prefix of `union bpf_attr` that `command` reads, and its pointers valid.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<()> {
    // SAFETY: the size passed is that of `attr`; the rest is the caller's promise.
    match unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut T, size_of::<T>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}
