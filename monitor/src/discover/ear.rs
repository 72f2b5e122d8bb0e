//! Waiting for changes anywhere on the host: links of every namespace that the host's knows by a number, such numbers given
//! and taken, and mounts (names come and go with them). One wait for all; nothing is asked here.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        socket::{
            AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, setsockopt, socket,
            sockopt::{RcvBuf, RcvBufForce},
        },
    },
};

/// `RTNLGRP_LINK` and `RTNLGRP_NSID` of `include/uapi/linux/rtnetlink.h`, as bits.
const GROUPS: u32 = 1 | 1 << (28 - 1);
/// Room for a burst of some thousand links.
const BUFFER: usize = 16 << 20;

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Links of the host's own namespace, or numbers that it knows others by.
    pub host: bool,
    /// Which links of the host's own namespace.
    pub links: BTreeSet<u32>,
    /// Links of namespaces, by the number that the host's knows them by.
    pub nsids: BTreeSet<i32>,
    /// Mounts.
    pub mounts: bool,
    /// Events were lost: anything may have changed.
    pub overrun: bool,
    /// Somebody called [`Waker::wake`].
    pub woken: bool,
}

impl Heard {
    /// Whether nothing was heard.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, other: Self) {
        let Self { host, links, nsids, mounts, overrun, woken } = other;
        self.host |= host;
        self.links.extend(links);
        self.nsids.extend(nsids);
        self.mounts |= mounts;
        self.overrun |= overrun;
        self.woken |= woken;
    }
}

/// An open ear, in the namespace of the thread that opened it.
pub struct Ear {
    netlink: OwnedFd,
    mounts: File,
    waker: std::sync::Arc<EventFd>,
}

/// Ends a wait from another thread.
#[derive(Clone)]
pub struct Waker(std::sync::Arc<EventFd>);

impl Waker {
    /// Ends the wait of now, or the next one.
    pub fn wake(&self) {
        if let Err(errno) = self.0.write(1) {
            // Full: it has been woken already.
            tracing::debug!("cannot wake: {errno}");
        }
    }
}

impl Ear {
    /// Starts listening: what changes from now on is heard.
    ///
    /// # Errors
    /// The kernel gave no socket, or there is no `/proc`.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        if setsockopt(&netlink, RcvBufForce, &BUFFER).is_err() {
            setsockopt(&netlink, RcvBuf, &BUFFER)?;
        }
        listen_to_all(&netlink)?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        let waker = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        // The file of a thread is of the thread that opened it, for as long as it is open.
        let mounts = File::open("/proc/thread-self/mountinfo")?;
        Ok(Self { netlink, mounts, waker: std::sync::Arc::new(waker) })
    }

    /// What ends a wait.
    pub fn waker(&self) -> Waker {
        Waker(std::sync::Arc::clone(&self.waker))
    }

    /// Waits for a change, at most so long; what comes within `settle` after it is taken with it, and whatever comes within
    /// `rest` from now: however many changes there are, it returns.
    pub fn wait(&mut self, most: Duration, settle: Duration, rest: Duration) -> Heard {
        let rested = Instant::now() + rest;
        let mut heard = self.wait_once(most);
        if heard.is_empty() || heard.woken {
            return heard;
        }
        let end = rested.max(Instant::now() + settle);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return heard;
            }
            heard.add(self.wait_once(left));
        }
    }

    fn wait_once(&mut self, most: Duration) -> Heard {
        let mut fds = [
            PollFd::new(self.netlink.as_fd(), PollFlags::POLLIN),
            // proc_pid_mounts(5): a change of mounts is an exceptional condition.
            PollFd::new(self.mounts.as_fd(), PollFlags::POLLPRI),
            PollFd::new(self.waker.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
        let mut heard = Heard::default();
        match poll(&mut fds, timeout) {
            Ok(0) | Err(_) => return heard,
            Ok(_) => {}
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let [netlink, mounts, woken] = fds.each_ref().map(ready);
        heard.mounts = mounts;
        heard.woken = woken && self.waker.read().is_ok();
        if netlink {
            self.drain(&mut heard);
        }
        heard
    }

    fn drain(&mut self, heard: &mut Heard) {
        let mut buffer = vec![0; 4096];
        loop {
            match receive(&self.netlink, &mut buffer) {
                Ok((Some(nsid), _)) => drop(heard.nsids.insert(nsid)),
                Ok((None, length)) => {
                    heard.host = true;
                    match about(&buffer[..length.min(buffer.len())]) {
                        Some(About::Link(ifindex)) => drop(heard.links.insert(ifindex)),
                        Some(About::Number(nsid)) => drop(heard.nsids.insert(nsid)),
                        None => {}
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOBUFS) => heard.overrun = true,
                    Some(libc::EINTR) => {}
                    _ => return,
                },
            }
        }
    }
}

/// What an event of the host's namespace is about.
enum About {
    /// A link, by its index.
    Link(u32),
    /// A number given or taken.
    Number(i32),
}

/// From the head of the message and the index at its place in `struct ifinfomsg`, or the first attribute after
/// `struct rtgenmsg`.
fn about(message: &[u8]) -> Option<About> {
    let number = |at: usize| message.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk));
    match number(4)? & 0xffff {
        // RTM_NEWLINK, RTM_DELLINK
        16 | 17 => number(20).map(About::Link),
        // RTM_NEWNSID, RTM_DELNSID: the first attribute is NETNSA_NSID.
        88 | 89 => number(24).map(|number| About::Number(number.cast_signed())),
        _ => None,
    }
}

/// Hears of every namespace that the socket's knows by a number, not of its own alone.
#[expect(unsafe_code, reason = "nix does not know NETLINK_LISTEN_ALL_NSID")]
fn listen_to_all(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads as many bytes as the value has.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_LISTEN_ALL_NSID,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One event: the number of the namespace it comes from, which the kernel gives beside the message; none for the socket's
/// own. With the length of the event.
#[expect(unsafe_code, reason = "nix does not know the control message that carries the number")]
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(Option<i32>, usize)> {
    // Room for a few control messages, aligned as their heads want it.
    let mut control = [0_u64; 16];
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes is a value of this type.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the kernel writes within the lengths given, to memory that lives until it returns.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let Ok(length) = usize::try_from(length) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the kernel has filled in the lengths; the macros stay within them.
    let mut head = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !head.is_null() {
        // SAFETY: `head` points to a whole control message head within `control`.
        let (level, kind) = unsafe { ((*head).cmsg_level, (*head).cmsg_type) };
        if (level, kind) == (libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID) {
            // SAFETY: this kind carries an int.
            let nsid = unsafe { libc::CMSG_DATA(head).cast::<i32>().read_unaligned() };
            return Ok((Some(nsid), length));
        }
        // SAFETY: as above.
        head = unsafe { libc::CMSG_NXTHDR(&raw const message, head) };
    }
    Ok((None, length))
}
