//! Waiting for changes: of the host's links, addresses and routes, of the directory of namespaces, of the file.
//!
//! Events say only that something changed; what it is, the next look tells. So nothing is decoded, and a storm of
//! events costs the memory of one buffer.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
};

use nix::sys::{
    inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
        socket,
        sockopt::{RcvBuf, RcvBufForce},
    },
};
use tokio::io::{
    Interest,
    unix::{AsyncFd, AsyncFdReadyGuard},
};

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A link, address or route of the host.
    Netlink,
    /// A table of ours.
    Netfilter,
    /// A name in the directory of namespaces.
    Netns,
    /// The file.
    File,
    /// Events were lost.
    Overrun,
}

/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE` of
/// `include/uapi/linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// `NFNLGRP_NFTABLES` of `include/uapi/linux/netfilter/nfnetlink.h`, as a bit.
const NFTABLES: u32 = 1 << (7 - 1);
/// Room for a burst of about 1,800 veth pairs; the default is good for 50.
const BUFFER: usize = 8 << 20;

/// An open ear. Held on the host's namespace only.
pub struct Watch {
    netlink: AsyncFd<OwnedFd>,
    /// Absent where the kernel has no nf_tables.
    nftables: Option<AsyncFd<OwnedFd>>,
    /// The name of our tables.
    table: String,
    inotify: AsyncFd<Ear>,
    netns: WatchDescriptor,
    runs: WatchDescriptor,
    file: Option<(WatchDescriptor, OsString)>,
}

impl Watch {
    /// Starts listening; what changes from now on is told. Makes the directory of namespaces if it is missing.
    ///
    /// # Errors
    /// The kernel gave no socket or watch.
    pub fn new(netns_dir: &Path, runs: &Path, file: Option<&Path>, table: &str) -> io::Result<Self> {
        let netlink = listen(SockProtocol::NetlinkRoute, GROUPS)?;
        let nftables = listen(SockProtocol::NetlinkNetFilter, NFTABLES).and_then(register).ok();

        std::fs::create_dir_all(netns_dir)?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let names = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
        let netns = inotify.add_watch(netns_dir, names)?;
        std::fs::create_dir_all(runs)?;
        // Files there are put in their place by a rename.
        let runs = inotify.add_watch(runs, AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE)?;
        // The folder, not the file: editors put a new file in the old one's place.
        let file = match file.and_then(|file| Some((file.parent()?, file.file_name()?))) {
            Some((folder, name)) => {
                let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
                let written = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO;
                // A folder that is also the directory of namespaces keeps both sets.
                let mask = written | AddWatchFlags::from_bits_retain(libc::IN_MASK_ADD);
                Some((inotify.add_watch(folder, mask)?, name.to_owned()))
            }
            None => None,
        };
        Ok(Self {
            netlink: register(netlink)?,
            nftables,
            table: table.to_owned(),
            inotify: register(Ear(inotify))?,
            netns,
            runs,
            file,
        })
    }

    /// Waits for the next change; everything that is pending then is taken together.
    pub async fn changed(&mut self) -> Change {
        loop {
            let change = tokio::select! {
                ready = self.netlink.readable() => match ready {
                    Ok(mut ready) => {
                        let change = drain(self.netlink.get_ref(), Change::Netlink, None);
                        ready.clear_ready();
                        change
                    }
                    Err(_) => Some(Change::Overrun),
                },
                ready = readable(self.nftables.as_ref()) => match ready {
                    Ok(mut ready) => {
                        let change = drain(ready.get_inner(), Change::Netfilter, Some(&self.table));
                        ready.clear_ready();
                        change
                    }
                    Err(_) => Some(Change::Overrun),
                },
                ready = self.inotify.readable() => match ready {
                    Ok(mut ready) => {
                        let change = self.read_inotify();
                        ready.clear_ready();
                        change
                    }
                    Err(_) => Some(Change::Overrun),
                },
            };
            if let Some(change) = change {
                return change;
            }
        }
    }

    /// The file counts most: its change asks for more than another look.
    fn read_inotify(&self) -> Option<Change> {
        let mut change = None;
        while let Ok(events) = self.inotify.get_ref().0.read_events() {
            for event in &events {
                match self.meaning(event) {
                    Some(Change::File) => change = Some(Change::File),
                    Some(other) => change = change.or(Some(other)),
                    None => {}
                }
            }
        }
        change
    }

    fn meaning(&self, event: &InotifyEvent) -> Option<Change> {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return Some(Change::Overrun);
        }
        let is_file =
            self.file.as_ref().is_some_and(|(wd, name)| event.wd == *wd && event.name.as_ref() == Some(name));
        match is_file {
            true => Some(Change::File),
            false => (event.wd == self.netns || event.wd == self.runs).then_some(Change::Netns),
        }
    }
}

/// A socket that hears these groups.
fn listen(protocol: SockProtocol, groups: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    if setsockopt(&socket, RcvBufForce, &BUFFER).is_err() {
        // Without CAP_NET_ADMIN as far as net.core.rmem_max goes; the rest shows as overruns.
        setsockopt(&socket, RcvBuf, &BUFFER)?;
    }
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// Never, where there is no socket.
async fn readable(socket: Option<&AsyncFd<OwnedFd>>) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

#[expect(
    deprecated,
    reason = "what its unsafe successor asks for holds: both types own their descriptor for life"
)]
fn register<T: AsRawFd>(ear: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(ear, Interest::READABLE)
}

/// `nix`'s inotify, as tokio wants it.
struct Ear(Inotify);

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Ear {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Reads events off the socket until there are none; only those with the name count, where one is given. `ENOBUFS` says
/// that some were lost.
fn drain(socket: &OwnedFd, meaning: Change, named: Option<&str>) -> Option<Change> {
    let mut buffer = vec![0; 1 << 16];
    let mut change = None;
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
            Ok(length) => {
                let event = &buffer[..length.min(buffer.len())];
                let has = |name: &str| event.windows(name.len()).any(|part| part == name.as_bytes());
                if named.is_none_or(has) {
                    change = change.or(Some(meaning));
                }
            }
            Err(nix::Error::ENOBUFS) => change = Some(Change::Overrun),
            Err(nix::Error::EINTR) => {}
            Err(_) => return change,
        }
    }
}
