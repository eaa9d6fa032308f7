//! The store's thread: takes what is queued, commits it as one transaction, then says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flume::{Receiver, Sender};
use nearside_telemetry::{Counter, Histogram, Metric, Telemetry};
use tokio::sync::Notify;

use super::{Change, Storage};
use crate::message::Message;

/// Called with whether the changes are on disk; from the store's thread, so it must return at once.
type Then = Box<dyn FnOnce(bool) + Send>;

/// Changes of one transaction, about.
const TRANSACTION: usize = 20_000;
/// Changes that may wait before connections are not read further, and what their messages may take.
const BACKLOG: usize = 50_000;
const BACKLOG_BYTES: usize = 32 << 20;

struct Job {
    changes: Vec<Change>,
    /// Of their messages.
    bytes: usize,
    then: Option<Then>,
}

#[derive(Default)]
struct Backlog {
    changes: AtomicUsize,
    bytes: AtomicUsize,
    less: Notify,
}

impl Backlog {
    fn has_room(&self) -> bool {
        self.changes.load(Ordering::Acquire) < BACKLOG && self.bytes.load(Ordering::Acquire) < BACKLOG_BYTES
    }
}

/// The way to the store's thread. Without a thread nothing is kept, and everything is as good as on disk at once.
#[derive(Clone, Default)]
pub(crate) struct StoreHandle {
    thread: Option<(Sender<Job>, Arc<Backlog>)>,
}

impl StoreHandle {
    /// Starts the thread. It ends when all handles are gone.
    pub(crate) fn start(storage: impl Storage, telemetry: &Telemetry) -> std::io::Result<Self> {
        // What may be in it is bounded by `room`, for who sends may not wait.
        let (jobs, queue) = flume::unbounded();
        let backlog = Arc::<Backlog>::default();
        let writer = Writer {
            storage,
            backlog: backlog.clone(),
            commits: telemetry.histogram(Metric::SessionCommit, &[]),
            errors: telemetry.counter(Metric::SessionStoreErrors, &[]),
        };
        std::thread::Builder::new().name("sessions".to_owned()).spawn(move || writer.run(&queue))?;
        Ok(Self { thread: Some((jobs, backlog)) })
    }

    /// Hands changes over; never waits.
    pub(crate) fn send(&self, changes: Vec<Change>, then: Option<Then>) {
        let Some((jobs, backlog)) = &self.thread else {
            if let Some(then) = then {
                then(true);
            }
            return;
        };
        if changes.is_empty() && then.is_none() {
            return;
        }
        let bytes = changes.iter().filter_map(Change::message).map(Message::size).sum();
        backlog.changes.fetch_add(changes.len(), Ordering::AcqRel);
        backlog.bytes.fetch_add(bytes, Ordering::AcqRel);
        // The thread lives as long as this handle.
        let _ = jobs.send(Job { changes, bytes, then });
    }

    /// Hands changes over and waits until they are on disk, or gives back false where they cannot be.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> bool {
        let (tell, told) = tokio::sync::oneshot::channel();
        let then = move |durable| {
            // Whoever waits may have been dropped.
            let _ = tell.send(durable);
        };
        self.send(changes, Some(Box::new(then)));
        told.await.unwrap_or(false)
    }

    /// Waits while too many changes wait: asked before a message is taken in that may have to be stored.
    pub(crate) async fn room(&self) {
        let Some((_, backlog)) = &self.thread else { return };
        while !backlog.has_room() {
            let less = backlog.less.notified();
            if !backlog.has_room() {
                less.await;
            }
        }
    }
}

struct Writer<S> {
    storage: S,
    backlog: Arc<Backlog>,
    commits: Histogram,
    errors: Counter,
}

impl<S: Storage> Writer<S> {
    fn run(mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let Job { mut changes, mut bytes, then } = first;
            let mut thens: Vec<Then> = then.into_iter().collect();
            while changes.len() < TRANSACTION
                && let Ok(next) = queue.try_recv()
            {
                changes.extend(next.changes);
                bytes += next.bytes;
                thens.extend(next.then);
            }
            let start = std::time::Instant::now();
            let durable = changes.is_empty() || self.commit(&changes);
            self.commits.observe(start.elapsed().as_secs_f64());
            self.backlog.changes.fetch_sub(changes.len(), Ordering::AcqRel);
            self.backlog.bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.backlog.less.notify_waiters();
            for then in thens {
                then(durable);
            }
        }
    }

    fn commit(&mut self, changes: &[Change]) -> bool {
        match self.storage.commit(changes) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, changes = changes.len(), "sessions could not be stored");
                self.errors.inc();
                false
            }
        }
    }
}
