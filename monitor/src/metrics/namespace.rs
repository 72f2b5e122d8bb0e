//! Identity and life-cycle of each namespace.

use super::{Collector, Metric, Series};
use crate::sample::{ContainerSample, IdentitySample, NetnsState, Sample};

pub(super) const COLLECTOR: Collector = Collector {
    name: "namespace",
    help: "Identity and life-cycle of each namespace.",
    metrics: &[ALIAS, CONTAINER, INFO, STATE, NAMESPACES, CUT],
    collect,
};

const ALIAS: Metric = Metric::gauge(
    "netns_alias_info",
    &["netns", "alias", "source"],
    "Every name a network namespace has beside its label, always 1, with the source that found it (named, mount, process, held).",
);
const CONTAINER: Metric = Metric::gauge(
    "netns_container_info",
    &["netns", "runtime", "container", "container_id", "pod_uid"],
    "A container in the network namespace, always 1; a label that is not known is absent.",
);
const INFO: Metric = Metric::gauge(
    "netns_info",
    &["netns", "inode", "cookie", "owned", "unit"],
    "Identity of a network namespace, always 1; owned is true if the agent made it, unit the systemd unit whose processes are in \
     it. A label that is not known is absent.",
);
const STATE: Metric = Metric::gauge(
    "netns_state",
    &["netns", "state"],
    "1 for the state the namespace is in (named: it has a file somewhere; detached: its file is gone, something keeps it \
     alive; anonymous: it never had a file), 0 for the others.",
);
const NAMESPACES: Metric = Metric::gauge(
    "netns_network_namespaces",
    &[],
    "Network namespaces that live and are known, the host's not counted.",
);

const CUT: Metric = Metric::gauge(
    "netns_monitor_namespaces_cut",
    &[],
    "Network namespaces beyond --metrics.max-namespaces: they are counted and summed as netns=\"~other\", and have no series of \
     their own.",
);

const STATES: [(NetnsState, &str); 3] =
    [(NetnsState::Named, "named"), (NetnsState::Detached, "detached"), (NetnsState::Anonymous, "anonymous")];

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    series.count(&NAMESPACES, &[], sample.namespaces.len() as u64 + sample.other.namespaces);
    series.count(&CUT, &[], sample.other.namespaces);
    for netns in &sample.namespaces {
        let inode = netns.inode.map(|inode| inode.to_string()).unwrap_or_default();
        let owned = if netns.owned { "true" } else { "false" };
        let IdentitySample { aliases, containers, pod, unit } = &netns.identity;
        let unit = unit.as_deref().unwrap_or_default();
        series.count(&INFO, &[&netns.label, &inode, &netns.cookie.to_string(), owned, unit], 1);
        for (source, alias) in aliases.iter().filter(|(_, alias)| *alias != netns.label) {
            series.count(&ALIAS, &[&netns.label, alias, source], 1);
        }
        for ContainerSample { runtime, id, name } in containers {
            let (name, pod) = (name.as_deref().unwrap_or_default(), pod.as_deref().unwrap_or_default());
            series.count(&CONTAINER, &[&netns.label, runtime, name, id, pod], 1);
        }
        for (state, word) in STATES {
            series.count(&STATE, &[&netns.label, word], (netns.state == state).into());
        }
    }
    Ok(())
}
