//! Telling that nothing comes from the stream any more.
//!
//! Promise: silence is told once, until something comes; at the same time in every run (promise I5).
//! Never: the time in which the gateway was away counts as the stream's silence.

use nearside_schemas::{Finding, HumanDuration, ModelName, ModelRef, Nth, Severity, Timestamp};

use super::StreamComponent;
use crate::stream::outputs::Outputs;
use crate::stream::silence::SILENT;

/// What stands for a model in such findings: no model is asked.
const BY: &str = "silence";

impl StreamComponent {
    /// When it is told as silent, where nothing comes until then.
    pub(super) fn silent_at(&self) -> Option<Timestamp> {
        let after = self.plan.silent_after?;
        let waits = !self.silence.is_told && !self.parked && self.silence.since > Timestamp::MIN;
        waits.then(|| self.silence.since.plus(after))
    }

    /// The gateway has been awake since then.
    pub fn awake_since(&mut self, since: Timestamp) {
        self.silence.counts_from(since);
    }

    /// Tells that it is silent where its time has come. Where the clock has gone back, silence counts from now on.
    pub(super) fn tell_silence(&mut self, now: Timestamp, has_gone_back: bool, out: &mut Outputs) {
        if has_gone_back {
            self.silence.since = self.silence.since.min(now);
        }
        let (Some(at), Some(after)) = (self.silent_at().filter(|at| *at <= now), self.plan.silent_after) else {
            return;
        };
        self.silence.is_told = true;
        let Ok(name) = ModelName::new(BY) else { return };
        let finding = Finding {
            window: self.windows.primary_window(at),
            model: ModelRef { name, version: "1".into() },
            label: SILENT.to_owned(),
            field: None,
            nth: Nth::FIRST,
            severity: Severity::Warning,
            since: self.silence.since,
            at,
            rows: 0,
            score: 1.0,
            threshold: 1.0,
            contributions: Vec::new(),
            text: format!("nothing has come for {}", HumanDuration(after)),
        };
        // It is told once until something comes, so each is another one.
        self.raise(finding, true, out);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stream::component_tests::{plan, reading, stream_of};

    fn stream() -> StreamComponent {
        let mut plan = plan(0, 5);
        plan.silent_after = Some(Duration::from_secs(60));
        stream_of(plan)
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    /// When each finding that a tick brings about was, in seconds.
    fn tick(stream: &mut StreamComponent, secs: i64) -> Vec<i64> {
        let mut out = Outputs::default();
        stream.on_tick(at(secs), true, &mut out);
        out.raised.iter().for_each(|raised| assert_eq!(raised.finding.label, SILENT));
        out.raised.iter().map(|raised| raised.finding.at.as_micros() / 1_000_000).collect()
    }

    #[test]
    fn silence_is_told_once_until_something_comes() {
        let mut stream = stream();
        assert!(tick(&mut stream, 1_000).is_empty(), "nothing ever came");
        stream.on_reading(reading(2_000, 1.0), &mut Outputs::default());
        assert!(tick(&mut stream, 2_059).is_empty());
        assert_eq!(tick(&mut stream, 2_075), [2_060], "at its own time, whenever time is looked at");
        assert!(tick(&mut stream, 3_000).is_empty() && stream.next_deadline().is_none());
        stream.on_reading(reading(4_000, 1.0), &mut Outputs::default());
        assert_eq!(tick(&mut stream, 4_060), [4_060]);
    }

    #[test]
    fn a_gateway_that_was_away_has_heard_nobody() {
        let mut stream = stream();
        stream.on_reading(reading(0, 1.0), &mut Outputs::default());
        stream.awake_since(at(500));
        assert!(tick(&mut stream, 500).is_empty());
        assert_eq!(stream.next_deadline(), Some(at(560)));
        assert_eq!(tick(&mut stream, 560), [560]);
    }

    #[test]
    fn where_the_clock_goes_back_silence_counts_from_then() {
        let mut stream = stream();
        stream.on_reading(reading(10_000, 1.0), &mut Outputs::default());
        assert_eq!(stream.anchor(), Some(at(10_000)));
        assert!(tick(&mut stream, 100).is_empty());
        assert_eq!(tick(&mut stream, 160), [160]);
    }

    #[test]
    fn what_was_told_is_known_after_a_rest() {
        let mut stream = stream();
        stream.on_reading(reading(0, 1.0), &mut Outputs::default());
        // The window is over, and nothing else waits.
        assert!(tick(&mut stream, 59).is_empty());
        let again = |stream: &StreamComponent| {
            let state = stream.snapshot();
            (state.deadline, StreamComponent::restore(stream.plan.clone(), stream.id, stream.key.clone(), &state).0)
        };
        let (deadline, mut rested) = again(&stream);
        assert_eq!(deadline, Some(at(60)));
        assert_eq!(tick(&mut rested, 61), [60]);
        let (deadline, mut rested) = again(&rested);
        assert!(deadline.is_none() && tick(&mut rested, 1_000).is_empty());
    }
}
