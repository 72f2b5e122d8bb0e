//! One namespace, or the few that are chosen: everything that is known of them.

use serde_json::Value;

use super::{
    Page,
    panel::{heatmap, series, table, timeline},
    reasons, wrong,
};

pub(super) fn page() -> Value {
    let page = Page::new(
        "netns-monitor-namespace",
        "Namespace",
        "Everything of the namespaces that are chosen above: what is wrong, traffic, drops, TCP, DNS, identity. Directions are \
         as seen by the namespace.",
        true,
    );
    identity(dns(tcp(lost(traffic(page))))).build()
}

fn traffic(page: Page) -> Page {
    page.put(24, 8, wrong::troubled())
        .put(12, 5, wrong::states())
        .put(
            12,
            5,
            table(
                "Identity",
                "Cookie and inode of the namespace, whether netns-monitor made it, and the systemd unit in it.",
                &[("netns_info{%n}", "Value", "short")],
            )
            .columns(&[
                ("instance", "Instance"),
                ("netns", "Namespace"),
                ("owned", "Made by netns-monitor"),
                ("unit", "Unit"),
                ("cookie", "Cookie"),
                ("inode", "Inode"),
            ])
            .without(&["Value", "__name__"]),
        )
        .row("Traffic of $netns")
        .put(
            12,
            9,
            series(
                "Traffic by interface",
                "Bits a second on the wire, receive upwards, transmit downwards.",
                "bps",
                &[(
                    "sum by (netns, interface, direction) (rate(netns_bytes_total{%i}[%r])) * 8",
                    "{{netns}}/{{interface}} {{direction}}",
                )],
            )
            .mirrored(),
        )
        .put(
            12,
            9,
            series(
                "Packets by interface",
                "Packets a second on the wire, receive upwards, transmit downwards.",
                "pps",
                &[(
                    "sum by (netns, interface, direction) (rate(netns_packets_total{%i}[%r]))",
                    "{{netns}}/{{interface}} {{direction}}",
                )],
            )
            .mirrored(),
        )
        .put(
            8,
            9,
            series(
                "Packets by protocol",
                "Packets a second by family and protocol, receive upwards, transmit downwards.",
                "pps",
                &[(
                    "sum by (family, protocol, direction) (rate(netns_protocol_packets_total{%n}[%r])) > 0",
                    "{{family}} {{protocol}} {{direction}}",
                )],
            )
            .mirrored()
            .below(),
        )
        .put(
            8,
            9,
            series(
                "Traffic by protocol",
                "Bits a second by family and protocol, receive upwards, transmit downwards.",
                "bps",
                &[(
                    "sum by (family, protocol, direction) (rate(netns_protocol_bytes_total{%n}[%r])) * 8 > 0",
                    "{{family}} {{protocol}} {{direction}}",
                )],
            )
            .mirrored()
            .below(),
        )
        .put(
            8,
            9,
            heatmap(
                "Packet sizes",
                "How many packets there are of which size, in bytes on the wire.",
                "decbytes",
                "sum by (le) (increase(netns_packet_size_bytes_bucket{%n}[%r]))",
            ),
        )
}

fn lost(page: Page) -> Page {
    page.row("What $netns loses")
        .put(
            12,
            9,
            series(
                "Packets dropped, by reason",
                "Packets a second that the kernel dropped in the namespace, by its own reason; those that occur where nothing \
                 is wrong are left out. netns-monitor why says it in words.",
                "pps",
                &[(
                    r#"sum by (reason) (rate(netns_packet_drops_total{%n, reason!~"%usual"}[%r])) > 0"#,
                    "{{reason}}",
                )],
            )
            .stacked()
            .empty("nothing is dropped"),
        )
        .put(
            12,
            9,
            table(
                "Reasons in words",
                "Each reason with its sentence, the most frequent first.",
                &[(
                    r#"sum by (netns, reason) (rate(netns_packet_drops_total{%n, reason!~"%usual"}[%r])) > 0"#,
                    "By the second",
                    "pps",
                )],
            )
            .columns(&[("netns", "Namespace"), ("reason", "Reason")])
            .worded("Reason", &reasons::drops())
            .width("Namespace", 150)
            .width("By the second", 110)
            .sorted_by("By the second")
            .empty("nothing is dropped"),
        )
        .put(
            8,
            8,
            series(
                "Dropped at interfaces, and errors",
                "What the kernel's own counters of the interfaces say, receive upwards, transmit downwards.",
                "pps",
                &[
                    (
                        "sum by (netns, interface, direction) (rate(netns_interface_drops_total{%i}[%r]))",
                        "{{netns}}/{{interface}} dropped {{direction}}",
                    ),
                    (
                        "sum by (netns, interface, direction) (rate(netns_interface_errors_total{%i}[%r]))",
                        "{{netns}}/{{interface}} errors {{direction}}",
                    ),
                ],
            )
            .mirrored()
            .below(),
        )
        .put(
            8,
            8,
            series(
                "Queues full, no route, discarded",
                "By the second: packets that found a socket's queue full, connection requests that were dropped, packets \
                 without a route or discarded.",
                "cps",
                &[
                    (
                        "sum by (netns, queue) (rate(netns_socket_overflows_total{%n}[%r]))",
                        "{{netns}} queue {{queue}}",
                    ),
                    (
                        "sum by (netns) (rate(netns_tcp_listen_drops_total{%n}[%r]))",
                        "{{netns}} connection requests dropped",
                    ),
                    (
                        "sum by (netns, direction) (rate(netns_ip_no_route_total{%n}[%r]))",
                        "{{netns}} no route, {{direction}}",
                    ),
                    (
                        "sum by (netns, direction) (rate(netns_ip_discards_total{%n}[%r]))",
                        "{{netns}} discarded, {{direction}}",
                    ),
                ],
            )
            .below(),
        )
        .put(
            8,
            8,
            series(
                "Connection tracking",
                "Connections that are tracked, as a share of what there is room for.",
                "percentunit",
                &[(
                    "netns_conntrack_entries{%n} / netns_conntrack_entries_limit{%n}",
                    "{{netns}} on {{instance}}",
                )],
            )
            .share()
            .below(),
        )
}

fn tcp(page: Page) -> Page {
    page.row("TCP of $netns")
        .put(
            8,
            8,
            series(
                "Connections opened and failed",
                "By the second: connections that came to be established, and connects that ended before that.",
                "cps",
                &[
                    (
                        "sum by (role) (rate(netns_tcp_connections_opened_total{%n}[%r]))",
                        "opened as {{role}}",
                    ),
                    (
                        "sum by (reason) (rate(netns_tcp_connect_failures_total{%n}[%r])) > 0",
                        "failed: {{reason}}",
                    ),
                ],
            )
            .below(),
        )
        .put(
            8,
            8,
            series(
                "Segments sent again",
                "TCP segments sent again by the second, by what made TCP do so.",
                "pps",
                &[(
                    "sum by (kind) (rate(netns_tcp_retransmitted_segments_total{%n}[%r]))",
                    "{{kind}}",
                )],
            )
            .stacked()
            .below(),
        )
        .put(
            8,
            8,
            series(
                "Control flags and resets",
                "TCP segments by flag as they pass the interfaces, and resets of its own stack; receive upwards, transmit \
                 downwards.",
                "pps",
                &[
                    (
                        "sum by (flag, direction) (rate(netns_tcp_flagged_segments_total{%n}[%r]))",
                        "{{flag}} {{direction}}",
                    ),
                    (
                        "sum by (direction) (rate(netns_tcp_resets_total{%n}[%r]))",
                        "reset {{direction}}",
                    ),
                ],
            )
            .mirrored()
            .below(),
        )
        .put(
            8,
            8,
            series(
                "Handshakes",
                "How long TCP handshakes took: the median and the time that nineteen of twenty stayed below. As client, that \
                 is the way there and back and the other end's kernel.",
                "s",
                &[
                    (
                        "histogram_quantile(0.5, sum by (le, role) (rate(netns_tcp_handshake_seconds_bucket{%n}[%r])))",
                        "median as {{role}}",
                    ),
                    (
                        "histogram_quantile(0.95, sum by (le, role) (rate(netns_tcp_handshake_seconds_bucket{%n}[%r])))",
                        "p95 as {{role}}",
                    ),
                ],
            )
            .below(),
        )
        .put(
            8,
            8,
            heatmap(
                "Round trips",
                "Smoothed round-trip times of connections, each observed once, when it left ESTABLISHED.",
                "s",
                "sum by (le) (increase(netns_tcp_rtt_seconds_bucket{%n}[%r]))",
            ),
        )
        .put(
            8,
            8,
            series(
                "Sockets by state",
                "TCP sockets as ss shows them. Many in close_wait: the program does not close; in syn_sent: nobody answers.",
                "short",
                &[("sum by (state) (netns_tcp_connections{%n}) > 0", "{{state}}")],
            )
            .stacked()
            .below(),
        )
}

fn dns(page: Page) -> Page {
    page.row("DNS of $netns (agents with --collector.dns)")
        .put(
            12,
            8,
            series(
                "Queries and responses",
                "DNS over UDP by the second. What the responses lack of the queries waits, or was never answered.",
                "cps",
                &[
                    (
                        "sum by (role) (rate(netns_dns_queries_total{%n}[%r]))",
                        "queries as {{role}}",
                    ),
                    (
                        "sum by (role, rcode) (rate(netns_dns_responses_total{%n}[%r])) > 0",
                        "{{rcode}} as {{role}}",
                    ),
                    (
                        "sum by (role) (rate(netns_dns_unmatched_responses_total{%n}[%r]))",
                        "to no query, as {{role}}",
                    ),
                ],
            )
            .empty("no agent with --collector.dns"),
        )
        .put(
            12,
            8,
            series(
                "Latency",
                "Time from a query to its response: the median, and the time that nineteen of twenty stayed below.",
                "s",
                &[
                    (
                        "histogram_quantile(0.5, sum by (le, role) (rate(netns_dns_latency_seconds_bucket{%n}[%r])))",
                        "median as {{role}}",
                    ),
                    (
                        "histogram_quantile(0.95, sum by (le, role) (rate(netns_dns_latency_seconds_bucket{%n}[%r])))",
                        "p95 as {{role}}",
                    ),
                ],
            )
            .empty("no agent with --collector.dns"),
        )
}

fn identity(page: Page) -> Page {
    page.row("Who is $netns")
        .put(
            12,
            5,
            table(
                "Other names",
                "Every other name of the namespace, and where it was found.",
                &[("netns_alias_info{%n}", "Value", "short")],
            )
            .columns(&[("instance", "Instance"), ("netns", "Namespace"), ("alias", "Name"), ("source", "Source")])
            .without(&["Value", "__name__"])
            .empty("no other name"),
        )
        .put(
            12,
            5,
            table(
                "Containers",
                "Containers in the namespace, with their pod.",
                &[("netns_container_info{%n}", "Value", "short")],
            )
            .columns(&[
                ("instance", "Instance"),
                ("netns", "Namespace"),
                ("container", "Container"),
                ("runtime", "Runtime"),
                ("pod_uid", "Pod"),
                ("container_id", "Container id"),
            ])
            .without(&["Value", "__name__"])
            .empty("no container"),
        )
        .put(
            24,
            5,
            timeline(
                "Has a name",
                "Whether the namespace has a file somewhere; one that lost it lives on for as long as something holds it \
                 (netns-monitor holders).",
                r#"max by (instance, netns) (netns_state{%n, state="named"})"#,
                "{{netns}} on {{instance}}",
                ["without", "named"],
            ),
        )
        .put(
            12,
            5,
            series(
                "Packets of interfaces that are gone",
                "What interfaces of the namespace counted that are gone, lately; shown under ~gone for namespaces that are \
                 gone. The sum of it and of what lives never falls.",
                "pps",
                &[(
                    "sum by (netns, direction) (rate(netns_retired_packets_total{%n}[%r]))",
                    "{{netns}} {{direction}}",
                )],
            )
            .mirrored()
            .below(),
        )
        .put(
            12,
            5,
            series(
                "Traffic of interfaces that are gone",
                "The same in bits a second.",
                "bps",
                &[(
                    "sum by (netns, direction) (rate(netns_retired_bytes_total{%n}[%r])) * 8",
                    "{{netns}} {{direction}}",
                )],
            )
            .mirrored()
            .below(),
        )
}
