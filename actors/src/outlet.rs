//! The outlet: hands on what streams give back, to seal, rules and roll-up, and counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nearside_privacy::{KeyRing, shown_key};
use nearside_schemas::{CloseCause, SetAsideCounts, SetAsideReason, Summary, Verdict};
use nearside_telemetry::{Counter, Gauge, Metric, Telemetry};
use parking_lot::Mutex;

use crate::board::{Board, PostedFinding};
use crate::fence::fenced;
use crate::recall::Recall;
use crate::rollup::RollUpMessage;
use crate::rules::Origin;
use crate::rules_stage::RulesMessage;
use crate::seal::SealMessage;
use crate::stage::StageSender;
use crate::stream::{Outputs, Raised, StreamComponent, StreamPlan};

/// How many streams of a definition are something, as one middle counts them: where another takes its place, its own go from the gauge
/// and theirs come to it, in whatever order.
struct StreamCount {
    gauge: Gauge,
    /// `None` once the middle has ended: its actors may still say something.
    own: Mutex<Option<i64>>,
}

impl StreamCount {
    const fn new(gauge: Gauge) -> Self {
        Self { gauge, own: Mutex::new(Some(0)) }
    }

    fn add(&self, change: i64) {
        if let Some(own) = &mut *self.own.lock() {
            *own += change;
            self.gauge.inc_by(change as f64);
        }
    }

    fn get(&self) -> u64 {
        self.own.lock().map_or(0, |own| own.try_into().unwrap_or(0))
    }

    fn end(&self) {
        if let Some(own) = self.own.lock().take() {
            self.gauge.dec_by(own as f64);
        }
    }
}

/// The handles of one definition's metrics.
struct DefinitionMetrics {
    name: String,
    set_aside: Vec<Counter>,
    /// Whether it was said that rows are set aside because of their time.
    has_warned: AtomicBool,
    closed: Vec<(CloseCause, Counter)>,
    unjudged: Counter,
    active: StreamCount,
    retired: Counter,
    parked: Counter,
    parked_now: StreamCount,
    withheld: Counter,
    panics: Counter,
    lost_state: Counter,
}

/// Figures of one definition.
pub struct Figures {
    /// Its name.
    pub name: String,
    /// Readings set aside, by reason.
    pub set_aside: SetAsideCounts,
    /// Windows closed.
    pub windows: u64,
    /// Streams with an actor.
    pub active: u64,
    /// Streams that were given up after too many panics.
    pub parked: u64,
}

/// The causes with their labels.
const CAUSES: [(CloseCause, &str); 5] = [
    (CloseCause::Watermark, "watermark"),
    (CloseCause::Full, "full"),
    (CloseCause::Idle, "idle"),
    (CloseCause::Drain, "drain"),
    (CloseCause::Revision, "revision"),
];

/// What stands behind the streams.
pub struct Downstream {
    /// Seals findings and summaries.
    pub seal: StageSender<SealMessage>,
    /// Evaluates rules.
    pub rules: StageSender<RulesMessage>,
    /// Whether any rule looks at summaries.
    pub rules_want_summaries: bool,
    /// Puts summaries together, where there are roll-ups.
    pub rollup: Option<StageSender<RollUpMessage>>,
    /// Shows the last findings.
    pub board: Arc<Board>,
    /// For what is shown of keys there.
    pub keys: Arc<KeyRing>,
    /// Sets messages aside that panicked.
    pub recall: Recall,
}

/// Where streams hand on what they have.
pub struct Outlet {
    definitions: Vec<DefinitionMetrics>,
    /// Whether findings panic it.
    #[cfg(test)]
    pub(crate) is_poisoned: bool,
    telemetry: Telemetry,
    to: Downstream,
}

impl Outlet {
    /// An outlet for these definitions.
    pub fn new(plans: &[Arc<StreamPlan>], telemetry: &Telemetry, to: Downstream) -> Self {
        let definitions = plans.iter().map(|plan| DefinitionMetrics::new(plan.spec.name.as_str(), telemetry)).collect();
        Self {
            definitions,
            #[cfg(test)]
            is_poisoned: false,
            telemetry: telemetry.clone(),
            to,
        }
    }

    /// Hands on and counts what a stream gave back, leaving nothing of it in `outputs`. Each finding and summary goes behind a fence of its
    /// own; gives back how many panicked. The rows of such a summary are counted as set aside.
    #[must_use]
    pub fn publish(&self, component: &StreamComponent, outputs: &mut Outputs) -> u32 {
        let plan = component.plan();
        let metrics = &self.definitions[plan.index];
        for reason in outputs.set_aside.drain(..) {
            metrics.set_aside[reason as usize].inc();
        }
        if let Some(skew) = outputs.skew.take()
            && !metrics.has_warned.swap(true, Ordering::Relaxed)
        {
            let hint = skew.hint(plan.spec.timestamp.as_ref());
            tracing::warn!(definition = %plan.spec.name, %hint, "rows are set aside because of their time (said once)");
        }
        for cause in outputs.closed.drain(..) {
            if let Some((_, counter)) = metrics.closed.iter().find(|(known, _)| *known == cause) {
                counter.inc();
            }
        }
        for (record, part) in outputs.poison.drain(..) {
            self.to.recall.set_aside(record, &plan.spec.name, part);
        }
        if outputs.panics > 0 {
            metrics.panics.inc_by(u64::from(std::mem::take(&mut outputs.panics)));
            if std::mem::take(&mut outputs.parked) {
                metrics.parked.inc();
                metrics.parked_now.add(1);
                tracing::error!(stream = %component.id(), definition = %plan.spec.name, "a stream was parked after too many panics");
            }
        }
        metrics.withheld.inc_by(std::mem::take(&mut outputs.withheld));
        let mut panics = 0;
        for raised in outputs.raised.drain(..) {
            panics += u32::from(fenced(|| self.raise(component, raised)).is_err());
        }
        for summary in outputs.summaries.drain(..) {
            let rows = summary.rows;
            if fenced(|| self.hand_on(component, summary, metrics)).is_err() {
                panics += 1;
                metrics.set_aside[SetAsideReason::Panicked as usize].inc_by(rows);
            }
        }
        panics
    }

    fn raise(&self, component: &StreamComponent, raised: Raised) {
        #[cfg(test)]
        assert!(!self.is_poisoned, "the poison");
        let spec = &component.plan().spec;
        let finding = &raised.finding;
        let severity = finding.severity.to_string();
        self.telemetry.counter(Metric::Findings, &[spec.name.as_str(), &finding.label, &severity]).inc();
        let key = shown_key(component.key(), spec, &self.to.keys);
        let key = key.into_iter().map(|(name, shown)| (name.clone(), shown)).collect();
        let posted = PostedFinding { stream: spec.name.clone(), key, finding: finding.clone(), opinion: None };
        self.to.board.post_finding(posted);
        let finding = Arc::new(finding.clone());
        let origin = Origin { spec: spec.clone(), key: component.key().clone() };
        let at = component.heard_at();
        let record = component.at_hand();
        self.to.rules.send(RulesMessage::Finding { raised: Box::new(raised), origin, at, record });
        self.to.seal.send(SealMessage::Finding {
            finding,
            key: component.key().clone(),
            plan: component.plan().clone(),
        });
    }

    fn hand_on(&self, component: &StreamComponent, summary: Summary, metrics: &DefinitionMetrics) {
        if matches!(summary.verdict, Verdict::Unjudged { .. }) {
            metrics.unjudged.inc();
        }
        let summary = Arc::new(summary);
        if self.to.rules_want_summaries {
            let origin = Origin { spec: component.plan().spec.clone(), key: component.key().clone() };
            let at = component.heard_at();
            let record = component.at_hand();
            self.to.rules.send(RulesMessage::Summary { summary: summary.clone(), origin, at, record });
        }
        if let Some(rollup) = &self.to.rollup
            && component.plan().windows.counts_once(&summary.window)
        {
            rollup.send(RollUpMessage::Summary(summary.clone()));
        }
        self.to.seal.send(SealMessage::Summary { summary, plan: component.plan().clone() });
    }

    /// Counts readings that were set aside before or beside a stream.
    pub fn set_aside(&self, definition: usize, reason: SetAsideReason, count: u64) {
        self.definitions[definition].set_aside[reason as usize].inc_by(count);
    }

    /// Whether nothing of a definition was set aside for this reason before.
    pub fn is_first_set_aside(&self, definition: usize, reason: SetAsideReason) -> bool {
        self.definitions[definition].set_aside[reason as usize].get() == 0
    }

    /// A stream that was parked in an earlier run is there.
    pub fn stream_parked(&self, definition: usize) {
        self.definitions[definition].parked_now.add(1);
    }

    /// A stream got an actor.
    pub fn stream_started(&self, definition: usize) {
        self.definitions[definition].active.add(1);
    }

    /// Its streams are another's from now on, or nobody's.
    pub fn end(&self) {
        for metrics in &self.definitions {
            metrics.active.end();
            metrics.parked_now.end();
        }
    }

    /// A stream gave up its actor.
    pub fn stream_retired(&self, definition: usize) {
        let metrics = &self.definitions[definition];
        metrics.active.add(-1);
        metrics.retired.inc();
    }

    /// Whether no stream has an actor.
    pub(crate) fn all_rest(&self) -> bool {
        self.definitions.iter().all(|metrics| metrics.active.get() == 0)
    }

    /// Parts of kept state that could not be read back.
    pub fn state_lost(&self, parts: u32) {
        if parts > 0
            && let Some(metrics) = self.definitions.first()
        {
            metrics.lost_state.inc_by(u64::from(parts));
            tracing::warn!(parts, "kept state of a stream could not be read and starts anew");
        }
    }

    /// The figures of each definition, for the console.
    pub fn figures(&self) -> Vec<Figures> {
        let figures = |metrics: &DefinitionMetrics| {
            let mut set_aside = SetAsideCounts::default();
            for (reason, counter) in SetAsideReason::ALL.iter().zip(&metrics.set_aside) {
                set_aside.add(*reason, counter.get());
            }
            Figures {
                name: metrics.name.clone(),
                set_aside,
                windows: metrics.closed.iter().map(|(_, counter)| counter.get()).sum(),
                active: metrics.active.get(),
                parked: metrics.parked_now.get(),
            }
        };
        self.definitions.iter().map(figures).collect()
    }
}

impl DefinitionMetrics {
    fn new(name: &str, telemetry: &Telemetry) -> Self {
        let active = StreamCount::new(telemetry.gauge(Metric::Streams, &[name]));
        let parked_now = StreamCount::new(telemetry.gauge(Metric::StreamsParkedNow, &[name]));
        let reasons = SetAsideReason::ALL.iter();
        Self {
            name: name.to_owned(),
            set_aside: reasons.map(|reason| telemetry.counter(Metric::SetAside, &[name, reason.label()])).collect(),
            has_warned: AtomicBool::new(false),
            closed: CAUSES
                .iter()
                .map(|(cause, label)| (*cause, telemetry.counter(Metric::WindowsClosed, &[name, label])))
                .collect(),
            unjudged: telemetry.counter(Metric::Unjudged, &[name]),
            active,
            retired: telemetry.counter(Metric::StreamsRetired, &[name]),
            parked: telemetry.counter(Metric::StreamsParked, &[name]),
            parked_now,
            withheld: telemetry.counter(Metric::FindingsWithheld, &[name]),
            panics: telemetry.counter(Metric::StreamPanics, &["stream"]),
            lost_state: telemetry.counter(Metric::StreamPanics, &["restore"]),
        }
    }
}
