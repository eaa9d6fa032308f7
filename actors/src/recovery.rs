//! Recovery: at the start, streams go on from their checkpoint and what the journal remembers since is taken in again.
//!
//! Promises: a record that a stream's state holds already is not shown to it again; readings, ticks and windows come in the
//! journal's order, so a window that is closed again has the id, the revision and the rows it had before (promises I1, I5);
//! commands that were given are not given again (I8).
//! Never: a reading is taken from a device before all this is done; the end of the journal is taken for reached where it was not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nearside_journal::{Checkpoint, EpochKind, Lsn, Reader, Record};
use nearside_schemas::{Publish, QoS, StreamId};

use crate::error::ActorError;
use crate::ingest::Ingest;
use crate::read_ahead::{Step, read_ahead};
use crate::rollup::RollUpMessage;
use crate::rules_stage::RulesMessage;
use crate::stage::StageSender;
use crate::stream::{AdoptStreams, StreamState, Work};

/// Work that was taken in again and not yet handed on.
#[derive(Default)]
pub struct Again {
    /// The first record that it comes from.
    pub first: Option<Lsn>,
    /// The work.
    pub works: Vec<Work>,
}

/// Readings handed on at once.
const WORKS_AT_ONCE: usize = 1_024;

/// How far recovery is.
#[derive(Debug, Default)]
pub struct Progress {
    from: AtomicU64,
    to: AtomicU64,
    at: AtomicU64,
    is_done: AtomicBool,
}

impl Progress {
    /// Whether everything is taken in again.
    pub fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }

    /// From now on readings are taken.
    pub fn finish(&self) {
        self.is_done.store(true, Ordering::Release);
    }

    /// Records taken in again, and how many there are.
    pub fn records(&self) -> (u64, u64) {
        let [from, to, at] = [&self.from, &self.to, &self.at].map(|number| number.load(Ordering::Relaxed));
        (at.saturating_sub(from), to.saturating_sub(from))
    }
}

/// What recovery found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Streams that go on from their state.
    pub streams: u64,
    /// Streams of definitions that are no more.
    pub forgotten: Vec<StreamId>,
    /// States that could not be read.
    pub damaged: u64,
    /// Records taken in again.
    pub records: u64,
    /// Damaged places in the journal.
    pub gaps: u64,
}

/// Gives streams the state that the checkpoint holds.
pub async fn adopt(ingest: &Ingest, checkpoint: Checkpoint) -> Recovered {
    let mut found = Recovered { damaged: checkpoint.damaged, ..Recovered::default() };
    let mut by_shard: Vec<Vec<_>> = ingest.shards().iter().map(|_| Vec::new()).collect();
    for stored in checkpoint.streams {
        let Some((definition, key, state)) = StreamState::decode(&stored.state) else {
            found.damaged += 1;
            continue;
        };
        match ingest.adopt(&definition, key) {
            Some(stream) if stream.id == stored.id => {
                found.streams += 1;
                by_shard[stream.shard].push((stream, stored.covers, state));
            }
            _ => found.forgotten.push(stored.id),
        }
    }
    for (shard, streams) in ingest.shards().iter().zip(by_shard) {
        // A shard that has ended is seen by health.
        let _ = shard.address.send(AdoptStreams(streams)).await;
    }
    found
}

/// Who is told of what the journal holds besides readings.
pub struct Listeners<'a> {
    /// Of commands that were given.
    pub rules: &'a StageSender<RulesMessage>,
    /// Of time.
    pub rollup: &'a StageSender<RollUpMessage>,
    /// Of each QoS 2 message.
    pub journalled: &'a (dyn Fn(Lsn, &Publish) + Send + Sync),
}

/// Takes in again what `reader` gives: everything from where the checkpoint ends to `until`.
///
/// # Errors
/// Where not all of it could be read, though another try may: then nothing may be called covered.
pub async fn replay(
    ingest: &Arc<Ingest>,
    reader: Reader,
    (from, until): (Lsn, Lsn),
    Listeners { rules, rollup, journalled }: Listeners<'_>,
    progress: &Progress,
    found: &mut Recovered,
) -> Result<(), ActorError> {
    for (number, value) in [(&progress.from, from), (&progress.at, from), (&progress.to, until)] {
        number.store(value.0, Ordering::Relaxed);
    }
    rules.send_async(RulesMessage::Replaying).await;
    let steps = read_ahead(reader, ingest);
    let mut again = Again::default();
    let mut last = from;
    let mut is_whole = false;
    while let Ok(batch) = steps.recv_async().await {
        for step in batch {
            let (lsn, record) = match step {
                Step::Messages(run) => {
                    run.exactly_once.iter().for_each(|(lsn, publish)| journalled(*lsn, publish));
                    found.records += run.messages.len() as u64;
                    last = run.messages.last().map_or(last, |(lsn, _)| *lsn);
                    ingest.take_again(run, &mut again).await;
                    if again.works.len() >= WORKS_AT_ONCE {
                        ingest.hand_on(last, &mut again);
                    }
                    continue;
                }
                Step::Record(lsn, record) => (lsn, record),
                Step::Damage => {
                    found.gaps += 1;
                    continue;
                }
                Step::Unreadable(segment) => return Err(ActorError::Unread(segment)),
                Step::End => {
                    is_whole = true;
                    continue;
                }
            };
            found.records += 1;
            last = lsn;
            match record {
                // All others are in runs.
                Record::Publish(feedback) => {
                    if feedback.qos == QoS::ExactlyOnce {
                        journalled(lsn, &feedback);
                    }
                    ingest.hand_on(lsn, &mut again);
                    ingest.hear_again(lsn, &feedback).await;
                }
                Record::Epoch { kind: EpochKind::Start, .. } => ingest.awake().starts_again(),
                Record::Epoch { .. } => {}
                Record::Tick(now) => {
                    ingest.hand_on(lsn, &mut again);
                    ingest.tick_again(lsn, now).await;
                    // Roll-ups wait for windows by the clock: they hear of time when the windows of that time are there.
                    ingest.judged_through().await;
                    rollup.send_async(RollUpMessage::Tick(now)).await;
                }
                Record::Command { id, .. } => {
                    rules.send_async(RulesMessage::Given(id)).await;
                }
                Record::Close { streams, for_good, at } => {
                    ingest.hand_on(lsn, &mut again);
                    // As it was: windows were closed when their rows were judged.
                    ingest.judged_through().await;
                    ingest.close_windows_again(lsn, at, &streams, for_good).await;
                }
            }
        }
        progress.at.store(last.0, Ordering::Relaxed);
    }
    if !is_whole {
        return Err(ActorError::Unread("reading it ended by a fault".to_owned()));
    }
    ingest.hand_on(last, &mut again);
    ingest.judged_through().await;
    rollup.send_async(RollUpMessage::Restored).await;
    rules.send_async(RulesMessage::Replayed).await;
    progress.at.store(until.0, Ordering::Relaxed);
    Ok(())
}
