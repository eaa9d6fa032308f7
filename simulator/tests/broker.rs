//! The publisher and the load generator against a broker of a few lines that can be told to misbehave.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearside_schemas::{ManualClock, QoS, Timestamp};
use nearside_simulator::{
    BrokerUrl, Fleet, FleetConfig, LoadConfig, LoadLimit, Message, Pace, Profile, Progress, PublishOptions,
    PublishReport, SimulatorError, load, publish_fleet,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const START: Timestamp = Timestamp::from_secs(1_704_186_000);

/// How the broker behaves.
#[derive(Clone, Copy, Default)]
struct Manners {
    /// The code of its CONNACK.
    connack: u8,
    /// Its first connection is cut at this publish, which it has read and not acknowledged.
    cut_at: Option<usize>,
    /// It acknowledges pairs in the wrong order.
    swaps: bool,
    /// It acknowledges each message twice.
    repeats: bool,
    /// It acknowledges no more than this many messages of a connection.
    at_most: Option<usize>,
}

/// Topic and payload.
type Published = (String, Vec<u8>);

#[derive(Clone, Default)]
struct Broker {
    manners: Manners,
    connections: Arc<AtomicUsize>,
    goodbyes: Arc<AtomicUsize>,
    /// What was published, in order of arrival over all connections.
    published: Arc<Mutex<Vec<Published>>>,
    /// User and password of the last CONNECT.
    flags: Arc<Mutex<Vec<u8>>>,
}

impl Broker {
    async fn start(manners: Manners) -> (Self, BrokerUrl) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = BrokerUrl::plain("127.0.0.1", listener.local_addr().unwrap().port());
        let broker = Self { manners, ..Self::default() };
        let accepting = broker.clone();
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let number = accepting.connections.fetch_add(1, Ordering::SeqCst);
                let broker = accepting.clone();
                tokio::spawn(async move { broker.serve(socket, number).await });
            }
        });
        (broker, url)
    }

    /// Serves one client until it goes; `None` ends it.
    async fn serve(&self, mut socket: TcpStream, number: usize) -> Option<()> {
        let (mut publishes, mut held) = (0, None);
        loop {
            let (kind, body) = read_packet(&mut socket).await?;
            match kind >> 4 {
                1 => {
                    *self.flags.lock().unwrap() = body.clone();
                    socket.write_all(&[0x20, 2, 0, self.manners.connack]).await.ok()?;
                }
                3 => {
                    publishes += 1;
                    assert_eq!(kind & 0x06, 0x02, "QoS 1");
                    let id = self.take(&body);
                    if number == 0 && self.manners.cut_at == Some(publishes) {
                        return None;
                    }
                    if self.manners.at_most.is_some_and(|most| publishes > most) {
                        continue;
                    }
                    let ack = |id: [u8; 2]| [0x40, 2, id[0], id[1]];
                    let answer = match (self.manners.swaps, held.take()) {
                        (true, None) => {
                            held = Some(id);
                            continue;
                        }
                        (true, Some(first)) => [ack(id), ack(first)].concat(),
                        _ if self.manners.repeats => [ack(id), ack(id)].concat(),
                        _ => ack(id).to_vec(),
                    };
                    socket.write_all(&answer).await.ok()?;
                }
                12 => socket.write_all(&[0xD0, 0]).await.ok()?,
                14 => {
                    self.goodbyes.fetch_add(1, Ordering::SeqCst);
                    return None;
                }
                other => panic!("packet type {other}"),
            }
        }
    }

    fn take(&self, body: &[u8]) -> [u8; 2] {
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let (topic, rest) = body[2..].split_at(length);
        let topic = String::from_utf8(topic.to_vec()).unwrap();
        self.published.lock().unwrap().push((topic, rest[2..].to_vec()));
        [rest[0], rest[1]]
    }

    fn published(&self) -> Vec<(String, Vec<u8>)> {
        self.published.lock().unwrap().clone()
    }
}

async fn read_packet(socket: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let kind = socket.read_u8().await.ok()?;
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let digit = socket.read_u8().await.ok()?;
        length |= usize::from(digit & 0x7F) << shift;
        shift += 7;
        if digit < 0x80 {
            break;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    Some((kind, body))
}

/// What a fleet says, by topic and in order.
fn by_topic(messages: impl IntoIterator<Item = (String, Vec<u8>)>) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut topics: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (topic, payload) in messages {
        topics.entry(topic).or_default().push(payload);
    }
    topics
}

fn messages(profile: Profile) -> Vec<Message> {
    let duration = Some(Duration::from_secs(300));
    Fleet::new(FleetConfig { duration, ..FleetConfig::new(profile, 15, 7, START) }).collect()
}

fn fast() -> PublishOptions {
    let pace = Pace { speed: f64::INFINITY, rate_max: None };
    PublishOptions { pace, connections: 3, inflight: 20, drain: Duration::from_secs(20), ..PublishOptions::default() }
}

async fn publish(
    messages: Vec<Message>,
    url: &BrokerUrl,
    options: PublishOptions,
) -> Result<PublishReport, SimulatorError> {
    let clock = ManualClock::new(Timestamp::from_secs(5));
    publish_fleet(messages.into_iter(), url, options, &clock, Arc::new(Progress::default()), std::future::pending())
        .await
}

#[tokio::test]
async fn a_fleet_arrives_whole_and_in_order() {
    for profile in [Profile::City, Profile::Ward] {
        let (broker, url) = Broker::start(Manners::default()).await;
        let sent = messages(profile);
        let report = publish(sent.clone(), &url, fast()).await.unwrap();
        assert!(report.is_complete() && report.errors == 0 && report.resent == 0, "{report:?}");
        assert_eq!(report.sent, sent.len() as u64);
        assert_eq!(report.bytes, sent.iter().map(|m| (m.topic.len() + m.payload.len()) as u64).sum::<u64>());
        let expected = by_topic(sent.into_iter().map(|m| (m.topic, m.payload)));
        assert!(by_topic(broker.published()) == expected, "order within a topic is kept");
        assert_eq!(broker.connections.load(Ordering::SeqCst), 3);
    }
}

#[tokio::test]
async fn what_a_broken_connection_left_is_sent_again() {
    let (broker, url) = Broker::start(Manners { cut_at: Some(30), ..Manners::default() }).await;
    // Each of a ward's payloads carries its time, so that only what was sent again comes twice.
    let sent = messages(Profile::Ward);
    assert_eq!(sent.iter().map(|m| (&m.topic, &m.payload)).collect::<HashSet<_>>().len(), sent.len());
    let report = publish(sent.clone(), &url, PublishOptions { connections: 1, ..fast() }).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.errors, 1);
    assert!(report.resent >= 1 && report.resent <= 41, "{report:?}");
    let mut seen = HashSet::new();
    let first_arrivals = broker.published().into_iter().filter(|message| seen.insert(message.clone()));
    let expected = by_topic(sent.into_iter().map(|m| (m.topic, m.payload)));
    assert!(by_topic(first_arrivals) == expected, "at least once, and new messages in order");
}

#[tokio::test]
async fn a_refusal_for_good_is_an_error_and_a_wrong_option_too() {
    let (_, url) = Broker::start(Manners { connack: 4, ..Manners::default() }).await;
    let error = publish(messages(Profile::City), &url, fast()).await.unwrap_err();
    assert!(matches!(error, SimulatorError::Refused { code: 4, .. }) && !error.is_transient(), "{error}");
    let slow = Pace { speed: 0.0, rate_max: None };
    for options in [PublishOptions { pace: slow, ..fast() }, PublishOptions { connections: 0, ..fast() }] {
        let error = publish(Vec::new(), &url, options).await.unwrap_err();
        assert!(matches!(error, SimulatorError::Setting { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_broker_that_never_acknowledges_is_given_up_and_not_believed() {
    let (_, url) = Broker::start(Manners { at_most: Some(2), ..Manners::default() }).await;
    let few: Vec<Message> = messages(Profile::City).into_iter().take(10).collect();
    let options = PublishOptions { connections: 1, drain: Duration::from_millis(300), ..fast() };
    let report = publish(few, &url, options).await.unwrap();
    assert_eq!((report.sent, report.acknowledged), (10, 2));
    assert!(!report.is_complete());
}

#[tokio::test]
async fn a_paced_fleet_stops_when_told_and_knows_its_timeline() {
    let (_, url) = Broker::start(Manners::default()).await;
    let message = |secs: i64| Message {
        at: START.plus(Duration::from_secs(secs as u64)),
        topic: "t".to_owned(),
        payload: vec![1],
        qos: QoS::AtLeastOnce,
    };
    // The third is due in a day.
    let fleet = [message(0), message(1), message(86_400 * 60)];
    let clock = ManualClock::new(Timestamp::from_secs(100));
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let stop = async move {
        while seen.acknowledged() < 2 {
            tokio::task::yield_now().await;
        }
    };
    let options = PublishOptions { pace: Pace { speed: 60.0, rate_max: Some(1_000.0) }, ..fast() };
    let report = publish_fleet(fleet.into_iter(), &url, options, &clock, Arc::clone(&progress), stop).await.unwrap();
    assert_eq!((report.sent, report.acknowledged), (2, 2));
    assert_eq!(progress.simulated(), START.plus(Duration::from_secs(1)));
    let timeline = report.timeline.unwrap();
    assert_eq!(timeline.real_at(START.plus(Duration::from_secs(600))), Timestamp::from_secs(110));
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(START))
}

fn counted(url: &BrokerUrl, messages: u64) -> LoadConfig {
    LoadConfig {
        streams: 7,
        connections: 3,
        inflight: 50,
        limit: LoadLimit::Messages(messages),
        drain: Duration::from_secs(20),
        ..LoadConfig::new(url.clone())
    }
}

#[tokio::test]
async fn a_counted_load_is_all_acknowledged() {
    let (broker, url) = Broker::start(Manners::default()).await;
    let config = counted(&url.clone().with_login("user", "secret"), 5_000);
    let report = load(config, clock(), std::future::pending()).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.sent, report.out_of_order), (5_000, 0));
    assert!(report.p50 <= report.p99 && report.p99 <= report.max && report.max <= report.elapsed, "{report:?}");
    assert!(report.per_second() > 0.0);
    let published = broker.published();
    assert_eq!(published.iter().collect::<HashSet<_>>().len(), 5_000, "no two messages are the same");
    let topics = by_topic(published);
    let expected: BTreeMap<String, ()> = (0..7).map(|n| (format!("load/{n}"), ())).collect();
    assert!(topics.keys().eq(expected.keys()));
    for (topic, payloads) in topics {
        assert!((500..1_000).contains(&payloads.len()), "{topic}: {}", payloads.len());
        let value: serde_json::Value = serde_json::from_slice(&payloads[0]).unwrap();
        assert_eq!(value["ts"], START.as_micros() / 1_000);
    }
    assert_eq!(broker.connections.load(Ordering::SeqCst), 3);
    let connect = broker.flags.lock().unwrap().clone();
    assert!(connect.ends_with(b"\0\x04user\0\x06secret"));
}

#[tokio::test]
async fn packet_ids_wrap_without_losing_count() {
    let (_, url) = Broker::start(Manners::default()).await;
    let config = LoadConfig { connections: 1, inflight: 5_000, ..counted(&url, 140_000) };
    let report = load(config, clock(), std::future::pending()).await.unwrap();
    assert!(report.is_complete() && report.out_of_order == 0, "{report:?}");
    assert_eq!(report.acknowledged, 140_000);
}

#[tokio::test]
async fn a_load_at_a_rate_sends_no_more_than_that() {
    let (_, url) = Broker::start(Manners::default()).await;
    let config =
        LoadConfig { rate: Some(2_000.0), limit: LoadLimit::Duration(Duration::from_millis(400)), ..counted(&url, 0) };
    let report = load(config, clock(), std::future::pending()).await.unwrap();
    assert!(report.is_complete() && report.sent > 0, "{report:?}");
    assert!(report.sent as f64 <= 2_000.0 * report.elapsed.as_secs_f64() + 3.0, "{report:?}");
}

#[tokio::test]
async fn a_load_stops_when_told() {
    let (broker, url) = Broker::start(Manners::default()).await;
    let config = LoadConfig { limit: LoadLimit::Duration(Duration::from_secs(3_600)), ..counted(&url, 0) };
    let stop = async {
        while broker.published.lock().unwrap().len() < 200 {
            tokio::task::yield_now().await;
        }
    };
    let report = load(config, clock(), stop).await.unwrap();
    assert!(report.is_complete() && report.sent >= 200, "{report:?}");
}

#[tokio::test]
async fn a_load_reports_what_the_broker_does_wrong() {
    let (_, url) = Broker::start(Manners { swaps: true, ..Manners::default() }).await;
    let report =
        load(LoadConfig { connections: 1, ..counted(&url, 100) }, clock(), std::future::pending()).await.unwrap();
    assert!(report.is_complete() && report.out_of_order >= 50, "{report:?}");

    let (_, url) = Broker::start(Manners { repeats: true, ..Manners::default() }).await;
    let report =
        load(LoadConfig { connections: 1, ..counted(&url, 100) }, clock(), std::future::pending()).await.unwrap();
    assert!(matches!(report.errors.as_slice(), [SimulatorError::Protocol { .. }]), "{report:?}");

    let (_, url) = Broker::start(Manners { cut_at: Some(10), ..Manners::default() }).await;
    let report =
        load(LoadConfig { connections: 1, ..counted(&url, 100) }, clock(), std::future::pending()).await.unwrap();
    assert!(matches!(report.errors.as_slice(), [SimulatorError::Connection(_)]), "{report:?}");
    assert!(!report.is_complete() && report.acknowledged <= 9, "{report:?}");

    let (_, url) = Broker::start(Manners { at_most: Some(5), ..Manners::default() }).await;
    let config = LoadConfig { connections: 1, drain: Duration::from_millis(100), inflight: 200, ..counted(&url, 100) };
    let report = load(config, clock(), std::future::pending()).await.unwrap();
    assert_eq!((report.sent, report.acknowledged), (100, 5));
    assert!(!report.is_complete());
}

#[tokio::test]
async fn a_load_that_cannot_start_is_an_error() {
    let (_, url) = Broker::start(Manners { connack: 5, ..Manners::default() }).await;
    let error = load(counted(&url, 10), clock(), std::future::pending()).await.unwrap_err();
    assert!(matches!(error, SimulatorError::Refused { code: 5, .. }), "{error}");
    for wrong in [
        LoadConfig { streams: 0, ..counted(&url, 1) },
        LoadConfig { inflight: 0, ..counted(&url, 1) },
        LoadConfig { rate: Some(-1.0), ..counted(&url, 1) },
        LoadConfig { broker: "mqtts://x".parse().unwrap(), ..counted(&url, 1) },
    ] {
        let error = load(wrong, clock(), std::future::pending()).await.unwrap_err();
        assert!(matches!(error, SimulatorError::Setting { .. }), "{error}");
    }
}
