//! Whether our programs count what the kernel counts.

use super::{Collector, Metric, Series};
use crate::sample::Sample;

pub(super) const COLLECTOR: Collector = Collector {
    name: "drift",
    help: "Packets of each interface that the kernel counted and the eBPF programs did not.",
    metrics: &[UNCOUNTED],
    collect,
};

const UNCOUNTED: Metric = Metric::counter(
    "netns_interface_uncounted_packets_total",
    &["netns", "interface", "direction"],
    "Packets (socket buffers) that the kernel counted at the interface and the eBPF programs did not, since the agent first looked \
     at it and as of its last look, direction as seen by the namespace; 0 where all is well. Never too many: what passes \
     during a look counts as counted. Absent for devices other than veth and loopback, whose drivers count otherwise, and \
     while a program of XDP is attached.",
);

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    for netns in &sample.namespaces {
        for interface in &netns.interfaces {
            let Some(uncounted) = &interface.uncounted else { continue };
            for (direction, &packets) in uncounted.each() {
                series.count(&UNCOUNTED, &[&netns.label, &interface.name, direction], packets);
            }
        }
    }
    Ok(())
}
