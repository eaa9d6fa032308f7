//! The desk where operators' feedback comes in: it bounds how much is on its way, counts what became of it and answers.
//!
//! Promises: feedback is answered once it is in the journal and its stream has heeded it; no more of it is on its way at a time than a
//! shard's mailbox has room for (promise I4).

use std::collections::VecDeque;
use std::sync::Arc;

use flume::{Receiver, Sender};
use nearside_schemas::{Feedback, FeedbackOutcome, FindingTag, Opinion, RefusalReason, StreamName};
use nearside_telemetry::{Metric, Telemetry};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Feedback on its way at a time; who gives more waits.
const SLOTS: usize = 16;
/// Answers that wait for the broker; when met, further ones are shed and counted.
const ANSWERS: usize = 64;
/// Findings whose feedback is remembered for the console.
const REMEMBERED: usize = 1_000;

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
    said: Mutex<VecDeque<(FindingTag, Opinion)>>,
    telemetry: Telemetry,
}

impl FeedbackDesk {
    /// A desk, and the answers to what comes by MQTT.
    pub fn new(telemetry: &Telemetry) -> (Arc<Self>, FeedbackAnswers) {
        let (answers, to_publish) = flume::bounded(ANSWERS);
        let slots = Arc::new(Semaphore::new(SLOTS));
        let desk = Self { slots, answers, said: Mutex::default(), telemetry: telemetry.clone() };
        (Arc::new(desk), FeedbackAnswers(to_publish))
    }

    /// Waits for a slot, which is held until the feedback is heeded.
    pub(crate) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.slots.clone().acquire_owned().await.ok()
    }

    /// Counts and remembers what became of feedback on a stream of this definition.
    pub(crate) fn settled(&self, stream: Option<&StreamName>, feedback: Option<&Feedback>, outcome: &FeedbackOutcome) {
        let opinion = feedback.map_or("none", |feedback| feedback.opinion.as_str());
        let stream = stream.map_or("none", StreamName::as_str);
        self.telemetry.counter(Metric::Feedback, &[stream, opinion, outcome.as_str()]).inc();
        let Some(feedback) = feedback else { return };
        tracing::info!(finding = %feedback.finding, opinion, outcome = outcome.as_str(), "feedback of an operator");
        if !matches!(outcome, FeedbackOutcome::Unknown | FeedbackOutcome::Malformed(_)) {
            let mut said = self.said.lock();
            said.retain(|(finding, _)| *finding != feedback.finding);
            if said.len() == REMEMBERED {
                said.pop_front();
            }
            said.push_back((feedback.finding.clone(), feedback.opinion));
        }
    }

    /// Answers whoever published feedback.
    pub(crate) fn answer(&self, answer: FeedbackAnswer) {
        if self.answers.try_send(answer).is_err() {
            self.telemetry.counter(Metric::StageShed, &["feedback"]).inc();
        }
    }

    /// What was said of a finding lately.
    pub fn said_of(&self, finding: &FindingTag) -> Option<Opinion> {
        self.said.lock().iter().find(|(known, _)| known == finding).map(|(_, opinion)| *opinion)
    }
}
