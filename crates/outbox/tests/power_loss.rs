//! Power losses at any moment, with any part of what was not synced: nothing that was answered is missing, nothing appears from nowhere.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use common::disk::Disk;
use common::{alert, block_on, config, keys, rollup};
use nearside_outbox::{Outbox, Sequence};
use nearside_privacy::SealedItem;
use nearside_schemas::{ManualClock, Timestamp};
use nearside_telemetry::Telemetry;
use proptest::prelude::*;

fn open(disk: &Disk) -> Outbox {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1)));
    let medium = Arc::new(disk.clone());
    Outbox::open_on(medium, Path::new("a disk in memory"), &config(), keys(), clock, &Telemetry::new()).unwrap()
}

/// What is known of one subject.
#[derive(Clone, Default, Debug)]
struct Known {
    /// The highest revision that was answered as put.
    put: Option<u32>,
    /// The highest that may be there though nobody was told so.
    maybe: Option<u32>,
    /// The highest that was acknowledged and whose removal was answered.
    gone: Option<u32>,
    /// The highest whose removal may have happened.
    maybe_gone: Option<u32>,
}

#[derive(Debug, Clone)]
enum Action {
    PutAlert(i64),
    PutRollUp(i64, u32),
    Acknowledge(usize),
    /// After so many more operations of the disk; what is done in the meantime is not answered any more from then on.
    CutAfter(u64),
    LosePower(u64),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0..5i64).prop_map(Action::PutAlert),
        6 => (0..8i64, 0..4u32).prop_map(|(n, revision)| Action::PutRollUp(n, revision)),
        4 => (0..6usize).prop_map(Action::Acknowledge),
        2 => (0..40u64).prop_map(Action::CutAfter),
        2 => any::<u64>().prop_map(Action::LosePower),
    ]
}

struct Run {
    disk: Disk,
    outbox: Outbox,
    known: BTreeMap<String, Known>,
}

impl Run {
    fn new() -> Self {
        let disk = Disk::new();
        let outbox = open(&disk);
        Self { disk, outbox, known: BTreeMap::new() }
    }

    fn put(&mut self, item: &SealedItem) {
        let known = self.known.entry(item.subject().to_owned()).or_default();
        let revision = Some(item.revision());
        if block_on(self.outbox.handle().put(item.clone())) {
            known.put = known.put.max(revision);
        }
        known.maybe = known.maybe.max(revision);
    }

    fn acknowledge(&mut self, nth: usize) {
        let handle = self.outbox.handle();
        // After a failed write nothing is handed out.
        let Ok(entries) = handle.batch(1_000, usize::MAX, &|_| false) else { return };
        let Some(entry) = entries.get(nth) else { return };
        let known = self.known.get_mut(entry.item.subject()).unwrap();
        let revision = Some(entry.item.revision());
        block_on(handle.acknowledge(vec![entry.sequence]));
        if block_on(handle.flush()) {
            known.gone = known.gone.max(revision);
        }
        known.maybe_gone = known.maybe_gone.max(revision);
    }

    fn lose_power(&mut self, seed: u64) {
        self.disk.lose_power(seed);
        let dead = std::mem::replace(&mut self.outbox, open(&self.disk));
        dead.close();
        self.check();
        // What there is is now known for certain.
        let there: BTreeMap<String, u32> =
            self.entries().into_iter().map(|(_, item)| (item.subject().to_owned(), item.revision())).collect();
        for (subject, known) in &mut self.known {
            let found = there.get(subject).copied();
            known.put = known.put.max(found);
            known.maybe = known.put;
            if found.is_none() {
                known.gone = known.gone.max(known.put);
            }
            known.maybe_gone = known.gone;
        }
    }

    fn entries(&self) -> Vec<(Sequence, SealedItem)> {
        let entries = self.outbox.handle().batch(1_000, usize::MAX, &|_| false).unwrap();
        entries.into_iter().map(|entry| (entry.sequence, entry.item)).collect()
    }

    fn check(&self) {
        let entries = self.entries();
        let order: Vec<Sequence> = entries.iter().map(|(sequence, _)| *sequence).collect();
        assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "by class and number: {order:?}");
        let mut seen = BTreeSet::new();
        for (_, item) in &entries {
            assert!(seen.insert(item.subject()), "{} is there twice", item.subject());
            let known = &self.known[item.subject()];
            let revision = Some(item.revision());
            assert!(revision <= known.maybe, "{item:?} was never put: {known:?}");
            assert!(revision >= known.put, "{item:?} is older than what was answered: {known:?}");
            assert!(revision > known.gone, "{item:?} was acknowledged: {known:?}");
        }
        for (subject, known) in &self.known {
            let may_be_missing = known.put <= known.maybe_gone || known.put.is_none();
            assert!(may_be_missing || seen.contains(subject.as_str()), "{subject} is lost: {known:?}");
        }
    }
}

fn cases(default: u32) -> u32 {
    std::env::var("NEARSIDE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(cases(40)) })]

    /// I1, at a disk that keeps any part of what was not synced.
    #[test]
    fn nothing_answered_is_lost(actions in prop::collection::vec(action(), 1..40), seed in any::<u64>()) {
        let mut run = Run::new();
        for action in actions {
            match action {
                Action::PutAlert(n) => run.put(&alert(n)),
                Action::PutRollUp(n, revision) => run.put(&rollup(n, revision)),
                Action::Acknowledge(nth) => run.acknowledge(nth),
                Action::CutAfter(operations) => run.disk.cut_after(operations),
                Action::LosePower(seed) => run.lose_power(seed),
            }
        }
        run.lose_power(seed);
    }
}
