//! What beats while the gateway runs: recovery first, then ticks and checkpoints.
//!
//! Promises: no reading is taken from a device before recovery is over; what the journal holds is taken in under the configuration that it
//! was recorded under; ticks are journal records (promise I5).

use std::sync::Arc;
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
    pub middle: Middle,
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
}

impl Heart {
    /// Beats until told to stop. `None` where it was told before recovery was over: then nothing may be called covered.
    /// `closed` keeps readings out until recovery is over.
    pub async fn run(self, mut stop: watch::Receiver<bool>, closed: Option<Closed>) -> Option<Checkpointer> {
        let Self { mut checkpointer, start, begins_at, progress, recovery: front_door, clock, tick, telemetry } = self;
        let ingest = checkpointer.ingest.clone();
        let rollup = checkpointer.rollup.clone();
        let found = tokio::select! {
            found = recover(&checkpointer, start, begins_at, &progress, &front_door, clock.as_ref()) => found,
            _ = stop.wait_for(|stop| *stop) => return None,
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
        let checkpointer = tokio::spawn(checkpointer.run(stop));
        let (stop_ticks, ticks_stopped) = watch::channel(false);
        let ticks = tokio::spawn(let_time_pass(ingest, rollup, clock, tick, ticks_stopped));
        // Time passes until the last round is over: a stream whose network does not answer gives up by the clock.
        let checkpointer = checkpointer.await.ok();
        stop_ticks.send_replace(true);
        // It does not panic; were it to, time would have stopped all the same.
        let _ = ticks.await;
        checkpointer
    }
}

/// Takes checkpoint and journal in, under the configuration that they come from.
async fn recover(
    checkpointer: &Checkpointer,
    start: Start,
    begins_at: Lsn,
    progress: &Progress,
    front_door: &Recovery,
    clock: &dyn Clock,
) -> Recovered {
    let Start { checkpoint, reader, earlier } = start;
    let Checkpointer { ingest, rules, rollup, .. } = checkpointer;
    let span = (checkpoint.covers, begins_at);
    let journalled = |number: Lsn, publish: &Publish| front_door.journalled(number.0, publish);
    let listeners = Listeners { rules, rollup, journalled: &journalled };
    let Some(earlier) = earlier else {
        let mut found = recovery::adopt(ingest, checkpoint).await;
        recovery::replay(ingest, reader, span, listeners, progress, &mut found).await;
        return found;
    };
    let Earlier { middle, checkpointer: mut of_earlier, changed, rules: next_rules, rollup: next_rollup, source } =
        earlier;
    let mut found = recovery::adopt(&middle.ingest, checkpoint).await;
    recovery::replay(&middle.ingest, reader, span, listeners, progress, &mut found).await;
    let checkpoint = loop {
        if handover::close(&mut of_earlier, &changed, clock.now(), true).await {
            match handover::commit(&of_earlier.store, &changed, &source) {
                Ok(checkpoint) => break checkpoint,
                Err(error) => tracing::error!(%error, "the changed configuration cannot be put in force"),
            }
        }
        tracing::warn!("the windows of changed streams are not yet closed and on disk; trying again");
        tokio::time::sleep(BETWEEN_TRIES).await;
    };
    tracing::info!(streams = changed.len(), "the configuration was changed while the gateway did not run");
    middle.stop();
    let adopted = recovery::adopt(ingest, checkpoint).await;
    rules.send_async(RulesMessage::Reload(next_rules)).await;
    rollup.send_async(RollUpMessage::Reload(next_rollup)).await;
    found.damaged += adopted.damaged;
    Recovered { forgotten: adopted.forgotten, ..found }
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
