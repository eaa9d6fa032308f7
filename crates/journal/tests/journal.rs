//! The journal against a model of what was committed: crashes, cuts and flipped bits at any place.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use nearside_journal::{
    CommitOutcome, DamageKind, EpochKind, Item, Journal, JournalConfig, Lsn, Record, SegmentFile, Storage, WhenFull,
    check, read,
};
use nearside_schemas::{
    ByteSize, ClientId, KeyPurpose, KeySource, Publish, QoS, SecretKey, StreamName, Timestamp, Topic,
};
use nearside_telemetry::{Metric, Telemetry};
use proptest::prelude::*;

struct FixedKeys;

impl KeySource for FixedKeys {
    fn derive(&self, _: KeyPurpose, context: &[u8]) -> SecretKey {
        let mut key = [7; 32];
        for (byte, context) in key.iter_mut().zip(context) {
            *byte ^= context;
        }
        SecretKey::new(key)
    }
}

/// A folder in memory whose writes can be made to fail.
#[derive(Clone)]
struct Memory {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    fail_sync: Arc<AtomicBool>,
    /// Bytes of all files that there is room for.
    room: Arc<AtomicUsize>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { files: Arc::default(), fail_sync: Arc::default(), room: Arc::new(AtomicUsize::new(usize::MAX)) }
    }
}

struct MemoryFile {
    name: String,
    memory: Memory,
}

impl SegmentFile for MemoryFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.memory.files.lock().unwrap();
        let used: usize = files.values().map(Vec::len).sum();
        let free = self.memory.room.load(Ordering::SeqCst).saturating_sub(used);
        // As far as there is room, as a disk does it.
        files.get_mut(&self.name).unwrap().extend(&bytes[..bytes.len().min(free)]);
        if free < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.memory.fail_sync.load(Ordering::SeqCst) { Err(io::Error::other("no")) } else { Ok(()) }
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.memory.files.lock().unwrap().get_mut(&self.name).unwrap().truncate(bytes as usize);
        self.sync()
    }
}

impl Storage for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().unwrap().keys().cloned().collect())
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let known = self.files.lock().unwrap().insert(name.to_owned(), Vec::new());
        assert!(known.is_none(), "a segment is never written to again");
        Ok(Box::new(MemoryFile { name: name.to_owned(), memory: self.clone() }))
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.files.lock().unwrap()[name].clone())
    }
    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.files.lock().unwrap()[name].len() as u64)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().unwrap().remove(name);
        Ok(())
    }
}

fn small() -> JournalConfig {
    JournalConfig { segment: ByteSize::kib(64), quota: ByteSize::kib(512), ..JournalConfig::default() }
}

fn publish(n: u64) -> Record {
    Record::Publish(Publish {
        client: ClientId::new("设备"),
        topic: Topic::new("城市/二环/交通").unwrap(),
        payload: Bytes::from(n.to_string().repeat(3)),
        qos: QoS::AtLeastOnce,
        packet_id: NonZeroU16::new(1),
        retain: n.is_multiple_of(2),
        received: Timestamp::from_micros(n as i64),
    })
}

fn append(journal: &Journal, records: Vec<Record>) -> CommitOutcome {
    let (done, outcome) = mpsc::channel();
    journal.handle().append_blocking(records, Box::new(move |outcome, _| done.send(outcome).unwrap()));
    outcome.recv().unwrap()
}

fn records(memory: &Memory) -> Vec<(Lsn, Record)> {
    let items = read(Arc::new(memory.clone()), Arc::new(FixedKeys)).unwrap();
    items
        .filter_map(|item| match item {
            Item::Record(lsn, record) => Some((lsn, record)),
            Item::Damage(_) => None,
        })
        .collect()
}

fn open(memory: &Memory, config: JournalConfig) -> Journal {
    Journal::open_in(Arc::new(memory.clone()), config, Arc::new(FixedKeys), &Telemetry::new()).unwrap().0
}

#[test]
fn every_kind_of_record_comes_back() {
    let memory = Memory::default();
    let all = vec![
        publish(1),
        Record::Tick(Timestamp::from_micros(-5)),
        Record::Epoch { kind: EpochKind::Configuration, digest: [9; 32], at: Timestamp::MAX },
        Record::Command { id: "rule:窗:r0".to_owned(), at: Timestamp::MIN },
        Record::Close { streams: vec![], for_good: true, at: Timestamp::MAX },
        Record::Close {
            streams: ["a", "vitals"].map(|name| StreamName::new(name).unwrap()).to_vec(),
            for_good: false,
            at: Timestamp::from_micros(1),
        },
    ];
    let journal = open(&memory, small());
    assert_eq!(append(&journal, all.clone()), CommitOutcome::Durable { first: Lsn(0) });
    journal.close();
    assert_eq!(records(&memory).into_iter().map(|(_, record)| record).collect::<Vec<_>>(), all);
    let raw: Vec<u8> = memory.files.lock().unwrap().values().flatten().copied().collect();
    let topic = "城市".as_bytes();
    assert!(!raw.windows(topic.len()).any(|part| part == topic), "nothing of a device is on disk in the clear");
}

/// Appends the record until it is taken: a journal that was refused tries again after a while.
fn append_at_last(journal: &Journal, n: u64) -> Lsn {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        if let CommitOutcome::Durable { first } = append(journal, vec![publish(n)]) {
            return first;
        }
        assert!(std::time::Instant::now() < end, "it does not go on");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// What is on disk is what was answered as durable, under consecutive numbers, and nothing is damaged.
fn holds_exactly(memory: &Memory, numbers: &[u64]) {
    let expected: Vec<_> = (0..).map(Lsn).zip(numbers.iter().map(|n| publish(*n))).collect();
    assert_eq!(records(memory), expected);
    let report = check(Arc::new(memory.clone()), Arc::new(FixedKeys)).unwrap();
    assert_eq!((report.records as usize, report.damage), (numbers.len(), vec![]));
}

#[test]
fn after_a_failed_fsync_it_goes_on_in_another_segment_without_what_was_refused() {
    let memory = Memory::default();
    let journal = open(&memory, small());
    assert!(matches!(append(&journal, vec![publish(0)]), CommitOutcome::Durable { .. }));
    memory.fail_sync.store(true, Ordering::SeqCst);
    assert_eq!(append(&journal, vec![publish(1)]), CommitOutcome::Failed);
    let first = memory.files.lock().unwrap().keys().next().unwrap().clone();
    memory.fail_sync.store(false, Ordering::SeqCst);
    assert_eq!(append_at_last(&journal, 2), Lsn(1), "the number was not given to anybody");
    let written = memory.files.lock().unwrap()[&first].len();
    append(&journal, vec![publish(3)]);
    assert_eq!(memory.files.lock().unwrap()[&first].len(), written, "nothing follows a failed fsync in its file");
    holds_exactly(&memory, &[0, 2, 3]);
    journal.close();
    append(&open(&memory, small()), vec![publish(4)]);
    assert_eq!(records(&memory).last().map(|(_, record)| record), Some(&publish(4)));
}

/// The disk has no room in the middle of a frame, in the middle of a segment's header, and for its name alone.
#[test]
fn a_full_disk_refuses_what_it_has_no_room_for_and_goes_on_when_there_is_room() {
    for (before, room) in [(1, 300), (1, 100), (0, 40), (0, 32)] {
        let memory = Memory::default();
        let telemetry = Telemetry::new();
        let (journal, _) =
            Journal::open_in(Arc::new(memory.clone()), small(), Arc::new(FixedKeys), &telemetry).unwrap();
        let mut kept: Vec<u64> = (0..before).collect();
        for n in &kept {
            append(&journal, vec![publish(*n)]);
        }
        let used: usize = memory.files.lock().unwrap().values().map(Vec::len).sum();
        memory.room.store(used.max(room), Ordering::SeqCst);
        for n in 10..20 {
            if let CommitOutcome::Durable { .. } = append(&journal, vec![publish(n)]) {
                kept.push(n);
            }
        }
        assert!(kept.len() < 10, "some are refused");
        assert!(telemetry.render().contains("nearside_journal_failing{} 1.0"));
        // It is tried again while there is still no room.
        std::thread::sleep(std::time::Duration::from_millis(1_100));
        assert_eq!(append(&journal, vec![publish(20)]), CommitOutcome::Failed);
        assert!(!journal_barrier(&journal));
        memory.room.store(usize::MAX, Ordering::SeqCst);
        append_at_last(&journal, 21);
        kept.push(21);
        assert!(telemetry.render().contains("nearside_journal_failing{} 0.0"));
        append(&journal, vec![publish(22)]);
        kept.push(22);
        holds_exactly(&memory, &kept);
        journal.close();
        append(&open(&memory, small()), vec![publish(23)]);
        assert_eq!(records(&memory).len(), kept.len() + 1);
    }
}

/// Whether everything queued is on disk.
fn journal_barrier(journal: &Journal) -> bool {
    matches!(append(journal, Vec::new()), CommitOutcome::Durable { .. })
}

#[test]
fn quota_sheds_the_oldest_or_refuses() {
    let big: Vec<Record> = (0..200).map(publish).collect();
    for when_full in [WhenFull::ShedOldest, WhenFull::Refuse] {
        let memory = Memory::default();
        let telemetry = Telemetry::new();
        let config = JournalConfig { quota: ByteSize::kib(128), when_full, ..small() };
        let keys = Arc::new(FixedKeys);
        let (journal, _) = Journal::open_in(Arc::new(memory.clone()), config, keys, &telemetry).unwrap();
        let outcomes: Vec<_> = (0..40).map(|_| append(&journal, big.clone())).collect();
        let refused = outcomes.contains(&CommitOutcome::QuotaExceeded);
        assert_eq!(refused, when_full == WhenFull::Refuse);
        assert_eq!(telemetry.total(Metric::JournalShed) > 0, when_full == WhenFull::ShedOldest);
        let size: usize = memory.files.lock().unwrap().values().map(Vec::len).sum();
        assert!(size < 160 * 1024, "{size}");
    }
}

#[test]
fn covered_segments_are_freed_and_no_others() {
    let memory = Memory::default();
    let journal = open(&memory, small());
    for n in 0..20 {
        append(&journal, (0..200).map(|k| publish(n * 200 + k)).collect());
    }
    let before = records(&memory);
    journal.handle().free_before(Lsn(2_500));
    append(&journal, vec![publish(0)]);
    let after = records(&memory);
    assert!(after.len() < before.len());
    assert!(after[0].0 <= Lsn(2_500), "what is not covered stays");
}

#[test]
fn the_first_version_of_the_format_is_read_for_ever() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1");
    let storage = nearside_journal::DirectoryStorage::open(folder.as_ref(), false).unwrap();
    let report = check(Arc::new(storage), Arc::new(FixedKeys)).unwrap();
    assert_eq!((report.records, report.damage.len()), (3, 0));
}

/// Writes the fixture anew; run by hand when a new version of the format is born.
#[test]
#[ignore = "writes the fixture of the current format; run by hand for a new version only"]
fn write_fixture() {
    let folder = std::env::var("FIXTURE_FOLDER").unwrap();
    let (journal, _) = Journal::open(folder.as_ref(), small(), Arc::new(FixedKeys), &Telemetry::new(), Lsn(0)).unwrap();
    append(&journal, (0..3).map(publish).collect());
    journal.close();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// I1: whatever is cut off or flipped, what is read is what was committed, in order; nothing is invented; a cut at the
    /// end of the last segment loses only what came after the cut.
    #[test]
    fn damage_never_invents_or_reorders(
        batches in prop::collection::vec(1usize..8, 1..12),
        reopen_every in 1usize..6,
        cut in any::<prop::sample::Index>(),
        flip in prop::option::of((any::<prop::sample::Index>(), 0u8..8)),
    ) {
        let memory = Memory::default();
        let mut committed = Vec::new();
        let mut journal = open(&memory, small());
        for (round, size) in batches.iter().enumerate() {
            if round > 0 && round % reopen_every == 0 {
                journal.close();
                journal = open(&memory, small());
            }
            let batch: Vec<Record> = (0..*size).map(|k| publish((committed.len() + k) as u64)).collect();
            let outcome = append(&journal, batch.clone());
            let CommitOutcome::Durable { first } = outcome else { panic!("{outcome:?}") };
            committed.extend(batch.into_iter().enumerate().map(|(k, record)| (Lsn(first.0 + k as u64), record)));
        }
        journal.close();
        prop_assert_eq!(&records(&memory), &committed);

        // Damage: cut the last segment, perhaps flip a bit anywhere.
        let last = memory.list().unwrap().pop().unwrap();
        let mut flipped = false;
        {
            let mut files = memory.files.lock().unwrap();
            let bytes = files.get_mut(&last).unwrap();
            let at = cut.index(bytes.len() + 1);
            bytes.truncate(at);
            if let Some((place, bit)) = flip {
                let name = files.keys().next().unwrap().clone();
                let bytes = files.get_mut(&name).unwrap();
                if !bytes.is_empty() {
                    let at = place.index(bytes.len());
                    bytes[at] ^= 1 << bit;
                    flipped = true;
                }
            }
        }
        let after = records(&memory);
        let mut remaining = committed.iter();
        for found in &after {
            prop_assert!(remaining.any(|record| record == found), "invented or out of order: {:?}", found.0);
        }
        let report = check(Arc::new(memory.clone()), Arc::new(FixedKeys)).unwrap();
        if after.len() < committed.len() && flipped && memory.list().unwrap().len() > 1 {
            prop_assert!(!report.damage.is_empty() || report.records as usize == after.len());
        }

        // Reopening goes on with numbers above all that can be read, in a new segment.
        let journal = open(&memory, small());
        let CommitOutcome::Durable { first } = append(&journal, vec![publish(0)]) else { panic!() };
        prop_assert!(after.iter().all(|(lsn, _)| *lsn < first));
        journal.close();
        prop_assert_eq!(records(&memory).len(), after.len() + 1);
    }

    /// A flipped bit inside a frame of a middle segment is reported as damage.
    #[test]
    fn a_flipped_bit_is_never_silent(place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let memory = Memory::default();
        for n in 0..3 {
            let journal = open(&memory, small());
            append(&journal, vec![publish(n)]);
            journal.close();
        }
        let name = memory.list().unwrap()[1].clone();
        {
            let mut files = memory.files.lock().unwrap();
            let bytes = files.get_mut(&name).unwrap();
            let at = place.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        let report = check(Arc::new(memory.clone()), Arc::new(FixedKeys)).unwrap();
        prop_assert_eq!(report.records, 2);
        let kinds: Vec<DamageKind> = report.damage.iter().map(|damage| damage.kind).collect();
        prop_assert!(!kinds.is_empty());
        prop_assert!(report.damage.iter().any(|damage| damage.segment == name));
    }
}

#[test]
fn a_journal_that_was_opened_and_left_alone_has_no_gaps() {
    let memory = Memory::default();
    for n in 0..3 {
        open(&memory, small()).close();
        let journal = open(&memory, small());
        assert!(matches!(append(&journal, vec![publish(n)]), CommitOutcome::Durable { .. }));
        journal.close();
    }
    let report = check(Arc::new(memory.clone()), Arc::new(FixedKeys)).unwrap();
    assert_eq!((report.records, report.damage), (3, Vec::new()));
    // A segment that is gone is a gap, even if the next one is empty.
    let second = memory.files.lock().unwrap().keys().nth(3).cloned().unwrap();
    memory.files.lock().unwrap().remove(&second);
    let report = check(Arc::new(memory), Arc::new(FixedKeys)).unwrap();
    assert_eq!((report.records, report.damage[0].kind, report.damage.len()), (2, DamageKind::Gap, 1));
}

#[test]
fn zeros_after_a_crash_read_as_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let config = || JournalConfig { segment: ByteSize::mib(4), ..JournalConfig::default() };
    let open = || Journal::open(folder.path(), config(), Arc::new(FixedKeys), &Telemetry::new(), Lsn(0)).unwrap();
    let sizes = || -> Vec<u64> {
        let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|path| std::fs::metadata(path).unwrap().len()).collect()
    };
    let (journal, _) = open();
    assert!(matches!(append(&journal, vec![publish(1)]), CommitOutcome::Durable { .. }));
    let crashed = sizes()[0];
    assert!(crashed >= 1 << 20, "room was made ahead: {crashed}");
    let first = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let as_crashed = std::fs::read(&first).unwrap();
    journal.close();
    assert!(sizes()[0] < 1_000, "what was left over is cut: {:?}", sizes());
    std::fs::write(&first, as_crashed).unwrap();
    let (journal, report) = open();
    assert_eq!((report.records, report.damage, report.next), (1, Vec::new(), Lsn(1)));
    journal.close();
}
