//! The first page: what is wrong, where, and how much of everything there is.

use serde_json::Value;

use super::{
    Page, Panel,
    panel::{series, stat, table},
    wrong,
};

pub(super) fn page() -> Value {
    let page = Page::new(
        "netns-monitor-overview",
        "Overview",
        "What is wrong in which namespace, and the traffic of all of them. Every packet is counted by eBPF; directions are as \
         seen by the namespace.",
        false,
    );
    more(first(page)).build()
}

/// What fits on a screen.
fn first(page: Page) -> Page {
    let troubled = |title: &str, description: &str, expr: &str| {
        let panel = stat(title, description, "short", &wrong::namespaces_with(expr)).alarm(1.0);
        panel.leads("Look at them", "netns-monitor-health")
    };
    page.put(
        3,
        4,
        stat(
            "Agents not reached",
            "Agents that Prometheus could not scrape the last time.",
            "short",
            "sum(1 - up{%h})",
        )
        .alarm(1.0)
        .leads("Agents", "netns-monitor-agent"),
    )
    .put(
        3,
        4,
        stat(
            "Namespaces",
            "Network namespaces that live and are known, those of the hosts not counted.",
            "short",
            "sum(netns_network_namespaces{%h})",
        ),
    )
    .put(
        3,
        4,
        troubled(
            "… lose packets",
            "Namespaces where the kernel drops packets now, more than one in ten seconds, for reasons that do not occur where \
             nothing is wrong.",
            r#"rate(netns_packet_drops_total{%n, netns!~"~gone|~other", reason!~"%usual"}[%r])"#,
        ),
    )
    .put(
        3,
        4,
        troubled(
            "… connects fail",
            "Namespaces whose TCP connects fail now, more than one in ten seconds: refused, timed out, unreachable, given up.",
            r#"rate(netns_tcp_connect_failures_total{%n, netns!~"~gone|~other"}[%r])"#,
        ),
    )
    .put(
        3,
        4,
        stat(
            "… send TCP again",
            "Namespaces that send more than 1 % of their TCP segments again now.",
            "short",
            &format!("count({AGAIN} > 0.01) or vector(0)"),
        )
        .alarm(1.0)
        .leads("Look at them", "netns-monitor-health"),
    )
    .put(
        3,
        4,
        troubled(
            "… queues are full",
            "Namespaces where queues of sockets overflow now, more than once in ten seconds: programs that do not read or \
             accept fast enough.",
            "rate(netns_socket_overflows_total{%n}[%r])",
        ),
    )
    .put(
        3,
        4,
        stat(
            "Interfaces down",
            "Interfaces that are counted and are down.",
            "short",
            "count(netns_interface_up{%i} == 0 and on (job, instance, netns, interface) netns_interface_attached{%i} == 1) or vector(0)",
        )
        .alarm(1.0)
        .leads("Interfaces", "netns-monitor-interfaces"),
    )
    .put(
        3,
        4,
        stat(
            "Packets not counted",
            "Packets that the kernel counted and eBPF did not, lately: 0 where all is well.",
            "short",
            "sum(increase(netns_interface_uncounted_packets_total{%i}[%r])) or vector(0)",
        )
        .alarm(1.0)
        .leads("Interfaces", "netns-monitor-interfaces"),
    )
    .put(24, 11, wrong::troubled())
    .put(10, 10, wrong::states())
    .put(
        14,
        10,
        table(
            "Slow or lossy TCP",
            "The twenty namespaces whose TCP handshakes take longest, with what else their TCP meets with. p95: of twenty, \
             nineteen are faster. A round trip is observed when a connection ends.",
            &[
                (
                    "topk(20, histogram_quantile(0.95, sum by (instance, netns, le) (rate(netns_tcp_handshake_seconds_bucket{%n}[%r]))) > 0)",
                    "Handshake p95",
                    "s",
                ),
                (
                    "topk(20, histogram_quantile(0.95, sum by (instance, netns, le) (rate(netns_tcp_rtt_seconds_bucket{%n}[%r]))) > 0)",
                    "Round trip p95",
                    "s",
                ),
                (&format!("topk(20, {AGAIN} > 0)"), "Sent again", "percentunit"),
                (
                    "topk(20, sum by (instance, netns) (rate(netns_tcp_connect_failures_total{%n}[%r])) > 0)",
                    "Failed connects",
                    "cps",
                ),
            ],
        )
        .columns(&[("instance", "Instance"), ("netns", "Namespace")])
        .row_links()
        .gauged("Handshake p95")
        .alarmed("Sent again", 0.01)
        .alarmed("Failed connects", 0.001)
        .sorted_by("Handshake p95"),
    )
}

/// The share of its TCP segments that a namespace sends again.
const AGAIN: &str = r#"sum by (instance, netns) (rate(netns_tcp_retransmitted_segments_total{%n, netns!~"~gone|~other"}[%r])) / on (instance, netns) (sum by (instance, netns) (rate(netns_protocol_packets_total{%n, protocol="tcp", direction="transmit"}[%r])) > 0)"#;

/// Who has the most traffic.
fn busiest() -> Panel {
    table(
        "Busiest namespaces",
        "The twenty namespaces with the most traffic, in bits a second on the wire, packets, and what the kernel dropped at \
         their interfaces.",
        &[
            ("topk(20, sum by (instance, netns) (rate(netns_bytes_total{%i}[%r])) * 8)", "Traffic", "bps"),
            (
                r#"topk(20, sum by (instance, netns) (rate(netns_packets_total{%i, direction="receive"}[%r])))"#,
                "Receive",
                "pps",
            ),
            (
                r#"topk(20, sum by (instance, netns) (rate(netns_packets_total{%i, direction="transmit"}[%r])))"#,
                "Transmit",
                "pps",
            ),
            (
                "topk(20, sum by (instance, netns) (rate(netns_interface_drops_total{%i}[%r])) > 0)",
                "Dropped",
                "pps",
            ),
        ],
    )
    .columns(&[("instance", "Instance"), ("netns", "Namespace")])
    .row_links()
    .width("Instance", 135)
    .width("Traffic", 150)
    .gauged("Traffic")
    .alarmed("Dropped", 0.001)
    .sorted_by("Traffic")
}

/// What is below.
fn more(page: Page) -> Page {
    page.row("Traffic of all namespaces")
        .put(
            12,
            8,
            series(
                "Traffic",
                "Bits a second on the wire of all namespaces, receive upwards, transmit downwards.",
                "bps",
                &[
                    (r#"sum(rate(netns_bytes_total{%i, direction="receive"}[%r])) * 8"#, "receive"),
                    (r#"sum(rate(netns_bytes_total{%i, direction="transmit"}[%r])) * 8"#, "transmit"),
                ],
            )
            .mirrored()
            .below(),
        )
        .put(
            12,
            8,
            series(
                "Packets",
                "Packets a second on the wire of all namespaces, receive upwards, transmit downwards.",
                "pps",
                &[
                    (r#"sum(rate(netns_packets_total{%i, direction="receive"}[%r]))"#, "receive"),
                    (r#"sum(rate(netns_packets_total{%i, direction="transmit"}[%r]))"#, "transmit"),
                ],
            )
            .mirrored()
            .below(),
        )
        .put(
            12,
            9,
            series(
                "Traffic of the ten busiest",
                "Bits a second on the wire, in both directions together. A click on a line leads to the namespace.",
                "bps",
                &[(
                    "topk(10, sum by (instance, netns) (rate(netns_bytes_total{%i}[%r])) * 8)",
                    "{{netns}} on {{instance}}",
                )],
            )
            .leads_to_namespace(),
        )
        .put(12, 9, busiest())
        .put(
            24,
            8,
            series(
                "Protocols",
                "Packets a second of all namespaces by family and protocol.",
                "pps",
                &[(
                    "sum by (family, protocol) (rate(netns_protocol_packets_total{%n}[%r])) > 0",
                    "{{family}} {{protocol}}",
                )],
            )
            .stacked(),
        )
        .row("Trouble over time")
        .put(
            12,
            9,
            series(
                "Packets dropped, by reason",
                "Packets a second that the kernel dropped, by its own reason; those that occur where nothing is wrong are left \
                 out.",
                "pps",
                &[(
                    r#"topk(10, sum by (reason) (rate(netns_packet_drops_total{%n, reason!~"%usual"}[%r])) > 0)"#,
                    "{{reason}}",
                )],
            )
            .stacked()
            .empty("nothing is dropped"),
        )
        .put(
            12,
            9,
            series(
                "Failed connects, by reason",
                "TCP connects a second that ended before they were established.",
                "cps",
                &[(
                    "sum by (reason) (rate(netns_tcp_connect_failures_total{%n}[%r])) > 0",
                    "{{reason}}",
                )],
            )
            .stacked()
            .empty("no connect fails"),
        )
        .row("Hosts")
        .put(
            24,
            8,
            table(
                "Hosts",
                "Each host with an agent: its namespaces, its traffic in bits a second, and what is not counted.",
                &[
                    ("sum by (instance) (netns_network_namespaces{%h})", "Namespaces", "short"),
                    ("sum by (instance) (netns_monitor_namespaces_cut{%h})", "Summed as ~other", "short"),
                    ("sum by (instance) (rate(netns_bytes_total{%i}[%r])) * 8", "Traffic", "bps"),
                    ("sum by (instance) (rate(netns_packets_total{%i}[%r]))", "Packets", "pps"),
                    (
                        r#"sum by (instance) (rate(netns_packet_drops_total{%n, reason!~"%usual"}[%r]))"#,
                        "Dropped",
                        "pps",
                    ),
                    (
                        "sum by (instance) (netns_monitor_interfaces_unattached{%h})",
                        "Interfaces not counted",
                        "short",
                    ),
                ],
            )
            .columns(&[("instance", "Instance")])
            .row_links()
            .gauged("Traffic")
            .alarmed("Dropped", 0.001)
            .alarmed("Interfaces not counted", 1.0)
            .sorted_by("Traffic"),
        )
}
