//! The end of a gateway, front to back.
//!
//! Promises: what was acknowledged is judged, sealed and kept, or it is said that the next start takes it in again (promise I1); no step takes
//! longer than the grace that it is given.

use std::time::Duration;

use nearside_actors::OnStop;
use nearside_actors::rollup::RollUpMessage;

use super::{Gateway, sending};
use crate::middle::Around;

impl Gateway {
    /// Stops front to back: refuse, let every acknowledged reading be judged, keep or close the windows, seal, commit, take the last
    /// checkpoint, send for as long as `grace` lasts. What was not sent stays in the outbox.
    pub async fn stop(mut self, grace: Duration) {
        let middle = self.current.get();
        middle.ingest.refuse();
        // Where a configuration was being put in force: who waits hears of the refusal.
        self.gate = None;
        // Time stops. A replay that is not over goes on at the next start from where this one began.
        let checkpointer = tokio::time::timeout(grace, self.stop_heart()).await.ok().flatten();
        let Self { front_door, around, outbox, uplink, commands, stop, clock, config, .. } = self;
        let Around { rules, rollup, seal, journal, telemetry, .. } = around;
        let settled = async {
            middle.ingest.judged_through().await;
            // Not of streams that were taken in again only in part: the next start would give the same windows out whole.
            if config.limits.on_stop == OnStop::Close && checkpointer.is_some() {
                middle.ingest.close_windows(clock.now(), middle.ingest.definition_names(), false).await;
                rollup.send_async(RollUpMessage::Drain).await;
            }
            let flushed = rules.flush().await && rollup.flush().await;
            // Commands that the last readings gave are recorded now; they go out before the door closes.
            journal.barrier().await;
            while (commands.1)() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            flushed
        };
        if !tokio::time::timeout(grace, settled).await.unwrap_or(false) {
            tracing::warn!("some readings were not judged in time; they are in the journal");
        }
        front_door.drain(grace).await;
        let sealed = async { seal.flush().await && outbox.flush().await };
        if !tokio::time::timeout(grace, sealed).await.unwrap_or(false) {
            tracing::error!("not everything could be sealed and kept in time; the next start takes it in again");
        }
        if let Some(mut checkpointer) = checkpointer {
            let patience = grace.max(Duration::from_secs(1));
            if !tokio::time::timeout(patience, checkpointer.finish()).await.unwrap_or(false) {
                tracing::warn!(
                    "the last checkpoint was not written; the next start takes in again what the journal holds"
                );
            }
        }
        if let Some((uplink, stop_uplink)) = uplink {
            sending::send_rest(&outbox, uplink, &stop_uplink, grace, &telemetry).await;
        }
        stop.send_replace(true);
        commands.0.abort();
        self.console.abort();
        middle.stop();
    }
}
