//! Where a namespace's own network stack says that it loses something: full queues of sockets, discards, missing routes.

use super::{Collector, Metric, Series};
use crate::sample::{ByDirection, Sample};

pub(super) const COLLECTOR: Collector = Collector {
    name: "netstat",
    help: "Full queues of sockets, discards and missing routes, from /proc/net of each namespace as of the last pass.",
    metrics: &[OVERFLOWS, LISTEN_DROPS, DISCARDS, NO_ROUTE],
    collect,
};

const BY_DIRECTION: &[&str] = &["netns", "direction"];

const OVERFLOWS: Metric = Metric::counter(
    "netns_socket_overflows_total",
    &["netns", "queue"],
    "Packets dropped because a socket's queue was full (RcvbufErrors, SndbufErrors, ListenOverflows and others of \
     /proc/net): udp_receive and udp_send are buffers, tcp_listen connections nobody accepted, tcp_syn connection requests \
     beyond the backlog, tcp_backlog and tcp_receive data the program does not fetch. As of the last pass.",
);
const LISTEN_DROPS: Metric = Metric::counter(
    "netns_tcp_listen_drops_total",
    &["netns"],
    "Connection requests that listening sockets dropped, for full queues and any other reason (ListenDrops), as of the \
     last pass.",
);
const DISCARDS: Metric = Metric::counter(
    "netns_ip_discards_total",
    BY_DIRECTION,
    "IPv4 and IPv6 packets discarded with nothing wrong about them, for want of memory for example (InDiscards, \
     OutDiscards), as of the last pass, direction as seen by the namespace.",
);
const NO_ROUTE: Metric = Metric::counter(
    "netns_ip_no_route_total",
    BY_DIRECTION,
    "IPv4 and IPv6 packets there was no route for (InNoRoutes, OutNoRoutes), as of the last pass, direction as seen by the \
     namespace.",
);

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    for (netns, figures) in &sample.lost.figures {
        for (queue, &count) in &figures.overflows {
            series.count(&OVERFLOWS, &[netns, queue], count);
        }
        if let Some(drops) = figures.listen_drops {
            series.count(&LISTEN_DROPS, &[netns], drops);
        }
        for (metric, [receive, transmit]) in [(&DISCARDS, figures.discards), (&NO_ROUTE, figures.no_route)] {
            for (direction, count) in (ByDirection { receive, transmit }).each() {
                if let Some(count) = *count {
                    series.count(metric, &[netns, direction], count);
                }
            }
        }
    }
    Ok(())
}
