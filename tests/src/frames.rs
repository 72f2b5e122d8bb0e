//! Ethernet frames written byte by byte, from the inside out. No checksums and no sending.

/// `198.51.100.1` to `198.51.100.2`.
const IPV4_ADDRESSES: [u8; 8] = [198, 51, 100, 1, 198, 51, 100, 2];

/// A frame with this EtherType around `payload`.
#[must_use]
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A tag's four bytes less its own EtherType, which is the frame's: VLAN 42, then the EtherType of what follows.
#[must_use]
pub fn tag(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 42];
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An IPv4 packet without options, not a fragment.
#[must_use]
pub fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(protocol, 0, 0, payload)
}

/// An IPv4 packet with words of options, and flags and fragment offset as the header holds them.
#[must_use]
pub fn ipv4_with(protocol: u8, option_words: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header = 20 + 4 * usize::from(option_words);
    let total = u16::try_from(header + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![0x45 + option_words, 0, total[0], total[1], 0, 0];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(IPV4_ADDRESSES);
    packet.resize(header, 1);
    packet.extend(payload);
    packet
}

/// An IPv6 packet from `2001:db8::1` to `2001:db8::2`; `payload` starts with what `next` names.
#[must_use]
pub fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
    for host in [1, 2] {
        packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
    }
    packet.extend(payload);
    packet
}

/// A hop-by-hop, routing or destination header of `units` times 8 more than 8 bytes.
#[must_use]
pub fn extension(next: u8, units: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next, units];
    bytes.resize(8 + 8 * usize::from(units), 0);
    bytes.extend(payload);
    bytes
}

/// An IPv6 fragment header, offset in units of 8 bytes.
#[must_use]
pub fn fragment(next: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (offset << 3 | 1).to_be_bytes();
    let mut bytes = vec![next, 0, high, low, 0, 0, 0, 7];
    bytes.extend(payload);
    bytes
}

/// An IPv6 authentication header with `words` times 4 bytes of integrity value.
#[must_use]
pub fn authentication(next: u8, words: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next, words + 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    bytes.resize(12 + 4 * usize::from(words), 0xaa);
    bytes.extend(payload);
    bytes
}

/// A TCP segment with these flags and words of options.
#[must_use]
pub fn tcp(flags: u8, option_words: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        vec![0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, (5 + option_words) << 4, flags, 1, 0, 0, 0, 0, 0];
    bytes.resize(20 + 4 * usize::from(option_words), 1);
    bytes.extend(payload);
    bytes
}

/// A UDP datagram to `port`.
#[must_use]
pub fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = vec![0x30, 0x39];
    bytes.extend(port.to_be_bytes());
    bytes.extend([length[0], length[1], 0, 0]);
    bytes.extend(payload);
    bytes
}

/// An ARP request.
#[must_use]
pub fn arp() -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 198, 51, 100, 1];
    bytes.extend([0, 0, 0, 0, 0, 0, 198, 51, 100, 2]);
    bytes
}
