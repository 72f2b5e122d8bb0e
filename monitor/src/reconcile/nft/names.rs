//! Which tables a namespace has, asked of the kernel itself: a program for each of a thousand namespaces would be slow.

use std::{io, os::fd::AsRawFd as _};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt,
        socket, sockopt::ReceiveTimeout,
    },
    time::{TimeVal, TimeValLike as _},
};

use crate::topology::outside::Family;

// `include/uapi/linux/netfilter/nfnetlink.h` and `nf_tables.h`.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NFT_MSG_GETTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 1;
const NFTA_TABLE_NAME: u16 = 1;
const NFPROTO_INET: u8 = 1;
const NFPROTO_BRIDGE: u8 = 7;

/// `struct nlmsghdr` and `struct nfgenmsg`, in bytes.
const HEADER: usize = 16;
const FAMILY: usize = 4;

/// Families of the tables of this name in the namespace of the calling thread.
///
/// # Errors
/// The kernel has no nf_tables, or did not answer.
pub(in crate::reconcile) fn names(wanted: &str) -> io::Result<Vec<Family>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(5))?;
    sendto(socket.as_raw_fd(), &request(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut buffer = vec![0; 1 << 15];
    let mut found = Vec::new();
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if !read(&buffer[..length], wanted, &mut found)? {
            return Ok(found);
        }
    }
}

fn request() -> Vec<u8> {
    let length = (HEADER + FAMILY) as u32;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(NFT_MSG_GETTABLE.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence, port, and of `nfgenmsg`: family (all), version, resource.
    message.resize(HEADER + FAMILY, 0);
    message
}

/// Reads one answer; whether more follow.
fn read(mut bytes: &[u8], wanted: &str, found: &mut Vec<Family>) -> io::Result<bool> {
    while let Some((length, kind)) = header(bytes) {
        let (message, rest) = bytes.split_at(length.clamp(HEADER, bytes.len()));
        bytes = rest.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        let payload = &message[HEADER..];
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(false),
            libc::NLMSG_ERROR => {
                let code = payload.first_chunk().map_or(-libc::EPROTO, |bytes| i32::from_ne_bytes(*bytes));
                return Err(io::Error::from_raw_os_error(-code));
            }
            _ if kind == NFT_MSG_NEWTABLE && name(payload) == Some(wanted) => {
                found.extend(match payload.first() {
                    Some(&NFPROTO_INET) => Some(Family::Inet),
                    Some(&NFPROTO_BRIDGE) => Some(Family::Bridge),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Ok(true)
}

fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    (bytes.len() >= HEADER).then_some((length as usize, kind))
}

/// The name among the attributes after `nfgenmsg`.
fn name(payload: &[u8]) -> Option<&str> {
    let mut attributes = payload.get(FAMILY..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        if kind == NFTA_TABLE_NAME {
            return std::str::from_utf8(attributes.get(4..length)?).ok()?.split('\0').next();
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}
