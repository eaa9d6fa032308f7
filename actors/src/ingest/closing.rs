//! Windows that are closed before their time: by a stop, or because their definition changes.
//!
//! Promises: it is a record, live and taken in again at the same place (promises I1, I5); who asked hears whether every stream closed its own.
//! Never: it goes on beside a round of the checkpoint, which could cover the record before a stream has heeded it.

use std::sync::Arc;

use actix::Addr;
use nearside_journal::{CommitOutcome, Lsn, Record};
use nearside_schemas::{StreamName, Timestamp, failpoint};

use super::{Ingest, all_done};
use crate::stream::{DrainShard, Shard};

impl Ingest {
    /// Records that the windows of all streams of these definitions close, then closes them; ready when their summaries are handed on.
    /// It is a record because it changes what comes out (I5): a crash right after it must not open a window again whose revision is given
    /// out. False where the journal cannot write, and nothing is closed, or where a stream or a shard could not be told: the next start
    /// closes its windows.
    pub async fn close_windows(&self, now: Timestamp, streams: Vec<StreamName>, for_good: bool) -> bool {
        let (done, finished) = tokio::sync::mpsc::unbounded_channel();
        let shards: Vec<Addr<Shard>> = self.shards.iter().map(|shard| shard.address.clone()).collect();
        let definitions = Arc::new(self.positions(&streams));
        let (written, is_written) = tokio::sync::oneshot::channel();
        let close = Box::new(move |outcome: CommitOutcome, _: Vec<Record>| {
            // In the order of the journal, as readings are.
            if let CommitOutcome::Durable { first } = outcome {
                for shard in shards {
                    let definitions = definitions.clone();
                    let drain = DrainShard { now, lsn: first, for_good, definitions, done: done.clone() };
                    if shard.try_send(drain).is_err() {
                        // Only one that has ended takes none: a new address always has room for one message.
                        let _ = done.send(());
                        tracing::error!("a shard did not close its windows; the next start closes them");
                    }
                }
            }
            // Whoever asked may not wait any more.
            let _ = written.send(matches!(outcome, CommitOutcome::Durable { .. }));
        });
        self.journal.append(vec![Record::Close { streams, for_good, at: now }], close).await;
        let are_closed = all_done(finished).await;
        failpoint("windows-closed");
        is_written.await.unwrap_or(false) && are_closed
    }

    /// Closes windows where the journal says that they were closed.
    pub async fn close_windows_again(&self, lsn: Lsn, now: Timestamp, streams: &[StreamName], for_good: bool) {
        let (done, finished) = tokio::sync::mpsc::unbounded_channel();
        let definitions = Arc::new(self.positions(streams));
        for shard in &self.shards {
            let drain = DrainShard { now, lsn, for_good, definitions: definitions.clone(), done: done.clone() };
            // A shard that has ended is seen by health, and so is one that ends because a stream could not be told.
            let _ = shard.address.send(drain).await;
        }
        drop(done);
        let _ = all_done(finished).await;
    }
}
