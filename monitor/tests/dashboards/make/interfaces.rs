//! Every interface: state, traffic, losses, identity.

use serde_json::Value;

use super::{
    Page,
    panel::{series, table, timeline},
};

pub(super) fn page() -> Value {
    Page::new(
        "netns-monitor-interfaces",
        "Interfaces",
        "Interfaces of namespaces: which are down, which are busiest, which lose packets, and what is at their other end. \
         Directions are as seen by the namespace.",
        true,
    )
    .put(24, 11, all())
    .put(
        12,
        9,
        timeline(
            "Interfaces that were down",
            "Interfaces that were down at some time of what is shown; those that were up all the time are left out.",
            "netns_interface_up{%i} and on (job, instance, netns, interface) (min_over_time(netns_interface_up{%i}[$__range] @ end()) == 0)",
            "{{netns}}/{{interface}} on {{instance}}",
            ["down", "up"],
        )
        .empty("all were up all the time"),
    )
    .put(
        12,
        9,
        series(
            "Packets not counted",
            "Packets a second that the kernel counted at the interface and eBPF did not: somebody removed a program of the \
             agent for a while. 0 where all is well.",
            "pps",
            &[(
                "sum by (instance, netns, interface, direction) (rate(netns_interface_uncounted_packets_total{%i}[%r])) > 0",
                "{{netns}}/{{interface}} {{direction}}",
            )],
        )
        .leads_to_namespace()
        .empty("every packet is counted"),
    )
    .row("Traffic")
    .put(
        12,
        9,
        series(
            "Busiest, bits",
            "Bits a second on the wire of the busiest interfaces, receive upwards, transmit downwards.",
            "bps",
            &[
                (
                    r#"topk(8, sum by (instance, netns, interface, direction) (rate(netns_bytes_total{%i, direction="receive"}[%r])) * 8)"#,
                    "{{netns}}/{{interface}} {{direction}}",
                ),
                (
                    r#"topk(8, sum by (instance, netns, interface, direction) (rate(netns_bytes_total{%i, direction="transmit"}[%r])) * 8)"#,
                    "{{netns}}/{{interface}} {{direction}}",
                ),
            ],
        )
        .mirrored()
        .leads_to_namespace(),
    )
    .put(
        12,
        9,
        series(
            "Busiest, packets",
            "Packets a second on the wire of the busiest interfaces, receive upwards, transmit downwards.",
            "pps",
            &[
                (
                    r#"topk(8, sum by (instance, netns, interface, direction) (rate(netns_packets_total{%i, direction="receive"}[%r])))"#,
                    "{{netns}}/{{interface}} {{direction}}",
                ),
                (
                    r#"topk(8, sum by (instance, netns, interface, direction) (rate(netns_packets_total{%i, direction="transmit"}[%r])))"#,
                    "{{netns}}/{{interface}} {{direction}}",
                ),
            ],
        )
        .mirrored()
        .leads_to_namespace(),
    )
    .put(
        8,
        9,
        series(
            "Mean packet size",
            "Bytes of a packet on the wire, of the interfaces with the largest.",
            "decbytes",
            &[(
                "topk(12, sum by (instance, netns, interface, direction) (rate(netns_bytes_total{%i}[%r])) / (sum by (instance, netns, interface, direction) (rate(netns_packets_total{%i}[%r])) > 0))",
                "{{netns}}/{{interface}} {{direction}}",
            )],
        )
        .leads_to_namespace()
        .below(),
    )
    .put(
        8,
        9,
        series(
            "Packets of a socket buffer",
            "How many packets on the wire one socket buffer stands for: 1 without offload, up to 64 where the sender leaves \
             cutting to the device (GSO).",
            "short",
            &[(
                "topk(12, sum by (instance, netns, interface, direction) (rate(netns_packets_total{%i}[%r])) / (sum by (instance, netns, interface, direction) (rate(netns_skbs_total{%i}[%r])) > 0))",
                "{{netns}}/{{interface}} {{direction}}",
            )],
        )
        .leads_to_namespace()
        .below(),
    )
    .put(
        8,
        9,
        series(
            "Bytes that offload hides",
            "Share of the bytes on the wire that the kernel's own interface counters do not show: the headers of packets that \
             are cut later (GSO).",
            "percentunit",
            &[(
                "topk(12, 1 - sum by (instance, netns, interface, direction) (rate(netns_skb_bytes_total{%i}[%r])) / (sum by (instance, netns, interface, direction) (rate(netns_bytes_total{%i}[%r])) > 0))",
                "{{netns}}/{{interface}} {{direction}}",
            )],
        )
        .leads_to_namespace()
        .below(),
    )
    .row("Losses")
    .put(
        12,
        9,
        series(
            "Dropped",
            "Packets a second that the kernel dropped at the interface (its own counter), of the worst interfaces.",
            "pps",
            &[(
                "topk(12, sum by (instance, netns, interface, direction) (rate(netns_interface_drops_total{%i}[%r])) > 0)",
                "{{netns}}/{{interface}} {{direction}}",
            )],
        )
        .leads_to_namespace()
        .empty("nothing is dropped at interfaces"),
    )
    .put(
        12,
        9,
        series(
            "Errors",
            "Errors a second that the kernel counted at the interface (its own counter), of the interfaces with most.",
            "pps",
            &[(
                "topk(12, sum by (instance, netns, interface, direction) (rate(netns_interface_errors_total{%i}[%r])) > 0)",
                "{{netns}}/{{interface}} {{direction}}",
            )],
        )
        .leads_to_namespace()
        .empty("no errors"),
    )
    .build()
}

fn all() -> super::Panel {
    let each = |expr: &str| format!("max by (instance, netns, interface) ({expr})");
    let rate = |metric: &str, direction: &str| {
        let chosen = match direction {
            "" => "%i".to_owned(),
            direction => format!(r#"%i, direction="{direction}""#),
        };
        format!("sum by (instance, netns, interface) (rate({metric}{{{chosen}}}[%r]))")
    };
    let identity =
        "max by (instance, netns, interface, kind, peer_netns, peer_interface) (netns_interface_info{%i})";
    let attached = "max by (instance, netns, interface, mode) (netns_interface_attached{%i})";
    table(
        "Interfaces",
        "Every interface that is chosen: whether it is up, how it is counted, its traffic in bits a second, what is lost, and \
         what is at its other end. Down and lossy ones are red.",
        &[
            (identity, "Known", "short"),
            (&each("netns_interface_up{%i}"), "Up", "short"),
            (attached, "Counted", "short"),
            (&format!("{} * 8", rate("netns_bytes_total", "receive")), "Receive", "bps"),
            (&format!("{} * 8", rate("netns_bytes_total", "transmit")), "Transmit", "bps"),
            (&rate("netns_interface_drops_total", ""), "Dropped", "pps"),
            (&rate("netns_interface_errors_total", ""), "Errors", "pps"),
            (
                "sum by (instance, netns, interface) (increase(netns_interface_uncounted_packets_total{%i}[%r]))",
                "Not counted",
                "short",
            ),
            (&each("netns_interface_mtu_bytes{%i}"), "MTU", "none"),
        ],
    )
    .columns(&[
        ("instance", "Instance"),
        ("netns", "Namespace"),
        ("interface", "Interface"),
        ("kind", "Kind"),
        ("peer_netns", "Other end in"),
        ("peer_interface", "Other end"),
        ("mode", "Counted by"),
    ])
    .without(&["Value #A", "Value #C"])
    .row_links()
    .worded(
        "Up",
        &[
            ("0".to_owned(), "down".to_owned(), Some("red")),
            ("1".to_owned(), "up".to_owned(), Some("green")),
        ],
    )
    .worded("Counted by", &[(String::new(), "not counted".to_owned(), Some("orange"))])
    .width("Instance", 140)
    .width("Namespace", 130)
    .width("Interface", 80)
    .width("Kind", 60)
    .width("Other end in", 100)
    .width("Other end", 115)
    .width("Counted by", 90)
    .width("Up", 55)
    .width("Dropped", 80)
    .width("Errors", 70)
    .width("Not counted", 100)
    .width("MTU", 55)
    .gauged("Receive")
    .gauged("Transmit")
    .alarmed("Dropped", 0.001)
    .alarmed("Errors", 0.001)
    .alarmed("Not counted", 1.0)
    .sorted_by("Receive")
}
