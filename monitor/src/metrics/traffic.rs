//! Packets and bytes of each interface, in both units: as on the wire and as skbs.

use super::{Collector, Metric, Series};
use crate::sample::{Counts, Sample, lost::OTHER};

pub(super) const COLLECTOR: Collector = Collector {
    name: "traffic",
    help: "Packets and bytes of each interface, as on the wire and as socket buffers.",
    metrics: &[PACKETS, BYTES, SKBS, SKB_BYTES],
    collect,
};

const LABELS: &[&str] = &["netns", "interface", "direction"];

const PACKETS: Metric = Metric::counter(
    "netns_packets_total",
    LABELS,
    "Packets as on the wire (segments of offloaded packets counted one by one), direction as seen by the namespace. Namespaces \
     beyond the ceiling are summed as netns=\"~other\", those of them that are gone included.",
);
const BYTES: Metric = Metric::counter(
    "netns_bytes_total",
    LABELS,
    "Bytes as on the wire from the Ethernet header on, without FCS, direction as seen by the namespace.",
);
const SKBS: Metric = Metric::counter(
    "netns_skbs_total",
    LABELS,
    "Socket buffers, which is what the kernel's interface counters count as packets, direction as seen by the namespace.",
);
const SKB_BYTES: Metric = Metric::counter(
    "netns_skb_bytes_total",
    LABELS,
    "Bytes of socket buffers, which is what the kernel's interface counters count as bytes, direction as seen by the namespace.",
);

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    for netns in &sample.namespaces {
        for interface in &netns.interfaces {
            if let Some(counts) = &interface.counts {
                write([&netns.label, &interface.name], counts, series);
            }
        }
    }
    if let Some(counts) = &sample.other.counts {
        write([OTHER, OTHER], counts, series);
    }
    Ok(())
}

fn write([netns, interface]: [&str; 2], counts: &Counts, series: &mut Series) {
    for (direction, counts) in counts.each() {
        let labels = [netns, interface, direction];
        let total = counts.total();
        series.count(&PACKETS, &labels, total.packets);
        series.count(&BYTES, &labels, total.bytes);
        series.count(&SKBS, &labels, total.skbs);
        series.count(&SKB_BYTES, &labels, total.skb_bytes);
    }
}
