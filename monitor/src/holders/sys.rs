//! The network namespace of a socket of another process: its descriptor is duplicated here (pidfd_getfd(2)), asked
//! (`SIOCGSKNS`) and closed at once. Nothing is read from the socket or written to it, and its owner notices nothing.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

/// `SIOCGSKNS` of <linux/sockios.h>.
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// A process by its pidfd, so that the number cannot come to mean another one.
pub(super) struct PidFd(OwnedFd);

impl PidFd {
    /// Since kernel 5.3.
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
        syscall(libc::SYS_pidfd_open, pid, 0).map(Self)
    }

    /// Device and inode of the namespace that a socket (or a descriptor of /dev/net/tun) of the process belongs to. Since
    /// kernel 5.6; needs what ptrace(2) needs, and `CAP_NET_ADMIN` over that namespace.
    #[expect(unsafe_code, reason = "nix does not know SIOCGSKNS")]
    pub(super) fn netns_of_socket(&self, fd: i32) -> io::Result<(u64, u64)> {
        let socket = syscall(libc::SYS_pidfd_getfd, self.0.as_raw_fd(), fd)?;
        // SAFETY: the descriptor is open, and the request takes no argument.
        let netns = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
        if netns < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        let meta = File::from(unsafe { OwnedFd::from_raw_fd(netns) }).metadata()?;
        Ok((meta.dev(), meta.ino()))
    }
}

/// Both system calls take two numbers and no flags, and make a descriptor.
#[expect(unsafe_code, reason = "nix knows neither pidfd_open nor pidfd_getfd")]
fn syscall(number: libc::c_long, first: i32, second: i32) -> io::Result<OwnedFd> {
    // SAFETY: no argument is a pointer.
    let made = unsafe { libc::syscall(number, first, second, 0) };
    let made = i32::try_from(made).map_err(io::Error::other)?;
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}
