//! What a sender knows it sent, by class: arithmetic of its own, compared with what the agent says.

use std::collections::BTreeMap;

use crate::exposition::Metrics;

/// A class as the labels `family` and `protocol` name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(pub &'static str, pub &'static str);

/// All classes.
pub const CLASSES: [Class; 12] = [
    Class("ipv4", "tcp"),
    Class("ipv4", "udp"),
    Class("ipv4", "icmp"),
    Class("ipv4", "sctp"),
    Class("ipv4", "other"),
    Class("ipv6", "tcp"),
    Class("ipv6", "udp"),
    Class("ipv6", "icmpv6"),
    Class("ipv6", "sctp"),
    Class("ipv6", "other"),
    Class("arp", "other"),
    Class("other", "other"),
];

/// Packets and bytes on the wire, by class. All classes are there, so two ledgers are equal only if what was not sent
/// is 0 in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger(BTreeMap<Class, Count>);

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes from the Ethernet header on, without FCS.
    pub bytes: u64,
}

impl Ledger {
    /// Nothing sent.
    #[must_use]
    pub fn new() -> Self {
        Self(CLASSES.into_iter().map(|class| (class, Count::default())).collect())
    }

    /// Adds packets of one class.
    ///
    /// # Panics
    /// On a class that is none of [`CLASSES`].
    pub fn add(&mut self, class: Class, packets: u64, bytes: u64) {
        let count = self.0.get_mut(&class).unwrap_or_else(|| panic!("{class:?} is no class"));
        count.packets += packets;
        count.bytes += bytes;
    }

    /// Everything together.
    #[must_use]
    pub fn total(&self) -> Count {
        self.0.values().fold(Count::default(), |sum, count| Count {
            packets: sum.packets + count.packets,
            bytes: sum.bytes + count.bytes,
        })
    }

    /// What the agent says of a namespace in one direction (`receive` or `transmit`), by class.
    ///
    /// # Panics
    /// When a class has no series, or there is one for another class.
    #[must_use]
    pub fn of(metrics: &Metrics, netns: &str, direction: &str) -> Self {
        let labels = [("netns", netns), ("direction", direction)];
        let mut ledger = Self::new();
        for Class(family, protocol) in CLASSES {
            let class = [&labels[..], &[("family", family), ("protocol", protocol)]].concat();
            let value = |name| {
                let value = metrics.value(name, &class);
                value.unwrap_or_else(|| panic!("no {name} with {class:?}")) as u64
            };
            let packets = value("netns_protocol_packets_total");
            ledger.add(Class(family, protocol), packets, value("netns_protocol_bytes_total"));
        }
        assert_eq!(metrics.select("netns_protocol_packets_total", &labels).count(), CLASSES.len());
        ledger
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

/// What the agent says of one interface in one direction, in wire units.
#[must_use]
pub fn wire(metrics: &Metrics, netns: &str, interface: &str, direction: &str) -> Count {
    count(metrics, ["netns_packets_total", "netns_bytes_total"], [netns, interface, direction])
}

/// What the agent says of one interface in one direction, in the kernel's units.
#[must_use]
pub fn skbs(metrics: &Metrics, netns: &str, interface: &str, direction: &str) -> Count {
    count(metrics, ["netns_skbs_total", "netns_skb_bytes_total"], [netns, interface, direction])
}

fn count(metrics: &Metrics, [packets, bytes]: [&str; 2], labels: [&str; 3]) -> Count {
    let [netns, interface, direction] = labels;
    let labels = [("netns", netns), ("interface", interface), ("direction", direction)];
    Count { packets: metrics.count(packets, &labels), bytes: metrics.count(bytes, &labels) }
}
