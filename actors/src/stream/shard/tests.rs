//! A shard and its streams on this thread, with faults where no fence inside a stream meets them.

use std::path::Path;

use nearside_deadletters::{DeadLetters, DeadLettersConfig};
use nearside_journal::DirectoryStorage;
use nearside_privacy::KeyRing;
use nearside_schemas::{KeyValues, SecretKey, StreamId};
use nearside_telemetry::{Gauge, Metric, Telemetry};
use parking_lot::Mutex;

use super::*;
use crate::board::Board;
use crate::credit::try_admit;
use crate::outlet::Downstream;
use crate::recall::Recall;
use crate::seal::SealMessage;
use crate::stage::{self, StageSender};
use crate::stream::component_tests::{reading, stream};
use crate::stream::{CollectStates, Draft, Judged, ShardBatch};

/// A fault where no fence is.
struct Die;

impl Message for Die {
    type Result = ();
}

impl Handler<Die> for StreamActor {
    type Result = ();

    fn handle(&mut self, _: Die, _: &mut Self::Context) {
        panic!("a fault");
    }
}

struct Bench {
    address: Addr<Shard>,
    state: Rc<ShardState>,
    stream: Arc<StreamRef>,
    credit: Arc<ShardCredit>,
    telemetry: Telemetry,
    seal: StageSender<SealMessage>,
    /// Rows of each window that closed.
    windows: Arc<Mutex<Vec<u64>>>,
    next: Lsn,
}

impl Bench {
    /// One stream with windows of ten seconds and a model that has a finding on values above 100.
    fn start(folder: &Path, is_poisoned: bool) -> Self {
        let telemetry = Telemetry::new();
        let keys = Arc::new(KeyRing::from_master(SecretKey::new([3; 32])));
        let letters = DeadLetters::open(folder, &DeadLettersConfig::default(), keys.clone(), &telemetry).unwrap();
        let storage = Arc::new(DirectoryStorage::open(&folder.join("journal"), false).unwrap());
        let windows = Arc::new(Mutex::new(Vec::new()));
        let kept = windows.clone();
        let (seal, _) = stage::start("seal", 100, &telemetry, move |message| {
            if let SealMessage::Summary { summary, .. } = message {
                kept.lock().push(summary.rows);
            }
        })
        .unwrap();
        let (rules, _) = stage::start("rules", 100, &telemetry, |_| {}).unwrap();
        let to = Downstream {
            seal: seal.clone(),
            rules,
            rules_want_summaries: false,
            rollup: None,
            board: Arc::new(Board::new(10)),
            keys: keys.clone(),
            recall: Recall::start(storage, keys, letters, &telemetry).unwrap(),
        };
        let plans = vec![stream(0, 5).plan().clone()];
        let mut outlet = Outlet::new(&plans, &telemetry, to);
        outlet.is_poisoned = is_poisoned;
        let credit = ShardCredit::new(100, 100, Gauge::default());
        let setup = ShardSetup {
            index: 0,
            plans,
            queues: InferenceQueues::default(),
            outlet: Arc::new(outlet),
            credit: credit.clone(),
            mailbox_bound: 300,
            retire_after: Duration::from_secs(600),
            checkpoint_after: Duration::from_secs(30),
            begins_at: Lsn(0),
        };
        let made = Cell::new(None);
        let address = Shard::create(|ctx| {
            let shard = Shard::new(setup, ctx);
            made.set(Some(shard.state.clone()));
            shard
        });
        let id = StreamId::from_bytes([1; 16]);
        let stream = Arc::new(StreamRef::new(id, 0, 0, KeyValues::new(), credit.stream()));
        Self { address, state: made.take().unwrap(), stream, credit, telemetry, seal, windows, next: Lsn(0) }
    }

    async fn take(&mut self, secs: i64, value: f64) {
        let (first, next) = (self.next, Lsn(self.next.0 + 1));
        let readings = [reading(secs, value)].into_iter().collect();
        let mut works = Vec::new();
        assert!(try_admit(&mut vec![Draft { stream: self.stream.clone(), readings, lsn: first }], &mut works).is_ok());
        self.address.send(ShardBatch { works, first, next }).await.unwrap();
        self.next = next;
    }

    /// How many streams gave their state, and which records are covered; everything that was taken is handed on by then.
    async fn collect(&self) -> (usize, Lsn) {
        let collected = self.address.send(CollectStates { most: 10, all: true }).await.unwrap();
        (collected.states.len(), collected.covers)
    }
}

fn within_a_minute(work: impl Future<Output = ()>) {
    System::new().block_on(async { tokio::time::timeout(Duration::from_secs(60), work).await.unwrap() });
}

#[test]
fn an_actor_that_is_gone_ends_its_shard_and_no_state_covers_what_it_held() {
    let folder = tempfile::tempdir().unwrap();
    within_a_minute(async {
        let mut bench = Bench::start(folder.path(), false);
        bench.take(1, 1.0).await;
        assert_eq!(bench.collect().await, (1, Lsn(1)));
        let actor = bench.state.streams.borrow()[&bench.stream.id].clone();
        assert!(actor.send(Die).await.is_err());
        bench.take(2, 2.0).await;
        assert_eq!(bench.collect().await, (0, Lsn(1)), "the second reading is the journal's to keep");
        while bench.address.connected() {
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.credit.used(), 0, "nobody waits for what it held");
    });
}

#[test]
fn a_shard_that_ends_gives_back_the_credit_of_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    within_a_minute(async {
        let mut bench = Bench::start(folder.path(), false);
        bench.take(1, 1.0).await;
        bench.collect().await;
        // The second reading of its moment is gathered, and may still wait when the shard finds that the actor is gone.
        bench.take(2, 2.0).await;
        let actor = bench.state.streams.borrow()[&bench.stream.id].clone();
        assert!(actor.send(Die).await.is_err());
        let judged = Judged { model: 0, first: 0, inputs: 1, outputs: None, admission: None };
        // It may have found it by itself.
        let _ = bench.address.send(ShardJudged(vec![(bench.stream.id, judged)])).await;
        while bench.address.connected() {
            tokio::task::yield_now().await;
        }
        assert!(bench.state.streams.borrow().is_empty());
        assert_eq!(bench.credit.used(), 0);
    });
}

#[test]
fn a_finding_that_panics_whoever_it_is_handed_to_costs_no_window() {
    let folder = tempfile::tempdir().unwrap();
    within_a_minute(async {
        let mut bench = Bench::start(folder.path(), true);
        for (secs, value) in [(1, 1.0), (2, 150.0), (3, 2.0), (14, 1.0)] {
            bench.take(secs, value).await;
        }
        assert_eq!(bench.collect().await, (1, Lsn(4)));
        bench.seal.flush().await;
        assert_eq!(*bench.windows.lock(), [3]);
        assert_eq!(bench.telemetry.counter(Metric::StreamPanics, &["stream"]).get(), 1);
        assert_eq!(bench.telemetry.total(Metric::StreamsParked), 0);
    });
}
