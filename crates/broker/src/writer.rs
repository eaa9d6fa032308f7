//! The writing half of a connection: acknowledgements and messages, everything that is there with one write.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::front_door::Shared;
use crate::session::Session;

/// Bytes of one write.
const WRITE: usize = 64 << 10;
/// Bytes that may wait for a client that does not read; when met, it is not read either.
const UNREAD: usize = 256 << 10;

/// Told when a connection has something to write.
pub(crate) type Ready = Arc<Notify>;

/// The way to a connection's writer, and the writer's end of it: one buffer. What waits in it is bounded, for a connection whose
/// answers are not read is not read either. What is sent when the writer is gone is lost: then the reader ends at its next read.
#[derive(Clone, Default)]
pub(crate) struct Outlet {
    outbox: Arc<Outbox>,
}

#[derive(Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    /// The session's messages come by the same bell.
    ready: Ready,
    /// Told when there is room again, or nobody to write.
    drained: Notify,
    gone: Notify,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Taken by the writer and not yet in the socket.
    on_the_way: usize,
    closing: bool,
    gone: bool,
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.bytes.len() + self.on_the_way >= UNREAD
    }
}

impl Outlet {
    /// Of the connection whose writer waits for `ready`.
    pub(crate) fn new(ready: Ready) -> Self {
        Self { outbox: Arc::new(Outbox { ready, ..Outbox::default() }) }
    }

    /// Sends what `encode` appends.
    pub(crate) fn send(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut waiting = self.outbox.waiting.lock();
        if !waiting.gone && !waiting.closing {
            encode(&mut waiting.bytes);
        }
        drop(waiting);
        self.outbox.ready.notify_one();
    }

    /// Whether both lead to one connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.outbox, &other.outbox)
    }

    /// Ends the connection once what was sent before is written.
    pub(crate) fn close(&self) {
        self.outbox.waiting.lock().closing = true;
        self.outbox.ready.notify_one();
    }

    /// Waits until the writer has given up.
    pub(crate) async fn gone(&self) {
        wait_until(&self.outbox.gone, || self.outbox.waiting.lock().gone).await;
    }

    /// Whether the client has read enough to be told more.
    pub(crate) fn has_room(&self) -> bool {
        let waiting = self.outbox.waiting.lock();
        waiting.gone || !waiting.is_full()
    }

    /// Waits until it has.
    pub(crate) async fn room(&self) {
        wait_until(&self.outbox.drained, || self.has_room()).await;
    }

    /// Takes what waits into `out`, which is empty. Gives back whether nothing comes after it.
    fn take(&self, out: &mut Vec<u8>) -> bool {
        let mut waiting = self.outbox.waiting.lock();
        std::mem::swap(&mut waiting.bytes, out);
        waiting.on_the_way = out.len();
        waiting.closing
    }

    /// What was taken is in the socket.
    fn written(&self) {
        let mut waiting = self.outbox.waiting.lock();
        let was_full = waiting.is_full();
        waiting.on_the_way = 0;
        drop(waiting);
        if was_full {
            self.outbox.drained.notify_waiters();
        }
    }

    /// Nobody writes any more.
    fn give_up(&self) {
        let mut waiting = self.outbox.waiting.lock();
        *waiting = Waiting { gone: true, ..Waiting::default() };
        drop(waiting);
        self.outbox.drained.notify_waiters();
        self.outbox.gone.notify_waiters();
    }
}

async fn wait_until(told: &Notify, holds: impl Fn() -> bool) {
    loop {
        let again = told.notified();
        if holds() {
            return;
        }
        again.await;
    }
}

/// Writes until told to close, or until the client is gone or does not read.
pub(crate) async fn write(
    mut socket: impl AsyncWrite + Unpin,
    outlet: Outlet,
    session: Arc<Session>,
    connection: u64,
    shared: Arc<Shared>,
) {
    // Made when there is something to write: ten thousand quiet connections hold none.
    let mut out = Vec::new();
    let mut closing = false;
    while !closing {
        outlet.outbox.ready.notified().await;
        // Everything that is there goes out with one write.
        closing = outlet.take(&mut out);
        let mut changes = Vec::new();
        session.write(connection, &mut out, WRITE, &*shared.clock, &mut changes);
        shared.store.send(changes, None);
        if !out.is_empty() && !written(&mut socket, &out, &shared).await {
            break;
        }
        outlet.written();
        out.clear();
        if out.capacity() > 4 * WRITE {
            out = Vec::new();
        }
    }
    // The reader sees that nobody takes anything any more.
    outlet.give_up();
    // The client may have closed first.
    let _ = timeout(shared.config.write_timeout.get(), socket.shutdown()).await;
}

async fn written(socket: &mut (impl AsyncWrite + Unpin), out: &[u8], shared: &Shared) -> bool {
    let write = async {
        socket.write_all(out).await?;
        socket.flush().await
    };
    // Most writes need no timer.
    let patience = async { sleep(shared.config.write_timeout.get()).await };
    tokio::select! {
        biased;
        written = write => written.is_ok(),
        () = patience => false,
    }
}
