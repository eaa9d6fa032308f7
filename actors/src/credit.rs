//! Credit: how many readings may be admitted and not yet handled (promises I1, I3, I4).
//!
//! Promises: a message is admitted only when its shard and its stream have room, so a full stream makes its own connections
//! wait before anything was acknowledged and no other stream waits for it for ever.
//! Never: credit is lost; an [`Admission`] gives back what it took when it is dropped, whatever happened to the readings.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nearside_schemas::StreamId;
use nearside_telemetry::Gauge;
use tokio::sync::Notify;

/// Streams share this many counters by hash, so that the table is bounded whatever the number of streams.
const STREAM_BUCKETS: usize = 4_096;

/// The credit of one shard.
pub struct ShardCredit {
    shard_bound: usize,
    stream_bound: usize,
    used: AtomicUsize,
    streams: Vec<AtomicUsize>,
    freed: Notify,
    /// Who waits for `freed`: telling nobody costs a lock each time.
    waiting: AtomicUsize,
    gauge: Gauge,
}

/// Credit taken for some readings of one stream; given back when dropped.
pub struct Admission {
    credit: Arc<ShardCredit>,
    bucket: usize,
    readings: usize,
}

impl ShardCredit {
    /// Credit for at most `shard_bound` readings, and `stream_bound` a stream.
    pub fn new(shard_bound: usize, stream_bound: usize, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self {
            shard_bound: shard_bound.max(1),
            stream_bound: stream_bound.max(1),
            used: AtomicUsize::new(0),
            streams: (0..STREAM_BUCKETS).map(|_| AtomicUsize::new(0)).collect(),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            gauge,
        })
    }

    /// Takes credit for `readings` of `stream`, or nothing. A message larger than a bound is admitted when
    /// it is alone, for else it never could be.
    pub fn try_admit(self: &Arc<Self>, stream: &StreamId, readings: usize) -> Option<Admission> {
        let bucket = stream.bucket(STREAM_BUCKETS);
        if !take(&self.used, readings, self.shard_bound) {
            return None;
        }
        if !take(&self.streams[bucket], readings, self.stream_bound) {
            self.used.fetch_sub(readings, Ordering::AcqRel);
            return None;
        }
        Some(Admission { credit: self.clone(), bucket, readings })
    }

    /// Waits for credit.
    pub async fn admit(self: &Arc<Self>, stream: &StreamId, readings: usize) -> Admission {
        let _waits = Waits::new(self);
        loop {
            // Registered before the try: what is freed between the two is not missed.
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(admission) = self.try_admit(stream, readings) {
                return admission;
            }
            freed.await;
        }
    }

    /// Readings admitted and not yet handled.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Publishes the use as a metric.
    pub fn observe(&self) {
        self.gauge.set(self.used() as f64);
    }
}

/// Someone who waits for credit, until dropped.
struct Waits<'a>(&'a ShardCredit);

impl<'a> Waits<'a> {
    fn new(credit: &'a ShardCredit) -> Self {
        credit.waiting.fetch_add(1, Ordering::SeqCst);
        Self(credit)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        // In one order with `Waits`: either this sees who waits, or they see what it freed.
        self.credit.used.fetch_sub(self.readings, Ordering::SeqCst);
        self.credit.streams[self.bucket].fetch_sub(self.readings, Ordering::SeqCst);
        if self.credit.waiting.load(Ordering::SeqCst) > 0 {
            self.credit.freed.notify_waiters();
        }
    }
}

fn take(used: &AtomicUsize, want: usize, bound: usize) -> bool {
    used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| (now == 0 || now + want <= bound).then_some(now + want))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn stream(n: u8) -> StreamId {
        StreamId::from_bytes([n; 16])
    }

    #[test]
    fn a_full_stream_does_not_take_from_others() {
        let credit = ShardCredit::new(100, 10, Gauge::default());
        let held = credit.try_admit(&stream(1), 10).unwrap();
        assert!(credit.try_admit(&stream(1), 1).is_none());
        assert!(credit.try_admit(&stream(2), 10).is_some());
        drop(held);
        assert!(credit.try_admit(&stream(1), 1).is_some());
        assert_eq!(credit.used(), 0, "every admission gave back what it took");
    }

    #[test]
    fn a_message_larger_than_the_bound_is_admitted_alone() {
        let credit = ShardCredit::new(100, 10, Gauge::default());
        let large = credit.try_admit(&stream(1), 500).unwrap();
        assert!(credit.try_admit(&stream(2), 1).is_none(), "the shard is full");
        drop(large);
        assert!(credit.try_admit(&stream(2), 1).is_some());
    }

    #[tokio::test]
    async fn waiting_ends_when_credit_comes_back() {
        let credit = ShardCredit::new(10, 10, Gauge::default());
        let held = credit.admit(&stream(1), 10).await;
        let waiting = tokio::spawn({
            let credit = credit.clone();
            async move { drop(credit.admit(&stream(1), 5).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    }
}
