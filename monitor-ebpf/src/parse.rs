//! From a frame to its class: a quick look at plain frames, and a careful walk (see `walk`) for everything else.
//!
//! The frame decides, never `skb->protocol`, and it is an Ethernet frame. Both only read: the quick look by direct
//! access to the linear part, the walk by `bpf_skb_load_bytes`, which also reaches bytes outside it;
//! `bpf_skb_pull_data` would change the skb.

use aya_ebpf::bindings::__sk_buff;
use monitor_ebpf::class;

use crate::{
    frame::{
        ETHERNET, Frame, IPV4_MIN, IPV6_FIXED, TCP_MIN, VLAN_TAG, ethertype, is_tag, plain, protocol, tcp,
    },
    walk::walk,
};

/// The quick look, for frames whose network header starts at `AT`: ARP, IPv4 without options and IPv6 without
/// extension headers, when the linear part holds the headers. None: only the walk can tell.
///
/// Generic, so that the common path has constants for offsets; what a caller does not use is never computed.
#[inline(always)]
pub(crate) fn quick<const AT: usize>(skb: *mut __sk_buff) -> Option<Frame> {
    // SAFETY: the kernel hands every classifier a valid context; the verifier proves that each read below stays
    // before `data_end`. Linear parts start on an even address (NET_IP_ALIGN is 0 or 2), and so do the words read.
    unsafe {
        let data = (*skb).data as usize;
        let end = (*skb).data_end as usize;
        let packet = (data as *const u8).add(AT);
        if data + AT + IPV4_MIN as usize > end {
            return None;
        }
        match *packet.sub(2).cast::<u16>() {
            IPV4 => {
                if *packet != 0x45 {
                    return None;
                }
                let header = packet.add(IPV4_MIN as usize);
                let payload = AT as u32 + IPV4_MIN;
                let first = *packet.add(6).cast::<u16>() & FRAGMENT_OFFSET == 0;
                match *packet.add(9) {
                    protocol::TCP => {
                        if data + AT + (IPV4_MIN + TCP_MIN) as usize > end || !first {
                            return None;
                        }
                        Some(tcp(class::IPV4, payload, *header.add(12), *header.add(13)))
                    }
                    protocol => Some(plain(class::IPV4, protocol, payload, first)),
                }
            }
            IPV6 => {
                if data + AT + IPV6_FIXED as usize > end || *packet >> 4 != 6 {
                    return None;
                }
                let header = packet.add(IPV6_FIXED as usize);
                let payload = AT as u32 + IPV6_FIXED;
                match *packet.add(6) {
                    protocol::TCP => {
                        if data + AT + (IPV6_FIXED + TCP_MIN) as usize > end {
                            return None;
                        }
                        Some(tcp(class::IPV6, payload, *header.add(12), *header.add(13)))
                    }
                    protocol @ (protocol::UDP | protocol::ICMPV6 | protocol::SCTP) => {
                        Some(plain(class::IPV6, protocol, payload, true))
                    }
                    _ => None,
                }
            }
            ARP => Some(Frame { class: class::ARP, ..Frame::unknown(AT as u32, false) }),
            _ => None,
        }
    }
}

const IPV4: u16 = ethertype::IPV4.to_be();
const IPV6: u16 = ethertype::IPV6.to_be();
const ARP: u16 = ethertype::ARP.to_be();
const FRAGMENT_OFFSET: u16 = 0x1fff_u16.to_be();

/// Any frame, without or with up to two in-band tags: the quick look where it can tell, else the walk.
#[inline(always)]
pub(crate) fn any(skb: *mut __sk_buff) -> Frame {
    Frame::unpack(parse_any(skb))
}

/// See `walk_network`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn parse_any(skb: *mut __sk_buff) -> u64 {
    quick_tagged(skb).unwrap_or_else(|| walk(skb)).pack()
}

#[inline(always)]
fn quick_tagged(skb: *mut __sk_buff) -> Option<Frame> {
    const NONE: usize = ETHERNET as usize;
    const ONE: usize = NONE + VLAN_TAG as usize;
    const TWO: usize = ONE + VLAN_TAG as usize;
    // SAFETY: as in `quick`.
    let (outer, inner) = unsafe {
        let data = (*skb).data as usize;
        if data + ONE > (*skb).data_end as usize {
            return None;
        }
        (*((data + NONE - 2) as *const u16), *((data + ONE - 2) as *const u16))
    };
    match (is_tag(u16::from_be(outer)), is_tag(u16::from_be(inner))) {
        (false, _) => quick::<NONE>(skb),
        (true, false) => quick::<ONE>(skb),
        (true, true) => quick::<TWO>(skb),
    }
}
