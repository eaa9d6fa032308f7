//! What operators said of the findings of one model on one stream, and what follows for its thresholds.
//!
//! A false alarm raises the threshold of the model on that field of that stream by a step, a confirmed finding takes a step back; see
//! [`raised_threshold`](nearside_models::row_model::raised_threshold). A threshold is never below the card's and at most [`MOST_STEPS`] above
//! it, so what is rare enough is still found, and what was raised fades by half in [`HALF_LIFE`].
//!
//! Promises: feedback acts on the rows that stand behind it in the journal and on none before, however fast networks answer, so the same
//! journal gives the same findings (promise I5); what it keeps is bounded (I4) and part of the stream's state.
//! Never: a threshold moves on a stream that is judged by a model for patients.

use std::collections::VecDeque;
use std::time::Duration;

use nearside_journal::Lsn;
use nearside_schemas::{Feedback, FeedbackOutcome, FieldName, Finding, Opinion, Timestamp};
use serde::{Deserialize, Serialize};

use super::outputs::Outputs;
use super::plan::PlannedModel;

/// Most steps above the card's threshold. Two steps are a hundred times rarer for the forecaster, which can tell more than that apart at
/// any pace: no feedback silences it.
pub const MOST_STEPS: f64 = 2.0;
/// After this long half of what a threshold was raised by is left.
pub const HALF_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// Fewer steps than this are none.
const LEAST_STEPS: f64 = 0.05;
/// Findings of a model on a stream that feedback may name; the oldest is forgotten.
const RECENT: usize = 32;

const PATIENTS: &str =
    "noted. A model for patients or for texts judges this stream, and feedback never changes what is reported there";
const A_FACT: &str =
    "noted. The finding states a fact, so there is no threshold that could be raised: it will be reported again";
const SAID_BEFORE: &str = "noted before: the same was said of this finding already, and changes nothing more";

/// A finding that feedback may name.
#[derive(Clone, Serialize, Deserialize)]
struct Recent {
    digest: u64,
    label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    field: Option<FieldName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opinion: Option<Opinion>,
    /// What that opinion moved the threshold by, within its bounds: so much is undone where it is corrected.
    #[serde(default)]
    moved: f64,
}

/// A threshold that is raised.
#[derive(Clone, Serialize, Deserialize)]
struct Raised {
    field: Option<FieldName>,
    steps: f64,
    since: Timestamp,
}

/// What was said of one model's findings.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct FeedbackLog {
    recent: VecDeque<Recent>,
    raised: Vec<Raised>,
    /// What waits for rows in front of it, with how many rows must be judged first. Empty whenever a snapshot is taken.
    #[serde(skip)]
    waiting: VecDeque<(u64, Lsn, Feedback)>,
}

impl Raised {
    /// What is left of it at a time.
    fn steps_at(&self, time: Timestamp) -> f64 {
        let micros = time.as_micros().saturating_sub(self.since.as_micros()).max(0);
        let steps = self.steps * (-(micros as f64) / HALF_LIFE.as_micros() as f64).exp2();
        if steps < LEAST_STEPS { 0.0 } else { steps }
    }
}

impl FeedbackLog {
    /// Whether there is nothing to keep.
    pub(super) fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.raised.is_empty()
    }

    /// Whether feedback waits for rows to be judged.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A finding was given out.
    pub(super) fn note(&mut self, finding: &Finding) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        let (label, field) = (finding.label.clone(), finding.field.clone());
        self.recent.push_back(Recent { digest: finding.tag().digest, label, field, opinion: None, moved: 0.0 });
    }

    /// The steps that thresholds are raised by for a row of this time, by field; a last time with 0 where one has faded.
    pub(super) fn steps_at(&mut self, time: Timestamp) -> Vec<(Option<FieldName>, f64)> {
        if self.raised.is_empty() {
            return Vec::new();
        }
        let steps: Vec<_> = self.raised.iter().map(|raised| (raised.field.clone(), raised.steps_at(time))).collect();
        self.raised.retain(|raised| raised.steps_at(time) > 0.0);
        steps
    }

    /// Takes every raised threshold back, from the next row on.
    pub(super) fn take_back(&mut self) {
        self.raised.iter_mut().for_each(|raised| raised.steps = 0.0);
    }

    /// Takes feedback that stands behind so many rows.
    pub(super) fn hear(&mut self, rows: u64, record: Lsn, feedback: Feedback) {
        self.waiting.push_back((rows, record, feedback));
    }

    /// Heeds what waited for no more than these rows.
    pub(super) fn settle(&mut self, judged: u64, planned: &PlannedModel, on_patients: bool, out: &mut Outputs) {
        while self.waiting.front().is_some_and(|(rows, ..)| *rows <= judged) {
            let Some((_, record, feedback)) = self.waiting.pop_front() else { return };
            out.heard.push((record, self.heed(&feedback, planned, on_patients)));
        }
    }

    fn heed(&mut self, feedback: &Feedback, planned: &PlannedModel, on_patients: bool) -> FeedbackOutcome {
        let Some(finding) = self.recent.iter_mut().find(|recent| recent.digest == feedback.finding.digest) else {
            return FeedbackOutcome::Unknown;
        };
        let before = finding.opinion.replace(feedback.opinion);
        let why = match () {
            () if on_patients => Some(PATIENTS),
            () if !planned.model.heeds_feedback(&finding.label) => Some(A_FACT),
            () if before == Some(feedback.opinion) => Some(SAID_BEFORE),
            () => None,
        };
        if let Some(why) = why {
            return FeedbackOutcome::Recorded { why };
        }
        let step = match feedback.opinion {
            Opinion::FalseAlarm => 1.0,
            Opinion::Confirmed => -1.0,
        };
        let field = finding.field.clone();
        let at = self.raised.iter().position(|raised| raised.field == field).unwrap_or_else(|| {
            self.raised.push(Raised { field, steps: 0.0, since: feedback.at });
            self.raised.len() - 1
        });
        let raised = &mut self.raised[at];
        // Kept where it falls to 0: the next row tells the model so.
        let without = (raised.steps_at(feedback.at) - finding.moved).clamp(0.0, MOST_STEPS);
        raised.steps = (without + step).clamp(0.0, MOST_STEPS);
        raised.since = feedback.at;
        finding.moved = raised.steps - without;
        FeedbackOutcome::Applied { steps: raised.steps }
    }
}

/// Says in a finding's text that its threshold is raised.
pub(super) fn explain(finding: &mut Finding, raised: &[(Option<FieldName>, f64)]) {
    let steps = raised.iter().find(|(field, steps)| *field == finding.field && *steps > 0.0);
    if let Some((_, steps)) = steps {
        let said =
            format!(" Operators' feedback has raised the threshold here, by {steps:.2} of at most {MOST_STEPS} steps.");
        finding.text.push_str(&said);
    }
}
