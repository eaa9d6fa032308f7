//! A broker on a free port and a client that knows nothing but bytes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nearside_broker::{AcceptAll, BrokerConfig, FrontDoor, Ports, Recovery, SessionStore};
use nearside_schemas::{Clock, Intake, KeyPurpose, KeySource, SecretKey, SystemClock};
use nearside_telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing in a test takes longer than this.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A broker in this process.
pub struct Broker {
    pub door: FrontDoor,
    pub telemetry: Telemetry,
}

/// How a broker is set up.
pub struct Setup {
    pub config: BrokerConfig,
    pub intake: Arc<dyn Intake>,
    pub clock: Arc<dyn Clock>,
    pub store: SessionStore,
    pub recovery: Recovery,
    pub base: PathBuf,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: BrokerConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..BrokerConfig::default() },
            intake: Arc::new(AcceptAll::new()),
            clock: Arc::new(SystemClock),
            store: SessionStore::Memory,
            recovery: Recovery::none(),
            base: PathBuf::new(),
        }
    }
}

struct TestKeys;

impl KeySource for TestKeys {
    fn derive(&self, purpose: KeyPurpose, context: &[u8]) -> SecretKey {
        let mut key = [purpose as u8; 32];
        key.iter_mut().zip(context).for_each(|(key, context)| *key ^= context);
        SecretKey::new(key)
    }
}

impl Setup {
    /// Keeps sessions in a file of this folder.
    pub fn stored_in(folder: &Path) -> Self {
        let store = SessionStore::File { path: folder.join("sessions.redb"), keys: Arc::new(TestKeys) };
        Self { store, base: folder.to_owned(), ..Self::default() }
    }

    pub fn with(mut self, change: impl FnOnce(&mut BrokerConfig)) -> Self {
        change(&mut self.config);
        self
    }

    pub async fn start(self) -> Broker {
        let telemetry = Telemetry::new();
        let Self { config, intake, clock, store, recovery, base } = self;
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let (intake, clock, store) = (intake.clone(), clock.clone(), store.clone());
            let ports = Ports { intake, clock, store, recovery: recovery.clone(), base: base.clone() };
            match FrontDoor::open(config.clone(), ports, &telemetry).await {
                Ok(door) => return Broker { door, telemetry },
                // The front door before, in this very process, may not have let go of the file yet.
                Err(error) if error.to_string().contains("a gateway runs") && tokio::time::Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Broker {
    pub async fn start() -> Self {
        Setup::default().start().await
    }

    /// A connection that has said nothing.
    pub async fn client(&self) -> Client {
        Client { stream: TcpStream::connect(self.door.local_addr()).await.unwrap(), early: VecDeque::new() }
    }

    /// A client that is let in: with v3.1.1 or v5.
    pub async fn connect(&self, version: u8, id: &str) -> Client {
        let mut client = self.client().await;
        client.send(Connect::new(version, id).bytes()).await;
        assert_eq!(client.receive().await.kind(), 2, "CONNACK");
        client
    }

    /// A metric's value, 0 where the line is not there.
    pub fn metric(&self, line: &str) -> f64 {
        let text = self.telemetry.render();
        text.lines().find_map(|candidate| candidate.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0.0)
    }

    /// Waits until a metric is at least `least`.
    pub async fn wait_for(&self, line: &str, least: f64) {
        let wait = async {
            while self.metric(line) < least {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{line} stays at {}", self.metric(line)));
    }

    /// Stops without a word to anybody, as far as one can within a process.
    pub async fn stop(self) {
        self.door.drain(Duration::from_secs(5)).await;
    }
}

/// A packet as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Received(pub Vec<u8>);

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x} "))
    }
}

impl Received {
    pub fn kind(&self) -> u8 {
        self.0[0] >> 4
    }

    pub fn body(&self) -> &[u8] {
        let length = self.0[1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 2;
        &self.0[length..]
    }

    /// The fields of a PUBLISH.
    pub fn publish(&self, version: u8) -> Publish {
        assert_eq!(self.kind(), 3, "a PUBLISH, not {self:?}");
        let mut body = self.body();
        let qos = (self.0[0] >> 1) & 3;
        let topic = String::from_utf8(take_text(&mut body)).unwrap();
        let id = if qos > 0 { u16::from_be_bytes([take(&mut body, 1)[0], take(&mut body, 1)[0]]) } else { 0 };
        let properties = if version == 5 { take_properties(&mut body) } else { Vec::new() };
        let (retain, dup) = (self.0[0] & 1 != 0, self.0[0] & 8 != 0);
        Publish { topic, payload: body.to_vec(), qos, retain, dup, id, properties }
    }

    /// Reason code and properties of a v5 CONNACK, and whether the session was present.
    pub fn connack(&self) -> (bool, u8, Vec<u8>) {
        assert_eq!(self.kind(), 2, "a CONNACK, not {self:?}");
        let mut rest = &self.body()[2..];
        let properties = if rest.is_empty() { Vec::new() } else { take_properties(&mut rest) };
        (self.body()[0] == 1, self.body()[1], properties)
    }
}

fn take<'b>(body: &mut &'b [u8], count: usize) -> &'b [u8] {
    let (front, rest) = body.split_at(count);
    *body = rest;
    front
}

fn take_text(body: &mut &[u8]) -> Vec<u8> {
    let length = u16::from_be_bytes(take(body, 2).try_into().unwrap());
    take(body, usize::from(length)).to_vec()
}

fn take_properties(body: &mut &[u8]) -> Vec<u8> {
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = take(body, 1)[0];
        length |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return take(body, length).to_vec();
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Publish {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
    /// Encoded, without their length. `None` of v3.1.1 is empty.
    pub properties: Vec<u8>,
}

impl Publish {
    pub fn new(topic: &str, payload: &str, qos: u8, id: u16) -> Self {
        Self { topic: topic.to_owned(), payload: payload.into(), qos, id, ..Self::default() }
    }

    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    pub fn again(mut self) -> Self {
        self.dup = true;
        self
    }

    pub fn property(mut self, bytes: &[u8]) -> Self {
        self.properties.extend(bytes);
        self
    }

    pub fn bytes(&self, version: u8) -> Vec<u8> {
        let mut body = text(&self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        if version == 5 {
            body.extend(prefixed(&self.properties));
        }
        body.extend(&self.payload);
        packet(0x30 | u8::from(self.retain) | (self.qos << 1) | (u8::from(self.dup) << 3), &body)
    }
}

/// A CONNECT.
#[derive(Clone)]
pub struct Connect {
    pub version: u8,
    pub id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub properties: Vec<u8>,
    /// Topic, payload, QoS, retain, properties.
    pub will: Option<(String, String, u8, bool, Vec<u8>)>,
    pub user: Option<String>,
    pub password: Option<String>,
}

impl Connect {
    pub fn new(version: u8, id: &str) -> Self {
        Self {
            version,
            id: id.to_owned(),
            clean: true,
            keep_alive: 60,
            properties: Vec::new(),
            will: None,
            user: None,
            password: None,
        }
    }

    /// Keeps the session: for ever with v3.1.1, for `secs` with v5.
    pub fn persistent(mut self, secs: u32) -> Self {
        self.clean = false;
        if self.version == 5 {
            self.properties.push(0x11);
            self.properties.extend(secs.to_be_bytes());
        }
        self
    }

    pub fn property(mut self, bytes: &[u8]) -> Self {
        self.properties.extend(bytes);
        self
    }

    pub fn will(mut self, topic: &str, payload: &str, qos: u8, retain: bool, properties: &[u8]) -> Self {
        self.will = Some((topic.to_owned(), payload.to_owned(), qos, retain, properties.to_vec()));
        self
    }

    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.user = Some(user.to_owned());
        self.password = Some(password.to_owned());
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        let mut payload = text(&self.id);
        if let Some((topic, message, qos, retain, properties)) = &self.will {
            flags |= 4 | (qos << 3) | (u8::from(*retain) << 5);
            if self.version == 5 {
                payload.extend(prefixed(properties));
            }
            payload.extend(text(topic));
            payload.extend(text(message));
        }
        for (field, flag) in [(&self.user, 0x80), (&self.password, 0x40)] {
            if let Some(field) = field {
                flags |= flag;
                payload.extend(text(field));
            }
        }
        let mut body = text("MQTT");
        body.extend([self.version, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        if self.version == 5 {
            body.extend(prefixed(&self.properties));
        }
        body.extend(payload);
        packet(0x10, &body)
    }
}

/// A string or binary data with its length.
pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// Bytes after their length as a variable byte integer.
pub fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut length = bytes.len();
    loop {
        let more = length > 0x7F;
        out.push((length & 0x7F) as u8 | (u8::from(more) << 7));
        length >>= 7;
        if !more {
            break;
        }
    }
    out.extend(bytes);
    out
}

/// A whole packet.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [vec![first], prefixed(body)].concat()
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP of success.
pub fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

pub const PUBACK: u8 = 0x40;
pub const PUBREC: u8 = 0x50;
pub const PUBREL: u8 = 0x62;
pub const PUBCOMP: u8 = 0x70;
pub const PINGREQ: [u8; 2] = [0xC0, 0];
pub const PINGRESP: [u8; 2] = [0xD0, 0];
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// A SUBSCRIBE with properties and (filter, options).
pub fn subscribe(version: u8, id: u16, properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == 5 {
        body.extend(prefixed(properties));
    }
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub fn unsubscribe(version: u8, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == 5 {
        body.push(0);
    }
    filters.iter().for_each(|filter| body.extend(text(filter)));
    packet(0xA2, &body)
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    /// Came while something else was waited for.
    early: VecDeque<Received>,
}

impl Client {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The broker may have closed: then what is expected next says so.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// The next packet; `None` where the connection is closed.
    pub async fn next(&mut self) -> Option<Received> {
        if let Some(early) = self.early.pop_front() {
            return Some(early);
        }
        timeout(PATIENCE, self.read_packet()).await.expect("a packet, or the end, in time")
    }

    async fn read_packet(&mut self) -> Option<Received> {
        let mut bytes = vec![self.stream.read_u8().await.ok()?];
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.stream.read_u8().await.ok()?;
            bytes.push(byte);
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let start = bytes.len();
        bytes.resize(start + length, 0);
        self.stream.read_exact(&mut bytes[start..]).await.ok()?;
        Some(Received(bytes))
    }

    pub async fn receive(&mut self) -> Received {
        self.next().await.expect("a packet, not the end of the connection")
    }

    pub async fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        assert_eq!(self.receive().await, Received(bytes.as_ref().to_vec()));
    }

    /// Waits for an answer; messages that come before it are kept for later.
    async fn answer(&mut self, bytes: Vec<u8>) {
        self.meanwhile(|packet| packet.0 == bytes).await;
    }

    /// The next packet that it `is`. Messages that come before it stay to be received.
    pub async fn meanwhile(&mut self, is: impl Fn(&Received) -> bool) -> Received {
        let mut early = Vec::new();
        let found = loop {
            let next = self.receive().await;
            if is(&next) {
                break next;
            }
            assert_eq!(next.kind(), 3, "a message or the answer, not {next:?}");
            early.push(next);
        };
        early.into_iter().rev().for_each(|packet| self.early.push_front(packet));
        found
    }

    /// The connection ends without another packet.
    pub async fn expect_end(&mut self) {
        assert_eq!(self.next().await, None);
    }

    /// Nothing comes before the answer to a ping.
    pub async fn expect_nothing(&mut self) {
        self.send(PINGREQ).await;
        self.expect(PINGRESP).await;
    }

    /// Subscribes, and gives back the codes.
    pub async fn subscribe(&mut self, version: u8, filters: &[(&str, u8)]) -> Vec<u8> {
        self.send(subscribe(version, 9_999, &[], filters)).await;
        // A message may come before the answer (section 3.8.4).
        let answer = self.meanwhile(|packet| packet.kind() == 9).await;
        answer.body()[if version == 5 { 3 } else { 2 }..].to_vec()
    }

    /// The next PUBLISH, acknowledged in whole.
    pub async fn message(&mut self, version: u8) -> Publish {
        let publish = self.receive().await.publish(version);
        match publish.qos {
            1 => self.send(ack(PUBACK, publish.id)).await,
            2 => {
                self.send(ack(PUBREC, publish.id)).await;
                self.answer(ack(PUBREL, publish.id)).await;
                self.send(ack(PUBCOMP, publish.id)).await;
            }
            _ => {}
        }
        publish
    }

    /// Publishes and waits until it is through.
    pub async fn publish(&mut self, version: u8, publish: &Publish) {
        self.send(publish.bytes(version)).await;
        match publish.qos {
            1 => self.answer(ack(PUBACK, publish.id)).await,
            2 => {
                self.answer(ack(PUBREC, publish.id)).await;
                self.send(ack(PUBREL, publish.id)).await;
                self.answer(ack(PUBCOMP, publish.id)).await;
            }
            _ => {}
        }
    }

    /// Says goodbye and waits until the broker has closed, so that the session is free.
    pub async fn leave(mut self) {
        self.send(DISCONNECT).await;
        self.expect_end().await;
    }
}
