//! What a metric is, and how its series are written down.

use std::collections::HashMap;

use prometheus::{
    core::Desc,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric as OneSeries, MetricFamily, MetricType},
};

/// A metric as the reference lists it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Label names, in the order a collector gives their values.
    pub labels: &'static [&'static str],
    /// What it counts, in which unit and as seen by whom.
    pub help: &'static str,
}

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by inclusive upper bounds, plus everything above.
    Histogram(&'static [f64]),
}

/// The series one collector writes.
#[derive(Default)]
pub struct Series {
    families: Vec<MetricFamily>,
}

impl Metric {
    /// A counter.
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, labels, help }
    }

    /// A gauge.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, labels, help }
    }

    pub(super) fn desc(&self) -> prometheus::Result<Desc> {
        let labels = self.labels.iter().map(|&label| label.to_owned()).collect();
        Desc::new(self.name.to_owned(), self.help.to_owned(), labels, HashMap::new())
    }

    fn family(&self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram(_) => MetricType::HISTOGRAM,
        });
        family
    }
}

impl Series {
    /// Writes a whole number: exact up to 2^53, Prometheus' own limit.
    pub fn count(&mut self, metric: &Metric, labels: &[&str], value: u64) {
        self.number(metric, labels, value as f64);
    }

    /// Writes a number.
    pub fn number(&mut self, metric: &Metric, labels: &[&str], value: f64) {
        let mut series = OneSeries::from_label(pairs(metric, labels));
        match metric.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                series.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                series.set_gauge(gauge);
            }
        }
        self.push(metric, series);
    }

    /// Writes a histogram: how many fell into each bucket alone (the last is open), and their sum.
    ///
    /// The count is that of all buckets, so that a histogram agrees with itself even when its sum was read an instant
    /// earlier or later.
    pub fn histogram(&mut self, metric: &Metric, labels: &[&str], buckets: &[u64], sum: f64) {
        let Kind::Histogram(bounds) = metric.kind else { return };
        let mut below = 0;
        let cumulative = bounds.iter().zip(buckets).map(|(&bound, &count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(cumulative.collect());
        histogram.set_sample_count(buckets.iter().sum());
        histogram.set_sample_sum(sum);
        let mut series = OneSeries::from_label(pairs(metric, labels));
        series.set_histogram(histogram);
        self.push(metric, series);
    }

    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        self.families
    }

    fn push(&mut self, metric: &Metric, series: OneSeries) {
        // A collector has a handful of metrics and writes many series of each.
        let at = self.families.iter().position(|family| family.name() == metric.name).unwrap_or_else(|| {
            self.families.push(metric.family());
            self.families.len() - 1
        });
        self.families[at].mut_metric().push(series);
    }
}

/// The labels of one series, sorted by name as everywhere in Prometheus.
fn pairs(metric: &Metric, values: &[&str]) -> Vec<LabelPair> {
    debug_assert_eq!(metric.labels.len(), values.len(), "labels of {}", metric.name);
    let pair = |(&name, &value): (&&str, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    let mut pairs: Vec<_> = metric.labels.iter().zip(values).map(pair).collect();
    pairs.sort_by(|a, b| a.name().cmp(b.name()));
    pairs
}
