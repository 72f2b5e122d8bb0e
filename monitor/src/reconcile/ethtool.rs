//! What a device does instead of the CPU, by the old interface of ethtool: it has one command for each, on every kernel.

use std::{io, os::fd::AsRawFd as _};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::topology::{names::IfName, tuning::Feature};

// All numbers: `include/uapi/linux/ethtool.h`.
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
/// `ETH_GSTRING_LEN`, in words.
const STRING_WORDS: usize = 32 / 4;

/// Get, set.
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

/// What `tcp-segmentation-offload` means to ethtool(8) beside the old command's, since kernel 6.18.
const ALSO_TSO: &str = "tx-tcp-accecn-segmentation";

/// Whether a link of the calling thread's namespace does this.
///
/// # Errors
/// There is no such link, or its driver knows nothing of it.
pub(super) fn get(link: &IfName, feature: Feature) -> io::Result<bool> {
    // `struct ethtool_value`: command, data.
    let mut value = [commands(feature).0, 0];
    ask(link, &mut value)?;
    Ok(value[1] != 0 || (feature == Feature::Tso && get_named(link, ALSO_TSO)?))
}

/// Turns it on or off.
///
/// # Errors
/// As [`get`]; the device cannot do without, or cannot do it.
pub(super) fn set(link: &IfName, feature: Feature, on: bool) -> io::Result<()> {
    ask(link, &mut [commands(feature).1, on.into()])?;
    if feature == Feature::Tso {
        set_named(link, ALSO_TSO, on)?;
    }
    match get(link, feature)? == on {
        true => Ok(()),
        false => {
            Err(io::Error::other(format!("the device keeps {feature} {}", if on { "off" } else { "on" })))
        }
    }
}

/// Whether a feature that has only a name is on; one that this kernel does not know is not.
fn get_named(link: &IfName, name: &str) -> io::Result<bool> {
    let (bits, at) = number(link, name)?;
    let Some(at) = at else { return Ok(false) };
    // `struct ethtool_gfeatures`: command, blocks, then available, requested, active, never changed for each.
    let blocks = bits.div_ceil(32);
    let mut request = vec![0; 2 + 4 * blocks];
    request[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
    ask(link, &mut request)?;
    Ok(request[2 + 4 * (at / 32) + 2] & (1 << (at % 32)) != 0)
}

fn set_named(link: &IfName, name: &str, on: bool) -> io::Result<()> {
    let (bits, at) = number(link, name)?;
    let Some(at) = at else { return Ok(()) };
    // `struct ethtool_sfeatures`: command, blocks, then valid, requested for each.
    let blocks = bits.div_ceil(32);
    let mut request = vec![0; 2 + 2 * blocks];
    request[..2].copy_from_slice(&[ETHTOOL_SFEATURES, blocks as u32]);
    let (block, bit) = (2 + 2 * (at / 32), 1 << (at % 32));
    request[block] = bit;
    request[block + 1] = if on { bit } else { 0 };
    ask(link, &mut request)
}

/// How many features the kernel has, and the number of this one.
fn number(link: &IfName, name: &str) -> io::Result<(usize, Option<usize>)> {
    // `struct ethtool_sset_info`: command, reserved, mask (64 bits), and the length of the one set asked for.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 0, 0, 0];
    // In the order of bytes of this machine.
    let mask = (1_u64 << ETH_SS_FEATURES).to_ne_bytes();
    let half = |from: usize| u32::from_ne_bytes([mask[from], mask[from + 1], mask[from + 2], mask[from + 3]]);
    (info[2], info[3]) = (half(0), half(4));
    ask(link, &mut info)?;
    let bits = info[4] as usize;
    // `struct ethtool_gstrings`: command, set, length, then 32 bytes for each.
    let mut strings = vec![0; 3 + bits * STRING_WORDS];
    strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, info[4]]);
    ask(link, &mut strings)?;
    let is_it = |words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.split(|byte| *byte == 0).next() == Some(name.as_bytes())
    };
    Ok((bits, strings[3..].chunks(STRING_WORDS).position(is_it)))
}

/// Asks the driver: the first word of the request says what, and the answer comes in its place.
#[expect(unsafe_code, reason = "an ioctl with a pointer in its argument has no safe form")]
fn ask(link: &IfName, request_and_answer: &mut [u32]) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all zeroes is a value of this type.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name of an interface is shorter than the field; a zero stays at its end.
    for (to, from) in request.ifr_name.iter_mut().zip(link.as_str().bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = request_and_answer.as_mut_ptr().cast();
    // SAFETY: the kernel reads the name and reads and writes the words, both of which live until it returns; the callers
    // give as many words as the request says.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
