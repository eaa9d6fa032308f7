//! `kill -9` at random and at named moments: what was acknowledged is in its windows, once; no command is given twice.
//!
//! `NEARSIDE_KILLS=200 cargo test --test crash` kills more often; `NEARSIDE_SEED=7` repeats a run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Cloud, Gateway, PATIENCE, write_site};
use nearside_schemas::{Clock, SystemClock};
use rumqttc::{Event, Packet, QoS};

const STREAMS: i64 = 8;
/// Event time between two readings of a stream.
const STEP_MS: i64 = 100;
/// Readings of a stream in one window of two seconds.
const IN_WINDOW: i64 = 20;

/// Numbers from a seed (xorshift; Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn site(cloud: SocketAddr) -> String {
    format!(
        r#"
[journal]
segment = "64KiB"
[streams]
checkpoint_after = "1s"
[[stream]]
name = "room"
topic = "room/{{room}}"
format = "json"
timestamp = "$.ts"
fields = {{ value = "$.value" }}
windows = [{{ name = "two-seconds", kind = "tumbling", size = "2s", late = "revise", revise_for = "10m" }}, {{ kind = "count", rows = 50 }}]
models = ["robust-z"]
privacy = {{ room = "clear" }}
idle = "1h"
[[rule]]
name = "each"
on = "summary"
when = "summary.rows == 50"
cooldown = "0s"
time_to_live = "1h"
publish = {{ topic = "told/{{room}}", payload = '{{"min": ${{summary.fields.value.min}}, "room": ${{key.room}}}}' }}
[uplink]
url = "mqtt://{cloud}"
backoff_min = "50ms"
backoff_max = "200ms"
"#
    )
}

/// Where the gateway is now; it changes with each start.
type Address = Arc<Mutex<Option<SocketAddr>>>;

/// Publishes every reading of one stream with QoS 1, each until it is acknowledged, over connections that break.
fn publish_until_acknowledged(room: i64, readings: Vec<String>, address: &Address, stop: &AtomicBool) -> usize {
    let mut next = 0;
    while next < readings.len() && !stop.load(Ordering::Relaxed) {
        let Some(broker) = *address.lock().unwrap() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        // Broken connections are what this is about: the same readings again.
        let _ = publish_some(room, &readings, &mut next, broker, stop);
        std::thread::sleep(Duration::from_millis(5));
    }
    next
}

fn publish_some(
    room: i64,
    readings: &[String],
    next: &mut usize,
    broker: SocketAddr,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&broker, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let id = format!("room-{room}");
    let mut connect = vec![0x10, (12 + id.len()) as u8, 0, 4];
    connect.extend(b"MQTT\x04\x02\x00\x00");
    connect.extend([0, id.len() as u8]);
    connect.extend(id.as_bytes());
    stream.write_all(&connect)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    let topic = format!("room/{room}");
    while *next < readings.len() && !stop.load(Ordering::Relaxed) {
        let batch = &readings[*next..readings.len().min(*next + 7)];
        let mut bytes = Vec::new();
        for (n, reading) in batch.iter().enumerate() {
            bytes.extend([0x32, (4 + topic.len() + reading.len()) as u8, 0, topic.len() as u8]);
            bytes.extend(topic.as_bytes());
            bytes.extend([0, n as u8 + 1]);
            bytes.extend(reading.as_bytes());
        }
        stream.write_all(&bytes)?;
        for n in 0..batch.len() {
            stream.read_exact(&mut answer)?;
            assert_eq!(answer, [0x40, 2, 0, n as u8 + 1], "acknowledgements come in order");
            *next += 1;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Ok(())
}

/// What a site under fire is: a cloud, a folder, devices that publish until they are heard, and somebody who listens for commands.
struct Fire {
    cloud: Cloud,
    address: Address,
    stop: Arc<AtomicBool>,
    devices: Vec<std::thread::JoinHandle<usize>>,
    told: Arc<Mutex<Vec<String>>>,
    base_ms: i64,
    per_stream: i64,
}

impl Fire {
    async fn start(per_stream: i64) -> (Self, tempfile::TempDir) {
        let cloud = Cloud::start().await;
        let folder = tempfile::tempdir().unwrap();
        write_site(folder.path(), &site(cloud.address));
        let address = Address::default();
        let stop = Arc::new(AtomicBool::new(false));
        // A whole number of windows before now, so that the last reading is not of the future.
        let now_ms = SystemClock.now().as_micros() / 1_000;
        let base_ms = (now_ms - per_stream * STEP_MS) / 2_000 * 2_000;
        let devices = (0..STREAMS).map(|room| {
            let readings =
                (0..per_stream).map(|n| format!(r#"{{"ts":{},"value":{n}}}"#, base_ms + n * STEP_MS)).collect();
            let (address, stop) = (address.clone(), stop.clone());
            std::thread::spawn(move || publish_until_acknowledged(room, readings, &address, &stop))
        });
        let devices = devices.collect();
        let told = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(listen(address.clone(), told.clone()));
        (Self { cloud, address, stop, devices, told, base_ms, per_stream }, folder)
    }

    fn is_over(&self) -> bool {
        self.devices.iter().all(std::thread::JoinHandle::is_finished)
    }

    /// Lets the last gateway finish and counts.
    async fn settle(self, folder: tempfile::TempDir) {
        let gateway = Gateway::start_in(folder, &[]).expect("it starts after all that");
        *self.address.lock().unwrap() = Some(gateway.broker);
        let end = Instant::now() + PATIENCE + Duration::from_millis(10 * self.per_stream as u64);
        while !self.is_over() {
            assert!(Instant::now() < end, "the devices are not heard");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let acknowledged: usize = self.devices.into_iter().map(|device| device.join().unwrap()).sum();
        assert_eq!(acknowledged as i64, STREAMS * self.per_stream);
        // The last windows close at the end of the run.
        let text = std::fs::read_to_string(gateway.site()).unwrap();
        let (code, folder) = gateway.terminate();
        assert_eq!(code, Some(0));
        std::fs::write(folder.path().join("site.toml"), text.replace("[streams]", "[streams]\non_stop = \"close\""))
            .unwrap();
        let gateway = Gateway::start_in(folder, &[]).expect("it starts once more");
        gateway.wait_for("nearside_ready{}", 1.0);
        let (code, folder) = gateway.terminate();
        assert_eq!(code, Some(0));
        let gateway = Gateway::start_in(folder, &[]).expect("it starts to send the rest");
        let end = Instant::now() + PATIENCE;
        let rest = |class: &str| gateway.metric(&format!("nearside_outbox_items{{class=\"{class}\"}}"));
        while rest("summary") + rest("alert") > 0.0 {
            assert!(Instant::now() < end, "the outbox is not emptied");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(gateway.terminate().0, Some(0));
        check_windows(&self.cloud, self.base_ms, self.per_stream);
        let mut told = self.told.lock().unwrap().clone();
        let count = told.len();
        told.sort();
        told.dedup();
        assert_eq!(told.len(), count, "no command is given twice");
        assert!(count > 0, "some commands were heard");
    }
}

/// Listens for commands, over connections that break.
async fn listen(address: Address, told: Arc<Mutex<Vec<String>>>) {
    loop {
        let Some(broker) = *address.lock().unwrap() else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let (client, mut events) = common::client("listener", broker);
        if client.try_subscribe("told/+", QoS::AtMostOnce).is_err() {
            continue;
        }
        while let Ok(event) = events.poll().await {
            if let Event::Incoming(Packet::Publish(publish)) = event {
                told.lock().unwrap().push(String::from_utf8(publish.payload.to_vec()).unwrap());
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The cloud, which keeps the highest revision of each window, has every reading in its window of each definition, once.
fn check_windows(cloud: &Cloud, base_ms: i64, per_stream: i64) {
    let mut windows: BTreeMap<(String, String, i64), (u64, u64, f64)> = BTreeMap::new();
    for (topic, event) in cloud.events() {
        if !topic.ends_with("/summary") {
            continue;
        }
        let data = &event["data"];
        let room = data["key"]["room"].to_string();
        let mut window = data["window"].as_str().unwrap().rsplitn(3, ':');
        let start_ms = window.next().unwrap().parse::<i64>().unwrap() / 1_000;
        let id = (room, window.next().unwrap().to_owned(), start_ms);
        let revision = data["revision"].as_u64().unwrap();
        let rows = data["rows"].as_u64().unwrap();
        let mean = data["fields"][0]["mean"].as_f64().unwrap_or(f64::NAN);
        let known = windows.entry(id).or_insert((revision, rows, mean));
        if revision > known.0 {
            *known = (revision, rows, mean);
        }
    }
    let mut rooms: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for ((room, definition, start), (_, rows, mean)) in &windows {
        let counts = rooms.entry(room).or_default();
        if definition == "two-seconds" {
            counts.0 += *rows as i64;
            let first = (start - base_ms) / STEP_MS;
            let expected = (per_stream - first).min(IN_WINDOW);
            assert_eq!(*rows as i64, expected, "{room} {definition} at reading {first}");
            let middle = first as f64 + (expected - 1) as f64 / 2.0;
            assert!((mean - middle).abs() < 1e-6, "{room} at reading {first}: mean {mean}");
        } else {
            counts.1 += *rows as i64;
        }
    }
    assert_eq!(rooms.len() as i64, STREAMS);
    for (room, counts) in rooms {
        assert_eq!(counts.0, per_stream, "{room}: each reading stands in one tumbling window");
        // A reading that was sent again after its count window closed is not known there any more: at least once.
        assert!(counts.1 >= per_stream, "{room}: each reading stands in a count window, {}", counts.1);
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_it_loses_and_doubles_nothing() {
    let kills = setting("NEARSIDE_KILLS", 8);
    let seed = setting("NEARSIDE_SEED", SystemClock.now().as_micros().unsigned_abs() | 1);
    println!("NEARSIDE_SEED={seed} NEARSIDE_KILLS={kills}");
    let mut random = Random(seed);
    let (fire, mut folder) = Fire::start(300 + 20 * kills as i64).await;
    for _ in 0..kills {
        let gateway = Gateway::start_in(folder, &[]).expect("it starts again");
        *fire.address.lock().unwrap() = Some(gateway.broker);
        tokio::time::sleep(Duration::from_millis(20 + random.below(400))).await;
        *fire.address.lock().unwrap() = None;
        folder = gateway.kill();
    }
    fire.settle(folder).await;
}

/// The places where the program can be told to end at once, in builds with debug assertions.
const FAILPOINTS: [&str; 8] = [
    "journal-written",
    "journal-synced",
    "outbox-committing",
    "outbox-committed",
    "uplink-sent",
    "checkpoint-committing",
    "segment-removing",
    "command-recorded",
];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_named_place_it_loses_and_doubles_nothing() {
    if !cfg!(debug_assertions) {
        println!("skipped: failpoints are in builds with debug assertions only");
        return;
    }
    let seed = setting("NEARSIDE_SEED", SystemClock.now().as_micros().unsigned_abs() | 1);
    println!("NEARSIDE_SEED={seed}");
    let mut random = Random(seed);
    let (fire, mut folder) = Fire::start(3_000).await;
    for place in FAILPOINTS {
        let after = 1 + random.below(4);
        let spec = format!("{place}:{after}");
        match Gateway::start_in(folder, &[("NEARSIDE_FAILPOINT", &spec)]) {
            Ok(mut gateway) => {
                *fire.address.lock().unwrap() = Some(gateway.broker);
                let end = Instant::now() + Duration::from_secs(30);
                while gateway.is_running() {
                    assert!(Instant::now() < end, "{spec} is not met");
                    assert!(!fire.is_over(), "the devices are done before {spec} is met");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                *fire.address.lock().unwrap() = None;
                folder = gateway.kill();
            }
            // It ended while it started.
            Err(ended) => folder = ended,
        }
    }
    fire.stop.store(false, Ordering::Relaxed);
    fire.settle(folder).await;
}

/// A panic in a shard itself, where no fence can be: the gateway does not go on without it. What is acknowledged until it has stopped is
/// in the journal, and the next start takes it in.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_ends_ends_the_gateway_and_a_start_loses_and_doubles_nothing() {
    if !cfg!(debug_assertions) {
        println!("skipped: failpoints are in builds with debug assertions only");
        return;
    }
    let (fire, mut folder) = Fire::start(400).await;
    for after in [1, 30] {
        let spec = format!("shard-batch:{after}:panic");
        let gateway = Gateway::start_in(folder, &[("NEARSIDE_FAILPOINT", &spec)]).expect("it starts");
        *fire.address.lock().unwrap() = Some(gateway.broker);
        let (code, ended) = gateway.wait_for_end();
        *fire.address.lock().unwrap() = None;
        let said = std::fs::read_to_string(ended.path().join("stderr.txt")).unwrap();
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("streams ended by a fault"), "{said}");
        folder = ended;
    }
    fire.settle(folder).await;
}
