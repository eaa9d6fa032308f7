//! rumqttd as the router between subscribers, on a thread of its own behind a bounded queue.
//!
//! It is kept at arm's length. Its matcher panics on topics that are not ASCII and never matches `$` topics, so levels are
//! encoded on the way in and decoded on the way out, here and nowhere else. Its caches of topics and its connections are never
//! freed and it can die, so it can be replaced at any moment: every session is linked and subscribed again. What the sessions
//! need besides topic and payload (quality of service, retain, who sent it) travels in front of the payload.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flume::{Receiver, Sender, TrySendError};
use nearside_schemas::{QoS, Timestamp, Topic};
use nearside_telemetry::{Counter, Metric, Telemetry};
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};
use rumqttd::{Notification, Router, RouterConfig};

use crate::message::{Delivery, Message};
use crate::session::Session;

/// A session in the router.
pub(crate) type SessionNumber = u64;

/// Messages that may wait for the router.
const QUEUE: usize = 65_536;
/// Past this many topics or ended links the router is replaced, for it never frees either.
const REPLACE_AFTER: usize = 100_000;

enum Request {
    Attach(Arc<Session>),
    Detach(SessionNumber),
    Subscribe(SessionNumber, String),
    Unsubscribe(SessionNumber, String),
    Publish(Delivery),
}

/// The way to the router's thread.
#[derive(Clone)]
pub(crate) struct RouterHandle {
    requests: Sender<Request>,
    dropped: Counter,
}

/// Starts the router's thread. It ends when all handles are gone.
pub(crate) fn start(telemetry: &Telemetry) -> std::io::Result<RouterHandle> {
    let (requests, queue) = flume::bounded(QUEUE);
    let restarts = telemetry.counter(Metric::RouterRestarts, &[]);
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name("router".to_owned())
        .spawn(move || RouterThread::new(restarts, runtime).run(&queue))?;
    Ok(RouterHandle { requests, dropped: telemetry.counter(Metric::PublishesDropped, &["router_full"]) })
}

impl RouterHandle {
    pub(crate) async fn attach(&self, session: Arc<Session>) {
        self.send(Request::Attach(session)).await;
    }

    pub(crate) async fn detach(&self, session: SessionNumber) {
        self.send(Request::Detach(session)).await;
    }

    pub(crate) async fn subscribe(&self, session: SessionNumber, filter: String) {
        self.send(Request::Subscribe(session, filter)).await;
    }

    pub(crate) async fn unsubscribe(&self, session: SessionNumber, filter: String) {
        self.send(Request::Unsubscribe(session, filter)).await;
    }

    /// Hands over a copy of a message. Never waits, for it is called from the journal's thread too: where the router is behind
    /// by more than its queue, the message is shed and counted.
    pub(crate) fn publish(&self, delivery: Delivery) {
        if let Err(TrySendError::Full(_)) = self.requests.try_send(Request::Publish(delivery)) {
            self.dropped.inc();
        }
    }

    async fn send(&self, request: Request) {
        // The thread ends only when the gateway does.
        let _ = self.requests.send_async(request).await;
    }
}

struct Linked {
    session: Arc<Session>,
    filters: HashSet<String>,
    link: LinkTx,
    reader: tokio::task::JoinHandle<()>,
}

struct RouterThread {
    restarts: Counter,
    runtime: tokio::runtime::Handle,
    linked: HashMap<SessionNumber, Linked>,
    topics: HashSet<u64>,
    ended: usize,
    /// Numbers the messages: a link gets one once for each of its filters, and must know it again.
    published: u64,
}

/// The router that is running: makes links, and one of them publishes.
struct Running<F> {
    link: F,
    publisher: LinkTx,
}

impl RouterThread {
    fn new(restarts: Counter, runtime: tokio::runtime::Handle) -> Self {
        Self { restarts, runtime, linked: HashMap::new(), topics: HashSet::new(), ended: 0, published: 0 }
    }

    fn run(mut self, queue: &Receiver<Request>) {
        loop {
            // Its event type cannot be named, so everything that holds a sender of it lives in this scope.
            let sender = Router::new(0, router_config()).spawn();
            let link = |id: &str| LinkBuilder::new(id, sender.clone()).clean_session(true).build().ok();
            let Some((publisher, _receiver, _)) = link("publisher") else {
                tracing::error!("the message router did not start; subscribers get nothing");
                return;
            };
            let mut running = Running { link: |id: &str| link(id).map(|(tx, rx, _)| (tx, rx)), publisher };
            self.topics.clear();
            self.ended = 0;
            let again: Vec<Linked> = self.linked.drain().map(|(_, linked)| linked).collect();
            for linked in again {
                linked.reader.abort();
                self.attach(&running.link, linked.session.clone());
                for filter in linked.filters {
                    self.subscribe(linked.session.number, filter);
                }
            }
            match catch_unwind(AssertUnwindSafe(|| self.serve(queue, &mut running))) {
                Ok(End::Stop) => return,
                Ok(End::Replace) => {}
                Err(_) => tracing::error!("a panic in the message router's thread was caught"),
            }
            self.restarts.inc();
        }
    }

    fn serve<F>(&mut self, queue: &Receiver<Request>, running: &mut Running<F>) -> End
    where
        F: Fn(&str) -> Option<(LinkTx, LinkRx)>,
    {
        while let Ok(request) = queue.recv() {
            let alive = match request {
                Request::Attach(session) => self.attach(&running.link, session),
                Request::Detach(number) => self.detach(number),
                Request::Subscribe(number, filter) => self.subscribe(number, filter),
                Request::Unsubscribe(number, filter) => self.unsubscribe(number, &filter),
                Request::Publish(delivery) => {
                    self.topics.insert(hash(&delivery.message.topic));
                    self.published += 1;
                    let payload = wrap(&delivery, self.published);
                    running.publisher.publish(encode_topic(delivery.message.topic.as_str()), payload).is_ok()
                }
            };
            if !alive || self.topics.len() > REPLACE_AFTER || self.ended > REPLACE_AFTER {
                return End::Replace;
            }
        }
        End::Stop
    }

    fn attach(&mut self, link: &impl Fn(&str) -> Option<(LinkTx, LinkRx)>, session: Arc<Session>) -> bool {
        let number = session.number;
        let Some((tx, rx)) = link(&format!("s{number}")) else { return false };
        let reader = self.runtime.spawn(read(rx, session.clone()));
        self.linked.insert(number, Linked { session, filters: HashSet::new(), link: tx, reader });
        true
    }

    fn detach(&mut self, number: SessionNumber) -> bool {
        let Some(mut linked) = self.linked.remove(&number) else { return true };
        linked.reader.abort();
        self.ended += 1;
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        linked.link.buffer().push_back(Packet::Disconnect(Disconnect { reason_code }, None));
        // Any call tells the router to look at the buffer.
        linked.link.try_publish("nearside/detached", Bytes::new()).is_ok()
    }

    fn subscribe(&mut self, number: SessionNumber, filter: String) -> bool {
        let Some(linked) = self.linked.get_mut(&number) else { return true };
        let alive = linked.link.subscribe(encode_filter(&filter)).is_ok();
        linked.filters.insert(filter);
        alive
    }

    fn unsubscribe(&mut self, number: SessionNumber, filter: &str) -> bool {
        let Some(linked) = self.linked.get_mut(&number) else { return true };
        linked.filters.remove(filter);
        linked.link.unsubscribe(encode_filter(filter)).is_ok()
    }
}

enum End {
    Stop,
    Replace,
}

/// Empties a session's link at once into the session's own bounded queue: a slow subscriber never holds the router up.
async fn read(mut link: LinkRx, session: Arc<Session>) {
    loop {
        match link.next().await {
            Ok(Some(Notification::Forward(forward))) => {
                let topic = decode_topic(&forward.publish.topic);
                if let Some((delivery, number)) = topic.and_then(|topic| unwrap(topic, &forward.publish.payload)) {
                    session.offer_routed(&delivery, number);
                }
            }
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

fn router_config() -> RouterConfig {
    RouterConfig {
        max_connections: 2 * REPLACE_AFTER,
        max_outgoing_packet_count: 1_024,
        max_segment_size: 1 << 20,
        max_segment_count: 10,
        custom_segment: None,
        initialized_filters: None,
        shared_subscriptions_strategy: rumqttd::Strategy::RoundRobin,
    }
}

fn hash(topic: &Topic) -> u64 {
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    hasher.finish()
}

/// In front of the payload: flags, the sender's session number, the message's number, when it expires in microseconds, and its
/// properties with their length.
fn wrap(delivery: &Delivery, number: u64) -> Bytes {
    let Delivery { message, from } = delivery;
    let mut wrapped = BytesMut::with_capacity(HEADER + message.properties.len() + message.payload.len());
    wrapped.put_u8(message.qos as u8 | (u8::from(message.retain) << 2));
    wrapped.put_u64(*from);
    wrapped.put_u64(number);
    wrapped.put_i64(message.expires.unwrap_or(Timestamp::MAX).as_micros());
    // A packet, and so its properties, has at most 256 MiB.
    wrapped.put_u32(message.properties.len() as u32);
    wrapped.put_slice(&message.properties);
    wrapped.put_slice(&message.payload);
    wrapped.freeze()
}

const HEADER: usize = 1 + 8 + 8 + 8 + 4;

fn unwrap(topic: Topic, wrapped: &Bytes) -> Option<(Delivery, u64)> {
    let mut rest = wrapped.clone();
    if rest.len() < HEADER {
        return None;
    }
    let flags = rest.get_u8();
    let (from, number) = (rest.get_u64(), rest.get_u64());
    let expires = Timestamp::from_micros(rest.get_i64());
    let length = rest.get_u32() as usize;
    if length > rest.len() {
        return None;
    }
    let properties = rest.split_to(length);
    let message = Message {
        topic,
        payload: rest,
        qos: QoS::try_from(flags & 3).ok()?,
        retain: flags & 4 != 0,
        properties,
        expires: (expires != Timestamp::MAX).then_some(expires),
        identifiers: Vec::new(),
    };
    Some((Delivery { message, from }, number))
}

/// A level in letters that rumqttd bears: letters, digits, `-` and `.` stay, every other byte becomes `_` and two hexadecimal
/// digits. An empty level becomes a lone `_`, which no other level can be.
fn encode_level(level: &str, out: &mut String) {
    if level.is_empty() {
        out.push('_');
    }
    for byte in level.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.') {
            out.push(char::from(byte));
        } else {
            out.push('_');
            for digit in [byte >> 4, byte & 15] {
                out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
    }
}

fn encode_levels(topic: &str, wild: bool) -> String {
    let mut out = String::with_capacity(topic.len() + 8);
    for (n, level) in topic.split('/').enumerate() {
        if n > 0 {
            out.push('/');
        }
        if wild && matches!(level, "+" | "#") { out.push_str(level) } else { encode_level(level, &mut out) }
    }
    out
}

fn encode_topic(topic: &str) -> String {
    encode_levels(topic, false)
}

fn encode_filter(filter: &str) -> String {
    encode_levels(filter, true)
}

fn decode_topic(encoded: &[u8]) -> Option<Topic> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'_' {
            out.push(byte);
        } else if bytes.peek().is_none_or(|next| *next == b'/') {
            // An empty level.
        } else {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push((high * 16 + low) as u8);
        }
    }
    Topic::new(std::str::from_utf8(&out).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn topics_come_back_and_stay_ascii(topic in "[^\0+#]{1,40}") {
            let encoded = encode_topic(&topic);
            prop_assert!(encoded.is_ascii() && !encoded.contains(['$', '+', '#']));
            prop_assert_eq!(encoded.matches('/').count(), topic.matches('/').count());
            let decoded = decode_topic(encoded.as_bytes()).unwrap();
            prop_assert_eq!(decoded.as_str(), topic);
        }
    }
}
