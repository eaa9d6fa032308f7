//! Flipped bytes in every region of a segment, then a repair: what can be read keeps its number, what cannot is marked, the damaged file
//! stays, and nothing is written while a gateway runs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::{Arc, mpsc};

use nearside_journal::{
    CommitOutcome, DamageKind, DirectoryStorage, Item, Journal, JournalConfig, JournalError, Lsn, OpenReport, Record,
    Repair, check, read,
};
use nearside_schemas::{HumanDuration, KeyPurpose, KeySource, SecretKey, Timestamp};
use nearside_telemetry::Telemetry;

struct FixedKeys;

impl KeySource for FixedKeys {
    fn derive(&self, _: KeyPurpose, context: &[u8]) -> SecretKey {
        let mut key = [7; 32];
        key.iter_mut().zip(context).for_each(|(byte, context)| *byte ^= context);
        SecretKey::new(key)
    }
}

fn open(folder: &Path) -> Result<(Journal, OpenReport), JournalError> {
    let config = JournalConfig { commit_interval: HumanDuration::millis(0), ..JournalConfig::default() };
    Journal::open(folder, config, Arc::new(FixedKeys), &Telemetry::new(), Lsn(0))
}

fn append(journal: &Journal, ticks: std::ops::Range<i64>) {
    let (done, outcome) = mpsc::channel();
    let records = ticks.map(|n| Record::Tick(Timestamp::from_micros(n))).collect();
    journal.handle().append_blocking(records, Box::new(move |outcome, _| done.send(outcome).unwrap()));
    assert!(matches!(outcome.recv().unwrap(), CommitOutcome::Durable { .. }));
}

/// Three segments of three frames of five records each.
fn written(folder: &Path) -> Vec<String> {
    for segment in 0..3 {
        let (journal, _) = open(folder).unwrap();
        for frame in 0..3 {
            let first = segment * 15 + frame * 5;
            append(&journal, first..first + 5);
        }
        journal.close();
    }
    names(folder)
}

fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".nsj")).collect();
    names.sort();
    names
}

fn storage(folder: &Path) -> Arc<DirectoryStorage> {
    Arc::new(DirectoryStorage::open(folder, false).unwrap())
}

fn ticks(folder: &Path) -> Vec<(Lsn, i64)> {
    let tick = |item| match item {
        Item::Record(lsn, Record::Tick(at)) => Some((lsn, at.as_micros())),
        _ => None,
    };
    read(storage(folder), Arc::new(FixedKeys)).unwrap().filter_map(tick).collect()
}

/// Where the frames of a segment begin, and its end.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let begin = |at: &usize| bytes[*at..].starts_with(b"NSFR");
    (0..bytes.len()).filter(begin).chain([bytes.len()]).collect()
}

#[test]
fn damage_in_every_region_is_repaired_as_far_as_it_can_be() {
    let template = tempfile::tempdir().unwrap();
    let names = written(template.path());
    assert_eq!(names.len(), 3);
    let before = ticks(template.path());
    assert_eq!(before.len(), 45);
    for segment in 0..3 {
        let whole = std::fs::read(template.path().join(&names[segment])).unwrap();
        let frames = frames(&whole);
        assert_eq!(frames.len(), 4);
        // Each region with the frames that are lost by it; the whole segment is where its id is.
        let head: [(usize, &[usize]); 4] = [(1, &[]), (9, &[0, 1, 2]), (22, &[]), (30, &[])];
        let mut regions: Vec<(usize, Vec<usize>)> = head.iter().map(|(at, lost)| (*at, lost.to_vec())).collect();
        for frame in 0..3 {
            // What a header says follows from its neighbours; behind the last frame of all there is none.
            let is_last = segment == 2 && frame == 2;
            let of_header = if is_last { vec![frame] } else { Vec::new() };
            // Mark, length, number, count, check sum.
            regions.extend([0, 5, 10, 17, 22].map(|at| (frames[frame] + at, of_header.clone())));
            // The sealed records, and the seal.
            regions.push((frames[frame] + 30, vec![frame]));
            regions.push((frames[frame + 1] - 3, vec![frame]));
        }
        for (at, lost) in regions {
            let folder = tempfile::tempdir().unwrap();
            for name in &names {
                std::fs::copy(template.path().join(name), folder.path().join(name)).unwrap();
            }
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(folder.path().join(&names[segment]), &damaged).unwrap();
            assert!(!check(storage(folder.path()), Arc::new(FixedKeys)).unwrap().damage.is_empty(), "{segment} {at}");

            let repair = Repair::open(folder.path(), Arc::new(FixedKeys)).unwrap();
            assert!(matches!(open(folder.path()), Err(JournalError::InUse(_))), "gateways are kept out");
            let found = repair.survey().unwrap();
            assert_eq!(
                std::fs::read(folder.path().join(&names[segment])).unwrap(),
                damaged,
                "a survey changes nothing"
            );
            assert_eq!(found.iter().map(|one| &one.name).collect::<Vec<_>>(), [&names[segment]], "byte {at}");
            assert_eq!(found[0].records(), 15 - 5 * lost.len() as u64, "byte {at} of segment {segment}");
            let kept = repair.mend(&found[0]).unwrap();
            assert_eq!(std::fs::read(kept).unwrap(), damaged, "the damaged file is kept");
            assert!(repair.survey().unwrap().is_empty(), "byte {at} of segment {segment}");
            drop(repair);

            let report = check(storage(folder.path()), Arc::new(FixedKeys)).unwrap();
            assert_eq!(report.damage, [], "byte {at} of segment {segment}");
            let is_lost = |n: i64| n / 15 == segment as i64 && lost.contains(&((n % 15 / 5) as usize));
            let expected: Vec<_> = before.iter().filter(|(_, n)| !is_lost(*n)).copied().collect();
            assert_eq!(ticks(folder.path()), expected, "every other record is there under its number");
            // No number is given again, least of all that of a lost record.
            let (journal, opened) = open(folder.path()).unwrap();
            assert!(opened.next > before[44].0, "{:?}", opened.next);
            append(&journal, 100..101);
            journal.close();
            assert_eq!(ticks(folder.path()).last().unwrap().1, 100);
            assert_eq!(check(storage(folder.path()), Arc::new(FixedKeys)).unwrap().damage, []);
        }
    }
}

#[test]
fn a_torn_tail_and_a_missing_segment_are_marked() {
    let folder = tempfile::tempdir().unwrap();
    let names = written(folder.path());
    let last = folder.path().join(&names[2]);
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..bytes.len() - 5]).unwrap();
    std::fs::remove_file(folder.path().join(&names[1])).unwrap();
    let repair = Repair::open(folder.path(), Arc::new(FixedKeys)).unwrap();
    let found = repair.survey().unwrap();
    let kinds: Vec<_> = found.iter().flat_map(|one| one.places.iter().map(|(_, kind)| *kind)).collect();
    assert_eq!(kinds, [DamageKind::Gap, DamageKind::TornTail]);
    for segment in &found {
        repair.mend(segment).unwrap();
    }
    // Of the missing segment every number was given; behind the last one nobody knows, and nothing is said to be lost that never was.
    let ranges = |at: usize| (found[at].vacant().collect::<Vec<_>>(), found[at].passed_over());
    let [second, third] = [1, 2].map(|at: usize| names[at].trim_end_matches(".nsj").parse::<u64>().unwrap());
    assert_eq!(ranges(0), (vec![(Lsn(second), Lsn(third - 1))], None));
    let (vacant, passed_over) = ranges(1);
    assert_eq!(vacant, []);
    assert!(passed_over.is_some_and(|(first, last)| first == Lsn(third + 10) && last > first), "{passed_over:?}");
    drop(repair);
    assert_eq!(check(storage(folder.path()), Arc::new(FixedKeys)).unwrap().damage, []);
    assert_eq!(ticks(folder.path()).len(), 15 + 10);
    let (journal, opened) = open(folder.path()).unwrap();
    assert!(opened.next.0 >= 45);
    // A repair must not run beside a gateway.
    let refused = Repair::open(folder.path(), Arc::new(FixedKeys));
    assert!(matches!(refused.map(drop), Err(JournalError::InUse(_))));
    journal.close();
}

#[test]
fn a_whole_journal_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let repair = Repair::open(folder.path(), Arc::new(FixedKeys)).unwrap();
    assert!(repair.survey().unwrap().is_empty());
}
