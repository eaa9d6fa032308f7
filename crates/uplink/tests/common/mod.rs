//! An outbox with items in it, an uplink on it, and clouds: the real front door, and a broker of a few lines that answers as told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "a test that cannot go on fails; not every test uses all of it"
)]

pub mod puppet;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearside_broker::{BrokerConfig, FrontDoor};
use nearside_outbox::{Outbox, OutboxConfig};
use nearside_privacy::{KeyRing, Sealed, SealedItem, seal_finding, seal_rollup};
use nearside_schemas::codec::{CodecSpec, Format};
use nearside_schemas::{
    Answer, BoxFuture, ByteSize, Durability, FieldName, Finding, HumanDuration, Intake, ManualClock, ModelName,
    ModelRef, Nth, Publish, RollUp, RollUpId, SecretKey, Severity, SiteId, StreamId, StreamName, StreamSpec,
    SystemClock, Timestamp, TopicTemplate, WindowDefinition, WindowId,
};
use nearside_telemetry::Telemetry;
use nearside_uplink::{Uplink, UplinkConfig};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Nothing in a test takes longer than this.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn keys() -> Arc<KeyRing> {
    Arc::new(KeyRing::from_master(SecretKey::new([3; 32])))
}

pub fn site() -> SiteId {
    SiteId::new("s").unwrap()
}

/// A roll-up, the least urgent class.
pub fn rollup(n: i64) -> SealedItem {
    rollup_of("g", n)
}

/// A roll-up of a group whose name may be long.
pub fn rollup_of(group: &str, n: i64) -> SealedItem {
    let rollup = RollUp {
        site: site(),
        id: RollUpId { group: group.into(), field: FieldName::new("f").unwrap(), start: Timestamp::from_secs(n) },
        revision: 0,
        end: Timestamp::from_secs(n + 60),
        streams: 1,
        windows: 1,
        rows: 1,
        min: 0.0,
        max: 0.0,
        mean: 0.0,
        findings: 0,
    };
    seal_rollup(&rollup, &keys()).map(Sealed::into_item).unwrap()
}

/// A finding, the most urgent class.
pub fn alert(n: i64) -> SealedItem {
    let spec = StreamSpec {
        name: StreamName::new("x").unwrap(),
        topic: TopicTemplate::parse("x").unwrap(),
        codec: CodecSpec {
            format: Format::Number,
            paths: vec![],
            rows: None,
            rate_hz: None,
            rate_path: None,
            max_payload_bytes: 1,
            max_readings: 1,
        },
        timestamp: None,
        sequence: None,
        fields: vec![],
        key: vec![],
        group: "g".into(),
    };
    let finding = Finding {
        window: WindowId {
            stream: StreamId::from_bytes([1; 16]),
            definition: WindowDefinition::new("w").unwrap(),
            start: Timestamp::from_secs(n),
        },
        model: ModelRef { name: ModelName::new("m").unwrap(), version: "1".into() },
        label: "spike".into(),
        field: None,
        nth: Nth::FIRST,
        severity: Severity::Warning,
        since: Timestamp::from_secs(n),
        at: Timestamp::from_secs(n),
        rows: 1,
        score: 1.0,
        threshold: 0.5,
        contributions: vec![],
        text: String::new(),
    };
    seal_finding(&finding, &nearside_schemas::KeyValues::new(), &spec, &site(), &keys()).map(Sealed::into_item).unwrap()
}

/// An outbox in a folder of its own, and the metrics of it and its uplink.
pub struct Site {
    pub outbox: Outbox,
    pub telemetry: Telemetry,
    _folder: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        let (folder, telemetry) = (tempfile::tempdir().unwrap(), Telemetry::new());
        let config = OutboxConfig { reserve: ByteSize(0), ..OutboxConfig::default() };
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1)));
        let outbox = Outbox::open(&folder.path().join("outbox.redb"), &config, keys(), clock, &telemetry).unwrap();
        Self { outbox, telemetry, _folder: folder }
    }

    pub async fn put_all(&self, items: impl IntoIterator<Item = SealedItem>) {
        let handle = self.outbox.handle();
        for item in items {
            assert!(handle.put_blocking(item));
        }
        assert!(handle.flush().await);
    }

    /// Ids that wait.
    pub fn waiting(&self) -> Vec<String> {
        let entries = self.outbox.handle().batch(100_000, usize::MAX, &|_| false).unwrap();
        entries.iter().map(|entry| entry.item.id()).collect()
    }

    pub fn uplink(&self, config: UplinkConfig) -> Running {
        let uplink = Uplink::new(config, site(), self.outbox.handle(), 7, &self.telemetry).unwrap();
        let (stop, stopped) = watch::channel(false);
        Running { stop, task: tokio::spawn(uplink.run(stopped, Duration::from_millis(300))) }
    }

    /// Waits until nothing waits any more.
    pub async fn wait_until_empty(&self) {
        wait_until(|| self.outbox.handle().stats().waiting() == 0).await;
    }
}

/// A running uplink.
pub struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.task).await.expect("the uplink ends").unwrap();
    }
}

/// A configuration with short pauses.
pub fn config(address: SocketAddr) -> UplinkConfig {
    UplinkConfig {
        backoff_min: HumanDuration::millis(50),
        backoff_max: HumanDuration::millis(400),
        ..UplinkConfig::to(&format!("mqtt://{address}"))
    }
}

/// Waits until a condition holds.
pub async fn wait_until(what: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !what() {
        assert!(tokio::time::Instant::now() < end, "what is waited for does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a cloud got, in order: class and id from the event, and its bytes.
pub type Received = Arc<Mutex<Vec<(String, String, Vec<u8>)>>>;

/// A cloud behind the real front door, which comes and goes on one address.
pub struct Cloud {
    pub address: SocketAddr,
    pub received: Received,
    answers: Arc<AtomicBool>,
    running: Option<(Runtime, FrontDoor)>,
}

struct Store {
    received: Received,
    answers: Arc<AtomicBool>,
    /// Answers that are never given.
    kept: Mutex<Vec<Answer>>,
}

impl Intake for Store {
    fn submit(&self, batch: Vec<Publish>, answer: Answer) -> BoxFuture<'_, ()> {
        let mut received = self.received.lock().unwrap();
        for publish in batch {
            let event: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
            let class = publish.topic.as_str().rsplit('/').next().unwrap().to_owned();
            received.push((class, event["id"].as_str().unwrap().to_owned(), publish.payload.to_vec()));
        }
        if self.answers.load(Ordering::Acquire) {
            answer(Durability::Durable { below: 0 });
        } else {
            self.kept.lock().unwrap().push(answer);
        }
        Box::pin(std::future::ready(()))
    }
}

impl Cloud {
    /// A cloud that is not there yet, on an address that nobody else has.
    pub fn away() -> Self {
        Self::away_on("127.0.0.1:0").unwrap()
    }

    /// As [`Cloud::away`], on this address where the system has it.
    pub fn away_on(address: &str) -> std::io::Result<Self> {
        let address = std::net::TcpListener::bind(address)?.local_addr()?;
        Ok(Self { address, received: Received::default(), answers: Arc::new(AtomicBool::new(true)), running: None })
    }

    /// It is there.
    pub async fn come(&mut self) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let config = BrokerConfig { listen: self.address, ..BrokerConfig::default() };
            let store =
                Store { received: self.received.clone(), answers: self.answers.clone(), kept: Mutex::default() };
            let bound = runtime.spawn(async move {
                FrontDoor::bind(config, Arc::new(store), Arc::new(SystemClock), &Telemetry::new()).await
            });
            match bound.await.unwrap() {
                Ok(door) => {
                    self.running = Some((runtime, door));
                    return;
                }
                // The one before may not have let go of the address yet.
                Err(error) => assert!(tokio::time::Instant::now() < end, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// It is gone in the middle of whatever it does, as if its machine had lost its power.
    pub fn go(&mut self) {
        if let Some((runtime, door)) = self.running.take() {
            runtime.shutdown_background();
            drop(door);
        }
    }

    /// From now on it takes but does not answer, or answers again.
    pub fn set_answering(&self, answers: bool) {
        self.answers.store(answers, Ordering::Release);
    }

    pub fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.go();
    }
}
