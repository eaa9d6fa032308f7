//! One bad stream harms no other (promise I3): real shards, a real journal, models made to panic. A message that panics what is behind
//! the journal is set aside as it was sent; its stream goes on, and one that fails again and again is parked and shown. What a stream or a
//! shard was not told of is not said to be done (promise I1).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Arbiter};
use bytes::Bytes;
use nearside_actors::board::Board;
use nearside_actors::credit::ShardCredit;
use nearside_actors::feedback::FeedbackDesk;
use nearside_actors::inference::InferenceQueues;
use nearside_actors::ingest::{Ingest, IngestSetup, ShardHandle};
use nearside_actors::outlet::{Downstream, Outlet};
use nearside_actors::recall::Recall;
use nearside_actors::recovery::{Listeners, Progress, Recovered, replay};
use nearside_actors::seal::SealMessage;
use nearside_actors::stage::{self, StageSender};
use nearside_actors::stream::{
    AdoptStreams, CollectStates, Outputs, PlannedModel, Shard, ShardSetup, StreamComponent, StreamPlan,
};
use nearside_deadletters::{DeadLetter, DeadLetters, DeadLettersConfig, ids, read};
use nearside_journal::{DirectoryStorage, Journal, JournalConfig, Lsn, SegmentFile, Storage, read_from};
use nearside_models::ModelError;
use nearside_models::row_model::{Row, RowModel, RowState, RowVerdict};
use nearside_privacy::KeyRing;
use nearside_schemas::codec::{CodecSpec, Format};
use nearside_schemas::{
    ClientId, Durability, FEEDBACK_TOPIC, FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, HumanDuration,
    KeyPartSpec, KeyValues, ModelName, ModelRef, Personal, Publish, QoS, Reading, SecretKey, SiteId, StreamName,
    StreamSpec, Timestamp, Topic, TopicTemplate, Values,
};
use nearside_telemetry::{Gauge, Metric, Telemetry};
use nearside_window::{GuardConfig, WindowConfig, WindowKind, WindowPlan};
use parking_lot::Mutex;

/// Panics on 666 when it takes a row, on 667 when it judges one, on 668 whenever it is to be kept.
struct Poisonable(ModelRef);

struct State(VecDeque<f64>, bool);

impl RowModel for Poisonable {
    fn reference(&self) -> &ModelRef {
        &self.0
    }
    fn accepts(&self, _: &[FieldSpec]) -> Result<(), ModelError> {
        Ok(())
    }
    fn new_state(&self, _: &[FieldSpec]) -> Box<dyn RowState> {
        Box::new(State(VecDeque::new(), false))
    }
    fn restore(&self, fields: &[FieldSpec], _: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        Ok(self.new_state(fields))
    }
}

impl RowState for State {
    fn take(&mut self, row: &Row<'_>, _: &mut Vec<f32>) -> usize {
        let value = row.values[0].number().unwrap_or(0.0);
        assert!(value != 666.0, "the poison");
        self.0.push_back(value);
        self.1 |= value == 668.0;
        0
    }
    fn judge(&mut self, _: &[f32]) -> RowVerdict {
        assert!(self.0.pop_front() != Some(667.0), "the poison");
        RowVerdict::default()
    }
    fn skip(&mut self) {
        self.0.pop_front();
    }
    fn snapshot(&self) -> Vec<u8> {
        assert!(!self.1, "the poison");
        Vec::new()
    }
}

fn plan() -> Arc<StreamPlan> {
    let fields = vec![FieldSpec {
        name: FieldName::new("v").unwrap(),
        kind: FieldKind::Number,
        unit: None,
        policy: FieldPolicy::Clear,
    }];
    let spec = StreamSpec {
        name: StreamName::new("ward").unwrap(),
        topic: TopicTemplate::parse("ward/{bed}").unwrap(),
        codec: CodecSpec {
            format: Format::Number,
            paths: vec!["$".to_owned()],
            rows: None,
            rate_hz: None,
            rate_path: None,
            max_payload_bytes: 100,
            max_readings: 1,
        },
        timestamp: None,
        sequence: None,
        fields: fields.clone(),
        key: vec![KeyPartSpec { name: FieldName::new("bed").unwrap(), path: None, policy: FieldPolicy::Pseudonym }],
        group: "ward".to_owned(),
    };
    let count = WindowConfig {
        kind: WindowKind::Count,
        size: None,
        rows: Some(4),
        ..WindowConfig::tumbling(HumanDuration::secs(1))
    };
    let windows = WindowPlan::new(&fields, &[count], GuardConfig::default()).unwrap();
    let reference = ModelRef { name: ModelName::new("poisonable").unwrap(), version: "1".into() };
    Arc::new(StreamPlan {
        site: SiteId::new("site").unwrap(),
        index: 0,
        spec: Arc::new(spec),
        finding_retention: windows.retention(),
        windows,
        models: vec![PlannedModel { model: Arc::new(Poisonable(reference)), queue: None, recent: None }],
        priority: nearside_actors::Priority::Ordinary,
        min_rows: 1,
        silent_after: None,
        judge_deadline: Duration::from_secs(2),
        panics_per_minute: 3,
    })
}

/// A folder of segments that cannot be read.
struct Unreadable(DirectoryStorage, bool);

impl Storage for Unreadable {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        self.0.create(name)
    }
    fn read(&self, _: &str) -> io::Result<Vec<u8>> {
        assert!(!self.1, "a fault");
        Err(io::Error::other("too many open files"))
    }
    fn size(&self, name: &str) -> io::Result<u64> {
        self.0.size(name)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
}

struct Gateway {
    ingest: Arc<Ingest>,
    /// Where its shard lives.
    arbiter: Arbiter,
    letters: DeadLetters,
    seal: StageSender<SealMessage>,
    telemetry: Telemetry,
    /// Rows of each window that closed.
    windows: Arc<Mutex<Vec<(String, u64)>>>,
    received: i64,
}

impl Gateway {
    fn start(folder: &Path, keys: &Arc<KeyRing>) -> Self {
        let telemetry = Telemetry::new();
        let plan = plan();
        let journal_folder = folder.join("journal");
        let (journal, report) =
            Journal::open(&journal_folder, JournalConfig::default(), keys.clone(), &telemetry, Lsn(0)).unwrap();
        let letters =
            DeadLetters::open(&folder.join("deadletters"), &DeadLettersConfig::default(), keys.clone(), &telemetry)
                .unwrap();
        let storage = Arc::new(DirectoryStorage::open(&journal_folder, false).unwrap());
        let recall = Recall::start(storage, keys.clone(), letters.clone(), &telemetry).unwrap();
        let windows = Arc::new(Mutex::new(Vec::new()));
        let kept = windows.clone();
        let (seal, _) = stage::start("seal", 100, &telemetry, move |message| {
            if let SealMessage::Summary { summary, .. } = message {
                let bed = summary.key.iter().map(|part| part.expose().to_string()).collect();
                kept.lock().push((bed, summary.rows));
            }
        })
        .unwrap();
        let (rules, _) = stage::start("rules", 100, &telemetry, |_| {}).unwrap();
        let board = Arc::new(Board::new(10));
        let plans = [plan];
        let to = Downstream {
            seal: seal.clone(),
            rules,
            rules_want_summaries: false,
            rollup: None,
            board: board.clone(),
            keys: keys.clone(),
            recall,
        };
        let outlet = Arc::new(Outlet::new(&plans, &telemetry, to));
        let credit = ShardCredit::new(1_000, 1_000, Gauge::default());
        let setup = ShardSetup {
            index: 0,
            plans: plans.to_vec(),
            queues: InferenceQueues::default(),
            outlet: outlet.clone(),
            credit: credit.clone(),
            mailbox_bound: 3_000,
            retire_after: Duration::from_secs(600),
            checkpoint_after: Duration::from_secs(30),
            begins_at: report.next,
        };
        let arbiter = Arbiter::new();
        let address = Shard::start_in_arbiter(&arbiter.handle(), move |ctx| Shard::new(setup, ctx));
        let setup = IngestSetup {
            journal: journal.handle(),
            outlet,
            letters: letters.clone(),
            stream_secret: SecretKey::new([5; 32]),
            max_streams: 100,
            desk: FeedbackDesk::new(&telemetry, board.clone()).0,
            awake: Arc::default(),
        };
        let ingest = Ingest::new(&plans, vec![ShardHandle { address, credit }], setup, &telemetry).unwrap();
        Self { ingest: Arc::new(ingest), arbiter, letters, seal, telemetry, windows, received: 1_000 }
    }

    /// A message on this topic.
    fn message(&mut self, topic: &str, payload: &str) -> Publish {
        self.received += 1;
        Publish {
            client: ClientId::new("device"),
            topic: Topic::new(topic).unwrap(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: QoS::AtLeastOnce,
            packet_id: None,
            retain: false,
            received: Timestamp::from_secs(self.received),
        }
    }

    /// Feedback on a finding of this bed that nobody gave.
    fn feedback(&mut self, bed: &str) -> Publish {
        let stream = self.ingest.stream_of(&Topic::new(&format!("ward/{bed}")).unwrap()).unwrap();
        let body = format!(r#"{{"finding":"{stream}-0000000000000000-other","verdict":"confirmed"}}"#);
        self.message(FEEDBACK_TOPIC, &body)
    }

    /// Closes all windows as a stop does; whether it says that all are closed.
    async fn close_windows(&self) -> bool {
        let (now, names) = (Timestamp::from_secs(self.received), self.ingest.definition_names());
        let are_closed = self.ingest.close_windows(now, names, false).await;
        self.seal.flush().await;
        are_closed
    }

    /// Waits until its shard has ended.
    async fn shard_ends(&self) {
        while self.ingest.shards_live() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Publishes a batch and waits until it is on disk and handled.
    async fn publish(&mut self, messages: &[(&str, &str)]) {
        let batch = messages.iter().map(|(bed, payload)| self.message(&format!("ward/{bed}"), payload)).collect();
        assert!(matches!(self.taken(batch).await, Durability::Durable { .. }));
        self.ingest.judged_through().await;
        self.seal.flush().await;
    }

    /// The answer to a batch.
    async fn taken(&self, batch: Vec<Publish>) -> Durability {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.ingest.take(batch, Box::new(move |durability| answer.send(durability).unwrap())).await;
        answered.await.unwrap()
    }

    /// Waits until so many letters are on disk.
    async fn letters(&self, folder: &Path, keys: &KeyRing, count: usize) -> Vec<DeadLetter> {
        let folder = folder.join("deadletters");
        while ids(&folder).unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.letters.flush().await;
        let all = ids(&folder).unwrap();
        all.into_iter().map(|id| read(&folder, id, keys).unwrap()).collect()
    }
}

fn within_a_minute(work: impl Future<Output = ()>) {
    actix::System::new().block_on(async { tokio::time::timeout(Duration::from_secs(60), work).await.unwrap() });
}

/// Nobody would read them from there.
#[test]
fn what_no_stream_claims_is_answered_without_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([3; 32])));
    within_a_minute(async {
        let mut gateway = Gateway::start(folder.path(), &keys);
        let (unclaimed, claimed) = (gateway.message("street/1", "1"), gateway.message("ward/7", "1"));
        assert!(gateway.ingest.pass(&[unclaimed.clone(), unclaimed.clone()]));
        assert_eq!(gateway.telemetry.total(Metric::JournalRecords), 0);
        let counted = gateway.telemetry.counter(Metric::SetAside, &["none", "no_stream"]);
        assert_eq!(counted.get(), 2, "counted all the same");
        // Beside what a stream claims.
        let both = vec![unclaimed.clone(), claimed];
        assert!(!gateway.ingest.pass(&both));
        assert!(matches!(gateway.taken(both).await, Durability::Durable { .. }));
        assert_eq!(gateway.telemetry.total(Metric::JournalRecords), 2);
        gateway.ingest.refuse();
        assert!(!gateway.ingest.pass(&[unclaimed]));
        assert!(matches!(gateway.taken(Vec::new()).await, Durability::Refused(_)));
    });
}

/// Time that passes while a shard is behind does not pile up in front of it (promise I4).
#[test]
fn a_shard_that_is_behind_is_told_of_time_now_and_then() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([3; 32])));
    within_a_minute(async {
        let mut gateway = Gateway::start(folder.path(), &keys);
        gateway.publish(&[("7", "1")]).await;
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let (stands, is_behind) = std::sync::mpsc::channel::<()>();
        assert!(gateway.arbiter.spawn_fn(move || {
            stands.send(()).unwrap();
            waits.recv().unwrap();
        }));
        // It takes nothing from here on.
        is_behind.recv().unwrap();
        let recorded = || gateway.telemetry.total(Metric::JournalRecords);
        let before = recorded();
        for second in 0..100 {
            gateway.ingest.tick(Timestamp::from_secs(2_000 + second)).await;
        }
        while recorded() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gateway.ingest.tick(Timestamp::from_secs(2_100)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let told = recorded() - before;
        assert!((2..=13).contains(&told), "{told} of 101: one of eight, so that the others hear of time");
        go_on.send(()).unwrap();
        // It hears of time again, once it has taken what it was told.
        while recorded() == before + told {
            tokio::time::sleep(Duration::from_millis(5)).await;
            gateway.ingest.tick(Timestamp::from_secs(2_200)).await;
        }
        assert_eq!(gateway.windows.lock().len(), 1);
    });
}

#[test]
fn where_all_rest_time_is_written_every_two_seconds_and_else_at_every_tick() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([7; 32])));
    within_a_minute(async {
        let mut gateway = Gateway::start(folder.path(), &keys);
        let quarter = |quarters: i64| Timestamp::from_millis(1_000_000 + 250 * quarters);
        let ingest = gateway.ingest.clone();
        // It is left out while the one before is not taken, too.
        let recorded = async |n| {
            while !ingest.tick(quarter(n)).await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let left_out = async |from: i64| {
            for n in from..from + 7 {
                assert!(!ingest.tick(quarter(n)).await, "{n}");
            }
        };
        recorded(0).await;
        left_out(1).await;
        recorded(8).await;
        left_out(9).await;
        recorded(4).await; // The clock has gone back.
        left_out(5).await;
        gateway.publish(&[("7", "1")]).await;
        for n in 6..12 {
            recorded(n).await;
        }
    });
}

#[test]
fn a_message_that_panics_is_set_aside_as_it_was_sent_and_harms_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([3; 32])));
    within_a_minute(async {
        let mut gateway = Gateway::start(folder.path(), &keys);
        // In one batch with others, so that each record's own number counts.
        gateway.publish(&[("7", "1"), ("8", "1"), ("7", "666"), ("8", "2"), ("7", "667.0"), ("8", "3")]).await;
        let letters = gateway.letters(folder.path(), &keys, 2).await;
        let seen: Vec<_> = letters
            .iter()
            .map(|l| (l.topic.as_str(), &l.payload[..], l.stage.as_str(), l.reason.as_str(), l.stream.as_deref()))
            .collect();
        let expected = |payload: &'static [u8]| ("ward/7", payload, "model", "panicked", Some("ward"));
        assert_eq!(seen, [expected(b"666"), expected(b"667.0")]);
        assert_eq!(letters[0].received, Timestamp::from_secs(1_003));
        // Both streams go on: the poison is in its window, for the windows had no fault.
        gateway.publish(&[("7", "4"), ("8", "4")]).await;
        let mut windows = gateway.windows.lock().clone();
        windows.sort();
        assert_eq!(windows, [("7".to_owned(), 4), ("8".to_owned(), 4)]);
        assert_eq!(gateway.telemetry.total(Metric::StreamsParked), 0);
    });
}

#[test]
fn a_stream_that_panics_every_time_is_parked_and_shown_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([3; 32])));
    within_a_minute(async {
        let mut gateway = Gateway::start(folder.path(), &keys);
        for n in 0..20 {
            gateway.publish(&[("7", "666"), ("8", &n.to_string())]).await;
        }
        let telemetry = &gateway.telemetry;
        assert_eq!(telemetry.counter(Metric::StreamPanics, &["stream"]).get(), 4, "the budget and one more");
        assert_eq!(telemetry.counter(Metric::StreamsParked, &["ward"]).get(), 1);
        assert_eq!(telemetry.gauge(Metric::StreamsParkedNow, &["ward"]).get(), 1.0);
        assert_eq!(telemetry.counter(Metric::SetAside, &["ward", "panicked"]).get(), 16, "what came after is counted");
        // Beds are told apart by the time of receipt alone: each is a letter of its own. What came after parking is not kept.
        assert_eq!(gateway.letters(folder.path(), &keys, 4).await.len(), 4);
        let of_eight = gateway.windows.lock().iter().filter(|(bed, _)| bed == "8").count();
        assert_eq!(of_eight, 5);
    });
}

#[test]
fn a_stream_whose_state_cannot_be_kept_keeps_its_windows() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([3; 32])));
    within_a_minute(async {
        let mut gateway = Gateway::start(folder.path(), &keys);
        gateway.publish(&[("7", "1"), ("7", "668"), ("8", "1")]).await;
        let shard = gateway.ingest.shards()[0].address.clone();
        let collected = shard.send(CollectStates { most: 10, all: true }).await.unwrap();
        assert_eq!((collected.states.len(), collected.covers), (2, Lsn(3)), "the journal is not held for it");
        assert_eq!(gateway.telemetry.counter(Metric::StreamPanics, &["stream"]).get(), 1);
        gateway.publish(&[("7", "2"), ("7", "3")]).await;
        assert_eq!(*gateway.windows.lock(), [("7".to_owned(), 4)], "what was there before is in it");
    });
}

#[test]
fn who_hears_an_answer_and_panics_costs_no_window() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([3; 32])));
    within_a_minute(async {
        let mut gateway = Gateway::start(folder.path(), &keys);
        gateway.publish(&[("7", "1"), ("8", "1")]).await;
        assert!(gateway.close_windows().await);
        assert_eq!(gateway.windows.lock().len(), 2);
        gateway.publish(&[("7", "2"), ("8", "2")]).await;
        let feedback = gateway.feedback("7");
        let (heard, is_heard) = tokio::sync::oneshot::channel();
        let reply = move |_| {
            let _ = heard.send(());
            panic!("a fault");
        };
        gateway.ingest.take_feedback(feedback, Box::new(reply)).await;
        is_heard.await.unwrap();
        assert!(gateway.close_windows().await);
        let mut windows = gateway.windows.lock()[2..].to_vec();
        windows.sort();
        assert_eq!(windows, [("7".to_owned(), 1), ("8".to_owned(), 1)]);
        assert_eq!(gateway.telemetry.counter(Metric::StreamPanics, &["stream"]).get(), 1);
    });
}

#[test]
fn what_a_shard_that_has_ended_was_not_told_is_not_said_to_be_done() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([3; 32])));
    within_a_minute(async {
        let mut gateway = Gateway::start(folder.path(), &keys);
        gateway.publish(&[("7", "1")]).await;
        let feedback = gateway.feedback("7");
        // Read back from the journal: ready when the stream has it.
        gateway.ingest.hear_again(Lsn(1_000), &feedback).await;
        gateway.arbiter.stop();
        gateway.shard_ends().await;
        assert!(!gateway.close_windows().await);
        let (answer, answered) = tokio::sync::oneshot::channel();
        let reply = move |outcome: Result<_, _>| answer.send(outcome.is_ok()).unwrap();
        gateway.ingest.take_feedback(feedback.clone(), Box::new(reply)).await;
        assert!(answered.await.is_err(), "it is on disk, and nobody has heeded it");
        gateway.ingest.hear_again(Lsn(1_001), &feedback).await;
        assert!(gateway.windows.lock().is_empty());
    });
}

#[test]
fn after_the_clock_went_back_idle_windows_close_in_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([3; 32])));
    within_a_minute(async {
        let mut gateway = Gateway::start(folder.path(), &keys);
        // One stream goes on from a checkpoint, one is there; both had a row when the clock was an hour ahead.
        gateway.received = 5_000;
        let ward = StreamName::new("ward").unwrap();
        let key: KeyValues = [Personal::new(Arc::from("8"))].into_iter().collect();
        let stream = gateway.ingest.adopt(&ward, key.clone()).unwrap();
        let mut component = StreamComponent::new(plan(), stream.id, key);
        let at = Timestamp::from_secs(5_000);
        let values = Values::from_iter([FieldValue::Number(1.0)]);
        component.on_reading(Reading { time: at, received: at, sequence: None, values }, &mut Outputs::default());
        let adopted = AdoptStreams(vec![(stream, Lsn(0), component.snapshot())]);
        gateway.ingest.shards()[0].address.send(adopted).await.unwrap();
        gateway.publish(&[("7", "1")]).await;
        gateway.ingest.tick(Timestamp::from_secs(1_400)).await;
        while gateway.windows.lock().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            gateway.ingest.tick(Timestamp::from_secs(1_460)).await;
        }
        let mut windows = gateway.windows.lock().clone();
        windows.sort();
        assert_eq!(windows, [("7".to_owned(), 1), ("8".to_owned(), 1)]);
    });
}

/// I1: nothing may be called covered by a start that has not seen it.
#[test]
fn a_journal_that_could_not_be_read_to_its_end_is_not_taken_for_read() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([3; 32])));
    within_a_minute(async {
        let mut gateway = Gateway::start(folder.path(), &keys);
        gateway.publish(&[("7", "1")]).await;
        let (rules, _) = stage::start("rules", 100, &gateway.telemetry, |_| {}).unwrap();
        let (rollup, _) = stage::start("rollup", 100, &gateway.telemetry, |_| {}).unwrap();
        let storage = || DirectoryStorage::open(&folder.path().join("journal"), false).unwrap();
        let storages: [Arc<dyn Storage>; 3] =
            [Arc::new(storage()), Arc::new(Unreadable(storage(), false)), Arc::new(Unreadable(storage(), true))];
        let mut outcomes = Vec::new();
        for storage in storages {
            let reader = read_from(storage, keys.clone(), Lsn(0), Lsn(u64::MAX)).unwrap();
            let listeners = Listeners { rules: &rules, rollup: &rollup, journalled: &|_, _| {} };
            let (progress, mut found) = (Progress::default(), Recovered::default());
            let span = (Lsn(0), Lsn(1));
            let outcome = replay(&gateway.ingest, reader, span, listeners, &progress, &mut found).await;
            outcomes.push((outcome.is_ok(), found.records));
        }
        assert_eq!(outcomes, [(true, 1), (false, 0), (false, 0)]);
    });
}

#[test]
fn streams_of_a_checkpoint_have_room_where_fewer_are_permitted_now() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([3; 32])));
    within_a_minute(async {
        let mut gateway = Gateway::start(folder.path(), &keys);
        let ward = StreamName::new("ward").unwrap();
        for bed in 0..101 {
            let key: KeyValues = [Personal::new(Arc::from(bed.to_string()))].into_iter().collect();
            assert!(gateway.ingest.adopt(&ward, key).is_some(), "{bed}");
        }
        gateway.publish(&[("new", "1")]).await;
        assert_eq!(gateway.telemetry.counter(Metric::SetAside, &["ward", "overflow"]).get(), 1);
    });
}

#[test]
fn what_the_journal_no_longer_holds_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(KeyRing::from_master(SecretKey::new([3; 32])));
    let telemetry = Telemetry::new();
    let letters = DeadLetters::open(folder.path(), &DeadLettersConfig::default(), keys.clone(), &telemetry).unwrap();
    let storage = Arc::new(DirectoryStorage::open(&folder.path().join("journal"), false).unwrap());
    let recall = Recall::start(storage, keys, letters, &telemetry).unwrap();
    recall.set_aside(Lsn(7), &StreamName::new("ward").unwrap(), "model");
    let gone = telemetry.counter(Metric::DeadLettersShed, &["gone"]);
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while gone.get() == 0 {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(Duration::from_millis(2));
    }
}
