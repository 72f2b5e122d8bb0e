//! How TCP fares: handshakes, connects that fail, segments sent again, resets, round-trip times.

use monitor_ebpf::health::{TIME_BOUNDS, TcpCounts, Times, direction, role};

use super::{Collector, Kind, Metric, Series};
use crate::sample::{
    Sample,
    lost::{TCP_FAILURES, TCP_RETRANSMITS},
};

pub(super) const COLLECTOR: Collector = Collector {
    name: "tcp_health",
    help: "How TCP fares in each namespace: handshakes, failed connects, retransmits, resets, round-trip times.",
    metrics: &[RETRANSMITS, FAILED, RESETS, OPENED, HANDSHAKE, RTT, MISSED],
    collect,
};

const RETRANSMITS: Metric = Metric::counter(
    "netns_tcp_retransmitted_segments_total",
    &["netns", "kind"],
    "TCP segments sent again, as RetransSegs of /proc/net/snmp counts them, by what made TCP do so: syn and synack (the \
     handshake), fast (acknowledgements told of the loss), timeout (none came), probe (of the last segments, mostly). The \
     host is ~host, namespaces not watched are ~other, those gone ~gone, here and in all metrics of this collector.",
);
const FAILED: Metric = Metric::counter(
    "netns_tcp_connect_failures_total",
    &["netns", "reason"],
    "TCP connects that ended before they were established: refused (ECONNREFUSED), timeout (ETIMEDOUT), unreachable \
     (EHOSTUNREACH, ENETUNREACH and what else ICMP tells), abandoned (the program closed it), unsent (connect failed before \
     a segment was sent, for want of a free port mostly), other. One that finds no route does not begin, and is none of \
     them: see netns_ip_no_route_total.",
);
const RESETS: Metric = Metric::counter(
    "netns_tcp_resets_total",
    &["netns", "direction"],
    "TCP resets, direction as seen by the namespace: transmit are segments its stack sent (before 6.10 those of \
     connections only, not of closed ports), receive are those that ended a connection or a connect of it.",
);
const OPENED: Metric = Metric::counter(
    "netns_tcp_connections_opened_total",
    &["netns", "role"],
    "TCP connections that came to be established, by role: client connected, server was connected to.",
);
const HANDSHAKE: Metric = Metric {
    name: "netns_tcp_handshake_seconds",
    kind: Kind::Histogram(&BOUNDS),
    labels: &["netns", "role"],
    help: "Time of TCP handshakes that succeeded in seconds: of a client from before its first SYN until it is established, \
           of a server from its first SYN-ACK to the ACK. Not in it, but in netns_tcp_connections_opened_total: a server's \
           where a SYN-ACK was repeated because the SYN was (by time-out alone it is in it, since 6.7), or that of a SYN \
           cookie; a client's beyond 16,384 at once. Namespaces that had one.",
};
const RTT: Metric = Metric {
    name: "netns_tcp_rtt_seconds",
    kind: Kind::Histogram(&BOUNDS),
    labels: &["netns"],
    help: "Smoothed round-trip time of TCP connections in seconds, one observation of each connection: when it leaves \
           ESTABLISHED. One that still is established is not in it. Namespaces that had one.",
};
const MISSED: Metric = Metric::counter(
    "netns_monitor_tcp_events_missed_total",
    &[],
    "Events of TCP the kernel did not show to a program because it was at work on that CPU already; they are in no other \
     metric.",
);

const BOUNDS: [f64; TIME_BOUNDS.len()] = {
    let mut bounds = [0.0; TIME_BOUNDS.len()];
    let mut i = 0;
    while i < bounds.len() {
        bounds[i] = TIME_BOUNDS[i] as f64 / 1e6;
        i += 1;
    }
    bounds
};

const ROLES: [(&str, usize); 2] = [("client", role::CLIENT), ("server", role::SERVER)];
const DIRECTIONS: [(&str, usize); 2] = [("receive", direction::RECEIVE), ("transmit", direction::TRANSMIT)];

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    let Some(tcp) = &sample.lost.tcp else { return Ok(()) };
    let [states, retransmits, synacks, sent, received] = tcp.attached;
    for (netns, counts) in &tcp.netns {
        if states {
            connections(netns, counts, series);
        }
        for (kind, count) in TCP_RETRANSMITS.into_iter().zip(counts.retransmits) {
            let counted = if kind == "synack" { synacks } else { retransmits };
            if counted {
                series.count(&RETRANSMITS, &[netns, kind], count);
            }
        }
        for (direction, at) in DIRECTIONS {
            let counted = if at == direction::TRANSMIT { sent } else { received };
            if counted {
                series.count(&RESETS, &[netns, direction], counts.resets[at]);
            }
        }
    }
    series.count(&MISSED, &[], tcp.missed);
    Ok(())
}

fn connections(netns: &str, counts: &TcpCounts, series: &mut Series) {
    for (reason, count) in TCP_FAILURES.into_iter().zip(counts.failures) {
        series.count(&FAILED, &[netns, reason], count);
    }
    for (role, at) in ROLES {
        series.count(&OPENED, &[netns, role], counts.opened[at]);
        histogram(&HANDSHAKE, &[netns, role], &counts.handshakes[at], series);
    }
    histogram(&RTT, &[netns], &counts.rtt, series);
}

/// Empty ones are left out: they are many series.
fn histogram(metric: &Metric, labels: &[&str], times: &Times, series: &mut Series) {
    if times.buckets.iter().any(|&count| count > 0) {
        series.histogram(metric, labels, &times.buckets, times.nanoseconds as f64 / 1e9);
    }
}
