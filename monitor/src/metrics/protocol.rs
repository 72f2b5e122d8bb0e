//! Packets and bytes of each namespace by class: every packet is in exactly one.

use monitor_ebpf::{CLASSES, class};

use super::{Collector, Metric, Series};
use crate::sample::Sample;

pub(super) const COLLECTOR: Collector = Collector {
    name: "protocol",
    help: "Packets and bytes of each namespace by family and protocol.",
    metrics: &[PACKETS, BYTES],
    collect,
};

const LABELS: &[&str] = &["netns", "direction", "family", "protocol"];

const PACKETS: Metric = Metric::counter(
    "netns_protocol_packets_total",
    LABELS,
    "Packets as on the wire by family (ipv4, ipv6, arp, other) and protocol (tcp, udp, icmp, icmpv6, sctp, other), \
     interfaces that are gone included, direction as seen by the namespace.",
);
const BYTES: Metric = Metric::counter(
    "netns_protocol_bytes_total",
    LABELS,
    "Bytes as on the wire by family and protocol, interfaces that are gone included, direction as seen by the namespace.",
);

/// Family and protocol of each class. ARP carries no protocol of the fourth layer, so its protocol is `other`.
pub const CLASS_NAMES: [(&str, &str); CLASSES] = {
    let mut names = [("", ""); CLASSES];
    names[class::IPV4 + class::TCP] = ("ipv4", "tcp");
    names[class::IPV4 + class::UDP] = ("ipv4", "udp");
    names[class::IPV4 + class::ICMP] = ("ipv4", "icmp");
    names[class::IPV4 + class::SCTP] = ("ipv4", "sctp");
    names[class::IPV4 + class::OTHER] = ("ipv4", "other");
    names[class::IPV6 + class::TCP] = ("ipv6", "tcp");
    names[class::IPV6 + class::UDP] = ("ipv6", "udp");
    names[class::IPV6 + class::ICMP] = ("ipv6", "icmpv6");
    names[class::IPV6 + class::SCTP] = ("ipv6", "sctp");
    names[class::IPV6 + class::OTHER] = ("ipv6", "other");
    names[class::ARP] = ("arp", "other");
    names[class::UNKNOWN] = ("other", "other");
    names
};

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    for (netns, counts) in sample.totals() {
        for (direction, counts) in counts.each() {
            for ((family, protocol), class) in CLASS_NAMES.into_iter().zip(&counts.classes) {
                let labels = [netns, direction, family, protocol];
                series.count(&PACKETS, &labels, class.packets);
                series.count(&BYTES, &labels, class.bytes);
            }
        }
    }
    Ok(())
}
