//! What the programs must count, worked out a second time and differently: slices of the whole frame peeled layer by
//! layer, and every wire packet of a GSO skb counted by itself. Shares nothing with the programs but the layout.

use monitor_ebpf::{ClassCounters, DirectionCounters, SIZE_BOUNDS, class, flag};

use crate::test_run::Skb;

/// One frame, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// See [`monitor_ebpf::class`].
    pub class: usize,
    /// Flags byte of a readable TCP header.
    pub tcp_flags: Option<u8>,
    /// Bytes that each segment repeats, inner headers of a tunnel included.
    pub headers: usize,
}

/// What one frame adds to the counters of its hook. `tagged`: a VLAN tag is in the skb's metadata.
#[must_use]
pub fn count(frame: &[u8], skb: Skb, tagged: bool) -> DirectionCounters {
    let seen = classify(frame);
    let sizes = wire_sizes(frame.len(), seen.headers, skb, if tagged { 4 } else { 0 });
    let mut counters = DirectionCounters::default();
    let packets = sizes.len() as u64;
    // With a consistent context the sum of sizes is the bytes on the wire; gso_segs can claim more than the skb holds.
    let headers = if packets > 1 { seen.headers as u64 * (packets - 1) } else { 0 };
    counters.classes[seen.class] = ClassCounters {
        skbs: 1,
        skb_bytes: frame.len() as u64,
        extra_packets: packets - 1,
        extra_bytes: headers + if tagged { 4 * packets } else { 0 },
    };
    for size in sizes {
        counters.sizes[bucket(size)] += 1;
    }
    let has = |bits: u8, of: u8| seen.tcp_flags.is_some_and(|flags| flags & of == bits);
    counters.tcp_flags[flag::SYN] = has(0x02, 0x12).into();
    counters.tcp_flags[flag::SYNACK] = has(0x12, 0x12).into();
    counters.tcp_flags[flag::FIN] = has(0x01, 0x01).into();
    counters.tcp_flags[flag::RST] = has(0x04, 0x04).into();
    counters
}

/// The size of each packet on the wire.
fn wire_sizes(len: usize, headers: usize, skb: Skb, tag: usize) -> Vec<usize> {
    let (mss, segments) = (skb.gso_size as usize, skb.gso_segs as usize);
    if mss == 0 || headers > len {
        return vec![len + tag];
    }
    let mut rest = len - headers;
    let segments = if segments == 0 { rest.div_ceil(mss).max(1) } else { segments };
    // GSO_BY_FRAGS: sizes are unknown, and taken as equal.
    let mss = if mss == 0xffff { rest.div_ceil(segments) } else { mss };
    let mut sizes = Vec::new();
    for _ in 1..segments {
        sizes.push(headers + mss + tag);
        rest = rest.saturating_sub(mss);
    }
    sizes.push(headers + rest + tag);
    sizes
}

/// Position of the first bound that holds `size`.
#[must_use]
pub fn bucket(size: usize) -> usize {
    SIZE_BOUNDS.iter().position(|bound| size <= *bound as usize).unwrap_or(SIZE_BOUNDS.len())
}

/// Understands a frame.
#[must_use]
pub fn classify(frame: &[u8]) -> Seen {
    let (at, ethertype) = match peel_tags(frame, 12) {
        Ok(found) => found,
        Err(at) => return Seen { class: class::UNKNOWN, tcp_flags: None, headers: at },
    };
    let outer = network(frame, at, ethertype);
    let Layer { class, tcp_flags, .. } = outer;
    let inner = tunnelled(frame, &outer).filter(|inner| matches!(inner.upper, Some(6 | 17)));
    Seen { class, tcp_flags, headers: inner.map_or(outer.end, |inner| inner.end) }
}

/// Where the network header starts and its EtherType; or where reading ended.
fn peel_tags(frame: &[u8], at: usize) -> Result<(usize, u16), usize> {
    let mut at = at;
    for tags in 0.. {
        // Half a tag is no header.
        let ethertype = number(frame, at).ok_or(at - 2)?;
        at += 2;
        if tags == 2 || !(ethertype == 0x8100 || ethertype == 0x88a8) {
            return Ok((at, ethertype));
        }
        at += 2;
    }
    unreachable!("the loop ends at the third tag")
}

/// A network header and what follows it.
struct Layer {
    class: usize,
    tcp_flags: Option<u8>,
    /// The protocol above, when this frame carries its header.
    upper: Option<u8>,
    /// First byte after all of it.
    end: usize,
}

fn network(frame: &[u8], at: usize, ethertype: u16) -> Layer {
    let unknown = Layer { class: class::UNKNOWN, tcp_flags: None, upper: None, end: at };
    match ethertype {
        0x0806 => Layer { class: class::ARP, ..unknown },
        0x0800 => ipv4(frame, at).unwrap_or(unknown),
        0x86dd => ipv6(frame, at).unwrap_or(unknown),
        _ => unknown,
    }
}

fn ipv4(frame: &[u8], at: usize) -> Option<Layer> {
    let first = *frame.get(at)?;
    let length = usize::from(first % 16) * 4;
    let header = frame.get(at..at + length.max(20))?;
    if first / 16 != 4 || length < 20 {
        return None;
    }
    let fragment_offset = number(header, 6)? % 0x2000;
    Some(upper(frame, at + length, class::IPV4, header[9], fragment_offset == 0))
}

fn ipv6(frame: &[u8], at: usize) -> Option<Layer> {
    let header = frame.get(at..at + 40)?;
    if header[0] / 16 != 6 {
        return None;
    }
    Some(chain(frame, at + 40, header[6], 6))
}

/// Extension headers, one call each.
fn chain(frame: &[u8], at: usize, next: u8, budget: usize) -> Layer {
    let other = Layer { class: class::IPV6 + class::OTHER, tcp_flags: None, upper: None, end: at };
    let scale: fn(usize) -> usize = match next {
        0 | 43 | 60 => |units| 8 * units + 8,
        44 => |_| 8,
        51 => |units| 4 * units + 8,
        _ => return upper(frame, at, class::IPV6, next, true),
    };
    if budget == 0 {
        return upper(frame, at, class::IPV6, next, true);
    }
    let Some(units) = frame.get(at + 1) else { return other };
    let Some(header) = frame.get(at..at + scale(usize::from(*units))) else { return other };
    let at = at + header.len();
    if next == 44 && number(header, 2).is_some_and(|offset| offset / 8 != 0) {
        return upper(frame, at, class::IPV6, header[0], false);
    }
    chain(frame, at, header[0], budget - 1)
}

fn upper(frame: &[u8], at: usize, family: usize, protocol: u8, first_fragment: bool) -> Layer {
    let v4 = family == class::IPV4;
    let (member, length) = match (protocol, v4) {
        (6, _) => (class::TCP, 0),
        (17, _) => (class::UDP, 8),
        (1, true) | (58, false) => (class::ICMP, 0),
        (132, _) => (class::SCTP, 12),
        _ => (class::OTHER, 0),
    };
    let bare = Layer { class: family + member, tcp_flags: None, upper: None, end: at };
    match (first_fragment, protocol) {
        (false, _) => bare,
        (true, 6) => match frame.get(at..at + 20) {
            Some(tcp) => Layer {
                tcp_flags: Some(tcp[13]),
                upper: Some(6),
                end: at + (usize::from(tcp[12] / 16) * 4).max(20),
                ..bare
            },
            None => bare,
        },
        (true, _) => Layer { upper: Some(protocol), end: at + length, ..bare },
    }
}

/// What a tunnel's outer headers carry.
fn tunnelled(frame: &[u8], outer: &Layer) -> Option<Layer> {
    let at = outer.end;
    let (at, ethertype) = match outer.upper? {
        4 => (at, 0x0800),
        41 => (at, 0x86dd),
        47 => {
            let bits = frame.get(at..at + 4)?[0];
            let fields = [0x80, 0x20, 0x10].iter().filter(|bit| bits & **bit != 0).count();
            (at + 4 + 4 * fields, number(frame, at + 2)?)
        }
        17 => match (number(frame, at - 6)?, *frame.get(at..at + 4)?.first()?) {
            (4789, 8) => (at + 8, 0x6558),
            (6081, first) if first < 0x40 => (at + 8 + 4 * usize::from(first), number(frame, at + 2)?),
            _ => return None,
        },
        _ => return None,
    };
    if ethertype == 0x6558 {
        let ethertype = number(frame, at + 12)?;
        return Some(network(frame, at + 14, ethertype));
    }
    Some(network(frame, at, ethertype))
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}
