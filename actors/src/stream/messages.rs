//! What a shard is told and asked.

use std::sync::Arc;

use actix::Message;
use nearside_journal::Lsn;
use nearside_schemas::{Feedback, StreamId, Timestamp};

use super::actor::Judged;
use super::state::StreamState;
use super::stream_ref::{StreamRef, Work};
use crate::feedback::FeedbackReply;

/// Committed work for a shard, in journal order.
pub struct ShardBatch {
    /// The work.
    pub works: Vec<Work>,
    /// The first record it comes from.
    pub first: Lsn,
    /// The record after the last it comes from.
    pub next: Lsn,
}

impl Message for ShardBatch {
    type Result = ();
}

/// What a network said of rows of this shard's streams, for each stream in the order of its requests.
pub struct ShardJudged(pub Vec<(StreamId, Judged)>);

impl Message for ShardJudged {
    type Result = ();
}

/// Time passes, as the journal recorded it.
pub struct ShardTick {
    /// The time.
    pub now: Timestamp,
    /// The record that says so.
    pub lsn: Lsn,
    /// Whether it is the time of day, not one read back from the journal.
    pub is_live: bool,
    /// Since when the gateway has listened.
    pub awake_since: Timestamp,
    /// Held until every stream that it is for has taken it.
    pub on_its_way: OnItsWay,
}

/// Held by each message that has not been taken, so that who sends them knows how many there are.
#[derive(Clone, Default)]
pub struct OnItsWay(Arc<()>);

impl OnItsWay {
    /// How many others there are.
    pub fn others(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

impl Message for ShardTick {
    type Result = ();
}

/// What an operator said of a finding of a stream.
pub struct ShardFeedback {
    /// The stream.
    pub stream: Arc<StreamRef>,
    /// The record that says so.
    pub lsn: Lsn,
    /// What was said.
    pub feedback: Feedback,
    /// Who hears what became of it; nobody where it is read back from the journal.
    pub reply: Option<FeedbackReply>,
    /// Dropped when the stream has taken it.
    pub taken: Option<tokio::sync::mpsc::UnboundedSender<()>>,
}

impl Message for ShardFeedback {
    type Result = ();
}

/// Replay gives what is before this record, and devices what is from it on; before any reading.
pub struct BeginAt(pub Lsn);

impl Message for BeginAt {
    type Result = ();
}

/// Streams as a checkpoint holds them; before any reading.
pub struct AdoptStreams(pub Vec<(Arc<StreamRef>, Lsn, StreamState)>);

impl Message for AdoptStreams {
    type Result = ();
}

/// Give the states of streams that changed, the longest ago first.
pub struct CollectStates {
    /// At most so many.
    pub most: usize,
    /// Those that changed only lately as well.
    pub all: bool,
}

impl Message for CollectStates {
    type Result = CollectedStates;
}

/// The state of a stream, taken between two records.
pub struct CollectedState {
    /// Whose it is.
    pub stream: Arc<StreamRef>,
    /// The first record that it does not hold.
    pub covers: Lsn,
    /// The first record that the stream's last state did not hold.
    pub since: Lsn,
    /// The state.
    pub state: StreamState,
}

/// What a shard gave.
pub struct CollectedStates {
    /// The states.
    pub states: Vec<CollectedState>,
    /// Everything before this record is in these states or in earlier ones.
    pub covers: Lsn,
    /// Whether streams are left that changed.
    pub is_more: bool,
}

/// These states could not be kept: the streams count as changed since those records again.
pub struct RedirtyStreams(pub Vec<(Arc<StreamRef>, Lsn)>);

impl Message for RedirtyStreams {
    type Result = ();
}

/// Close the windows of streams, as the journal recorded it.
pub struct DrainShard {
    /// When.
    pub now: Timestamp,
    /// The record that says so.
    pub lsn: Lsn,
    /// Whether they are over for good, and not to be revised.
    pub for_good: bool,
    /// The definitions whose streams are closed.
    pub definitions: Arc<Vec<usize>>,
    /// Dropped by each stream that has handed on its summaries: once all are, the receiver hears of it. A message says that one could not
    /// be told.
    pub done: tokio::sync::mpsc::UnboundedSender<()>,
}

impl Message for DrainShard {
    type Result = ();
}
