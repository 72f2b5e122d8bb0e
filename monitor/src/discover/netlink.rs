//! Links of a namespace, and the numbers by which one namespace knows others: as few requests as will do, decoded by hand.
//! Names need not be text here: a link with a hostile name is counted like any other.
//!
//! A socket belongs to the namespace it was opened in. An answer counts when it is whole, and a dump when nothing changed
//! underneath.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
        sockopt::{RcvBuf, RcvBufForce, ReceiveTimeout},
    },
    time::TimeVal,
};

use crate::topology::{FlowStats, LinkStats, names::MacAddr};

// `include/uapi/linux/netlink.h`.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
// `include/uapi/linux/rtnetlink.h`.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
// `include/uapi/linux/if_link.h`.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_TARGET_NETNSID: u16 = 46;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
/// Leaves the statistics of bridges and the like out of each answer.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
// `include/uapi/linux/net_namespace.h`.
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

/// How long an answer may take: the kernel answers at once, unless it is very busy.
const DEADLINE: TimeVal = TimeVal::new(5, 0);
const DUMP_TRIES: u32 = 5;
const BUFFER: usize = 8 << 20;

/// A link, as far as it is needed to count it and to show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index within its namespace.
    pub ifindex: u32,
    /// Its name; bytes that are no text are replaced.
    pub name: String,
    /// `veth`, `bridge` and so on; `loopback`; empty where the kernel does not say (a physical device).
    pub kind: String,
    /// MAC address, where it has one of six bytes.
    pub mac: Option<MacAddr>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Operationally up.
    pub running: bool,
    /// Interface index of the other end of a veth pair (or of the device it is on), in its own namespace.
    pub peer_ifindex: Option<u32>,
    /// The number by which this namespace knows the one of `peer_ifindex`; absent where it is this one.
    pub peer_nsid: Option<i32>,
    /// Interface index of the bridge it is a port of.
    pub controller: Option<u32>,
    /// The kernel's own counters.
    pub stats: LinkStats,
    /// Whether a program of XDP is attached: it may take packets before anybody else sees them.
    pub xdp: bool,
}

/// A connection to the kernel.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one in the namespace of the calling thread.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&socket, ReceiveTimeout, &DEADLINE)?;
        if setsockopt(&socket, RcvBufForce, &BUFFER).is_err() {
            setsockopt(&socket, RcvBuf, &BUFFER)?;
        }
        Ok(Self { socket, sequence: 0 })
    }

    /// Every link of the socket's namespace, or of the one that it knows by a number: that one need not be entered.
    ///
    /// # Errors
    /// There is no namespace of that number; the kernel refused; something changed during each of several tries.
    pub fn links(&mut self, nsid: Option<i32>) -> io::Result<Vec<Link>> {
        // `struct ifinfomsg`.
        let mut body = vec![0; 16];
        attribute(&mut body, IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        if let Some(nsid) = nsid {
            attribute(&mut body, IFLA_TARGET_NETNSID, &nsid.to_ne_bytes());
        }
        for _ in 0..DUMP_TRIES {
            let mut links = Vec::new();
            let whole = self.ask(RTM_GETLINK, NLM_F_DUMP, &body, &mut |kind, body| {
                if kind == RTM_NEWLINK {
                    links.extend(link(body));
                }
            })?;
            if whole {
                return Ok(links);
            }
        }
        Err(io::Error::other(format!("{DUMP_TRIES} dumps in a row were interrupted by changes")))
    }

    /// The number by which the socket's namespace knows another; absent where it has none.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn nsid(&mut self, netns: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        // `struct rtgenmsg`, padded.
        let mut body = vec![0; 4];
        attribute(&mut body, NETNSA_FD, &netns.as_raw_fd().to_ne_bytes());
        let mut found = None;
        self.ask(RTM_GETNSID, 0, &body, &mut |kind, body| {
            if kind == RTM_NEWNSID {
                found = found.or(nsid_of(body));
            }
        })?;
        Ok(found.filter(|nsid| *nsid >= 0))
    }

    /// The same; one that has none is given one. That keeps nothing alive, and lets the kernel tell of changes there.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn nsid_or_new(&mut self, netns: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        if let Some(nsid) = self.nsid(netns)? {
            return Ok(Some(nsid));
        }
        let mut body = vec![0; 4];
        attribute(&mut body, NETNSA_NSID, &(-1_i32).to_ne_bytes());
        attribute(&mut body, NETNSA_FD, &netns.as_raw_fd().to_ne_bytes());
        match self.ask(RTM_NEWNSID, NLM_F_ACK, &body, &mut |_, _| {}) {
            // Somebody else was faster.
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
            _ => self.nsid(netns),
        }
    }

    /// Every number that the socket's namespace knows another by.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn nsids(&mut self) -> io::Result<Vec<i32>> {
        let mut found = Vec::new();
        self.ask(RTM_GETNSID, NLM_F_DUMP, &[0; 4], &mut |kind, body| {
            if kind == RTM_NEWNSID {
                found.extend(nsid_of(body));
            }
        })?;
        Ok(found)
    }

    /// Sends a request and hands on each message of the answer. Says whether the answer is of one moment.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        take: &mut dyn FnMut(u16, &[u8]),
    ) -> io::Result<bool> {
        self.sequence += 1;
        let mut request = Vec::with_capacity(16 + body.len());
        request.extend((16 + body.len() as u32).to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend(body);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut buffer = vec![0; 64 << 10];
        let mut whole = true;
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) if length <= buffer.len() => length,
                Ok(_longer) => return Err(io::Error::other("netlink: an answer longer than any should be")),
                Err(nix::Error::EINTR) => continue,
                Err(nix::Error::EAGAIN) => return Err(io::Error::other("netlink: no answer within 5 s")),
                Err(errno) => return Err(errno.into()),
            };
            for message in Messages(&buffer[..length]) {
                // Of an earlier request that was given up.
                if message.sequence != self.sequence {
                    continue;
                }
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match message.body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
                            Some(code) if code < 0 => Err(io::Error::from_raw_os_error(-code)),
                            _ => Ok(whole),
                        };
                    }
                    kind => take(kind, message.body),
                }
                if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                    return Ok(whole);
                }
            }
        }
    }
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend((4 + value.len() as u16).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages of a datagram; what is cut short ends it.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let Self(bytes) = *self;
        let length = u32_at(bytes, 0)? as usize;
        let body = bytes.get(16..length)?;
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, sequence: u32_at(bytes, 8)?, body })
    }
}

/// The attributes of a message: kind (without the flag for nesting) and value.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let Self(bytes) = *self;
        let length = u16_at(bytes, 0)? as usize;
        let value = bytes.get(4..length)?;
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16_at(bytes, 2)? & 0x3fff, value))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u64::from_ne_bytes(*chunk))
}

fn i32_of(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|chunk| i32::from_ne_bytes(*chunk))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn nsid_of(body: &[u8]) -> Option<i32> {
    let mut attributes = Attributes(body.get(4..)?);
    attributes.find(|(kind, _)| *kind == NETNSA_NSID).and_then(|(_, value)| i32_of(value))
}

/// From the body of a message about a link: `struct ifinfomsg` and attributes.
fn link(body: &[u8]) -> Option<Link> {
    let (ifindex, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
    let up = flags & libc::IFF_UP as u32 != 0;
    let loopback = flags & libc::IFF_LOOPBACK as u32 != 0;
    let mut link = Link {
        ifindex,
        name: String::new(),
        kind: if loopback { "loopback" } else { "" }.to_owned(),
        mac: None,
        mtu: 0,
        running: false,
        peer_ifindex: None,
        peer_nsid: None,
        controller: None,
        stats: LinkStats::default(),
        xdp: false,
    };
    for (kind, value) in Attributes(body.get(16..)?) {
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(MacAddr),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_LINK => link.peer_ifindex = u32_at(value, 0),
            IFLA_LINK_NETNSID => link.peer_nsid = i32_of(value),
            IFLA_MASTER => link.controller = u32_at(value, 0),
            // `IF_OPER_UNKNOWN` and `IF_OPER_UP` of `include/uapi/linux/if.h`.
            IFLA_OPERSTATE => link.running = up && matches!(value.first(), Some(0 | 6)),
            IFLA_XDP => {
                let mut inner = Attributes(value).filter(|(kind, _)| *kind == IFLA_XDP_ATTACHED);
                link.xdp = inner.any(|(_, mode)| mode.first().is_some_and(|mode| *mode != 0));
            }
            IFLA_STATS64 => link.stats = stats(value),
            IFLA_LINKINFO => {
                if let Some((_, name)) = Attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND) {
                    link.kind = text(name);
                }
            }
            _ => {}
        }
    }
    Some(link)
}

/// `struct rtnl_link_stats64`: packets, bytes, errors and drops, received and sent in turn.
fn stats(value: &[u8]) -> LinkStats {
    let field = |number: usize| u64_at(value, number * 8);
    LinkStats {
        rx: FlowStats { packets: field(0), bytes: field(2), errors: field(4), dropped: field(6) },
        tx: FlowStats { packets: field(1), bytes: field(3), errors: field(5), dropped: field(7) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(name: &[u8]) -> Vec<u8> {
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        body[8..12].copy_from_slice(&1_u32.to_ne_bytes());
        attribute(&mut body, IFLA_IFNAME, name);
        attribute(&mut body, IFLA_OPERSTATE, &[6]);
        attribute(&mut body, IFLA_LINK, &9_u32.to_ne_bytes());
        attribute(&mut body, IFLA_LINK_NETNSID, &3_i32.to_ne_bytes());
        let mut info = Vec::new();
        attribute(&mut info, IFLA_INFO_KIND, b"veth\0");
        attribute(&mut body, IFLA_LINKINFO | 0x8000, &info);
        let mut xdp = Vec::new();
        attribute(&mut xdp, IFLA_XDP_ATTACHED, &[2]);
        attribute(&mut body, IFLA_XDP | 0x8000, &xdp);
        let stats: Vec<u8> = (0..25_u64).flat_map(u64::to_ne_bytes).collect();
        attribute(&mut body, IFLA_STATS64, &stats);
        body
    }

    #[test]
    fn a_link_is_read_from_its_attributes() {
        let link = link(&body(b"eth0\0")).expect("a link");
        assert_eq!((link.ifindex, link.name.as_str(), link.kind.as_str()), (7, "eth0", "veth"));
        assert_eq!((link.peer_ifindex, link.peer_nsid, link.running), (Some(9), Some(3), true));
        assert!(link.xdp);
        let FlowStats { packets, bytes, errors, dropped } = link.stats.tx;
        assert_eq!([packets, bytes, errors, dropped], [1, 3, 5, 7]);
    }

    #[test]
    fn a_name_that_is_no_text_is_no_reason_to_leave_a_link_out() {
        let link = link(&body(b"bad\xff\xfe\0")).expect("a link");
        assert_eq!(link.name, "bad\u{fffd}\u{fffd}");
    }

    #[test]
    fn what_is_cut_short_ends_and_nothing_is_read_beyond() {
        let whole = body(b"eth0\0");
        for length in 0..whole.len() {
            // Whatever it says of a part, it does not panic.
            let _part = link(&whole[..length]);
        }
        let mut message = (16 + whole.len() as u32).to_ne_bytes().to_vec();
        message.extend([0; 12]);
        message.extend(&whole);
        assert_eq!(Messages(&message).count(), 1);
        for length in 0..message.len() {
            assert_eq!(Messages(&message[..length]).count(), 0);
        }
        assert_eq!(Attributes(&[0, 0, 0, 0, 0, 0]).count(), 0, "one shorter than its own head");
    }
}
