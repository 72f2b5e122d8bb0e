//! What a namespace's own network stack says: full queues of sockets, discards, missing routes, TCP connections.

use super::{Collector, Metric, Series};
use crate::sample::{ByDirection, Sample};

pub(super) const COLLECTOR: Collector = Collector {
    name: "netstat",
    help: "Full queues of sockets, discards, missing routes and TCP connections of each namespace as of the last pass.",
    metrics: &[OVERFLOWS, LISTEN_DROPS, DISCARDS, NO_ROUTE, CONNECTIONS],
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

const CONNECTIONS: Metric = Metric::gauge(
    "netns_tcp_connections",
    &["netns", "state"],
    "TCP sockets by state, as ss shows them, IPv4 and IPv6 together, as of the last pass; listen are those that wait for \
     connections, syn_recv also connection requests.",
);

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    for (netns, figures) in &sample.lost.figures {
        for (queue, &count) in &figures.overflows {
            series.count(&OVERFLOWS, &[netns, queue], count);
        }
        if let Some(drops) = figures.listen_drops {
            series.count(&LISTEN_DROPS, &[netns], drops);
        }
        for (state, count) in figures.connections.iter().flat_map(|connections| connections.each()) {
            series.count(&CONNECTIONS, &[netns, state], count);
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
