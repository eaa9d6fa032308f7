//! Credit: how many readings may be admitted and not yet handled (promises I1, I3, I4).
//!
//! Promises: readings are admitted only when their shard and their stream have room, so a full stream makes its own connections
//! wait before anything was acknowledged and no other stream waits for it for ever.
//! Never: credit is lost; an [`Admission`] gives back what it took when it is dropped, whatever happened to the readings.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nearside_telemetry::Gauge;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::stream::{Draft, StreamRef, Work};

/// Readings in use, up to a bound. Whoever finds any room may pass it: else what is larger than the bound never could be taken.
struct Used {
    bound: usize,
    readings: AtomicUsize,
}

impl Used {
    fn of(bound: usize) -> Self {
        Self { bound: bound.max(1), readings: AtomicUsize::new(0) }
    }

    fn has_room(&self) -> bool {
        self.readings.load(Ordering::SeqCst) < self.bound
    }

    fn take(&self, readings: usize) -> bool {
        let wanted = |used: usize| (used < self.bound).then_some(used + readings);
        self.readings.fetch_update(Ordering::SeqCst, Ordering::SeqCst, wanted).is_ok()
    }

    fn give_back(&self, readings: usize) {
        self.readings.fetch_sub(readings, Ordering::SeqCst);
    }
}

/// The credit of one shard.
pub struct ShardCredit {
    used: Used,
    stream_bound: usize,
    freed: Notify,
    /// Who waits for `freed`: telling nobody costs a lock each time.
    waiting: AtomicUsize,
    gauge: Gauge,
}

/// The credit of one stream, which is part of its shard's.
pub struct StreamCredit {
    shard: Arc<ShardCredit>,
    used: Used,
}

/// Credit taken for readings of one stream; given back when dropped.
pub struct Admission {
    stream: Arc<StreamRef>,
    readings: usize,
}

impl ShardCredit {
    /// Credit for at most `shard_bound` readings, and `stream_bound` a stream.
    pub fn new(shard_bound: usize, stream_bound: usize, gauge: Gauge) -> Arc<Self> {
        let (used, waiting) = (Used::of(shard_bound), AtomicUsize::new(0));
        Arc::new(Self { used, stream_bound, freed: Notify::new(), waiting, gauge })
    }

    /// The credit of a further stream.
    pub fn stream(self: &Arc<Self>) -> StreamCredit {
        StreamCredit { shard: self.clone(), used: Used::of(self.stream_bound) }
    }

    /// Waits until no credit is in use.
    pub async fn unused(&self) {
        let _waits = Waits::new(self);
        loop {
            // Registered before the look: what is freed between the two is not missed.
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
        self.used.readings.load(Ordering::Acquire)
    }

    /// Publishes the use as a metric.
    pub fn observe(&self) {
        self.gauge.set(self.used() as f64);
    }

    fn give_back(&self, readings: usize) {
        // In one order with `Waits`: either this sees who waits, or they see what it freed.
        self.used.give_back(readings);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }
}

/// Takes credit for all these readings and moves them to `works`.
///
/// # Errors
/// The shard that has no room, or one of whose streams has none. Nothing is taken, and the readings stay where they are.
pub fn try_admit(drafts: &mut Vec<Draft>, works: &mut Vec<Work>) -> Result<(), Arc<ShardCredit>> {
    take(drafts)?;
    works.extend(drafts.drain(..).map(|Draft { stream, readings, lsn }| {
        let admission = Admission { readings: readings.len(), stream };
        Work { readings, lsn, admission }
    }));
    Ok(())
}

/// Counts these readings as used, all or none.
fn take(drafts: &[Draft]) -> Result<(), Arc<ShardCredit>> {
    // Looked at before anything is taken: what is given back wakes whoever waits, and one who waits would wake himself for ever.
    let lacks_room =
        |draft: &&Draft| !draft.stream.credit.used.has_room() || !draft.stream.credit.shard.used.has_room();
    if let Some(full) = drafts.iter().find(lacks_room) {
        return Err(full.stream.credit.shard.clone());
    }
    let mut shards: SmallVec<[(&Arc<ShardCredit>, usize); 4]> = SmallVec::new();
    for draft in drafts {
        let shard = &draft.stream.credit.shard;
        match shards.iter_mut().find(|(known, _)| Arc::ptr_eq(known, shard)) {
            Some((_, readings)) => *readings += draft.readings.len(),
            None => shards.push((shard, draft.readings.len())),
        }
    }
    let give_back = |taken: usize| shards.iter().take(taken).for_each(|(shard, readings)| shard.give_back(*readings));
    if let Some(full) = shards.iter().position(|(shard, readings)| !shard.used.take(*readings)) {
        give_back(full);
        return Err(shards[full].0.clone());
    }
    let full = drafts.iter().position(|draft| !draft.stream.credit.used.take(draft.readings.len()));
    if let Some(full) = full {
        drafts[..full].iter().for_each(|draft| draft.stream.credit.used.give_back(draft.readings.len()));
        give_back(shards.len());
        return Err(drafts[full].stream.credit.shard.clone());
    }
    Ok(())
}

/// As [`try_admit`], waiting. Whoever waits must hold no credit, or it could wait for itself.
pub async fn admit(drafts: &mut Vec<Draft>, works: &mut Vec<Work>) {
    while let Err(full) = try_admit(drafts, works) {
        let _waits = Waits::new(&full);
        let mut freed = pin!(full.freed.notified());
        freed.as_mut().enable();
        // Tried again once that is registered: what was freed before it is not noticed.
        match try_admit(drafts, works) {
            Ok(()) => return,
            Err(still) if Arc::ptr_eq(&still, &full) => freed.await,
            Err(_) => {}
        }
    }
}

impl Admission {
    /// The stream whose readings these are.
    pub const fn stream(&self) -> &Arc<StreamRef> {
        &self.stream
    }

    /// Takes over the credit of further readings of the same stream.
    pub fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.stream, &other.stream), "credit of another stream");
        self.readings += std::mem::take(&mut other.readings);
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
        if self.readings > 0 {
            self.stream.credit.used.give_back(self.readings);
            self.stream.credit.shard.give_back(self.readings);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearside_journal::Lsn;
    use nearside_schemas::{KeyValues, Reading, StreamId, Timestamp, Values};
    use std::time::Duration;

    fn stream(n: u8, shard: &Arc<ShardCredit>) -> Arc<StreamRef> {
        Arc::new(StreamRef::new(StreamId::from_bytes([n; 16]), 0, 0, KeyValues::new(), shard.stream()))
    }

    fn draft(stream: &Arc<StreamRef>, readings: usize) -> Draft {
        let at = Timestamp::MIN;
        let reading = Reading { time: at, received: at, sequence: None, values: Values::new() };
        Draft {
            stream: stream.clone(),
            readings: std::iter::repeat_n(reading, readings).collect(),
            lsn: Lsn::default(),
        }
    }

    fn taken(drafts: impl IntoIterator<Item = Draft>) -> Option<Vec<Work>> {
        let mut works = Vec::new();
        try_admit(&mut drafts.into_iter().collect(), &mut works).ok().map(|()| works)
    }

    #[test]
    fn a_full_stream_does_not_take_from_others() {
        let credit = ShardCredit::new(100, 10, Gauge::default());
        let [one, two] = [1, 2].map(|n| stream(n, &credit));
        let held = taken([draft(&one, 10)]).unwrap();
        assert!(taken([draft(&one, 1)]).is_none());
        assert!(taken([draft(&two, 10)]).is_some());
        drop(held);
        assert!(taken([draft(&one, 1)]).is_some());
        assert_eq!(credit.used(), 0, "every admission gave back what it took");
    }

    #[test]
    fn a_message_larger_than_the_bound_is_admitted() {
        let credit = ShardCredit::new(100, 10, Gauge::default());
        let [one, two] = [1, 2].map(|n| stream(n, &credit));
        let large = taken([draft(&one, 500)]).unwrap();
        assert!(taken([draft(&two, 1)]).is_none(), "the shard is full");
        drop(large);
        assert!(taken([draft(&two, 1)]).is_some());
    }

    #[test]
    fn readings_are_admitted_together_or_not_at_all() {
        let [near, far] = [100, 100].map(|bound| ShardCredit::new(bound, 10, Gauge::default()));
        let [one, two, three] = [(1, &near), (2, &near), (3, &far)].map(|(n, shard)| stream(n, shard));
        let held = taken([draft(&one, 10)]).unwrap();
        let mut drafts = vec![draft(&three, 4), draft(&two, 3), draft(&one, 1)];
        let full = try_admit(&mut drafts, &mut Vec::new()).unwrap_err();
        assert!(Arc::ptr_eq(&full, &near));
        assert_eq!((drafts.len(), near.used(), far.used()), (3, 10, 0), "what was taken for the others was given back");
        let mut both = taken([draft(&two, 8), draft(&three, 8), draft(&two, 8)]).unwrap();
        assert_eq!((near.used(), far.used()), (26, 8));
        let (last, mut first) = (both.remove(2), both.remove(0));
        first.admission.join(last.admission);
        assert_eq!((near.used(), far.used()), (26, 8), "who takes credit over holds it");
        drop(first);
        assert_eq!((near.used(), far.used()), (10, 8));
        drop((held, both));
        assert_eq!((near.used(), far.used()), (0, 0));
    }

    #[tokio::test]
    async fn who_waits_does_not_wake_himself() {
        let credit = ShardCredit::new(100, 10, Gauge::default());
        let one = stream(1, &credit);
        let _held = taken([draft(&one, 10)]).unwrap();
        let mut drafts = vec![draft(&stream(2, &credit), 1), draft(&one, 1)];
        let mut works = Vec::new();
        let waiting = std::pin::pin!(admit(&mut drafts, &mut works));
        let mut polls = 0;
        let mut waiting = waiting;
        let counted = std::future::poll_fn(|cx| {
            polls += 1;
            waiting.as_mut().poll(cx)
        });
        assert!(tokio::time::timeout(Duration::from_millis(50), counted).await.is_err());
        assert!(polls <= 2, "polled {polls} times: once to begin with, and once when the time was up");
    }

    #[tokio::test]
    async fn waiting_ends_when_credit_comes_back() {
        let credit = ShardCredit::new(10, 10, Gauge::default());
        let one = stream(1, &credit);
        let held = taken([draft(&one, 10)]).unwrap();
        let waiting = tokio::spawn(async move { admit(&mut vec![draft(&one, 5)], &mut Vec::new()).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    }
}
