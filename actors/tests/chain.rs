//! The way of a reading over the real journal and the real outbox, each on a disk that forgets what was not synced: power fails at any
//! operation of either, devices send again what was not acknowledged, the cloud's acknowledgements get lost. In the end the cloud has
//! each window, in its highest revision and byte for byte, as a run without faults over the same journal gives.
//!
//! `NEARSIDE_CHAINS=2000` takes more seeds than the default.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;
#[path = "../../crates/journal/tests/disk/mod.rs"]
mod log_disk;
#[allow(dead_code, reason = "not every test uses all of it")]
#[path = "../../crates/outbox/tests/common/disk.rs"]
mod outbox_disk;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::{Event, ID, Random, apply, events, new_stream, plan};
use nearside_actors::stream::{Outputs, StreamComponent, StreamPlan, StreamState};
use nearside_journal::{CommitOutcome, Item, Journal, JournalConfig, Lsn, Record, read_from};
use nearside_outbox::{Outbox, OutboxConfig};
use nearside_privacy::{KeyRing, Sealed, SealedItem, SummaryFormat, seal_finding, seal_summary};
use nearside_schemas::{
    ByteSize, ClientId, FieldValue, HumanDuration, KeyValues, ManualClock, Publish, QoS, Reading, SecretKey, Timestamp,
    Topic, Values,
};
use nearside_telemetry::Telemetry;
// What the disks are made of.
use {rand as _, redb as _};

fn keys() -> Arc<KeyRing> {
    Arc::new(KeyRing::from_master(SecretKey::new([3; 32])))
}

fn to_record(event: &Event) -> Record {
    match event {
        Event::Tick(at) => Record::Tick(*at),
        Event::Close(at) => Record::Close { streams: Vec::new(), for_good: false, at: *at },
        Event::Reading(reading) => Record::Publish(Publish {
            client: ClientId::new("device"),
            topic: Topic::new("s").unwrap(),
            payload: Bytes::from(format!("{} {}", reading.time.as_micros(), reading.values[0].number().unwrap())),
            qos: QoS::AtLeastOnce,
            packet_id: None,
            retain: false,
            received: reading.received,
        }),
    }
}

fn to_event(record: &Record) -> Option<Event> {
    Some(match record {
        Record::Tick(at) => Event::Tick(*at),
        Record::Close { at, .. } => Event::Close(*at),
        Record::Publish(publish) => {
            let text = std::str::from_utf8(&publish.payload).ok()?;
            let (time, value) = text.split_once(' ')?;
            Event::Reading(Reading {
                time: Timestamp::from_micros(time.parse().ok()?),
                received: publish.received,
                sequence: None,
                values: Values::from_iter([FieldValue::Number(value.parse().ok()?)]),
            })
        }
        Record::Epoch { .. } | Record::Command { .. } => return None,
    })
}

/// What the stream gave back, sealed.
fn seal(plan: &StreamPlan, out: &mut Outputs) -> Vec<SealedItem> {
    let keys = keys();
    let summaries = out
        .summaries
        .drain(..)
        .map(|summary| seal_summary(&summary, &plan.spec, &keys, SummaryFormat::Json).map(Sealed::into_item).unwrap());
    let mut items: Vec<SealedItem> = summaries.collect();
    let findings = out.raised.drain(..);
    items.extend(findings.map(|raised| {
        seal_finding(&raised.finding, &KeyValues::new(), &plan.spec, &plan.site, &keys).map(Sealed::into_item).unwrap()
    }));
    items
}

/// The highest revision of each subject, with its bytes.
#[derive(Default, PartialEq, Debug)]
struct Cloud(BTreeMap<String, (u32, Vec<u8>)>);

impl Cloud {
    fn take(&mut self, item: &SealedItem) {
        let new = (item.revision(), item.bytes().to_vec());
        let known = self.0.entry(item.subject().to_owned()).or_insert_with(|| new.clone());
        if new.0 > known.0 {
            *known = new;
        } else if new.0 == known.0 {
            assert_eq!(known.1, new.1, "one revision says one thing");
        }
    }
}

/// What outlives a loss of power, and what is outside.
struct Site {
    plan: Arc<StreamPlan>,
    log: log_disk::Disk,
    outbox: outbox_disk::Disk,
    checkpoint: Option<(Lsn, Vec<u8>)>,
    cloud: Cloud,
    /// The first event that the devices were not told is safe.
    next: usize,
}

/// What does not.
struct Life {
    journal: Journal,
    outbox: Outbox,
    stream: StreamComponent,
    /// The record after the last that the stream took.
    at: Lsn,
}

impl Site {
    /// Starts and takes in what the journal holds; `None` where the power is gone before.
    async fn start(&mut self) -> Option<Life> {
        let config = JournalConfig {
            segment: ByteSize::kib(64),
            commit_interval: HumanDuration::millis(0),
            ..JournalConfig::default()
        };
        let log = Arc::new(self.log.clone());
        let (journal, report) = Journal::open_in(log.clone(), config, keys(), &Telemetry::new()).ok()?;
        let outbox = OutboxConfig { reserve: ByteSize(0), ..OutboxConfig::default() };
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1)));
        let medium = Arc::new(self.outbox.clone());
        let outbox = Outbox::open_on(medium, Path::new("memory"), &outbox, keys(), clock, &Telemetry::new());
        let (at, stream) = match &self.checkpoint {
            None => (Lsn(0), new_stream(&self.plan)),
            Some((covers, bytes)) => {
                let (_, key, state) = StreamState::decode(bytes).unwrap();
                (*covers, StreamComponent::restore(self.plan.clone(), ID, key, &state).0)
            }
        };
        let Ok(outbox) = outbox else {
            journal.close();
            return None;
        };
        let mut life = Life { journal, outbox, stream, at };
        let reader = read_from(log, keys(), at, report.next).unwrap();
        for item in reader {
            if let Item::Record(lsn, record) = item
                && !life.take(&self.plan, lsn, &record).await
            {
                life.end();
                return None;
            }
        }
        Some(life)
    }

    /// The devices send some, and the stream takes them. False once the power is gone.
    async fn take_some(&mut self, life: &mut Life, source: &[Event], random: &mut Random) -> bool {
        let until = source.len().min(self.next + 1 + random.below(6) as usize);
        let records: Vec<Record> = source[self.next..until].iter().map(to_record).collect();
        let CommitOutcome::Durable { first } = life.journal.handle().commit(records.clone()).await else {
            return false;
        };
        for (n, record) in records.iter().enumerate() {
            if !life.take(&self.plan, Lsn(first.0 + n as u64), record).await {
                return false;
            }
        }
        // An acknowledgement may be lost: then the same comes again.
        self.next = if random.below(8) == 0 { self.next } else { until };
        true
    }

    /// The cloud gets some of what waits, and its acknowledgements may be lost.
    async fn send_some(&mut self, life: &Life, most: usize, random: &mut Random) {
        let handle = life.outbox.handle();
        let Ok(entries) = handle.batch(most, usize::MAX, &|_| false) else { return };
        for entry in entries {
            self.cloud.take(&entry.item);
            if random.below(3) > 0 {
                handle.acknowledge(vec![entry.sequence]).await;
            }
        }
    }

    /// As long as the power is there, or until the devices are done.
    async fn live(&mut self, source: &[Event], random: &mut Random) {
        let Some(mut life) = self.start().await else { return };
        while self.next < source.len() {
            if !self.take_some(&mut life, source, random).await {
                break;
            }
            match random.below(6) {
                0 | 1 => self.send_some(&life, 3, random).await,
                2 if life.outbox.handle().flush().await => {
                    let name = &self.plan.spec.name;
                    self.checkpoint = Some((life.at, life.stream.snapshot().encode(name, life.stream.key())));
                }
                _ => {}
            }
        }
        life.end();
    }

    /// The last life, with power for as long as it takes.
    async fn settle(&mut self, source: &[Event], random: &mut Random) {
        let mut life = self.start().await.expect("the power is there");
        while self.next < source.len() {
            assert!(self.take_some(&mut life, source, random).await);
        }
        let mut out = Outputs::default();
        life.stream.drain(Timestamp::MAX, &mut out);
        for item in seal(&self.plan, &mut out) {
            assert!(life.outbox.handle().put(item).await);
        }
        self.send_some(&life, usize::MAX, random).await;
        life.end();
    }

    /// What a run without faults over the same journal gives.
    fn reference(&self) -> Cloud {
        let (mut cloud, mut out) = (Cloud::default(), Outputs::default());
        let mut stream = new_stream(&self.plan);
        let reader = read_from(Arc::new(self.log.clone()), keys(), Lsn(0), Lsn(u64::MAX)).unwrap();
        for item in reader {
            if let Item::Record(_, record) = item
                && let Some(event) = to_event(&record)
            {
                apply(&mut stream, &event, &mut out);
            }
        }
        stream.drain(Timestamp::MAX, &mut out);
        seal(&self.plan, &mut out).iter().for_each(|item| cloud.take(item));
        cloud
    }
}

impl Life {
    /// The stream takes a record and what it gives back is in the outbox; false where it cannot be.
    async fn take(&mut self, plan: &StreamPlan, lsn: Lsn, record: &Record) -> bool {
        let mut out = Outputs::default();
        if let Some(event) = to_event(record) {
            apply(&mut self.stream, &event, &mut out);
        }
        self.at = Lsn(lsn.0 + 1);
        for item in seal(plan, &mut out) {
            if !self.outbox.handle().put(item).await {
                return false;
            }
        }
        true
    }

    fn end(self) {
        self.journal.close();
        self.outbox.close();
    }
}

#[test]
fn on_disks_that_forget_the_cloud_has_each_window_as_without_faults() {
    let seeds: u64 = std::env::var("NEARSIDE_CHAINS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let plan = plan();
    let mut subjects = 0;
    for seed in 1..=seeds {
        let mut random = Random(seed * 0x9E37_79B9);
        let source = events(&mut random);
        let mut site = Site {
            plan: plan.clone(),
            log: log_disk::Disk::new(seed * 31),
            outbox: outbox_disk::Disk::new(),
            checkpoint: None,
            cloud: Cloud::default(),
            next: 0,
        };
        for _ in 0..3 {
            site.log.power_on(120);
            if random.below(2) == 0 {
                site.outbox.cut_after(20 + random.below(400));
            }
            runtime.block_on(site.live(&source, &mut random));
            site.log.power_lost();
            site.outbox.lose_power(random.below(u64::MAX));
        }
        runtime.block_on(site.settle(&source, &mut random));
        let expected = site.reference();
        assert_eq!(site.cloud, expected, "seed {seed}");
        subjects += expected.0.len();
    }
    assert!(subjects > 0, "there was something to get wrong");
}
