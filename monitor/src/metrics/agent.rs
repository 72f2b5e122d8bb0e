//! The agent itself: build, attaching, reconciling, configuration, HTTP.

use std::collections::BTreeMap;

use super::{Collector, Kind, Metric, Series, interface::mode};
use crate::sample::{AgentSample, RECONCILE_BOUNDS, RECONCILE_STAGES, ReconcileSample, Sample};

pub(super) const COLLECTOR: Collector = Collector {
    name: "agent",
    help: "The agent's build, attaching, reconciling, configuration and HTTP requests.",
    metrics: &[
        BUILD,
        ATTACH,
        UNATTACHED,
        REATTACHED,
        DURATION,
        ERRORS,
        LAST_SUCCESS,
        OVERRUNS,
        RELOAD_SUCCESSFUL,
        RELOAD_LAST_SUCCESS,
        REQUESTS,
    ],
    collect,
};

const BUILD: Metric = Metric::gauge(
    "netns_monitor_build_info",
    &["version", "layout"],
    "Version of the agent and of the layout of its counters, always 1.",
);
const ATTACH: Metric = Metric::gauge(
    "netns_monitor_attach_info",
    &["mode", "pinned"],
    "How the agent attaches on this kernel (tcx, clsact, none) and whether counts outlive it, always 1.",
);
const UNATTACHED: Metric = Metric::gauge(
    "netns_monitor_interfaces_unattached",
    &[],
    "Interfaces that should be counted by eBPF and are not.",
);
const REATTACHED: Metric = Metric::counter(
    "netns_monitor_reattached_total",
    &[],
    "Times an eBPF program of the agent was found removed from an interface by somebody else, and put back.",
);
const DURATION: Metric = Metric {
    name: "netns_monitor_reconcile_duration_seconds",
    kind: Kind::Histogram(&RECONCILE_BOUNDS),
    labels: &[],
    help: "Duration in seconds of a pass that compares what is with what should be and repairs it.",
};
const ERRORS: Metric = Metric::counter(
    "netns_monitor_reconcile_errors_total",
    &["stage"],
    "Passes that failed, by the stage that failed (observe, plan, execute, retire).",
);
const LAST_SUCCESS: Metric = Metric::gauge(
    "netns_monitor_reconcile_last_success_timestamp_seconds",
    &[],
    "When a pass last succeeded, in seconds since 1970.",
);
const OVERRUNS: Metric = Metric::counter(
    "netns_monitor_netlink_overruns_total",
    &[],
    "Times the netlink socket overran, so that everything was read anew.",
);
const RELOAD_SUCCESSFUL: Metric = Metric::gauge(
    "netns_monitor_config_last_reload_successful",
    &[],
    "1 if the last reading of the configuration file succeeded, 0 if the one before it is still in force.",
);
const RELOAD_LAST_SUCCESS: Metric = Metric::gauge(
    "netns_monitor_config_last_reload_success_timestamp_seconds",
    &[],
    "When a reading of the configuration file last succeeded, in seconds since 1970.",
);
const REQUESTS: Metric = Metric::counter(
    "netns_monitor_http_requests_total",
    &["handler", "code"],
    "HTTP requests answered, by path and status code; handler other is every path that is not served.",
);

fn collect(sample: &Sample, series: &mut Series) -> anyhow::Result<()> {
    let AgentSample {
        mode: attach,
        unattached,
        reattached,
        pinned,
        reconciles,
        netlink_overruns,
        config_reload,
        http_requests,
    } = &sample.agent;
    let layout = monitor_ebpf::LAYOUT.to_string();
    series.count(&BUILD, &[env!("CARGO_PKG_VERSION"), &layout], 1);
    let pinned = if *pinned { "true" } else { "false" };
    series.count(&ATTACH, &[attach.map_or("none", mode), pinned], 1);
    series.count(&UNATTACHED, &[], *unattached);
    series.count(&REATTACHED, &[], *reattached);
    collect_reconciles(reconciles, series);
    series.count(&OVERRUNS, &[], *netlink_overruns);
    if let Some(reload) = config_reload {
        series.count(&RELOAD_SUCCESSFUL, &[], reload.successful.into());
        series.number(&RELOAD_LAST_SUCCESS, &[], reload.last_success);
    }
    for ((handler, code), &requests) in http_requests {
        series.count(&REQUESTS, &[handler, &code.to_string()], requests);
    }
    Ok(())
}

fn collect_reconciles(reconciles: &ReconcileSample, series: &mut Series) {
    let ReconcileSample { durations, seconds, errors, last_success } = reconciles;
    series.histogram(&DURATION, &[], durations, *seconds);
    let mut by_stage: BTreeMap<&str, u64> = RECONCILE_STAGES.map(|stage| (stage, 0)).into();
    by_stage.extend(errors);
    for (stage, failed) in by_stage {
        series.count(&ERRORS, &[stage], failed);
    }
    if let Some(at) = last_success {
        series.number(&LAST_SUCCESS, &[], *at);
    }
}
