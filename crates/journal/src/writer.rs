//! The writer: takes everything that is queued, writes it as one frame, syncs, answers. Under load the next commit starts an
//! interval after the start of the last ([`crate::pace`]): on a fast disk, syncing as often as it can costs more than all the rest.
//!
//! Where the disk refuses, a full one say, everything is answered as failed; about once a second it is tried again: what is on disk
//! of the commit that failed is taken back, and a new segment begins (never does anything follow a failed write or fsync in its file).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flume::Receiver;
use nearside_schemas::{KeySource, failpoint};
use nearside_telemetry::{Counter, Gauge, Histogram, Metric, Telemetry};
use tokio::sync::OwnedSemaphorePermit;

use crate::config::{JournalConfig, WhenFull};
use crate::frame::{FRAME_HEADER, SEGMENT_HEADER, SegmentCipher, SegmentHeader};
use crate::journal::{CommitOutcome, Committed, Request};
use crate::pace::Pace;
use crate::record::{Lsn, Record};
use crate::storage::{SegmentFile, Storage, segment_name};

/// A frame is closed at this size, so that a commit's memory is bounded.
const FRAME_BYTES: usize = 4 << 20;

/// Between two tries to go on after the disk refused.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

struct Segment {
    name: String,
    file: Box<dyn SegmentFile>,
    cipher: SegmentCipher,
    bytes: u64,
}

struct Closed {
    name: String,
    bytes: u64,
}

struct Append {
    records: Vec<Record>,
    done: Committed,
    _permit: OwnedSemaphorePermit,
}

struct Metrics {
    records: Counter,
    bytes: Counter,
    sync: Histogram,
    batch: Histogram,
    size: Gauge,
    segments: Gauge,
    shed_quota: Counter,
    freed: Counter,
    errors: Counter,
    failing: Gauge,
}

pub(crate) struct Writer {
    storage: Arc<dyn Storage>,
    config: JournalConfig,
    keys: Arc<dyn KeySource>,
    closed: VecDeque<Closed>,
    open: Option<Segment>,
    next: Lsn,
    /// When the disk refused last; `None` once something was written since.
    refused: Option<Instant>,
    buffer: Vec<u8>,
    metrics: Metrics,
}

impl Writer {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        config: JournalConfig,
        keys: Arc<dyn KeySource>,
        telemetry: &Telemetry,
        next: Lsn,
    ) -> Self {
        let names = storage.list().unwrap_or_default();
        let closed = names.into_iter().map(|name| Closed { bytes: storage.size(&name).unwrap_or(0), name }).collect();
        let metrics = Metrics {
            records: telemetry.counter(Metric::JournalRecords, &[]),
            bytes: telemetry.counter(Metric::JournalBytes, &[]),
            sync: telemetry.histogram(Metric::JournalSync, &[]),
            batch: telemetry.histogram(Metric::JournalBatch, &[]),
            size: telemetry.gauge(Metric::JournalSize, &[]),
            segments: telemetry.gauge(Metric::JournalSegments, &[]),
            shed_quota: telemetry.counter(Metric::JournalShed, &["quota"]),
            freed: telemetry.counter(Metric::JournalShed, &["covered"]),
            errors: telemetry.counter(Metric::JournalErrors, &[]),
            failing: telemetry.gauge(Metric::JournalFailing, &[]),
        };
        Self { storage, config, keys, closed, open: None, next, refused: None, buffer: Vec::new(), metrics }
    }

    /// Closes the segment that is open and begins a new one with a new id and key (promise I7).
    pub(crate) fn begin_segment(&mut self) -> io::Result<()> {
        if let Some(full) = self.open.take() {
            self.closed.push_back(Closed { name: full.name, bytes: full.bytes });
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
        let name = segment_name(self.next);
        let mut file = match self.storage.create(&name) {
            // Left by a try that failed: no record has this number yet, so nothing is in it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.storage.remove(&name)?;
                self.storage.create(&name)?
            }
            made => made?,
        };
        if let Err(error) = file.append(&SegmentHeader { id, first: self.next }.encode()) {
            drop(file);
            // What cannot be removed either, the next try replaces.
            let _ = self.storage.remove(&name);
            return Err(error);
        }
        let cipher = SegmentCipher::new(self.keys.as_ref(), &id);
        self.open = Some(Segment { name, file, cipher, bytes: SEGMENT_HEADER as u64 });
        self.shed_over_quota();
        Ok(())
    }

    pub(crate) fn run(mut self, queue: &Receiver<Request>) {
        let mut pace = Pace::new(self.config.commit_interval.get());
        // The pace is kept before the first append is waited for: under load it is there already and need wake nobody.
        while let Ok(first) = queue.recv() {
            let started = Instant::now();
            let mut appends = Vec::new();
            let mut frame = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Append { records, done, permit } => {
                        frame += records.iter().map(Record::size).sum::<usize>();
                        appends.push(Append { records, done, _permit: permit });
                    }
                    Request::FreeBefore(lsn) => self.free_before(lsn),
                }
                next = if frame < FRAME_BYTES { queue.try_recv().ok() } else { None };
            }
            pace.committed(started, appends.iter().map(|append| append.records.len()).sum());
            self.commit(appends);
            if let Some(rest) = pace.wait(Instant::now()) {
                std::thread::sleep(rest);
            }
        }
    }

    fn commit(&mut self, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        if self.config.when_full == WhenFull::Refuse && self.size() > self.config.quota.bytes() {
            // Messages are refused; ticks, commands and barriers go on, for without them no checkpoint would ever make room.
            let is_message = |append: &Append| append.records.iter().any(|record| matches!(record, Record::Publish(_)));
            let (messages, others): (Vec<_>, Vec<_>) = appends.into_iter().partition(is_message);
            messages.into_iter().for_each(|append| (append.done)(CommitOutcome::QuotaExceeded, append.records));
            return self.commit_all(others);
        }
        self.commit_all(appends);
    }

    fn commit_all(&mut self, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        let mut outcome = match self.refused {
            Some(at) if at.elapsed() < BETWEEN_TRIES => CommitOutcome::Failed,
            _ => self.try_to_write(&appends),
        };
        for append in appends {
            let count = append.records.len() as u64;
            (append.done)(outcome, append.records);
            if let CommitOutcome::Durable { first } = &mut outcome {
                first.0 += count;
            }
        }
    }

    fn try_to_write(&mut self, appends: &[Append]) -> CommitOutcome {
        let ready = if self.refused.is_some() || self.open.is_none() { self.begin_anew() } else { Ok(()) };
        match ready.and_then(|()| self.write(appends)) {
            Ok(outcome) => {
                if self.refused.take().is_some() {
                    self.metrics.failing.set(0.0);
                    tracing::warn!("the journal writes again");
                }
                outcome
            }
            Err(error) => {
                self.metrics.errors.inc();
                if self.refused.replace(Instant::now()).is_none() {
                    self.metrics.failing.set(1.0);
                    tracing::error!(%error, "the journal cannot write: nothing is acknowledged until it can; it is tried again every second");
                }
                CommitOutcome::Failed
            }
        }
    }

    /// After a failure: takes back what of the failed commit may be on disk, and begins a new segment. A restart would do no other, but
    /// with the frame in the file it would take in what was refused.
    fn begin_anew(&mut self) -> io::Result<()> {
        if let Some(mut open) = self.open.take() {
            if let Err(error) = open.file.cut(open.bytes) {
                self.open = Some(open);
                return Err(error);
            }
            if open.bytes == SEGMENT_HEADER as u64 {
                // Nothing is in it, and the new one takes its name.
                if let Err(error) = self.storage.remove(&open.name) {
                    self.open = Some(open);
                    return Err(error);
                }
            } else {
                self.open = Some(open);
            }
        }
        self.begin_segment()
    }

    fn write(&mut self, appends: &[Append]) -> io::Result<CommitOutcome> {
        let first = self.next;
        let count: usize = appends.iter().map(|append| append.records.len()).sum();
        if count == 0 {
            return Ok(CommitOutcome::Durable { first });
        }
        self.buffer.clear();
        self.buffer.resize(FRAME_HEADER, 0);
        for record in appends.iter().flat_map(|append| &append.records) {
            record.encode(&mut self.buffer);
        }
        let Some(open) = self.open.as_mut() else { return Err(io::Error::other("no open segment")) };
        if !open.cipher.seal(open.bytes, first, count as u32, &mut self.buffer) {
            return Err(io::Error::other("the frame could not be encrypted"));
        }
        open.file.append(&self.buffer)?;
        failpoint("journal-written");
        let started = Instant::now();
        open.file.sync()?;
        self.metrics.sync.observe(started.elapsed().as_secs_f64());
        failpoint("journal-synced");
        open.bytes += self.buffer.len() as u64;
        self.next = Lsn(first.0 + count as u64);
        self.metrics.records.inc_by(count as u64);
        self.metrics.batch.observe(count as f64);
        self.metrics.bytes.inc_by(self.buffer.len() as u64);
        let full = open.bytes >= self.config.segment.bytes();
        if self.buffer.capacity() > 2 * FRAME_BYTES {
            self.buffer = Vec::new();
        }
        if full && let Err(error) = self.begin_segment() {
            // This commit is safe; the next one tries again.
            self.metrics.errors.inc();
            tracing::error!(%error, "the journal cannot begin a new segment");
        }
        self.observe();
        Ok(CommitOutcome::Durable { first })
    }

    fn size(&self) -> u64 {
        self.closed.iter().map(|segment| segment.bytes).sum::<u64>() + self.open.as_ref().map_or(0, |open| open.bytes)
    }

    fn shed_over_quota(&mut self) {
        if self.config.when_full == WhenFull::Refuse {
            return;
        }
        // Room for the segment that has just begun is part of the quota.
        while self.size() + self.config.segment.bytes() > self.config.quota.bytes() {
            let Some(oldest) = self.closed.pop_front() else { return };
            self.metrics.shed_quota.inc();
            self.remove(&oldest.name);
        }
    }

    fn free_before(&mut self, lsn: Lsn) {
        // A segment is covered when the one after it begins at or before the number.
        loop {
            let next_name = self.closed.get(1).map(|s| &s.name).or(self.open.as_ref().map(|open| &open.name));
            let covered = next_name.is_some_and(|name| *name <= segment_name(lsn));
            if !covered || self.closed.is_empty() {
                return;
            }
            if let Some(oldest) = self.closed.pop_front() {
                self.metrics.freed.inc();
                self.remove(&oldest.name);
            }
        }
    }

    fn remove(&self, name: &str) {
        failpoint("segment-removing");
        if let Err(error) = self.storage.remove(name) {
            self.metrics.errors.inc();
            tracing::error!(segment = name, %error, "a journal segment could not be removed");
        }
    }

    fn observe(&self) {
        self.metrics.size.set(self.size() as f64);
        self.metrics.segments.set(self.closed.len() as f64 + 1.0);
    }
}
