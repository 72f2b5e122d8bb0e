//! What Prometheus reads: one collector per family of metrics, over one immutable [`Sample`].
//!
//! Deliberately absent: time stamps (they would turn Prometheus' staleness off), addresses, ports and pids as labels,
//! and any reading of maps or netlink; what is not in the sample does not exist here. The one exception is
//! `process.rs`, which reads this very process.
//!
//! A metric is in exactly one collector. A collector that fails takes nothing from the others, and each scrape says of
//! each collector whether it succeeded and how long it took.

mod agent;
mod choice;
mod conntrack;
mod dns;
mod drift;
mod drops;
mod firewall;
mod health;
mod interface;
mod namespace;
mod netstat;
mod process;
mod protocol;
mod retired;
mod scrape;
mod series;
mod size;
mod tcp;
mod traffic;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use prometheus::{Registry, TextEncoder, core, proto::MetricFamily};

pub use self::{
    choice::Collectors,
    protocol::CLASS_NAMES,
    retired::GONE,
    series::{Kind, Metric, Series},
};
use crate::sample::Sample;

/// A family of metrics and how a sample becomes them.
#[derive(Clone, Copy, Debug)]
pub struct Collector {
    /// The label `collector` of the scrape's own metrics.
    pub name: &'static str,
    /// What the family tells, in one line.
    pub help: &'static str,
    /// All metrics it may write.
    pub metrics: &'static [Metric],
    /// Writes them. On an error, what was written until then stays: every series is true by itself.
    pub collect: fn(&Sample, &mut Series) -> anyhow::Result<()>,
}

/// Collectors that are off unless somebody asks for them: they cost for each packet.
pub const OPT_IN: &[&str] = &["dns"];

/// Every collector; a new one is one file and one line here.
pub const COLLECTORS: &[Collector] = &[
    traffic::COLLECTOR,
    protocol::COLLECTOR,
    size::COLLECTOR,
    tcp::COLLECTOR,
    health::COLLECTOR,
    interface::COLLECTOR,
    drift::COLLECTOR,
    namespace::COLLECTOR,
    firewall::COLLECTOR,
    drops::COLLECTOR,
    netstat::COLLECTOR,
    conntrack::COLLECTOR,
    dns::COLLECTOR,
    retired::COLLECTOR,
    agent::COLLECTOR,
    process::COLLECTOR,
];

/// The sample in Prometheus' text format 0.0.4.
///
/// # Errors
/// When the encoder refuses a family, which only a mistake in a collector's table can cause; a failing collector is
/// no error but the metric `netns_monitor_scrape_collector_success`.
pub fn render(sample: &Arc<Sample>) -> anyhow::Result<String> {
    render_with(COLLECTORS, sample)
}

/// As [`render`], by these collectors only.
///
/// # Errors
/// As [`render`].
pub fn render_with(collectors: &[Collector], sample: &Arc<Sample>) -> anyhow::Result<String> {
    let registry = Registry::new();
    let outcomes: Arc<Mutex<Vec<Outcome>>> = Arc::default();
    for &collector in collectors {
        let over = OverSample::new(collector, sample, &outcomes)
            .and_then(|over| Ok(registry.register(Box::new(over))?));
        if let Err(error) = over {
            note(&outcomes, Outcome::failed(collector.name, error));
        }
    }
    let mut families = registry.gather();
    let mut outcomes = std::mem::take(&mut *outcomes.lock().unwrap_or_else(PoisonError::into_inner));
    drop_duplicates(&mut families, collectors, &mut outcomes);
    for Outcome { collector, error, .. } in &outcomes {
        if let Some(error) = error {
            tracing::warn!(collector, "this scrape lacks metrics: {error:#}");
        }
    }
    families.extend(scrape::families(&outcomes));
    families.sort_by(|a, b| a.name().cmp(b.name()));
    TextEncoder::new().encode_to_string(&families).context("encode the metrics")
}

/// One line of [`reference`].
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    /// Name of the collector.
    pub collector: &'static str,
    /// The metric.
    pub metric: Metric,
}

/// Every metric there is, in the order of the collectors.
pub fn reference() -> Vec<Reference> {
    let of = |collector: &Collector| {
        let name = collector.name;
        collector.metrics.iter().map(move |&metric| Reference { collector: name, metric })
    };
    let scrape = scrape::METRICS.iter().map(|&metric| Reference { collector: "scrape", metric });
    COLLECTORS.iter().flat_map(of).chain(scrape).collect()
}

/// What became of one collector in one scrape.
struct Outcome {
    collector: &'static str,
    took: Duration,
    error: Option<anyhow::Error>,
}

impl Outcome {
    fn failed(collector: &'static str, error: anyhow::Error) -> Self {
        Self { collector, took: Duration::ZERO, error: Some(error) }
    }
}

fn note(outcomes: &Mutex<Vec<Outcome>>, outcome: Outcome) {
    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
}

/// A collector bound to a sample: what the registry knows as one of its collectors.
struct OverSample {
    collector: Collector,
    descs: Vec<core::Desc>,
    sample: Arc<Sample>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

impl OverSample {
    fn new(
        collector: Collector,
        sample: &Arc<Sample>,
        outcomes: &Arc<Mutex<Vec<Outcome>>>,
    ) -> anyhow::Result<Self> {
        let descs = collector.metrics.iter().map(Metric::desc).collect::<Result<_, _>>()?;
        Ok(Self { collector, descs, sample: sample.clone(), outcomes: outcomes.clone() })
    }
}

impl core::Collector for OverSample {
    fn desc(&self) -> Vec<&core::Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Collector { name, collect, .. } = self.collector;
        let start = Instant::now();
        let mut series = Series::default();
        // A collector that panics is a mistake of ours; it must not take the other metrics with it.
        let done = catch_unwind(AssertUnwindSafe(|| collect(&self.sample, &mut series)))
            .unwrap_or_else(|_| Err(anyhow!("the collector panicked")));
        note(&self.outcomes, Outcome { collector: name, took: start.elapsed(), error: done.err() });
        series.into_families()
    }
}

/// Prometheus refuses a whole scrape that has one series twice, so only the first stays and its collector has failed.
/// The registry sorted the series by their labels, equal ones in the order they were written.
fn drop_duplicates(families: &mut [MetricFamily], collectors: &[Collector], outcomes: &mut [Outcome]) {
    for family in families {
        let all = family.get_metric().len();
        family.mut_metric().dedup_by(|later, first| later.get_label() == first.get_label());
        let twice = all - family.get_metric().len();
        if twice == 0 {
            continue;
        }
        let writes = |collector: &&Collector| collector.metrics.iter().any(|m| m.name == family.name());
        let owner = collectors.iter().find(writes).map(|collector| collector.name);
        for outcome in outcomes.iter_mut().filter(|outcome| Some(outcome.collector) == owner) {
            let name = family.name();
            outcome
                .error
                .get_or_insert_with(|| anyhow!("{twice} series of {name} twice: two things of one name"));
        }
    }
}
