//! What rules of ours dropped.

use super::{Collector, Metric, Series};
use crate::sample::Sample;

pub(super) const COLLECTOR: Collector = Collector {
    name: "firewall",
    help: "Packets that rules made by the agent dropped, as of its last pass.",
    metrics: &[DROPS],
    collect,
};

const DROPS: Metric = Metric::counter(
    "netns_firewall_drops_total",
    &["netns", "chain"],
    "Packets dropped by nft rules of the file, as of the last pass: chain isolation counts what the namespace sent to a \
     bridge or port it is kept apart from, inbound what came to it from outside and is not published, and input, forward \
     and output what its own chains dropped. Begins anew where somebody else removed or changed the rules.",
);

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    for netns in &sample.namespaces {
        for (chain, drops) in &netns.drops {
            series.count(&DROPS, &[&netns.label, chain], *drops);
        }
    }
    Ok(())
}
