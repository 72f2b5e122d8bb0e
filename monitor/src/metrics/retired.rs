//! What interfaces and namespaces counted that are gone: Σ live + Σ retired never falls.

use super::{Collector, Metric, Series};
use crate::sample::Sample;
pub use crate::sample::lost::GONE;

pub(super) const COLLECTOR: Collector = Collector {
    name: "retired",
    help: "Totals of interfaces and namespaces that are gone.",
    metrics: &[PACKETS, BYTES],
    collect,
};

const LABELS: &[&str] = &["netns", "direction"];

const PACKETS: Metric = Metric::counter(
    "netns_retired_packets_total",
    LABELS,
    "Packets as on the wire of the namespace's interfaces that are gone, and of all namespaces that are gone as \
     netns=\"~gone\", direction as seen by the namespace.",
);
const BYTES: Metric = Metric::counter(
    "netns_retired_bytes_total",
    LABELS,
    "Bytes as on the wire of the namespace's interfaces that are gone, and of all namespaces that are gone as \
     netns=\"~gone\", direction as seen by the namespace.",
);

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    let counted = sample.namespaces.iter().filter(|netns| netns.is_counted());
    let live = counted.map(|netns| (netns.label.as_str(), &netns.retired));
    for (netns, counts) in live.chain([(GONE, &sample.gone)]) {
        for (direction, counts) in counts.each() {
            let total = counts.total();
            series.count(&PACKETS, &[netns, direction], total.packets);
            series.count(&BYTES, &[netns, direction], total.bytes);
        }
    }
    Ok(())
}
