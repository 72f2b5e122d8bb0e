//! From a frame to its class: a quick look at plain frames, and a careful walk for everything else.
//!
//! The frame decides, never `skb->protocol`. Both only read: the quick look by direct access to the linear part, the
//! walk by `bpf_skb_load_bytes`, which also reaches bytes outside it. `bpf_skb_pull_data` would change the skb.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use monitor_ebpf::class;

pub(crate) const ETHERNET: u32 = 14;
const VLAN_TAG: u32 = 4;
const IPV4_MIN: u32 = 20;
const IPV6_FIXED: u32 = 40;
const TCP_MIN: u32 = 20;
const UDP_HEADER: u32 = 8;
/// Everything before the first chunk: what each segment of an SCTP GSO packet repeats.
const SCTP_HEADER: u32 = 12;
/// Extension headers followed before the chain counts as unreadable. RFC 8200 lists six kinds worth walking.
const MAX_EXTENSIONS: u32 = 6;
/// In-band tags followed; with a tag in the skb's metadata that makes three.
const MAX_TAGS: u32 = 2;

/// EtherTypes, in host order.
pub(crate) mod ethertype {
    pub(crate) const IPV4: u16 = 0x0800;
    pub(crate) const ARP: u16 = 0x0806;
    pub(crate) const VLAN: u16 = 0x8100;
    pub(crate) const IPV6: u16 = 0x86dd;
    pub(crate) const QINQ: u16 = 0x88a8;
    /// Bridged Ethernet, inside GRE and Geneve.
    pub(crate) const BRIDGED: u16 = 0x6558;
}

/// IP protocol numbers.
pub(crate) mod protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IPIP: u8 = 4;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const IPV6: u8 = 41;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const GRE: u8 = 47;
    pub(crate) const AH: u8 = 51;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const DESTINATION: u8 = 60;
    pub(crate) const SCTP: u8 = 132;
}

/// What a look at a frame finds.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    /// See [`monitor_ebpf::class`].
    pub(crate) class: usize,
    /// The TCP flags byte, when the header was readable; else 0.
    pub(crate) tcp_flags: u8,
    /// The protocol whose header starts at (or, for TCP, UDP and SCTP, ends at) `headers`; 0 when there is none.
    pub(crate) protocol: u8,
    /// A header that the frame announces is broken or missing.
    pub(crate) malformed: bool,
    /// Where the payload starts: bytes that every segment of this frame repeats.
    pub(crate) headers: u32,
}

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

/// Any frame, without or with up to [`MAX_TAGS`] in-band tags: the quick look where it can tell, else the walk.
#[inline(always)]
pub(crate) fn any(skb: *mut __sk_buff) -> Frame {
    Frame::unpack(parse_any(skb))
}

/// See [`walk_network`].
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

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::QINQ)
}

/// A function of an eBPF program returns one register.
impl Frame {
    const fn pack(self) -> u64 {
        let Self { class, tcp_flags, protocol, malformed, headers } = self;
        class as u64
            | (tcp_flags as u64) << 8
            | (protocol as u64) << 16
            | (malformed as u64) << 24
            | (headers as u64) << 32
    }

    const fn unpack(word: u64) -> Self {
        Self {
            class: word as u8 as usize,
            tcp_flags: (word >> 8) as u8,
            protocol: (word >> 16) as u8,
            malformed: (word >> 24) as u8 != 0,
            headers: (word >> 32) as u32,
        }
    }

    const fn unknown(headers: u32, malformed: bool) -> Self {
        Self { class: class::UNKNOWN, tcp_flags: 0, protocol: 0, malformed, headers }
    }
}

/// Walks all headers of the frame.
#[inline(always)]
fn walk(skb: *mut __sk_buff) -> Frame {
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

#[inline(always)]
const fn tcp(family: usize, offset: u32, data_offset: u8, tcp_flags: u8) -> Frame {
    let length = (data_offset >> 4) as u32 * 4;
    let length = if length < TCP_MIN { TCP_MIN } else { length };
    let class = family + class::TCP;
    Frame { class, tcp_flags, protocol: protocol::TCP, malformed: false, headers: offset + length }
}

/// A header at `offset` that is not looked at: of any protocol but TCP, or not `there`.
#[inline(always)]
const fn plain(family: usize, protocol: u8, offset: u32, there: bool) -> Frame {
    let (member, length) = match protocol {
        protocol::TCP => (class::TCP, 0),
        protocol::UDP => (class::UDP, UDP_HEADER),
        protocol::ICMP if family == class::IPV4 => (class::ICMP, 0),
        protocol::ICMPV6 if family == class::IPV6 => (class::ICMP, 0),
        protocol::SCTP => (class::SCTP, SCTP_HEADER),
        _ => (class::OTHER, 0),
    };
    let (protocol, headers) = if there { (protocol, offset + length) } else { (0, offset) };
    Frame { class: family + member, tcp_flags: 0, protocol, malformed: false, headers }
}

/// Nothing known beyond the family.
const fn other(family: usize, offset: u32) -> Frame {
    Frame { class: family + class::OTHER, ..Frame::unknown(offset, false) }
}

/// A number in network order.
#[inline(always)]
pub(crate) fn load_u16(ctx: &TcContext, offset: u32) -> Option<u16> {
    ctx.load::<[u8; 2]>(offset as usize).ok().map(u16::from_be_bytes)
}
