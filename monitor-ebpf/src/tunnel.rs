//! Headers inside a tunnel: what each segment of an encapsulated GSO packet repeats besides the outer headers.
//!
//! Only for GSO packets; a packet's class is always that of its outer headers. The kernel does not tell a program the
//! GSO type, so for UDP the well-known ports of VXLAN and Geneve decide. What this cannot see (a tunnel on another
//! port, FOU, ESP, a tunnel inside a tunnel) keeps exact packet counts from `gso_segs`, and its wire bytes lack the repeated
//! inner headers.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};

use crate::{
    frame::{ETHERNET, Frame, ethertype, protocol},
    load::load_u16,
    walk::network,
};

const VXLAN_PORT: u16 = 4789;
const GENEVE_PORT: u16 = 6081;
/// The "VNI is valid" bit of VXLAN's first byte; every other bit of it is 0 (RFC 7348).
const VXLAN_FLAGS: u8 = 0x08;
const TUNNEL_HEADER: u32 = 8;

/// Where the payload of the innermost header starts.
#[inline(always)]
pub(crate) fn headers(skb: *mut __sk_buff, outer: Frame) -> u32 {
    let ctx = TcContext::new(skb);
    let Some((offset, ethertype)) = inner(&ctx, outer) else { return outer.headers };
    let (offset, ethertype) = match ethertype {
        ethertype::BRIDGED => match load_u16(&ctx, offset + ETHERNET - 2) {
            Some(ethertype) => (offset + ETHERNET, ethertype),
            None => return outer.headers,
        },
        _ => (offset, ethertype),
    };
    let inner = network(skb, offset, ethertype);
    // Only TCP and UDP are segmented inside tunnels; anything else is not a tunnel after all.
    match inner.protocol {
        protocol::TCP | protocol::UDP => inner.headers,
        _ => outer.headers,
    }
}

/// Offset and EtherType of what the tunnel carries.
#[inline(always)]
fn inner(ctx: &TcContext, outer: Frame) -> Option<(u32, u16)> {
    let offset = outer.headers;
    match outer.protocol {
        protocol::IPIP => Some((offset, ethertype::IPV4)),
        protocol::IPV6 => Some((offset, ethertype::IPV6)),
        protocol::GRE => {
            let [flags, _, high, low] = ctx.load::<[u8; 4]>(offset as usize).ok()?;
            // Checksum, key and sequence number are present when their bit is set, 4 bytes each (RFC 2890).
            let optional = u32::from(flags >> 7) + u32::from(flags >> 5 & 1) + u32::from(flags >> 4 & 1);
            Some((offset + 4 + 4 * optional, u16::from_be_bytes([high, low])))
        }
        protocol::UDP => udp(ctx, offset),
        _ => None,
    }
}

#[inline(always)]
fn udp(ctx: &TcContext, offset: u32) -> Option<(u32, u16)> {
    let port = load_u16(ctx, offset - 6)?;
    let [first, _, high, low] = ctx.load::<[u8; 4]>(offset as usize).ok()?;
    match port {
        VXLAN_PORT if first == VXLAN_FLAGS => Some((offset + TUNNEL_HEADER, ethertype::BRIDGED)),
        // The first byte is the version (0) and the length of the options in units of 4 bytes (RFC 8926).
        GENEVE_PORT if first >> 6 == 0 => {
            Some((offset + TUNNEL_HEADER + 4 * u32::from(first & 0x3f), u16::from_be_bytes([high, low])))
        }
        _ => None,
    }
}
