//! The journal's handle: appends go into a bounded queue, one thread writes.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};

use flume::Sender;
use nearside_schemas::KeySource;
use nearside_telemetry::{Gauge, Metric, Telemetry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{JournalConfig, JournalError};
use crate::lock::JournalLock;
use crate::reader::{Damage, DamageKind, survey_one};
use crate::record::{Lsn, Record};
use crate::storage::{DirectoryStorage, Storage, segment_number};
use crate::writer::Writer;

/// What became of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitOutcome {
    /// It is on disk; the first of its records has this number.
    Durable {
        /// The first number.
        first: Lsn,
    },
    /// The disk area is full and the policy is to refuse.
    QuotaExceeded,
    /// The journal cannot write.
    Failed,
}

/// Called once with what became of an append, in the order of the journal, from the writer's thread: it must return at
/// once. The records come back so that nobody need copy them.
pub type Committed = Box<dyn FnOnce(CommitOutcome, Vec<Record>) + Send + 'static>;

/// What was found when the journal was opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OpenReport {
    /// Records in the last segment.
    pub records: u64,
    /// The number that the next record gets.
    pub next: Lsn,
    /// Damaged places in the last segment.
    pub damage: Vec<Damage>,
    /// The number that the records on disk go up to, where others were given out after it: the folder was lost, or is an older copy.
    pub ends_early: Option<Lsn>,
}

pub(crate) enum Request {
    Append { records: Vec<Record>, done: Committed, permit: OwnedSemaphorePermit },
    FreeBefore(Lsn),
}

/// How far numbers leap where records are missing at the end: more than any journal holds behind a checkpoint, so that no number that a
/// missing record had is given again.
const LEAP: u64 = 1 << 32;

/// Bytes of queue that one permit stands for.
const PERMIT: usize = 64;

/// An open journal. Dropping it without [`Journal::close`] still writes what is queued.
pub struct Journal {
    handle: JournalHandle,
    thread: Option<JoinHandle<()>>,
}

/// A way to append; clone it freely. The writer ends when all are gone.
#[derive(Clone)]
pub struct JournalHandle {
    requests: Sender<Request>,
    credit: Arc<Semaphore>,
    permits: u32,
    queued: Gauge,
}

impl Journal {
    /// Opens the journal in `folder`: reads its last segment, then begins a new one. Records below `reached` were given out, as a
    /// checkpoint knows: where the folder does not go so far, numbers leap and it is said.
    ///
    /// # Errors
    /// Where the configuration makes no sense, the folder cannot be used or another program uses it.
    pub fn open(
        folder: &Path,
        config: JournalConfig,
        keys: Arc<dyn KeySource>,
        telemetry: &Telemetry,
        reached: Lsn,
    ) -> Result<(Self, OpenReport), JournalError> {
        let lock = JournalLock::acquire(folder)?;
        let storage = DirectoryStorage::open(folder, config.fsync)
            .map_err(|source| JournalError::Storage { path: folder.to_owned(), source })?;
        Self::open_locked(Arc::new(storage), config, keys, telemetry, (Some(lock), reached))
    }

    /// Opens the journal in any storage.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_in(
        storage: Arc<dyn Storage>,
        config: JournalConfig,
        keys: Arc<dyn KeySource>,
        telemetry: &Telemetry,
    ) -> Result<(Self, OpenReport), JournalError> {
        Self::open_locked(storage, config, keys, telemetry, (None, Lsn(0)))
    }

    fn open_locked(
        storage: Arc<dyn Storage>,
        config: JournalConfig,
        keys: Arc<dyn KeySource>,
        telemetry: &Telemetry,
        (lock, reached): (Option<JournalLock>, Lsn),
    ) -> Result<(Self, OpenReport), JournalError> {
        config.validate()?;
        let mut report = survey(storage.clone(), keys.clone(), telemetry)?;
        if report.next < reached {
            report.ends_early = Some(report.next);
            report.next = Lsn(reached.0.saturating_add(LEAP));
            telemetry.counter(Metric::JournalDamage, &["missing"]).inc();
        }
        let permits = (config.queue.bytes() as usize / PERMIT).clamp(1, Semaphore::MAX_PERMITS) as u32;
        let mut writer = Writer::new(storage, config, keys, telemetry, report.next);
        writer.begin_segment().map_err(|source| JournalError::Storage { path: "new segment".into(), source })?;
        let (requests, queue) = flume::unbounded();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                writer.run(&queue);
                // Held for as long as anything is written.
                drop(lock);
            })
            .map_err(JournalError::Thread)?;
        let handle = JournalHandle {
            requests,
            credit: Arc::new(Semaphore::new(permits as usize)),
            permits,
            queued: telemetry.gauge(Metric::JournalQueue, &[]),
        };
        Ok((Self { handle, thread: Some(thread) }, report))
    }

    /// A handle.
    pub fn handle(&self) -> JournalHandle {
        self.handle.clone()
    }

    /// Waits until everything queued is on disk and all other handles are gone.
    pub fn close(self) {
        let Self { handle, thread } = self;
        drop(handle);
        if let Some(thread) = thread {
            // The writer does not panic; were it to, there would be nothing left to wait for.
            let _ = thread.join();
        }
    }
}

/// The fewest bytes that a record takes in a segment: its type, the length of its body and a time.
pub(crate) const LEAST_RECORD: u64 = 13;

/// Reads the last segment: the next number is after its last record. Where its end is damaged, records may have been there that
/// cannot be read; the next number is after as many as there was room for. Earlier segments are left to `check`: a start must
/// not take as long as the journal is large.
fn survey(
    storage: Arc<dyn Storage>,
    keys: Arc<dyn KeySource>,
    telemetry: &Telemetry,
) -> Result<OpenReport, JournalError> {
    let mut report = OpenReport::default();
    let names = storage.list().map_err(|source| JournalError::Storage { path: "segments".into(), source })?;
    let Some(last) = names.last() else { return Ok(report) };
    // What is in intact frames is read when it is taken in again.
    let (damage, counted) = survey_one(storage.clone(), keys, last);
    for damage in &damage {
        telemetry.counter(Metric::JournalDamage, &[damage.kind.label()]).inc();
        if damage.kind != DamageKind::TornTail {
            tracing::warn!(segment = %damage.segment, offset = damage.offset, kind = damage.kind.label(), "damage in the journal");
        }
    }
    (report.damage, report.records, report.next) = (damage, counted.records, counted.reached);
    if let Some(Lsn(start)) = segment_number(last) {
        let size = storage.size(last).unwrap_or(0);
        let room = if report.damage.is_empty() { 0 } else { size / LEAST_RECORD };
        // An empty last segment has its name already.
        report.next = report.next.max(Lsn(start.saturating_add(1 + room)));
    }
    Ok(report)
}

impl JournalHandle {
    /// Queues records; ready when there is room for them. `done` is called when they are on disk or cannot be.
    pub async fn append(&self, records: Vec<Record>, done: Committed) {
        let size: usize = records.iter().map(Record::size).sum();
        let want = (size.div_ceil(PERMIT)).clamp(1, self.permits as usize) as u32;
        match self.credit.clone().acquire_many_owned(want).await {
            Ok(permit) => self.queue(records, done, permit),
            Err(_) => done(CommitOutcome::Failed, records),
        }
    }

    /// As [`JournalHandle::append`], for threads that are not async.
    pub fn append_blocking(&self, records: Vec<Record>, done: Committed) {
        block_on(self.append(records, done));
    }

    /// Appends records and waits for what becomes of them; everything queued before is answered by then.
    pub async fn commit(&self, records: Vec<Record>) -> CommitOutcome {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let done = Box::new(move |outcome, _| {
            // Whoever asked may not wait any more.
            let _ = answer.send(outcome);
        });
        self.append(records, done).await;
        answered.await.unwrap_or(CommitOutcome::Failed)
    }

    /// Returns once everything queued so far is answered; false where it could not be written.
    pub async fn barrier(&self) -> bool {
        matches!(self.commit(Vec::new()).await, CommitOutcome::Durable { .. })
    }

    /// Everything before `lsn` is covered by a checkpoint: segments that hold nothing else are removed.
    pub fn free_before(&self, lsn: Lsn) {
        // A writer that is gone frees nothing more.
        let _ = self.requests.send(Request::FreeBefore(lsn));
    }

    /// Whether its thread is there; asking does not keep it alive.
    pub fn watch_life(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let weak = self.requests.downgrade();
        move || weak.upgrade().is_some_and(|requests| !requests.is_disconnected())
    }

    /// Bytes that wait to be written, about.
    pub fn queued_bytes(&self) -> usize {
        let queued = (self.permits as usize).saturating_sub(self.credit.available_permits()) * PERMIT;
        self.queued.set(queued as f64);
        queued
    }

    fn queue(&self, records: Vec<Record>, done: Committed, permit: OwnedSemaphorePermit) {
        if let Err(unsent) = self.requests.send(Request::Append { records, done, permit })
            && let Request::Append { records, done, .. } = unsent.0
        {
            done(CommitOutcome::Failed, records);
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives a future on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}
