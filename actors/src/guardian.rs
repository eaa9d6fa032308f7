//! The guardian: knows whether every part of the gateway is there, and starts tasks again that a panic ended.
//!
//! Promises: a part that has ended is named by health and by a metric until it is back (promise I4: nothing fails silently); a task is
//! started again at most so many times a minute, then given up loudly (I3); which parts only a start makes whole is known, so that the
//! gateway ends itself instead of going on without them (I1).
//! Never: it restarts what holds acknowledged readings in memory. Streams are fenced and rebuilt one by one; were a whole shard, stage or
//! writer to end, only a start of the gateway puts it together again from checkpoint and journal, without loss.

use std::sync::Arc;
use std::time::Duration;

use nearside_schemas::Clock;
use nearside_telemetry::{Metric, Telemetry};
use parking_lot::Mutex;

use crate::fence::PanicBudget;

/// Between the end of a task and its next start.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });

/// Whether a part is there.
type IsThere = Box<dyn Fn() -> bool + Send + Sync>;

struct Part {
    name: &'static str,
    is_there: IsThere,
    /// Whether only a start puts it together again, without loss.
    needs_a_start: bool,
}

/// Watches parts. Cheap to share.
#[derive(Default)]
pub struct Guardian {
    parts: Mutex<Vec<Part>>,
}

impl Guardian {
    /// Watches a part from now on that only a start puts together again.
    pub fn watch(&self, name: &'static str, is_there: impl Fn() -> bool + Send + Sync + 'static) {
        self.parts.lock().push(Part { name, is_there: Box::new(is_there), needs_a_start: true });
    }

    /// The parts that have ended and that only a start puts together again: while they are not there, what is acknowledged stays in the
    /// journal.
    pub fn needs_a_start(&self) -> Vec<&'static str> {
        let parts = self.parts.lock();
        parts.iter().filter(|part| part.needs_a_start && !(part.is_there)()).map(|part| part.name).collect()
    }

    /// The parts that have ended, in the order they were given; sets each part's metric.
    pub fn ended(&self, telemetry: &Telemetry) -> Vec<&'static str> {
        let parts = self.parts.lock();
        let mut ended = Vec::new();
        for Part { name, is_there, .. } in parts.iter() {
            let up = is_there();
            telemetry.gauge(Metric::ComponentUp, &[name]).set(f64::from(u8::from(up)));
            if !up {
                ended.push(*name);
            }
        }
        ended
    }

    /// Runs a task that ends by itself only when it is told to; starts it again where a panic ends it, at most `per_minute` times a
    /// minute. Health names it while it is given up.
    pub async fn guard<F>(
        self: Arc<Self>,
        name: &'static str,
        per_minute: u32,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        mut start: impl FnMut() -> F + Send,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut budget = PanicBudget::new(per_minute);
        while tokio::spawn(start()).await.is_err_and(|error| error.is_panic()) {
            telemetry.counter(Metric::ComponentRestarts, &[name]).inc();
            if budget.spend(clock.now()) {
                tracing::error!(
                    component = name,
                    "ended too often by panics and is given up until the gateway starts again"
                );
                // The others do their work without it.
                self.parts.lock().push(Part { name, is_there: Box::new(|| false), needs_a_start: false });
                return;
            }
            tracing::error!(component = name, "a panic ended it; it is started again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_task_is_started_again_and_then_given_up_loudly() {
        let (guardian, telemetry) = (Arc::new(Guardian::default()), Telemetry::new());
        let clock: Arc<dyn Clock> = Arc::new(nearside_schemas::ManualClock::default());
        let starts = Arc::new(AtomicU32::new(0));
        let start = |last: u32| {
            let starts = starts.clone();
            move || {
                let starts = starts.clone();
                async move { assert!(starts.fetch_add(1, Ordering::SeqCst) + 1 == last, "again") }
            }
        };
        guardian.clone().guard("well", 5, clock.clone(), telemetry.clone(), start(3)).await;
        assert_eq!(starts.swap(0, Ordering::SeqCst), 3, "until it ends by itself");
        assert!(guardian.ended(&telemetry).is_empty());
        guardian.clone().guard("ill", 2, clock, telemetry.clone(), start(u32::MAX)).await;
        assert_eq!(starts.load(Ordering::SeqCst), 3);
        assert_eq!(guardian.ended(&telemetry), ["ill"]);
        assert!(guardian.needs_a_start().is_empty(), "the others go on without it");
        guardian.watch("streams", || false);
        assert_eq!(guardian.ended(&telemetry), ["ill", "streams"]);
        assert_eq!(guardian.needs_a_start(), ["streams"]);
    }
}
