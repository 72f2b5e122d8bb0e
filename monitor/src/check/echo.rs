//! Echo requests and replies as bytes (RFC 792, RFC 4443). Pure.

use std::net::IpAddr;

/// What our own requests are known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    id: u16,
    secret: [u8; 16],
}

/// What a packet says to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// An answer.
    Reply {
        /// To which question.
        index: u32,
        /// To which echo of it.
        seq: u16,
    },
    /// A request of ours did not arrive.
    Error {
        /// Where it was sent.
        to: IpAddr,
        /// Type of the message.
        kind: u8,
        /// Code of the message.
        code: u8,
    },
}

/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;
/// As `ping` sends by default.
const PAYLOAD: usize = 56;
const IPV6_HEADER: usize = 40;

impl Token {
    /// One for each run.
    pub(super) fn new(secret: u128, id: u32) -> Self {
        Self { id: (id ^ (id >> 16)) as u16, secret: secret.to_be_bytes() }
    }
}

/// An echo request. The kernel fills in the checksum for IPv6.
pub(super) fn request(ipv6: bool, token: &Token, index: u32, seq: u16) -> Vec<u8> {
    let mut packet = vec![if ipv6 { 128 } else { 8 }, 0, 0, 0];
    packet.extend(token.id.to_be_bytes());
    packet.extend(seq.to_be_bytes());
    packet.extend(token.secret);
    packet.extend(index.to_be_bytes());
    packet.resize(HEADER + PAYLOAD, 0);
    if !ipv6 {
        let sum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&sum);
    }
    packet
}

/// What a packet of a raw socket says, as far as it is about a request of ours. IPv4 ones come with their IP header.
pub(super) fn read(ipv6: bool, packet: &[u8], token: &Token) -> Option<Heard> {
    let icmp = if ipv6 { packet } else { packet.get(header_length(packet)?..)? };
    let [kind, code, ..] = *icmp.first_chunk::<HEADER>()?;
    let (reply, errors): (u8, &[u8]) = if ipv6 { (129, &[1, 2, 3, 4]) } else { (0, &[3, 11, 12]) };
    if kind == reply {
        let (id, seq, secret, index) = parts(icmp)?;
        return (id == token.id && secret == Some(&token.secret[..]))
            .then_some(Heard::Reply { index: index?, seq });
    }
    if !errors.contains(&kind) {
        return None;
    }
    let inner = icmp.get(HEADER..)?;
    let (to, request): (IpAddr, &[u8]) = if ipv6 {
        (inner.get(24..)?.first_chunk::<16>().map(|bytes| (*bytes).into())?, inner.get(IPV6_HEADER..)?)
    } else {
        (
            inner.get(16..)?.first_chunk::<4>().map(|bytes| (*bytes).into())?,
            inner.get(header_length(inner)?..)?,
        )
    };
    let (id, _, secret, _) = parts(request)?;
    // What is cut short has no secret.
    let ours = id == token.id && secret.is_none_or(|secret| secret == token.secret);
    ours.then_some(Heard::Error { to, kind, code })
}

type Parts<'a> = (u16, u16, Option<&'a [u8]>, Option<u32>);

fn parts(icmp: &[u8]) -> Option<Parts<'_>> {
    let number = |at: usize| Some(u16::from_be_bytes(*icmp.get(at..)?.first_chunk()?));
    let index = icmp.get(HEADER + 16..).and_then(|rest| rest.first_chunk());
    Some((
        number(4)?,
        number(6)?,
        icmp.get(HEADER..HEADER + 16),
        index.map(|bytes| u32::from_be_bytes(*bytes)),
    ))
}

fn header_length(packet: &[u8]) -> Option<usize> {
    Some(usize::from(packet.first()? & 0xf) * 4)
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token { id: 7, secret: [9; 16] };

    fn ipv4(protocol_data: &[u8], to: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&to);
        packet.extend(protocol_data);
        packet
    }

    #[test]
    fn a_reply_is_known_by_its_token_and_another_is_not() {
        let mut reply = request(false, &TOKEN, 3, 5);
        assert_eq!(checksum(&reply), 0, "a packet with its checksum sums up to nothing");
        assert_eq!(read(false, &ipv4(&reply, [0; 4]), &TOKEN), None, "a request is no reply");
        reply[0] = 0;
        assert_eq!(read(false, &ipv4(&reply, [0; 4]), &TOKEN), Some(Heard::Reply { index: 3, seq: 5 }));
        assert_eq!(read(false, &ipv4(&reply, [0; 4]), &Token { id: 8, ..TOKEN }), None);
        assert_eq!(read(false, &ipv4(&reply, [0; 4]), &Token { secret: [1; 16], ..TOKEN }), None);
        let mut reply = request(true, &TOKEN, 1, 2);
        reply[0] = 129;
        assert_eq!(read(true, &reply, &TOKEN), Some(Heard::Reply { index: 1, seq: 2 }));
    }

    #[test]
    fn an_error_is_ours_by_the_request_in_it_also_when_that_is_cut_short() {
        let to = [198, 51, 100, 9];
        for length in [28, 84] {
            let inner = ipv4(&request(false, &TOKEN, 3, 5), to);
            let mut error = vec![3, 13, 0, 0, 0, 0, 0, 0];
            error.extend(&inner[..length]);
            let heard = Heard::Error { to: to.into(), kind: 3, code: 13 };
            assert_eq!(read(false, &ipv4(&error, [0; 4]), &TOKEN), Some(heard));
            assert_eq!(read(false, &ipv4(&error, [0; 4]), &Token { id: 8, ..TOKEN }), None);
        }
        let mut error = vec![1, 1, 0, 0, 0, 0, 0, 0];
        error.extend([0; 24]);
        let six: std::net::Ipv6Addr = "2001:db8::9".parse().unwrap();
        error.extend(six.octets());
        error.extend(request(true, &TOKEN, 3, 5));
        assert_eq!(read(true, &error, &TOKEN), Some(Heard::Error { to: six.into(), kind: 1, code: 1 }));
    }

    #[test]
    fn nothing_is_read_from_what_is_too_short() {
        let whole = ipv4(&request(false, &TOKEN, 1, 1), [0; 4]);
        for length in 0..whole.len() {
            assert_eq!(read(false, &whole[..length], &TOKEN), None);
            let mut error = ipv4(&[3, 1, 0, 0, 0, 0, 0, 0], [0; 4]);
            error.extend(&whole[..length.min(27)]);
            assert_eq!(read(false, &error, &TOKEN), None);
            assert_eq!(read(true, &error[20..], &TOKEN), None);
        }
    }
}
