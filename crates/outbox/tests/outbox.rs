//! The outbox against a model: puts, revisions, acknowledgements and reopening in any order.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::Arc;

use nearside_outbox::{Outbox, OutboxConfig};
use nearside_privacy::{KeyRing, Sealed, SealedItem, seal_finding, seal_rollup};
use nearside_schemas::codec::{CodecSpec, Format};
use nearside_schemas::{
    ByteSize, FieldName, Finding, ManualClock, ModelName, ModelRef, RollUp, RollUpId, SecretKey, Severity, SiteId,
    StreamId, StreamName, StreamSpec, Timestamp, TopicTemplate, WindowDefinition, WindowId,
};
use nearside_telemetry::{Metric, Telemetry};
use proptest::prelude::*;

fn keys() -> Arc<KeyRing> {
    Arc::new(KeyRing::from_master(SecretKey::new([3; 32])))
}

fn site() -> SiteId {
    SiteId::new("s").unwrap()
}

/// A roll-up, the least urgent class.
fn rollup(n: i64, revision: u32) -> SealedItem {
    let rollup = RollUp {
        site: site(),
        id: RollUpId { group: "g".into(), field: FieldName::new("f").unwrap(), start: Timestamp::from_secs(n) },
        revision,
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
fn alert(n: i64) -> SealedItem {
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
        severity: Severity::Warning,
        since: Timestamp::from_secs(n),
        at: Timestamp::from_secs(n),
        rows: 1,
        score: 1.0,
        threshold: 0.5,
        contributions: vec![],
        text: "x".repeat(200),
    };
    seal_finding(&finding, &spec, &site(), &keys()).map(Sealed::into_item).unwrap()
}

fn open(path: &std::path::Path, telemetry: &Telemetry) -> Outbox {
    let config = OutboxConfig { quota: ByteSize::mib(1), queue: 64 };
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1)));
    Outbox::open(&path.join("outbox.redb"), &config, keys(), clock, telemetry).unwrap()
}

fn waiting(outbox: &Outbox) -> Vec<String> {
    let entries = outbox.handle().batch(10_000, usize::MAX, &|_| false).unwrap();
    entries.iter().map(|entry| entry.item.id()).collect()
}

#[derive(Debug, Clone)]
enum Action {
    PutRollUp(i64, u32),
    PutAlert(i64),
    Acknowledge(usize),
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0..6i64, 0..4u32).prop_map(|(n, revision)| Action::PutRollUp(n, revision)),
        2 => (0..6i64).prop_map(Action::PutAlert),
        2 => (0..5usize).prop_map(Action::Acknowledge),
        1 => Just(Action::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// I1: what was put and not acknowledged is there, once, with its highest revision, in the order of class and put.
    #[test]
    fn it_agrees_with_a_map(actions in prop::collection::vec(action(), 1..25)) {
        let folder = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut outbox = open(folder.path(), &telemetry);
        // (class, order) → (subject, revision, id)
        let mut model: BTreeMap<(u8, u64), (String, u32, String)> = BTreeMap::new();
        let mut order = 0;
        for action in actions {
            match action {
                Action::PutRollUp(..) | Action::PutAlert(_) => {
                    let item = match action {
                        Action::PutRollUp(n, revision) => rollup(n, revision),
                        Action::PutAlert(n) => alert(n),
                        _ => unreachable!(),
                    };
                    prop_assert!(runtime.block_on(outbox.handle().put(item.clone())));
                    let known = model.iter().find(|(_, value)| value.0 == item.subject()).map(|(k, v)| (*k, v.1));
                    if known.is_none_or(|(_, revision)| revision < item.revision()) {
                        if let Some((key, _)) = known {
                            model.remove(&key);
                        }
                        let value = (item.subject().to_owned(), item.revision(), item.id());
                        model.insert((item.class() as u8, order), value);
                        order += 1;
                    }
                }
                Action::Acknowledge(nth) => {
                    let entries = outbox.handle().batch(10_000, usize::MAX, &|_| false).unwrap();
                    if let Some(entry) = entries.get(nth) {
                        runtime.block_on(outbox.handle().acknowledge(vec![entry.sequence]));
                        let key = *model.iter().find(|(_, value)| value.2 == entry.item.id()).unwrap().0;
                        model.remove(&key);
                    }
                }
                Action::Reopen => {
                    outbox.close();
                    outbox = open(folder.path(), &telemetry);
                }
            }
            let expected: Vec<String> = model.values().map(|value| value.2.clone()).collect();
            prop_assert_eq!(waiting(&outbox), expected);
        }
    }
}

#[test]
fn past_the_quota_the_least_urgent_and_oldest_goes_first_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::new();
    let outbox = open(folder.path(), &telemetry);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(outbox.handle().put(alert(0)));
    for n in 0..2_500 {
        outbox.handle().put_blocking(rollup(n, 0));
    }
    runtime.block_on(outbox.handle().put(alert(1)));
    let ids = waiting(&outbox);
    assert_eq!(ids.iter().filter(|id| id.contains("spike")).count(), 2, "alerts stay");
    assert!(telemetry.total(Metric::OutboxShed) > 0);
    assert_eq!(ids.len() as u64 + telemetry.total(Metric::OutboxShed), 2_502, "each is there or counted (I4)");
    assert!(ids.last().unwrap().contains("2499"), "the newest stays");
}
