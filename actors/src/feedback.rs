//! The desk where operators' feedback comes in: it bounds how much is on its way, counts what became of it and answers.
//!
//! Promises: feedback is answered once it is in the journal and its stream has heeded it; no more of it is on its way at a time than a
//! shard's mailbox has room for (promise I4).

use std::sync::Arc;

use flume::{Receiver, Sender};
use nearside_schemas::{Feedback, FeedbackOutcome, FindingTag, RefusalReason, StreamName};
use nearside_telemetry::{Metric, Telemetry};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::board::Board;

/// Feedback on its way at a time; who gives more waits.
const SLOTS: usize = 16;
/// Answers that wait for the broker; when met, further ones are shed and counted.
const ANSWERS: usize = 64;

/// Hears what became of feedback, or why it was refused. It must return at once.
pub type FeedbackReply = Box<dyn FnOnce(Result<FeedbackOutcome, RefusalReason>) + Send + 'static>;

/// What became of feedback, for whoever published it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FeedbackAnswer {
    /// What the sender called its message.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The finding, where it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<FindingTag>,
    /// `applied`, `recorded`, `unknown`, `malformed`.
    pub outcome: &'static str,
    /// A sentence.
    pub text: String,
}

impl FeedbackAnswer {
    /// The answer to feedback, whose sender called it `reference`.
    pub fn new(reference: Option<String>, finding: Option<FindingTag>, outcome: &FeedbackOutcome) -> Self {
        Self { reference, finding, outcome: outcome.as_str(), text: outcome.says() }
    }
}

/// Answers that wait to be published.
pub struct FeedbackAnswers(Receiver<FeedbackAnswer>);

impl FeedbackAnswers {
    /// The next; `None` once the desk is gone.
    pub async fn next(&self) -> Option<FeedbackAnswer> {
        self.0.recv_async().await.ok()
    }
}

/// The desk.
pub struct FeedbackDesk {
    slots: Arc<Semaphore>,
    answers: Sender<FeedbackAnswer>,
    board: Arc<Board>,
    telemetry: Telemetry,
}

impl FeedbackDesk {
    /// A desk that notes on the board what was said, and the answers to what comes by MQTT.
    pub fn new(telemetry: &Telemetry, board: Arc<Board>) -> (Arc<Self>, FeedbackAnswers) {
        let (answers, to_publish) = flume::bounded(ANSWERS);
        let slots = Arc::new(Semaphore::new(SLOTS));
        let desk = Self { slots, answers, board, telemetry: telemetry.clone() };
        (Arc::new(desk), FeedbackAnswers(to_publish))
    }

    /// Waits for a slot, which is held until the feedback is heeded.
    pub(crate) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.slots.clone().acquire_owned().await.ok()
    }

    /// Counts and notes what became of feedback on a stream of this definition.
    pub(crate) fn settled(&self, stream: Option<&StreamName>, feedback: Option<&Feedback>, outcome: &FeedbackOutcome) {
        let opinion = feedback.map_or("none", |feedback| feedback.opinion.as_str());
        let stream = stream.map_or("none", StreamName::as_str);
        self.telemetry.counter(Metric::Feedback, &[stream, opinion, outcome.as_str()]).inc();
        let Some(feedback) = feedback else { return };
        tracing::info!(finding = %feedback.finding, opinion, outcome = outcome.as_str(), "feedback of an operator");
        self.note(feedback, outcome);
    }

    /// Notes on the board what was said, where it was about a finding.
    pub(crate) fn note(&self, feedback: &Feedback, outcome: &FeedbackOutcome) {
        if !matches!(outcome, FeedbackOutcome::Unknown | FeedbackOutcome::Malformed(_)) {
            self.board.note(&feedback.finding, feedback.opinion);
        }
    }

    /// Answers whoever published feedback.
    pub(crate) fn answer(&self, answer: FeedbackAnswer) {
        if self.answers.try_send(answer).is_err() {
            self.telemetry.counter(Metric::StageShed, &["feedback"]).inc();
        }
    }
}
