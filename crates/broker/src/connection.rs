//! One connection: a task that reads and one that writes, around any byte stream.
//!
//! The reader takes as many packets as one read brought, hands their publishes to the intake as one batch and waits for the
//! answer before it reads again: what arrives meanwhile is one read and one batch, so the busier a client, the less each of its
//! messages costs. The answer comes from the journal's thread after the fsync: it encodes the acknowledgements of the whole batch
//! into one buffer, which the writer sends with one write.
//!
//! Where a message goes to a session that is kept on disk, or is retained, the acknowledgement waits for that too.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nearside_schemas::{Answer, ClientId, Durability, PacketId, Publish, QoS, RefusalReason, Timestamp, Topic};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, timeout};

use crate::access::{Origin, Principal};
use crate::answers::{Answers, Settles, Unanswered};
use crate::front_door::Shared;
use crate::handshake::{self, Hello};
use crate::message::{Delivery, Message};
use crate::packet::{self, Accepted, AckKind, Carried, Incoming, Packet, Reason, Version};
use crate::rate::Rate;
use crate::session::{Received, Session};
use crate::sessions::{Opened, Sessions};
use crate::store::Change;
use crate::writer::{self, Outlet};

/// Bytes asked of the socket at a time: more while reads come back full, so that ten thousand quiet connections hold little.
pub(crate) const READ: std::ops::RangeInclusive<usize> = (2 << 10)..=(256 << 10);
/// Topics that a connection remembers, so that each is checked and allocated once.
const REMEMBERED_TOPICS: usize = 4_096;
/// How long what was taken may wait for its answer when a connection ends.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// How many bytes the next read asks for.
struct ReadSize(usize);

impl ReadSize {
    fn follow(&mut self, read: usize) {
        self.0 = match read {
            full if full >= self.0 => self.0 * 4,
            few if few < self.0 / 8 => self.0 / 2,
            _ => self.0,
        }
        .clamp(*READ.start(), *READ.end());
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    mut buffer: BytesMut,
    origin: Origin,
    deadline: Instant,
    shared: Arc<Shared>,
) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let hello = match handshake::greet(&mut reader, &mut buffer, &origin, deadline, &shared).await {
        Ok(hello) => hello,
        Err(refusal) => {
            shared.refuse(refusal.0);
            return handshake::refuse(&mut writer, refusal).await;
        }
    };
    let (outlet, inlet) = writer::channel();
    let mut connection = Connection::new(hello, shared, outlet);
    connection.greet();
    let session = connection.opened.session.clone();
    let number = connection.opened.live.number;
    let mut writing = tokio::spawn(writer::write(writer, inlet, session, number, connection.shared.clone()));
    let end = connection.read(&mut reader, &mut buffer).await;
    connection.close(end).await;
    // The writer ends on `close`, or when the client is gone.
    if timeout(Duration::from_secs(5), &mut writing).await.is_err() {
        writing.abort();
    }
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// DISCONNECT, without the will.
    Clean,
    /// DISCONNECT that asks for the will, or the client is gone.
    Gone,
    /// We end it.
    Kick(Reason),
}

pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) opened: Opened,
    pub(crate) principal: Arc<Principal>,
    pub(crate) version: Version,
    assigned: bool,
    asked_keep_alive_secs: u16,
    keep_alive_secs: u16,
    asked_expiry_secs: u32,
    expiry_secs: u32,
    pub(crate) outlet: Outlet,
    unanswered: Arc<Unanswered>,
    topics: HashMap<Bytes, Topic>,
    /// The topics that the client gave numbers, from 1.
    aliases: HashMap<u16, Bytes>,
    rate: Rate,
    /// What became of messages to the client in this read, for the session store.
    changes: Vec<Change>,
}

/// The publishes of one read.
#[derive(Default)]
struct Batch {
    publishes: Vec<Publish>,
    acks: Vec<(AckKind, PacketId)>,
    /// The v5 properties of those publishes that have any, by place.
    carried: Vec<(usize, Carried)>,
    /// QoS 1 and 2 publishes of this read so far.
    unacknowledged: usize,
    /// All of them.
    messages: usize,
}

/// A publish that is refused while the connection stays.
struct Refused(QoS, Option<PacketId>, Reason);

impl Connection {
    fn new(hello: Hello, shared: Arc<Shared>, outlet: Outlet) -> Self {
        let Hello { connect, principal, opened, assigned } = hello;
        let cap = u16::try_from(shared.config.keep_alive_cap.get().as_secs()).unwrap_or(u16::MAX);
        let asked = connect.keep_alive_secs;
        Self {
            keep_alive_secs: if asked == 0 { cap } else { asked.min(cap) },
            asked_keep_alive_secs: asked,
            asked_expiry_secs: connect.session_expiry_secs,
            expiry_secs: opened.expiry_secs,
            rate: Rate::new(shared.config.publish_rate, Instant::now()),
            version: connect.version,
            shared,
            opened,
            principal,
            assigned,
            outlet,
            unanswered: Arc::default(),
            topics: HashMap::new(),
            aliases: HashMap::new(),
            changes: Vec::new(),
        }
    }

    pub(crate) const fn session(&self) -> &Arc<Session> {
        &self.opened.session
    }

    fn client(&self) -> &ClientId {
        &self.opened.session.client
    }

    fn greet(&self) {
        let config = &self.shared.config;
        let accepted = Accepted {
            session_present: self.opened.present,
            session_expiry_secs: (self.expiry_secs != self.asked_expiry_secs).then_some(self.expiry_secs),
            assigned_client: self.assigned.then(|| self.client().as_str()),
            keep_alive_secs: (self.keep_alive_secs != self.asked_keep_alive_secs).then_some(self.keep_alive_secs),
            receive_maximum: config.receive_maximum,
            max_packet: config.max_packet.bytes() as u32,
            topic_alias_maximum: config.topic_alias_maximum,
        };
        self.outlet.send(|out| packet::connack(out, self.version, Ok(&accepted)));
    }

    /// Reads until the connection ends.
    async fn read(&mut self, reader: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> End {
        // v3.1.1 clients cannot be told of our cap, so theirs holds where they asked for a longer one or none.
        let v3 = self.version == Version::V311;
        let secs = if v3 { self.asked_keep_alive_secs } else { self.keep_alive_secs };
        // One and a half times the keep-alive (section 3.1.2.10).
        let patience =
            if secs == 0 { Duration::from_secs(86_400 * 365) } else { Duration::from_millis(u64::from(secs) * 1_500) };
        let mut stopping = self.shared.stopping.clone();
        let mut kick = self.opened.live.kick.subscribe();
        let mut size = ReadSize(*READ.start());
        loop {
            if let Err(end) = self.handle_buffer(buffer).await {
                return end;
            }
            self.unanswered.below(1).await;
            self.outlet.room().await;
            buffer.reserve(size.0);
            let read = tokio::select! {
                read = timeout(patience, reader.read_buf(buffer)) => read,
                reason = kick.wait_for(Option::is_some) => {
                    return End::Kick(reason.ok().and_then(|reason| *reason).unwrap_or(Reason::Administrative));
                }
                () = self.outlet.gone() => return End::Gone,
                _ = stopping.wait_for(|stopping| *stopping) => return End::Kick(Reason::ServerShuttingDown),
            };
            match read {
                Ok(Ok(0) | Err(_)) => return End::Gone,
                Ok(Ok(n)) => {
                    size.follow(n);
                    self.shared.metrics.bytes.inc_by(n as u64);
                }
                Err(_) => return End::Kick(Reason::KeepAlive),
            }
        }
    }

    /// Handles every whole packet in the buffer: publishes together, in order with what is around them.
    async fn handle_buffer(&mut self, buffer: &mut BytesMut) -> Result<(), End> {
        let max_packet = self.shared.config.max_packet.bytes() as usize;
        let bound = usize::from(self.shared.config.receive_maximum);
        let mut batch = Batch::default();
        // What one read brought was received at one time.
        let received = self.shared.clock.now();
        loop {
            let packet = match packet::frame(buffer, max_packet) {
                Ok(None) => break,
                Ok(Some(frame)) => packet::packet(frame, self.version),
                Err(reason) => Err(reason),
            };
            let taken = match packet {
                Ok(Packet::Publish(publish)) => self.take_publish(publish, received, &mut batch),
                Ok(other) => {
                    self.submit(&mut batch).await;
                    self.handle(other).await?;
                    Ok(None)
                }
                Err(reason) => Err(reason),
            };
            match taken {
                Ok(None) => {}
                Ok(Some(refused)) => self.refuse(refused, &mut batch).await?,
                Err(reason) => {
                    // What came before the broken packet was right and counts.
                    self.submit(&mut batch).await;
                    return Err(End::Kick(reason));
                }
            }
            if batch.acks.len() >= bound {
                self.submit(&mut batch).await;
            }
        }
        self.submit(&mut batch).await;
        self.shared.store.send(std::mem::take(&mut self.changes), None);
        let wait = self.rate.spend(batch.messages, Instant::now());
        if !wait.is_zero() {
            self.shared.metrics.throttled.inc();
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    fn take_publish(
        &mut self,
        incoming: Incoming,
        received: Timestamp,
        batch: &mut Batch,
    ) -> Result<Option<Refused>, Reason> {
        self.shared.metrics.publishes[incoming.qos as usize].inc();
        batch.messages += 1;
        let topic = match incoming.topic_alias {
            None => self.topic(&incoming.topic)?,
            Some(alias) => {
                let name = self.aliased(alias, incoming.topic)?;
                self.topic(&name)?
            }
        };
        let topic = match topic {
            Ok(topic) => topic,
            Err(reason) => return Ok(Some(Refused(incoming.qos, incoming.packet_id, reason))),
        };
        if let Some(id) = incoming.packet_id {
            batch.unacknowledged += 1;
            let maximum = usize::from(self.shared.config.receive_maximum);
            let mut too_many = batch.unacknowledged > maximum;
            if incoming.qos == QoS::ExactlyOnce {
                if !self.session().take(id) {
                    // Sent again before our PUBREC arrived: answered again, taken once.
                    batch.acks.push((AckKind::Received, id));
                    return Ok(None);
                }
                too_many |= self.session().taken() > maximum;
            }
            if too_many && self.version == Version::V5 {
                // Section 3.3.4; v3.1.1 knows no such bound.
                if incoming.qos == QoS::ExactlyOnce {
                    self.session().free(id);
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
        if let Some(topic) = self.topics.get(name) {
            return Ok(Ok(topic.clone()));
        }
        if name.is_empty() && self.version == Version::V5 {
            // Neither a topic nor an alias (section 3.3.2.1).
            return Err(Reason::Protocol);
        }
        let text = std::str::from_utf8(name).map_err(|_| Reason::Malformed)?;
        let topic = Topic::new(text).map_err(|_| Reason::TopicName)?;
        if !self.shared.config.is_topic_in_bounds(text) {
            return Ok(Err(Reason::TopicName));
        }
        // What the server says of itself only it says (section 4.7.2).
        if text.starts_with("$SYS/") || !self.principal.may_publish(text) {
            return Ok(Err(Reason::NotAuthorized));
        }
        if self.topics.len() >= REMEMBERED_TOPICS {
            self.topics.clear();
        }
        // A copy: the name is a slice of a whole read buffer.
        self.topics.insert(Bytes::copy_from_slice(name), topic.clone());
        Ok(Ok(topic))
    }

    /// Sets an alias where a topic comes with it, or tells what it was set to (section 3.3.2.3.4).
    fn aliased(&mut self, alias: u16, name: Bytes) -> Result<Bytes, Reason> {
        if alias == 0 || alias > self.shared.config.topic_alias_maximum {
            return Err(Reason::TopicAlias);
        }
        if name.is_empty() {
            return self.aliases.get(&alias).cloned().ok_or(Reason::Protocol);
        }
        self.aliases.insert(alias, Bytes::copy_from_slice(&name));
        Ok(name)
    }

    /// Refuses one publish. v3.1.1 has no way to say so but to close: an acknowledgement would mean that it is safe (promise I1).
    async fn refuse(&self, Refused(qos, id, reason): Refused, batch: &mut Batch) -> Result<(), End> {
        self.shared.metrics.refused.publish.inc();
        self.submit(batch).await;
        if self.version == Version::V311 {
            return Err(End::Kick(reason));
        }
        let kind = if qos == QoS::ExactlyOnce { AckKind::Received } else { AckKind::Acknowledged };
        if let Some(id) = id {
            // In order with the acknowledgements before it.
            self.unanswered.below(1).await;
            self.outlet.send(|out| packet::refuse(out, kind, id, reason));
        }
        Ok(())
    }

    /// Hands the batch to the intake and waits for credit. Its acknowledgements go out when the intake answers.
    async fn submit(&self, batch: &mut Batch) {
        if batch.publishes.is_empty() && batch.acks.is_empty() {
            return;
        }
        let (publishes, acks) = (std::mem::take(&mut batch.publishes), std::mem::take(&mut batch.acks));
        let mut carried = std::mem::take(&mut batch.carried).into_iter().peekable();
        let bound = usize::from(self.shared.config.receive_maximum);
        self.unanswered.below(bound).await;
        let has_subscribers = !self.shared.routes.is_empty();
        if has_subscribers && self.shared.routes.has_direct() {
            self.shared.store.room().await;
        }
        // QoS 0 goes to subscribers at once; the rest when it is durable.
        let mut later = Vec::new();
        let mut changes = Vec::new();
        for (place, publish) in publishes.iter().enumerate() {
            let own = carried.next_if(|(whose, _)| *whose == place).map(|(_, carried)| carried);
            if !publish.retain && !has_subscribers {
                continue;
            }
            let Publish { topic, payload, qos, retain, received, .. } = publish;
            let own = own.unwrap_or_default();
            let message = Message::new(topic.clone(), payload.clone(), *qos, *retain, own, *received);
            let delivery = Delivery { message, from: self.session().number };
            if *qos == QoS::AtMostOnce { self.shared.route(&delivery, &mut changes) } else { later.push(delivery) }
        }
        self.shared.store.send(changes, None);
        let answer = self.answer(&publishes, acks, later);
        if publishes.is_empty() {
            return answer(Durability::Durable);
        }
        self.shared.intake.submit(publishes, answer).await;
    }

    fn answer(&self, publishes: &[Publish], acks: Vec<(AckKind, PacketId)>, later: Vec<Delivery>) -> Answer {
        let (shared, session) = (self.shared.clone(), self.session().clone());
        let unanswered = self.unanswered.clone();
        let waits_for = acks.len().max(1);
        unanswered.count.fetch_add(waits_for, Ordering::AcqRel);
        let settles = Settles(unanswered.clone(), waits_for);
        let taken = publishes.iter().filter(|publish| publish.qos == QoS::ExactlyOnce);
        let taken: Vec<PacketId> = taken.filter_map(|publish| publish.packet_id).collect();
        let answers = Answers {
            outlet: self.outlet.clone(),
            version: self.version,
            acks,
            taken,
            session: session.clone(),
            shared: shared.clone(),
            _settles: settles,
        };
        Box::new(move |durability| {
            if let Durability::Refused(refusal) = durability {
                return answers.refuse(refusal);
            }
            let mut changes = Vec::new();
            if session.durable {
                changes.extend(answers.taken.iter().map(|id| Change::Take(session.number, *id)));
            }
            // Routed first: what that has to store is to be on disk before the publisher is told that his message is safe.
            for delivery in &later {
                shared.route(delivery, &mut changes);
            }
            if changes.is_empty() && unanswered.storing.load(Ordering::Acquire) == 0 {
                return answers.acknowledge();
            }
            unanswered.storing.fetch_add(1, Ordering::AcqRel);
            let stored = move |durable| {
                if durable {
                    answers.acknowledge();
                } else {
                    answers.refuse(RefusalReason::StorageFailed);
                }
                unanswered.storing.fetch_sub(1, Ordering::AcqRel);
            };
            shared.store.send(changes, Some(Box::new(stored)));
        })
    }

    async fn handle(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::PubAck(id) => self.opened.session.acknowledged(id, &mut self.changes),
            Packet::PubComp(id) => self.opened.session.completed(id, &mut self.changes),
            Packet::PubRec { id, refused } => self.received(id, refused),
            Packet::PubRel(id) => self.release(id),
            Packet::Subscribe(id, subscriptions) => self.subscribe(id, subscriptions).await,
            Packet::Unsubscribe(id, filters) => self.unsubscribe(id, filters).await,
            Packet::PingReq => self.outlet.send(packet::pingresp),
            Packet::Disconnect { with_will, session_expiry_secs } => {
                if let Some(secs) = session_expiry_secs {
                    if self.expiry_secs == 0 && secs > 0 {
                        // Section 3.14.2.2.2.
                        return Err(End::Kick(Reason::Protocol));
                    }
                    let cap = self.shared.config.session_expiry_cap.get().as_secs();
                    self.expiry_secs = secs.min(u32::try_from(cap).unwrap_or(u32::MAX));
                }
                return Err(if with_will { End::Gone } else { End::Clean });
            }
            // Publishes never come here.
            Packet::Publish(_) => {}
        }
        Ok(())
    }

    /// PUBREC: the release goes out once it is on disk that the client has the message.
    fn received(&mut self, id: PacketId, refused: bool) {
        match self.opened.session.received(id, refused, &mut self.changes) {
            Received::First => {
                let session = self.session().clone();
                let changes = std::mem::take(&mut self.changes);
                // Where it cannot be stored the release goes out too: after a crash the client gets the message twice then.
                self.shared.store.send(changes, Some(Box::new(move |_| session.released(id))));
            }
            Received::Again => {}
            Received::Unknown if refused => {}
            Received::Unknown if self.version == Version::V5 => {
                self.outlet.send(|out| packet::not_found(out, AckKind::Release, id));
            }
            Received::Unknown => self.outlet.send(|out| packet::ack(out, AckKind::Release, id)),
        }
    }

    /// PUBREL: the packet id is free again.
    fn release(&self, id: PacketId) {
        let known = self.session().free(id);
        if !known && self.version == Version::V5 {
            return self.outlet.send(|out| packet::not_found(out, AckKind::Complete, id));
        }
        let outlet = self.outlet.clone();
        let complete = move || outlet.send(|out| packet::ack(out, AckKind::Complete, id));
        if known && self.session().durable {
            let changes = vec![Change::Free(self.session().number, id)];
            self.shared.store.send(changes, Some(Box::new(move |_| complete())));
        } else {
            complete();
        }
    }

    async fn close(self, end: End) {
        // What was taken is still acknowledged, and settled before the client's next connection takes over.
        let _ = timeout(LAST_ANSWERS, self.unanswered.below(1)).await;
        if let End::Kick(reason) = end {
            if !matches!(reason, Reason::TakenOver | Reason::ServerShuttingDown) {
                self.shared.telemetry.counter(nearside_telemetry::Metric::ProtocolErrors, &[reason.label()]).inc();
            }
            self.outlet.send(|out| packet::disconnect(out, self.version, reason));
        }
        // The writer may be gone with the client.
        self.outlet.close();
        self.shared.store.send(self.changes, None);
        Sessions::close(&self.shared, &self.opened, self.expiry_secs, end == End::Clean).await;
    }
}
