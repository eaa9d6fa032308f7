//! Time that passes, as records: ticks close windows, so a run that reads the journal must hear of the same ones (promise I5).
//!
//! Promise: however slowly streams take their messages, few ticks are on their way (promise I4). Where time passed faster than a hundred thousand
//! busy streams can hear of it, telling them once more is what they would never catch up with.

use std::time::Duration;

use actix::Addr;
use nearside_journal::{CommitOutcome, Lsn, Record};
use nearside_schemas::Timestamp;

use super::Ingest;
use crate::stream::{Shard, ShardTick};

/// Most ticks that streams may have to take before the next one is read from the journal.
const MOST_ON_THEIR_WAY: usize = 65_536;
/// How soon it is looked again whether they have taken them.
const PAUSE: Duration = Duration::from_millis(1);

impl Ingest {
    /// Records that time passes and, once that is on disk, tells every shard. Where a stream has not yet taken an earlier tick nothing is
    /// recorded or told: it hears of time at a later one.
    pub async fn tick(&self, now: Timestamp) {
        if self.ticks.others() > 0 {
            return;
        }
        let on_its_way = self.ticks.clone();
        let shards: Vec<Addr<Shard>> = self.shards.iter().map(|shard| shard.address.clone()).collect();
        let done = Box::new(move |outcome: CommitOutcome, _: Vec<Record>| {
            if let CommitOutcome::Durable { first } = outcome {
                for shard in shards {
                    // Only one that has ended takes none.
                    let _ =
                        shard.try_send(ShardTick { now, lsn: first, is_live: true, on_its_way: on_its_way.clone() });
                }
            }
        });
        self.journal.append(vec![Record::Tick(now)], done).await;
    }

    /// Repeats a tick that the journal remembers.
    pub async fn tick_again(&self, lsn: Lsn, now: Timestamp) {
        while self.ticks.others() > MOST_ON_THEIR_WAY {
            tokio::time::sleep(PAUSE).await;
        }
        for shard in &self.shards {
            let tick = ShardTick { now, lsn, is_live: false, on_its_way: self.ticks.clone() };
            // A shard that has ended is seen by health.
            let _ = shard.address.send(tick).await;
        }
    }
}
