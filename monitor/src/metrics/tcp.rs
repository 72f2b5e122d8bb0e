//! TCP segments of each namespace by control flag.

use monitor_ebpf::{FLAGS, flag};

use super::{Collector, Metric, Series};
use crate::sample::Sample;

pub(super) const COLLECTOR: Collector = Collector {
    name: "tcp",
    help: "TCP segments of each namespace by control flag.",
    metrics: &[SEGMENTS],
    collect,
};

const SEGMENTS: Metric = Metric::counter(
    "netns_tcp_flagged_segments_total",
    &["netns", "direction", "flag"],
    "TCP segments by control flag (syn without ack, synack, fin, rst), interfaces that are gone included, direction as \
     seen by the namespace.",
);

const NAMES: [&str; FLAGS] = {
    let mut names = [""; FLAGS];
    names[flag::SYN] = "syn";
    names[flag::SYNACK] = "synack";
    names[flag::FIN] = "fin";
    names[flag::RST] = "rst";
    names
};

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    for (netns, counts) in sample.totals() {
        for (direction, counts) in counts.each() {
            for (flag, &segments) in NAMES.into_iter().zip(&counts.tcp_flags) {
                series.count(&SEGMENTS, &[netns, direction, flag], segments);
            }
        }
    }
    Ok(())
}
