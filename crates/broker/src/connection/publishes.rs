//! Publishes from a client: checked, handed to the intake as a batch, and answered once they are safe.
//!
//! Promise: nothing is acknowledged that is not on disk, or that was answered as received before it was (promise I1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nearside_schemas::{Answer, Durability, PacketId, Publish, QoS, Timestamp, Topic};

use super::{Connection, End, TURN};
use crate::answers::{Answers, Asker, AtIntake, Deferred, Settles};
use crate::filter::is_ours;
use crate::message::{Delivery, Message, Publisher};
use crate::packet::{self, AckKind, Carried, Incoming, Reason, Version};
use crate::store::Change;
use crate::taken::Take;

/// Topics that a connection remembers, so that each is checked and allocated once, and the bytes of their names; past either it
/// begins anew.
const REMEMBERED_TOPICS: usize = 4_096;
const REMEMBERED_BYTES: usize = 64 << 10;

/// A payload may hold on to a buffer that is no larger than this, or than four times itself.
const SMALL_BUFFER: usize = 256;

/// The publishes of one read.
#[derive(Default)]
pub(super) struct Batch {
    publishes: Vec<Publish>,
    pub(super) acks: Vec<(AckKind, PacketId)>,
    /// The v5 properties of those publishes that have any, by place.
    carried: Vec<(usize, Carried)>,
    /// QoS 1 and 2 publishes of this read so far.
    unacknowledged: usize,
    /// All of them.
    pub(super) messages: usize,
    /// The intake has let all of them pass.
    passes: bool,
    /// What they were read into.
    buffer_bytes: usize,
}

impl Batch {
    /// Of what was read into a buffer of so many bytes.
    pub(super) fn read_into(buffer_bytes: usize) -> Self {
        Self { buffer_bytes, ..Self::default() }
    }

    /// Whether it has none.
    pub(super) fn is_empty(&self) -> bool {
        self.publishes.is_empty()
    }

    /// How many acknowledgements belong to the first publishes.
    fn acks_of(&self, count: usize) -> usize {
        if count == self.publishes.len() {
            return self.acks.len();
        }
        self.publishes[..count].iter().filter(|publish| publish.packet_id.is_some()).count()
    }

    /// Takes out the first publishes, with their acknowledgements.
    fn take(&mut self, count: usize) -> (Vec<Publish>, Vec<(AckKind, PacketId)>) {
        if count == self.publishes.len() {
            return (std::mem::take(&mut self.publishes), std::mem::take(&mut self.acks));
        }
        let acks = self.acks_of(count);
        (self.publishes.drain(..count).collect(), self.acks.drain(..acks).collect())
    }
}

/// A publish that is answered apart from the batch.
pub(super) enum Apart {
    /// It is refused while the connection stays.
    Refused(QoS, Option<PacketId>, Reason),
    /// It was sent again and is safe.
    Again(PacketId),
}

impl Connection {
    pub(super) fn take_publish(
        &mut self,
        incoming: Incoming,
        received: Timestamp,
        batch: &mut Batch,
    ) -> Result<Option<Apart>, Reason> {
        self.shared.metrics.publishes[incoming.qos as usize].inc();
        batch.messages += 1;
        let topic = match incoming.topic_alias {
            None => self.topic(&incoming.topic)?,
            Some(alias) => self.aliased(alias, incoming.topic)?,
        };
        let topic = match topic {
            Ok(topic) => topic,
            Err(reason) => return Ok(Some(Apart::Refused(incoming.qos, incoming.packet_id, reason))),
        };
        if let Some(id) = incoming.packet_id {
            batch.unacknowledged += 1;
            let maximum = usize::from(self.shared.config.receive_maximum);
            let mut too_many = batch.unacknowledged > maximum;
            if incoming.qos == QoS::ExactlyOnce {
                let asker = Asker { outlet: self.outlet.clone(), version: self.version };
                match self.session().take(id, &asker) {
                    Take::New => {}
                    // It is answered once, when it is safe, on the connection that it came on last.
                    Take::Pending => return Ok(None),
                    Take::Again => return Ok(Some(Apart::Again(id))),
                }
                too_many |= self.session().taken() > maximum;
            }
            if too_many && self.version == Version::V5 {
                // Section 3.3.4; v3.1.1 knows no such bound.
                if incoming.qos == QoS::ExactlyOnce {
                    // It was new, so nobody sent it again.
                    let _ = self.session().give_back(&[id]);
                }
                return Err(Reason::ReceiveMaximum);
            }
            let kind = if incoming.qos == QoS::ExactlyOnce { AckKind::Received } else { AckKind::Acknowledged };
            batch.acks.push((kind, id));
        }
        if !incoming.carried.is_empty() {
            batch.carried.push((batch.publishes.len(), incoming.carried));
        }
        batch.publishes.push(Publish {
            client: self.client().clone(),
            topic,
            payload: incoming.payload,
            qos: incoming.qos,
            packet_id: incoming.packet_id,
            retain: incoming.retain,
            received,
        });
        Ok(None)
    }

    /// The topic of that name, or why this client may not publish to it.
    fn topic(&mut self, name: &Bytes) -> Result<Result<Topic, Reason>, Reason> {
        // Most clients publish to one.
        if let Some((_, topic)) = self.last_topic.as_ref().filter(|(last, _)| last == name) {
            return Ok(Ok(topic.clone()));
        }
        if let Some((name, topic)) = self.topics.get_key_value(name) {
            self.last_topic = Some((name.clone(), topic.clone()));
            return Ok(Ok(topic.clone()));
        }
        if name.is_empty() && self.version == Version::V5 {
            // Neither a topic nor an alias (section 3.3.2.1).
            return Err(Reason::Protocol);
        }
        let text = std::str::from_utf8(name).map_err(|_| Reason::Malformed)?;
        if text.contains('\0') {
            // Section 1.5.4.
            return Err(Reason::Malformed);
        }
        let topic = Topic::new(text).map_err(|_| Reason::TopicName)?;
        if !self.shared.config.is_topic_in_bounds(text) {
            return Ok(Err(Reason::TopicName));
        }
        // What the server says of itself only it says (section 4.7.2).
        if is_ours(text) || !self.principal.may_publish(text) {
            return Ok(Err(Reason::NotAuthorized));
        }
        if self.topics.len() >= REMEMBERED_TOPICS || self.topic_bytes + name.len() > REMEMBERED_BYTES {
            self.topics.clear();
            self.topic_bytes = 0;
        }
        self.topic_bytes += name.len();
        // A copy: the name is a slice of a whole read buffer.
        self.topics.insert(Bytes::copy_from_slice(name), topic.clone());
        Ok(Ok(topic))
    }

    /// Sets an alias where a topic comes with it; gives back the topic that it stands for (section 3.3.2.3.4), or why this client may not
    /// publish to it.
    fn aliased(&mut self, alias: u16, name: Bytes) -> Result<Result<Topic, Reason>, Reason> {
        if alias == 0 || alias > self.shared.config.topic_alias_maximum {
            return Err(Reason::TopicAlias);
        }
        if name.is_empty() {
            let known = self.aliases.get(&alias).cloned().ok_or(Reason::Protocol)?;
            return match known {
                Some(name) => self.topic(&name),
                None => Ok(Err(Reason::TopicName)),
            };
        }
        // One that is out of bounds is refused with its message, and its name not remembered; but the alias stands for no other any more.
        let is_in_bounds = std::str::from_utf8(&name).is_ok_and(|text| self.shared.config.is_topic_in_bounds(text));
        self.aliases.insert(alias, is_in_bounds.then(|| Bytes::copy_from_slice(&name)));
        self.topic(&name)
    }

    /// Answers one publish, after those before it. v3.1.1 has no way to refuse but to close: an acknowledgement would mean that it
    /// is safe (promise I1).
    pub(super) async fn answer_apart(&mut self, apart: Apart, batch: &mut Batch) -> Result<(), End> {
        self.submit(batch).await;
        self.unanswered.below(1).await;
        match apart {
            Apart::Again(id) => self.outlet.send(|out| packet::ack(out, AckKind::Received, id)),
            Apart::Refused(qos, id, reason) => {
                self.shared.metrics.refused.publish.inc();
                if reason == Reason::NotAuthorized {
                    self.say_refused("a publish was refused: its user may not publish to that topic");
                }
                if self.version == Version::V311 {
                    return Err(End::Kick(reason));
                }
                let kind = if qos == QoS::ExactlyOnce { AckKind::Received } else { AckKind::Acknowledged };
                if let Some(id) = id {
                    self.outlet.send(|out| packet::refuse(out, kind, id, reason));
                }
            }
        }
        Ok(())
    }

    /// Hands the batch to the intake and waits for credit. Its acknowledgements go out when the intake answers.
    ///
    /// QoS 0 and 1 go to subscribers at once: a publisher that is told nothing, or that its message was refused, sends it again, and
    /// QoS 1 may arrive twice. QoS 2 may not, and goes on when it is durable. Where the intake has begun to refuse, QoS 1 waits for its
    /// answer too; so does everything behind a retained message that waits.
    ///
    /// A batch whose routing is much work goes in parts, and others of the thread have their turn between them.
    pub(super) async fn submit(&mut self, batch: &mut Batch) {
        if batch.publishes.is_empty() {
            return;
        }
        self.heard = false;
        // Behind what waits for its answer the next waits too; and the packet ids of QoS 2 are kept.
        let may_pass = self.unanswered.at_intake.load(Ordering::Acquire) == 0
            && batch.acks.iter().all(|(kind, _)| *kind == AckKind::Acknowledged);
        batch.passes = may_pass && self.shared.intake.pass(&batch.publishes);
        while !batch.publishes.is_empty() {
            self.submit_some(batch).await;
            if !batch.publishes.is_empty() {
                self.taken = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    async fn submit_some(&mut self, batch: &mut Batch) {
        self.unanswered.below(self.most_unanswered()).await;
        let has_subscribers = !self.shared.routes.is_empty();
        let is_retained = batch.publishes.iter().any(|publish| publish.retain);
        if is_retained || has_subscribers && self.shared.routes.has_direct() {
            self.shared.store.room().await;
        }
        // Behind one that waits the next waits too, for they stay in their order [MQTT-4.6.0-6].
        let waits = !batch.passes
            && (self.shared.refusing.load(Ordering::Acquire) || self.unanswered.deferred.load(Ordering::Acquire) > 0);
        let at_once = if waits { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        // The retained message that came last is the one that is kept [MQTT-3.3.1-5]: behind one that waits everything waits.
        let mut barred = self.unanswered.barring.load(Ordering::Acquire) > 0;
        let mut later = Vec::new();
        let mut changes = Vec::new();
        let mut work = 0;
        let mut carried = std::mem::take(&mut batch.carried).into_iter().peekable();
        let mut done = 0;
        for publish in &batch.publishes {
            if work >= TURN {
                break;
            }
            let own = carried.next_if(|(whose, _)| *whose == done).map(|(_, carried)| carried);
            done += 1;
            if !publish.retain && !has_subscribers {
                continue;
            }
            let Publish { topic, payload, qos, retain, received, .. } = publish;
            let own = own.unwrap_or_default();
            let mut message = Message::new(topic.clone(), payload.clone(), *qos, *retain, own, *received);
            message.publisher = retain.then(|| self.publisher());
            let is_compact = batch.buffer_bytes <= SMALL_BUFFER.max(4 * payload.len());
            let delivery = Delivery { message, from: self.session().number, is_compact };
            if *qos <= at_once && !barred {
                let routed = self.shared.route(&delivery, &mut changes);
                self.heard |= routed.is_heard;
                work += routed.work;
            } else {
                barred |= *retain;
                later.push(delivery);
            }
        }
        self.taken += work;
        batch.carried.extend(carried.map(|(whose, carried)| (whose - done, carried)));
        let storing = self.store_at_once(changes);
        if batch.passes {
            debug_assert!(later.is_empty(), "what passes waits for nothing");
            return self.answer_passed(batch, done, storing);
        }
        let (publishes, acks) = batch.take(done);
        let answer = self.answer(&publishes, acks, later, storing);
        self.shared.intake.submit(publishes, answer).await;
    }

    /// Acknowledges the first publishes of a batch that the intake let pass.
    fn answer_passed(&self, batch: &mut Batch, count: usize, storing: Option<Arc<AtomicBool>>) {
        if storing.is_some() || self.unanswered.storing.load(Ordering::Acquire) > 0 {
            let (publishes, acks) = batch.take(count);
            let answers = self.answers(&publishes, acks);
            return answers.acknowledge_once_stored(&self.unanswered, Vec::new(), storing);
        }
        let acks = batch.acks_of(count);
        self.shared.metrics.acknowledged.inc_by(acks as u64);
        if acks > 0 {
            self.outlet.send(|out| batch.acks.drain(..acks).for_each(|(kind, id)| packet::ack(out, kind, id)));
        }
        batch.publishes.drain(..count);
    }

    fn publisher(&self) -> Arc<Publisher> {
        Arc::new(Publisher { client: self.client().clone(), holder: self.principal.holder() })
    }

    /// Hands over what was routed before it was durable. Gives back what the batch's end must wait for: its acknowledgements, and, so that a
    /// client is not faster than the store (promise I4), whatever is read next.
    fn store_at_once(&self, changes: Vec<Change>) -> Option<Arc<AtomicBool>> {
        if changes.is_empty() {
            return None;
        }
        let stored = Arc::new(AtomicBool::new(false));
        let tell = stored.clone();
        self.shared.store.send(changes, Some(Box::new(move |durable| tell.store(durable, Ordering::Release))));
        Some(stored)
    }

    /// The answers to a batch, which waits for them from now on.
    fn answers(&self, publishes: &[Publish], acks: Vec<(AckKind, PacketId)>) -> Answers {
        let taken = publishes.iter().filter(|publish| publish.qos == QoS::ExactlyOnce);
        let taken: Vec<PacketId> = taken.filter_map(|publish| publish.packet_id).collect();
        Answers {
            outlet: self.outlet.clone(),
            version: self.version,
            _settles: Settles::new(&self.unanswered, acks.len().max(1)),
            acks,
            taken,
            session: self.session().clone(),
            shared: self.shared.clone(),
        }
    }

    /// `storing` is true once what the session store got of this batch before is on disk; it is asked after the store has been waited for.
    fn answer(
        &self,
        publishes: &[Publish],
        acks: Vec<(AckKind, PacketId)>,
        later: Vec<Delivery>,
        storing: Option<Arc<AtomicBool>>,
    ) -> Answer {
        let unanswered = self.unanswered.clone();
        let at_intake = AtIntake::new(unanswered.clone(), acks.len().max(1));
        let deferred = (!later.is_empty()).then(|| Deferred::new(unanswered.clone(), &later));
        let answers = self.answers(publishes, acks);
        Box::new(move |durability| {
            // To the end: what comes behind is told of this by `storing` then.
            let _at_intake = at_intake;
            let (shared, session) = (answers.shared.clone(), &answers.session);
            let mut changes = Vec::new();
            match durability {
                Durability::Durable { below } => {
                    if shared.refusing.load(Ordering::Acquire) {
                        shared.refusing.store(false, Ordering::Release);
                    }
                    shared.recovery.reach(below);
                    if session.durable && !answers.taken.is_empty() {
                        changes.extend(answers.taken.iter().map(|id| Change::Take(session.number, *id)));
                        changes.push(Change::Journalled(session.number, below));
                    }
                }
                Durability::Refused(refusal) => {
                    shared.refusing.store(true, Ordering::Release);
                    return answers.refuse(refusal);
                }
            }
            // Routed first: what that has to store is to be on disk before the publisher is told that his message is safe.
            for delivery in &later {
                shared.route(delivery, &mut changes);
            }
            drop(deferred);
            answers.acknowledge_once_stored(&unanswered, changes, storing);
        })
    }
}
