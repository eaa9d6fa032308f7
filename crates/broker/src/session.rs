//! A session: what a client subscribed to, the messages on their way to it, and the QoS 2 messages on their way from it.
//!
//! A durable session outlives its connections: while the client is away its QoS 1 and 2 messages wait, and what was sent without
//! an answer is sent again, in order, when it is back (section 4.4). Everything is bounded; past the bound the oldest message
//! that was not sent yet is shed and counted.
//!
//! The packet id of a message follows from its position in the session, so that after a crash it is sent again under the same id
//! and a client that has it already knows it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nearside_schemas::{ClientId, Clock, PacketId, QoS, Topic};
use nearside_telemetry::{Counter, Metric, Telemetry};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::filter;
use crate::message::{Delivery, Message};
use crate::packet::{AckKind, Outbound, Subscription, Version, ack, publish};
use crate::router::SessionNumber;
use crate::store::{Change, SavedMessage};

/// What bounds a session.
#[derive(Clone, Copy)]
pub(crate) struct SessionBounds {
    pub(crate) queue: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) in_flight: usize,
}

/// Counters of all sessions.
pub(crate) struct DeliveryMetrics {
    delivered: Counter,
    slow: Counter,
    too_large: Counter,
    expired: Counter,
    refused: Counter,
    offline: Counter,
}

impl DeliveryMetrics {
    pub(crate) fn new(telemetry: &Telemetry) -> Self {
        let dropped = |reason| telemetry.counter(Metric::PublishesDropped, &[reason]);
        Self {
            delivered: telemetry.counter(Metric::PublishesDelivered, &[]),
            slow: dropped("slow_subscriber"),
            too_large: dropped("too_large"),
            expired: dropped("expired"),
            refused: dropped("refused_by_subscriber"),
            offline: dropped("offline_qos0"),
        }
    }
}

/// Where a message that was sent stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for PUBACK or PUBREC.
    Sent,
    /// PUBREC came, but that is not on disk yet.
    Received,
    /// Waits for PUBCOMP.
    Released,
}

struct InFlight {
    position: u64,
    id: PacketId,
    stage: Stage,
    /// Gone once PUBREC came.
    message: Option<Message>,
    /// Its PUBREL is to be written.
    due: bool,
}

/// The connection that a session has.
struct Peer {
    connection: u64,
    version: Version,
    receive_maximum: usize,
    max_packet: usize,
    aliases: HashMap<Topic, u16>,
    alias_maximum: u16,
}

struct Queued {
    /// 0 for QoS 0.
    position: u64,
    message: Message,
    /// It may have been sent before.
    duplicate: bool,
}

#[derive(Default)]
struct Outgoing {
    peer: Option<Peer>,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    in_flight: VecDeque<InFlight>,
    last_position: u64,
    /// How many in flight are due.
    due: usize,
}

/// What the client of a new connection says it can take.
pub(crate) struct PeerLimits {
    pub(crate) version: Version,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: u32,
    pub(crate) topic_alias_maximum: u16,
}

/// One client's session.
pub(crate) struct Session {
    pub(crate) number: SessionNumber,
    pub(crate) client: ClientId,
    /// Whether it outlives its connections and is kept on disk.
    pub(crate) durable: bool,
    /// Whether the message router knows it.
    pub(crate) linked: AtomicBool,
    bounds: SessionBounds,
    subscriptions: Mutex<HashMap<String, Subscription>>,
    recent: Mutex<Recent>,
    /// QoS 2 packet ids that were taken and not yet released.
    taken: Mutex<HashSet<PacketId>>,
    outgoing: Mutex<Outgoing>,
    /// Told when there is something to write.
    pub(crate) ready: Notify,
    metrics: Arc<DeliveryMetrics>,
}

impl Session {
    pub(crate) fn new(
        number: SessionNumber,
        client: ClientId,
        durable: bool,
        bounds: SessionBounds,
        metrics: Arc<DeliveryMetrics>,
    ) -> Self {
        Self {
            number,
            client,
            durable,
            linked: AtomicBool::new(false),
            bounds,
            subscriptions: Mutex::default(),
            recent: Mutex::default(),
            taken: Mutex::default(),
            outgoing: Mutex::default(),
            ready: Notify::new(),
            metrics,
        }
    }

    /// Puts back what the store had. What was sent before is not known, so all of it goes out marked as sent before.
    pub(crate) fn restore(&self, subscriptions: Vec<Subscription>, queue: Vec<SavedMessage>, taken: Vec<PacketId>) {
        *self.subscriptions.lock() = subscriptions.into_iter().map(|known| (known.filter.clone(), known)).collect();
        *self.taken.lock() = taken.into_iter().collect();
        let mut outgoing = self.outgoing.lock();
        for SavedMessage { position, message } in queue {
            outgoing.last_position = outgoing.last_position.max(position);
            if let Some(message) = message {
                outgoing.queued_bytes += message.size();
                outgoing.queue.push_back(Queued { position, message, duplicate: true });
            } else {
                let (id, stage) = (packet_id(position), Stage::Released);
                outgoing.in_flight.push_back(InFlight { position, id, stage, message, due: false });
            }
        }
    }

    /// A connection takes the session over. What was sent without an answer goes out again, before anything new, as fast as this
    /// client allows.
    pub(crate) fn attach(&self, connection: u64, limits: &PeerLimits) {
        let mut outgoing = self.outgoing.lock();
        outgoing.peer = Some(Peer {
            connection,
            version: limits.version,
            receive_maximum: usize::from(limits.receive_maximum).min(self.bounds.in_flight),
            max_packet: limits.max_packet as usize,
            aliases: HashMap::new(),
            alias_maximum: limits.topic_alias_maximum,
        });
        for mut sent in std::mem::take(&mut outgoing.in_flight).into_iter().rev() {
            if let Some(message) = sent.message {
                outgoing.queued_bytes += message.size();
                outgoing.queue.push_front(Queued { position: sent.position, message, duplicate: true });
            } else {
                sent.due = sent.stage == Stage::Released;
                outgoing.in_flight.push_front(sent);
            }
        }
        outgoing.due = outgoing.in_flight.iter().filter(|sent| sent.due).count();
        self.ready.notify_one();
    }

    /// The connection is gone. QoS 0 messages go with it.
    pub(crate) fn detach(&self) {
        let mut outgoing = self.outgoing.lock();
        outgoing.peer = None;
        let before = outgoing.queue.len();
        outgoing.queue.retain(|queued| queued.position > 0);
        outgoing.queued_bytes = outgoing.queue.iter().map(|queued| queued.message.size()).sum();
        self.metrics.offline.inc_by((before - outgoing.queue.len()) as u64);
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.outgoing.lock().peer.is_some()
    }

    /// Adds or replaces a subscription. Gives back whether it is new; `None` where there are as many as there may be.
    pub(crate) fn subscribe(&self, subscription: Subscription, most: usize) -> Option<bool> {
        let mut subscriptions = self.subscriptions.lock();
        let known = subscriptions.contains_key(&subscription.filter);
        if !known && subscriptions.len() >= most {
            return None;
        }
        subscriptions.insert(subscription.filter.clone(), subscription);
        Some(!known)
    }

    pub(crate) fn unsubscribe(&self, filter: &str) -> bool {
        self.subscriptions.lock().remove(filter).is_some()
    }

    pub(crate) fn filters(&self) -> Vec<String> {
        self.subscriptions.lock().keys().cloned().collect()
    }

    pub(crate) fn subscriptions(&self) -> Vec<Subscription> {
        self.subscriptions.lock().values().cloned().collect()
    }

    /// Takes a message from the message router, which shows it once for each filter; `number` tells messages apart.
    pub(crate) fn offer_routed(&self, delivery: &Delivery, number: u64) {
        if self.subscriptions.lock().len() > 1 && !self.recent.lock().is_new(number) {
            return;
        }
        // Such a session is not stored.
        self.offer(delivery, &mut Vec::new());
    }

    /// Takes a message where a subscription of this session wants it. Where several want it, it goes out once, at the highest
    /// quality of service and with all their identifiers (section 3.3.4).
    pub(crate) fn offer(&self, delivery: &Delivery, changes: &mut Vec<Change>) {
        let subscriptions = self.subscriptions.lock();
        let wanting = subscriptions.values().filter(|subscription| {
            let own = subscription.no_local && delivery.from == self.number;
            !own && filter::matches(&subscription.filter, delivery.message.topic.as_str())
        });
        let wanting: Vec<&Subscription> = wanting.collect();
        self.offer_for(&wanting, &delivery.message, changes);
    }

    /// Queues a message for these subscriptions, at the lower of the published and the granted quality of service (section 3.8.4).
    pub(crate) fn offer_for(&self, wanting: &[&Subscription], message: &Message, changes: &mut Vec<Change>) {
        let Some(granted) = wanting.iter().map(|subscription| subscription.qos).max() else { return };
        let as_published = wanting.iter().any(|subscription| subscription.retain_as_published);
        let message = Message {
            qos: message.qos.min(granted),
            retain: message.retain && as_published,
            identifiers: wanting.iter().filter_map(|subscription| subscription.identifier).collect(),
            ..message.clone()
        };
        self.push(message, changes);
    }

    /// Queues a retained message for a new subscription.
    pub(crate) fn offer_retained(&self, subscription: &Subscription, message: Message, changes: &mut Vec<Change>) {
        let qos = message.qos.min(subscription.qos);
        self.push(Message { qos, identifiers: subscription.identifier.into_iter().collect(), ..message }, changes);
    }

    fn push(&self, message: Message, changes: &mut Vec<Change>) {
        let mut outgoing = self.outgoing.lock();
        let mut position = 0;
        if message.qos > QoS::AtMostOnce {
            outgoing.last_position += 1;
            position = outgoing.last_position;
            if self.durable {
                changes.push(Change::Enqueue(self.number, position, message.clone()));
            }
        } else if outgoing.peer.is_none() {
            self.metrics.offline.inc();
            return;
        }
        outgoing.queued_bytes += message.size();
        outgoing.queue.push_back(Queued { position, message, duplicate: false });
        while outgoing.queue.len() > self.bounds.queue || outgoing.queued_bytes > self.bounds.queue_bytes {
            let Some(oldest) = outgoing.dequeue() else { break };
            self.metrics.slow.inc();
            self.is_done(oldest.position, changes);
        }
        drop(outgoing);
        self.ready.notify_one();
    }

    fn is_done(&self, position: u64, changes: &mut Vec<Change>) {
        if self.durable && position > 0 {
            changes.push(Change::Dequeue(self.number, position));
        }
    }

    /// A QoS 1 message has arrived.
    pub(crate) fn acknowledged(&self, id: PacketId, changes: &mut Vec<Change>) {
        self.settle(id, Stage::Sent, QoS::AtLeastOnce, changes);
    }

    /// A QoS 2 message has arrived for good.
    pub(crate) fn completed(&self, id: PacketId, changes: &mut Vec<Change>) {
        self.settle(id, Stage::Released, QoS::ExactlyOnce, changes);
    }

    fn settle(&self, id: PacketId, stage: Stage, qos: QoS, changes: &mut Vec<Change>) {
        let mut outgoing = self.outgoing.lock();
        let found = outgoing.in_flight.iter().position(|sent| {
            sent.id == id && sent.stage == stage && sent.message.as_ref().is_none_or(|message| message.qos == qos)
        });
        if let Some(sent) = found.and_then(|at| outgoing.in_flight.remove(at)) {
            outgoing.due -= usize::from(sent.due);
            self.is_done(sent.position, changes);
        }
        drop(outgoing);
        self.ready.notify_one();
    }

    /// A QoS 2 message was received: it is not sent again. Its PUBREL goes out once `released` is called, after what was added to
    /// `changes` is on disk.
    pub(crate) fn received(&self, id: PacketId, refused: bool, changes: &mut Vec<Change>) -> Received {
        let mut outgoing = self.outgoing.lock();
        let sent = outgoing.in_flight.iter().position(|sent| sent.id == id);
        let Some(at) = sent else { return Received::Unknown };
        let in_flight = &mut outgoing.in_flight[at];
        if in_flight.stage != Stage::Sent {
            return Received::Again;
        }
        if in_flight.message.as_ref().is_none_or(|message| message.qos != QoS::ExactlyOnce) {
            return Received::Unknown;
        }
        if refused {
            // Section 4.3.3: a PUBREC with an error ends it.
            let removed = outgoing.in_flight.remove(at);
            outgoing.due -= usize::from(removed.as_ref().is_some_and(|sent| sent.due));
            self.metrics.refused.inc();
            self.is_done(removed.map_or(0, |sent| sent.position), changes);
            drop(outgoing);
            self.ready.notify_one();
            return Received::Again;
        }
        in_flight.stage = Stage::Received;
        in_flight.message = None;
        let (position, was_due) = (in_flight.position, std::mem::take(&mut in_flight.due));
        outgoing.due -= usize::from(was_due);
        if self.durable {
            changes.push(Change::Released(self.number, position));
        }
        Received::First
    }

    /// That a message was received is on disk: its PUBREL may go out.
    pub(crate) fn released(&self, id: PacketId) {
        let mut outgoing = self.outgoing.lock();
        if let Some(sent) = outgoing.in_flight.iter_mut().find(|sent| sent.id == id && sent.stage == Stage::Received) {
            sent.stage = Stage::Released;
            sent.due = true;
            outgoing.due += 1;
        }
        drop(outgoing);
        self.ready.notify_one();
    }

    /// Takes a QoS 2 packet id. False where it is taken already: the message was sent again.
    pub(crate) fn take(&self, id: PacketId) -> bool {
        self.taken.lock().insert(id)
    }

    /// Frees a QoS 2 packet id.
    pub(crate) fn free(&self, id: PacketId) -> bool {
        self.taken.lock().remove(&id)
    }

    /// How many QoS 2 packet ids are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.lock().len()
    }

    /// Writes what may go out on `connection`, about `most_bytes` at a time.
    pub(crate) fn write(
        &self,
        connection: u64,
        out: &mut Vec<u8>,
        most_bytes: usize,
        clock: &dyn Clock,
        changes: &mut Vec<Change>,
    ) {
        let mut guard = self.outgoing.lock();
        let outgoing = &mut *guard;
        let Some(peer) = outgoing.peer.as_mut().filter(|peer| peer.connection == connection) else { return };
        if outgoing.due > 0 {
            for sent in outgoing.in_flight.iter_mut().filter(|sent| sent.due) {
                sent.due = false;
                ack(out, AckKind::Release, sent.id);
            }
            outgoing.due = 0;
        }
        while out.len() < most_bytes {
            let Some(next) = outgoing.queue.front() else { return };
            let id = (next.position > 0).then(|| packet_id(next.position));
            if id.is_some() {
                // An id is used again only once its last message is through.
                let spread = |oldest: &InFlight| next.position.saturating_sub(oldest.position);
                let id_in_use = outgoing.in_flight.front().map_or(0, spread) >= u64::from(u16::MAX);
                if id_in_use || outgoing.in_flight.len() >= peer.receive_maximum {
                    return;
                }
            }
            let Some(next) = outgoing.queue.pop_front() else { return };
            outgoing.queued_bytes -= next.message.size();
            // What may have been sent is brought to its end.
            if !next.duplicate && next.message.is_expired(|| clock.now()) {
                self.metrics.expired.inc();
                self.is_done(next.position, changes);
                continue;
            }
            if !peer.encode(out, &next, id, clock) {
                // Section 3.1.2.11.4: as if it had been sent.
                self.metrics.too_large.inc();
                self.is_done(next.position, changes);
                continue;
            }
            self.metrics.delivered.inc();
            if let Some(id) = id {
                let Queued { position, message, .. } = next;
                let message = Some(message);
                outgoing.in_flight.push_back(InFlight { position, id, stage: Stage::Sent, message, due: false });
            }
        }
        // There is more: come again once this is written.
        if !outgoing.queue.is_empty() {
            self.ready.notify_one();
        }
    }
}

/// What a PUBREC was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Received {
    /// The first for its message.
    First,
    /// One more, or one that ends the message: nothing is to be done.
    Again,
    /// For no message of ours.
    Unknown,
}

/// The packet id of a position from 1.
fn packet_id(position: u64) -> PacketId {
    let id = (position.saturating_sub(1) % u64::from(u16::MAX)) as u16;
    PacketId::MIN.saturating_add(id)
}

impl Outgoing {
    fn dequeue(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queued_bytes -= queued.message.size();
        Some(queued)
    }
}

impl Peer {
    fn encode(&mut self, out: &mut Vec<u8>, queued: &Queued, id: Option<PacketId>, clock: &dyn Clock) -> bool {
        let message = &queued.message;
        let mut topic = message.topic.as_str();
        let mut alias = self.aliases.get(&message.topic).copied();
        let mut new_alias = None;
        if alias.is_some() {
            topic = "";
        } else if self.aliases.len() < usize::from(self.alias_maximum) && self.version == Version::V5 {
            new_alias = u16::try_from(self.aliases.len() + 1).ok();
            alias = new_alias;
        }
        // The time that is left (section 3.3.2.3.3).
        let expiry_secs = message.expires.map(|expires| {
            let left = expires.since(clock.now());
            u32::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
        });
        let outbound = Outbound {
            version: self.version,
            topic,
            topic_alias: alias,
            payload: &message.payload,
            qos: message.qos,
            packet_id: id,
            duplicate: queued.duplicate,
            retain: message.retain,
            properties: &message.properties,
            expiry_secs,
            identifiers: &message.identifiers,
        };
        let written = publish(out, &outbound, self.max_packet);
        if let (true, Some(alias)) = (written, new_alias) {
            self.aliases.insert(message.topic.clone(), alias);
        }
        written
    }
}

/// The numbers of the last messages from the message router.
#[derive(Default)]
struct Recent {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Recent {
    /// More than the message router hands over for one filter before it comes to the next.
    const MOST: usize = 8_192;

    fn is_new(&mut self, number: u64) -> bool {
        if !self.known.insert(number) {
            return false;
        }
        self.order.push_back(number);
        if self.order.len() > Self::MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}
