//! DNS over UDP of each namespace.

use monitor_ebpf::talk::{DnsCounters, DnsRole, LATENCIES, LATENCY_BOUNDS, RCODES};

use super::{Collector, Kind, Metric, Series};
use crate::sample::Sample;

pub(super) const COLLECTOR: Collector = Collector {
    name: "dns",
    help: "DNS over UDP of each namespace, by answer code and latency (agent --collector.dns).",
    metrics: &[QUERIES, RESPONSES, UNMATCHED, LATENCY],
    collect,
};

const LABELS: &[&str] = &["netns", "role"];

const QUERIES: Metric = Metric::counter(
    "netns_dns_queries_total",
    LABELS,
    "DNS queries over UDP port 53 that the namespace sent (role client) or received (role server), repetitions included. \
     What netns_dns_responses_total lacks of them waits, or was never answered. DNS over TCP, TLS and HTTPS is not seen, \
     nor is what stays on lo.",
);
const RESPONSES: Metric = Metric::counter(
    "netns_dns_responses_total",
    &["netns", "role", "rcode"],
    "DNS responses to one of these queries, matched by both ends and the number in it, by answer code as the RFCs name \
     it; those of extended codes by their lower four bits.",
);
const UNMATCHED: Metric = Metric::counter(
    "netns_dns_unmatched_responses_total",
    LABELS,
    "DNS responses to no query that waits: a second one, a forged one, or one whose query fell out of the table.",
);
const LATENCY: Metric = Metric {
    name: "netns_dns_latency_seconds",
    kind: Kind::Histogram(&BOUNDS),
    labels: LABELS,
    help: "Time in seconds from a DNS query, the first one where it was repeated within 10 s, to its response, at the \
           namespace's interface.",
};

const BOUNDS: [f64; LATENCY_BOUNDS.len()] = {
    let mut bounds = [0.0; LATENCY_BOUNDS.len()];
    let mut i = 0;
    while i < bounds.len() {
        bounds[i] = LATENCY_BOUNDS[i] as f64 / 1e9;
        i += 1;
    }
    bounds
};

/// Answer codes by number, of the IANA registry; the last four are not assigned.
const NAMES: [&str; RCODES] = [
    "NOERROR",
    "FORMERR",
    "SERVFAIL",
    "NXDOMAIN",
    "NOTIMP",
    "REFUSED",
    "YXDOMAIN",
    "YXRRSET",
    "NXRRSET",
    "NOTAUTH",
    "NOTZONE",
    "DSOTYPENI",
    "RESERVED12",
    "RESERVED13",
    "RESERVED14",
    "RESERVED15",
];
/// Those that are 0 from the start: NOERROR, SERVFAIL and NXDOMAIN.
const USUAL: [usize; 3] = [0, 2, 3];

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    for (netns, DnsCounters { client, server }) in &sample.dns {
        write([netns, "client"], client, series);
        // Few namespaces serve.
        if *server != DnsRole::default() {
            write([netns, "server"], server, series);
        }
    }
    Ok(())
}

fn write(labels: [&str; 2], role: &DnsRole, series: &mut Series) {
    let DnsRole { queries, unmatched, codes, latencies, nanoseconds } = role;
    series.count(&QUERIES, &labels, *queries);
    series.count(&UNMATCHED, &labels, *unmatched);
    for (code, (name, &count)) in NAMES.iter().zip(codes).enumerate() {
        if count > 0 || USUAL.contains(&code) {
            series.count(&RESPONSES, &[labels[0], labels[1], name], count);
        }
    }
    series.histogram(&LATENCY, &labels, &latencies[..LATENCIES], *nanoseconds as f64 / 1e9);
}
