//! The agents themselves: whether they are well, and what they cost.

use serde_json::Value;

use super::{
    Page,
    panel::{heatmap, series, stat, table, timeline},
};

pub(super) fn page() -> Value {
    let page = Page::new(
        "netns-monitor-agent",
        "Agent internals",
        "Whether the agents are well, what they could not do, and what they cost.",
        false,
    );
    cost(work(health(page))).build()
}

fn health(page: Page) -> Page {
    page.put(
        4,
        4,
        stat("Agents", "Agents that answer.", "short", "count(netns_monitor_build_info{%h}) or vector(0)"),
    )
    .put(
        4,
        4,
        stat(
            "Not reached",
            "Agents that Prometheus could not scrape the last time. eBPF goes on counting in the kernel.",
            "short",
            "sum(1 - up{%h})",
        )
        .alarm(1.0),
    )
    .put(
        4,
        4,
        stat(
            "Collectors that fail",
            "Collectors that could not write all they know in the last scrape: metrics are incomplete.",
            "short",
            "sum(1 - netns_monitor_scrape_collector_success{%h})",
        )
        .alarm(1.0),
    )
    .put(
        4,
        4,
        stat(
            "Interfaces not counted",
            "Interfaces that should be counted by eBPF and are not.",
            "short",
            "sum(netns_monitor_interfaces_unattached{%h})",
        )
        .alarm(1.0)
        .leads("Interfaces", "netns-monitor-interfaces"),
    )
    .put(
        4,
        4,
        stat(
            "Summed as ~other",
            "Namespaces beyond --metrics.max-namespaces: counted, and without series of their own.",
            "short",
            "sum(netns_monitor_namespaces_cut{%h})",
        )
        .alarm(1.0),
    )
    .put(
        4,
        4,
        stat(
            "Oldest pass",
            "How long ago the last successful pass was, of the agent where it is longest. There is one at least every 15 \
             seconds.",
            "s",
            "max(time() - netns_monitor_reconcile_last_success_timestamp_seconds{%h})",
        )
        .alarm(120.0),
    )
    .put(
        24,
        6,
        table(
            "Agents",
            "Each agent: version, how it attaches, whether its counts outlive it, how long it runs, when its file was last \
             read well, and whether the file was refused since.",
            &[
                ("max by (instance, version, layout) (netns_monitor_build_info{%h})", "Build", "short"),
                ("max by (instance, mode, pinned) (netns_monitor_attach_info{%h})", "Attach", "short"),
                ("time() - max by (instance) (process_start_time_seconds{%h})", "Runs for", "s"),
                ("min by (instance) (netns_monitor_config_last_reload_successful{%h})", "File", "short"),
                (
                    "time() - min by (instance) (netns_monitor_config_last_reload_success_timestamp_seconds{%h})",
                    "File read well before",
                    "s",
                ),
                ("sum by (instance) (netns_network_namespaces{%h})", "Namespaces", "short"),
                ("sum by (instance) (process_resident_memory_bytes{%h})", "Memory", "bytes"),
                ("sum by (instance) (rate(process_cpu_seconds_total{%h}[%r]))", "CPU", "percentunit"),
            ],
        )
        .columns(&[
            ("instance", "Instance"),
            ("version", "Version"),
            ("mode", "Attaches by"),
            ("pinned", "Counts outlive it"),
            ("layout", "Layout"),
        ])
        .without(&["Value #A", "Value #B"])
        .worded(
            "File",
            &[
                ("0".to_owned(), "refused".to_owned(), Some("red")),
                ("1".to_owned(), "in force".to_owned(), Some("green")),
            ],
        )
        .worded(
            "Attaches by",
            &[("none".to_owned(), "not at all".to_owned(), Some("red"))],
        ),
    )
    .put(
        12,
        8,
        timeline(
            "Reached",
            "Whether Prometheus reached the agent.",
            "min by (instance) (up{%h})",
            "{{instance}}",
            ["not reached", "reached"],
        ),
    )
    .put(
        12,
        8,
        timeline(
            "Collectors",
            "Whether each collector wrote all it knows, of the agent where it is worst.",
            "min by (collector) (netns_monitor_scrape_collector_success{%h})",
            "{{collector}}",
            ["fails", "well"],
        ),
    )
}

fn work(page: Page) -> Page {
    page.row("What it does")
        .put(
            8,
            8,
            heatmap(
                "Passes",
                "How long passes took that compare what is with what should be, and repair it.",
                "s",
                "sum by (le) (increase(netns_monitor_reconcile_duration_seconds_bucket{%h}[%r]))",
            ),
        )
        .put(
            8,
            8,
            series(
                "Passes that failed",
                "Passes that failed, by the stage that failed, and times the netlink socket overran so that everything was \
                 read anew.",
                "short",
                &[
                    (
                        "sum by (instance, stage) (increase(netns_monitor_reconcile_errors_total{%h}[%r]))",
                        "{{instance}} {{stage}}",
                    ),
                    (
                        "sum by (instance) (increase(netns_monitor_netlink_overruns_total{%h}[%r]))",
                        "{{instance}} netlink overran",
                    ),
                ],
            )
            .below(),
        )
        .put(
            8,
            8,
            series(
                "Attached",
                "Interfaces that are counted, by the way the program is attached; those that should be and are not; and \
                 programs that somebody removed and the agent put back.",
                "short",
                &[
                    ("sum by (mode) (netns_interface_attached{%h} == 1)", "{{mode}}"),
                    ("sum(netns_monitor_interfaces_unattached{%h})", "not counted"),
                    ("sum(increase(netns_monitor_reattached_total{%h}[%r]))", "put back"),
                ],
            )
            .below(),
        )
        .put(
            8,
            8,
            series(
                "Namespaces",
                "Namespaces that are known, by state: with a file, without theirs, never had one; and those that are summed \
                 as ~other.",
                "short",
                &[
                    ("sum by (state) (netns_state{%h})", "{{state}}"),
                    ("sum(netns_monitor_namespaces_cut{%h})", "summed as ~other"),
                ],
            )
            .stacked()
            .below(),
        )
        .put(
            8,
            8,
            series(
                "Events missed",
                "Drops and TCP events a second that the kernel did not show to a program because it was at work on that CPU \
                 already: they are in no other metric.",
                "cps",
                &[
                    (
                        "sum by (instance) (rate(netns_monitor_packet_drops_missed_total{%h}[%r]))",
                        "{{instance}} drops",
                    ),
                    (
                        "sum by (instance) (rate(netns_monitor_tcp_events_missed_total{%h}[%r]))",
                        "{{instance}} TCP",
                    ),
                ],
            )
            .below(),
        )
        .put(
            8,
            8,
            series(
                "HTTP requests",
                "Requests a second that the agents answered, by path and status.",
                "reqps",
                &[(
                    "sum by (handler, code) (rate(netns_monitor_http_requests_total{%h}[%r]))",
                    "{{handler}} {{code}}",
                )],
            )
            .below(),
        )
}

fn cost(page: Page) -> Page {
    page.row("What it costs")
        .put(
            8,
            8,
            series(
                "Scrapes",
                "How long each collector took in a scrape, of the agent where it took longest.",
                "s",
                &[(
                    "max by (collector) (netns_monitor_scrape_collector_duration_seconds{%h})",
                    "{{collector}}",
                )],
            )
            .stacked()
            .below(),
        )
        .put(
            8,
            8,
            series(
                "CPU",
                "CPU of the agents, 100 % is one core. The eBPF programs are not in it: they run in the packets' own time.",
                "percentunit",
                &[("sum by (instance) (rate(process_cpu_seconds_total{%h}[%r]))", "{{instance}}")],
            )
            .below(),
        )
        .put(
            8,
            8,
            series(
                "Memory",
                "Resident memory of the agents. The maps of the eBPF programs are the kernel's.",
                "bytes",
                &[("sum by (instance) (process_resident_memory_bytes{%h})", "{{instance}}")],
            )
            .below(),
        )
        .put(
            12,
            8,
            series(
                "File descriptors",
                "Open file descriptors as a share of those the agent may have.",
                "percentunit",
                &[("process_open_fds{%h} / process_max_fds{%h}", "{{instance}}")],
            )
            .share(),
        )
        .put(
            12,
            8,
            series(
                "Threads",
                "Threads of the agents.",
                "short",
                &[("process_threads{%h}", "{{instance}}")],
            ),
        )
}
