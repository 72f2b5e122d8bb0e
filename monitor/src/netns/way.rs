//! Ways into namespaces that have no name of ours: a path, or a socket of another process. A tour enters one after the
//! other on one fresh thread, which then ends.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::PathBuf,
};

use nix::sched::{CloneFlags, setns};

use super::{Identity, NetnsError, failed, failed_io, is_netns, on_thread, own_identity};

/// `SIOCGSKNS` of `include/uapi/linux/sockios.h`.
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// How a namespace can be opened. It may lead to another one by the time it is used: who enters looks where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// A file of the kernel's file system of namespaces: a name, `/proc/PID/ns/net`, `/proc/PID/fd/N`.
    Path(PathBuf),
    /// A socket of a process that lives elsewhere.
    Socket {
        /// The process.
        pid: u32,
        /// Its descriptor.
        fd: i32,
    },
}

impl Way {
    /// Opens the namespace. Let it go soon: it keeps the namespace alive.
    ///
    /// # Errors
    /// It is gone, is no network namespace, or may not be opened.
    pub fn open(&self) -> Result<OwnedFd, NetnsError> {
        match self {
            Self::Path(path) => {
                // Whatever is there by now: not waited for, and never the controlling terminal.
                let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
                let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
                let file = OwnedFd::from(file.map_err(failed_io("open", path))?);
                is_netns(file.as_fd(), path)?;
                Ok(file)
            }
            Self::Socket { pid, fd } => {
                let path = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
                let opened = PidFd::open(*pid).and_then(|process| process.netns_of_socket(*fd));
                opened.map_err(failed_io("open the namespace of", &path))
            }
        }
    }

    /// How it reads in a message.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Socket { pid, fd } => PathBuf::from(format!("/proc/{pid}/fd/{fd}")),
        }
    }
}

/// Enters namespaces one after the other and does `at` in each, with its number in `ways`; says of each whether it came
/// so far. All on one fresh thread: `at` may block, and must not leave anything that belongs to the thread.
///
/// # Errors
/// The thread panicked.
pub fn tour(
    ways: &[&Way],
    at: &mut (dyn FnMut(usize, Identity, BorrowedFd<'_>) + Send),
) -> Result<Vec<Result<(), NetnsError>>, NetnsError> {
    on_thread(|| {
        let visit = |(number, way): (usize, &&Way)| {
            let netns = way.open()?;
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(failed("setns", &way.path()))?;
            at(number, own_identity()?, netns.as_fd());
            Ok(())
        };
        Ok(ways.iter().enumerate().map(visit).collect())
    })
}

/// Runs `work` on a fresh thread inside the namespace that a way leads to, and waits for it.
///
/// # Errors
/// It may not be entered; then `work` did not run.
pub fn by_way<T: Send>(way: &Way, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let netns = way.open()?;
    on_thread(|| {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(failed("setns", &way.path()))?;
        drop(netns);
        Ok(work())
    })
}

/// A process by its pidfd, so that the number cannot come to mean another one.
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Since kernel 5.3.
    ///
    /// # Errors
    /// There is no such process.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
        syscall(libc::SYS_pidfd_open, pid, 0).map(Self)
    }

    /// The namespace that a socket (or a descriptor of /dev/net/tun) of the process belongs to: the descriptor is duplicated
    /// here (pidfd_getfd(2)), asked (`SIOCGSKNS`) and closed at once. Nothing is read from the socket or written to it, and
    /// its owner notices nothing. Since kernel 5.6.
    ///
    /// # Errors
    /// It takes what ptrace(2) takes, and `CAP_NET_ADMIN` over that namespace.
    #[expect(unsafe_code, reason = "nix does not know SIOCGSKNS")]
    pub fn netns_of_socket(&self, fd: i32) -> io::Result<OwnedFd> {
        let socket = syscall(libc::SYS_pidfd_getfd, self.0.as_raw_fd(), fd)?;
        // SAFETY: the descriptor is open, and the request takes no argument.
        let netns = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
        if netns < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(netns) })
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
