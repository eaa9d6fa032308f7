//! One connection: a task that reads and one that writes, around any byte stream.
//!
//! The reader takes as many packets as one read brought, hands their publishes to the intake as one batch and waits for the
//! answer before it reads again: what arrives meanwhile is one read and one batch, so the busier a client, the less each of its
//! messages costs. The answer comes from the journal's thread after the fsync: it encodes the acknowledgements of the whole batch
//! into one buffer, which the writer sends with one write.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nearside_schemas::{Answer, ClientId, Durability, PacketId, Publish, QoS, RefusalReason, Timestamp, Topic};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::front_door::Shared;
use crate::packet::{self, Accepted, AckKind, Connect, Incoming, Packet, Reason, Subscription, Version, Will};
use crate::session::Session;

/// Bytes asked of the socket at a time: more while reads come back full, so that ten thousand quiet connections hold little.
const READ: std::ops::RangeInclusive<usize> = (2 << 10)..=(256 << 10);
/// Bytes of one write.
const WRITE: usize = 64 << 10;
/// Topics that a connection remembers, so that each is checked and allocated once.
const REMEMBERED_TOPICS: usize = 4_096;

/// What the writer is told.
enum Write {
    Bytes(Vec<u8>),
    /// Write what is queued, then close.
    Close,
}

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

/// Unanswered publishes of a connection; a batch that needs no acknowledgement counts as one.
#[derive(Default)]
struct Unanswered {
    count: AtomicUsize,
    fewer: Notify,
}

impl Unanswered {
    fn settle(&self, count: usize) {
        self.count.fetch_sub(count, Ordering::AcqRel);
        self.fewer.notify_one();
    }

    async fn below(&self, bound: usize) {
        loop {
            let fewer = self.fewer.notified();
            if self.count.load(Ordering::Acquire) < bound {
                return;
            }
            fewer.await;
        }
    }
}

/// Publishes that wait for their answer; however the answer ends, even dropped uncalled, they wait no longer.
struct Settles(Arc<Unanswered>, usize);

impl Drop for Settles {
    fn drop(&mut self) {
        self.0.settle(self.1);
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(stream: impl AsyncRead + AsyncWrite + Send + 'static, shared: Arc<Shared>) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut buffer = BytesMut::with_capacity(*READ.start());
    let handshake = timeout(shared.config.handshake_timeout.get(), read_connect(&mut reader, &mut buffer, &shared));
    let connect = match handshake.await {
        Ok(Ok(connect)) => connect,
        Ok(Err((reason, version))) => {
            shared.refuse(reason);
            let mut out = Vec::new();
            packet::connack(&mut out, version, Err(reason));
            // The client may be gone already.
            let _ = writer.write_all(&out).await;
            return;
        }
        Err(_) => return shared.refuse(Reason::KeepAlive),
    };
    let (to_writer, from_reader) = mpsc::unbounded_channel();
    let mut connection = Connection::open(connect, shared, to_writer);
    connection.shared.router.attach(connection.session.clone()).await;
    connection.greet();
    let writing = tokio::spawn(write(writer, from_reader, connection.session.clone()));
    let end = connection.read(&mut reader, &mut buffer).await;
    connection.close(end).await;
    // The writer ends on `Close`, or when the client is gone.
    let _ = timeout(Duration::from_secs(5), writing).await;
}

/// How a connection ended.
enum End {
    /// DISCONNECT, without the will.
    Clean,
    /// DISCONNECT that asks for the will, or the client is gone.
    Gone,
    /// We end it.
    Kick(Reason),
}

async fn read_connect(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    shared: &Shared,
) -> Result<Connect, (Reason, Version)> {
    loop {
        let frame = packet::frame(buffer, shared.config.max_packet.bytes() as usize);
        if let Some(frame) = frame.map_err(|reason| (reason, Version::V311))? {
            // The version is in the seventh byte of the body, where there is one.
            let version = if frame.body.get(6) == Some(&5) { Version::V5 } else { Version::V311 };
            return packet::connect(frame).map_err(|reason| (reason, version));
        }
        match reader.read_buf(buffer).await {
            Ok(n) if n > 0 => {}
            _ => return Err((Reason::Protocol, Version::V311)),
        }
    }
}

struct Connection {
    shared: Arc<Shared>,
    session: Arc<Session>,
    client: ClientId,
    assigned: bool,
    asked_keep_alive_secs: u16,
    keep_alive_secs: u16,
    will: Option<Will>,
    writer: mpsc::UnboundedSender<Write>,
    kicked: Arc<Notify>,
    unanswered: Arc<Unanswered>,
    topics: HashMap<Bytes, Topic>,
    /// QoS 2 packet ids that were taken and not yet released.
    taken: HashSet<PacketId>,
}

impl Connection {
    fn open(connect: Connect, shared: Arc<Shared>, writer: mpsc::UnboundedSender<Write>) -> Self {
        let number = shared.next_session.fetch_add(1, Ordering::Relaxed);
        let assigned = connect.client.is_empty();
        let client = if assigned { format!("nearside-{number}") } else { connect.client };
        let client = ClientId::new(&client);
        let session = Arc::new(Session::new(
            number,
            connect.version,
            shared.config.session_queue,
            connect.receive_maximum,
            connect.max_packet,
            &shared.telemetry,
        ));
        let kicked = Arc::new(Notify::new());
        let before = shared.clients.lock().insert(client.clone(), (number, kicked.clone()));
        if let Some((_, other)) = before {
            // The same id again: the older connection goes (section 3.1.4).
            other.notify_one();
        }
        let cap = u16::try_from(shared.config.keep_alive_cap.get().as_secs()).unwrap_or(u16::MAX);
        let asked = connect.keep_alive_secs;
        Self {
            keep_alive_secs: if asked == 0 { cap } else { asked.min(cap) },
            asked_keep_alive_secs: asked,
            shared,
            session,
            client,
            assigned,
            will: connect.will,
            writer,
            kicked,
            unanswered: Arc::default(),
            topics: HashMap::new(),
            taken: HashSet::new(),
        }
    }

    fn greet(&self) {
        let accepted = Accepted {
            assigned_client: self.assigned.then(|| self.client.as_str()),
            keep_alive_secs: (self.keep_alive_secs != self.asked_keep_alive_secs).then_some(self.keep_alive_secs),
            receive_maximum: self.shared.config.receive_maximum,
            max_packet: self.shared.config.max_packet.bytes() as u32,
        };
        self.send(|out| packet::connack(out, self.session.version, Ok(&accepted)));
    }

    fn send(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        encode(&mut out);
        // A writer that is gone means the reader ends at its next read.
        let _ = self.writer.send(Write::Bytes(out));
    }

    /// Reads until the connection ends.
    async fn read(&mut self, reader: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> End {
        // v3.1.1 clients cannot be told of our cap, so theirs holds where they asked for a longer one or none.
        let v3 = self.session.version == Version::V311;
        let secs = if v3 { self.asked_keep_alive_secs } else { self.keep_alive_secs };
        // One and a half times the keep-alive (section 3.1.2.10).
        let patience =
            if secs == 0 { Duration::from_secs(86_400 * 365) } else { Duration::from_millis(u64::from(secs) * 1_500) };
        let mut stopping = self.shared.stopping.clone();
        let kicked = self.kicked.clone();
        let mut size = ReadSize(*READ.start());
        loop {
            if let Err(end) = self.handle_buffer(buffer).await {
                return end;
            }
            self.unanswered.below(1).await;
            buffer.reserve(size.0);
            let read = tokio::select! {
                read = timeout(patience, reader.read_buf(buffer)) => read,
                () = kicked.notified() => return End::Kick(Reason::TakenOver),
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
        let mut batch = Vec::new();
        let mut acks = Vec::new();
        // What one read brought was received at one time.
        let received = self.shared.clock.now();
        loop {
            let packet = match packet::frame(buffer, max_packet) {
                Ok(None) => break,
                Ok(Some(frame)) => packet::packet(frame, self.session.version),
                Err(reason) => Err(reason),
            };
            let taken = match packet {
                Ok(Packet::Publish(publish)) => self.take_publish(publish, received, &mut batch, &mut acks),
                Ok(other) => {
                    self.submit(&mut batch, &mut acks).await;
                    self.handle(other).await?;
                    Ok(())
                }
                Err(reason) => Err(reason),
            };
            if let Err(reason) = taken {
                // What came before the broken packet was right and counts.
                self.submit(&mut batch, &mut acks).await;
                return Err(End::Kick(reason));
            }
            if acks.len() >= bound {
                self.submit(&mut batch, &mut acks).await;
            }
        }
        self.submit(&mut batch, &mut acks).await;
        Ok(())
    }

    fn take_publish(
        &mut self,
        incoming: Incoming,
        received: Timestamp,
        batch: &mut Vec<Publish>,
        acks: &mut Vec<(AckKind, PacketId)>,
    ) -> Result<(), Reason> {
        let topic = self.topic(&incoming.topic)?;
        self.shared.metrics.publishes[incoming.qos as usize].inc();
        match (incoming.qos, incoming.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => acks.push((AckKind::Acknowledged, id)),
            (QoS::ExactlyOnce, Some(id)) => {
                acks.push((AckKind::Received, id));
                if !self.taken.insert(id) {
                    // Sent again before our PUBREC arrived: answered again, taken once.
                    return Ok(());
                }
                if self.taken.len() > usize::from(self.shared.config.receive_maximum) {
                    return Err(Reason::QuotaExceeded);
                }
            }
            _ => {}
        }
        batch.push(Publish {
            client: self.client.clone(),
            topic,
            payload: incoming.payload,
            qos: incoming.qos,
            packet_id: incoming.packet_id,
            retain: incoming.retain,
            received,
        });
        Ok(())
    }

    fn topic(&mut self, name: &Bytes) -> Result<Topic, Reason> {
        if let Some(topic) = self.topics.get(name) {
            return Ok(topic.clone());
        }
        let text = std::str::from_utf8(name).map_err(|_| Reason::Malformed)?;
        let topic = Topic::new(text).map_err(|_| Reason::TopicName)?;
        if text.starts_with('$') {
            // Topics of the server's own; section 4.7.2 lets it refuse clients there.
            return Err(Reason::NotAuthorized);
        }
        if self.topics.len() >= REMEMBERED_TOPICS {
            self.topics.clear();
        }
        // A copy: the name is a slice of a whole read buffer.
        self.topics.insert(Bytes::copy_from_slice(name), topic.clone());
        Ok(topic)
    }

    /// Hands the batch to the intake and waits for credit. Its acknowledgements go out when the intake answers.
    async fn submit(&self, batch: &mut Vec<Publish>, acks: &mut Vec<(AckKind, PacketId)>) {
        if batch.is_empty() && acks.is_empty() {
            return;
        }
        let (batch, acks) = (std::mem::take(batch), std::mem::take(acks));
        let bound = usize::from(self.shared.config.receive_maximum);
        self.unanswered.below(bound).await;
        // QoS 0 goes to subscribers at once; the rest when it is durable.
        let mut later = Vec::new();
        let has_subscribers = !self.shared.index.read().is_empty();
        for publish in &batch {
            if publish.qos == QoS::AtMostOnce {
                self.shared.route(&publish.topic, &publish.payload, publish.qos, publish.retain, self.session.number);
            } else if publish.retain || has_subscribers {
                later.push((publish.topic.clone(), publish.payload.clone(), publish.qos, publish.retain));
            }
        }
        let answer = self.answer(acks, later);
        if batch.is_empty() {
            return answer(Durability::Durable);
        }
        self.shared.intake.submit(batch, answer).await;
    }

    fn answer(&self, acks: Vec<(AckKind, PacketId)>, later: Vec<(Topic, Bytes, QoS, bool)>) -> Answer {
        let (writer, shared) = (self.writer.clone(), self.shared.clone());
        let (version, number) = (self.session.version, self.session.number);
        let waits_for = acks.len().max(1);
        self.unanswered.count.fetch_add(waits_for, Ordering::AcqRel);
        let settles = Settles(self.unanswered.clone(), waits_for);
        Box::new(move |durability| {
            let _settles = settles;
            let mut out = Vec::with_capacity(acks.len() * 4);
            match durability {
                Durability::Durable => {
                    acks.iter().for_each(|(kind, id)| packet::ack(&mut out, *kind, *id));
                    shared.metrics.acknowledged.inc_by(acks.len() as u64);
                }
                Durability::Refused(refusal) => {
                    let reason = match refusal {
                        RefusalReason::QuotaExceeded => Reason::QuotaExceeded,
                        RefusalReason::StorageFailed | RefusalReason::Draining => Reason::Unspecified,
                    };
                    if version == Version::V5 {
                        acks.iter().for_each(|(kind, id)| packet::refuse(&mut out, *kind, *id, reason));
                    }
                }
            }
            // A writer that is gone: the client sends them again.
            let refused_v3 = durability != Durability::Durable && version == Version::V311 && !acks.is_empty();
            let _ = writer.send(if refused_v3 { Write::Close } else { Write::Bytes(out) });
            if durability == Durability::Durable {
                for (topic, payload, qos, retain) in later {
                    shared.route(&topic, &payload, qos, retain, number);
                }
            }
        })
    }

    async fn handle(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::PubAck(id) => self.session.acknowledged(id),
            Packet::PubRel(id) => {
                self.taken.remove(&id);
                self.send(|out| packet::ack(out, AckKind::Complete, id));
            }
            Packet::Subscribe(id, subscriptions) => self.subscribe(id, subscriptions).await,
            Packet::Unsubscribe(id, filters) => self.unsubscribe(id, filters).await,
            Packet::PingReq => self.send(packet::pingresp),
            Packet::Disconnect { with_will } => return Err(if with_will { End::Gone } else { End::Clean }),
            // We send no QoS 2, so these answer nothing.
            Packet::Unasked => return Err(End::Kick(Reason::Protocol)),
            // Publishes never come here.
            Packet::Publish(_) => {}
        }
        Ok(())
    }

    async fn subscribe(&self, id: PacketId, subscriptions: Vec<Subscription>) {
        let mut codes = Vec::new();
        let mut retained = Vec::new();
        for mut subscription in subscriptions {
            let shared_group = subscription.filter.starts_with("$share/");
            subscription.qos = subscription.qos.min(QoS::AtLeastOnce);
            let (filter, qos, handling) = (subscription.filter.clone(), subscription.qos, subscription.retain_handling);
            let new = if shared_group {
                None
            } else {
                self.session.subscribe(subscription, self.shared.config.max_subscriptions)
            };
            let Some(new) = new else {
                codes.push(match (self.session.version, shared_group) {
                    (Version::V5, true) => 0x9E,
                    (Version::V5, false) => 0x97,
                    (Version::V311, _) => 0x80,
                });
                continue;
            };
            codes.push(qos as u8);
            if new {
                self.shared.index.write().insert(&filter);
                self.shared.metrics.subscriptions.inc();
                self.shared.router.subscribe(self.session.number, filter.clone()).await;
            }
            if handling == 0 || (handling == 1 && new) {
                retained.extend(self.shared.retained.matching(&filter).into_iter().map(|(t, p, q)| (t, p, q.min(qos))));
            }
        }
        self.send(|out| packet::suback(out, self.session.version, id, &codes));
        for (topic, payload, qos) in retained {
            self.session.offer_retained(topic, payload, qos);
        }
    }

    async fn unsubscribe(&self, id: PacketId, filters: Vec<String>) {
        let mut codes = Vec::new();
        for filter in filters {
            let known = self.session.unsubscribe(&filter);
            codes.push(if known { 0 } else { 0x11 });
            if known {
                self.forget(filter).await;
            }
        }
        self.send(|out| packet::unsuback(out, self.session.version, id, &codes));
    }

    async fn forget(&self, filter: String) {
        self.shared.index.write().remove(&filter);
        self.shared.metrics.subscriptions.dec();
        self.shared.router.unsubscribe(self.session.number, filter).await;
    }

    async fn close(mut self, end: End) {
        let will = self.will.take();
        if let End::Kick(reason) = end {
            if !matches!(reason, Reason::TakenOver | Reason::ServerShuttingDown) {
                self.shared.telemetry.counter(nearside_telemetry::Metric::ProtocolErrors, &[reason.label()]).inc();
            }
            // What was taken is still acknowledged.
            if reason == Reason::ServerShuttingDown {
                let _ = timeout(Duration::from_secs(10), self.unanswered.below(1)).await;
            }
            self.send(|out| packet::disconnect(out, self.session.version, reason));
        }
        // The writer may be gone with the client.
        let _ = self.writer.send(Write::Close);
        for filter in self.session.filters() {
            self.forget(filter).await;
        }
        self.shared.router.detach(self.session.number).await;
        {
            let mut clients = self.shared.clients.lock();
            if clients.get(&self.client).is_some_and(|(number, _)| *number == self.session.number) {
                clients.remove(&self.client);
            }
        }
        if let (Some(will), false) = (will, matches!(end, End::Clean)) {
            self.publish_will(will).await;
        }
    }

    /// A will is a message like any other: taken in, and routed.
    async fn publish_will(&self, will: Will) {
        self.shared.route(&will.topic, &will.payload, will.qos, will.retain, self.session.number);
        let publish = Publish {
            client: self.client.clone(),
            topic: will.topic,
            payload: will.payload,
            qos: QoS::AtMostOnce,
            packet_id: None,
            retain: will.retain,
            received: self.shared.clock.now(),
        };
        self.shared.intake.submit(vec![publish], Box::new(|_| {})).await;
    }
}

/// Writes acknowledgements and messages until told to close or the client is gone.
async fn write(
    mut socket: impl AsyncWrite + Unpin,
    mut control: mpsc::UnboundedReceiver<Write>,
    session: Arc<Session>,
) {
    let mut out = Vec::with_capacity(4 << 10);
    let mut closing = false;
    while !closing {
        tokio::select! {
            message = control.recv() => closing = take(message, &mut out),
            () = session.ready.notified() => {}
        }
        // Everything that is there goes out with one write.
        while !closing && out.len() < WRITE {
            match control.try_recv() {
                Ok(message) => closing = take(Some(message), &mut out),
                Err(_) => break,
            }
        }
        session.write(&mut out, WRITE);
        if !out.is_empty() && socket.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
        if out.capacity() > 4 * WRITE {
            out = Vec::with_capacity(4 << 10);
        }
    }
    // The client may have closed first.
    let _ = socket.shutdown().await;
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
