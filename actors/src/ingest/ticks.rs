//! Time that passes, as records: ticks close windows, so a run that reads the journal must hear of the same ones (promise I5).
//!
//! Promise: however slowly streams take their messages, few ticks are on their way (promise I4). Where time passed faster than a hundred thousand
//! busy streams can hear of it, telling them each time is what they would never catch up with. And a site whose streams all rest writes to its
//! disk seldom.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::Addr;
use nearside_journal::{CommitOutcome, Lsn, Record};
use nearside_schemas::Timestamp;

use super::Ingest;
use crate::stream::{Shard, ShardTick};

/// Most ticks that streams may have to take before the next one is read from the journal.
const MOST_ON_THEIR_WAY: usize = 65_536;
/// So many ticks in a row may be left out; then all hear of time though one is still behind, for a stream that does not come to its
/// messages must not keep it from the others (promise I3).
const MOST_LEFT_OUT: usize = 7;
/// Where no stream has an actor nothing is recorded so soon after the last tick. Not longer: roll-ups wait for time too, and so do windows
/// that were open when the gateway stopped.
const WHILE_ALL_REST: Duration = Duration::from_secs(2);
/// How soon it is looked again whether they have taken them.
const PAUSE: Duration = Duration::from_millis(1);

impl Ingest {
    /// Records that time passes and, once that is on disk, tells every shard. Where a stream has not yet taken an earlier tick nothing is
    /// recorded or told, [`MOST_LEFT_OUT`] times in a row: it hears of time at a later one. Nor is it within [`WHILE_ALL_REST`] of the last one
    /// where no stream has an actor. Whether it was recorded.
    pub async fn tick(&self, now: Timestamp) -> bool {
        let last = Timestamp::from_micros(self.last_tick.load(Ordering::Relaxed));
        if self.outlet.all_rest() && last <= now && now < last.plus(WHILE_ALL_REST) {
            return false;
        }
        let is_behind = self.ticks.others() > 0;
        if is_behind && self.left_out.fetch_add(1, Ordering::Relaxed) < MOST_LEFT_OUT {
            return false;
        }
        self.left_out.store(0, Ordering::Relaxed);
        self.last_tick.store(now.as_micros(), Ordering::Relaxed);
        let (on_its_way, awake) = (self.ticks.clone(), self.awake.clone());
        let shards: Vec<Addr<Shard>> = self.shards.iter().map(|shard| shard.address.clone()).collect();
        let done = Box::new(move |outcome: CommitOutcome, _: Vec<Record>| {
            if let CommitOutcome::Durable { first } = outcome {
                let awake_since = awake.at_tick(now, true);
                for shard in shards {
                    let on_its_way = on_its_way.clone();
                    // Only one that has ended takes none.
                    let _ = shard.try_send(ShardTick { now, lsn: first, is_live: true, awake_since, on_its_way });
                }
            }
        });
        self.journal.append(vec![Record::Tick(now)], done).await;
        true
    }

    /// Repeats a tick that the journal remembers.
    pub async fn tick_again(&self, lsn: Lsn, now: Timestamp) {
        while self.ticks.others() > MOST_ON_THEIR_WAY {
            tokio::time::sleep(PAUSE).await;
        }
        let awake_since = self.awake.at_tick(now, false);
        for shard in &self.shards {
            let tick = ShardTick { now, lsn, is_live: false, awake_since, on_its_way: self.ticks.clone() };
            // A shard that has ended is seen by health.
            let _ = shard.address.send(tick).await;
        }
    }
}
