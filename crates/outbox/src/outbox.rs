//! The outbox's handle: puts and acknowledgements go into a bounded queue, one thread commits them together.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use flume::{Receiver, Sender};
use nearside_privacy::{KeyRing, SealedItem};
use nearside_schemas::Clock;
use nearside_telemetry::Telemetry;
use tokio::sync::Notify;

use crate::config::{OutboxConfig, OutboxError};
use crate::dead::DeadReason;
use crate::medium::{FileMedium, Medium};
use crate::stats::{Entry, Sequence, Stats, Take};
use crate::store::{Shared, Store, Trouble};
use crate::writer::{Request, Writer};

/// An open outbox.
pub struct Outbox {
    handle: OutboxHandle,
    thread: JoinHandle<()>,
}

/// A way to put, take and acknowledge. The writer ends when all are gone.
#[derive(Clone)]
pub struct OutboxHandle {
    requests: Sender<Request>,
    shared: Arc<Shared>,
    keys: Arc<KeyRing>,
    arrived: Arc<Notify>,
}

impl Outbox {
    /// Opens the outbox in `path`, making it where it is missing.
    ///
    /// # Errors
    /// Where the file cannot be opened, is in use, is of another format, or is damaged beyond what the database repairs by itself.
    pub fn open(
        path: &Path,
        config: &OutboxConfig,
        keys: Arc<KeyRing>,
        clock: Arc<dyn Clock>,
        telemetry: &Telemetry,
    ) -> Result<Self, OutboxError> {
        Self::open_on(Arc::new(FileMedium::new(path, config.reserve.bytes())), path, config, keys, clock, telemetry)
    }

    /// Opens the outbox on another medium than a file; `path` is for error texts.
    ///
    /// # Errors
    /// As for [`Outbox::open`].
    pub fn open_on(
        medium: Arc<dyn Medium>,
        path: &Path,
        config: &OutboxConfig,
        keys: Arc<KeyRing>,
        clock: Arc<dyn Clock>,
        telemetry: &Telemetry,
    ) -> Result<Self, OutboxError> {
        config.validate()?;
        let store = Store::open(medium, path, config)?;
        let shared = store.shared.clone();
        let (requests, queue): (Sender<Request>, Receiver<Request>) = flume::bounded(config.queue);
        let arrived = Arc::new(Notify::new());
        let writer = Writer::new(store, keys.clone(), clock, config, arrived.clone(), telemetry);
        let thread = std::thread::Builder::new()
            .name("outbox".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(OutboxError::Thread)?;
        Ok(Self { handle: OutboxHandle { requests, shared, keys, arrived }, thread })
    }

    /// A handle.
    pub fn handle(&self) -> OutboxHandle {
        self.handle.clone()
    }

    /// Waits until everything queued is committed and all other handles are gone.
    pub fn close(self) {
        drop(self.handle);
        // The writer does not panic; were it to, there would be nothing left to wait for.
        let _ = self.thread.join();
    }
}

impl OutboxHandle {
    /// Queues an item, waiting while the queue is full. False where the outbox has ended or was poisoned.
    pub fn put_blocking(&self, item: SealedItem) -> bool {
        self.trouble() != Some(Trouble::Poisoned) && self.requests.send(Request::Put(item, None)).is_ok()
    }

    /// Puts an item and returns once it is on disk. False where it, or anything put before it, could not be committed.
    pub async fn put(&self, item: SealedItem) -> bool {
        let (done, committed) = tokio::sync::oneshot::channel();
        self.requests.send_async(Request::Put(item, Some(done))).await.is_ok() && committed.await.unwrap_or(false)
    }

    /// Returns once everything put so far is on disk. False where any of it, since the start, could not be committed: what it was made of
    /// must then stay in the journal.
    pub async fn flush(&self) -> bool {
        let (done, committed) = tokio::sync::oneshot::channel();
        self.requests.send_async(Request::Flush(done)).await.is_ok() && committed.await.unwrap_or(false)
    }

    /// The items asked for that `skip` does not name, without removing them. Damaged ones become dead letters on the way.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn take(&self, take: &Take<'_>, skip: &dyn Fn(&Sequence) -> bool) -> Result<Vec<Entry>, OutboxError> {
        let (entries, damaged) = self.shared.take(&self.keys, take, skip)?;
        for sequence in damaged {
            let detail = "it is not what was sealed on this site".to_owned();
            let request = Request::Reject { sequence, reason: DeadReason::Damaged, detail };
            // Where the queue is full, the next look finds it again.
            if self.requests.try_send(request).is_ok() {
                self.shared.state.lock().removing.insert(sequence);
            }
        }
        Ok(entries)
    }

    /// The oldest items of the most urgent classes that `skip` does not name, without removing them.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn batch(
        &self,
        most: usize,
        max_bytes: usize,
        skip: &dyn Fn(&Sequence) -> bool,
    ) -> Result<Vec<Entry>, OutboxError> {
        self.take(&Take::first(most, max_bytes), skip)
    }

    /// The cloud has these: they are removed with the next commit.
    pub async fn acknowledge(&self, sequences: Vec<Sequence>) {
        self.shared.state.lock().removing.extend(&sequences);
        // An outbox that has ended sends them again at the next start.
        let _ = self.requests.send_async(Request::Acknowledge(sequences)).await;
    }

    /// The cloud will never take this one: it becomes a dead letter with the next commit. `detail` says what the cloud said.
    pub async fn reject(&self, sequence: Sequence, reason: DeadReason, detail: String) {
        self.shared.state.lock().removing.insert(sequence);
        // An outbox that has ended finds out again at the next start.
        let _ = self.requests.send_async(Request::Reject { sequence, reason, detail }).await;
    }

    /// Whether its thread is there; asking does not keep it alive.
    pub fn watch_life(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let weak = self.requests.downgrade();
        move || weak.upgrade().is_some_and(|requests| !requests.is_disconnected())
    }

    /// Waits until something was put.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// What waits.
    pub fn stats(&self) -> Stats {
        self.shared.state.lock().stats.clone()
    }

    /// The number that the next item gets: all that wait now have lower ones.
    pub fn next_number(&self) -> u64 {
        self.shared.state.lock().next
    }

    /// Why nothing can be written, where that is so.
    pub fn trouble(&self) -> Option<Trouble> {
        self.shared.state.lock().trouble
    }
}
