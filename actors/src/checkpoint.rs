//! The checkpointer: now and then asks streams that changed for their state and puts it on disk, so that a start replays the end of the
//! journal and segments before it can go.
//!
//! Promises: a state is written only after everything its stream handed on before is safe: findings and summaries in the outbox,
//! commands in the journal, roll-ups in the same round (promise I1); a round that cannot be written costs nothing but time, for the
//! journal keeps what it would have covered.
//! Never: a stream waits for the disk; a segment is freed before the round that covers it is on disk.

use std::sync::Arc;
use std::time::Duration;

use nearside_journal::{CheckpointRound, CheckpointStore, JournalHandle, Lsn, StoredStream};
use nearside_outbox::OutboxHandle;
use nearside_schemas::StreamId;
use nearside_telemetry::{Counter, Gauge, Metric, Telemetry};
use tokio::sync::watch;

use crate::awake;
use crate::board::{self, Board};
use crate::ingest::{Ingest, ShardHandle};
use crate::rollup::{RollUpMessage, SavedRollUps};
use crate::rules_stage::{self, RulesMessage};
use crate::seal::SealMessage;
use crate::stage::StageSender;
use crate::stream::{CollectStates, CollectedState, RedirtyStreams, StreamPlan};

/// Most states that one shard gives in a round, so that a round's memory is bounded.
const STATES_A_ROUND: usize = 8_192;
/// Between two rounds.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(1);
/// A round that would say no more than that so few records need not be replayed is left out: a site at rest records the time and nothing
/// else, and its disk may be a memory card.
const FEW_RECORDS: u64 = 64;

/// What the checkpointer needs of the gateway.
pub struct Checkpointer {
    /// The intake, for its shards.
    pub ingest: Arc<Ingest>,
    /// The stream definitions.
    pub plans: Vec<Arc<StreamPlan>>,
    /// The stages that streams hand on to.
    pub rules: StageSender<RulesMessage>,
    /// See `rules`.
    pub rollup: StageSender<RollUpMessage>,
    /// See `rules`.
    pub seal: StageSender<SealMessage>,
    /// Where sealed items are.
    pub outbox: OutboxHandle,
    /// What is freed.
    pub journal: JournalHandle,
    /// The file.
    pub store: Arc<CheckpointStore>,
    /// The last findings, which a start shows again.
    pub board: Arc<Board>,
    /// Streams of the file that no definition claims any more.
    pub forget: Vec<StreamId>,
    /// How it fares.
    pub metrics: CheckpointMetrics,
    /// What the last round covered; `None` before the first.
    pub covered: Option<Lsn>,
}

/// The metrics of checkpoints.
pub struct CheckpointMetrics {
    states: Counter,
    bytes: Counter,
    errors: Counter,
    covers: Gauge,
}

impl CheckpointMetrics {
    /// The handles.
    pub fn new(telemetry: &Telemetry) -> Self {
        Self {
            states: telemetry.counter(Metric::CheckpointStates, &[]),
            bytes: telemetry.counter(Metric::CheckpointBytes, &[]),
            errors: telemetry.counter(Metric::CheckpointErrors, &[]),
            covers: telemetry.gauge(Metric::CheckpointCovers, &[]),
        }
    }
}

/// What became of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoundOutcome {
    /// Written; every stream that was due is in it.
    Complete,
    /// Written; more streams are due.
    More,
    /// Not written: a stage has ended or the disk refused.
    Failed,
}

impl Checkpointer {
    /// Takes rounds until told to stop. Gives itself back for the last one.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Self {
        while !*stop.borrow() {
            tokio::select! {
                () = tokio::time::sleep(BETWEEN_ROUNDS) => { self.round(false).await; }
                _ = stop.changed() => break,
            }
        }
        self
    }

    /// Takes rounds until every stream that changed is in one. For the end, when nothing comes any more. A round that is cut off in the
    /// middle forgets what it took: whoever stops waiting for this must not take another.
    pub async fn finish(&mut self) -> bool {
        loop {
            match self.round(true).await {
                RoundOutcome::Complete => return true,
                RoundOutcome::More => {}
                RoundOutcome::Failed => return false,
            }
        }
    }

    /// Takes one round: of the streams whose time has come, or of all that changed.
    pub async fn round(&mut self, all: bool) -> RoundOutcome {
        let mut states = Vec::new();
        let mut covers: Option<Lsn> = None;
        let mut is_more = false;
        for shard in self.ingest.shards() {
            // A shard that has ended keeps its place in the journal.
            let Ok(collected) = shard.address.send(CollectStates { most: STATES_A_ROUND, all }).await else {
                return self.give_up(states).await;
            };
            covers = Some(covers.map_or(collected.covers, |least| least.min(collected.covers)));
            is_more |= collected.is_more;
            states.extend(collected.states);
        }
        let covers = covers.unwrap_or_default();
        if !all && states.is_empty() && self.is_little(covers) {
            return RoundOutcome::Complete;
        }
        let Some((rules, rollups)) = self.settle_outputs().await else { return self.give_up(states).await };
        let (board, posted) = self.board.to_save().unzip();
        let round = CheckpointRound {
            covers,
            streams: states.iter().map(|state| self.stored(state)).collect(),
            forget: self.forget.clone(),
            put: rollups
                .put
                .into_iter()
                .chain([
                    (rules_stage::SAVED_NAME.to_owned(), rules),
                    (awake::SAVED_NAME.to_owned(), self.ingest.awake().to_save()),
                ])
                .chain(board.map(|board| (board::SAVED_NAME.to_owned(), board)))
                .collect(),
            remove: rollups.remove,
        };
        let bytes: usize = round.streams.iter().map(|stream| stream.state.len()).sum();
        let store = self.store.clone();
        let written = tokio::task::spawn_blocking(move || store.commit(&round)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "a checkpoint could not be written; the journal keeps what it would have covered");
                return self.give_up(states).await;
            }
            Err(_) => return self.give_up(states).await,
        }
        self.forget.clear();
        self.covered = Some(covers);
        if let Some(posted) = posted {
            self.board.saved(posted);
        }
        self.metrics.states.inc_by(states.len() as u64);
        self.metrics.bytes.inc_by(bytes as u64);
        self.metrics.covers.set(covers.0 as f64);
        self.rollup.send_async(RollUpMessage::Saved).await;
        self.journal.free_before(covers);
        if is_more { RoundOutcome::More } else { RoundOutcome::Complete }
    }

    /// Whether a round without states would be left out.
    fn is_little(&self, covers: Lsn) -> bool {
        let records = self.covered.map(|covered| covers.0.saturating_sub(covered.0));
        records.is_some_and(|records| records < FEW_RECORDS) && self.forget.is_empty() && !self.board.has_changed()
    }

    /// Waits until everything that streams handed on is safe; gives what rules and roll-ups keep. `None` where a stage has ended.
    async fn settle_outputs(&self) -> Option<(Vec<u8>, SavedRollUps)> {
        let (reply, rules) = flume::bounded(1);
        let (reply_rollups, rollups) = flume::bounded(1);
        let asked = self.rules.send_async(RulesMessage::Save(reply)).await
            && self.rollup.send_async(RollUpMessage::Save(reply_rollups)).await;
        if !asked {
            return None;
        }
        let rules = rules.recv_async().await.ok()?;
        let rollups = rollups.recv_async().await.ok()?;
        // Commands that rules issued are records in front of this.
        let safe = self.journal.barrier().await && self.seal.flush().await && self.outbox.flush().await;
        safe.then_some((rules, rollups))
    }

    fn stored(&self, state: &CollectedState) -> StoredStream {
        let definition = &self.plans[state.stream.definition].spec.name;
        StoredStream {
            id: state.stream.id,
            covers: state.covers,
            state: state.state.encode(definition, &state.stream.key),
        }
    }

    /// The states are not on disk: their streams count as changed again.
    async fn give_up(&self, states: Vec<CollectedState>) -> RoundOutcome {
        self.metrics.errors.inc();
        let mut by_shard: Vec<Vec<_>> = self.ingest.shards().iter().map(|_| Vec::new()).collect();
        for CollectedState { stream, since, .. } in states {
            by_shard[stream.shard].push((stream, since));
        }
        for (ShardHandle { address, .. }, streams) in self.ingest.shards().iter().zip(by_shard) {
            // A shard that has ended holds nothing.
            let _ = address.send(RedirtyStreams(streams)).await;
        }
        RoundOutcome::Failed
    }
}
