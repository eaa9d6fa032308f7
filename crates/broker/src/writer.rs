//! The writing half of a connection: acknowledgements and messages, everything that is there with one write.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::front_door::Shared;
use crate::session::Session;

/// Bytes of one write.
const WRITE: usize = 64 << 10;
/// Bytes that may wait for a client that does not read; when met, it is not read either.
const UNREAD: usize = 256 << 10;

/// What the writer is told.
enum Write {
    Bytes(Vec<u8>),
    /// Write what is queued, then close.
    Close,
}

/// The way to a connection's writer. What is sent when the writer is gone is lost: then the reader ends at its next read.
#[derive(Clone)]
pub(crate) struct Outlet {
    writes: mpsc::UnboundedSender<Write>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    fewer: Notify,
}

impl Waiting {
    fn less(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before >= UNREAD {
            self.fewer.notify_one();
        }
    }
}

/// The writer's end.
pub(crate) struct Inlet {
    writes: mpsc::UnboundedReceiver<Write>,
    waiting: Arc<Waiting>,
}

/// A way to a writer.
pub(crate) fn channel() -> (Outlet, Inlet) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::<Waiting>::default();
    (Outlet { writes: sender, waiting: waiting.clone() }, Inlet { writes: receiver, waiting })
}

impl Outlet {
    /// Sends what `encode` appends.
    pub(crate) fn send(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        encode(&mut out);
        self.send_bytes(out);
    }

    pub(crate) fn send_bytes(&self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.waiting.bytes.fetch_add(bytes.len(), Ordering::AcqRel);
            let _ = self.writes.send(Write::Bytes(bytes));
        }
    }

    /// Ends the connection once what was sent before is written.
    pub(crate) fn close(&self) {
        let _ = self.writes.send(Write::Close);
    }

    /// Waits until the writer has given up.
    pub(crate) async fn gone(&self) {
        self.writes.closed().await;
    }

    /// Waits until the client has read enough to be told more.
    pub(crate) async fn room(&self) {
        loop {
            let fewer = self.waiting.fewer.notified();
            if self.waiting.bytes.load(Ordering::Acquire) < UNREAD || self.writes.is_closed() {
                return;
            }
            fewer.await;
        }
    }
}

/// Writes until told to close, or until the client is gone or does not read.
pub(crate) async fn write(
    mut socket: impl AsyncWrite + Unpin,
    mut inlet: Inlet,
    session: Arc<Session>,
    connection: u64,
    shared: Arc<Shared>,
) {
    // Made when there is something to write: ten thousand quiet connections hold none.
    let mut out = Vec::new();
    let mut closing = false;
    while !closing {
        tokio::select! {
            message = inlet.writes.recv() => closing = take(message, &mut out),
            () = session.ready.notified() => {}
        }
        // Everything that is there goes out with one write.
        while !closing && out.len() < WRITE {
            match inlet.writes.try_recv() {
                Ok(message) => closing = take(Some(message), &mut out),
                Err(_) => break,
            }
        }
        let answers = out.len();
        let mut changes = Vec::new();
        session.write(connection, &mut out, WRITE, &*shared.clock, &mut changes);
        shared.store.send(changes, None);
        if !out.is_empty() && !written(&mut socket, &out, &shared).await {
            break;
        }
        inlet.waiting.less(answers);
        out.clear();
        if out.capacity() > 4 * WRITE {
            out = Vec::new();
        }
    }
    // The reader sees that nobody takes anything any more.
    inlet.writes.close();
    inlet.waiting.fewer.notify_one();
    // The client may have closed first.
    let _ = timeout(shared.config.write_timeout.get(), socket.shutdown()).await;
}

async fn written(socket: &mut (impl AsyncWrite + Unpin), out: &[u8], shared: &Shared) -> bool {
    let write = async {
        socket.write_all(out).await?;
        socket.flush().await
    };
    matches!(timeout(shared.config.write_timeout.get(), write).await, Ok(Ok(())))
}

fn take(message: Option<Write>, out: &mut Vec<u8>) -> bool {
    match message {
        Some(Write::Bytes(bytes)) => {
            out.extend(bytes);
            false
        }
        Some(Write::Close) | None => true,
    }
}
