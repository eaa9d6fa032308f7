//! A stage of the pipeline that has its own thread: a bounded queue, a fenced handler, a count of its panics.
//!
//! Promises: the queue never holds more than its bound; a sender waits when it is full, and each wait is counted (promise I4);
//! a panic costs the message that caused it (I3). A stage ends when all its senders are gone, after its queue is empty.

use std::thread::JoinHandle;

use flume::{Receiver, Sender, TrySendError};
use nearside_telemetry::{Counter, Gauge, Metric, Telemetry};

use crate::fence::fenced;

/// What is in a stage's queue.
enum Queued<M> {
    Message(M),
    /// Answered once everything before it was handled.
    Flush(Sender<()>),
}

/// The sending side of a stage.
pub struct StageSender<M> {
    name: &'static str,
    sender: Sender<Queued<M>>,
    waits: Counter,
    depth: Gauge,
}

impl<M> Clone for StageSender<M> {
    fn clone(&self) -> Self {
        Self { name: self.name, sender: self.sender.clone(), waits: self.waits.clone(), depth: self.depth.clone() }
    }
}

impl<M> StageSender<M> {
    /// Sends, waiting where the stage is full. False where the stage has ended.
    pub fn send(&self, message: M) -> bool {
        match self.sender.try_send(Queued::Message(message)) {
            Ok(()) => true,
            Err(TrySendError::Full(message)) => {
                self.waits.inc();
                self.sender.send(message).is_ok()
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Sends where there is room; false where there is none or the stage has ended. For what comes again anyway, such as ticks,
    /// from tasks that must not block their thread.
    pub fn offer(&self, message: M) -> bool {
        self.sender.try_send(Queued::Message(message)).is_ok()
    }

    /// As [`StageSender::send`], from tasks that must not block their thread.
    pub async fn send_async(&self, message: M) -> bool {
        self.sender.send_async(Queued::Message(message)).await.is_ok()
    }

    /// Waits until everything sent so far was handled. False where the stage has ended.
    pub async fn flush(&self) -> bool {
        let (done, flushed) = flume::bounded(1);
        self.sender.send_async(Queued::Flush(done)).await.is_ok() && flushed.recv_async().await.is_ok()
    }

    /// Whether the stage is there; asking does not keep it alive.
    pub fn watch_life(&self) -> impl Fn() -> bool + Send + Sync + 'static
    where
        M: 'static + Send,
    {
        let weak = self.sender.downgrade();
        move || weak.upgrade().is_some_and(|sender| !sender.is_disconnected())
    }

    /// A look at the queue that does not keep the stage alive.
    pub fn watch_depth(&self) -> Depth
    where
        M: 'static + Send,
    {
        let weak = self.sender.downgrade();
        let gauge = self.depth.clone();
        let look = move || {
            let depth = weak.upgrade().map_or(0, |sender| sender.len());
            gauge.set(depth as f64);
            depth
        };
        Depth { stage: self.name, look: Box::new(look) }
    }
}

/// A look at a stage's queue.
pub struct Depth {
    stage: &'static str,
    look: Box<dyn Fn() -> usize + Send + Sync>,
}

impl Depth {
    /// The stage's name.
    pub const fn stage(&self) -> &'static str {
        self.stage
    }

    /// Messages that wait now.
    pub fn get(&self) -> usize {
        (self.look)()
    }
}

/// Starts a stage: `handler` is called for each message on a thread of its own.
pub fn start<M: Send + 'static>(
    name: &'static str,
    bound: usize,
    telemetry: &Telemetry,
    mut handler: impl FnMut(M) + Send + 'static,
) -> std::io::Result<(StageSender<M>, JoinHandle<()>)> {
    let (sender, messages): (Sender<Queued<M>>, Receiver<Queued<M>>) = flume::bounded(bound.max(1));
    let panics = telemetry.counter(Metric::StreamPanics, &[name]);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        for queued in messages {
            let message = match queued {
                Queued::Message(message) => message,
                Queued::Flush(done) => {
                    // Whoever asked may not wait any more.
                    let _ = done.send(());
                    continue;
                }
            };
            if fenced(|| handler(message)).is_err() {
                panics.inc();
                tracing::error!(stage = name, "a panic was caught; the message that caused it is lost to this stage");
            }
        }
    })?;
    let sender = StageSender {
        name,
        sender,
        waits: telemetry.counter(Metric::StageWaits, &[name]),
        depth: telemetry.gauge(Metric::MailboxDepth, &[name]),
    };
    Ok((sender, thread))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_panic_costs_one_message() {
        let telemetry = Telemetry::new();
        let (done, seen) = mpsc::channel();
        let (stage, thread) = start("test", 2, &telemetry, move |n: u32| {
            assert_ne!(n, 2, "the poison");
            done.send(n).unwrap();
        })
        .unwrap();
        for n in 0..5 {
            assert!(stage.send(n));
        }
        drop(stage);
        thread.join().unwrap();
        assert_eq!(seen.iter().collect::<Vec<_>>(), [0, 1, 3, 4]);
        assert_eq!(telemetry.total(Metric::StreamPanics), 1);
    }
}
