//! The writer thread: everything queued becomes one durable transaction.
//!
//! Promises: whoever asked is answered `true` only once everything put before is on disk. After a failed write or sync nothing is
//! tried again on the same file (a sync that failed once may say yes the second time with the data gone): from then on every answer is
//! `false` until a restart, and what was not put is still in the journal. A full disk is not such a failure: the reserve is given up,
//! the file is opened anew from what is on it, the least urgent items are shed, and if there still is no room sealing waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flume::Receiver;
use nearside_privacy::{Class, KeyRing, SealedItem};
use nearside_schemas::{Clock, failpoint};
use nearside_telemetry::{Counter, Gauge, Histogram, Metric, Telemetry};
use tokio::sync::{Notify, oneshot};

use crate::config::OutboxConfig;
use crate::dead::DeadReason;
use crate::medium::Fault;
use crate::stats::Sequence;
use crate::store::{Bounds, Changes, Put, Rejection, Round, Store, Trouble};

pub(crate) enum Request {
    Put(SealedItem, Option<oneshot::Sender<bool>>),
    Acknowledge(Vec<Sequence>),
    Reject { sequence: Sequence, reason: DeadReason, detail: String },
    Flush(oneshot::Sender<bool>),
}

/// The pause before a full disk is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// Most requests of one transaction.
const GROUP: usize = 1_024;
/// Items shed in one transaction on a full disk.
const SHED_STEP: u64 = 64;
/// Commits between two looks at whether a spent reserve can be set aside again.
const RESERVE_EVERY: u64 = 256;

pub(crate) struct Writer {
    store: Store,
    keys: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    /// Bytes that are set aside for a full disk.
    reserve: u64,
    /// The quota that the disk has room for, while that is less than the configured one.
    squeezed: Option<u64>,
    reserve_spent: bool,
    commits: u64,
    /// Something that was put is not on disk: what is answered from now on is no.
    lost: bool,
    arrived: Arc<Notify>,
    metrics: Metrics,
}

struct Metrics {
    items: Vec<Gauge>,
    shed: Vec<Counter>,
    replaced: Vec<Counter>,
    known: Counter,
    sent: Counter,
    dead: Vec<Counter>,
    dead_shed: Counter,
    dead_items: Gauge,
    bytes: Gauge,
    oldest: Gauge,
    commit: Histogram,
    errors: Counter,
    refused: Counter,
    reserve: Gauge,
    trouble: Gauge,
}

impl Writer {
    pub(crate) fn new(
        store: Store,
        keys: Arc<KeyRing>,
        clock: Arc<dyn Clock>,
        config: &OutboxConfig,
        arrived: Arc<Notify>,
        telemetry: &Telemetry,
    ) -> Self {
        let bounds = Bounds { quota: config.quota.bytes(), dead_quota: config.dead_quota.bytes(), most_shed: u64::MAX };
        let metrics = Metrics::new(telemetry);
        Self {
            store,
            keys,
            clock,
            bounds,
            reserve: config.reserve.bytes(),
            squeezed: None,
            reserve_spent: false,
            commits: 0,
            lost: false,
            arrived,
            metrics,
        }
    }

    pub(crate) fn run(mut self, queue: &Receiver<Request>) {
        self.set_reserve();
        self.observe();
        while let Ok(first) = queue.recv() {
            let (round, waiting) = self.gather(first, queue);
            let has_puts = !round.puts.is_empty();
            let committed = self.commit_round(&round, queue);
            if !committed {
                self.lost |= has_puts;
                self.metrics.refused.inc_by(round.puts.len() as u64);
            }
            let answer = committed && !self.lost;
            for done in waiting {
                // Whoever asked may not wait any more.
                let _ = done.send(answer);
            }
            self.observe();
            if has_puts {
                self.arrived.notify_one();
            }
        }
    }

    fn gather(&mut self, first: Request, queue: &Receiver<Request>) -> (Round, Vec<oneshot::Sender<bool>>) {
        let (mut round, mut waiting) = (Round::default(), Vec::new());
        let at = self.clock.now().as_micros();
        let mut next = Some(first);
        let mut requests = 0;
        while let Some(request) = next {
            match request {
                Request::Put(item, done) => {
                    waiting.extend(done);
                    match item.store(&self.keys) {
                        Ok(stored) => round.puts.push(Put { item, stored, at }),
                        Err(error) => {
                            self.lost = true;
                            self.metrics.refused.inc();
                            tracing::error!(%error, "an item could not be written for the outbox");
                        }
                    }
                }
                Request::Acknowledge(sequences) => round.acknowledged.extend(sequences),
                Request::Reject { sequence, reason, detail } => {
                    round.rejected.push(Rejection { sequence, reason, detail, at });
                }
                Request::Flush(done) => waiting.push(done),
            }
            requests += 1;
            next = if requests < GROUP { queue.try_recv().ok() } else { None };
        }
        (round, waiting)
    }

    fn commit_round(&mut self, round: &Round, queue: &Receiver<Request>) -> bool {
        let mut full = 0;
        loop {
            if self.trouble() == Some(Trouble::Poisoned) {
                return false;
            }
            if round.is_empty() {
                // Whatever was asked about is on disk already.
                return true;
            }
            match self.apply(round, self.bounds()) {
                Ok(()) => {
                    self.set_trouble(None);
                    self.commits += 1;
                    if (self.reserve_spent || self.squeezed.is_some()) && self.commits.is_multiple_of(RESERVE_EVERY) {
                        self.set_reserve();
                    }
                    return true;
                }
                Err(Fault::Unknown) => self.poison(),
                Err(Fault::Full) => {
                    full += 1;
                    // Room that was made again and again and did not do is none.
                    while (!self.make_room() || full > 8) && self.trouble() != Some(Trouble::Poisoned) {
                        full = 0;
                        self.set_trouble(Some(Trouble::DiskFull));
                        if queue.is_disconnected() {
                            return false;
                        }
                        std::thread::sleep(PAUSE);
                    }
                }
            }
        }
    }

    fn apply(&mut self, round: &Round, bounds: Bounds) -> Result<(), Fault> {
        let started = Instant::now();
        failpoint("outbox-committing");
        let result = self.store.apply(round, bounds);
        failpoint("outbox-committed");
        self.metrics.commit.observe(started.elapsed().as_secs_f64());
        match result {
            Ok(changes) => {
                self.metrics.count(&changes);
                Ok(())
            }
            Err(fault) => {
                self.metrics.errors.inc();
                Err(fault)
            }
        }
    }

    /// After a full disk: gives up the reserve, opens the file anew and sheds an eighth of what waits, least urgent first, so that what comes
    /// is written to the pages that it leaves behind instead of growing the file. False where the disk has no room even for that.
    fn make_room(&mut self) -> bool {
        if self.store.medium().release_reserve() {
            self.reserve_spent = true;
            self.commits = 0;
            self.metrics.reserve.set(0.0);
            tracing::error!("the disk is full; the outbox gives up its reserve and sheds what is least urgent");
        }
        match self.store.reopen() {
            Ok(()) => {}
            Err((_, Fault::Full)) => return false,
            Err((error, Fault::Unknown)) => {
                tracing::error!(%error, "the outbox does not open again after a full disk");
                self.poison();
                return false;
            }
        }
        let bytes = self.waiting_bytes();
        // The reserve has room for as much, whatever waited before.
        let quota = (bytes - bytes / 8).max(self.reserve / 4);
        self.squeezed = Some(quota);
        while self.waiting_bytes() > quota {
            let step = Bounds { quota, most_shed: SHED_STEP, ..self.bounds };
            match self.apply(&Round::default(), step) {
                Ok(()) => {}
                Err(Fault::Full) => return false,
                Err(Fault::Unknown) => {
                    self.poison();
                    return false;
                }
            }
        }
        true
    }

    fn waiting_bytes(&self) -> u64 {
        self.store.shared.state.lock().stats.bytes
    }

    fn poison(&mut self) {
        self.set_trouble(Some(Trouble::Poisoned));
        tracing::error!("the outbox is not written to before a restart; what is not in it is still in the journal");
    }

    fn bounds(&self) -> Bounds {
        Bounds { quota: self.squeezed.unwrap_or(u64::MAX).min(self.bounds.quota), ..self.bounds }
    }

    fn set_reserve(&mut self) {
        let set = self.store.medium().set_reserve();
        self.reserve_spent = set.is_err();
        match set {
            Ok(()) => self.squeezed = None,
            Err(error) => tracing::warn!(%error, "no room for the outbox's reserve"),
        }
        self.metrics.reserve.set(if self.reserve_spent { 0.0 } else { 1.0 });
    }

    fn trouble(&self) -> Option<Trouble> {
        self.store.shared.state.lock().trouble
    }

    fn set_trouble(&self, trouble: Option<Trouble>) {
        self.store.shared.state.lock().trouble = trouble;
        self.metrics.trouble.set(if trouble.is_some() { 1.0 } else { 0.0 });
    }

    fn observe(&self) {
        let stats = self.store.shared.state.lock().stats.clone();
        for (gauge, count) in self.metrics.items.iter().zip(stats.items) {
            gauge.set(count as f64);
        }
        self.metrics.bytes.set(stats.bytes as f64);
        self.metrics.dead_items.set(stats.dead as f64);
        let age = stats.oldest_micros.map_or(0, |oldest| self.clock.now().as_micros().saturating_sub(oldest));
        self.metrics.oldest.set(age as f64 / 1e6);
    }
}

impl Metrics {
    fn new(telemetry: &Telemetry) -> Self {
        let by_class = |metric| Class::ALL.iter().map(|class| telemetry.counter(metric, &[class.label()])).collect();
        Self {
            items: Class::ALL.iter().map(|class| telemetry.gauge(Metric::OutboxItems, &[class.label()])).collect(),
            shed: by_class(Metric::OutboxShed),
            replaced: by_class(Metric::OutboxReplaced),
            known: telemetry.counter(Metric::OutboxRepeated, &["waiting"]),
            sent: telemetry.counter(Metric::OutboxRepeated, &["sent"]),
            dead: DeadReason::ALL.iter().map(|r| telemetry.counter(Metric::OutboxDead, &[r.label()])).collect(),
            dead_shed: telemetry.counter(Metric::OutboxDeadShed, &[]),
            dead_items: telemetry.gauge(Metric::OutboxDeadItems, &[]),
            bytes: telemetry.gauge(Metric::OutboxBytes, &[]),
            oldest: telemetry.gauge(Metric::OutboxOldest, &[]),
            commit: telemetry.histogram(Metric::OutboxCommit, &[]),
            errors: telemetry.counter(Metric::OutboxErrors, &[]),
            refused: telemetry.counter(Metric::OutboxRefused, &[]),
            reserve: telemetry.gauge(Metric::OutboxReserve, &[]),
            trouble: telemetry.gauge(Metric::OutboxTrouble, &[]),
        }
    }

    fn count(&self, changes: &Changes) {
        let by = |counters: &[Counter], counts: [u64; 3]| {
            for (counter, count) in counters.iter().zip(counts) {
                counter.inc_by(count);
            }
        };
        by(&self.shed, changes.shed);
        by(&self.replaced, changes.replaced);
        by(&self.dead, changes.dead);
        self.known.inc_by(changes.known);
        self.sent.inc_by(changes.sent);
        self.dead_shed.inc_by(changes.dead_shed);
    }
}
