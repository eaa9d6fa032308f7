//! What a stream gives back for what it was given.

use nearside_journal::Lsn;
use nearside_models::row_model::RowVerdict;
use nearside_schemas::{FeedbackOutcome, Finding, SetAsideReason, Summary, Timestamp};
use nearside_window::Placement;

use crate::skew::Skew;

/// Rows for a model's network.
#[derive(Debug, PartialEq)]
pub struct InferenceRequest {
    /// The model's position in the plan.
    pub model: usize,
    /// The number of the first input among all that the stream had for the model.
    pub first: u64,
    /// How many inputs there are.
    pub inputs: usize,
    /// The inputs, one after the other.
    pub data: Vec<f32>,
}

/// Which inputs an answer is about: those of an [`InferenceRequest`].
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// See [`InferenceRequest::model`].
    pub model: usize,
    /// See [`InferenceRequest::first`].
    pub first: u64,
    /// See [`InferenceRequest::inputs`].
    pub inputs: usize,
}

impl InferenceRequest {
    /// What its answer is about.
    pub const fn answered(&self) -> Answered {
        Answered { model: self.model, first: self.first, inputs: self.inputs }
    }
}

/// A model's verdict on one row, for replay.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredRow {
    /// The model's position in the plan.
    pub model: usize,
    /// Event time of the row.
    pub time: Timestamp,
    /// The verdict.
    pub verdict: RowVerdict,
}

/// A finding that was not there.
#[derive(Debug, Clone, PartialEq)]
pub struct Raised {
    /// The finding.
    pub finding: Finding,
    /// Whether none with its label was in its window before it, of whatever model and field.
    pub is_first_of_label: bool,
}

/// What a stream gives back for what it was given.
#[derive(Default)]
pub struct Outputs {
    /// Rows to be judged by networks.
    pub requests: Vec<InferenceRequest>,
    /// Findings that were not there: seen for the first time in their window, or again after they were over.
    pub raised: Vec<Raised>,
    /// What would have been findings, but that so many of their kind were told in their window.
    pub withheld: u64,
    /// Windows that are judged, or past their deadline.
    pub summaries: Vec<Summary>,
    /// Readings that were set aside, with the reason; counted once for each window definition that did not take them.
    pub set_aside: Vec<SetAsideReason>,
    /// Of those, the first whose time was too far from its receipt.
    pub skew: Option<Skew>,
    /// Windows that closed, by cause.
    pub closed: Vec<nearside_schemas::CloseCause>,
    /// Panics that were caught.
    pub panics: u32,
    /// Records of messages that panicked, and the part that did.
    pub poison: Vec<(Lsn, &'static str)>,
    /// Whether the stream was given up just now.
    pub parked: bool,
    /// What became of feedback, by the record that it came in.
    pub heard: Vec<(Lsn, FeedbackOutcome)>,
    /// Each row's verdicts, where `keep_scores` is on.
    pub scores: Vec<ScoredRow>,
    /// Whether to fill `scores`.
    pub keep_scores: bool,
}

impl Outputs {
    /// Whether it holds what others are told of, with the record and the time at hand.
    pub(super) const fn speaks(&self) -> bool {
        !self.raised.is_empty() || !self.summaries.is_empty() || !self.poison.is_empty()
    }
}

/// Adds rows to the request for a model that is being built, so that one message carries them all.
pub(super) fn push_request(out: &mut Outputs, rows: InferenceRequest) {
    match out.requests.iter_mut().find(|request| request.model == rows.model) {
        Some(request) => {
            request.inputs += rows.inputs;
            request.data.extend_from_slice(&rows.data);
        }
        None => out.requests.push(rows),
    }
}

/// Reports what was set aside; whether the row is in at least one window.
pub(super) fn note_placement(placement: &Placement, skew: Skew, out: &mut Outputs) -> bool {
    out.set_aside.extend(placement.set_aside());
    if placement.set_aside().any(|reason| matches!(reason, SetAsideReason::Past | SetAsideReason::Future)) {
        out.skew.get_or_insert(skew);
    }
    placement.is_placed()
}
