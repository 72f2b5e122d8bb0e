//! The scrape itself: what became of each collector. Written last, when all have run.

use prometheus::proto::MetricFamily;

use super::{Metric, Outcome, Series};

pub(super) const METRICS: &[Metric] = &[DURATION, SUCCESS];

const DURATION: Metric = Metric::gauge(
    "netns_monitor_scrape_collector_duration_seconds",
    &["collector"],
    "How long the collector took in this scrape, in seconds.",
);
const SUCCESS: Metric = Metric::gauge(
    "netns_monitor_scrape_collector_success",
    &["collector"],
    "1 if the collector wrote all it knows in this scrape, 0 if it failed (the agent's log says why).",
);

pub(super) fn families(outcomes: &[Outcome]) -> Vec<MetricFamily> {
    let mut outcomes: Vec<_> = outcomes.iter().collect();
    outcomes.sort_by_key(|outcome| outcome.collector);
    let mut series = Series::default();
    for Outcome { collector, took, error } in outcomes {
        series.number(&DURATION, &[collector], took.as_secs_f64());
        series.count(&SUCCESS, &[collector], error.is_none().into());
    }
    series.into_families()
}
