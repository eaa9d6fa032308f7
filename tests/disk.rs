//! What a disk can do to a gateway: it fills up and has room again, or comes back older than it was. What was acknowledged stays, what
//! cannot be kept is not acknowledged, and the gateway lives.
//!
//! A full disk is a small file system in memory; where it cannot be mounted (it takes root on Linux) those tests are skipped, and the
//! journal's own tests stand in with a disk that is made to refuse.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Cloud, Gateway, PATIENCE, client, write_site};
use nearside_journal::{CheckpointRound, CheckpointStore, Lsn, StoredStream};
use nearside_privacy::KeyRing;
use nearside_schemas::{SecretKey, StreamId};
use rumqttc::{Event, MqttOptions, Packet, QoS};

/// A small file system on a folder.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// `None` where it cannot be mounted.
    fn mount(folder: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { folder: folder.to_owned() });
        }
        println!("skipped: a small disk cannot be mounted here");
        None
    }

    /// Writes until there is no room.
    fn fill(&self) {
        let mut ballast = std::fs::OpenOptions::new().create(true).append(true).open(self.ballast()).unwrap();
        while ballast.write_all(&[1; 4_096]).is_ok() {}
        while ballast.write_all(&[1]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a gateway that is being ended may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

fn stream(name: &str, rows: u32) -> String {
    format!(
        "[[stream]]\nname = \"{name}\"\ntopic = \"{name}/{{room}}\"\nformat = \"json\"\n\
         fields = {{ value = \"$.value\", note = {{ path = \"$.note\", kind = \"text\" }} }}\n\
         windows = [{{ kind = \"count\", rows = {rows} }}]\n"
    )
}

/// A device that sends its readings with QoS 1, one after the other, each until it is acknowledged, over connections that break.
struct Device {
    acknowledged: Arc<Mutex<usize>>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Device {
    fn start(broker: SocketAddr, topic: &'static str, readings: usize, padding: usize) -> Self {
        let (acknowledged, stop) = (Arc::new(Mutex::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (acknowledged.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while *count.lock().unwrap() < readings && !end.load(Ordering::Relaxed) {
                // A refused reading ends the connection: v3.1.1 has no other way to say so.
                let _ = publish_some(broker, topic, readings, padding, &count, &end);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { acknowledged, stop, thread }
    }

    fn acknowledged(&self) -> usize {
        *self.acknowledged.lock().unwrap()
    }

    /// Waits until every reading is acknowledged, or no longer.
    fn finish(self) -> usize {
        let end = Instant::now() + PATIENCE;
        while !self.thread.is_finished() {
            if Instant::now() > end {
                self.stop.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.thread.join().unwrap();
        *self.acknowledged.lock().unwrap()
    }
}

fn publish_some(
    broker: SocketAddr,
    topic: &str,
    readings: usize,
    padding: usize,
    acknowledged: &Mutex<usize>,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let mut socket = TcpStream::connect_timeout(&broker, Duration::from_secs(1))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.write_all(b"\x10\x12\0\x04MQTT\x04\x02\0\0\0\x06device")?;
    let mut answer = [0; 4];
    socket.read_exact(&mut answer)?;
    loop {
        let n = *acknowledged.lock().unwrap();
        if n == readings || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let payload = format!("{{\"value\": {n}, \"note\": \"{}\"}}", "x".repeat(padding));
        let mut length = 4 + topic.len() + payload.len();
        let mut packet = vec![0x32];
        while length > 0x7F {
            packet.push((length & 0x7F) as u8 | 0x80);
            length >>= 7;
        }
        packet.push(length as u8);
        packet.extend([0, topic.len() as u8]);
        packet.extend(topic.as_bytes());
        packet.extend([0, 1]);
        packet.extend(payload.as_bytes());
        socket.write_all(&packet)?;
        socket.read_exact(&mut answer)?;
        assert_eq!(answer, [0x40, 2, 0, 1], "PUBACK");
        *acknowledged.lock().unwrap() += 1;
    }
}

/// The numbers of the messages that wait for a subscriber whose session is kept.
async fn drain_session(broker: SocketAddr, least: usize) -> BTreeSet<u64> {
    let mut options = MqttOptions::new("subscriber", broker.ip().to_string(), broker.port());
    options.set_clean_session(false).set_max_packet_size(16 << 20, 16 << 20);
    let (client, mut events) = rumqttc::AsyncClient::new(options, 10);
    client.subscribe("room/#", QoS::AtLeastOnce).await.unwrap();
    let mut numbers = BTreeSet::new();
    let all = async {
        loop {
            match events.poll().await.expect("the connection holds") {
                Event::Incoming(Packet::Publish(publish)) => {
                    let reading: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
                    numbers.insert(reading["value"].as_u64().unwrap());
                }
                Event::Incoming(Packet::SubAck(_)) if least == 0 => return,
                _ => {}
            }
            if least > 0 && numbers.len() >= least {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("every message arrives in time");
    client.disconnect().await.unwrap();
    // Until the farewell is on its way.
    while events.poll().await.is_ok() {}
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_acknowledgements_back_and_loses_nothing() {
    const READINGS: usize = 600;
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("data"), 32) else { return };
    let cloud = Cloud::start().await;
    let rest = format!(
        "[journal]\nsegment = \"64KiB\"\nquota = \"16MiB\"\n[outbox]\nreserve = \"1MiB\"\n[streams]\ncheckpoint_after = \"1s\"\n\
         on_stop = \"close\"\n{}[uplink]\nurl = \"mqtt://{}\"\nbackoff_min = \"50ms\"\nbackoff_max = \"200ms\"\n",
        stream("room", 10),
        cloud.address
    );
    write_site(folder.path(), &rest);
    let mut gateway = Gateway::start_in(folder, &[]).unwrap();
    gateway.wait_for("nearside_ready{}", 1.0);
    drain_session(gateway.broker, 0).await;
    let device = Device::start(gateway.broker, "room/1", READINGS, 3_000);
    let end = Instant::now() + PATIENCE;
    while device.acknowledged() < 50 {
        assert!(Instant::now() < end, "readings are acknowledged");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What a checkpoint makes room for is filled again, until the journal has none.
    while gateway.metric("nearside_journal_failing{}") < 1.0 {
        assert!(Instant::now() < end, "the journal notices");
        disk.fill();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(gateway.get("/healthz").contains("the journal cannot write"), "{}", gateway.get("/healthz"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held_back = device.acknowledged();
    assert!(held_back < READINGS && gateway.is_running());
    disk.make_room();
    assert_eq!(device.finish(), READINGS, "it goes on when there is room again");
    assert_eq!(gateway.metric("nearside_journal_failing{}"), 0.0);
    assert!(gateway.get("/healthz").starts_with("HTTP/1.1 200"));
    // Each in a window, and each for the subscriber, whose session is on the same disk.
    let waited = drain_session(gateway.broker, READINGS).await;
    assert_eq!(waited.len(), READINGS);
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    let said = std::fs::read_to_string(folder.path().join("stderr.txt")).unwrap();
    assert!(said.contains("the journal writes again"), "{said}");
    assert!(!said.contains("the last checkpoint was not written"), "{said}");
    let gateway = Gateway::start_in(folder, &[]).unwrap();
    let rows = || -> u64 {
        let events = cloud.events();
        events
            .iter()
            .filter(|(topic, _)| topic.ends_with("summary"))
            .map(|(_, event)| event["data"]["rows"].as_u64().unwrap())
            .sum()
    };
    let end = Instant::now() + PATIENCE;
    // A reading that was refused after it was journalled, because the session's disk was full, is sent and counted again.
    while rows() < READINGS as u64 {
        assert!(Instant::now() < end, "{} rows in windows", rows());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(gateway.terminate().0, Some(0));
}

/// A reload whose checkpoint finds no room: refused, and no window is closed for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_the_disk_refuses_closes_no_window() {
    const READINGS: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("data"), 24) else { return };
    let rest = |rows| {
        let head = "[journal]\nsegment = \"8MiB\"\nquota = \"16MiB\"\n[outbox]\nreserve = \"0B\"\n[streams]\ncheckpoint_after = \"1h\"\n";
        format!("{head}{}", stream("room", rows))
    };
    write_site(folder.path(), &rest(400));
    let gateway = Gateway::start_in(folder, &[]).unwrap();
    gateway.wait_for("nearside_ready{}", 1.0);
    assert_eq!(Device::start(gateway.broker, "room/1", READINGS, 10_000).finish(), READINGS);
    disk.fill();
    let text = std::fs::read_to_string(gateway.site()).unwrap();
    std::fs::write(gateway.site(), text.replace("rows = 400", "rows = 350")).unwrap();
    gateway.wait_for("nearside_reloads_total{outcome=\"refused\"}", 1.0);
    let drained = "nearside_windows_closed_total{stream=\"room\",cause=\"drain\"}";
    assert_eq!(gateway.metric(drained), 0.0, "the windows stay open");
    disk.make_room();
    gateway.signal("HUP");
    gateway.wait_for("nearside_reloads_total{outcome=\"done\"}", 1.0);
    assert_eq!(gateway.metric(drained), 1.0);
    assert_eq!(gateway.terminate().0, Some(0));
}

/// Checkpoints go on once there is room again, without a restart.
#[test]
fn checkpoints_survive_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("small"), 8) else { return };
    let path = disk.folder.join("checkpoint.redb");
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([7; 32])));
    let (store, _) = CheckpointStore::open(&path, keys.clone()).unwrap();
    let round = |covers, bytes| CheckpointRound {
        covers: Lsn(covers),
        streams: vec![StoredStream { id: StreamId::from_bytes([1; 16]), covers: Lsn(covers), state: vec![9; bytes] }],
        ..CheckpointRound::default()
    };
    store.commit(&round(1, 100)).unwrap();
    disk.fill();
    store.commit(&round(2, 2 << 20)).expect_err("there is no room");
    disk.make_room();
    store.commit(&round(3, 200)).unwrap();
    drop(store);
    let (_, found) = CheckpointStore::open(&path, keys).unwrap();
    assert_eq!((found.covers, found.damaged, found.streams[0].state.len()), (Lsn(3), 0, 200));
}

/// The journal's folder is gone while the checkpoint is there: numbers that the checkpoint covers are not given to new readings, which the
/// next start would leave out.
#[tokio::test(flavor = "multi_thread")]
async fn readings_after_a_lost_journal_are_not_taken_for_old_ones() {
    let cloud = Cloud::start().await;
    let site = format!("{}[uplink]\nurl = \"mqtt://{}\"\n", stream("room", 10), cloud.address);
    let gateway = Gateway::start(&site);
    assert_eq!(Device::start(gateway.broker, "room/1", 6, 10).finish(), 6);
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    std::fs::remove_dir_all(folder.path().join("data/journal")).unwrap();
    let gateway = Gateway::start_in(folder, &[]).unwrap();
    gateway.wait_until_said("missing at the journal's end");
    gateway.wait_for("nearside_ready{}", 1.0);
    assert_eq!(Device::start(gateway.broker, "room/1", 3, 10).finish(), 3);
    let gateway = Gateway::start_in(gateway.kill(), &[]).unwrap();
    gateway.wait_for("nearside_ready{}", 1.0);
    let (device, mut events) = client("one more", gateway.broker);
    device.publish("room/1", QoS::AtLeastOnce, false, "{\"value\": 1, \"note\": \"x\"}").await.unwrap();
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    cloud.wait_for(|_, event| event["data"]["rows"] == 10).await;
    drop(device);
}

/// Time that passes is recorded, and no checkpoint is written for that alone: the disk may be a memory card.
#[test]
fn a_site_at_rest_hardly_writes() {
    let folder = tempfile::tempdir().unwrap();
    write_site(folder.path(), &stream("room", 10));
    let gateway = Gateway::start_in(folder, &[]).unwrap();
    // The first round is written.
    gateway.wait_for("nearside_checkpoint_covers{}", 1.0);
    let checkpoint = gateway.site().with_file_name("data").join("checkpoint.redb");
    let written = || checkpoint.metadata().unwrap().modified().unwrap();
    let (before, records) = (written(), gateway.metric("nearside_journal_records_total{}"));
    gateway.wait_for("nearside_journal_records_total{}", records + 2.0);
    assert_eq!(written(), before);
    let (code, _folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    // The last one is, so that the next start replays nothing.
    assert!(written() > before);
}
