//! A stream as everybody knows it: its id, its place, and the marks that its shard keeps on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use nearside_journal::Lsn;
use nearside_schemas::{KeyValues, Reading, StreamId, Timestamp};
use smallvec::SmallVec;

use crate::credit::{Admission, StreamCredit};

/// One stream.
pub struct StreamRef {
    /// Its id.
    pub id: StreamId,
    /// The position of its definition.
    pub definition: usize,
    /// Its shard.
    pub shard: usize,
    /// Its key.
    pub key: KeyValues,
    /// Its credit.
    pub(crate) credit: StreamCredit,
    /// Messages for its actor that it has not taken.
    pending: AtomicU32,
    /// Whether it is among those that got work since the last tick. Only the shard's thread writes it.
    pub(super) is_touched: AtomicBool,
    /// Whether it has changed since its state was last collected.
    pub(super) is_dirty: AtomicBool,
    /// The first record that its state on disk did not hold when the gateway started.
    covers: AtomicU64,
    /// What its patience counts from, in microseconds. Only the shard's thread writes it.
    anchor: AtomicI64,
    /// When it is looked at next while it rests, in microseconds. Only the shard's thread writes it.
    woken_at: AtomicI64,
    /// Bytes of its state when it was last collected.
    pub(super) state_bytes: AtomicUsize,
    /// Where its readings were gathered last.
    place_in_backlog: AtomicUsize,
}

impl StreamRef {
    /// A stream of definition `definition`.
    pub const fn new(id: StreamId, definition: usize, shard: usize, key: KeyValues, credit: StreamCredit) -> Self {
        Self {
            id,
            definition,
            shard,
            key,
            credit,
            pending: AtomicU32::new(0),
            is_touched: AtomicBool::new(false),
            is_dirty: AtomicBool::new(false),
            covers: AtomicU64::new(0),
            anchor: AtomicI64::new(i64::MIN),
            woken_at: AtomicI64::new(i64::MAX),
            state_bytes: AtomicUsize::new(0),
            place_in_backlog: AtomicUsize::new(0),
        }
    }

    /// Whether the state it started with already holds this record.
    pub fn holds(&self, lsn: Lsn) -> bool {
        lsn.0 < self.covers.load(Ordering::Relaxed)
    }

    pub(super) fn starts_from(&self, covers: Lsn) {
        self.covers.store(covers.0, Ordering::Relaxed);
    }

    /// The latest time that something of it waits from, as of the last message that it took.
    pub(super) fn anchor(&self) -> Timestamp {
        Timestamp::from_micros(self.anchor.load(Ordering::Relaxed))
    }

    pub(super) fn set_anchor(&self, anchor: Option<Timestamp>) {
        self.anchor.store(anchor.unwrap_or(Timestamp::MIN).as_micros(), Ordering::Relaxed);
    }

    /// It rests and wants to be woken then. False where it is looked at sooner anyway: whoever looks asks again.
    pub(super) fn asks_to_be_woken(&self, at: Timestamp) -> bool {
        let is_sooner = at.as_micros() < self.woken_at.load(Ordering::Relaxed);
        if is_sooner {
            self.woken_at.store(at.as_micros(), Ordering::Relaxed);
        }
        is_sooner
    }

    /// It is looked at.
    pub(super) fn was_woken(&self, at: Timestamp) {
        if at.as_micros() >= self.woken_at.load(Ordering::Relaxed) {
            self.woken_at.store(i64::MAX, Ordering::Relaxed);
        }
    }

    pub(super) fn place_in_backlog(&self) -> usize {
        self.place_in_backlog.load(Ordering::Relaxed)
    }

    pub(super) fn set_place_in_backlog(&self, place: usize) {
        self.place_in_backlog.store(place, Ordering::Relaxed);
    }

    pub(super) fn given(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn taken(&self) {
        self.pending.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn has_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) > 0
    }
}

/// Readings of one message for one stream that hold no credit yet.
pub struct Draft {
    /// Whose they are.
    pub stream: Arc<StreamRef>,
    /// The readings, in payload order.
    pub readings: SmallVec<[Reading; 1]>,
    /// As [`Work::lsn`].
    pub lsn: Lsn,
}

/// Readings of one message for one stream, with the credit they hold.
pub struct Work {
    /// The readings, in payload order.
    pub readings: SmallVec<[Reading; 1]>,
    /// The record that they came in; until that is written, its place among those that are appended with it.
    pub lsn: Lsn,
    /// Whose they are; given back when they are judged.
    pub admission: Admission,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_rests_is_asked_for_once() {
        let at = Timestamp::from_secs;
        let credit = crate::credit::ShardCredit::new(1, 1, nearside_telemetry::Gauge::default()).stream();
        let stream = StreamRef::new(StreamId::from_bytes([1; 16]), 0, 0, KeyValues::new(), credit);
        assert!(stream.asks_to_be_woken(at(60)));
        assert!(!stream.asks_to_be_woken(at(60)) && !stream.asks_to_be_woken(at(600)), "it is looked at sooner");
        assert!(stream.asks_to_be_woken(at(30)));
        stream.was_woken(at(20));
        assert!(!stream.asks_to_be_woken(at(90)), "that was asked for by its actor");
        stream.was_woken(at(30));
        assert!(stream.asks_to_be_woken(at(90)));
    }
}
