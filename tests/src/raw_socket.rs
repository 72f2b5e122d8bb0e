//! Sends frames of our own through a device, with the choices of a virtual machine's NIC: how much of the frame is in
//! the skb's linear part, and GSO.
//!
//! The only file of this crate with `unsafe`: nothing safe offers a bound packet socket with `PACKET_VNET_HDR`.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// `struct virtio_net_hdr` of `include/uapi/linux/virtio_net.h`.
#[derive(Clone, Copy, Debug, Default)]
pub struct VnetHeader {
    /// `VIRTIO_NET_HDR_GSO_*`; 0 is none, 1 is TCP over IPv4, 4 is TCP over IPv6, 5 is UDP (`gso_size` each).
    pub gso_type: u8,
    /// Bytes that are to be in the linear part (the kernel honours it for frames of a page and more).
    pub header_length: u16,
    /// Payload of one segment.
    pub gso_size: u16,
    /// Where checksumming starts, and where the sum goes from there; GSO needs it.
    pub checksum: Option<(u16, u16)>,
}

/// A packet socket bound to one device.
#[derive(Debug)]
pub struct RawSocket(OwnedFd);

impl RawSocket {
    /// Opens a socket on the device called `interface` in the calling thread's namespace.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn open(interface: &str) -> io::Result<Self> {
        let ifindex: i32 = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?
            .trim()
            .parse()
            .map_err(io::Error::other)?;
        let on: i32 = 1;
        let mut address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: ifindex,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: a new descriptor that nobody else owns; the other two calls read the values their lengths say.
        unsafe {
            let fd = check(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0))?;
            let socket = OwnedFd::from_raw_fd(fd);
            let length = size_of_val(&on) as u32;
            check(libc::setsockopt(
                fd,
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const on).cast(),
                length,
            ))?;
            let length = size_of_val(&address) as u32;
            check(libc::bind(fd, (&raw mut address).cast(), length))?;
            Ok(Self(socket))
        }
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn send(&self, frame: &[u8], header: VnetHeader) -> io::Result<()> {
        let VnetHeader { gso_type, header_length, gso_size, checksum } = header;
        let (start, offset) = checksum.unwrap_or_default();
        let mut bytes = vec![u8::from(checksum.is_some()), gso_type];
        for field in [header_length, gso_size, start, offset] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(frame);
        // SAFETY: the pointer and length are those of one live buffer.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
