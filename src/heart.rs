//! What beats while the gateway runs: recovery first, then ticks and checkpoints.
//!
//! Promises: no reading is taken from a device before recovery is over; what the journal holds is taken in under the configuration that it
//! was recorded under; ticks are journal records (promise I5). Where recovery cannot go on, or time or checkpoints stop by a fault, that is said and
//! seen by the guardian.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nearside_actors::checkpoint::Checkpointer;
use nearside_actors::ingest::Ingest;
use nearside_actors::recovery::{self, Listeners, Progress, Recovered};
use nearside_actors::rollup::RollUpMessage;
use nearside_actors::rules::Rules;
use nearside_actors::rules_stage::RulesMessage;
use nearside_actors::stage::StageSender;
use nearside_actors::{RollUpConfig, handover};
use nearside_broker::Recovery;
use nearside_journal::{Checkpoint, Lsn, Reader};
use nearside_schemas::{Clock, Publish, StreamName};
use nearside_telemetry::{Metric, Telemetry};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::StartError;
use crate::middle::{Closed, Middle};

/// Between two tries to hand over to a changed configuration.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// Where streams go on from.
pub struct Start {
    /// Their states.
    pub checkpoint: Checkpoint,
    /// What the journal remembers since.
    pub reader: Reader,
    /// What takes both in before the streams of this run do.
    pub earlier: Option<Earlier>,
}

/// The middle under the configuration that the gateway ended under, where another is to be put in force.
pub struct Earlier {
    /// The middle.
    pub middle: Arc<Middle>,
    /// Its checkpointer.
    pub checkpointer: Checkpointer,
    /// Definitions whose windows the other configuration cannot go on with.
    pub changed: Vec<StreamName>,
    /// The rules of the other configuration.
    pub rules: Box<Rules>,
    /// Its roll-ups.
    pub rollup: RollUpConfig,
    /// Its text.
    pub source: Arc<str>,
}

impl Start {
    /// Streams are as they are.
    pub fn going_on() -> Self {
        Self { checkpoint: Checkpoint::default(), reader: Reader::empty(), earlier: None }
    }
}

/// What beats while the gateway runs: recovery first, then ticks and checkpoints.
pub struct Heart {
    /// Takes the checkpoints.
    pub checkpointer: Checkpointer,
    /// Where streams go on from.
    pub start: Start,
    /// The first record of this run.
    pub begins_at: Lsn,
    /// Where it says how far recovery is.
    pub progress: Arc<Progress>,
    /// Where the front door hears what the journal holds.
    pub recovery: Recovery,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Between two ticks.
    pub tick: Duration,
    /// The metrics.
    pub telemetry: Telemetry,
    /// Becomes true where it stops by a fault.
    pub has_failed: Arc<AtomicBool>,
}

impl Heart {
    /// Beats until told to stop. `None` where it was told before recovery was over: then nothing may be called covered.
    /// `closed` keeps readings out until recovery is over.
    pub async fn run(self, mut stop: watch::Receiver<bool>, closed: Option<Closed>) -> Option<Checkpointer> {
        let Self { checkpointer, start, begins_at, progress, recovery: front_door, clock, tick, telemetry, .. } = self;
        let has_failed = self.has_failed;
        let ingest = checkpointer.ingest.clone();
        let rollup = checkpointer.rollup.clone();
        // A task of its own, so that a panic in it is seen; it ends where this is told to stop.
        let mut recovering = JoinSet::new();
        let (from, to) = ((progress.clone(), front_door.clone()), clock.clone());
        recovering.spawn(recover(checkpointer, start, begins_at, from, to));
        let recovered = tokio::select! {
            recovered = recovering.join_next() => recovered,
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        let (mut checkpointer, found) = match recovered {
            Some(Ok(Ok(recovered))) => recovered,
            failed => {
                let why = failed.and_then(Result::ok).and_then(Result::err);
                let why = why.map_or_else(|| "a panic".to_owned(), |why| why.to_string());
                tracing::error!(why, "checkpoint and journal could not be taken in");
                has_failed.store(true, Ordering::Release);
                // Readings stay out: streams that hold only a part would give windows out that the next start gives out whole.
                let _ = stop.wait_for(|stop| *stop).await;
                return None;
            }
        };
        progress.finish();
        telemetry.counter(Metric::Replayed, &[]).inc_by(found.records);
        if found.records > 0 || found.streams > 0 {
            tracing::info!(
                streams = found.streams,
                records = found.records,
                "went on from the checkpoint and the journal"
            );
        }
        if found.damaged > 0 || found.gaps > 0 {
            tracing::warn!(
                states = found.damaged,
                places = found.gaps,
                "some states or places of the journal could not be read"
            );
        }
        if !found.forgotten.is_empty() {
            tracing::warn!(streams = found.forgotten.len(), "streams of definitions that are no more are forgotten");
        }
        checkpointer.forget = found.forgotten;
        telemetry.gauge(Metric::Ready, &[]).set(1.0);
        front_door.finish();
        drop(closed);
        let mut checkpointer = tokio::spawn(checkpointer.run(stop));
        let (stop_ticks, ticks_stopped) = watch::channel(false);
        let mut ticks = tokio::spawn(let_time_pass(ingest, rollup, clock, tick, ticks_stopped));
        // Time passes until the last round is over: a stream whose network does not answer gives up by the clock.
        let checkpointer = tokio::select! {
            checkpointer = &mut checkpointer => {
                stop_ticks.send_replace(true);
                // What it was told before is all that it has to say.
                let _ = ticks.await;
                checkpointer.ok()
            }
            _ = &mut ticks => {
                has_failed.store(true, Ordering::Release);
                checkpointer.await.ok()
            }
        };
        if checkpointer.is_none() {
            has_failed.store(true, Ordering::Release);
        }
        checkpointer
    }
}

/// Takes checkpoint and journal in, under the configuration that they come from.
async fn recover(
    checkpointer: Checkpointer,
    start: Start,
    begins_at: Lsn,
    (progress, front_door): (Arc<Progress>, Recovery),
    clock: Arc<dyn Clock>,
) -> Result<(Checkpointer, Recovered), StartError> {
    let Start { checkpoint, reader, earlier } = start;
    let Checkpointer { ingest, rules, rollup, .. } = &checkpointer;
    let span = (checkpoint.covers, begins_at);
    let journalled = |number: Lsn, publish: &Publish| front_door.journalled(number.0, publish);
    let listeners = Listeners { rules, rollup, journalled: &journalled };
    let Some(mut earlier) = earlier else {
        let mut found = recovery::adopt(ingest, checkpoint).await;
        recovery::replay(ingest, reader, span, listeners, &progress, &mut found).await?;
        return Ok((checkpointer, found));
    };
    let middle = earlier.middle.clone();
    let taken_in = async {
        let mut found = recovery::adopt(&middle.ingest, checkpoint).await;
        recovery::replay(&middle.ingest, reader, span, listeners, &progress, &mut found).await?;
        Ok::<_, StartError>((earlier.close(clock.as_ref()).await, found))
    };
    let (checkpoint, found) = tokio::select! {
        taken_in = taken_in => taken_in?,
        () = has_ended(&middle) => {
            return Err(StartError::Ended("a part of the streams of the configuration from before".to_owned()));
        }
    };
    let Earlier { changed, rules: next_rules, rollup: next_rollup, .. } = earlier;
    tracing::info!(streams = changed.len(), "the configuration was changed while the gateway did not run");
    middle.stop();
    let adopted = recovery::adopt(ingest, checkpoint).await;
    rules.send_async(RulesMessage::Reload(next_rules)).await;
    rollup.send_async(RollUpMessage::Reload(next_rollup)).await;
    let damaged = found.damaged + adopted.damaged;
    Ok((checkpointer, Recovered { forgotten: adopted.forgotten, damaged, ..found }))
}

/// Ready once a part of it is not there any more: what it held is in the journal, and nobody else takes it in.
async fn has_ended(middle: &Middle) {
    while middle.is_alive() {
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
}

impl Earlier {
    /// Closes the windows of changed definitions and puts the other configuration in force on disk. A disk that is full is waited for.
    async fn close(&mut self, clock: &dyn Clock) -> Checkpoint {
        loop {
            if handover::close(&mut self.checkpointer, &self.changed, clock.now(), true).await {
                match handover::commit(&self.checkpointer.store, &self.changed, &self.source) {
                    Ok(checkpoint) => return checkpoint,
                    Err(error) => tracing::error!(%error, "the changed configuration cannot be put in force"),
                }
            }
            tracing::warn!("the windows of changed streams are not yet closed and on disk; trying again");
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }
}

/// Lets time pass, as journal records.
async fn let_time_pass(
    ingest: Arc<Ingest>,
    rollup: StageSender<RollUpMessage>,
    clock: Arc<dyn Clock>,
    every: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let mut interval = tokio::time::interval(every.max(Duration::from_millis(10)));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {
                let now = clock.now();
                // Roll-ups hear what is recorded and nothing else, or a start would make others (promise I5).
                if ingest.tick(now).await {
                    // A roll-up that is behind hears of time at the next tick.
                    rollup.offer(RollUpMessage::Tick(now));
                }
            }
            _ = stop.changed() => return,
        }
    }
}
