//! What beats while the gateway runs: recovery first, then ticks and checkpoints.
//!
//! Promises: no reading is taken from a device before recovery is over; ticks are journal records (promise I5).

use std::sync::Arc;
use std::time::Duration;

use nearside_actors::checkpoint::Checkpointer;
use nearside_actors::ingest::Ingest;
use nearside_actors::recovery::{self, Listeners, Progress};
use nearside_actors::rollup::RollUpMessage;
use nearside_actors::stage::StageSender;
use nearside_broker::Recovery;
use nearside_journal::{Checkpoint, Lsn, Reader};
use nearside_schemas::{Clock, Publish, StreamName};
use nearside_telemetry::{Metric, Telemetry};
use tokio::sync::watch;

use crate::middle::Closed;

/// Where streams go on from.
pub struct Start {
    /// Their states.
    pub checkpoint: Checkpoint,
    /// Definitions whose windows were closed since.
    pub closed_streams: Vec<StreamName>,
    /// What the journal remembers since.
    pub reader: Reader,
}

impl Start {
    /// Streams are as they are.
    pub fn going_on() -> Self {
        Self { checkpoint: Checkpoint::default(), closed_streams: Vec::new(), reader: Reader::empty() }
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
    pub async fn run(self, mut stop: watch::Receiver<bool>, closed: Closed) -> Option<Checkpointer> {
        let Self { mut checkpointer, start, begins_at, progress, recovery: front_door, clock, tick, telemetry } = self;
        let ingest = checkpointer.ingest.clone();
        let (rules, rollup) = (checkpointer.rules.clone(), checkpointer.rollup.clone());
        let Start { checkpoint, closed_streams, reader } = start;
        let span = (checkpoint.covers, begins_at);
        let recovery = async {
            let mut found = recovery::adopt(&ingest, checkpoint, &closed_streams).await;
            let journalled = |number: Lsn, publish: &Publish| front_door.journalled(number.0, publish);
            let listeners = Listeners { rules: &rules, rollup: &rollup, journalled: &journalled };
            recovery::replay(&ingest, reader, span, listeners, &progress, &mut found).await;
            found
        };
        let found = tokio::select! {
            found = recovery => found,
            _ = stop.wait_for(|stop| *stop) => return None,
        };
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
                ingest.tick(now).await;
                // A roll-up that is behind hears of time at the next tick.
                rollup.offer(RollUpMessage::Tick(now));
            }
            _ = stop.changed() => return,
        }
    }
}
