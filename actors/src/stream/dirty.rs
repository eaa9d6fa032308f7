//! Which streams of a shard have changed since their state was last collected, and when it is to be collected again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nearside_journal::Lsn;
use nearside_schemas::Timestamp;

use super::stream_ref::StreamRef;

/// A state of more bytes than this for each second of waiting is collected less often, so that large windows do not keep the
/// disk busy.
const STATE_BYTES_PER_SECOND: u64 = 64 << 10;
/// However large, a state is collected after this many times `checkpoint_after`.
const LONGEST_WAIT: u32 = 10;

/// A stream that has changed.
pub(super) struct Dirty {
    pub(super) stream: Arc<StreamRef>,
    /// The first record that its last state does not hold.
    pub(super) since: Lsn,
    /// When its state is to be collected.
    due: Timestamp,
}

/// All that have changed.
pub(super) struct DirtyStreams {
    after: Duration,
    streams: Vec<Dirty>,
}

impl DirtyStreams {
    /// None; each is to be collected `after` it changed, or later where it is large.
    pub(super) const fn new(after: Duration) -> Self {
        Self { after, streams: Vec::new() }
    }

    /// The stream changes with record `lsn` or a later one.
    pub(super) fn mark(&mut self, stream: &Arc<StreamRef>, lsn: Lsn, now: Timestamp) {
        // Only the shard's thread writes it.
        if stream.is_dirty.load(Ordering::Relaxed) {
            return;
        }
        stream.is_dirty.store(true, Ordering::Relaxed);
        let by_size = Duration::from_secs(stream.state_bytes.load(Ordering::Relaxed) as u64 / STATE_BYTES_PER_SECOND);
        let due = now.plus(by_size.clamp(self.after, self.after * LONGEST_WAIT));
        self.streams.push(Dirty { stream: stream.clone(), since: lsn, due });
    }

    /// The streams whose state is to be collected at `now`, the longest changed first; where the clock has gone back, those too that it
    /// would let wait for longer than any has to.
    pub(super) fn take_due(&mut self, now: Timestamp, most: usize, all: bool) -> Vec<Dirty> {
        let latest = now.plus(self.after * LONGEST_WAIT);
        let (mut due, mut rest): (Vec<Dirty>, Vec<Dirty>) =
            self.streams.drain(..).partition(|one| all || one.due <= now || one.due > latest);
        due.sort_by_key(|one| one.since);
        if due.len() > most {
            rest.extend(due.split_off(most));
        }
        self.streams = rest;
        due.iter().for_each(|one| one.stream.is_dirty.store(false, Ordering::Relaxed));
        due
    }

    /// The state that was collected could not be kept: the stream counts as changed since then again.
    pub(super) fn put_back(&mut self, stream: Arc<StreamRef>, since: Lsn, now: Timestamp) {
        if stream.is_dirty.swap(true, Ordering::Relaxed) {
            if let Some(known) = self.streams.iter_mut().find(|known| known.stream.id == stream.id) {
                known.since = known.since.min(since);
            }
        } else {
            self.streams.push(Dirty { stream, since, due: now.plus(self.after) });
        }
    }

    /// The first record that some state does not hold.
    pub(super) fn oldest(&self) -> Option<Lsn> {
        self.streams.iter().map(|one| one.since).min()
    }
}

#[cfg(test)]
mod tests {
    use nearside_schemas::{KeyValues, StreamId};
    use nearside_telemetry::Gauge;

    use super::*;
    use crate::credit::ShardCredit;

    #[test]
    fn a_clock_that_goes_back_delays_no_checkpoint() {
        let credit = ShardCredit::new(10, 10, Gauge::default()).stream();
        let stream = Arc::new(StreamRef::new(StreamId::from_bytes([1; 16]), 0, 0, KeyValues::new(), credit));
        let mut dirty = DirtyStreams::new(Duration::from_secs(30));
        dirty.mark(&stream, Lsn(1), Timestamp::from_secs(10_000));
        let mut due = |at: i64| dirty.take_due(Timestamp::from_secs(at), 10, false).len();
        assert_eq!((due(10_029), due(9_990)), (0, 0), "not yet");
        assert_eq!(due(9_000), 1);
    }
}
