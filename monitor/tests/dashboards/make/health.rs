//! Where packets are lost and how TCP and DNS fare, over all namespaces.

use serde_json::Value;

use super::{
    Page,
    panel::{heatmap, series, stat, table},
    reasons,
};

pub(super) fn page() -> Value {
    let page = Page::new(
        "netns-monitor-health",
        "Drops and TCP health",
        "Where packets are lost and why, and how TCP and DNS fare, in which namespace. A click on a line or a row leads to the \
         namespace.",
        false,
    );
    dns(tcp(full(drops(page)))).build()
}

const LOST: &str = r#"rate(netns_packet_drops_total{%n, reason!~"%usual"}[%r])"#;

fn drops(page: Page) -> Page {
    page.put(
        4,
        5,
        stat(
            "Dropped",
            "Packets a second that the kernel dropped, for reasons that do not occur where nothing is wrong.",
            "pps",
            &format!("sum({LOST}) or vector(0)"),
        ),
    )
    .put(
        4,
        5,
        stat(
            "Dropped, nothing wrong",
            "Packets a second dropped for reasons that occur where nothing is wrong: data that came twice, frames for others, \
             sockets that were closed.",
            "pps",
            r#"sum(rate(netns_packet_drops_total{%n, reason=~"%usual"}[%r])) or vector(0)"#,
        ),
    )
    .put(
        4,
        5,
        stat(
            "Failed connects",
            "TCP connects a second that ended before they were established.",
            "cps",
            "sum(rate(netns_tcp_connect_failures_total{%n}[%r])) or vector(0)",
        ),
    )
    .put(
        4,
        5,
        stat(
            "Sent again",
            "Share of the TCP segments that were sent again.",
            "percentunit",
            r#"sum(rate(netns_tcp_retransmitted_segments_total{%n}[%r])) / (sum(rate(netns_protocol_packets_total{%n, protocol="tcp", direction="transmit"}[%r])) > 0) or vector(0)"#,
        ),
    )
    .put(
        4,
        5,
        stat(
            "Resets received",
            "TCP resets a second that ended a connection or a connect.",
            "cps",
            r#"sum(rate(netns_tcp_resets_total{%n, direction="receive"}[%r])) or vector(0)"#,
        ),
    )
    .put(
        4,
        5,
        stat(
            "Tracked connections",
            "The fullest table of tracked connections, as a share of what it has room for.",
            "percentunit",
            "max(netns_conntrack_entries{%n} / netns_conntrack_entries_limit{%n}) or vector(0)",
        )
        .alarm(0.9),
    )
    .row("Packets that the kernel drops")
    .put(
        12,
        9,
        series(
            "By reason",
            "Packets a second by the kernel's own reason; those that occur where nothing is wrong are left out.",
            "pps",
            &[(&format!("topk(12, sum by (reason) ({LOST}) > 0)"), "{{reason}}")],
        )
        .stacked()
        .empty("nothing is dropped"),
    )
    .put(
        12,
        9,
        series(
            "By namespace",
            "Packets a second, of the namespaces that lose most.",
            "pps",
            &[(&format!("topk(12, sum by (instance, netns) ({LOST}) > 0)"), "{{netns}} on {{instance}}")],
        )
        .stacked()
        .leads_to_namespace()
        .empty("nothing is dropped"),
    )
    .put(
        24,
        10,
        table(
            "Namespaces and reasons",
            "The fifty worst pairs of namespace and reason, each reason with its sentence.",
            &[(&format!("topk(50, sum by (instance, netns, reason) ({LOST}) > 0)"), "By the second", "pps")],
        )
        .columns(&[("instance", "Instance"), ("netns", "Namespace"), ("reason", "Reason")])
        .row_links()
        .worded("Reason", &reasons::drops())
        .width("Instance", 180)
        .width("Namespace", 220)
        .width("By the second", 120)
        .sorted_by("By the second")
        .empty("nothing is dropped"),
    )
}

fn full(page: Page) -> Page {
    page.row("Full queues and tables, missing routes, firewall")
        .put(
            8,
            9,
            series(
                "Queues of sockets",
                "Packets a second that found the queue of their socket full, and connection requests that listening sockets \
                 dropped: the program does not read or accept fast enough.",
                "cps",
                &[
                    (
                        "topk(12, sum by (instance, netns, queue) (rate(netns_socket_overflows_total{%n}[%r])) > 0)",
                        "{{netns}} {{queue}}",
                    ),
                    (
                        "topk(12, sum by (instance, netns) (rate(netns_tcp_listen_drops_total{%n}[%r])) > 0)",
                        "{{netns}} connection requests",
                    ),
                ],
            )
            .leads_to_namespace()
            .below()
            .empty("no queue is full"),
        )
        .put(
            8,
            9,
            series(
                "Connection tracking",
                "Tracked connections as a share of what there is room for, of the fullest namespaces.",
                "percentunit",
                &[(
                    "topk(12, netns_conntrack_entries{%n} / netns_conntrack_entries_limit{%n})",
                    "{{netns}} on {{instance}}",
                )],
            )
            .share()
            .leads_to_namespace()
            .below(),
        )
        .put(
            8,
            9,
            series(
                "Connection tracking is full",
                "By the second: packets dropped because there was no room, connections thrown out to make room, and those \
                 that could not be entered.",
                "cps",
                &[
                    (
                        "topk(12, sum by (instance, netns) (rate(netns_conntrack_drops_total{%n}[%r])) > 0)",
                        "{{netns}} dropped",
                    ),
                    (
                        "topk(12, sum by (instance, netns) (rate(netns_conntrack_early_drops_total{%n}[%r])) > 0)",
                        "{{netns}} thrown out",
                    ),
                    (
                        "topk(12, sum by (instance, netns) (rate(netns_conntrack_insert_failures_total{%n}[%r])) > 0)",
                        "{{netns}} not entered",
                    ),
                ],
            )
            .leads_to_namespace()
            .below()
            .empty("it never is"),
        )
        .put(
            8,
            9,
            series(
                "No route",
                "Packets a second that there was no route for, as seen by the namespace.",
                "pps",
                &[(
                    "topk(12, sum by (instance, netns, direction) (rate(netns_ip_no_route_total{%n}[%r])) > 0)",
                    "{{netns}} {{direction}}",
                )],
            )
            .leads_to_namespace()
            .below()
            .empty("every packet has a route"),
        )
        .put(
            8,
            9,
            series(
                "Discarded",
                "Packets a second that the IP layer discarded with nothing wrong about them, for want of memory for example.",
                "pps",
                &[(
                    "topk(12, sum by (instance, netns, direction) (rate(netns_ip_discards_total{%n}[%r])) > 0)",
                    "{{netns}} {{direction}}",
                )],
            )
            .leads_to_namespace()
            .below()
            .empty("nothing is discarded"),
        )
        .put(
            8,
            9,
            series(
                "Firewall of the file",
                "Packets a second that rules of netns-monitor's file dropped, by chain. Firewalls of others are in the \
                 reason NETFILTER_DROP.",
                "pps",
                &[(
                    "topk(12, sum by (instance, netns, chain) (rate(netns_firewall_drops_total{%n}[%r])) > 0)",
                    "{{netns}} {{chain}}",
                )],
            )
            .leads_to_namespace()
            .below()
            .empty("nothing is dropped by it"),
        )
}

fn tcp(page: Page) -> Page {
    let again = r#"sum by (instance, netns) (rate(netns_tcp_retransmitted_segments_total{%n}[%r])) / on (instance, netns) (sum by (instance, netns) (rate(netns_protocol_packets_total{%n, protocol="tcp", direction="transmit"}[%r])) > 0)"#;
    page.row("TCP")
        .put(
            12,
            9,
            series(
                "Failed connects",
                "TCP connects a second that ended before they were established, of the worst namespaces.",
                "cps",
                &[(
                    "topk(12, sum by (instance, netns, reason) (rate(netns_tcp_connect_failures_total{%n}[%r])) > 0)",
                    "{{netns}} {{reason}}",
                )],
            )
            .leads_to_namespace()
            .empty("no connect fails"),
        )
        .put(
            12,
            9,
            series(
                "Sent again, by namespace",
                "Share of a namespace's TCP segments that were sent again, of the worst namespaces.",
                "percentunit",
                &[(&format!("topk(12, {again} > 0)"), "{{netns}} on {{instance}}")],
            )
            .leads_to_namespace()
            .empty("nothing is sent again"),
        )
        .put(
            8,
            9,
            series(
                "Sent again, by kind",
                "TCP segments sent again by the second: syn and synack in the handshake, fast where acknowledgements told of \
                 a loss, timeout where none came, probe of the last segments.",
                "pps",
                &[(
                    "sum by (kind) (rate(netns_tcp_retransmitted_segments_total{%n}[%r])) > 0",
                    "{{kind}}",
                )],
            )
            .stacked()
            .below()
            .empty("nothing is sent again"),
        )
        .put(
            8,
            9,
            series(
                "Resets",
                "TCP resets by the second of the namespaces with most; received upwards, sent downwards.",
                "cps",
                &[
                    (
                        r#"topk(8, sum by (instance, netns, direction) (rate(netns_tcp_resets_total{%n, direction="receive"}[%r])) > 0)"#,
                        "{{netns}} {{direction}}",
                    ),
                    (
                        r#"topk(8, sum by (instance, netns, direction) (rate(netns_tcp_resets_total{%n, direction="transmit"}[%r])) > 0)"#,
                        "{{netns}} {{direction}}",
                    ),
                ],
            )
            .mirrored()
            .leads_to_namespace()
            .below()
            .empty("no resets"),
        )
        .put(
            8,
            9,
            series(
                "Connections",
                "TCP connections a second that came to be established, by role.",
                "cps",
                &[(
                    "sum by (role) (rate(netns_tcp_connections_opened_total{%n}[%r]))",
                    "as {{role}}",
                )],
            )
            .below(),
        )
        .put(
            12,
            9,
            series(
                "Slowest handshakes, p95",
                "The time that nineteen of twenty TCP handshakes stayed below, of the slowest namespaces. A second or more \
                 is a lost connection request.",
                "s",
                &[(
                    "topk(12, histogram_quantile(0.95, sum by (le, instance, netns, role) (rate(netns_tcp_handshake_seconds_bucket{%n}[%r]))) > 0)",
                    "{{netns}} as {{role}}",
                )],
            )
            .leads_to_namespace(),
        )
        .put(
            12,
            9,
            series(
                "Longest round trips, p95",
                "The round-trip time that nineteen of twenty connections stayed below, of the slowest namespaces.",
                "s",
                &[(
                    "topk(12, histogram_quantile(0.95, sum by (le, instance, netns) (rate(netns_tcp_rtt_seconds_bucket{%n}[%r]))) > 0)",
                    "{{netns}} on {{instance}}",
                )],
            )
            .leads_to_namespace(),
        )
        .put(
            12,
            9,
            heatmap(
                "Handshakes",
                "How many TCP handshakes took how long.",
                "s",
                "sum by (le) (increase(netns_tcp_handshake_seconds_bucket{%n}[%r]))",
            ),
        )
        .put(
            12,
            9,
            series(
                "Sockets by state",
                "TCP sockets of all namespaces as ss shows them.",
                "short",
                &[("sum by (state) (netns_tcp_connections{%n}) > 0", "{{state}}")],
            )
            .stacked(),
        )
}

fn dns(page: Page) -> Page {
    page.row("DNS (agents with --collector.dns)")
        .put(
            8,
            9,
            series(
                "Responses that say no",
                "Responses a second to queries of namespaces with another answer code than NOERROR.",
                "cps",
                &[(
                    r#"topk(12, sum by (instance, netns, rcode) (rate(netns_dns_responses_total{%n, role="client", rcode!="NOERROR"}[%r])) > 0)"#,
                    "{{netns}} {{rcode}}",
                )],
            )
            .leads_to_namespace()
            .below()
            .empty("none, or no agent with --collector.dns"),
        )
        .put(
            8,
            9,
            series(
                "Unanswered",
                "Queries a second that had no response, or have none yet.",
                "cps",
                &[(
                    r#"topk(12, sum by (instance, netns) (rate(netns_dns_queries_total{%n, role="client"}[%r])) - sum by (instance, netns) (rate(netns_dns_responses_total{%n, role="client"}[%r])) > 0)"#,
                    "{{netns}} on {{instance}}",
                )],
            )
            .leads_to_namespace()
            .below()
            .empty("none, or no agent with --collector.dns"),
        )
        .put(
            8,
            9,
            series(
                "Slowest, p95",
                "The time that nineteen of twenty responses stayed below, of the slowest namespaces.",
                "s",
                &[(
                    r#"topk(12, histogram_quantile(0.95, sum by (le, instance, netns) (rate(netns_dns_latency_seconds_bucket{%n, role="client"}[%r]))) > 0)"#,
                    "{{netns}} on {{instance}}",
                )],
            )
            .leads_to_namespace()
            .below()
            .empty("none, or no agent with --collector.dns"),
        )
}
