//! A session: what a client subscribed to, the messages on their way to it, and the QoS 2 messages on their way from it.
//!
//! A durable session outlives its connections: while the client is away its QoS 1 and 2 messages wait, and what was sent without
//! an answer is sent again, in order, when it is back (section 4.4). Everything is bounded, in messages and in bytes, for one
//! session and for all; past the bound a message of the session that was not sent yet is shed and counted: the oldest of QoS 0, or
//! else the oldest. What all hold never takes a session's own share (`queue`).
//!
//! The packet id of a message follows from its position in the session, so that after a crash it is sent again under the same id
//! and a client that has it already knows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ahash::AHashMap;
use nearside_schemas::{ClientId, Clock, PacketId, QoS, Topic};
use parking_lot::{Mutex, MutexGuard};

use crate::answers::Asker;
use crate::filter;
use crate::flush::Bell;
use crate::message::{Delivery, Message};
use crate::outgoing::{Common, InFlight, Outgoing, SessionBounds, Stage};
use crate::packet::{AckKind, Reason, Subscription, ack};
use crate::peer::{Peer, PeerLimits};
use crate::queue::{Budget, Queued};
use crate::recent::Recent;
use crate::router::SessionNumber;
use crate::store::{Change, SavedMessage};
use crate::taken::{Take, Taken};

/// One client's session.
pub(crate) struct Session {
    pub(crate) number: SessionNumber,
    pub(crate) client: ClientId,
    /// Whether it outlives its connections and is kept on disk.
    pub(crate) durable: bool,
    /// Whether the message router serves it.
    pub(crate) linked: AtomicBool,
    /// Whether it ends with its connection and is served without the router all the same.
    pub(crate) straight: AtomicBool,
    bounds: SessionBounds,
    subscriptions: Mutex<AHashMap<String, Subscription>>,
    recent: Mutex<Recent>,
    taken: Mutex<Taken>,
    /// The store knows of each message from the client that stands in the journal below this number; that of a session that is new
    /// in this run knows of all.
    journalled: AtomicU64,
    outgoing: Mutex<Outgoing>,
    budget: Arc<Budget>,
    common: Arc<Common>,
}

impl Session {
    pub(crate) fn new(
        number: SessionNumber,
        client: ClientId,
        durable: bool,
        bounds: SessionBounds,
        common: Arc<Common>,
    ) -> Self {
        Self {
            number,
            client,
            durable,
            linked: AtomicBool::new(false),
            straight: AtomicBool::new(false),
            bounds,
            subscriptions: Mutex::default(),
            recent: Mutex::default(),
            taken: Mutex::default(),
            journalled: AtomicU64::new(u64::MAX),
            outgoing: Mutex::default(),
            budget: Arc::new(Budget::new(bounds.queue_bytes, common.budget.clone())),
            common,
        }
    }

    /// Puts back what the store had: messages up to the position `sent` were sent before. Where that is not known, for the client
    /// was there at the end, those that can have been on their way are taken to have been.
    pub(crate) fn restore(&self, subscriptions: Vec<Subscription>, queue: Vec<SavedMessage>, sent: Option<u64>) {
        *self.subscriptions.lock() = subscriptions.into_iter().map(|known| (known.filter.clone(), known)).collect();
        let mut outgoing = self.outgoing.lock();
        outgoing.sent = sent.unwrap_or_default();
        for (place, SavedMessage { position, message }) in queue.into_iter().enumerate() {
            outgoing.last_position = outgoing.last_position.max(position);
            if let Some(message) = message {
                let duplicate = sent.map_or(place < self.bounds.in_flight, |sent| position <= sent);
                let queued = Queued { position, held: self.budget.hold(message), duplicate };
                outgoing.queue.push(queued, position);
            } else {
                let (id, stage) = (packet_id(position), Stage::Released);
                outgoing.in_flight.push_back(InFlight { position, id, stage, held: None, due: false });
            }
        }
    }

    /// Puts back which QoS 2 messages from the client the store knew of.
    pub(crate) fn restore_taken(&self, taken: Vec<PacketId>, journalled: u64) {
        *self.taken.lock() = Taken::restored(taken);
        self.journalled.store(journalled, Ordering::Release);
    }

    /// Whether a message with this number in the journal is one that the store does not know of; from now on it does.
    pub(crate) fn learns(&self, number: u64) -> bool {
        self.journalled.fetch_max(number.saturating_add(1), Ordering::AcqRel) <= number
    }

    /// A connection takes the session over. What was sent without an answer goes out again, before anything new, as fast as this
    /// client allows.
    pub(crate) fn attach(&self, connection: u64, limits: &PeerLimits, bell: Arc<Bell>) {
        self.taken.lock().begin();
        let mut outgoing = self.outgoing.lock();
        outgoing.peer = Some(Peer::new(connection, limits, self.bounds.in_flight, bell));
        for mut sent in std::mem::take(&mut outgoing.in_flight).into_iter().rev() {
            if let Some(held) = sent.held.take() {
                outgoing.queue.push_again(Queued { position: sent.position, held, duplicate: true });
            } else {
                sent.due = sent.stage == Stage::Released;
                outgoing.in_flight.push_front(sent);
            }
        }
        outgoing.due = outgoing.in_flight.iter().filter(|sent| sent.due).count();
        outgoing.wake();
    }

    /// The connection is gone. QoS 0 messages go with it.
    pub(crate) fn detach(&self) {
        let mut outgoing = self.outgoing.lock();
        outgoing.peer = None;
        self.common.metrics.offline.inc_by(outgoing.queue.drop_fleeting() as u64);
    }

    /// The highest position that was sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.outgoing.lock().sent
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

    /// Takes a message from the message router, which shows it once for each filter, and again where the router was replaced;
    /// `number` tells messages apart.
    pub(crate) fn offer_routed(&self, delivery: &Delivery, number: u64) {
        let filters = self.subscriptions.lock().len();
        // Held until the message is queued: whoever shows it again meanwhile does not overtake it.
        let mut recent = self.recent.lock();
        if recent.is_new(number, filters) {
            // Such a session is not stored.
            self.offer(delivery, &mut Vec::new());
        }
    }

    /// Takes a message where a subscription of this session wants it.
    fn offer(&self, delivery: &Delivery, changes: &mut Vec<Change>) {
        let subscriptions = self.subscriptions.lock();
        let topic = delivery.message.topic.as_str();
        let matching = subscriptions.values().filter(|subscription| filter::matches(&subscription.filter, topic));
        self.offer_to(matching, delivery, changes);
    }

    /// Takes a message that these of its filters match.
    pub(crate) fn offer_matched<'a>(
        &self,
        filters: impl Iterator<Item = &'a str>,
        delivery: &Delivery,
        changes: &mut Vec<Change>,
    ) {
        let subscriptions = self.subscriptions.lock();
        self.offer_to(filters.filter_map(|filter| subscriptions.get(filter)), delivery, changes);
    }

    /// Where several subscriptions match, the message goes out once, at the highest quality of service and with all their
    /// identifiers (section 3.3.4).
    fn offer_to<'a>(
        &self,
        matching: impl Iterator<Item = &'a Subscription>,
        delivery: &Delivery,
        changes: &mut Vec<Change>,
    ) {
        let wanting = matching.filter(|subscription| !(subscription.no_local && delivery.from == self.number));
        self.offer_for(wanting, &delivery.message, changes);
    }

    /// Queues a message for these subscriptions, at the lower of the published and the granted quality of service (section 3.8.4).
    pub(crate) fn offer_for<'a>(
        &self,
        wanting: impl Iterator<Item = &'a Subscription>,
        message: &Message,
        changes: &mut Vec<Change>,
    ) {
        let (mut granted, mut as_published, mut identifiers) = (None, false, Vec::new());
        for subscription in wanting {
            granted = granted.max(Some(subscription.qos));
            as_published |= subscription.retain_as_published;
            identifiers.extend(subscription.identifier);
        }
        let Some(granted) = granted else { return };
        let (qos, retain) = (message.qos.min(granted), message.retain && as_published);
        self.push(Message { qos, retain, identifiers, publisher: None, ..message.clone() }, changes);
    }

    /// Queues a retained message for a new subscription, unless it is the client's own and the subscription does not want those
    /// [MQTT-3.8.3-3].
    pub(crate) fn offer_retained(&self, subscription: &Subscription, message: Message, changes: &mut Vec<Change>) {
        if subscription.no_local && message.publisher.as_ref().is_some_and(|by| by.client == self.client) {
            return;
        }
        let qos = message.qos.min(subscription.qos);
        let identifiers = subscription.identifier.into_iter().collect();
        self.push(Message { qos, identifiers, publisher: None, ..message }, changes);
    }

    fn push(&self, message: Message, changes: &mut Vec<Change>) {
        let mut outgoing = self.outgoing.lock();
        if message.at_once && !outgoing.is_free_for(message.qos) {
            self.common.metrics.expired.inc();
            return;
        }
        let mut position = 0;
        if message.qos > QoS::AtMostOnce {
            outgoing.last_position += 1;
            position = outgoing.last_position;
            if self.durable {
                changes.push(Change::Enqueue(self.number, position, message.clone()));
            }
        } else if outgoing.peer.is_none() {
            self.common.metrics.offline.inc();
            return;
        }
        let held = self.budget.hold(message);
        // Whoever is there and waits for nothing gets a message that is larger than its share, too.
        let besides = if outgoing.peer.is_some() { held.size } else { 0 };
        let last_position = outgoing.last_position;
        outgoing.queue.push(Queued { position, held, duplicate: false }, last_position);
        while outgoing.queue.len() > self.bounds.queue || self.budget.is_exceeded(besides) {
            let Some(shed) = outgoing.queue.shed() else { break };
            self.common.metrics.slow.inc();
            self.is_done(shed.position, changes);
        }
        outgoing.wake();
    }

    fn is_done(&self, position: u64, changes: &mut Vec<Change>) {
        if self.durable && position > 0 {
            changes.push(Change::Dequeue(self.number, position));
        }
    }

    /// A QoS 1 message has arrived.
    ///
    /// # Errors
    /// Where another answer is due for what has this packet id.
    pub(crate) fn acknowledged(&self, id: PacketId, changes: &mut Vec<Change>) -> Result<(), Reason> {
        self.settle(id, |sent| sent.waits_for_puback(), changes)
    }

    /// A QoS 2 message has arrived for good.
    ///
    /// # Errors
    /// Where another answer is due for what has this packet id.
    pub(crate) fn completed(&self, id: PacketId, changes: &mut Vec<Change>) -> Result<(), Reason> {
        self.settle(id, |sent| sent.stage == Stage::Released, changes)
    }

    fn settle(
        &self,
        id: PacketId,
        is_due: impl Fn(&InFlight) -> bool,
        changes: &mut Vec<Change>,
    ) -> Result<(), Reason> {
        let mut outgoing = self.outgoing.lock();
        // Unknown ids are let pass: what they were for may be settled already.
        let Some(at) = outgoing.in_flight.iter().position(|sent| sent.id == id) else { return Ok(()) };
        if !is_due(&outgoing.in_flight[at]) {
            return Err(Reason::Protocol);
        }
        self.end(&mut outgoing, at, changes);
        self.resume(outgoing);
        Ok(())
    }

    /// Something in flight is through: what waits behind it may go out.
    fn resume(&self, outgoing: MutexGuard<'_, Outgoing>) {
        if !outgoing.queue.is_empty() {
            outgoing.wake();
        }
    }

    /// The message in flight at this place is through.
    fn end(&self, outgoing: &mut Outgoing, at: usize, changes: &mut Vec<Change>) {
        if let Some(sent) = outgoing.in_flight.remove(at) {
            outgoing.due -= usize::from(sent.due);
            self.is_done(sent.position, changes);
        }
    }

    /// A QoS 2 message was received: it is not sent again. Its PUBREL goes out once `released` is called, after what was added to
    /// `changes` is on disk.
    ///
    /// # Errors
    /// Where another answer is due for what has this packet id.
    pub(crate) fn received(&self, id: PacketId, refused: bool, changes: &mut Vec<Change>) -> Result<Received, Reason> {
        let mut outgoing = self.outgoing.lock();
        let sent = outgoing.in_flight.iter().position(|sent| sent.id == id);
        let Some(at) = sent else { return Ok(Received::Unknown) };
        let in_flight = &mut outgoing.in_flight[at];
        if in_flight.waits_for_puback() {
            return Err(Reason::Protocol);
        }
        if in_flight.stage != Stage::Sent {
            // Each PUBREC is answered [MQTT-4.3.3-4]; the first that waits for the disk is answered for all.
            if in_flight.stage == Stage::Released && !refused {
                outgoing.release(at);
            }
            return Ok(Received::Again);
        }
        if refused {
            // Section 4.3.3: a PUBREC with an error ends it.
            self.common.metrics.refused.inc();
            self.end(&mut outgoing, at, changes);
            self.resume(outgoing);
            return Ok(Received::Again);
        }
        in_flight.stage = Stage::Received;
        in_flight.held = None;
        if self.durable {
            changes.push(Change::Released(self.number, in_flight.position));
        }
        Ok(Received::First)
    }

    /// That a message was received is on disk: its PUBREL may go out.
    pub(crate) fn released(&self, id: PacketId) {
        let mut outgoing = self.outgoing.lock();
        let waits = outgoing.in_flight.iter().position(|sent| sent.id == id && sent.stage == Stage::Received);
        if let Some(at) = waits {
            outgoing.in_flight[at].stage = Stage::Released;
            outgoing.release(at);
        }
    }

    /// A PUBLISH with QoS 2 and this packet id came from `asker`.
    pub(crate) fn take(&self, id: PacketId, asker: &Asker) -> Take {
        self.taken.lock().take(id, asker)
    }

    /// The messages with these ids are safe. Gives back those that were sent again before they were, and by whom.
    pub(crate) fn keep(&self, ids: &[PacketId]) -> Vec<(PacketId, Asker)> {
        let mut taken = self.taken.lock();
        ids.iter().filter_map(|id| Some((*id, taken.keep(*id)?))).collect()
    }

    /// The messages with these ids are not taken after all. Gives back those that were sent again meanwhile, and by whom.
    pub(crate) fn give_back(&self, ids: &[PacketId]) -> Vec<(PacketId, Asker)> {
        let mut taken = self.taken.lock();
        ids.iter().filter_map(|id| Some((*id, taken.give_back(*id)?))).collect()
    }

    /// PUBREL. False where no safe message has the id.
    pub(crate) fn release(&self, id: PacketId) -> bool {
        self.taken.lock().release(id)
    }

    /// How many QoS 2 packet ids the client's connection has taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.lock().count()
    }

    /// The session is over: takes out the QoS 1 messages that its client did not acknowledge and that others of a group may have instead,
    /// each with the group's filter (section 4.8.2).
    pub(crate) fn left_to_groups(&self) -> Vec<(Arc<str>, Message)> {
        let mut outgoing = self.outgoing.lock();
        outgoing.due = 0;
        let sent = std::mem::take(&mut outgoing.in_flight).into_iter().filter_map(|sent| sent.held);
        sent.chain(outgoing.queue.drain()).filter_map(|held| left_to_group(&held.message)).collect()
    }

    /// Drops the messages that the client may not have any more, counted; but for what is on its way to it. Gives back those that others
    /// of a group may have instead.
    pub(crate) fn drop_forbidden(
        &self,
        may_have: impl Fn(&str) -> bool,
        changes: &mut Vec<Change>,
    ) -> Vec<(Arc<str>, Message)> {
        // Most of what waits is of few topics.
        let mut known: AHashMap<Topic, bool> = AHashMap::new();
        let is_forbidden = |message: &Message| match known.get(&message.topic) {
            Some(is_forbidden) => *is_forbidden,
            None => *known.entry(message.topic.clone()).or_insert(!may_have(message.topic.as_str())),
        };
        let gone = self.outgoing.lock().take_out(is_forbidden);
        self.common.metrics.forbidden.inc_by(gone.len() as u64);
        gone.iter().for_each(|(position, _)| self.is_done(*position, changes));
        gone.iter().filter_map(|(_, held)| left_to_group(&held.message)).collect()
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
            let Some(next) = outgoing.queue.pop() else { return };
            // What may have been sent is brought to its end.
            let is_on_time = next.duplicate || next.held.message.at_once;
            if !is_on_time && next.held.message.is_expired(|| clock.now()) {
                self.common.metrics.expired.inc();
                self.is_done(next.position, changes);
                continue;
            }
            if !peer.encode(out, &next, id, clock) {
                // Section 3.1.2.11.4: as if it had been sent.
                self.common.metrics.too_large.inc();
                self.is_done(next.position, changes);
                continue;
            }
            self.common.metrics.delivered.inc();
            if let Some(id) = id {
                let Queued { position, held, .. } = next;
                outgoing.sent = outgoing.sent.max(position);
                let held = Some(held);
                outgoing.in_flight.push_back(InFlight { position, id, stage: Stage::Sent, held, due: false });
            }
        }
        // There is more: come again once this is written.
        if !outgoing.queue.is_empty() {
            peer.bell.ring();
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

/// What others of the group may have instead of the member that got it: at QoS 1 alone [MQTT-4.8.2-5].
fn left_to_group(message: &Message) -> Option<(Arc<str>, Message)> {
    let group = message.group.clone().filter(|_| message.qos == QoS::AtLeastOnce)?;
    Some((group, message.clone()))
}
