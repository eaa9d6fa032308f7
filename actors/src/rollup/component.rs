//! The roll-up component: summaries and ticks in, roll-ups out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use nearside_schemas::{FieldName, RollUp, RollUpId, SiteId, Summary, Timestamp, WindowId};
use nearside_window::CLOCK_SLACK;
use serde::{Deserialize, Serialize};

use super::aggregate::{AggregateError, aggregate};
use super::saved::{self, SavedRollUps};
use crate::config::RollUpConfig;
use crate::fence::fenced;

/// What a roll-up needs of one field of one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Contribution {
    revision: u32,
    parts: Vec<Part>,
}

/// The windows of one roll-up's span.
pub(super) struct Span {
    pub(super) windows: BTreeMap<WindowId, Contribution>,
    pub(super) closed: bool,
    /// Windows came since it was last handed out.
    pub(super) changed: bool,
    pub(super) revisions: BTreeMap<RollUpId, u32>,
    /// What it waits from where it lies ahead of the clock: the first tick since its last window came. Where the clock goes back, that
    /// tick. The end of time until there is one, so that after a start it waits anew.
    anchor: Timestamp,
}

impl Default for Span {
    fn default() -> Self {
        Self {
            windows: BTreeMap::new(),
            closed: false,
            changed: false,
            revisions: BTreeMap::new(),
            anchor: Timestamp::MAX,
        }
    }
}

impl Span {
    /// Whether this much time is over since its end. Who lies wholly ahead of the clock, for it has gone back, does not wait until the clock
    /// has caught up: then time counts from the anchor.
    fn is_over(&self, start: Timestamp, every: Duration, patience: Duration, now: Timestamp) -> bool {
        let from = if start > now { self.anchor.min(start) } else { start };
        from.plus(every).plus(patience) <= now
    }
}

/// Revisions rise by this much at each start of the gateway for spans that may have been handed out before: what was sent
/// before a crash can then never have the number of something else that is sent after it.
const REVISIONS_A_START: u32 = 1_000;
/// How long the parts of a span stay in checkpoints after the span is over. Longer than any stream's state is behind, so that replay
/// meets whole spans.
const PARTS_STAY: Duration = Duration::from_secs(1_800);
/// So many of the spans forgotten last are known by their start: one that the clock meets again, for it has gone back, must not be handed
/// out as if it were new, with what comes late alone.
const FORGOTTEN: usize = 1_024;

/// What came out of a step.
#[derive(Debug, Default)]
pub struct HandedOut {
    /// The roll-ups.
    pub rollups: Vec<RollUp>,
    /// One for each that could not be computed.
    pub faults: Vec<AggregateError>,
}

/// Roll-ups in the making.
pub struct RollUps {
    site: SiteId,
    config: RollUpConfig,
    spans: BTreeMap<Timestamp, Span>,
    held: usize,
    too_late: u64,
    /// The last tick; one that is earlier by less than the clock's slack does not count.
    now: Timestamp,
    /// Starts of the spans that were forgotten last.
    forgotten: VecDeque<Timestamp>,
    /// Windows and spans that changed since they were last saved.
    unsaved: BTreeSet<(Timestamp, Option<WindowId>)>,
    /// What was given to be saved and is not known to be on disk: as `unsaved`, and names of parts to remove.
    saving: (BTreeSet<(Timestamp, Option<WindowId>)>, Vec<String>),
    /// Names of saved parts of spans that are over, and when that was.
    over: VecDeque<(Timestamp, String)>,
    /// The least revision of spans that begin before `restarted_at`.
    least_revision: u32,
    restarted_at: Timestamp,
}

impl RollUps {
    /// Roll-ups of a site.
    pub const fn new(site: SiteId, config: RollUpConfig) -> Self {
        Self {
            site,
            config,
            spans: BTreeMap::new(),
            held: 0,
            too_late: 0,
            now: Timestamp::MIN,
            forgotten: VecDeque::new(),
            unsaved: BTreeSet::new(),
            saving: (BTreeSet::new(), Vec::new()),
            over: VecDeque::new(),
            least_revision: 0,
            restarted_at: Timestamp::MIN,
        }
    }

    /// Holds again what was saved; `starts` is how often the gateway has started, this time included. Gives back how many parts
    /// could not be read.
    pub fn restore(&mut self, parts: &[(String, Vec<u8>)], starts: u64) -> u64 {
        let (spans, damaged) = saved::load(parts);
        self.held = spans.values().map(|span| span.windows.len()).sum();
        self.spans = spans;
        let earlier = u32::try_from(starts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.least_revision = earlier.saturating_mul(REVISIONS_A_START);
        self.restarted_at = Timestamp::MAX;
        damaged
    }

    /// Another configuration from here on. Spans of another length end as they are.
    pub fn reload(&mut self, config: RollUpConfig) {
        self.config = config;
    }

    /// Replay is over: spans that begin from now on were never handed out.
    pub fn restored(&mut self) {
        self.restarted_at = self.now;
    }

    /// What [`RollUps::save`] gave last is on disk.
    pub fn saved(&mut self) {
        self.saving = Default::default();
    }

    /// What changed since what is on disk.
    pub fn save(&mut self) -> SavedRollUps {
        let mut changes = SavedRollUps::default();
        // What was given before and did not get there is given again.
        let (unsaved, removed) = std::mem::take(&mut self.saving);
        self.unsaved.extend(unsaved);
        changes.remove = removed;
        self.saving.0 = self.unsaved.clone();
        for (start, window) in std::mem::take(&mut self.unsaved) {
            let Some(span) = self.spans.get(&start) else { continue };
            let (name, part) = match window {
                Some(id) => {
                    let Some(contribution) = span.windows.get(&id) else { continue };
                    (saved::window_name(start, &id), saved::Part::Window(id, contribution.clone()))
                }
                None => (saved::span_name(start), saved::Part::of_span(span)),
            };
            changes.put.extend(part.encode().map(|bytes| (name, bytes)));
        }
        // As long as a window of theirs may still come, also by a clock that has gone back.
        let stay = PARTS_STAY.max(self.every() + self.keep());
        while self.over.front().is_some_and(|(at, _)| at.plus(stay) <= self.now) {
            changes.remove.extend(self.over.pop_front().map(|(_, name)| name));
        }
        self.saving.1 = changes.remove.clone();
        changes
    }

    /// Takes a summary in. Windows are put where their last instant lies.
    pub fn on_summary(&mut self, summary: &Summary) {
        let every = self.every();
        let start = summary.end.minus(Duration::from_micros(1)).floor(every);
        let is_forgotten = || !self.spans.contains_key(&start) && self.forgotten.contains(&start);
        if start.plus(every).plus(self.keep()) <= self.now || is_forgotten() {
            self.too_late += 1;
            return;
        }
        let span = self.spans.entry(start).or_default();
        span.anchor = Timestamp::MAX;
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
        self.unsaved.insert((start, Some(summary.window.clone())));
        self.unsaved.insert((start, None));
    }

    /// Lets time pass: hands out the roll-ups that are due, first or revised, and forgets those that cannot change any more. Where the
    /// clock has gone back, whatever waits does so from now on.
    pub fn on_tick(&mut self, now: Timestamp) -> HandedOut {
        self.let_time_pass(now);
        let (every, lateness, keep) = (self.every(), self.config.lateness.get(), self.keep());
        let mut due: BTreeSet<Timestamp> = BTreeSet::new();
        let mut held = self.held;
        for (start, span) in &self.spans {
            // Past the bound the oldest closes early.
            let early = held > self.config.max_windows;
            if span.changed && (span.is_over(*start, every, lateness, self.now) || early) {
                due.insert(*start);
            }
            if early {
                held -= span.windows.len();
            }
        }
        let out = self.close_all(due);
        let mut held = self.held;
        let (bound, now, over, forgotten) = (self.config.max_windows, self.now, &mut self.over, &mut self.forgotten);
        self.spans.retain(|start, span| {
            let goes = span.is_over(*start, every, keep, now) || (held > bound && span.closed);
            if goes {
                held -= span.windows.len();
                forgotten.push_back(*start);
                over.extend(span.windows.keys().map(|window| (now, saved::window_name(*start, window))));
                over.push_back((now, saved::span_name(*start)));
            }
            !goes
        });
        self.held = held;
        self.forgotten.drain(..self.forgotten.len().saturating_sub(FORGOTTEN));
        out
    }

    fn let_time_pass(&mut self, now: Timestamp) {
        let has_gone_back = now.plus(CLOCK_SLACK) < self.now;
        self.now = if has_gone_back { now } else { self.now.max(now) };
        let now = self.now;
        self.spans.values_mut().for_each(|span| span.anchor = span.anchor.min(now));
        if has_gone_back {
            self.over.iter_mut().for_each(|(at, _)| *at = now.min(*at));
        }
    }

    /// Hands out everything that has changed.
    pub fn drain(&mut self) -> HandedOut {
        let due: Vec<Timestamp> = self.spans.iter().filter(|(_, span)| span.changed).map(|(start, _)| *start).collect();
        self.close_all(due)
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

    /// One that cannot be computed costs itself, until another window comes for it.
    fn close_all(&mut self, due: impl IntoIterator<Item = Timestamp>) -> HandedOut {
        let mut out = HandedOut::default();
        for start in due {
            match self.close(start) {
                Ok(rollups) => out.rollups.extend(rollups),
                Err(fault) => out.faults.push(fault),
            }
        }
        out
    }

    fn close(&mut self, start: Timestamp) -> Result<Vec<RollUp>, AggregateError> {
        let end = start.plus(self.every());
        let Some(span) = self.spans.get_mut(&start) else { return Ok(Vec::new()) };
        (span.closed, span.changed) = (true, false);
        self.unsaved.insert((start, None));
        let parts: Vec<&Part> = span.windows.values().flat_map(|window| &window.parts).collect();
        let computed = fenced(|| aggregate(&self.site, start, end, &parts));
        let mut rollups = computed.unwrap_or(Err(AggregateError::Panicked))?;
        let least = if start < self.restarted_at { self.least_revision } else { 0 };
        for rollup in &mut rollups {
            let last = span.revisions.get(&rollup.id);
            rollup.revision = last.map_or(0, |last| last + 1).max(least);
            span.revisions.insert(rollup.id.clone(), rollup.revision);
        }
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
            hidden_fields: Vec::new(),
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
        assert!(rollups.on_tick(Timestamp::from_secs(69)).rollups.is_empty(), "lateness is waited for");
        let out = rollups.on_tick(Timestamp::from_secs(70)).rollups;
        assert_eq!(out.len(), 1);
        let one = &out[0];
        assert_eq!((one.streams, one.windows, one.rows, one.revision), (2, 3, 8, 0));
        assert!((one.mean - (10.0 + 60.0 + 160.0) / 8.0).abs() < 1e-12);
        assert_eq!((one.min, one.max), (9.0, 41.0));
        assert!(rollups.on_tick(Timestamp::from_secs(71)).rollups.is_empty(), "handed out once");
    }

    #[test]
    fn a_late_window_makes_a_revision_and_a_very_late_one_is_counted() {
        let mut rollups = rollups();
        rollups.on_summary(&summary(1, 0, 0, 10.0, 4));
        assert_eq!(rollups.on_tick(Timestamp::from_secs(70)).rollups.len(), 1);
        rollups.on_summary(&summary(2, 20, 0, 30.0, 4));
        let out = rollups.on_tick(Timestamp::from_secs(80)).rollups;
        assert_eq!((out[0].revision, out[0].rows), (1, 8));
        rollups.on_tick(Timestamp::from_secs(170));
        rollups.on_summary(&summary(3, 20, 0, 30.0, 4));
        assert_eq!(rollups.too_late(), 1);
        assert!(rollups.drain().rollups.is_empty());
    }

    /// What came out, by start and number of windows.
    fn seen(out: Vec<RollUp>) -> Vec<(i64, u64)> {
        out.iter().map(|one| (one.id.start.as_micros() / 1_000_000, one.windows)).collect()
    }

    #[test]
    fn after_the_clock_was_ahead_the_spans_of_the_right_time_come_in_their_time() {
        let (mut rollups, hour) = (rollups(), 3_600);
        let tick = |rollups: &mut RollUps, at: i64| seen(rollups.on_tick(Timestamp::from_secs(at)).rollups);
        rollups.on_summary(&summary(1, 0, 0, 10.0, 4));
        assert!(tick(&mut rollups, 30).is_empty());
        // An hour ahead, for a while: the span is over by that clock; rows that bear the time of receipt are of that time too.
        assert_eq!(tick(&mut rollups, hour), [(0, 1)]);
        rollups.on_summary(&summary(2, hour, 0, 10.0, 4));
        assert!(tick(&mut rollups, hour + 20).is_empty());
        assert!(tick(&mut rollups, 50).is_empty());
        rollups.on_summary(&summary(1, 10, 0, 10.0, 4));
        assert_eq!(
            rollups.too_late(),
            1,
            "its span was handed out and forgotten: it is not handed out again with this alone"
        );
        rollups.on_summary(&summary(1, 60, 0, 10.0, 4));
        assert_eq!(rollups.too_late(), 1);
        // What lies ahead waits from the clock's going back on, as long as it would have.
        assert!(tick(&mut rollups, 119).is_empty());
        assert_eq!(tick(&mut rollups, 120), [(hour, 1)]);
        assert_eq!(tick(&mut rollups, 130), [(60, 1)], "not an hour later");
        rollups.on_summary(&summary(3, hour + 10, 0, 10.0, 4));
        assert!(tick(&mut rollups, 140).is_empty());
        assert_eq!(tick(&mut rollups, 210), [(hour, 2)], "a window that closed late revises it");
        assert!(rollups.spans.contains_key(&Timestamp::from_secs(hour)));
        assert!(tick(&mut rollups, 310).is_empty());
        assert!(rollups.spans.is_empty(), "it is not kept until the clock has caught up");
        assert_eq!(rollups.save().remove.len(), 0, "parts stay as long as by a right clock");
        assert!(tick(&mut rollups, 310 + 1_800).is_empty());
        assert_eq!(rollups.save().remove.len(), 7, "four windows and three spans");
    }

    #[test]
    fn while_the_clock_is_behind_the_spans_of_devices_do_not_wait_for_it() {
        let (mut rollups, hour) = (rollups(), 3_600);
        let tick = |rollups: &mut RollUps, at: i64| seen(rollups.on_tick(Timestamp::from_secs(at)).rollups);
        assert!(tick(&mut rollups, hour).is_empty());
        rollups.on_summary(&summary(1, hour, 0, 10.0, 4));
        assert!(tick(&mut rollups, hour).is_empty());
        // Back by an hour. The devices' own clock goes on.
        assert!(tick(&mut rollups, 10).is_empty());
        rollups.on_summary(&summary(1, hour + 10, 0, 10.0, 4));
        assert!(tick(&mut rollups, 20).is_empty());
        assert_eq!(tick(&mut rollups, 90), [(hour, 2)]);
        // Stamped by another thread a moment before: that is no clock that goes back.
        rollups.on_summary(&summary(1, 60, 0, 10.0, 4));
        assert!(tick(&mut rollups, 129).is_empty());
        assert_eq!(tick(&mut rollups, 130), [(60, 1)]);
        assert!(rollups.on_tick(Timestamp::from_micros(129_500_000)).rollups.is_empty());
        assert_eq!(rollups.now, Timestamp::from_secs(130));
    }

    #[test]
    fn a_start_knows_no_anchor_and_waits_anew() {
        let mut before = rollups();
        before.on_tick(Timestamp::from_secs(3_600));
        before.on_summary(&summary(1, 3_600, 0, 10.0, 4));
        before.on_tick(Timestamp::from_secs(10));
        let mut after = rollups();
        assert_eq!(after.restore(&before.save().put, 2), 0);
        for (at, out) in [(75, 0), (144, 0), (145, 1)] {
            assert_eq!(after.on_tick(Timestamp::from_secs(at)).rollups.len(), out, "{at}");
        }
    }

    /// I3: what Polars panics on costs its own roll-up.
    #[test]
    fn a_roll_up_that_panics_costs_no_other_and_is_not_tried_again_and_again() {
        let mut rollups = rollups();
        let poison = Summary { group: "poison".to_owned(), ..summary(1, 60, 0, 10.0, 4) };
        [summary(1, 0, 0, 10.0, 4), poison, summary(1, 120, 0, 10.0, 4)].iter().for_each(|one| rollups.on_summary(one));
        let out = rollups.on_tick(Timestamp::from_secs(200));
        assert_eq!((seen(out.rollups), out.faults.len()), (vec![(0, 1), (120, 1)], 1));
        let out = rollups.on_tick(Timestamp::from_secs(201));
        assert!(out.rollups.is_empty() && out.faults.is_empty());
        rollups.on_tick(Timestamp::from_secs(1_000));
        assert_eq!(rollups.held, 0, "and it is forgotten in its time");
    }

    #[test]
    fn a_restart_goes_on_with_what_was_saved_and_gives_no_revision_twice() {
        let mut before = rollups();
        before.on_summary(&summary(1, 0, 0, 10.0, 4));
        // What did not get to the disk is given again.
        assert_eq!(before.save().put, before.save().put);
        let mut parts: BTreeMap<String, Vec<u8>> = before.save().put.into_iter().collect();
        before.saved();
        before.on_summary(&summary(2, 0, 0, 30.0, 4));
        let sent = before.on_tick(Timestamp::from_secs(70)).rollups;
        // It stops here. What came since the last save is replayed, in another order.
        let mut after = rollups();
        assert_eq!(after.restore(&parts.clone().into_iter().collect::<Vec<_>>(), 2), 0);
        let out = after.on_tick(Timestamp::from_secs(70)).rollups;
        assert_eq!((out[0].rows, out[0].revision), (4, 1_000), "a revision of its own, whatever is in it");
        after.on_summary(&summary(2, 0, 0, 30.0, 4));
        let out = after.on_tick(Timestamp::from_secs(71)).rollups;
        assert_eq!((out[0].rows, out[0].mean, out[0].revision), (8, sent[0].mean, 1_001));
        after.restored();
        after.on_summary(&summary(1, 120, 0, 10.0, 4));
        assert_eq!(after.on_tick(Timestamp::from_secs(200)).rollups[0].revision, 0);
        // What is over is not saved again; it goes some time later, with all its parts.
        parts.extend(after.save().put);
        assert_eq!(parts.len(), 4, "a span with a window saved before, and a span with its window");
        after.on_tick(Timestamp::from_secs(10_000));
        after.on_tick(Timestamp::from_secs(20_000));
        assert_eq!(after.save().remove.len(), 5);
    }

    #[test]
    fn it_is_bounded() {
        let mut rollups = rollups();
        rollups.config.max_windows = 10;
        let mut out = 0;
        for n in 0..100 {
            rollups.on_summary(&summary(1, n * 10, 0, 1.0, 4));
            out += rollups.on_tick(Timestamp::from_secs(0)).rollups.len();
            assert!(rollups.held <= 20, "{}", rollups.held);
        }
        assert!(out > 10);
    }
}
