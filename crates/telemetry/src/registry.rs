//! The registry: hands out handles by table row and renders them all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::{counter, gauge, histogram};
use prometheus_client::registry::Registry;

use crate::table::{Kind, Metric, TABLE};

/// A counter's handle: cheap to clone, one atomic addition to count.
pub type Counter = counter::Counter<u64, AtomicU64>;
/// A gauge's handle.
pub type Gauge = gauge::Gauge<f64, AtomicU64>;
/// A histogram's handle.
pub type Histogram = histogram::Histogram;

type Labels = Vec<(&'static str, String)>;

/// Most label sets a metric may have; further ones share one whose values are all `other` (promise I4).
const MAX_LABEL_SETS: usize = 512;

#[derive(Clone)]
struct BucketedHistogram(&'static [f64]);

impl MetricConstructor<Histogram> for BucketedHistogram {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

enum Metrics {
    Counter(Family<Labels, Counter>),
    Gauge(Family<Labels, Gauge>),
    Histogram(Family<Labels, Histogram, BucketedHistogram>),
}

/// All metrics of one gateway. Clone it freely; there is no global.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    registry: Registry,
    families: Vec<Metrics>,
    label_sets: Mutex<HashMap<Metric, std::collections::HashSet<Labels>>>,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Telemetry({} metrics)", self.0.families.len())
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// Registers every row of the table.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let families = TABLE
            .iter()
            .map(|row| {
                // OpenMetrics adds `_total` and the full stop by itself.
                let name = row.name.strip_suffix("_total").unwrap_or(row.name);
                let help = row.help.trim_end_matches('.');
                match row.kind {
                    Kind::Counter => {
                        let family = Family::<Labels, Counter>::default();
                        registry.register(name, help, family.clone());
                        Metrics::Counter(family)
                    }
                    Kind::Gauge => {
                        let family = Family::<Labels, Gauge>::default();
                        registry.register(name, help, family.clone());
                        Metrics::Gauge(family)
                    }
                    Kind::Histogram(buckets) => {
                        let family = Family::new_with_constructor(BucketedHistogram(buckets));
                        registry.register(name, help, family.clone());
                        Metrics::Histogram(family)
                    }
                }
            })
            .collect();
        Self(Arc::new(Inner { registry, families, label_sets: Mutex::default() }))
    }

    /// The counter of `metric` with these label values, in the table's order. Ask once and keep the handle.
    ///
    /// # Panics
    /// Where `metric` is no counter or the number of values is not that of the table: a mistake of the programmer.
    pub fn counter(&self, metric: Metric, values: &[&str]) -> Counter {
        let labels = self.labels(metric, values);
        match &self.0.families[metric as usize] {
            Metrics::Counter(family) => family.get_or_create(&labels).clone(),
            _ => panic!("{metric:?} is no counter"),
        }
    }

    /// The gauge of `metric` with these label values. Panics like [`Telemetry::counter`].
    pub fn gauge(&self, metric: Metric, values: &[&str]) -> Gauge {
        let labels = self.labels(metric, values);
        match &self.0.families[metric as usize] {
            Metrics::Gauge(family) => family.get_or_create(&labels).clone(),
            _ => panic!("{metric:?} is no gauge"),
        }
    }

    /// The histogram of `metric` with these label values. Panics like [`Telemetry::counter`].
    pub fn histogram(&self, metric: Metric, values: &[&str]) -> Histogram {
        let labels = self.labels(metric, values);
        match &self.0.families[metric as usize] {
            Metrics::Histogram(family) => family.get_or_create(&labels).clone(),
            _ => panic!("{metric:?} is no histogram"),
        }
    }

    /// The sum of a counter over all its label sets.
    pub fn total(&self, metric: Metric) -> u64 {
        let sets: Vec<Labels> = match self.0.label_sets.lock().get(&metric) {
            Some(sets) => sets.iter().cloned().collect(),
            None => return 0,
        };
        match &self.0.families[metric as usize] {
            Metrics::Counter(family) => sets.iter().map(|labels| family.get_or_create(labels).get()).sum(),
            _ => 0,
        }
    }

    /// All metrics in the OpenMetrics text format, version 1.0.0.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }

    fn labels(&self, metric: Metric, values: &[&str]) -> Labels {
        let names = TABLE[metric as usize].labels;
        assert_eq!(names.len(), values.len(), "{metric:?} has the labels {names:?}");
        let labels: Labels = names.iter().copied().zip(values.iter().map(|value| (*value).to_owned())).collect();
        let mut all = self.0.label_sets.lock();
        let sets = all.entry(metric).or_default();
        if sets.contains(&labels) || sets.len() < MAX_LABEL_SETS {
            sets.insert(labels.clone());
            return labels;
        }
        let other: Labels = names.iter().map(|name| (*name, "other".to_owned())).collect();
        sets.insert(other.clone());
        other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_names_as_the_table_has_them() {
        let telemetry = Telemetry::new();
        telemetry.counter(Metric::Readings, &["ecg"]).inc_by(3);
        telemetry.gauge(Metric::Ready, &[]).set(1.0);
        telemetry.histogram(Metric::JournalSync, &[]).observe(0.002);
        let text = telemetry.render();
        assert!(text.contains("nearside_readings_total{stream=\"ecg\"} 3"), "{text}");
        assert!(text.contains("nearside_ready{} 1.0"), "{text}");
        assert!(text.contains("nearside_journal_sync_seconds_bucket{le=\"0.0025\"} 1"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn label_sets_are_bounded() {
        let telemetry = Telemetry::new();
        for n in 0..2 * MAX_LABEL_SETS {
            telemetry.counter(Metric::Readings, &[&n.to_string()]).inc();
        }
        assert_eq!(telemetry.total(Metric::Readings), 2 * MAX_LABEL_SETS as u64);
        let lines = telemetry.render().lines().filter(|line| line.starts_with("nearside_readings_total{")).count();
        assert_eq!(lines, MAX_LABEL_SETS + 1);
    }
}
