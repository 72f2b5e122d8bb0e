//! Connection tracking of each namespace: how full, and what it cost.

use super::{Collector, Metric, Series};
use crate::sample::Sample;

pub(super) const COLLECTOR: Collector = Collector {
    name: "conntrack",
    help: "Connection tracking of each namespace, as of the last pass.",
    metrics: &[ENTRIES, LIMIT, DROPS, EARLY_DROPS, INSERT_FAILURES],
    collect,
};

const ENTRIES: Metric =
    Metric::gauge("netns_conntrack_entries", &["netns"], "Connections tracked, as of the last pass.");
const LIMIT: Metric = Metric::gauge(
    "netns_conntrack_entries_limit",
    &["netns"],
    "Connections that can be tracked (net.netfilter.nf_conntrack_max, which each namespace may reach by itself).",
);
const DROPS: Metric = Metric::counter(
    "netns_conntrack_drops_total",
    &["netns"],
    "Packets dropped because connection tracking was full, as of the last pass.",
);
const EARLY_DROPS: Metric = Metric::counter(
    "netns_conntrack_early_drops_total",
    &["netns"],
    "Tracked connections thrown out to make room for others, as of the last pass.",
);
const INSERT_FAILURES: Metric = Metric::counter(
    "netns_conntrack_insert_failures_total",
    &["netns"],
    "Connections that could not be entered, as of the last pass; their packet is dropped.",
);

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    for (netns, figures) in &sample.lost.figures {
        let Some(conntrack) = figures.conntrack else { continue };
        series.count(&ENTRIES, &[netns], conntrack.entries);
        series.count(&LIMIT, &[netns], conntrack.limit);
        for (metric, count) in [
            (&DROPS, conntrack.drops),
            (&EARLY_DROPS, conntrack.early_drops),
            (&INSERT_FAILURES, conntrack.insert_failures),
        ] {
            if let Some(count) = count {
                series.count(metric, &[netns], count);
            }
        }
    }
    Ok(())
}
