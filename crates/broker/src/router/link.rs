//! One session's link to rumqttd: a task empties it at once into the session's own bounded queue, so that a slow subscriber never holds
//! the router up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rumqttd::Notification;
use rumqttd::local::{LinkRx, LinkTx};
use tokio::task::JoinHandle;

use super::encoding::{decode_topic, encode_filter, unwrap};
use crate::session::Session;

/// What a link has been asked for and what came out of it.
#[derive(Default)]
pub(super) struct Progress {
    /// Messages, once for each filter that matches.
    expected: AtomicU64,
    received: AtomicU64,
    /// Subscriptions made or ended.
    asked: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    pub(super) fn expect_message(&self) {
        self.expected.fetch_add(1, Ordering::Relaxed);
    }

    fn is_through(&self) -> bool {
        self.received.load(Ordering::Acquire) >= self.expected.load(Ordering::Relaxed)
            && self.done.load(Ordering::Acquire) >= self.asked.load(Ordering::Relaxed)
    }
}

/// A running link.
pub(super) struct Link {
    transmit: LinkTx,
    reader: JoinHandle<()>,
    pub(super) progress: Arc<Progress>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Link {
    pub(super) fn start(
        (transmit, receive): (LinkTx, LinkRx),
        session: Arc<Session>,
        runtime: &tokio::runtime::Handle,
    ) -> Self {
        let progress = Arc::<Progress>::default();
        let reader = runtime.spawn(read(receive, session, progress.clone()));
        Self { transmit, reader, progress }
    }

    /// Asks for a filter's messages. False where the router is gone.
    pub(super) fn subscribe(&mut self, filter: &str) -> bool {
        self.progress.asked.fetch_add(1, Ordering::Relaxed);
        self.transmit.subscribe(encode_filter(filter)).is_ok()
    }

    /// Asks for no more of them.
    pub(super) fn unsubscribe(&mut self, filter: &str) -> bool {
        self.progress.asked.fetch_add(1, Ordering::Relaxed);
        self.transmit.unsubscribe(encode_filter(filter)).is_ok()
    }

    /// Tells the router that the session is gone.
    pub(super) fn end(self) -> bool {
        use rumqttd::protocol::{Disconnect, DisconnectReasonCode::NormalDisconnection, Packet};
        let goodbye = Packet::Disconnect(Disconnect { reason_code: NormalDisconnection }, None);
        let mut link = self;
        link.transmit.buffer().push_back(goodbye);
        // Any call tells the router to look at the buffer.
        link.transmit.try_publish("nearside/detached", bytes::Bytes::new()).is_ok()
    }

    /// Whether everything that was asked of the link came.
    pub(super) fn is_through(&self) -> bool {
        self.progress.is_through()
    }

    /// Whether nothing more can come.
    pub(super) fn is_dead(&self) -> bool {
        self.reader.is_finished()
    }
}

async fn read(mut link: LinkRx, session: Arc<Session>, progress: Arc<Progress>) {
    loop {
        match link.next().await {
            Ok(Some(Notification::Forward(forward))) => {
                let topic = decode_topic(&forward.publish.topic);
                if let Some((delivery, number)) = topic.and_then(|topic| unwrap(topic, &forward.publish.payload)) {
                    session.offer_routed(&delivery, number);
                }
                progress.received.fetch_add(1, Ordering::Release);
            }
            Ok(Some(Notification::DeviceAck(_))) => drop(progress.done.fetch_add(1, Ordering::Release)),
            Ok(Some(Notification::Unschedule)) => {
                if link.wake().await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
