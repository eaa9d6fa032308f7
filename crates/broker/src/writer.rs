//! The writing half of a connection: acknowledgements and messages, everything that is there with one write.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::flush::{Bell, WriteAtOnce};
use crate::front_door::Shared;
use crate::session::Session;

/// Bytes of one write.
const WRITE: usize = 64 << 10;
/// Bytes that may wait for a client that does not read; when met, it is not read either.
const UNREAD: usize = 256 << 10;

/// The way to a connection's writer, and the writer's end of it: one buffer. What waits in it is bounded, for a connection whose
/// answers are not read is not read either. What is sent when the writer is gone is lost: then the reader ends at its next read.
#[derive(Clone, Default)]
pub(crate) struct Outlet {
    outbox: Arc<Outbox>,
}

#[derive(Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    /// The session's messages come by the same.
    bell: Arc<Bell>,
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
    /// Of the connection with this bell.
    pub(crate) fn new(bell: Arc<Bell>) -> Self {
        Self { outbox: Arc::new(Outbox { bell, ..Outbox::default() }) }
    }

    /// Sends what `encode` appends.
    pub(crate) fn send(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut waiting = self.outbox.waiting.lock();
        if !waiting.gone && !waiting.closing {
            encode(&mut waiting.bytes);
        }
        drop(waiting);
        self.outbox.bell.ring();
    }

    /// Whether both lead to one connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.outbox, &other.outbox)
    }

    /// Ends the connection once what was sent before is written.
    pub(crate) fn close(&self) {
        self.outbox.waiting.lock().closing = true;
        self.outbox.bell.ring();
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

    fn is_closing(&self) -> bool {
        self.outbox.waiting.lock().closing
    }

    /// Moves what waits to the end of `out`. Gives back whether nothing comes after it.
    fn take(&self, out: &mut Vec<u8>) -> bool {
        let mut waiting = self.outbox.waiting.lock();
        // Until it is all written: of what is only partly so nobody would be told.
        waiting.on_the_way += waiting.bytes.len();
        if out.is_empty() {
            std::mem::swap(&mut waiting.bytes, out);
        } else {
            out.append(&mut waiting.bytes);
        }
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

/// The writing half of a connection, for its own task and for the flusher of its thread.
pub(crate) struct Writer<W> {
    /// Not there while the task writes.
    half: Mutex<Option<Half<W>>>,
    outlet: Outlet,
    session: Arc<Session>,
    /// The connection's number.
    connection: u64,
    shared: Arc<Shared>,
}

struct Half<W> {
    socket: W,
    /// Taken and not yet in the socket. Allocated when there is something to write: ten thousand quiet connections hold none.
    out: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(crate) fn new(
        socket: W,
        outlet: Outlet,
        session: Arc<Session>,
        connection: u64,
        shared: Arc<Shared>,
    ) -> Arc<Self> {
        let half = Mutex::new(Some(Half { socket, out: Vec::new() }));
        Arc::new(Self { half, outlet, session, connection, shared })
    }

    /// Writes until told to close, or until the client is gone or does not read.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut half = loop {
            self.outlet.outbox.bell.rung().await;
            // Nobody else takes it out for longer than a call.
            let Some(mut half) = self.half.lock().take() else { return };
            let closing = self.take(&mut half.out);
            let Half { socket, out } = &mut half;
            if !written(socket, out, &self.shared).await || closing {
                break half;
            }
            self.written(out);
            *self.half.lock() = Some(half);
        };
        // The reader sees that nobody takes anything any more.
        self.outlet.give_up();
        // The client may have closed first.
        let _ = timeout(self.shared.config.write_timeout.get(), half.socket.shutdown()).await;
    }

    /// Adds everything that there is to `out`, so that it goes out with one write. Gives back whether nothing comes after it.
    fn take(&self, out: &mut Vec<u8>) -> bool {
        let closing = self.outlet.take(out);
        let mut changes = Vec::new();
        self.session.write(self.connection, out, WRITE, &*self.shared.clock, &mut changes);
        self.shared.store.send(changes, None);
        closing
    }

    fn written(&self, out: &mut Vec<u8>) {
        self.outlet.written();
        out.clear();
        if out.capacity() > 4 * WRITE {
            *out = Vec::new();
        }
    }
}

impl<W: AsyncWrite + Unpin + Send> WriteAtOnce for Writer<W> {
    fn write_at_once(&self) -> bool {
        // While the task writes, what it has taken goes out first.
        let mut half = self.half.lock();
        let Some(Half { socket, out }) = half.as_mut() else { return false };
        if self.outlet.is_closing() || !out.is_empty() {
            return false;
        }
        self.take(out);
        if out.is_empty() {
            return true;
        }
        // Where it has to wait the task asks again, with a waker of its own.
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut *socket).poll_write(&mut context, out) {
            Poll::Ready(Ok(count)) if count == out.len() => {
                self.written(out);
                matches!(Pin::new(socket).poll_flush(&mut context), Poll::Ready(Ok(())))
            }
            Poll::Ready(Ok(count)) => {
                out.drain(..count);
                false
            }
            // The task meets an error again.
            Poll::Ready(Err(_)) | Poll::Pending => false,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever waits for room is told once all of it is written, however often more is taken meanwhile.
    #[tokio::test]
    async fn what_is_partly_written_counts_until_all_of_it_is() {
        let (outlet, mut out) = (Outlet::default(), Vec::new());
        let fill = |bytes: usize| outlet.send(|waiting| waiting.resize(waiting.len() + bytes, 0));
        fill(UNREAD - 1_000);
        outlet.take(&mut out);
        // The socket took some of it.
        out.drain(..100_000);
        assert!(outlet.has_room());
        fill(1_000);
        assert!(!outlet.has_room());
        let told = {
            let outlet = outlet.clone();
            tokio::spawn(async move { outlet.room().await })
        };
        tokio::task::yield_now().await;
        outlet.take(&mut out);
        assert!(!outlet.has_room() && !told.is_finished());
        outlet.written();
        timeout(std::time::Duration::from_secs(10), told).await.unwrap().unwrap();
        assert!(outlet.has_room());
    }
}
