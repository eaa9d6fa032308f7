//! The threads that serve connections, each a runtime of its own.
//!
//! A connection stays on its thread, with all its tasks. So a message that goes from one connection to another of the same thread wakes
//! no other, and a thread that was woken by a socket wakes no other to look after the rest of the sockets: on a small machine that costs
//! more than all that MQTT asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::flush;

struct Worker {
    runtime: Handle,
    /// Connections on it.
    connections: Arc<AtomicUsize>,
    /// Dropped, it ends the thread with all that runs on it.
    _ends: oneshot::Sender<()>,
}

/// The threads. What runs on them ends when this is dropped.
pub(crate) struct Threads(Vec<Worker>);

/// Takes a connection off its thread's count.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Threads {
    /// Starts `count` threads; where it is 0, one for every two cores, for what is behind the front door needs the others.
    pub(crate) fn start(count: usize) -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if count == 0 { (cores / 2).max(1) } else { count };
        (0..count).map(Worker::start).collect::<Result<_, _>>().map(Self)
    }

    /// Runs a connection where there are fewest.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let Some(worker) = self.0.iter().min_by_key(|worker| worker.connections.load(Ordering::Acquire)) else {
            return;
        };
        worker.connections.fetch_add(1, Ordering::AcqRel);
        let seat = Seat(worker.connections.clone());
        worker.runtime.spawn(async move {
            connection.await;
            drop(seat);
        });
    }
}

impl Worker {
    fn start(number: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        runtime.spawn(flush::flush());
        let (ends, ended) = oneshot::channel::<()>();
        // Ready, with an error, when the other end is dropped.
        let run = move || drop(runtime.block_on(ended));
        std::thread::Builder::new().name(format!("connections-{number}")).spawn(run)?;
        Ok(Self { runtime: handle, connections: Arc::default(), _ends: ends })
    }
}
