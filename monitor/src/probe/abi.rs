//! The bytes in the maps: the kernel's counters as plain counts, and the records only user space reads.
//!
//! The records are part of the pinned layout: raise [`monitor_ebpf::LAYOUT`] when one changes.

use monitor_ebpf::{ClassCounters, Counters, DirectionCounters};

use crate::{
    ledger::{Account, Fold, Source},
    sample::{AttachMode, ClassCounts, Counts, DirectionCounts},
    topology::names::Cookie,
};

use super::{Side, Target};

/// A value as it lies in a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Wire<T>(pub(super) T);

macro_rules! plain {
    ($($record:ty),+) => {
        $(
            #[allow(unsafe_code, reason = "aya asks for a promise about the bytes")]
            // SAFETY: `repr(C)` integers and arrays of them without padding (the sizes are asserted below), so that
            // any bytes are a value and every byte of a value is initialised.
            unsafe impl aya::Pod for Wire<$record> {}
        )+
    };
}
plain!(Counters, SlotRecord, TotalRecord, JournalRecord);

/// Longest name of a namespace kept, in bytes.
const NETNS: usize = 256;
/// `IFNAMSIZ`.
const INTERFACE: usize = 16;

/// An interface that is counted, or was when the agent last looked.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct SlotRecord {
    /// Added to what the slot counts, modulo 2^64: carried over from another layout, less what was given to the sum of other
    /// namespaces. Hooks as the device sees them.
    pub(super) base: Counters,
    /// Identity of the namespace.
    pub(super) cookie: u64,
    /// Kernel's ids of the programs attached, ingress first.
    pub(super) programs: [u32; 2],
    /// Kernel's tags of these programs.
    pub(super) tags: [u64; 2],
    /// Interface index, in the host's namespace or inside.
    pub(super) ifindex: u32,
    /// The layout whose count of this slot is in `base` but perhaps not yet deleted there; 0 for none.
    pub(super) carried: u32,
    /// 0: host end; 1: inside.
    pub(super) side: u8,
    /// 0: TCX; 1: clsact.
    pub(super) mode: u8,
    /// 1 when the clsact qdisc is ours.
    pub(super) qdisc: u8,
    /// 1 when its counts are summed with those of other namespaces.
    pub(super) summed: u8,
    pub(super) reserved: [u8; 4],
    /// Name inside the namespace, zero-filled.
    pub(super) interface: [u8; INTERFACE],
    /// Name of the namespace, zero-filled.
    pub(super) netns: [u8; NETNS],
}

/// The total of a namespace, or the host's.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct TotalRecord {
    /// From the namespace's point of view: `ingress` holds what it received.
    pub(super) total: Counters,
    pub(super) netns: [u8; NETNS],
}

/// The move being made.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct JournalRecord {
    pub(super) total: Counters,
    pub(super) account: u64,
    pub(super) source: u64,
    pub(super) kind: u32,
    pub(super) layout: u32,
    pub(super) netns: [u8; NETNS],
}

const _: () = assert!(size_of::<SlotRecord>() == 1024 + 8 + 8 + 16 + 8 + 8 + INTERFACE + NETNS);
const _: () = assert!(size_of::<TotalRecord>() == 1024 + NETNS);
const _: () = assert!(size_of::<JournalRecord>() == 1024 + 8 + 8 + 8 + NETNS);

/// The keys of the host's own totals; no namespace has such a cookie.
const GONE: u64 = 0;
const OTHER: u64 = u64::MAX;

pub(super) fn account_key(account: Account) -> u64 {
    match account {
        Account::Netns(Cookie(cookie)) => cookie,
        Account::Gone => GONE,
        Account::Other => OTHER,
    }
}

pub(super) fn account(key: u64) -> Account {
    match key {
        GONE => Account::Gone,
        OTHER => Account::Other,
        cookie => Account::Netns(Cookie(cookie)),
    }
}

impl SlotRecord {
    pub(super) fn target(&self) -> Target {
        Target {
            cookie: Cookie(self.cookie),
            netns: text(&self.netns),
            interface: text(&self.interface),
            side: match self.side {
                0 => Side::HostEnd { ifindex: self.ifindex },
                _ => Side::Inside { ifindex: self.ifindex },
            },
        }
    }

    pub(super) fn set_target(&mut self, target: &Target) {
        self.cookie = target.cookie.0;
        self.netns = bytes(&target.netns);
        self.interface = bytes(&target.interface);
        (self.side, self.ifindex) = match target.side {
            Side::HostEnd { ifindex } => (0, ifindex),
            Side::Inside { ifindex } => (1, ifindex),
        };
    }

    /// Where its counts go when it ends.
    pub(super) fn account(&self) -> Account {
        match self.summed {
            0 => Account::Netns(Cookie(self.cookie)),
            _ => Account::Other,
        }
    }

    pub(super) fn mode(&self) -> AttachMode {
        match self.mode {
            0 => AttachMode::Tcx,
            _ => AttachMode::Clsact,
        }
    }

    pub(super) fn new(target: &Target, mode: AttachMode) -> Self {
        let mut record = Self {
            base: Counters::default(),
            cookie: 0,
            programs: [0; 2],
            tags: [0; 2],
            ifindex: 0,
            carried: 0,
            side: 0,
            mode: match mode {
                AttachMode::Tcx => 0,
                AttachMode::Clsact => 1,
            },
            qdisc: 0,
            summed: 0,
            reserved: [0; 4],
            interface: [0; INTERFACE],
            netns: [0; NETNS],
        };
        record.set_target(target);
        record
    }
}

impl TotalRecord {
    pub(super) fn new(netns: &str, total: &Counts) -> Self {
        Self { total: to_counters(total), netns: bytes(netns) }
    }

    pub(super) fn netns(&self) -> String {
        text(&self.netns)
    }

    pub(super) fn counts(&self) -> Counts {
        from_namespace(&self.total)
    }
}

impl JournalRecord {
    pub(super) fn new(fold: &Fold) -> Self {
        let (kind, layout, source) = match fold.source {
            Source::Interface(slot) => (1, 0, slot),
            Source::Netns(cookie) => (2, 0, cookie.0),
            Source::OldInterface(layout, slot) => (3, layout, slot),
            Source::OldTotal(layout, account) => (4, layout, account_key(account)),
            Source::Part(slot) => (5, 0, slot),
        };
        Self {
            total: to_counters(&fold.total),
            account: account_key(fold.account),
            source,
            kind,
            layout,
            netns: bytes(&fold.netns),
        }
    }

    /// The move; nothing when the record is of a kind this version does not know.
    pub(super) fn fold(&self) -> Option<Fold> {
        Some(Fold {
            source: match self.kind {
                1 => Source::Interface(self.source),
                2 => Source::Netns(Cookie(self.source)),
                3 => Source::OldInterface(self.layout, self.source),
                4 => Source::OldTotal(self.layout, account(self.source)),
                5 => Source::Part(self.source),
                _ => return None,
            },
            account: account(self.account),
            netns: text(&self.netns),
            total: from_namespace(&self.total),
        })
    }
}

/// What a slot counted, from the namespace's point of view: what enters the host end of a veth is what the namespace
/// sent; what enters an interface inside is what it received.
pub(super) fn counts(counters: &Counters, side: Side) -> Counts {
    let Counters { ingress, egress } = counters;
    match side {
        Side::HostEnd { .. } => Counts { receive: direction(egress), transmit: direction(ingress) },
        Side::Inside { .. } => Counts { receive: direction(ingress), transmit: direction(egress) },
    }
}

/// The sum over the CPUs.
pub(super) fn sum<'a>(values: impl IntoIterator<Item = &'a Wire<Counters>>) -> Counters {
    values
        .into_iter()
        .fold(Counters::default(), |total, Wire(counters)| combine(&total, counters, u64::saturating_add))
}

/// What a slot counts, and its base.
pub(super) fn plus(a: &Counters, b: &Counters) -> Counters {
    combine(a, b, u64::wrapping_add)
}

/// A base less what was given away.
pub(super) fn minus(a: &Counters, b: &Counters) -> Counters {
    combine(a, b, u64::wrapping_sub)
}

fn combine(a: &Counters, b: &Counters, with: fn(u64, u64) -> u64) -> Counters {
    let mut combined = *a;
    for (mine, other) in [(&mut combined.ingress, &b.ingress), (&mut combined.egress, &b.egress)] {
        let DirectionCounters { classes, sizes, tcp_flags, reserved: _ } = other;
        for (mine, ClassCounters { skbs, skb_bytes, extra_packets, extra_bytes }) in
            mine.classes.iter_mut().zip(classes)
        {
            mine.skbs = with(mine.skbs, *skbs);
            mine.skb_bytes = with(mine.skb_bytes, *skb_bytes);
            mine.extra_packets = with(mine.extra_packets, *extra_packets);
            mine.extra_bytes = with(mine.extra_bytes, *extra_bytes);
        }
        let rest = sizes.iter().chain(tcp_flags);
        for (mine, other) in mine.sizes.iter_mut().chain(&mut mine.tcp_flags).zip(rest) {
            *mine = with(*mine, *other);
        }
    }
    combined
}

fn direction(counters: &DirectionCounters) -> DirectionCounts {
    let DirectionCounters { classes, sizes, tcp_flags, reserved: _ } = *counters;
    DirectionCounts {
        classes: classes.map(|ClassCounters { skbs, skb_bytes, extra_packets, extra_bytes }| ClassCounts {
            skbs,
            skb_bytes,
            packets: skbs.saturating_add(extra_packets),
            bytes: skb_bytes.saturating_add(extra_bytes),
        }),
        sizes,
        tcp_flags,
    }
}

/// Totals are kept as the kernel's counters are, with `ingress` for what the namespace received.
fn from_namespace(counters: &Counters) -> Counts {
    counts(counters, Side::Inside { ifindex: 0 })
}

fn to_counters(counts: &Counts) -> Counters {
    let Counts { receive, transmit } = counts;
    Counters { ingress: to_direction(receive), egress: to_direction(transmit) }
}

fn to_direction(counts: &DirectionCounts) -> DirectionCounters {
    let DirectionCounts { classes, sizes, tcp_flags } = *counts;
    DirectionCounters {
        classes: classes.map(|ClassCounts { skbs, skb_bytes, packets, bytes }| ClassCounters {
            skbs,
            skb_bytes,
            extra_packets: packets.saturating_sub(skbs),
            extra_bytes: bytes.saturating_sub(skb_bytes),
        }),
        sizes,
        tcp_flags,
        reserved: 0,
    }
}

/// A name as zero-filled bytes, cut at a character where it is too long.
pub(crate) fn bytes<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut end = name.len().min(N - 1);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
    bytes
}

pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> Counters {
        let mut counters = Counters::default();
        counters.ingress.classes[0] =
            ClassCounters { skbs: 1, skb_bytes: 100, extra_packets: 41, extra_bytes: 2000 };
        counters.ingress.sizes[1] = 42;
        counters.egress.classes[11] = ClassCounters { skbs: 7, skb_bytes: 700, ..ClassCounters::default() };
        counters.egress.tcp_flags[3] = 9;
        counters
    }

    #[test]
    fn the_host_end_receives_what_the_namespace_transmits() {
        let host = counts(&counters(), Side::HostEnd { ifindex: 3 });
        let inside = counts(&counters(), Side::Inside { ifindex: 3 });
        let wire = ClassCounts { skbs: 1, skb_bytes: 100, packets: 42, bytes: 2100 };
        assert_eq!((host.transmit.classes[0], inside.receive.classes[0]), (wire, wire));
        assert_eq!((host.receive, host.transmit), (inside.transmit, inside.receive));
    }

    #[test]
    fn every_field_of_every_cpu_is_in_the_sum() {
        let doubled = sum(&[Wire(counters()), Wire(counters()), Wire(Counters::default())]);
        let mut expected = counters();
        expected.ingress.classes[0] =
            ClassCounters { skbs: 2, skb_bytes: 200, extra_packets: 82, extra_bytes: 4000 };
        expected.ingress.sizes[1] = 84;
        expected.egress.classes[11].skbs = 14;
        expected.egress.classes[11].skb_bytes = 1400;
        expected.egress.tcp_flags[3] = 18;
        assert_eq!(doubled, expected);
    }

    #[test]
    fn what_was_given_away_is_not_counted_again() {
        let given = counters();
        let mut now = counters();
        now.ingress.classes[0].skbs += 5;
        now.egress.tcp_flags[3] += 1;
        let left = plus(&now, &minus(&Counters::default(), &given));
        let mut expected = Counters::default();
        expected.ingress.classes[0].skbs = 5;
        expected.egress.tcp_flags[3] = 1;
        assert_eq!(left, expected);
    }

    #[test]
    fn records_give_back_what_they_were_made_of() {
        let total = counts(&counters(), Side::HostEnd { ifindex: 3 });
        let record = TotalRecord::new("blue", &total);
        assert_eq!((record.netns(), record.counts()), ("blue".to_owned(), total));
        for (source, account) in [
            (Source::Interface(1 << 40), Account::Netns(Cookie(7))),
            (Source::Netns(Cookie(7)), Account::Gone),
            (Source::OldInterface(3, 8), Account::Netns(Cookie(9))),
            (Source::Netns(Cookie(7)), Account::Other),
            (Source::Part(3), Account::Other),
            (Source::OldTotal(3, Account::Gone), Account::Gone),
            (Source::OldTotal(3, Account::Netns(Cookie(5))), Account::Netns(Cookie(5))),
        ] {
            let fold = Fold { source, account, netns: "blue".to_owned(), total };
            assert_eq!(JournalRecord::new(&fold).fold(), Some(fold));
        }
        let target = Target {
            cookie: Cookie(7),
            netns: "é".repeat(200),
            interface: "eth0".to_owned(),
            side: Side::Inside { ifindex: 5 },
        };
        let back = SlotRecord::new(&target, AttachMode::Clsact).target();
        assert_eq!(back.netns, "é".repeat(127), "cut at a character, room for the closing zero");
        assert_eq!((back.cookie, back.interface, back.side), (target.cookie, target.interface, target.side));
    }
}
