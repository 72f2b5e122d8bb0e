//! Frames at random, the same in each run: layers that fit each other, then now and then something wrong.

use crate::{
    frames::{arp, authentication, ethernet, extension, fragment, ipv4_with, ipv6, tag, tcp, udp},
    test_run::Skb,
};

/// Marsaglia's xorshift.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Any seed but 0.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn bytes(&mut self, bound: usize) -> Vec<u8> {
        (0..self.below(bound)).map(|_| self.byte()).collect()
    }

    /// With or without GSO, `gso_segs` right, wrong or 0.
    pub fn skb(&mut self) -> Skb {
        let gso_size = [0, 0, 0, 1, 536, 1448, 9000, 0xffff][self.below(8)];
        let gso_segs = [0, 0, 1, 2, 3, 45, 700][self.below(7)];
        Skb { gso_size, gso_segs, ..Skb::default() }
    }

    /// A frame that is mostly right: layers at random, then now and then cut short or with a byte changed.
    pub fn frame(&mut self) -> Vec<u8> {
        let (mut ethertype, mut payload) = self.network(2);
        for _ in 0..[0, 0, 0, 1, 2, 3][self.below(6)] {
            payload = tag(ethertype, &payload);
            ethertype = if self.one_in(2) { 0x8100 } else { 0x88a8 };
        }
        let mut frame = ethernet(ethertype, &payload);
        if self.one_in(4) {
            frame.truncate(14 + self.below(frame.len() - 13));
        }
        if self.one_in(4) {
            let at = 12 + self.below((frame.len() - 12).min(80));
            frame[at] = self.byte();
        }
        frame.truncate(3700);
        // The least a test run takes: a whole IP header.
        let least = match frame[12..14] {
            [0x08, 0x00] => 34,
            [0x86, 0xdd] => 54,
            _ => 14,
        };
        if frame.len() < least {
            frame.resize(least, 0x45);
        }
        frame
    }

    fn network(&mut self, depth: usize) -> (u16, Vec<u8>) {
        match self.below(12) {
            0 => (0x0806, arp()),
            1 => ([0x88cc, 0x0040, 0x8847][self.below(3)], self.bytes(60)),
            2..=6 => {
                let (protocol, payload) = self.transport(depth);
                let options = [0, 0, 0, 1, 10][self.below(5)];
                let fragment = [0, 0, 0x4000, 0x2000, 0x2001, 0x1fff][self.below(6)];
                (0x0800, ipv4_with(protocol, options, fragment, &payload))
            }
            _ => {
                let (mut next, mut payload) = self.transport(depth);
                for _ in 0..[0, 0, 0, 1, 2, 4, 6, 7][self.below(8)] {
                    (next, payload) = match self.below(5) {
                        kind @ 0..3 => ([0, 43, 60][kind], extension(next, self.below(4) as u8, &payload)),
                        3 => (44, fragment(next, [0, 0, 1, 0x1fff][self.below(4)], &payload)),
                        _ => (51, authentication(next, self.below(5) as u8, &payload)),
                    };
                }
                (0x86dd, ipv6(next, &payload))
            }
        }
    }

    fn transport(&mut self, depth: usize) -> (u8, Vec<u8>) {
        let data = if self.one_in(8) { vec![0; self.below(3000)] } else { self.bytes(100) };
        match self.below(12) {
            0..=3 => (6, tcp(self.byte(), self.below(11) as u8, &data)),
            4 | 5 => (17, udp([53, 4789, 6081][self.below(3)], &data)),
            6 => ([1, 58][self.below(2)], data),
            7 => (132, data),
            8 if depth > 0 => {
                let (ethertype, inner) = self.network(depth - 1);
                (if ethertype == 0x86dd { 41 } else { 4 }, inner)
            }
            9 if depth > 0 => {
                let (ethertype, inner) = self.network(depth - 1);
                let port = [4789, 6081][self.below(2)];
                let head =
                    if port == 4789 { [8, 0, 0, 0, 0, 0, 9, 0] } else { [0, 0, 0x65, 0x58, 0, 0, 9, 0] };
                (17, udp(port, &[&head, ethernet(ethertype, &inner).as_slice()].concat()))
            }
            10 if depth > 0 => {
                let (ethertype, inner) = self.network(depth - 1);
                let [high, low] = ethertype.to_be_bytes();
                (47, [&[0, 0, high, low], inner.as_slice()].concat())
            }
            _ => (self.byte(), data),
        }
    }
}
