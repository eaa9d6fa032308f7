//! Power fails at any operation of the disk: what was not synced is gone, or is there in part, or is zeros. Whatever was answered
//! `Durable` is read back, in order, life after life.
//!
//! `NEARSIDE_POWER_LOSSES=10000` loses power more often than the default.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod disk;

use std::sync::{Arc, mpsc};

use disk::{Disk, Random};
use nearside_journal::{CommitOutcome, Item, Journal, JournalConfig, Record, read};
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
    disk.power_on(60);
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
