//! Disks that fill up and fail, files that are damaged, newer or in use: said, set aside, and the rest goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::disk::Disk;
use common::{alert, block_on, config, keys, open, rollup, waiting};
use nearside_outbox::{DeadReason, Inspector, Outbox, OutboxConfig, OutboxError, Trouble, repair};
use nearside_privacy::{KeyRing, SealedItem};
use nearside_schemas::{ByteSize, ManualClock, SecretKey, Timestamp};
use nearside_telemetry::{Metric, Telemetry};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

const ITEMS: TableDefinition<'_, (u8, u64), (i64, &[u8])> = TableDefinition::new("items-v1");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta-v1");

fn open_on(disk: &Disk, config: &OutboxConfig, telemetry: &Telemetry) -> Outbox {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1)));
    Outbox::open_on(Arc::new(disk.clone()), Path::new("a disk in memory"), config, keys(), clock, telemetry).unwrap()
}

fn put(outbox: &Outbox, item: SealedItem) -> bool {
    block_on(outbox.handle().put(item))
}

#[test]
fn a_full_disk_spends_the_reserve_then_sheds_and_alerts_always_fit() {
    let (disk, telemetry) = (Disk::new(), Telemetry::new());
    let config = OutboxConfig { quota: ByteSize::mib(64), ..config() };
    let outbox = open_on(&disk, &config, &telemetry);
    assert!(put(&outbox, alert(0)));
    disk.limit(1 << 20, 512 << 10);
    // Twice of what fits: the reserve goes, then the oldest roll-ups; nothing is answered no.
    let mut n = 0;
    while telemetry.total(Metric::OutboxShed) == 0 {
        for _ in 0..200 {
            outbox.handle().put_blocking(rollup(n, 0));
            n += 1;
        }
        assert!(block_on(outbox.handle().flush()), "a full disk costs the least urgent, not an answer");
        assert!(n < 100_000, "the disk never fills");
    }
    for alerts in 1..50 {
        assert!(put(&outbox, alert(alerts)));
    }
    let ids = waiting(&outbox);
    assert_eq!(ids.iter().filter(|id| id.contains("spike")).count(), 50, "alerts fit");
    assert_eq!(ids.len() as u64 + telemetry.total(Metric::OutboxShed), 50 + n as u64, "each is there or counted (I4)");
    assert!(ids.last().unwrap().contains(&format!("{}", (n - 1) * 1_000_000)), "the newest stays");
    assert_eq!(outbox.handle().trouble(), None);
}

#[test]
fn a_failed_sync_is_not_tried_again_and_every_later_answer_is_no() {
    let (disk, telemetry) = (Disk::new(), Telemetry::new());
    let outbox = open_on(&disk, &config(), &telemetry);
    assert!(put(&outbox, rollup(0, 0)));
    disk.fail_next_sync();
    assert!(!put(&outbox, rollup(1, 0)));
    assert_eq!(outbox.handle().trouble(), Some(Trouble::Poisoned));
    assert!(!put(&outbox, rollup(2, 0)), "though the disk would say yes now");
    assert!(!block_on(outbox.handle().flush()));
    assert!(!outbox.handle().put_blocking(rollup(3, 0)));
    assert_eq!(telemetry.total(Metric::OutboxErrors), 1, "one failure, no second try");
    assert_eq!(telemetry.total(Metric::OutboxRefused), 2);
    outbox.close();
    disk.lose_power(7);
    let outbox = open_on(&disk, &config(), &Telemetry::new());
    assert!(waiting(&outbox)[0].contains(":0:"), "what was answered yes is there");
    assert!(put(&outbox, rollup(2, 0)));
}

#[test]
fn what_the_cloud_refuses_is_kept_with_the_reason_and_can_be_put_back() {
    let (folder, telemetry) = (tempfile::tempdir().unwrap(), Telemetry::new());
    let outbox = open(folder.path(), &telemetry);
    for n in 0..3 {
        put(&outbox, rollup(n, 0));
    }
    let entries = outbox.handle().batch(10, usize::MAX, &|_| false).unwrap();
    block_on(outbox.handle().reject(entries[1].sequence, DeadReason::Refused, "payload_format_invalid".to_owned()));
    block_on(outbox.handle().flush());
    assert_eq!(waiting(&outbox).len(), 2);
    assert_eq!((outbox.handle().stats().dead, telemetry.total(Metric::OutboxDead)), (1, 1));
    let refused = entries[1].item.id();
    outbox.close();

    let path = folder.path().join("outbox.redb");
    let inspector = Inspector::open(&path, &config(), keys()).unwrap();
    let letters = inspector.dead_letters().unwrap();
    assert_eq!((letters[0].id.as_deref(), letters[0].reason), (Some(refused.as_str()), DeadReason::Refused));
    assert_eq!(letters[0].detail, "payload_format_invalid");
    let done = inspector.requeue(Some(&[letters[0].number, 99])).unwrap();
    assert_eq!((done.requeued, done.unknown), (1, 1));
    drop(inspector);
    let outbox = open(folder.path(), &Telemetry::new());
    assert_eq!(waiting(&outbox).last(), Some(&refused), "at the end of its class");
    assert_eq!(outbox.handle().stats().dead, 0);
}

#[test]
fn dead_letters_are_bounded_and_what_goes_is_counted() {
    let (disk, telemetry) = (Disk::new(), Telemetry::new());
    let config = OutboxConfig { dead_quota: ByteSize(2_000), ..config() };
    let outbox = open_on(&disk, &config, &telemetry);
    for n in 0..20 {
        put(&outbox, rollup(n, 0));
    }
    for entry in outbox.handle().batch(20, usize::MAX, &|_| false).unwrap() {
        block_on(outbox.handle().reject(entry.sequence, DeadReason::TooLarge, String::new()));
    }
    block_on(outbox.handle().flush());
    let stats = outbox.handle().stats();
    assert!(stats.dead > 0 && stats.dead_bytes <= 2_000, "{stats:?}");
    assert_eq!(stats.dead + telemetry.total(Metric::OutboxDeadShed), 20);
}

#[test]
fn a_damaged_item_is_set_aside_and_blocks_nobody() {
    let (folder, telemetry) = (tempfile::tempdir().unwrap(), Telemetry::new());
    let outbox = open(folder.path(), &telemetry);
    for n in 0..3 {
        put(&outbox, rollup(n, 0));
    }
    outbox.close();
    let path = folder.path().join("outbox.redb");
    let database = Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut items = write.open_table(ITEMS).unwrap();
        let (key, mut stored) = {
            let first = items.first().unwrap().unwrap();
            (first.0.value(), first.1.value().1.to_vec())
        };
        let middle = stored.len() / 2;
        stored[middle] ^= 1;
        items.insert(key, (5, stored.as_slice())).unwrap();
    }
    write.commit().unwrap();
    drop(database);

    let inspector = Inspector::open(&path, &config(), keys()).unwrap();
    assert_eq!(inspector.check().unwrap().damaged, [0]);
    drop(inspector);
    let outbox = open(folder.path(), &telemetry);
    assert_eq!(waiting(&outbox).len(), 2);
    block_on(outbox.handle().flush());
    assert_eq!(outbox.handle().stats().dead, 1);
    assert!(put(&outbox, rollup(0, 0)), "what it was can be put again");
    assert_eq!(waiting(&outbox).len(), 3);
    outbox.close();
    let inspector = Inspector::open(&path, &config(), keys()).unwrap();
    assert_eq!(inspector.requeue(None).unwrap().damaged, 1, "a damaged letter is not put back");
}

/// Flipped bytes in every region of the file: it opens with all that is whole, or says that it is damaged and is repaired to that.
#[test]
fn a_damaged_file_says_so_and_every_whole_item_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = open(folder.path(), &Telemetry::new());
    for n in 0..200 {
        outbox.handle().put_blocking(rollup(n, 0));
    }
    put(&outbox, alert(0));
    outbox.close();
    let path = folder.path().join("outbox.redb");
    let image = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for part in 0..48 {
        let at = image.len() / 48 * part + 100;
        let mut damaged = image.clone();
        damaged[at..at + 16].iter_mut().for_each(|byte| *byte ^= 0x5A);
        std::fs::write(&path, &damaged).unwrap();
        match Inspector::open(&path, &config(), keys()) {
            Ok(inspector) => {
                // Nothing that is in use was hit, or the items that were are known.
                let report = inspector.check().unwrap();
                assert_eq!(report.waiting.iter().sum::<u64>(), 201);
                assert!(report.damaged.len() <= 1, "{report:?}");
            }
            Err(OutboxError::Damaged { .. }) => {
                refused += 1;
                let saved = repair(&path, &config(), &keys()).unwrap().unwrap();
                // 16 bytes hit two items at most.
                assert!(saved.waiting >= 199, "{saved:?}");
                assert!(saved.set_aside.exists());
                let outbox = open(folder.path(), &Telemetry::new());
                assert_eq!(waiting(&outbox).len() as u64, saved.waiting);
                outbox.close();
                std::fs::remove_file(saved.set_aside).unwrap();
            }
            Err(other) => panic!("{other}"),
        }
        std::fs::remove_file(&path).unwrap();
    }
    assert!(refused > 0, "no part of the file was in use");
}

#[test]
fn a_repair_keeps_what_another_site_sealed_out_and_leaves_a_sound_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = open(folder.path(), &Telemetry::new());
    put(&outbox, rollup(0, 0));
    outbox.close();
    let path = folder.path().join("outbox.redb");
    assert_eq!(repair(&path, &config(), &keys()).unwrap(), None);
    std::fs::write(&path, [b"no database ".to_vec(), rollup(1, 0).store(&keys()).unwrap()].concat()).unwrap();
    let other = Arc::new(KeyRing::from_master(SecretKey::new([9; 32])));
    assert_eq!(repair(&path, &config(), &other).unwrap().unwrap().found, 0);
}

#[test]
fn a_newer_file_one_in_use_and_one_that_is_not_there_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    let inspect = || Inspector::open(&path, &config(), keys()).map(drop).unwrap_err().to_string();
    assert!(inspect().contains("there is no outbox"), "{}", inspect());
    let outbox = open(folder.path(), &Telemetry::new());
    assert!(inspect().contains("stop it first"), "{}", inspect());
    outbox.close();
    let database = Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(META).unwrap().insert("format", 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let before = std::fs::read(&path).unwrap();
    assert!(inspect().contains("format 2") && inspect().contains("up to 1"), "{}", inspect());
    assert!(repair(&path, &config(), &keys()).is_err(), "a newer file is no damage");
    let after = Database::open(&path).unwrap();
    let format = after.begin_read().unwrap().open_table(META).unwrap().get("format").unwrap().unwrap().value();
    assert_eq!((format, before.is_empty()), (2, false), "it is left as it was");
}

/// What the present version wrote is read for ever. Made by `NEARSIDE_WRITE_FIXTURES=1 cargo test -p nearside-outbox`.
#[test]
fn the_file_of_format_1_is_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/outbox-1.redb");
    let folder = tempfile::tempdir().unwrap();
    if std::env::var_os("NEARSIDE_WRITE_FIXTURES").is_some() {
        let outbox = open(folder.path(), &Telemetry::new());
        for item in [rollup(0, 0), rollup(1, 2), alert(0), rollup(2, 0), rollup(3, 0)] {
            put(&outbox, item);
        }
        let entries = outbox.handle().batch(10, usize::MAX, &|_| false).unwrap();
        block_on(outbox.handle().acknowledge(vec![entries[1].sequence]));
        block_on(outbox.handle().reject(entries[3].sequence, DeadReason::Refused, "quota".to_owned()));
        block_on(outbox.handle().flush());
        outbox.close();
        std::fs::copy(folder.path().join("outbox.redb"), &fixture).unwrap();
    }
    std::fs::copy(&fixture, folder.path().join("outbox.redb")).unwrap();
    let outbox = open(folder.path(), &Telemetry::new());
    let expected = [alert(0).id(), rollup(1, 2).id(), rollup(3, 0).id()];
    assert_eq!(waiting(&outbox), expected);
    let handle = outbox.handle();
    // The bytes of that time; an event's members may come in another order today.
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let kept = handle.batch(1, usize::MAX, &|_| false).unwrap();
    let mut today = json(alert(0).bytes());
    // Since then an alert says whose it is.
    today["data"].as_object_mut().unwrap().remove("key");
    assert_eq!(json(kept[0].item.bytes()), today);
    assert!(put(&outbox, rollup(0, 0)), "the cloud has it");
    assert_eq!(waiting(&outbox), expected, "so it does not wait again");
    assert_eq!(handle.stats().dead, 1);
}
