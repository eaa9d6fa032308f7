//! What operators say of findings moves thresholds within bounds, by the order of the journal alone (promise I5), and never where patients are
//! judged.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use common::{ID, new_stream, plan};
use nearside_actors::stream::{MOST_STEPS, Outputs, PlannedModel, StreamComponent, StreamPlan};
use nearside_journal::Lsn;
use nearside_models::ModelError;
use nearside_models::row_model::{Row, RowModel, RowState, RowVerdict};
use nearside_schemas::{
    Feedback, FeedbackOutcome, FieldSpec, FieldValue, Finding, FindingTag, KeyValues, ModelName, ModelRef, Opinion,
    Reading, Timestamp, Values,
};

const DAY: i64 = 86_400;

/// One stream, its rows numbered from 0, one a minute.
struct Driven {
    stream: StreamComponent,
    row: i64,
    now: i64,
    out: Outputs,
}

impl Driven {
    fn new(plan: &Arc<StreamPlan>) -> Self {
        Self { stream: new_stream(plan), row: 0, now: 1_700_000_000, out: Outputs::default() }
    }

    fn push(&mut self, value: f64) {
        let at = Timestamp::from_secs(self.now);
        let values = Values::from_iter([FieldValue::Number(value)]);
        let record = Some(Lsn(self.row as u64));
        self.stream.on_reading_of(record, Reading { time: at, received: at, sequence: None, values }, &mut self.out);
        self.row += 1;
        self.now += 60;
    }

    /// What an ordinary sensor says, then one value that is this much above it. Gives the finding, if there is one.
    fn spike(&mut self, above: f64) -> Option<Finding> {
        for _ in 0..70 {
            self.push(20.0 + (self.row % 10) as f64 / 10.0);
        }
        self.out.raised.clear();
        self.push(20.4 + above);
        self.out.raised.drain(..).next().map(|raised| raised.finding)
    }

    fn say(&mut self, finding: &Finding, opinion: Opinion) -> FeedbackOutcome {
        let at = Timestamp::from_secs(self.now);
        let feedback = Feedback { finding: finding.tag(), opinion, reference: None, at };
        self.stream.on_feedback(Lsn(1_000_000), feedback, &mut self.out);
        self.out.heard.pop().expect("nothing waits").1
    }
}

/// Above the card's threshold and below one that is raised by a step; above one step and below two; above any.
const SMALL: f64 = 3.0;
const MIDDLE: f64 = 5.0;
const LARGE: f64 = 20.0;

#[test]
fn false_alarms_raise_a_threshold_within_bounds_and_what_they_raised_fades() {
    let plan = plan();
    let mut driven = Driven::new(&plan);
    let found = driven.spike(SMALL).expect("the card's threshold");
    assert_eq!(driven.say(&found, Opinion::FalseAlarm), FeedbackOutcome::Applied { steps: 1.0 });
    assert!(driven.spike(SMALL).is_none(), "below the raised threshold");
    let middle = driven.spike(MIDDLE).expect("above it");
    assert!(middle.threshold > found.threshold && middle.score >= middle.threshold, "{middle:?}");
    assert!(middle.text.contains("feedback") && !found.text.contains("feedback"), "{}", middle.text);
    // The same finding twice is one false alarm; further ones raise it no higher than the bound.
    assert!(matches!(driven.say(&found, Opinion::FalseAlarm), FeedbackOutcome::Recorded { .. }));
    driven.say(&middle, Opinion::FalseAlarm);
    assert!(driven.spike(MIDDLE).is_none());
    for _ in 0..5 {
        let large = driven.spike(LARGE).expect("no feedback silences it");
        let FeedbackOutcome::Applied { steps } = driven.say(&large, Opinion::FalseAlarm) else {
            panic!("it is applied")
        };
        assert!(steps <= MOST_STEPS);
    }
    assert!(driven.spike(LARGE).is_some());
    // It is part of the state.
    let (restored, lost) = StreamComponent::restore(plan, ID, KeyValues::new(), &driven.stream.snapshot());
    assert_eq!(lost, 0);
    driven.stream = restored;
    assert!(driven.spike(MIDDLE).is_none());
    // Half of it is gone after a week, all of it after two months.
    driven.now += 8 * DAY;
    assert!(driven.spike(MIDDLE).is_some() && driven.spike(SMALL).is_none());
    driven.now += 60 * DAY;
    let found = driven.spike(SMALL).expect("it has faded");
    assert!(!found.text.contains("feedback") && found.threshold == 0.5, "{found:?}");
}

#[test]
fn a_confirmed_finding_takes_a_step_back_and_never_below_the_card() {
    let mut driven = Driven::new(&plan());
    let found = driven.spike(SMALL).unwrap();
    assert_eq!(driven.say(&found, Opinion::Confirmed), FeedbackOutcome::Applied { steps: 0.0 });
    let second = driven.spike(SMALL).expect("no lower and no higher");
    assert_eq!(second.threshold, 0.5);
    driven.say(&second, Opinion::FalseAlarm);
    assert!(driven.spike(SMALL).is_none());
    // Who thinks again takes back what he said, and says the opposite.
    assert_eq!(driven.say(&second, Opinion::Confirmed), FeedbackOutcome::Applied { steps: 0.0 });
    assert!(driven.spike(SMALL).is_some());
    // However often he does: the last word counts, and once.
    assert_eq!(driven.say(&second, Opinion::FalseAlarm), FeedbackOutcome::Applied { steps: 1.0 });
}

#[test]
fn a_finding_that_nobody_gave_out_is_unknown() {
    let mut driven = Driven::new(&plan());
    let mut found = driven.spike(SMALL).unwrap();
    found.label = "drop".to_owned();
    assert_eq!(driven.say(&found, Opinion::FalseAlarm), FeedbackOutcome::Unknown);
    found.model.name = ModelName::new("other").unwrap();
    assert_eq!(driven.say(&found, Opinion::FalseAlarm), FeedbackOutcome::Unknown);
    assert!(driven.spike(SMALL).is_some());
}

/// Says nothing and is about patients, as every model is that does not say otherwise.
struct OfPatients(ModelRef);

struct Silent;

impl RowModel for OfPatients {
    fn reference(&self) -> &ModelRef {
        &self.0
    }

    fn accepts(&self, _: &[FieldSpec]) -> Result<(), ModelError> {
        Ok(())
    }

    fn new_state(&self, _: &[FieldSpec]) -> Box<dyn RowState> {
        Box::new(Silent)
    }

    fn restore(&self, _: &[FieldSpec], _: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        Ok(Box::new(Silent))
    }
}

impl RowState for Silent {
    fn take(&mut self, _: &Row<'_>, _: &mut Vec<f32>) -> usize {
        0
    }

    fn judge(&mut self, _: &[f32]) -> RowVerdict {
        RowVerdict::default()
    }

    fn skip(&mut self) {}

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
}

fn plan_for_patients() -> Arc<StreamPlan> {
    let mut plan = Arc::into_inner(plan()).unwrap();
    let reference = ModelRef { name: ModelName::new("of-patients").unwrap(), version: "1".into() };
    plan.models.push(PlannedModel { model: Arc::new(OfPatients(reference)), queue: None, recent: None });
    Arc::new(plan)
}

#[test]
fn where_patients_come_to_be_judged_what_was_raised_before_is_gone() {
    let mut driven = Driven::new(&plan());
    let found = driven.spike(SMALL).unwrap();
    driven.say(&found, Opinion::FalseAlarm);
    assert!(driven.spike(SMALL).is_none());
    let (restored, lost) =
        StreamComponent::restore(plan_for_patients(), ID, KeyValues::new(), &driven.stream.snapshot());
    assert_eq!(lost, 0);
    driven.stream = restored;
    assert_eq!(driven.spike(SMALL).expect("the card's threshold again").threshold, 0.5);
}

#[test]
fn where_patients_are_judged_feedback_moves_nothing() {
    let mut driven = Driven::new(&plan_for_patients());
    let found = driven.spike(SMALL).unwrap();
    let FeedbackOutcome::Recorded { why } = driven.say(&found, Opinion::FalseAlarm) else { panic!("it is recorded") };
    assert!(why.contains("patients"), "{why}");
    assert_eq!(driven.spike(SMALL).expect("it is still found").threshold, 0.5);
    for name in ["news2", "ecg-rhythm", "glucose-range", "glucose-forecast"] {
        let model = nearside_models::catalog::load(name, None).unwrap();
        assert!(model.judges_patients() && !model.heeds_feedback("any"), "{name}");
    }
}

/// Runs the forecaster over rows with a jump now and then, its answers coming after so many rows; something is said after row 1,100.
fn forecast(rows_at_once: usize, said: Option<&FindingTag>) -> (Vec<Finding>, Vec<(Lsn, FeedbackOutcome)>) {
    let mut plan = Arc::into_inner(plan()).unwrap();
    let model = nearside_models::catalog::load("forecaster", None).unwrap();
    plan.models = vec![PlannedModel { model: model.clone(), queue: Some(0), recent: None }];
    let mut driven = Driven::new(&Arc::new(plan));
    let answer = |driven: &mut Driven| {
        for request in std::mem::take(&mut driven.out.requests) {
            let mut outputs = Vec::new();
            model.forward(&request.data, request.inputs, &mut outputs).unwrap();
            driven.stream.on_outputs(request.answered(), Some(&outputs), &mut driven.out);
        }
    };
    for row in 0..2_000_usize {
        let wave = (row as f64 / 9.0).sin() + (row as f64 * 1.7).sin() * 0.3 + ((row * row) as f64 * 0.37).sin() * 0.3;
        driven.push(20.0 + wave + if row % 200 == 199 { 12.0 } else { 0.0 });
        if row % rows_at_once == 0 {
            answer(&mut driven);
        }
        if row == 1_100
            && let Some(finding) = said
        {
            // Rows in front of it may be unjudged still, that of the finding among them.
            let at = Timestamp::from_secs(driven.now);
            let feedback = Feedback { finding: finding.clone(), opinion: Opinion::FalseAlarm, reference: None, at };
            driven.stream.on_feedback(Lsn(row as u64), feedback, &mut driven.out);
        }
    }
    answer(&mut driven);
    (driven.out.raised.into_iter().map(|raised| raised.finding).collect(), driven.out.heard)
}

/// The networks' answers come whenever they come; feedback acts on the rows behind it and on none before.
#[test]
fn how_fast_a_network_answers_changes_nothing() {
    let (unsaid, _) = forecast(1, None);
    let before = Timestamp::from_secs(1_700_000_000 + 1_100 * 60);
    let known = unsaid.iter().rfind(|finding| finding.at < before && finding.label != "flat_line").expect("a finding");
    let (found, heard) = forecast(1, Some(&known.tag()));
    assert!(matches!(heard[..], [(Lsn(1_100), FeedbackOutcome::Applied { .. })]), "{heard:?}");
    assert_ne!(found, unsaid, "it changes something");
    let (mut first, mut other) = (found.clone(), unsaid.clone());
    first.retain(|finding| finding.at < before);
    other.retain(|finding| finding.at < before);
    assert_eq!(first, other, "and nothing before it");
    for rows_at_once in [7, 190, 5_000] {
        assert_eq!(forecast(rows_at_once, Some(&known.tag())), (found.clone(), heard.clone()), "{rows_at_once}");
    }
}
