//! What a device does instead of the CPU, by the old interface of ethtool: it has one command for each, on every kernel.

use std::{io, os::fd::AsRawFd as _};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::topology::{names::IfName, tuning::Feature};

// `include/uapi/linux/ethtool.h`: get, set.
fn commands(feature: Feature) -> (u32, u32) {
    match feature {
        Feature::Rx => (0x14, 0x15),
        Feature::Tx => (0x16, 0x17),
        Feature::Sg => (0x18, 0x19),
        Feature::Tso => (0x1e, 0x1f),
        Feature::Gso => (0x23, 0x24),
        Feature::Gro => (0x2b, 0x2c),
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether a link of the calling thread's namespace does this.
///
/// # Errors
/// There is no such link, or its driver knows nothing of it.
pub(super) fn get(link: &IfName, feature: Feature) -> io::Result<bool> {
    let mut value = Value { command: commands(feature).0, data: 0 };
    ask(link, &mut value)?;
    Ok(value.data != 0)
}

/// Turns it on or off.
///
/// # Errors
/// As [`get`]; the device cannot do without, or cannot do it.
pub(super) fn set(link: &IfName, feature: Feature, on: bool) -> io::Result<()> {
    ask(link, &mut Value { command: commands(feature).1, data: on.into() })?;
    match get(link, feature)? == on {
        true => Ok(()),
        false => {
            Err(io::Error::other(format!("the device keeps {feature} {}", if on { "off" } else { "on" })))
        }
    }
}

#[expect(unsafe_code, reason = "an ioctl with a pointer in its argument has no safe form")]
fn ask(link: &IfName, value: &mut Value) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all zeroes is a value of this type.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name of an interface is shorter than the field; a zero stays at its end.
    for (to, from) in request.ifr_name.iter_mut().zip(link.as_str().bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(value).cast();
    // SAFETY: the kernel reads the name and reads and writes the value, both of which live until it returns.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
