//! One connection: a task that reads and one that writes, around any byte stream.
//!
//! The reader takes as many packets as one read brought, hands their publishes to the intake as one batch and waits for the
//! answer before it reads again: what arrives meanwhile is one read and one batch, so the busier a client, the less each of its
//! messages costs. Where somebody listens to the client it does not wait, for what it sends next is to reach them at once. The answer comes from the journal's thread after the fsync: it encodes the acknowledgements of the whole batch
//! into one buffer, which the writer sends with one write.
//!
//! Where a message goes to a session that is kept on disk, or is retained, the acknowledgement waits for that too.

mod publishes;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nearside_schemas::{ClientId, PacketId, QoS, Topic};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

use self::publishes::Batch;
use crate::access::{Origin, Principal};
use crate::answers::Unanswered;
use crate::arrivals;
use crate::front_door::Shared;
use crate::handshake::{self, Hello};
use crate::packet::{self, Accepted, AckKind, Packet, Reason, Version};
use crate::rate::Rate;
use crate::seldom::Seldom;
use crate::session::{Received, Session};
use crate::sessions::{Opened, Sessions};
use crate::store::Change;
use crate::waiting::Patience;
use crate::writer::{Outlet, Writer};

/// Bytes asked of the socket at a time: more while reads come back full, so that ten thousand quiet connections hold little.
pub(crate) const READ: std::ops::RangeInclusive<usize> = (2 << 10)..=(256 << 10);
/// Packets that a connection takes before it lets the others of its thread have a turn, however many more are there; a read that brought
/// none counts as one, and a message that is much work to route as many.
const TURN: usize = 1_024;
/// How long what was taken may wait for its answer when a connection ends: less than the client's next connection waits for that.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

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

/// A client whose packet is on its way is waited for as long again as its bytes would take at this speed: a keep-alive is for packets, not
/// for bytes (section 3.1.2.10), but a large one on a slow line is no silence.
const SLOWEST_BYTES_PER_SEC: u64 = 1 << 10;

/// What became of what was in the buffer.
#[derive(Clone, Copy)]
struct Handled {
    /// Whether no whole packet is left.
    is_empty: bool,
    /// Whether there was one.
    some: bool,
}

/// Since when the client is waited for.
struct ReadsFrom {
    begin: Instant,
    /// After `begin`.
    millis: AtomicU64,
}

impl Default for ReadsFrom {
    fn default() -> Self {
        Self { begin: Instant::now(), millis: AtomicU64::new(0) }
    }
}

impl ReadsFrom {
    fn now(&self) -> u64 {
        self.begin.elapsed().as_millis() as u64
    }

    fn set(&self, millis: u64) {
        self.millis.store(millis, Ordering::Release);
    }

    /// Waits until it has been waited for as long as this.
    async fn silence(self: Arc<Self>, patience: Duration) {
        loop {
            let by = self.begin + Duration::from_millis(self.millis.load(Ordering::Acquire)) + patience;
            let now = Instant::now();
            if now >= by {
                return;
            }
            // Once its large packet is whole a client is waited for no longer than any other.
            sleep_until(by.min(now + patience)).await;
        }
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    mut buffer: BytesMut,
    origin: Origin,
    patience: Patience,
    shared: Arc<Shared>,
) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    // What comes before and after the time in which it is served has its room only then.
    let hello = match Box::pin(handshake::greet(&mut reader, &mut buffer, &origin, &patience, &shared)).await {
        Ok(hello) => hello,
        Err(refusal) => {
            shared.refuse(refusal.0);
            let farewell = async {
                if handshake::refuse(&mut writer, refusal).await {
                    handshake::hear_out(&mut reader, &mut buffer, &shared).await;
                }
            };
            let _ = Box::pin(patience.unless_needed(farewell)).await;
            return;
        }
    };
    drop(patience);
    let outlet = Outlet::new(hello.opened.live.bell.clone());
    let mut connection = Connection::new(hello, origin.address, shared, outlet.clone());
    let greeted = connection.greet();
    let session = connection.opened.session.clone();
    let number = connection.opened.live.number;
    let writer = Writer::new(writer, outlet, session, number, connection.shared.clone());
    connection.opened.live.bell.belongs_to(&writer);
    let mut writing = tokio::spawn(writer.run());
    let end = match greeted {
        Ok(()) => connection.read(&mut reader, &mut buffer).await,
        Err(end) => end,
    };
    let (shared, is_told) = (connection.shared.clone(), end.is_told(connection.version));
    Box::pin(connection.close(end)).await;
    // The writer ends on `close`, or when the client is gone.
    if timeout(Duration::from_secs(5), &mut writing).await.is_err() {
        writing.abort();
    } else if is_told {
        Box::pin(handshake::hear_out(&mut reader, &mut buffer, &shared)).await;
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

impl End {
    /// Whether the client gets to know why.
    const fn is_told(self, version: Version) -> bool {
        matches!((self, version), (Self::Kick(_), Version::V5))
    }
}

pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) opened: Opened,
    pub(crate) principal: Arc<Principal>,
    pub(crate) version: Version,
    address: IpAddr,
    assigned: bool,
    asked_keep_alive_secs: u16,
    keep_alive_secs: u16,
    asked_expiry_secs: u32,
    expiry_secs: u32,
    /// The largest packet that the client takes.
    max_packet: usize,
    outlet: Outlet,
    unanswered: Arc<Unanswered>,
    topics: HashMap<Bytes, Topic>,
    /// The one of them that was published to last.
    last_topic: Option<(Bytes, Topic)>,
    /// Of their names.
    topic_bytes: usize,
    /// The topics that the client gave numbers, from 1; none where one is out of bounds.
    aliases: HashMap<u16, Option<Bytes>>,
    rate: Rate,
    /// What counts towards its [`TURN`].
    taken: usize,
    /// Not read before, for it has published too fast.
    paused_until: Option<Instant>,
    /// Whether somebody subscribed to what the client published last.
    heard: bool,
    /// What became of messages to the client in this read, for the session store.
    changes: Vec<Change>,
    /// What was allocated for what is being read; packets that are cut from it hold on to all of it.
    buffer_bytes: usize,
}

impl Connection {
    fn new(hello: Hello, address: IpAddr, shared: Arc<Shared>, outlet: Outlet) -> Self {
        let Hello { connect, principal, opened, assigned } = hello;
        let cap = u16::try_from(shared.config.keep_alive_cap.get().as_secs()).unwrap_or(u16::MAX);
        let asked = connect.keep_alive_secs;
        Self {
            keep_alive_secs: if asked == 0 { cap } else { asked.min(cap) },
            asked_keep_alive_secs: asked,
            asked_expiry_secs: connect.session_expiry_secs,
            expiry_secs: opened.expiry_secs,
            max_packet: connect.max_packet as usize,
            taken: 0,
            paused_until: None,
            rate: Rate::new(shared.config.publish_rate, Instant::now()),
            version: connect.version,
            address,
            shared,
            opened,
            principal,
            assigned,
            outlet,
            unanswered: Arc::default(),
            topics: HashMap::new(),
            last_topic: None,
            topic_bytes: 0,
            aliases: HashMap::new(),
            heard: false,
            changes: Vec::new(),
            // Of what came with the CONNECT it is not known.
            buffer_bytes: usize::MAX,
        }
    }

    pub(crate) const fn session(&self) -> &Arc<Session> {
        &self.opened.session
    }

    /// Says that the client may not do what it asked for.
    pub(crate) fn say_refused(&self, why: &'static str) {
        self.shared.refusals.say(self.address, self.principal.user.as_deref(), why);
    }

    /// Whether the connection is to end, whatever it is at.
    pub(crate) fn is_over(&self) -> bool {
        self.opened.live.kick.borrow().is_some() || *self.shared.stopping.borrow()
    }

    fn client(&self) -> &ClientId {
        &self.opened.session.client
    }

    fn greet(&self) -> Result<(), End> {
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
        self.send(|out| packet::connack(out, self.version, Ok(&accepted))).map_err(|_| {
            // No DISCONNECT before a CONNACK [MQTT-3.14.0-1]; and who was not let in leaves no will.
            self.say_refused("a client was not let in: the answer to its CONNECT is larger than it takes");
            End::Clean
        })
    }

    /// Sends one packet, unless it is larger than the client takes [MQTT-3.1.2-24].
    pub(crate) fn send(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), End> {
        let mut packet = Vec::new();
        encode(&mut packet);
        if packet.len() > self.max_packet {
            return Err(End::Kick(Reason::PacketTooLarge));
        }
        self.outlet.send(|out| out.extend(packet));
        Ok(())
    }

    /// Waits until the client has read enough to be told more; no longer than it has the session.
    async fn room(&self) -> Result<(), End> {
        if self.outlet.has_room() {
            return Ok(());
        }
        let mut stopping = self.shared.stopping.clone();
        tokio::select! {
            () = self.outlet.room() => Ok(()),
            reason = self.opened.live.kicked() => Err(End::Kick(reason)),
            _ = stopping.wait_for(|stopping| *stopping) => Err(End::Kick(Reason::ServerShuttingDown)),
        }
    }

    /// Reads until the connection ends.
    async fn read(&mut self, reader: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> End {
        // v3.1.1 clients cannot be told of our cap, so theirs holds where they asked for a longer one or none.
        let v3 = self.version == Version::V311;
        let secs = if v3 { self.asked_keep_alive_secs } else { self.keep_alive_secs };
        // One and a half times the keep-alive (section 3.1.2.10).
        let patience =
            if secs == 0 { Duration::from_secs(86_400 * 365) } else { Duration::from_millis(u64::from(secs) * 1_500) };
        let (mut stopping, live, outlet) =
            (self.shared.stopping.clone(), self.opened.live.clone(), self.outlet.clone());
        let mut size = ReadSize(*READ.start());
        // Made once: most reads come long before any of these.
        let mut over = Seldom::new(async move {
            tokio::select! {
                reason = live.kicked() => End::Kick(reason),
                () = outlet.gone() => End::Gone,
                _ = stopping.wait_for(|stopping| *stopping) => End::Kick(Reason::ServerShuttingDown),
            }
        });
        let reads_from = Arc::new(ReadsFrom::default());
        let mut silence = Seldom::new(reads_from.clone().silence(patience));
        // Since the last whole packet, CONNECT at first, but for the time in which the client was not read.
        let (mut since, mut was_whole) = (0, true);
        loop {
            let Handled { is_empty, some } = match self.handle_buffer(buffer).await {
                Ok(handled) => handled,
                Err(end) => return end,
            };
            was_whole |= some;
            let not_read_from = if was_whole { 0 } else { reads_from.now() };
            let most = if self.heard { self.most_unanswered() } else { 1 };
            if let Some(until) = self.paused_until.take() {
                tokio::select! {
                    biased;
                    end = &mut over => return end,
                    () = sleep_until(until) => {}
                }
            }
            let waits = !self.unanswered.is_below(most);
            if waits || self.taken >= TURN {
                self.taken = 0;
                let turn = async {
                    if waits {
                        self.unanswered.below(most).await;
                    } else {
                        tokio::task::yield_now().await;
                    }
                };
                // Not longer than it has the session: the next connection is answered what is on its way now (`Answers`).
                tokio::select! {
                    biased;
                    end = &mut over => return end,
                    () = turn => {}
                }
            }
            if let Err(end) = self.room().await {
                return end;
            }
            let now = reads_from.now();
            since = if was_whole { now } else { since + now.saturating_sub(not_read_from) };
            if !is_empty {
                continue;
            }
            was_whole = false;
            if buffer.is_empty() {
                self.buffer_bytes = 0;
            }
            reads_from.set(since + buffer.len() as u64 * 1_000 / SLOWEST_BYTES_PER_SEC);
            let read = tokio::select! {
                biased;
                read = arrivals::read(reader, buffer, size.0) => read,
                end = &mut over => return end,
                () = &mut silence => return End::Kick(Reason::KeepAlive),
            };
            match read {
                Ok(0) | Err(_) => return End::Gone,
                Ok(n) => {
                    self.buffer_bytes = self.buffer_bytes.max(buffer.capacity());
                    size.follow(n);
                    self.shared.metrics.bytes.inc_by(n as u64);
                }
            }
        }
    }

    /// How many publishes of the client may wait for their answer.
    pub(crate) fn most_unanswered(&self) -> usize {
        usize::from(self.shared.config.receive_maximum)
    }

    /// Waits until it is known which QoS 2 messages the journal holds; not longer than the server runs.
    async fn recovered(&self) -> Result<(), End> {
        let mut stopping = self.shared.stopping.clone();
        tokio::select! {
            biased;
            () = self.shared.recovery.over() => Ok(()),
            _ = stopping.wait_for(|stopping| *stopping) => Err(End::Kick(Reason::ServerShuttingDown)),
        }
    }

    /// Handles every whole packet in the buffer: publishes together, in order with what is around them. There may be more left, where
    /// others of the thread have their turn first or the client publishes too fast.
    async fn handle_buffer(&mut self, buffer: &mut BytesMut) -> Result<Handled, End> {
        let max_packet = self.shared.config.max_packet.bytes() as usize;
        let bound = self.most_unanswered();
        let mut batch = Batch::read_into(self.buffer_bytes);
        // What one read brought was received at one time.
        let mut received = None;
        let (mut is_empty, mut some) = (true, false);
        let room = self.rate.room(Instant::now);
        loop {
            let too_fast = room.is_some_and(|room| batch.messages >= room) && !buffer.is_empty();
            if self.taken >= TURN || too_fast {
                is_empty = false;
                break;
            }
            // The most that comes from who subscribes; it needs no packet of its own.
            if batch.is_empty()
                && let Some(id) = packet::take_short_puback(buffer)
            {
                some = true;
                self.taken += 1;
                self.opened.session.acknowledged(id, &mut self.changes).map_err(End::Kick)?;
                continue;
            }
            let packet = match packet::frame(buffer, max_packet) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    some = true;
                    self.taken += 1;
                    packet::packet(frame, self.version)
                }
                Err(reason) => Err(reason),
            };
            let taken = match packet {
                Ok(Packet::Publish(publish)) => {
                    if publish.qos == QoS::ExactlyOnce {
                        self.recovered().await?;
                    }
                    let received = *received.get_or_insert_with(|| self.shared.clock.now());
                    self.take_publish(publish, received, &mut batch)
                }
                Ok(other) => {
                    self.submit(&mut batch).await;
                    self.handle(other).await?;
                    self.room().await?;
                    Ok(None)
                }
                Err(reason) => Err(reason),
            };
            match taken {
                Ok(None) => {}
                Ok(Some(apart)) => Box::pin(self.answer_apart(apart, &mut batch)).await?,
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
        self.taken += 1;
        if let Some(room) = room {
            self.rate.spend(batch.messages);
            if batch.messages >= room && !buffer.is_empty() {
                self.shared.metrics.throttled.inc();
                let now = Instant::now();
                self.paused_until = Some(now + self.rate.wait(now));
            }
        }
        Ok(Handled { is_empty, some })
    }

    async fn handle(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::PubAck(id) => self.opened.session.acknowledged(id, &mut self.changes).map_err(End::Kick),
            Packet::PubComp(id) => self.opened.session.completed(id, &mut self.changes).map_err(End::Kick),
            Packet::PubRec { id, refused } => self.received(id, refused).map_err(End::Kick),
            Packet::PubRel(id) => {
                self.release(id);
                Ok(())
            }
            // Seldom, and not small: a connection that waits has no room for them.
            Packet::Subscribe(id, subscriptions) => Box::pin(self.subscribe(id, subscriptions)).await,
            Packet::Unsubscribe(id, filters) => Box::pin(self.unsubscribe(id, filters)).await,
            Packet::PingReq => {
                self.outlet.send(packet::pingresp);
                Ok(())
            }
            Packet::Disconnect { with_will, session_expiry_secs } => Err(self.goodbye(with_will, session_expiry_secs)),
            // Publishes never come here.
            Packet::Publish(_) => Ok(()),
        }
    }

    fn goodbye(&mut self, with_will: bool, session_expiry_secs: Option<u32>) -> End {
        if let Some(secs) = session_expiry_secs {
            if self.expiry_secs == 0 && secs > 0 {
                // Section 3.14.2.2.2.
                return End::Kick(Reason::Protocol);
            }
            let cap = self.shared.config.session_expiry_cap.get().as_secs();
            self.expiry_secs = secs.min(u32::try_from(cap).unwrap_or(u32::MAX));
        }
        if with_will { End::Gone } else { End::Clean }
    }

    /// PUBREC: the release goes out once it is on disk that the client has the message.
    fn received(&mut self, id: PacketId, refused: bool) -> Result<(), Reason> {
        match self.opened.session.received(id, refused, &mut self.changes)? {
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
        Ok(())
    }

    /// PUBREL: the packet id is free again.
    fn release(&self, id: PacketId) {
        let known = self.session().release(id);
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
            // Where even that is too large it is left out.
            let _ = self.send(|out| packet::disconnect(out, self.version, reason));
        }
        // The writer may be gone with the client.
        self.outlet.close();
        self.shared.store.send(self.changes, None);
        Sessions::close(&self.shared, &self.opened, self.expiry_secs, end == End::Clean).await;
    }
}
