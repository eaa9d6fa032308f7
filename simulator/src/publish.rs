//! Carries a fleet to a broker: simulated time is paced in real time, and every message is kept until it is acknowledged.
//!
//! Promises: messages of one topic are sent in order over one connection; a connection that breaks is made again and
//! whatever was not acknowledged is sent again, so each message arrives at least once; the queues are bounded and the
//! fleet waits when they are full. Never: reports a message as acknowledged that the broker did not acknowledge.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nearside_schemas::{Clock, QoS, Timestamp};
use rumqttc::tokio_rustls::rustls::ClientConfig;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, TlsConfiguration,
    Transport,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::address::BrokerUrl;
use crate::error::SimulatorError;
use crate::fleet::Message;
use crate::random::Random;

/// How fast simulated time passes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pace {
    /// Simulated seconds in a real second, above 0; infinite: each message as soon as there is room for it.
    pub speed: f64,
    /// The most messages a real second; the fleet falls behind where it would send more.
    pub rate_max: Option<f64>,
}

/// How a fleet is published.
#[derive(Clone)]
pub struct PublishOptions {
    /// How fast.
    pub pace: Pace,
    /// Connections to the broker, 1 to 1,000; topics are spread over them by hash.
    pub connections: usize,
    /// Messages of one connection that may wait for their acknowledgement, 1 to 10,000.
    pub inflight: u16,
    /// Client ids are this and a number.
    pub client_prefix: String,
    /// How long to wait for the last acknowledgements.
    pub drain: Duration,
    /// Needed for a broker with TLS.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            pace: Pace { speed: 1.0, rate_max: None },
            connections: 4,
            inflight: 200,
            client_prefix: "simulator".to_owned(),
            drain: Duration::from_secs(30),
            tls: None,
        }
    }
}

/// Between which instants simulated and real time run along each other.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Timeline {
    /// The simulated instant of the first message …
    pub simulated: Timestamp,
    /// … and when it was due in real time.
    pub real: Timestamp,
    /// Simulated seconds in a real second.
    pub speed: f64,
}

impl Timeline {
    /// When a simulated instant is due in real time: what a stream without device time goes by.
    pub fn real_at(&self, simulated: Timestamp) -> Timestamp {
        let micros = (simulated.as_micros() - self.simulated.as_micros()) as f64 / self.speed;
        Timestamp::from_micros(self.real.as_micros().saturating_add(micros.round() as i64))
    }
}

/// How far publishing has come, to look at while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    resent: AtomicU64,
    acknowledged: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    simulated: AtomicI64,
}

impl Progress {
    /// Messages handed to a connection, each once.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Messages the broker acknowledged, each once.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The simulated instant of the message sent last; 1970 before the first.
    pub fn simulated(&self) -> Timestamp {
        Timestamp::from_micros(self.simulated.load(Ordering::Relaxed))
    }

    fn count(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// What became of a fleet.
#[derive(Clone, PartialEq, Debug)]
pub struct PublishReport {
    /// Messages handed to a connection, each once.
    pub sent: u64,
    /// Messages the broker acknowledged, each once.
    pub acknowledged: u64,
    /// Messages sent a second time because a connection broke before their acknowledgement.
    pub resent: u64,
    /// Topic and payload bytes of `sent`.
    pub bytes: u64,
    /// Broken connections and messages that could not be sent.
    pub errors: u64,
    /// Real time from the first message to the last acknowledgement, or to giving up.
    pub elapsed: Duration,
    /// How simulated and real time belong together; `None` where nothing was sent.
    pub timeline: Option<Timeline>,
}

impl PublishReport {
    /// Whether everything that was sent was acknowledged.
    pub fn is_complete(&self) -> bool {
        self.sent == self.acknowledged
    }
}

/// Publishes a fleet until it ends or `stop` is ready, then waits up to [`PublishOptions::drain`] for the last
/// acknowledgements. Fails where an option is wrong or the broker refuses us for good; a broker that is away is waited for.
pub async fn publish_fleet(
    fleet: impl Iterator<Item = Message> + Send,
    broker: &BrokerUrl,
    options: PublishOptions,
    clock: &dyn Clock,
    progress: Arc<Progress>,
    stop: impl Future<Output = ()> + Send,
) -> Result<PublishReport, SimulatorError> {
    validate(broker, &options)?;
    let mut tasks = JoinSet::new();
    let mut senders = Vec::with_capacity(options.connections);
    for number in 0..options.connections {
        let (sender, messages) = mpsc::channel(usize::from(options.inflight));
        senders.push(sender);
        let connection = Connection {
            options: mqtt_options(broker, &options, number),
            inflight: usize::from(options.inflight),
            random: Random::new(number as u64, 0),
            progress: Arc::clone(&progress),
            outstanding: Outstanding::default(),
        };
        tasks.spawn(connection.run(messages));
    }
    let started = Instant::now();
    let timeline = dispatch(fleet, &senders, options.pace, clock, &progress, stop).await;
    drop(senders);
    let finished = time::timeout(options.drain, async {
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|_| SimulatorError::Task)??;
        }
        Ok::<(), SimulatorError>(())
    });
    if let Ok(Err(error)) = finished.await {
        return Err(error);
    }
    Ok(PublishReport {
        sent: progress.sent(),
        acknowledged: progress.acknowledged(),
        resent: progress.resent.load(Ordering::Relaxed),
        bytes: progress.bytes.load(Ordering::Relaxed),
        errors: progress.errors.load(Ordering::Relaxed),
        elapsed: started.elapsed(),
        timeline,
    })
}

fn validate(broker: &BrokerUrl, options: &PublishOptions) -> Result<(), SimulatorError> {
    let wrong = |setting, hint| Err(SimulatorError::Setting { setting, hint });
    if options.pace.speed.is_nan() || options.pace.speed <= 0.0 {
        return wrong("speed", "has to be above 0: simulated seconds in a real second");
    }
    if options.pace.rate_max.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return wrong("rate_max", "has to be above 0: messages a second; leave it out for no limit");
    }
    if !(1..=1_000).contains(&options.connections) {
        return wrong("connections", "has to be from 1 to 1000");
    }
    if !(1..=10_000).contains(&options.inflight) {
        return wrong("inflight", "has to be from 1 to 10000");
    }
    if broker.tls && options.tls.is_none() {
        return wrong("tls", "is needed for mqtts://: hand in a rustls configuration, or use mqtt://");
    }
    Ok(())
}

fn mqtt_options(broker: &BrokerUrl, options: &PublishOptions, number: usize) -> MqttOptions {
    let mut mqtt = MqttOptions::new(format!("{}-{number}", options.client_prefix), broker.host.clone(), broker.port);
    mqtt.set_keep_alive(Duration::from_secs(20));
    // A broken session is made again from what is outstanding here, not from what the broker remembers.
    mqtt.set_clean_session(true);
    mqtt.set_inflight(options.inflight);
    // Strips of ECG are far above the client's usual 10 KiB.
    mqtt.set_max_packet_size(1 << 20, 1 << 20);
    if let Some((user, password)) = &broker.login {
        mqtt.set_credentials(user, password);
    }
    if let (true, Some(tls)) = (broker.tls, &options.tls) {
        mqtt.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))));
    }
    mqtt
}

/// Hands each message to its connection when it is due. Ends with the fleet, at `stop`, or when a connection has given up.
async fn dispatch(
    fleet: impl Iterator<Item = Message> + Send,
    senders: &[mpsc::Sender<Message>],
    pace: Pace,
    clock: &dyn Clock,
    progress: &Progress,
    stop: impl Future<Output = ()> + Send,
) -> Option<Timeline> {
    let mut stop = std::pin::pin!(stop);
    let mut schedule = None;
    for message in fleet {
        let schedule = schedule.get_or_insert_with(|| Schedule::new(pace, message.at, clock.now()));
        let due = schedule.due(message.at);
        let size = (message.topic.len() + message.payload.len()) as u64;
        let at = message.at;
        let sender = senders.get(connection_of(&message.topic, senders.len()))?;
        let handed = async {
            if due > Instant::now() {
                time::sleep_until(due).await;
            }
            sender.send(message).await
        };
        let sent = tokio::select! {
            biased;
            () = &mut stop => break,
            sent = handed => sent,
        };
        if sent.is_err() {
            break;
        }
        Progress::count(&progress.sent, 1);
        Progress::count(&progress.bytes, size);
        progress.simulated.store(at.as_micros(), Ordering::Relaxed);
    }
    schedule.map(|schedule| schedule.timeline)
}

/// Always the same connection for a topic, so that its order is kept.
fn connection_of(topic: &str, connections: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    (hasher.finish() % connections.max(1) as u64) as usize
}

/// When messages are due in real time.
struct Schedule {
    timeline: Timeline,
    started: Instant,
    rate_max: Option<f64>,
    /// The earliest next message by `rate_max`.
    free: Instant,
}

impl Schedule {
    fn new(pace: Pace, simulated: Timestamp, real: Timestamp) -> Self {
        let started = Instant::now();
        let timeline = Timeline { simulated, real, speed: pace.speed };
        Self { timeline, started, rate_max: pace.rate_max, free: started }
    }

    fn due(&mut self, at: Timestamp) -> Instant {
        let passed = at.since(self.timeline.simulated).as_secs_f64() / self.timeline.speed;
        // A year of real time: beyond it a sleep means never.
        let due = self.started + Duration::from_secs_f64(passed.clamp(0.0, 3.2e7));
        let Some(rate) = self.rate_max else { return due };
        // Late messages may catch up a hundredth of a second's worth, not more: timers are that coarse.
        let slot = self.free.max(Instant::now().checked_sub(Duration::from_millis(10)).unwrap_or(self.free)).max(due);
        self.free = slot + Duration::from_secs_f64((1.0 / rate).min(3_600.0));
        slot
    }
}

/// A message on its way, with its place in the order of its connection.
struct Pending {
    order: u64,
    message: Message,
}

/// What a connection has taken over and the broker has not acknowledged.
#[derive(Default)]
struct Outstanding {
    inner: Mutex<OutstandingInner>,
    /// Told whenever nothing is outstanding any more.
    empty: Notify,
}

#[derive(Default)]
struct OutstandingInner {
    next_order: u64,
    /// Handed to the client, without a packet id yet, in order.
    waiting: VecDeque<Pending>,
    /// On the wire, by packet id.
    sent: HashMap<u16, Pending>,
}

impl Outstanding {
    fn lock(&self) -> MutexGuard<'_, OutstandingInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, message: Message) {
        let mut inner = self.lock();
        let order = inner.next_order;
        inner.next_order += 1;
        inner.waiting.push_back(Pending { order, message });
    }

    /// Takes back the message added last.
    fn withdraw(&self) {
        let mut inner = self.lock();
        inner.waiting.pop_back();
        self.tell_if_empty(&inner);
    }

    /// The client has given the first waiting message this packet id; 0 for QoS 0, which nobody acknowledges.
    fn went_out(&self, id: u16) -> bool {
        let mut inner = self.lock();
        let Some(pending) = inner.waiting.pop_front() else { return false };
        if id != 0 {
            inner.sent.insert(id, pending);
            return false;
        }
        self.tell_if_empty(&inner);
        true
    }

    /// The broker has acknowledged a packet id; says whether it was outstanding.
    fn acknowledged(&self, id: u16) -> bool {
        let mut inner = self.lock();
        let known = inner.sent.remove(&id).is_some();
        self.tell_if_empty(&inner);
        known
    }

    /// A new session: everything waits again, in its order. Returns it for sending.
    fn restart(&self) -> Vec<Message> {
        let mut inner = self.lock();
        let mut all: Vec<Pending> = inner.sent.drain().map(|(_, pending)| pending).collect();
        all.extend(inner.waiting.drain(..));
        all.sort_by_key(|pending| pending.order);
        let messages = all.iter().map(|pending| pending.message.clone()).collect();
        inner.waiting = all.into();
        messages
    }

    fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.waiting.is_empty() && inner.sent.is_empty()
    }

    fn tell_if_empty(&self, inner: &OutstandingInner) {
        if inner.waiting.is_empty() && inner.sent.is_empty() {
            self.empty.notify_one();
        }
    }
}

/// One connection to the broker, made again as often as needed.
struct Connection {
    options: MqttOptions,
    inflight: usize,
    random: Random,
    progress: Arc<Progress>,
    outstanding: Outstanding,
}

impl Connection {
    /// Sends until `messages` ends and all is acknowledged. Fails only where the broker refuses us for good.
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) -> Result<(), SimulatorError> {
        let mut wait = FIRST_WAIT;
        loop {
            let before = self.progress.acknowledged();
            let (client, mut events) = AsyncClient::new(self.options.clone(), self.inflight);
            let broken = tokio::select! {
                error = self.listen(&mut events) => error,
                () = self.feed(&client, &mut messages) => {
                    farewell(&client, &mut events).await;
                    return Ok(());
                }
            };
            Progress::count(&self.progress.errors, 1);
            if let Some(error) = refusal(&broken).filter(|error| !error.is_transient()) {
                return Err(error);
            }
            if self.progress.acknowledged() > before {
                wait = FIRST_WAIT;
            }
            // Half to one and a half of it, so that many connections do not come back as one.
            time::sleep(wait.mul_f64(self.random.between(0.5, 1.5))).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Hands messages to the client: first what was outstanding before, then new ones. Ends when all is acknowledged.
    async fn feed(&self, client: &AsyncClient, messages: &mut mpsc::Receiver<Message>) {
        for message in self.outstanding.restart() {
            Progress::count(&self.progress.resent, 1);
            // It was accepted before, and the event loop lives as long as this future: this cannot fail.
            let _ = client.publish(message.topic, client_qos(message.qos), false, message.payload).await;
        }
        while let Some(message) = messages.recv().await {
            self.outstanding.add(message.clone());
            let sent = client.publish(message.topic, client_qos(message.qos), false, message.payload).await;
            if sent.is_err() {
                self.outstanding.withdraw();
                Progress::count(&self.progress.errors, 1);
            }
        }
        while !self.outstanding.is_empty() {
            self.outstanding.empty.notified().await;
        }
    }

    /// Books what the client sends and the broker acknowledges, until the connection breaks.
    async fn listen(&self, events: &mut EventLoop) -> ConnectionError {
        loop {
            let done = match events.poll().await {
                Ok(Event::Outgoing(Outgoing::Publish(id))) => self.outstanding.went_out(id),
                Ok(Event::Incoming(Packet::PubAck(ack))) => self.outstanding.acknowledged(ack.pkid),
                Ok(Event::Incoming(Packet::PubComp(complete))) => self.outstanding.acknowledged(complete.pkid),
                Ok(_) => false,
                Err(error) => return error,
            };
            if done {
                Progress::count(&self.progress.acknowledged, 1);
            }
        }
    }
}

/// Between two tries to connect.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// However long the broker is away.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Says goodbye, so that the broker does not take us for lost.
async fn farewell(client: &AsyncClient, events: &mut EventLoop) {
    if client.try_disconnect().is_ok() {
        let _ = time::timeout(Duration::from_secs(1), async {
            while let Ok(event) = events.poll().await {
                if event == Event::Outgoing(Outgoing::Disconnect) {
                    return;
                }
            }
        })
        .await;
    }
}

fn refusal(error: &ConnectionError) -> Option<SimulatorError> {
    let ConnectionError::ConnectionRefused(code) = error else { return None };
    Some(SimulatorError::refused(match code {
        ConnectReturnCode::Success => return None,
        ConnectReturnCode::RefusedProtocolVersion => 1,
        ConnectReturnCode::BadClientId => 2,
        ConnectReturnCode::ServiceUnavailable => 3,
        ConnectReturnCode::BadUserNamePassword => 4,
        ConnectReturnCode::NotAuthorized => 5,
    }))
}

const fn client_qos(qos: QoS) -> rumqttc::QoS {
    match qos {
        QoS::AtMostOnce => rumqttc::QoS::AtMostOnce,
        QoS::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
        QoS::ExactlyOnce => rumqttc::QoS::ExactlyOnce,
    }
}
