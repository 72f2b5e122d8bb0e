//! What is wrong, in two tables: what happens again and again, and what is not as it must be.

use super::{
    panel::{Panel, table},
    reasons,
};

/// One kind of trouble: what it is called, its colour, and for each namespace and reason how often it happens in a second. An
/// expression may name the label that is the reason, or the reason itself.
struct Kind {
    what: &'static str,
    colour: &'static str,
    parts: &'static [(&'static str, Reason)],
}

enum Reason {
    Label(&'static str),
    Is(&'static str),
}

use Reason::{Is, Label};

const KINDS: &[Kind] = &[
    Kind {
        what: "connects fail",
        colour: "red",
        parts: &[(
            "sum by (instance, netns, reason) (rate(netns_tcp_connect_failures_total{%n}[%r]))",
            Label("reason"),
        )],
    },
    Kind {
        what: "queue full",
        colour: "red",
        parts: &[
            ("sum by (instance, netns, queue) (rate(netns_socket_overflows_total{%n}[%r]))", Label("queue")),
            ("sum by (instance, netns) (rate(netns_tcp_listen_drops_total{%n}[%r]))", Is("listen")),
        ],
    },
    Kind {
        what: "conntrack full",
        colour: "red",
        parts: &[
            ("sum by (instance, netns) (rate(netns_conntrack_drops_total{%n}[%r]))", Is("table full")),
            ("sum by (instance, netns) (rate(netns_conntrack_early_drops_total{%n}[%r]))", Is("thrown out")),
            (
                "sum by (instance, netns) (rate(netns_conntrack_insert_failures_total{%n}[%r]))",
                Is("not entered"),
            ),
        ],
    },
    Kind {
        what: "DNS fails",
        colour: "red",
        parts: &[
            (
                r#"sum by (instance, netns, rcode) (rate(netns_dns_responses_total{%n, role="client", rcode!~"NOERROR|NXDOMAIN"}[%r]))"#,
                Label("rcode"),
            ),
            (
                r#"sum by (instance, netns) (rate(netns_dns_queries_total{%n, role="client"}[%r])) - sum by (instance, netns) (rate(netns_dns_responses_total{%n, role="client"}[%r]))"#,
                Is("unanswered"),
            ),
        ],
    },
    Kind {
        what: "packets dropped",
        colour: "orange",
        parts: &[(
            r#"sum by (instance, netns, reason) (rate(netns_packet_drops_total{%n, reason!~"%usual"}[%r]))"#,
            Label("reason"),
        )],
    },
    Kind {
        what: "dropped at interface",
        colour: "orange",
        parts: &[(
            "sum by (instance, netns, interface, direction) (rate(netns_interface_drops_total{%i}[%r]))",
            Label("direction"),
        )],
    },
    Kind {
        what: "interface errors",
        colour: "orange",
        parts: &[(
            "sum by (instance, netns, interface, direction) (rate(netns_interface_errors_total{%i}[%r]))",
            Label("direction"),
        )],
    },
    Kind {
        what: "TCP sent again",
        colour: "orange",
        parts: &[(
            "sum by (instance, netns, kind) (rate(netns_tcp_retransmitted_segments_total{%n}[%r]))",
            Label("kind"),
        )],
    },
    Kind {
        what: "not routed",
        colour: "orange",
        parts: &[
            ("sum by (instance, netns) (rate(netns_ip_no_route_total{%n}[%r]))", Is("no route")),
            ("sum by (instance, netns) (rate(netns_ip_discards_total{%n}[%r]))", Is("discarded")),
        ],
    },
    Kind {
        what: "firewall of the file",
        colour: "yellow",
        parts: &[(
            "sum by (instance, netns, chain) (rate(netns_firewall_drops_total{%n}[%r]))",
            Label("chain"),
        )],
    },
    Kind {
        what: "not counted",
        colour: "purple",
        parts: &[(
            "sum by (instance, netns, interface, direction) (rate(netns_interface_uncounted_packets_total{%i}[%r]))",
            Label("direction"),
        )],
    },
];

/// What stands in the column of kinds before it is worded: in its order the worst kinds come first, however often the others happen.
fn rank(at: usize, what: &str) -> String {
    format!("{:02} {what}", at + 1)
}

/// The troubles as one expression: the five worst of each kind, so that none hides another.
fn troubles() -> String {
    let part = |what: &str, expr: &str, reason: &Reason| {
        let reasoned = match reason {
            Label("reason") => format!("({expr})"),
            Label(label) => format!(r#"label_replace({expr}, "reason", "$1", "{label}", "(.*)")"#),
            Is(reason) => format!(r#"label_replace({expr}, "reason", "{reason}", "", "")"#),
        };
        format!(r#"label_replace({reasoned} > 0, "what", "{what}", "", "")"#)
    };
    let each = KINDS.iter().enumerate().flat_map(|(at, kind)| {
        kind.parts.iter().map(move |(expr, reason)| part(&rank(at, kind.what), expr, reason))
    });
    format!("topk by (what) (5, {})", each.collect::<Vec<_>>().join("\n or "))
}

const COLUMNS: &[(&str, &str)] = &[
    ("what", "What"),
    ("instance", "Instance"),
    ("netns", "Namespace"),
    ("interface", "Interface"),
    ("reason", "Reason"),
];

/// What goes wrong again and again.
pub(super) fn troubled() -> Panel {
    let worded = |(at, kind): (usize, &Kind)| (rank(at, kind.what), kind.what.to_owned(), Some(kind.colour));
    let words: Vec<_> = KINDS.iter().enumerate().map(worded).collect();
    table(
        "What is wrong",
        "What fails or is lost and how often in a second: the worst kinds first, of each the five worst namespaces. A click on a \
         namespace or an interface shows it alone. Reasons that occur where nothing is wrong are left out.",
        &[(&troubles(), "By the second", "short")],
    )
    .columns(COLUMNS)
    .without(&["queue", "direction", "kind", "rcode", "chain"])
    .row_links()
    .worded("What", &words)
    .worded("Reason", &reasons::every())
    .sorted_up_by("What", "By the second")
    .width("What", 160)
    .width("Instance", 160)
    .width("Namespace", 200)
    .width("Interface", 90)
    .width("By the second", 120)
    .empty("nothing is wrong")
}

/// States that somebody should know of, each with its number.
const STATES: &[(&str, &str, &str)] = &[
    ("agent not reached", "red", "(up{%h} == 0) + 1"),
    (
        "interface down",
        "red",
        "1 - (netns_interface_up{%i} == 0 and on (job, instance, netns, interface) netns_interface_attached{%i} == 1)",
    ),
    ("counts nothing", "red", r#"netns_monitor_attach_info{%h, mode="none"}"#),
    ("interfaces not counted", "red", "netns_monitor_interfaces_unattached{%h} > 0"),
    (
        "conntrack nearly full, percent",
        "orange",
        "100 * netns_conntrack_entries{%n} / netns_conntrack_entries_limit{%n} > 80",
    ),
    ("collector fails", "orange", "1 - (netns_monitor_scrape_collector_success{%h} == 0)"),
    (
        "pass late, seconds",
        "orange",
        "time() - netns_monitor_reconcile_last_success_timestamp_seconds{%h} > 120",
    ),
    ("file refused", "orange", "1 - (netns_monitor_config_last_reload_successful{%h} == 0)"),
    ("namespaces summed as ~other", "blue", "netns_monitor_namespaces_cut{%h} > 0"),
    ("lives on without a name", "blue", r#"netns_state{%n, state="detached"} == 1"#),
];

/// What is not as it must be at this moment.
pub(super) fn states() -> Panel {
    let each = STATES.iter().map(|(what, _, expr)| {
        let kept = "sum by (instance, netns, interface, collector)";
        format!(r#"label_replace({kept} ({expr}), "what", "{what}", "", "")"#)
    });
    let expr = each.collect::<Vec<_>>().join("\n or ");
    let words: Vec<_> = STATES
        .iter()
        .map(|(what, colour, _)| ((*what).to_owned(), (*what).to_owned(), Some(*colour)))
        .collect();
    table(
        "Not as it must be",
        "States of this moment: agents that are not reached or fail in something, interfaces that are down, tables that are \
         nearly full, namespaces that are summed or lost their name.",
        &[(&expr, "Number", "short")],
    )
    .columns(&[
        ("what", "What"),
        ("instance", "Instance"),
        ("netns", "Namespace"),
        ("interface", "Interface"),
        ("collector", "Collector"),
    ])
    .row_links()
    .worded("What", &words)
    .width("Interface", 80)
    .width("Number", 70)
    .empty("everything is as it must be")
}

/// How many namespaces have this trouble now, more than once in ten seconds.
pub(super) fn namespaces_with(expr: &str) -> String {
    format!("count(sum by (instance, netns) ({expr}) > 0.1) or vector(0)")
}
