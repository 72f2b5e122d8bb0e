//! The walk: header after header by `bpf_skb_load_bytes`, whatever comes.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use monitor_ebpf::class;

use crate::{
    frame::{
        ETHERNET, Frame, IPV4_MIN, IPV6_FIXED, MAX_EXTENSIONS, MAX_TAGS, TCP_MIN, VLAN_TAG, ethertype,
        is_tag, other, plain, protocol, tcp,
    },
    load::load_u16,
};

/// Walks all headers of the frame.
#[inline(always)]
pub(crate) fn walk(skb: *mut __sk_buff) -> Frame {
    let ctx = TcContext::new(skb);
    let mut offset = ETHERNET;
    let Some(mut ethertype) = load_u16(&ctx, offset - 2) else { return Frame::unknown(0, true) };
    for _ in 0..MAX_TAGS {
        if !is_tag(ethertype) {
            break;
        }
        let Some(next) = load_u16(&ctx, offset + VLAN_TAG - 2) else {
            return Frame::unknown(offset, true);
        };
        ethertype = next;
        offset += VLAN_TAG;
    }
    network(skb, offset, ethertype)
}

/// Walks the network header at `offset` and what follows it.
#[inline(always)]
pub(crate) fn network(skb: *mut __sk_buff, offset: u32, ethertype: u16) -> Frame {
    Frame::unpack(walk_network(skb, offset, ethertype))
}

/// A function with a symbol of its own: the verifier checks it once by its signature, and not anew, with all its
/// paths, wherever it is called (without this a program passes a million steps). Since Linux 5.6.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn walk_network(skb: *mut __sk_buff, offset: u32, ethertype: u16) -> u64 {
    let ctx = TcContext::new(skb);
    let frame = match ethertype {
        ethertype::IPV4 => ipv4(&ctx, offset),
        ethertype::IPV6 => ipv6(&ctx, offset),
        ethertype::ARP => Frame { class: class::ARP, ..Frame::unknown(offset, false) },
        _ => Frame::unknown(offset, false),
    };
    frame.pack()
}

#[inline(always)]
fn ipv4(ctx: &TcContext, offset: u32) -> Frame {
    let Ok(header) = ctx.load::<[u8; IPV4_MIN as usize]>(offset as usize) else {
        return Frame::unknown(offset, true);
    };
    let length = u32::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < IPV4_MIN || offset + length > ctx.len() {
        return Frame::unknown(offset, true);
    }
    let first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    transport(ctx, class::IPV4, header[9], offset + length, first)
}

#[inline(always)]
fn ipv6(ctx: &TcContext, offset: u32) -> Frame {
    let Ok(header) = ctx.load::<[u8; IPV6_FIXED as usize]>(offset as usize) else {
        return Frame::unknown(offset, true);
    };
    if header[0] >> 4 != 6 {
        return Frame::unknown(offset, true);
    }
    let mut next = header[6];
    let mut offset = offset + IPV6_FIXED;
    for _ in 0..MAX_EXTENSIONS {
        let extension = match next {
            protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::DESTINATION
            | protocol::FRAGMENT
            | protocol::AH => ctx.load::<[u8; 4]>(offset as usize),
            _ => break,
        };
        let Ok(extension) = extension else { return other(class::IPV6, offset) };
        let units = u32::from(extension[1]);
        let length = match next {
            protocol::FRAGMENT => 8,
            protocol::AH => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        // The whole header must be there, or what follows it is not what it announces.
        if offset + length > ctx.len() {
            return other(class::IPV6, offset);
        }
        let fragment = next == protocol::FRAGMENT;
        next = extension[0];
        offset += length;
        if fragment && u16::from_be_bytes([extension[2], extension[3]]) >> 3 != 0 {
            return transport(ctx, class::IPV6, next, offset, false);
        }
    }
    // One header too many is no protocol of a class, and so ends as other.
    transport(ctx, class::IPV6, next, offset, true)
}

/// The class of a protocol, and its header when `first` says that this fragment carries it.
#[inline(always)]
fn transport(ctx: &TcContext, family: usize, protocol: u8, offset: u32, first: bool) -> Frame {
    if protocol != protocol::TCP || !first {
        return plain(family, protocol, offset, first);
    }
    match ctx.load::<[u8; TCP_MIN as usize]>(offset as usize) {
        Ok(header) => tcp(family, offset, header[12], header[13]),
        Err(_) => plain(family, protocol, offset, false),
    }
}
