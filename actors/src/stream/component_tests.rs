//! The stream component in virtual time, with models made for the test.

use std::sync::Arc;
use std::time::Duration;

use nearside_journal::Lsn;
use nearside_models::ModelError;
use nearside_models::row_model::{Row, RowModel, RowState, RowVerdict, Sighting};
use nearside_schemas::codec::{CodecSpec, Format};
use nearside_schemas::{
    FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, HumanDuration, KeyValues, ModelName, ModelRef, Reading,
    SetAsideReason, Severity, SiteId, StreamId, StreamName, StreamSpec, Timestamp, TopicTemplate, Values, Verdict,
};
use nearside_window::{GuardConfig, WindowConfig, WindowPlan};

use super::component::StreamComponent;
use super::outputs::{Answered, InferenceRequest, Outputs};
use super::plan::{PlannedModel, StreamPlan};
use super::state::StreamState;

/// Flags values above 100; panics on the poison 666. With `width` 1 the network hands the value through.
struct TestModel {
    reference: ModelRef,
    width: usize,
}

struct TestState {
    width: usize,
    taken: std::collections::VecDeque<f64>,
    seen: u64,
}

impl RowModel for TestModel {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }
    fn accepts(&self, _: &[FieldSpec]) -> Result<(), ModelError> {
        Ok(())
    }
    fn input_width(&self) -> usize {
        self.width
    }
    fn output_width(&self) -> usize {
        self.width
    }
    fn new_state(&self, _: &[FieldSpec]) -> Box<dyn RowState> {
        Box::new(TestState { width: self.width, taken: Default::default(), seen: 0 })
    }
    fn restore(&self, fields: &[FieldSpec], _: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        Ok(self.new_state(fields))
    }
}

impl RowState for TestState {
    fn take(&mut self, row: &Row<'_>, inputs: &mut Vec<f32>) -> usize {
        let value = row.values[0].number().unwrap_or(0.0);
        assert!(value != 666.0, "the poison");
        self.seen += 1;
        self.taken.push_back(value);
        inputs.extend(std::iter::repeat_n(value as f32, self.width));
        self.width
    }
    fn judge(&mut self, outputs: &[f32]) -> RowVerdict {
        let value = self.taken.pop_front().unwrap_or(0.0);
        if self.width > 0 {
            assert_eq!(outputs, [value as f32], "each row gets its own outputs");
        }
        let flagged = value > 100.0;
        let sighting = Sighting {
            label: "high",
            begins: false,
            severity: Severity::Warning,
            score: value / 1_000.0,
            contributions: Vec::new(),
            text: String::new(),
        };
        let sightings = if flagged { vec![sighting] } else { Vec::new() };
        RowVerdict { score: value / 1_000.0, threshold: 0.1, flagged, sightings }
    }
    fn skip(&mut self) {
        self.taken.pop_front();
    }
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
}

pub(super) fn stream(width: usize, panics_per_minute: u32) -> StreamComponent {
    stream_of(plan(width, panics_per_minute))
}

pub(super) fn stream_of(plan: StreamPlan) -> StreamComponent {
    StreamComponent::new(Arc::new(plan), StreamId::from_bytes([1; 16]), KeyValues::new())
}

pub(super) fn plan(width: usize, panics_per_minute: u32) -> StreamPlan {
    let fields = vec![FieldSpec {
        name: FieldName::new("v").unwrap(),
        kind: FieldKind::Number,
        unit: None,
        policy: FieldPolicy::Clear,
    }];
    let spec = StreamSpec {
        name: StreamName::new("s").unwrap(),
        topic: TopicTemplate::parse("s").unwrap(),
        codec: CodecSpec {
            format: Format::Number,
            paths: vec!["$".to_owned()],
            rows: None,
            rate_hz: None,
            rate_path: None,
            max_payload_bytes: 100,
            max_readings: 1,
        },
        timestamp: None,
        sequence: None,
        fields: fields.clone(),
        key: Vec::new(),
        group: "s".to_owned(),
    };
    let windows = [WindowConfig::tumbling(HumanDuration::secs(10))];
    let windows = WindowPlan::new(&fields, &windows, GuardConfig::default()).unwrap();
    let model: Arc<dyn RowModel> = Arc::new(TestModel {
        reference: ModelRef { name: ModelName::new("test").unwrap(), version: "1".into() },
        width,
    });
    StreamPlan {
        site: SiteId::new("site").unwrap(),
        index: 0,
        spec: Arc::new(spec),
        finding_retention: windows.retention(),
        windows,
        models: vec![PlannedModel { model, queue: (width > 0).then_some(0), recent: None }],
        priority: crate::inference::Priority::Ordinary,
        min_rows: 1,
        silent_after: None,
        judge_deadline: Duration::from_secs(2),
        panics_per_minute,
    }
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

pub(super) fn reading(secs: i64, value: f64) -> Reading {
    Reading {
        time: at(secs),
        received: at(secs),
        sequence: None,
        values: Values::from_iter([FieldValue::Number(value)]),
    }
}

/// The answer to `inputs` inputs from the one numbered `first` on.
fn part(first: u64, inputs: usize) -> Answered {
    Answered { model: 0, first, inputs }
}

/// Takes a row and gives back the request for it.
fn ask(stream: &mut StreamComponent, secs: i64, value: f64, out: &mut Outputs) -> InferenceRequest {
    stream.on_reading(reading(secs, value), out);
    out.requests.remove(0)
}

fn answer(stream: &mut StreamComponent, request: &InferenceRequest, outputs: &[f32], out: &mut Outputs) {
    stream.on_outputs(request.answered(), Some(outputs), out);
}

#[test]
fn a_finding_is_raised_once_a_window_and_stands_in_its_summary() {
    let mut stream = stream(0, 5);
    let mut out = Outputs::default();
    for (time, value) in [(0, 1.0), (3, 150.0), (5, 250.0), (12, 1.0)] {
        stream.on_reading(reading(time, value), &mut out);
    }
    assert_eq!(out.raised.len(), 1);
    assert_eq!(out.summaries.len(), 1);
    let summary = &out.summaries[0];
    assert_eq!((summary.rows, summary.findings.len(), &summary.verdict), (3, 1, &Verdict::Judged));
    assert_eq!((summary.findings[0].rows, summary.findings[0].score, summary.findings[0].since), (2, 0.25, at(3)));
}

#[test]
fn a_window_waits_for_its_rows_and_no_others() {
    let mut stream = stream(1, 5);
    let mut out = Outputs::default();
    for time in [0, 5, 12] {
        stream.on_reading(reading(time, time as f64), &mut out);
    }
    assert!(out.summaries.is_empty(), "nothing is judged yet");
    assert_eq!(out.requests.len(), 1, "rows taken together travel together");
    let request = out.requests.remove(0);
    stream.on_outputs(part(0, 2), Some(&request.data[..2]), &mut out);
    assert_eq!(out.summaries.len(), 1, "the third row belongs to the next window");
    stream.on_outputs(part(2, 1), Some(&request.data[2..]), &mut out);
    assert!(!stream.is_at_rest(), "the next window is open");
}

#[test]
fn a_missed_deadline_and_a_failed_pass_are_said() {
    let mut stream = stream(1, 5);
    let mut out = Outputs::default();
    for time in [0, 5, 12] {
        stream.on_reading(reading(time, 1.0), &mut out);
    }
    assert_eq!(stream.next_deadline(), Some(at(14)), "two seconds after the window closed");
    stream.on_tick(at(13), true, &mut out);
    assert!(out.summaries.is_empty());
    stream.on_tick(at(14), true, &mut out);
    let Verdict::Unjudged { reason } = &out.summaries[0].verdict else { panic!("judged") };
    assert!(reason.contains("test@1 missed its deadline of 2s"), "{reason}");
    stream.on_outputs(part(0, 3), None, &mut out);
    stream.on_reading(reading(25, 1.0), &mut out);
    stream.on_outputs(part(3, 1), Some(&[1.0]), &mut out);
    let Verdict::Unjudged { reason } = &out.summaries[1].verdict else { panic!("judged") };
    assert!(reason.contains("failed on a row"), "{reason}");
}

/// I3: a panic in a model costs that model's state; the windows lose nothing.
#[test]
fn a_poison_row_costs_the_model_and_not_the_windows() {
    let mut stream = stream(0, 5);
    let mut out = Outputs::default();
    for (time, value) in [(0, 1.0), (1, 666.0), (2, 150.0), (12, 1.0)] {
        stream.on_reading(reading(time, value), &mut out);
    }
    assert_eq!((out.panics, out.raised.len()), (1, 1));
    assert_eq!(out.summaries[0].rows, 3);
    assert!(out.set_aside.is_empty());
}

#[test]
fn too_many_panics_park_the_stream_and_what_comes_then_is_counted() {
    let mut stream = stream(0, 2);
    let mut out = Outputs::default();
    for time in 0..5 {
        stream.on_reading(reading(time, 666.0), &mut out);
    }
    assert!(stream.is_parked());
    assert_eq!(out.panics, 3);
    assert_eq!(out.set_aside, [SetAsideReason::Panicked; 2]);
}

/// I3: a panic in the windows costs the reading at hand; the message is named, what was acknowledged before stays.
#[test]
fn a_poison_row_costs_itself_and_not_the_rows_of_its_window() {
    let mut stream = stream(0, 1);
    stream.poison_of_windows = Some(13.0);
    let mut out = Outputs::default();
    for (time, value) in [(0, 1.0), (1, 13.0), (2, 2.0), (12, 1.0)] {
        stream.on_reading_of(Some(Lsn(100 + time as u64)), reading(time, value), &mut out);
    }
    assert_eq!((out.panics, out.poison.as_slice()), (1, [(Lsn(101), "window")].as_slice()));
    assert_eq!(out.set_aside, [SetAsideReason::Panicked]);
    assert_eq!(out.summaries[0].rows, 2, "the rows before and after");
    // Past the budget the stream is parked, and what its windows hold is counted.
    stream.on_reading_of(Some(Lsn(113)), reading(13, 13.0), &mut out);
    assert!(out.parked && stream.is_parked() && stream.snapshot().is_parked);
    assert_eq!(out.set_aside, [SetAsideReason::Panicked; 3], "the poison and the row at 12");
    let (again, lost) =
        StreamComponent::restore(stream.plan().clone(), stream.id(), stream.key().clone(), &stream.snapshot());
    assert!(lost == 0 && again.is_parked());
}

/// The message of a row that panics its model only once its network has answered is named too.
#[test]
fn a_row_that_panics_when_it_is_judged_is_named() {
    let mut stream = stream(1, 5);
    let mut out = Outputs::default();
    stream.on_reading_of(Some(Lsn(7)), reading(0, 1.0), &mut out);
    stream.on_reading_of(Some(Lsn(8)), reading(1, 1.0), &mut out);
    stream.on_outputs(part(0, 1), Some(&[9.0]), &mut out);
    assert_eq!(out.poison, [(Lsn(7), "model")]);
}

#[test]
fn draining_says_what_was_not_judged() {
    let mut stream = stream(1, 5);
    let mut out = Outputs::default();
    stream.on_reading(reading(0, 1.0), &mut out);
    stream.drain(at(1), &mut out);
    assert_eq!(out.summaries.len(), 1);
    assert!(matches!(out.summaries[0].verdict, Verdict::Unjudged { .. }));
}

#[test]
fn a_rested_stream_goes_on_where_it_was() {
    let mut first = stream(0, 5);
    let mut out = Outputs::default();
    first.on_reading(reading(0, 1.0), &mut out);
    let (mut second, lost) =
        StreamComponent::restore(first.plan().clone(), first.id(), first.key().clone(), &first.snapshot());
    assert_eq!(lost, 0);
    second.on_reading(reading(1, 2.0), &mut out);
    second.on_reading(reading(12, 2.0), &mut out);
    assert_eq!(out.summaries[0].rows, 2);
    let damaged = StreamState { deadline: None, parts: vec![vec![9]], ..StreamState::default() };
    assert_eq!(StreamComponent::restore(first.plan().clone(), first.id(), first.key().clone(), &damaged).1, 1);
}

/// A row that panics when it is judged gives up the rows behind it. Their outputs are nobody's, in the same answer and in later ones.
#[test]
fn outputs_of_rows_that_were_given_up_go_to_no_other_row() {
    let mut stream = stream(1, 5);
    let mut out = Outputs { keep_scores: true, ..Outputs::default() };
    for secs in 0..3 {
        stream.on_reading(reading(secs, 1.0), &mut out);
    }
    let request = out.requests.remove(0);
    let waiting = ask(&mut stream, 3, 2.0, &mut out);
    answer(&mut stream, &request, &[9.0, 1.0, 1.0], &mut out);
    assert_eq!((out.panics, out.scores.len()), (1, 0), "the first row panics: its outputs are not its own");
    let later = ask(&mut stream, 4, 3.0, &mut out);
    let last = ask(&mut stream, 5, 4.0, &mut out);
    for request in [waiting, later, last] {
        let outputs = request.data.clone();
        answer(&mut stream, &request, &outputs, &mut out);
    }
    assert_eq!(out.panics, 1, "no row got another's outputs");
    let judged: Vec<_> = out.scores.iter().map(|row| row.time).collect();
    assert_eq!(judged, [at(4), at(5)], "nor waits for an answer that it had");
    assert!(stream.is_judged_through());
}

/// An answer that was lost on its way costs its rows alone.
#[test]
fn a_row_whose_answer_never_comes_takes_no_other_rows_outputs() {
    let mut stream = stream(1, 5);
    let mut out = Outputs { keep_scores: true, ..Outputs::default() };
    let _lost = ask(&mut stream, 0, 1.0, &mut out);
    let second = ask(&mut stream, 1, 2.0, &mut out);
    answer(&mut stream, &second, &[2.0], &mut out);
    assert_eq!((out.panics, out.scores.len()), (0, 1));
    assert_eq!(out.scores[0].time, at(1));
    stream.on_reading(reading(12, 1.0), &mut out);
    assert!(matches!(out.summaries[0].verdict, Verdict::Unjudged { .. }), "the first row is said to be unjudged");
}

/// Else the answer would meet the rows of whoever takes the stream up again.
#[test]
fn a_stream_does_not_rest_before_every_answer_has_come() {
    let mut stream = stream(1, 5);
    let mut out = Outputs::default();
    let request = ask(&mut stream, 0, 1.0, &mut out);
    stream.on_reading(reading(1, 666.0), &mut out);
    stream.drain(at(20), &mut out);
    assert!(stream.is_judged_through(), "the row was given up");
    assert!(!stream.is_at_rest());
    answer(&mut stream, &request, &[1.0], &mut out);
    assert!(stream.is_at_rest() && out.panics == 1);
}
