//! Identity, state and the kernel's own drop and error counters of each interface.

use super::{Collector, Metric, Series};
use crate::sample::{AttachMode, LinkSample, Sample, lost::HOST};

pub(super) const COLLECTOR: Collector = Collector {
    name: "interface",
    help: "Identity, state and the kernel's drops and errors of each interface.",
    metrics: &[ATTACHED, DROPS, ERRORS, INFO, MTU, UP],
    collect,
};

const LABELS: &[&str] = &["netns", "interface"];
const BY_DIRECTION: &[&str] = &["netns", "interface", "direction"];

const ATTACHED: Metric = Metric::gauge(
    "netns_interface_attached",
    &["netns", "interface", "mode"],
    "1 if the namespace's interface is counted by eBPF, with the way it is attached (tcx, clsact); 0 without a mode if not.",
);
const DROPS: Metric = Metric::counter(
    "netns_interface_drops_total",
    BY_DIRECTION,
    "Packets the kernel dropped at the interface (its own counter), direction as seen by the namespace.",
);
const ERRORS: Metric = Metric::counter(
    "netns_interface_errors_total",
    BY_DIRECTION,
    "Errors the kernel counted at the interface (its own counter), direction as seen by the namespace.",
);
const INFO: Metric = Metric::gauge(
    "netns_interface_info",
    &["netns", "interface", "ifindex", "kind", "mac", "peer_interface", "peer_netns"],
    "Identity of the namespace's interface, always 1; a label that is not known is absent, the host's namespace is ~host.",
);
const MTU: Metric =
    Metric::gauge("netns_interface_mtu_bytes", LABELS, "MTU in bytes of the namespace's interface.");
const UP: Metric = Metric::gauge(
    "netns_interface_up",
    LABELS,
    "1 if the namespace's interface is operationally up, 0 if not.",
);

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    for netns in &sample.namespaces {
        for interface in &netns.interfaces {
            let labels = [netns.label.as_str(), interface.name.as_str()];
            let mode = interface.mode.map_or("", mode);
            series.count(&ATTACHED, &[labels[0], labels[1], mode], interface.mode.is_some().into());
            if let Some(link) = &interface.link {
                collect_link(labels, link, series);
            }
        }
    }
    Ok(())
}

fn collect_link([netns, interface]: [&str; 2], link: &LinkSample, series: &mut Series) {
    let LinkSample { ifindex, kind, mac, mtu, running, peer_interface, peer_netns, drops, errors } = link;
    let mac = mac.map(|mac| mac.to_string()).unwrap_or_default();
    // An empty label would say that the other end is not known.
    let peer_netns = match peer_netns.as_deref() {
        Some("") => HOST,
        Some(name) => name,
        None => "",
    };
    let peer = peer_interface.as_deref().unwrap_or_default();
    series.count(&INFO, &[netns, interface, &ifindex.to_string(), kind, &mac, peer, peer_netns], 1);
    series.count(&MTU, &[netns, interface], (*mtu).into());
    series.count(&UP, &[netns, interface], (*running).into());
    for (metric, by_direction) in [(&DROPS, drops), (&ERRORS, errors)] {
        for (direction, &value) in by_direction.each() {
            series.count(metric, &[netns, interface, direction], value);
        }
    }
}

/// The word for a way of attaching.
pub(super) fn mode(mode: AttachMode) -> &'static str {
    match mode {
        AttachMode::Tcx => "tcx",
        AttachMode::Clsact => "clsact",
    }
}
