//! Feedback of operators on its way to the stream whose finding it is about.
//!
//! Promises: it is a record like any message, answered once it is on disk and heeded; streams get it among their readings where the journal
//! has it, live and taken in again (promises I1, I5).

use std::sync::Arc;

use nearside_journal::{CommitOutcome, Lsn, Record};
use nearside_schemas::{Durability, Feedback, FeedbackError, FeedbackOutcome, Publish, RefusalReason};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::{Ingest, all_done};
use crate::feedback::{FeedbackAnswer, FeedbackDesk, FeedbackReply};
use crate::stream::{ShardFeedback, StreamRef};

/// Feedback that is not on disk yet.
struct Given {
    read: Result<Feedback, FeedbackError>,
    stream: Option<Arc<StreamRef>>,
}

impl Ingest {
    /// Whether a stream of this id is known: feedback on others is answered without a record.
    pub fn knows(&self, feedback: &Feedback) -> bool {
        self.streams.read().contains_key(&feedback.finding.stream)
    }

    /// Takes feedback in, as a message on its topic; `reply` hears what becomes of it once it is on disk and heeded. Dropped uncalled
    /// where its stream could not take it: it is on disk then, and the next start takes it in.
    pub async fn take_feedback(&self, publish: Publish, reply: FeedbackReply) {
        if self.draining.load(std::sync::atomic::Ordering::Acquire) {
            return reply(Err(RefusalReason::Draining));
        }
        let slot = self.desk.slot().await;
        let given = self.read_feedback(&publish);
        let (desk, shards) = (self.desk.clone(), self.shards.clone());
        let name = given.stream.as_ref().map(|stream| self.definitions[stream.definition].plan.spec.name.clone());
        let done = Box::new(move |outcome: CommitOutcome, _: Vec<Record>| {
            let lsn = match outcome {
                CommitOutcome::Durable { first } => first,
                CommitOutcome::QuotaExceeded => return reply(Err(RefusalReason::QuotaExceeded)),
                CommitOutcome::Failed => return reply(Err(RefusalReason::StorageFailed)),
            };
            let feedback = given.read.as_ref().ok().cloned();
            let settle = settled(desk, name, feedback, slot, reply);
            match (given.read, given.stream) {
                (Err(error), _) => settle(Ok(FeedbackOutcome::Malformed(error))),
                (Ok(_), None) => settle(Ok(FeedbackOutcome::Unknown)),
                (Ok(feedback), Some(stream)) => {
                    let shard = shards[stream.shard].address.clone();
                    let heard = ShardFeedback { stream, lsn, feedback, reply: Some(settle), taken: None };
                    if shard.try_send(heard).is_err() {
                        // Only a shard that has ended takes none: a new address always has room for one message, and the desk's slots
                        // bound how many there are. No round of the checkpoint succeeds without it, so the record stays.
                        tracing::error!("a shard did not take feedback; the next start takes it in");
                    }
                }
            }
        });
        self.journal.append(vec![Record::Publish(publish)], done).await;
    }

    /// Takes feedback that a client published; the answer goes to whoever listens on its topic.
    pub(super) async fn take_published_feedback(&self, publish: Publish, refused: &Arc<Mutex<Option<Durability>>>) {
        let (reference, finding) = match Feedback::read(&publish.payload, publish.received) {
            Ok(feedback) => (feedback.reference, Some(feedback.finding)),
            Err(_) => (Feedback::reference_of(&publish.payload), None),
        };
        let (desk, refused) = (self.desk.clone(), refused.clone());
        let reply = Box::new(move |outcome: Result<FeedbackOutcome, RefusalReason>| match outcome {
            Ok(outcome) => desk.answer(FeedbackAnswer::new(reference, finding, &outcome)),
            Err(refusal) => {
                refused.lock().get_or_insert(Durability::Refused(refusal));
            }
        });
        self.take_feedback(publish, reply).await;
    }

    /// Takes in feedback that the journal remembers; what its stream holds already is left out. Ready when the stream has taken it: no desk
    /// bounds how much of it the journal holds, so one is on its way at a time (promise I4).
    pub async fn hear_again(&self, lsn: Lsn, publish: &Publish) {
        let Given { read: Ok(feedback), stream: Some(stream) } = self.read_feedback(publish) else { return };
        let shard = self.shards[stream.shard].address.clone();
        let (taken, is_taken) = tokio::sync::mpsc::unbounded_channel();
        let (desk, said) = (self.desk.clone(), feedback.clone());
        // Whoever gave it was answered, and it was counted; the board may not know of it.
        let reply: FeedbackReply = Box::new(move |outcome| {
            if let Ok(outcome) = outcome {
                desk.note(&said, &outcome);
            }
        });
        let heard = ShardFeedback { stream, lsn, feedback, reply: Some(reply), taken: Some(taken) };
        // A shard that has ended is seen by health.
        if shard.send(heard).await.is_ok() {
            let _ = all_done(is_taken).await;
        }
    }

    fn read_feedback(&self, publish: &Publish) -> Given {
        let read = Feedback::read(&publish.payload, publish.received);
        let of = |feedback: &Feedback| self.streams.read().get(&feedback.finding.stream).cloned();
        Given { stream: read.as_ref().ok().and_then(of), read }
    }
}

/// A reply that counts what became of feedback and frees its slot.
fn settled(
    desk: Arc<FeedbackDesk>,
    stream: Option<nearside_schemas::StreamName>,
    feedback: Option<Feedback>,
    slot: Option<OwnedSemaphorePermit>,
    reply: FeedbackReply,
) -> FeedbackReply {
    Box::new(move |outcome| {
        if let Ok(outcome) = &outcome {
            desk.settled(stream.as_ref(), feedback.as_ref(), outcome);
        }
        reply(outcome);
        drop(slot);
    })
}
