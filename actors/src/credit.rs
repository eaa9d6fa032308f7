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
use smallvec::SmallVec;
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

/// Credit taken for the readings of one message; given back when dropped.
pub struct Admission {
    credit: Arc<ShardCredit>,
    /// Readings by bucket, in the order of the buckets.
    parts: SmallVec<[(usize, usize); 1]>,
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

    /// Takes credit for the readings of one message by stream, all or nothing. A message is admitted where there is any room: the
    /// bounds may be passed by one message, for else one larger than a bound never could be.
    pub fn try_admit(self: &Arc<Self>, parts: &[(StreamId, usize)]) -> Option<Admission> {
        let mut parts: SmallVec<[(usize, usize); 1]> =
            parts.iter().map(|(stream, readings)| (stream.bucket(STREAM_BUCKETS), *readings)).collect();
        if parts.len() > 1 {
            parts.sort_unstable_by_key(|(bucket, _)| *bucket);
            parts.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                kept.1 += if same { next.1 } else { 0 };
                same
            });
        }
        let readings = parts.iter().map(|(_, readings)| readings).sum();
        if !take(&self.used, readings, self.shard_bound) {
            return None;
        }
        for (taken, (bucket, readings_of_bucket)) in parts.iter().enumerate() {
            if !take(&self.streams[*bucket], *readings_of_bucket, self.stream_bound) {
                parts.truncate(taken);
                // Dropping it gives back what was taken so far.
                drop(Admission { credit: self.clone(), parts, readings });
                return None;
            }
        }
        Some(Admission { credit: self.clone(), parts, readings })
    }

    /// Waits for credit.
    pub async fn admit(self: &Arc<Self>, parts: &[(StreamId, usize)]) -> Admission {
        let _waits = Waits::new(self);
        loop {
            // Registered before the try: what is freed between the two is not missed.
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            // Looked at before it is taken: what a try takes and gives back wakes whoever waits, itself too, and it would never rest.
            if !self.has_room(parts) {
                freed.await;
                continue;
            }
            if let Some(admission) = self.try_admit(parts) {
                return admission;
            }
            // Somebody was faster.
            tokio::task::yield_now().await;
        }
    }

    /// Whether there is room now.
    fn has_room(&self, parts: &[(StreamId, usize)]) -> bool {
        let has_room = |used: &AtomicUsize, bound| used.load(Ordering::SeqCst) < bound;
        has_room(&self.used, self.shard_bound)
            && parts.iter().all(|(stream, _)| has_room(&self.streams[stream.bucket(STREAM_BUCKETS)], self.stream_bound))
    }

    /// Waits until no credit is in use.
    pub async fn unused(&self) {
        let _waits = Waits::new(self);
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.used() == 0 {
                return;
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

impl Admission {
    /// Splits off the part of one stream's readings, to be given back by itself.
    pub fn split_off(&mut self, stream: &StreamId, readings: usize) -> Self {
        let bucket = stream.bucket(STREAM_BUCKETS);
        if let Ok(at) = self.parts.binary_search_by_key(&bucket, |(known, _)| *known) {
            self.parts[at].1 -= readings;
        }
        self.readings -= readings;
        Self { credit: self.credit.clone(), parts: SmallVec::from_iter([(bucket, readings)]), readings }
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
        if self.readings == 0 {
            return;
        }
        // In one order with `Waits`: either this sees who waits, or they see what it freed.
        self.credit.used.fetch_sub(self.readings, Ordering::SeqCst);
        for (bucket, readings) in &self.parts {
            self.credit.streams[*bucket].fetch_sub(*readings, Ordering::SeqCst);
        }
        if self.credit.waiting.load(Ordering::SeqCst) > 0 {
            self.credit.freed.notify_waiters();
        }
    }
}

fn take(used: &AtomicUsize, want: usize, bound: usize) -> bool {
    used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| (now < bound).then_some(now + want)).is_ok()
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
        let held = credit.try_admit(&[(stream(1), 10)]).unwrap();
        assert!(credit.try_admit(&[(stream(1), 1)]).is_none());
        assert!(credit.try_admit(&[(stream(2), 10)]).is_some());
        drop(held);
        assert!(credit.try_admit(&[(stream(1), 1)]).is_some());
        assert_eq!(credit.used(), 0, "every admission gave back what it took");
    }

    #[test]
    fn a_message_larger_than_the_bound_is_admitted() {
        let credit = ShardCredit::new(100, 10, Gauge::default());
        let large = credit.try_admit(&[(stream(1), 500)]).unwrap();
        assert!(credit.try_admit(&[(stream(2), 1)]).is_none(), "the shard is full");
        drop(large);
        assert!(credit.try_admit(&[(stream(2), 1)]).is_some());
    }

    #[test]
    fn a_message_is_admitted_whole_or_not_at_all() {
        let credit = ShardCredit::new(100, 10, Gauge::default());
        let held = credit.try_admit(&[(stream(1), 10)]).unwrap();
        assert!(credit.try_admit(&[(stream(2), 3), (stream(1), 1)]).is_none());
        assert_eq!(credit.used(), 10, "what was taken for the other stream was given back");
        let mut both = credit.try_admit(&[(stream(2), 8), (stream(3), 8), (stream(2), 8)]).unwrap();
        assert_eq!(credit.used(), 34);
        let parts = [both.split_off(&stream(2), 8), both.split_off(&stream(3), 8), both.split_off(&stream(2), 8)];
        drop(both);
        assert_eq!(credit.used(), 34, "each part gives back its own");
        drop((held, parts));
        assert_eq!(credit.used(), 0);
    }

    /// A connection that waits for a full stream leaves its thread to others.
    #[test]
    fn who_waits_for_a_full_stream_rests() {
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let credit = ShardCredit::new(100, 10, Gauge::default());
            let held = credit.try_admit(&[(stream(1), 10)]).unwrap();
            let parts = [(stream(1), 1)];
            let mut waiting = pin!(credit.admit(&parts));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(waiting.as_mut().poll(&mut context).is_pending());
            drop(held);
            assert!(waiting.as_mut().poll(&mut context).is_ready());
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(10)).expect("it does not go round and round");
    }

    #[tokio::test]
    async fn waiting_ends_when_credit_comes_back() {
        let credit = ShardCredit::new(10, 10, Gauge::default());
        let held = credit.admit(&[(stream(1), 10)]).await;
        let waiting = tokio::spawn({
            let credit = credit.clone();
            async move { drop(credit.admit(&[(stream(1), 5)]).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    }
}
