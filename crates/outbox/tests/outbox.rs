//! The outbox against a model: puts, revisions, acknowledgements and reopening in any order.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::{BTreeMap, HashMap};

use common::{alert, block_on, open, rollup, waiting};
use nearside_telemetry::{Metric, Telemetry};
use proptest::prelude::*;

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
        let mut outbox = open(folder.path(), &telemetry);
        // (class, order) → (subject, revision, id)
        let mut model: BTreeMap<(u8, u64), (String, u32, String)> = BTreeMap::new();
        let mut order = 0;
        // What the cloud has: subject → revision.
        let mut sent: HashMap<String, u32> = HashMap::new();
        for action in actions {
            match action {
                Action::PutRollUp(..) | Action::PutAlert(_) => {
                    let item = match action {
                        Action::PutRollUp(n, revision) => rollup(n, revision),
                        Action::PutAlert(n) => alert(n),
                        _ => unreachable!(),
                    };
                    prop_assert!(block_on(outbox.handle().put(item.clone())));
                    if sent.get(item.subject()).is_some_and(|revision| *revision >= item.revision()) {
                        prop_assert_eq!(waiting(&outbox), model.values().map(|v| v.2.clone()).collect::<Vec<_>>());
                        continue;
                    }
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
                        block_on(outbox.handle().acknowledge(vec![entry.sequence]));
                        let key = *model.iter().find(|(_, value)| value.2 == entry.item.id()).unwrap().0;
                        model.remove(&key);
                        sent.insert(entry.item.subject().to_owned(), entry.item.revision());
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
    block_on(outbox.handle().put(alert(0)));
    for n in 0..2_500 {
        outbox.handle().put_blocking(rollup(n, 0));
    }
    block_on(outbox.handle().put(alert(1)));
    let ids = waiting(&outbox);
    assert_eq!(ids.iter().filter(|id| id.contains("spike")).count(), 2, "alerts stay");
    assert!(telemetry.total(Metric::OutboxShed) > 0);
    assert_eq!(ids.len() as u64 + telemetry.total(Metric::OutboxShed), 2_502, "each is there or counted (I4)");
    assert!(ids.last().unwrap().contains("2499"), "the newest stays");
}
