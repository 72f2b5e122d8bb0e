//! Who a packet is from and for. A quick look at plain frames, and a careful walk for everything else, as in `parse` and
//! `walk`, whose classes it follows: a packet of an IP class has ends here, every other has none.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};

use crate::{
    frame::{
        ETHERNET, IPV4_MIN, IPV6_FIXED, MAX_EXTENSIONS, MAX_TAGS, VLAN_TAG, ethertype, is_tag, protocol,
    },
    load::load_u16,
};

const PORTS: u32 = 4;
const IPV4: u16 = ethertype::IPV4.to_be();
const IPV6: u16 = ethertype::IPV6.to_be();
const FRAGMENT_OFFSET: u16 = 0x1fff_u16.to_be();

/// Both ends of an IP packet. Addresses and ports as they lie in it; ports are 0 where it has none.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Packet {
    pub(crate) source: [u16; 8],
    pub(crate) destination: [u16; 8],
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// 4 or 6.
    pub(crate) family: u8,
    pub(crate) protocol: u8,
    /// Where the header with the ports starts; 0 where it has none.
    pub(crate) transport: u32,
}

const WORDS: usize = size_of::<Packet>() / size_of::<u64>();
const _: () = assert!(WORDS * size_of::<u64>() == size_of::<Packet>());

impl Packet {
    /// All 0, word by word and in place: left to the compiler it would be a call that writes byte by byte.
    #[inline(always)]
    pub(crate) fn zeroed(place: &mut MaybeUninit<Self>) -> &mut Self {
        for word in 0..WORDS {
            // SAFETY: within the packet, which is aligned for it.
            unsafe { place.as_mut_ptr().cast::<u64>().add(word).write_volatile(0) };
        }
        // SAFETY: any bytes are a packet.
        unsafe { place.assume_init_mut() }
    }
}

/// Finds the ends of a packet; says whether it is a readable IP packet. Into a place of the caller's: returned, it would be
/// copied by a call.
#[inline(always)]
pub(crate) fn read(skb: *mut __sk_buff, packet: &mut Packet) -> bool {
    quick(skb, packet) || careful(skb, packet)
}

const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}

/// Frames without tags, options and extension headers, whose headers are in the linear part.
#[inline(always)]
fn quick(skb: *mut __sk_buff, packet: &mut Packet) -> bool {
    const AT: usize = ETHERNET as usize;
    // SAFETY: as in `parse::quick`.
    unsafe {
        let data = (*skb).data as usize;
        let end = (*skb).data_end as usize;
        let network = (data as *const u8).add(AT);
        if data + AT + (IPV4_MIN + PORTS) as usize > end {
            return false;
        }
        let word = |offset: usize| *network.add(offset).cast::<u16>();
        // Read in each arm, wanted or not, and not last in both: without CAP_PERFMON a pointer may not be moved by another
        // constant on each path, which is what the compiler would make of it.
        let port = |offset: usize| network.add(offset).cast::<u16>().read_volatile();
        let ports = |offset: usize| (port(offset), port(offset + 2));
        let (ports, transport) = match *network.sub(2).cast::<u16>() {
            IPV4 => {
                if *network != 0x45 || word(6) & FRAGMENT_OFFSET != 0 {
                    return false;
                }
                (packet.family, packet.protocol) = (4, *network.add(9));
                (packet.source[0], packet.source[1]) = (word(12), word(14));
                (packet.destination[0], packet.destination[1]) = (word(16), word(18));
                (ports(20), ETHERNET + IPV4_MIN)
            }
            IPV6 => {
                if data + AT + (IPV6_FIXED + PORTS) as usize > end || *network >> 4 != 6 {
                    return false;
                }
                (packet.family, packet.protocol) = (6, *network.add(6));
                if !has_ports(packet.protocol) && packet.protocol != protocol::ICMPV6 {
                    return false;
                }
                let ports = ports(40);
                for i in 0..8 {
                    packet.source[i] = word(8 + 2 * i);
                    packet.destination[i] = word(24 + 2 * i);
                }
                (ports, ETHERNET + IPV6_FIXED)
            }
            _ => return false,
        };
        if has_ports(packet.protocol) {
            (packet.source_port, packet.destination_port) = ports;
            packet.transport = transport;
        }
        true
    }
}

/// Any frame, at leisure; says whether it is a readable IP packet.
#[inline(never)]
fn careful(skb: *mut __sk_buff, packet: &mut Packet) -> bool {
    let ctx = TcContext::new(skb);
    let mut offset = ETHERNET;
    let Some(mut ethertype) = load_u16(&ctx, offset - 2) else { return false };
    for _ in 0..MAX_TAGS {
        if !is_tag(ethertype) {
            break;
        }
        let Some(next) = load_u16(&ctx, offset + VLAN_TAG - 2) else { return false };
        ethertype = next;
        offset += VLAN_TAG;
    }
    let transport = match ethertype {
        ethertype::IPV4 => ipv4(&ctx, offset, packet),
        ethertype::IPV6 => ipv6(&ctx, offset, packet),
        _ => return false,
    };
    if transport == 0 {
        return false;
    }
    if transport != NO_TRANSPORT
        && has_ports(packet.protocol)
        && let Ok([source, destination]) = ctx.load::<[u16; 2]>(transport as usize)
    {
        (packet.source_port, packet.destination_port, packet.transport) = (source, destination, transport);
    }
    true
}

/// What stands for an offset where the header of the transport is not in this packet.
const NO_TRANSPORT: u32 = u32::MAX;

/// Where the transport's header starts; 0 where this is no readable header.
#[inline(always)]
fn ipv4(ctx: &TcContext, offset: u32, packet: &mut Packet) -> u32 {
    let Ok(header) = ctx.load::<[u16; IPV4_MIN as usize / 2]>(offset as usize) else { return 0 };
    let [first, _] = header[0].to_ne_bytes();
    let length = u32::from(first & 0x0f) * 4;
    if first >> 4 != 4 || length < IPV4_MIN || offset + length > ctx.len() {
        return 0;
    }
    packet.family = 4;
    packet.protocol = header[4].to_ne_bytes()[1];
    (packet.source[0], packet.source[1]) = (header[6], header[7]);
    (packet.destination[0], packet.destination[1]) = (header[8], header[9]);
    if header[3] & FRAGMENT_OFFSET == 0 { offset + length } else { NO_TRANSPORT }
}

/// As [`ipv4`].
#[inline(always)]
fn ipv6(ctx: &TcContext, offset: u32, packet: &mut Packet) -> u32 {
    let Ok(header) = ctx.load::<[u16; IPV6_FIXED as usize / 2]>(offset as usize) else { return 0 };
    if header[0].to_ne_bytes()[0] >> 4 != 6 {
        return 0;
    }
    packet.family = 6;
    packet.protocol = header[3].to_ne_bytes()[0];
    packet.source.copy_from_slice(&header[4..12]);
    packet.destination.copy_from_slice(&header[12..]);
    let mut offset = offset + IPV6_FIXED;
    for _ in 0..MAX_EXTENSIONS {
        let extension = match packet.protocol {
            protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::DESTINATION
            | protocol::FRAGMENT
            | protocol::AH => ctx.load::<[u8; 4]>(offset as usize),
            _ => break,
        };
        let Ok(extension) = extension else { return NO_TRANSPORT };
        let units = u32::from(extension[1]);
        let length = match packet.protocol {
            protocol::FRAGMENT => 8,
            protocol::AH => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        if offset + length > ctx.len() {
            return NO_TRANSPORT;
        }
        let fragment = packet.protocol == protocol::FRAGMENT;
        packet.protocol = extension[0];
        offset += length;
        if fragment && u16::from_be_bytes([extension[2], extension[3]]) >> 3 != 0 {
            return NO_TRANSPORT;
        }
    }
    offset
}
