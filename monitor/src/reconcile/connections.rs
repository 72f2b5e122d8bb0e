//! How many TCP connections the calling thread's namespace has in each state, from the kernel's socket diagnostics.
//!
//! A dump walks the one table that all namespaces of the host share, as reading `/proc/net/tcp` does, but once for both
//! families and without making text of it. Most namespaces have no TCP socket, which `/proc/net/sockstat` tells without.

use std::io;

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
        sockopt::ReceiveTimeout,
    },
    time::TimeVal,
};

use super::figures::read;
use crate::topology::figures::{Connections, has_tcp};

// `include/uapi/linux/netlink.h` and `inet_diag.h`.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The older request: the only one that asks for both families at once.
const TCPDIAG_GETSOCK: u16 = 18;
const HEADER: usize = 16;
/// `struct inet_diag_req`: family and so on, the addresses, states, debugging.
const REQUEST: usize = 60;
const STATES_AT: usize = 52;
/// All states but those of sockets that are bound and nothing else.
const STATES: u32 = 0x1ffe;

const DEADLINE: TimeVal = TimeVal::new(5, 0);

/// Connections by state.
///
/// # Errors
/// The kernel has no socket diagnostics (CONFIG_INET_DIAG), or did not answer.
pub(super) fn connections() -> io::Result<Connections> {
    let sockets = ["sockstat", "sockstat6"].map(|file| read(&format!("/proc/thread-self/net/{file}")));
    if let [Ok(four), six] = &sockets
        && !has_tcp(four, six.as_deref().unwrap_or_default())
    {
        return Ok(Connections::default());
    }
    dump()
}

fn dump() -> io::Result<Connections> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?;
    setsockopt(&socket, ReceiveTimeout, &DEADLINE)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    send(fd, &request(), MsgFlags::empty())?;
    let mut found = Connections::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = recv(fd, &mut buffer, MsgFlags::empty())?;
        if note(&buffer[..length], &mut found)? {
            return Ok(found);
        }
    }
}

fn request() -> [u8; HEADER + REQUEST] {
    let mut bytes = [0; HEADER + REQUEST];
    bytes[..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&TCPDIAG_GETSOCK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes[HEADER + STATES_AT..HEADER + STATES_AT + 4].copy_from_slice(&STATES.to_ne_bytes());
    bytes
}

/// Counts the sockets of one datagram; says whether it was the last.
fn note(mut datagram: &[u8], found: &mut Connections) -> io::Result<bool> {
    let cut = || io::Error::other("an answer of the socket diagnostics that is cut short");
    while !datagram.is_empty() {
        let header: [u8; HEADER] =
            datagram.get(..HEADER).and_then(|part| part.try_into().ok()).ok_or_else(cut)?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = datagram.get(HEADER..length).ok_or_else(cut)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let errno = body.get(..4).and_then(|part| part.try_into().ok()).map(i32::from_ne_bytes);
                return Err(io::Error::from_raw_os_error(-errno.ok_or_else(cut)?));
            }
            // `struct inet_diag_msg` begins with the family and the state.
            _ => found.add(*body.get(1).ok_or_else(cut)?),
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn sockets_are_counted_until_the_last_message() {
        let socket = |state| message(20, &[2, state, 0, 0, 1]);
        let mut found = Connections::default();
        let datagram = [socket(10), socket(1), socket(1), socket(12)].concat();
        assert!(!note(&datagram, &mut found).expect("whole"));
        assert!(note(&message(NLMSG_DONE, &[0; 4]), &mut found).expect("whole"));
        let all: Vec<_> = found.each().filter(|(_, count)| *count > 0).collect();
        assert_eq!(all, [("established", 2), ("syn_recv", 1), ("listen", 1)]);
    }

    #[test]
    fn refusals_and_what_is_cut_short_are_errors() {
        let mut found = Connections::default();
        let refusal = message(NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes());
        assert_eq!(note(&refusal, &mut found).expect_err("refused").raw_os_error(), Some(libc::ENOENT));
        let whole = message(20, &[2, 1, 0, 0]);
        for length in 1..whole.len() {
            assert!(note(&whole[..length], &mut found).is_err(), "{length} bytes");
        }
        assert!(note(&message(20, &[2]), &mut found).is_err(), "no state");
        assert!(note(&[0; HEADER], &mut found).is_err(), "a length of 0 would never end");
    }
}
