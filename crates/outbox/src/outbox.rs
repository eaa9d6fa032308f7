//! The outbox's handle: puts and acknowledgements go into a bounded queue, one thread commits them together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use flume::{Receiver, Sender};
use nearside_privacy::{KeyRing, SealedItem};
use nearside_schemas::{ByteSize, Clock};
use nearside_telemetry::Telemetry;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::store::{Entry, Sequence, Stats, Store};
use crate::writer::{Request, Writer};

/// `[outbox]`: what waits for the cloud.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxConfig {
    /// Most bytes that wait. When met, the oldest item of the least urgent class is shed and counted.
    pub quota: ByteSize,
    /// Most items that wait to be committed; when met, sealing waits.
    pub queue: usize,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self { quota: ByteSize::mib(1_024), queue: 4_096 }
    }
}

/// What can go wrong with the outbox.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The file cannot be opened.
    #[error("outbox {path}: {why}; check that no other gateway uses the data folder and that it is writable")]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the database said.
        why: String,
    },
    /// A transaction failed. Trying again may help once the disk has room.
    #[error("outbox: {0}")]
    Database(redb::Error),
    /// The thread could not be started.
    #[error("the outbox's thread could not be started: {0}")]
    Thread(std::io::Error),
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(&'static str),
}

impl OutboxError {
    pub(crate) fn open(path: &Path, error: redb::DatabaseError) -> Self {
        Self::Open { path: path.to_owned(), why: error.to_string() }
    }

    /// Whether the same call may succeed later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Database(_))
    }
}

impl OutboxConfig {
    /// Checks that the bounds make sense.
    pub fn validate(&self) -> Result<(), OutboxError> {
        if self.quota < ByteSize::mib(1) {
            return Err(OutboxError::Config("`outbox.quota` must be at least 1MiB"));
        }
        if self.queue == 0 {
            return Err(OutboxError::Config("`outbox.queue` must be above zero"));
        }
        Ok(())
    }
}

/// An open outbox.
pub struct Outbox {
    handle: OutboxHandle,
    thread: JoinHandle<()>,
}

/// A way to put, take and acknowledge. The writer ends when all are gone.
#[derive(Clone)]
pub struct OutboxHandle {
    requests: Sender<Request>,
    store: Arc<Mutex<Store>>,
    keys: Arc<KeyRing>,
    arrived: Arc<Notify>,
}

impl Outbox {
    /// Opens the outbox in `path`, making it where it is missing.
    ///
    /// # Errors
    /// Where the file cannot be opened, is in use or damaged beyond what the database repairs.
    pub fn open(
        path: &Path,
        config: &OutboxConfig,
        keys: Arc<KeyRing>,
        clock: Arc<dyn Clock>,
        telemetry: &Telemetry,
    ) -> Result<Self, OutboxError> {
        config.validate()?;
        let store = Arc::new(Mutex::new(Store::open(path)?));
        let (requests, queue): (Sender<Request>, Receiver<Request>) = flume::bounded(config.queue);
        let arrived = Arc::new(Notify::new());
        let writer = Writer::new(store.clone(), keys.clone(), clock, config, arrived.clone(), telemetry);
        let thread = std::thread::Builder::new()
            .name("outbox".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(OutboxError::Thread)?;
        Ok(Self { handle: OutboxHandle { requests, store, keys, arrived }, thread })
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
    /// Queues an item, waiting while the queue is full. False where the outbox has ended.
    pub fn put_blocking(&self, item: SealedItem) -> bool {
        self.requests.send(Request::Put(item, None)).is_ok()
    }

    /// Puts an item and returns once it is on disk. False where it could not be committed.
    pub async fn put(&self, item: SealedItem) -> bool {
        let (done, committed) = tokio::sync::oneshot::channel();
        self.requests.send_async(Request::Put(item, Some(done))).await.is_ok() && committed.await.unwrap_or(false)
    }

    /// Returns once everything put so far is on disk. False where it could not be committed.
    pub async fn flush(&self) -> bool {
        let (done, committed) = tokio::sync::oneshot::channel();
        self.requests.send_async(Request::Flush(done)).await.is_ok() && committed.await.unwrap_or(false)
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
        self.store.lock().batch(&self.keys, most, max_bytes, skip)
    }

    /// The cloud has these: they are removed with the next commit.
    pub async fn acknowledge(&self, sequences: Vec<Sequence>) {
        self.store.lock().removing.extend(&sequences);
        // An outbox that has ended sends them again at the next start.
        let _ = self.requests.send_async(Request::Remove(sequences)).await;
    }

    /// Waits until something was put.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// What waits.
    pub fn stats(&self) -> Stats {
        self.store.lock().stats.clone()
    }
}
