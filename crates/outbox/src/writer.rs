//! The writer thread: everything queued becomes one durable transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flume::Receiver;
use nearside_privacy::{Class, KeyRing, SealedItem};
use nearside_schemas::Clock;
use nearside_telemetry::{Counter, Gauge, Histogram, Metric, Telemetry};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::outbox::OutboxConfig;
use crate::store::{Sequence, Store};

pub(crate) enum Request {
    Put(SealedItem, Option<oneshot::Sender<bool>>),
    Remove(Vec<Sequence>),
    Flush(oneshot::Sender<bool>),
}

/// How often a failed commit is tried, and the pause between.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// Most requests of one transaction.
const GROUP: usize = 1_024;

pub(crate) struct Writer {
    store: Arc<Mutex<Store>>,
    keys: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    quota: u64,
    arrived: Arc<Notify>,
    items: Vec<Gauge>,
    shed: Vec<Counter>,
    bytes: Gauge,
    oldest: Gauge,
    commit: Histogram,
    errors: Counter,
}

impl Writer {
    pub(crate) fn new(
        store: Arc<Mutex<Store>>,
        keys: Arc<KeyRing>,
        clock: Arc<dyn Clock>,
        config: &OutboxConfig,
        arrived: Arc<Notify>,
        telemetry: &Telemetry,
    ) -> Self {
        Self {
            store,
            keys,
            clock,
            quota: config.quota.bytes(),
            arrived,
            items: Class::ALL.iter().map(|class| telemetry.gauge(Metric::OutboxItems, &[class.label()])).collect(),
            shed: Class::ALL.iter().map(|class| telemetry.counter(Metric::OutboxShed, &[class.label()])).collect(),
            bytes: telemetry.gauge(Metric::OutboxBytes, &[]),
            oldest: telemetry.gauge(Metric::OutboxOldest, &[]),
            commit: telemetry.histogram(Metric::OutboxCommit, &[]),
            errors: telemetry.counter(Metric::OutboxErrors, &[]),
        }
    }

    pub(crate) fn run(self, queue: &Receiver<Request>) {
        self.observe();
        while let Ok(first) = queue.recv() {
            let (mut puts, mut waiting, mut remove) = (Vec::new(), Vec::new(), Vec::new());
            let mut next = Some(first);
            let mut requests = 0;
            while let Some(request) = next {
                match request {
                    Request::Put(item, done) => {
                        waiting.extend(done);
                        match item.store(&self.keys) {
                            Ok(stored) => puts.push((item, stored, self.clock.now().as_micros())),
                            Err(_) => {
                                self.errors.inc();
                            }
                        }
                    }
                    Request::Remove(sequences) => remove.extend(sequences),
                    Request::Flush(done) => waiting.push(done),
                }
                requests += 1;
                next = if requests < GROUP { queue.try_recv().ok() } else { None };
            }
            let committed = self.commit_with_patience(&puts, &remove);
            for done in waiting {
                // Whoever put it may not wait any more.
                let _ = done.send(committed);
            }
        }
    }

    /// A commit that fails is tried again for a while: meanwhile sealing waits, and with it acknowledgements. A disk that stays
    /// full costs the items of this commit, said and counted.
    fn commit_with_patience(&self, puts: &[(SealedItem, Vec<u8>, i64)], remove: &[Sequence]) -> bool {
        for _ in 0..TRIES {
            if self.commit(puts, remove) {
                return true;
            }
            std::thread::sleep(PAUSE);
        }
        tracing::error!(items = puts.len(), "the outbox gives up on a commit; its items are lost to the cloud");
        false
    }

    fn commit(&self, puts: &[(SealedItem, Vec<u8>, i64)], remove: &[Sequence]) -> bool {
        let started = Instant::now();
        nearside_schemas::failpoint("outbox-committing");
        let result = self.store.lock().apply(puts, remove, self.quota);
        nearside_schemas::failpoint("outbox-committed");
        self.commit.observe(started.elapsed().as_secs_f64());
        let committed = match result {
            Ok(changes) => {
                for (class, count) in changes.shed {
                    if let Some(counter) = self.shed.get(usize::from(class)) {
                        counter.inc_by(count);
                    }
                }
                true
            }
            Err(error) => {
                self.errors.inc();
                tracing::error!(%error, items = puts.len(), "a commit of the outbox failed and is tried again");
                false
            }
        };
        self.observe();
        if !puts.is_empty() {
            self.arrived.notify_one();
        }
        committed
    }

    fn observe(&self) {
        let stats = self.store.lock().stats.clone();
        for (gauge, count) in self.items.iter().zip(stats.items) {
            gauge.set(count as f64);
        }
        self.bytes.set(stats.bytes as f64);
        let age = stats.oldest_micros.map_or(0, |oldest| self.clock.now().as_micros().saturating_sub(oldest));
        self.oldest.set(age as f64 / 1e6);
    }
}
