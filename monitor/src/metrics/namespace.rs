//! Identity and life-cycle of each namespace.

use super::{Collector, Metric, Series};
use crate::sample::{NetnsState, Sample};

pub(super) const COLLECTOR: Collector = Collector {
    name: "namespace",
    help: "Identity and life-cycle of each namespace.",
    metrics: &[INFO, STATE, NAMESPACES],
    collect,
};

const INFO: Metric = Metric::gauge(
    "netns_info",
    &["netns", "inode", "cookie", "owned"],
    "Identity of a network namespace, always 1; owned is true if the agent made it. An inode that is not known is absent.",
);
const STATE: Metric = Metric::gauge(
    "netns_state",
    &["netns", "state"],
    "1 for the state the namespace is in (named: it has a file in the namespace directory; detached: its file is gone, \
     something keeps it alive), 0 for the others.",
);
const NAMESPACES: Metric = Metric::gauge(
    "netns_network_namespaces",
    &[],
    "Network namespaces that live and are known, the host's not counted.",
);

const STATES: [(NetnsState, &str); 2] = [(NetnsState::Named, "named"), (NetnsState::Detached, "detached")];

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    series.count(&NAMESPACES, &[], sample.namespaces.len() as u64);
    for netns in &sample.namespaces {
        let inode = netns.inode.map(|inode| inode.to_string()).unwrap_or_default();
        let owned = if netns.owned { "true" } else { "false" };
        series.count(&INFO, &[&netns.label, &inode, &netns.cookie.to_string(), owned], 1);
        for (state, word) in STATES {
            series.count(&STATE, &[&netns.label, word], (netns.state == state).into());
        }
    }
    Ok(())
}
