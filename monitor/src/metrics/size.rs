//! Sizes of each namespace's packets, as a histogram.

use monitor_ebpf::SIZE_BOUNDS;

use super::{Collector, Kind, Metric, Series};
use crate::sample::Sample;

pub(super) const COLLECTOR: Collector =
    Collector { name: "size", help: "Sizes of each namespace's packets.", metrics: &[SIZE], collect };

const SIZE: Metric = Metric {
    name: "netns_packet_size_bytes",
    kind: Kind::Histogram(&BOUNDS),
    labels: &["netns", "direction"],
    help: "Size in bytes of packets as on the wire from the Ethernet header on, interfaces that are gone included, \
           direction as seen by the namespace.",
};

const BOUNDS: [f64; SIZE_BOUNDS.len()] = {
    let mut bounds = [0.0; SIZE_BOUNDS.len()];
    let mut i = 0;
    while i < bounds.len() {
        bounds[i] = SIZE_BOUNDS[i] as f64;
        i += 1;
    }
    bounds
};

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    for (netns, counts) in sample.totals() {
        for (direction, counts) in counts.each() {
            let bytes = counts.total().bytes as f64;
            series.histogram(&SIZE, &[netns, direction], &counts.sizes, bytes);
        }
    }
    Ok(())
}
