//! The roll-up component: summaries and ticks in, roll-ups out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nearside_schemas::{FieldName, RollUp, RollUpId, SiteId, Summary, Timestamp, WindowId};

use super::aggregate::{AggregateError, aggregate};
use crate::config::RollUpConfig;

/// What a roll-up needs of one field of one window.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) group: String,
    pub(super) field: FieldName,
    pub(super) stream: u64,
    pub(super) rows: u64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) mean: f64,
    pub(super) findings: u64,
}

struct Contribution {
    revision: u32,
    parts: Vec<Part>,
}

#[derive(Default)]
struct Span {
    windows: BTreeMap<WindowId, Contribution>,
    closed: bool,
    /// Windows came since it was last handed out.
    changed: bool,
    revisions: BTreeMap<RollUpId, u32>,
}

/// Roll-ups in the making.
pub struct RollUps {
    site: SiteId,
    config: RollUpConfig,
    spans: BTreeMap<Timestamp, Span>,
    held: usize,
    too_late: u64,
    now: Timestamp,
}

impl RollUps {
    /// Roll-ups of a site.
    pub const fn new(site: SiteId, config: RollUpConfig) -> Self {
        Self { site, config, spans: BTreeMap::new(), held: 0, too_late: 0, now: Timestamp::MIN }
    }

    /// Takes a summary in. Windows are put where their last instant lies.
    pub fn on_summary(&mut self, summary: &Summary) {
        let every = self.every();
        let start = summary.end.minus(Duration::from_micros(1)).floor(every);
        if start.plus(every).plus(self.keep()) <= self.now {
            self.too_late += 1;
            return;
        }
        let span = self.spans.entry(start).or_default();
        let known = span.windows.get(&summary.window);
        if known.is_some_and(|known| known.revision > summary.revision) {
            return;
        }
        if known.is_none() {
            self.held += 1;
        }
        let contribution = Contribution { revision: summary.revision, parts: parts(summary) };
        span.windows.insert(summary.window.clone(), contribution);
        span.changed = true;
    }

    /// Lets time pass: hands out the roll-ups that are due, first or revised, and forgets those that cannot change any more.
    pub fn on_tick(&mut self, now: Timestamp) -> Result<Vec<RollUp>, AggregateError> {
        self.now = self.now.max(now);
        let (every, lateness, keep) = (self.every(), self.config.lateness.get(), self.keep());
        let mut due: BTreeSet<Timestamp> = BTreeSet::new();
        let mut held = self.held;
        for (start, span) in &self.spans {
            // Past the bound the oldest closes early.
            let early = held > self.config.max_windows;
            if span.changed && (start.plus(every).plus(lateness) <= self.now || early) {
                due.insert(*start);
            }
            if early {
                held -= span.windows.len();
            }
        }
        let mut out = Vec::new();
        for start in due {
            out.extend(self.close(start)?);
        }
        let mut held = self.held;
        let (bound, now) = (self.config.max_windows, self.now);
        self.spans.retain(|start, span| {
            let stays = start.plus(every).plus(keep) > now && !(held > bound && span.closed);
            held -= if stays { 0 } else { span.windows.len() };
            stays
        });
        self.held = held;
        Ok(out)
    }

    /// Hands out everything that has changed.
    pub fn drain(&mut self) -> Result<Vec<RollUp>, AggregateError> {
        let due: Vec<Timestamp> = self.spans.iter().filter(|(_, span)| span.changed).map(|(start, _)| *start).collect();
        let mut out = Vec::new();
        for start in due {
            out.extend(self.close(start)?);
        }
        Ok(out)
    }

    /// Windows that came after their roll-up could still be revised.
    pub const fn too_late(&self) -> u64 {
        self.too_late
    }

    fn every(&self) -> Duration {
        self.config.every.get().max(Duration::from_micros(1))
    }

    fn keep(&self) -> Duration {
        self.config.lateness.get() + self.config.revise_for.get()
    }

    fn close(&mut self, start: Timestamp) -> Result<Vec<RollUp>, AggregateError> {
        let end = start.plus(self.every());
        let Some(span) = self.spans.get_mut(&start) else { return Ok(Vec::new()) };
        let parts: Vec<&Part> = span.windows.values().flat_map(|window| &window.parts).collect();
        let mut rollups = aggregate(&self.site, start, end, &parts)?;
        for rollup in &mut rollups {
            let next = span.revisions.entry(rollup.id.clone()).and_modify(|revision| *revision += 1).or_insert(0);
            rollup.revision = *next;
        }
        span.closed = true;
        span.changed = false;
        Ok(rollups)
    }
}

fn parts(summary: &Summary) -> Vec<Part> {
    let part = |field: &nearside_schemas::FieldSummary| Part {
        group: summary.group.clone(),
        field: field.name.clone(),
        // A stream's id is a hash already; 64 bits of it tell streams of a site apart.
        stream: summary.window.stream.bucket(usize::MAX) as u64,
        rows: field.count,
        min: field.min,
        max: field.max,
        mean: field.mean,
        findings: summary.findings.len() as u64,
    };
    summary.fields.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearside_schemas::{
        CloseCause, FieldSummary, HumanDuration, Quantiles, SetAsideCounts, StreamId, StreamName, Verdict,
        WindowDefinition,
    };

    fn summary(stream: u8, start: i64, revision: u32, mean: f64, count: u64) -> Summary {
        let quantiles = Quantiles { p05: mean, p25: mean, p50: mean, p75: mean, p95: mean };
        Summary {
            site: SiteId::new("s").unwrap(),
            stream: StreamName::new("air").unwrap(),
            group: "air".to_owned(),
            key: Default::default(),
            window: WindowId {
                stream: StreamId::from_bytes([stream; 16]),
                definition: WindowDefinition::new("10s").unwrap(),
                start: Timestamp::from_secs(start),
            },
            revision,
            end: Timestamp::from_secs(start + 10),
            cause: CloseCause::Watermark,
            rows: count,
            set_aside: SetAsideCounts::default(),
            fields: vec![FieldSummary {
                name: FieldName::new("pm25").unwrap(),
                unit: None,
                count,
                min: mean - 1.0,
                max: mean + 1.0,
                mean,
                std: 1.0,
                quantiles,
            }],
            texts: Vec::new(),
            findings: Vec::new(),
            verdict: Verdict::Judged,
            models: Vec::new(),
        }
    }

    fn rollups() -> RollUps {
        let config = RollUpConfig {
            every: HumanDuration::secs(60),
            lateness: HumanDuration::secs(10),
            revise_for: HumanDuration::secs(100),
            ..RollUpConfig::default()
        };
        RollUps::new(SiteId::new("s").unwrap(), config)
    }

    #[test]
    fn means_are_weighted_and_windows_count_once() {
        let mut rollups = rollups();
        rollups.on_summary(&summary(1, 0, 0, 10.0, 1));
        rollups.on_summary(&summary(2, 0, 0, 20.0, 3));
        rollups.on_summary(&summary(1, 10, 0, 0.0, 5));
        rollups.on_summary(&summary(1, 10, 1, 40.0, 4));
        assert!(rollups.on_tick(Timestamp::from_secs(69)).unwrap().is_empty(), "lateness is waited for");
        let out = rollups.on_tick(Timestamp::from_secs(70)).unwrap();
        assert_eq!(out.len(), 1);
        let one = &out[0];
        assert_eq!((one.streams, one.windows, one.rows, one.revision), (2, 3, 8, 0));
        assert!((one.mean - (10.0 + 60.0 + 160.0) / 8.0).abs() < 1e-12);
        assert_eq!((one.min, one.max), (9.0, 41.0));
        assert!(rollups.on_tick(Timestamp::from_secs(71)).unwrap().is_empty(), "handed out once");
    }

    #[test]
    fn a_late_window_makes_a_revision_and_a_very_late_one_is_counted() {
        let mut rollups = rollups();
        rollups.on_summary(&summary(1, 0, 0, 10.0, 4));
        assert_eq!(rollups.on_tick(Timestamp::from_secs(70)).unwrap().len(), 1);
        rollups.on_summary(&summary(2, 20, 0, 30.0, 4));
        let out = rollups.on_tick(Timestamp::from_secs(80)).unwrap();
        assert_eq!((out[0].revision, out[0].rows), (1, 8));
        rollups.on_tick(Timestamp::from_secs(170)).unwrap();
        rollups.on_summary(&summary(3, 20, 0, 30.0, 4));
        assert_eq!(rollups.too_late(), 1);
        assert!(rollups.drain().unwrap().is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut rollups = rollups();
        rollups.config.max_windows = 10;
        let mut out = 0;
        for n in 0..100 {
            rollups.on_summary(&summary(1, n * 10, 0, 1.0, 4));
            out += rollups.on_tick(Timestamp::from_secs(0)).unwrap().len();
            assert!(rollups.held <= 20, "{}", rollups.held);
        }
        assert!(out > 10);
    }
}
