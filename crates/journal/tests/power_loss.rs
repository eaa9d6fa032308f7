//! Power fails at any operation of the disk: what was not synced is gone, or is there in part, or is zeros. Whatever was answered
//! `Durable` is read back, in order, life after life.
//!
//! `NEARSIDE_POWER_LOSSES=10000` loses power more often than the default.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, mpsc};

use nearside_journal::{CommitOutcome, Item, Journal, JournalConfig, Record, SegmentFile, Storage, read};
use nearside_schemas::{ByteSize, HumanDuration, KeyPurpose, KeySource, SecretKey, Timestamp};
use nearside_telemetry::Telemetry;

struct FixedKeys;

impl KeySource for FixedKeys {
    fn derive(&self, _: KeyPurpose, context: &[u8]) -> SecretKey {
        let mut key = [7; 32];
        key.iter_mut().zip(context).for_each(|(byte, context)| *byte ^= context);
        SecretKey::new(key)
    }
}

/// Numbers from a seed (xorshift; Marsaglia 2003).
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

#[derive(Default, Clone)]
struct Contents {
    bytes: Vec<u8>,
    synced: usize,
}

/// A folder whose power fails after some operations.
#[derive(Clone)]
struct Disk(Arc<Mutex<State>>);

struct State {
    files: BTreeMap<String, Contents>,
    operations_left: u64,
    random: Random,
}

impl State {
    /// Whether the power is still there for one more operation.
    fn operate(&mut self) -> io::Result<()> {
        self.operations_left = self.operations_left.saturating_sub(1);
        if self.operations_left == 0 { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }
}

impl Disk {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { files: BTreeMap::new(), operations_left: 0, random: Random(seed) })))
    }

    fn power_on(&self) {
        let mut state = self.0.lock().unwrap();
        state.operations_left = 1 + state.random.below(60);
    }

    /// What a disk may hold after the power came back.
    fn power_lost(&self) {
        let mut state = self.0.lock().unwrap();
        let mut random = state.random.clone();
        for contents in state.files.values_mut() {
            let unsynced = contents.bytes.len() - contents.synced;
            let kept = contents.synced + random.below(unsynced as u64 + 1) as usize;
            contents.bytes.truncate(kept);
            match random.below(3) {
                // The length was written before the bytes.
                0 => contents.bytes.extend(vec![0; random.below(100) as usize]),
                // A sector of something else.
                1 if kept > contents.synced => contents.bytes[kept - 1] ^= 0x55,
                _ => {}
            }
            contents.synced = contents.bytes.len();
        }
        state.random = random;
        state.operations_left = u64::MAX;
    }
}

struct DiskFile {
    name: String,
    disk: Disk,
}

impl SegmentFile for DiskFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        let lost = state.operate();
        // The power may fail in the middle of a write.
        let written = if lost.is_ok() { bytes.len() } else { state.random.below(bytes.len() as u64 + 1) as usize };
        state.files.get_mut(&self.name).unwrap().bytes.extend(&bytes[..written]);
        lost
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        state.operate()?;
        let contents = state.files.get_mut(&self.name).unwrap();
        contents.synced = contents.bytes.len();
        Ok(())
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().files.keys().cloned().collect())
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let mut state = self.0.lock().unwrap();
        state.operate()?;
        let known = state.files.insert(name.to_owned(), Contents::default());
        assert!(known.is_none(), "{name} is made twice");
        Ok(Box::new(DiskFile { name: name.to_owned(), disk: self.clone() }))
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().unwrap().files[name].bytes.clone())
    }
    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().files[name].bytes.len() as u64)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.operate()?;
        state.files.remove(name);
        Ok(())
    }
}

fn config() -> JournalConfig {
    JournalConfig {
        segment: ByteSize::kib(64),
        quota: ByteSize::mib(64),
        commit_interval: HumanDuration::millis(0),
        ..JournalConfig::default()
    }
}

fn ticks(disk: &Disk) -> Vec<i64> {
    let items = read(Arc::new(disk.clone()), Arc::new(FixedKeys)).unwrap();
    let tick = |item| match item {
        Item::Record(_, Record::Tick(at)) => Some(at.as_micros()),
        _ => None,
    };
    items.filter_map(tick).collect()
}

/// One life: appends until the power is gone. Gives back what was answered `Durable`, and the number after the last appended.
fn live(disk: &Disk, random: &mut Random, first: i64) -> (Vec<i64>, i64) {
    disk.power_on();
    let opened = Journal::open_in(Arc::new(disk.clone()), config(), Arc::new(FixedKeys), &Telemetry::new());
    let Ok((journal, _)) = opened else { return (Vec::new(), first) };
    let handle = journal.handle();
    let (answers, answered) = mpsc::channel();
    let mut next = first;
    for _ in 0..60 {
        let batch: Vec<i64> = (0..1 + random.below(5) as i64).map(|n| next + n).collect();
        next += batch.len() as i64;
        let records = batch.iter().map(|at| Record::Tick(Timestamp::from_micros(*at))).collect();
        let answers = answers.clone();
        handle.append_blocking(
            records,
            Box::new(move |outcome, _| {
                let durable = matches!(outcome, CommitOutcome::Durable { .. });
                answers.send((durable, batch)).unwrap();
            }),
        );
        if random.below(3) == 0 {
            std::thread::yield_now();
        }
    }
    drop((handle, answers));
    journal.close();
    let durable = answered.iter().filter(|(durable, _)| *durable).flat_map(|(_, batch)| batch).collect();
    (durable, next)
}

#[test]
fn what_was_answered_durable_survives_every_loss_of_power() {
    let losses: u64 = std::env::var("NEARSIDE_POWER_LOSSES").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    let mut lost = 0;
    let mut seed = 0;
    while lost < losses {
        seed += 1;
        let mut random = Random(seed * 7_919);
        let disk = Disk::new(seed);
        let (mut durable, mut next) = (Vec::new(), 0);
        for _ in 0..3 {
            let (answered, after) = live(&disk, &mut random, next);
            durable.extend(answered);
            next = after;
            disk.power_lost();
            lost += 1;
            let found = ticks(&disk);
            assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: in order, none twice");
            let mut rest = found.iter();
            let missing = durable.iter().find(|at| !rest.any(|found| found == *at));
            assert_eq!(missing, None, "seed {seed}: what was durable is there");
            assert!(found.last().is_none_or(|last| *last < next), "seed {seed}: nothing that was never appended");
        }
    }
}
