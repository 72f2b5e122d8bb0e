//! What is known of one frame, and the numbers that stand in headers. Reads no packet.

use monitor_ebpf::class;

pub(crate) const ETHERNET: u32 = 14;
pub(crate) const VLAN_TAG: u32 = 4;
pub(crate) const IPV4_MIN: u32 = 20;
pub(crate) const IPV6_FIXED: u32 = 40;
pub(crate) const TCP_MIN: u32 = 20;
const UDP_HEADER: u32 = 8;
/// Everything before the first chunk: what each segment of an SCTP GSO packet repeats.
const SCTP_HEADER: u32 = 12;
/// In-band tags followed; with a tag in the skb's metadata that makes three.
pub(crate) const MAX_TAGS: u32 = 2;

/// Extension headers followed before the chain counts as unreadable. RFC 8200 lists six kinds worth walking.
pub(crate) const MAX_EXTENSIONS: u32 = 6;

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

#[inline(always)]
pub(crate) const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::QINQ)
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

/// A function of an eBPF program returns one register.
impl Frame {
    pub(crate) const fn pack(self) -> u64 {
        let Self { class, tcp_flags, protocol, malformed, headers } = self;
        class as u64
            | (tcp_flags as u64) << 8
            | (protocol as u64) << 16
            | (malformed as u64) << 24
            | (headers as u64) << 32
    }

    pub(crate) const fn unpack(word: u64) -> Self {
        Self {
            class: word as u8 as usize,
            tcp_flags: (word >> 8) as u8,
            protocol: (word >> 16) as u8,
            malformed: (word >> 24) as u8 != 0,
            headers: (word >> 32) as u32,
        }
    }

    pub(crate) const fn unknown(headers: u32, malformed: bool) -> Self {
        Self { class: class::UNKNOWN, tcp_flags: 0, protocol: 0, malformed, headers }
    }
}

/// TCP whose header starts at `offset`.
#[inline(always)]
pub(crate) const fn tcp(family: usize, offset: u32, data_offset: u8, tcp_flags: u8) -> Frame {
    let length = (data_offset >> 4) as u32 * 4;
    let length = if length < TCP_MIN { TCP_MIN } else { length };
    let class = family + class::TCP;
    Frame { class, tcp_flags, protocol: protocol::TCP, malformed: false, headers: offset + length }
}

/// A header at `offset` that is not looked at: of any protocol but TCP, or not `there`.
#[inline(always)]
pub(crate) const fn plain(family: usize, protocol: u8, offset: u32, there: bool) -> Frame {
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
pub(crate) const fn other(family: usize, offset: u32) -> Frame {
    Frame { class: family + class::OTHER, ..Frame::unknown(offset, false) }
}
