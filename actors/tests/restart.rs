//! Streams in virtual time with crashes at any place: whatever a crash loses comes again from the journal, and what reaches the cloud in the
//! end is what a run without crashes gives. The reference model is that run.
//!
//! `NEARSIDE_SEEDS=5000` takes more seeds than the default.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nearside_actors::stream::{Outputs, PlannedModel, StreamComponent, StreamPlan, StreamState};
use nearside_schemas::codec::{CodecSpec, Format};
use nearside_schemas::{
    FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, HumanDuration, KeyValues, Reading, SetAsideReason,
    SiteId, StreamId, StreamName, StreamSpec, Timestamp, TopicTemplate, Values, WindowId,
};
use nearside_window::{GuardConfig, LatePolicy, WindowConfig, WindowKind, WindowPlan};

/// Numbers from a seed (xorshift; Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// What the journal holds.
#[derive(Clone)]
enum Event {
    Reading(Reading),
    Tick(Timestamp),
}

fn windows() -> [WindowConfig; 4] {
    let tumbling = WindowConfig {
        late: LatePolicy::Revise,
        revise_for: HumanDuration::secs(60),
        lateness: HumanDuration::secs(2),
        ..WindowConfig::tumbling(HumanDuration::secs(10))
    };
    let hopping = WindowConfig {
        kind: WindowKind::Hopping,
        step: Some(HumanDuration::secs(5)),
        ..WindowConfig::tumbling(HumanDuration::secs(15))
    };
    let other = WindowConfig { size: None, ..WindowConfig::tumbling(HumanDuration::secs(1)) };
    let session = WindowConfig { kind: WindowKind::Session, gap: Some(HumanDuration::secs(7)), ..other.clone() };
    let count = WindowConfig { kind: WindowKind::Count, rows: Some(7), ..other };
    [tumbling, hopping, session, count]
}

fn plan() -> Arc<StreamPlan> {
    let fields = vec![FieldSpec {
        name: FieldName::new("v").unwrap(),
        kind: FieldKind::Number,
        unit: None,
        policy: FieldPolicy::Clear,
    }];
    let spec = StreamSpec {
        name: StreamName::new("s").unwrap(),
        topic: TopicTemplate::parse("s").unwrap(),
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
        key: Vec::new(),
        group: "s".to_owned(),
    };
    let guard = GuardConfig { idle: HumanDuration::secs(20), ..GuardConfig::default() };
    let windows = WindowPlan::new(&fields, &windows(), guard).unwrap();
    let model = nearside_models::catalog::load("robust-z", None).unwrap();
    Arc::new(StreamPlan {
        site: SiteId::new("site").unwrap(),
        index: 0,
        spec: Arc::new(spec),
        finding_retention: windows.retention(),
        windows,
        models: vec![PlannedModel { model, queue: None }],
        min_rows: 1,
        judge_deadline: Duration::from_secs(2),
        panics_per_minute: 5,
    })
}

fn journal(random: &mut Random) -> Vec<Event> {
    let mut now = 1_000_000;
    let mut events = Vec::new();
    for _ in 0..200 + random.below(200) {
        // Mostly steady, sometimes silent for long enough that windows close as idle.
        now += match random.below(40) {
            0 => 60_000,
            _ => random.below(1_500) as i64,
        };
        if random.below(4) == 0 {
            events.push(Event::Tick(Timestamp::from_micros(now * 1_000)));
            continue;
        }
        let late = match random.below(12) {
            0 => random.below(30_000) as i64,
            1 => -(random.below(100) as i64),
            // A clock that jumps: far ahead, far behind.
            2 if random.below(5) == 0 => -2_000_000_000_000,
            3 if random.below(5) == 0 => 900_000_000_000,
            _ => 0,
        };
        let value = if random.below(60) == 0 { 90.0 } else { 20.0 + random.below(10) as f64 / 10.0 };
        events.push(Event::Reading(Reading {
            time: Timestamp::from_micros((now - late) * 1_000),
            received: Timestamp::from_micros(now * 1_000),
            sequence: None,
            values: Values::from_iter([FieldValue::Number(value)]),
        }));
    }
    events
}

/// What the cloud keeps: the highest revision of each window, as text, and each finding once.
#[derive(Default, PartialEq, Debug)]
struct Cloud {
    windows: BTreeMap<WindowId, (u32, String)>,
    findings: BTreeMap<(WindowId, String), String>,
}

impl Cloud {
    fn take(&mut self, out: &mut Outputs) {
        for summary in out.summaries.drain(..) {
            let text = serde_json::to_string(&(
                (summary.end, summary.cause, summary.rows, &summary.set_aside),
                (&summary.fields, &summary.findings, &summary.verdict),
            ))
            .unwrap();
            let known = self.windows.entry(summary.window.clone()).or_insert((summary.revision, text.clone()));
            if summary.revision > known.0 {
                *known = (summary.revision, text);
            } else if summary.revision == known.0 {
                assert_eq!(known.1, text, "one revision of a window says one thing");
            }
        }
        for finding in out.raised.drain(..) {
            let text = serde_json::to_string(&finding).unwrap();
            let known = self.findings.insert((finding.window, finding.label), text.clone());
            assert!(known.is_none_or(|known| known == text), "one finding says one thing");
        }
    }
}

fn apply(stream: &mut StreamComponent, event: &Event, out: &mut Outputs) {
    match event {
        Event::Reading(reading) => stream.on_reading(reading.clone(), out),
        Event::Tick(now) => stream.on_tick(*now, true, out),
    }
}

const ID: StreamId = StreamId::from_bytes([1; 16]);

fn end(mut stream: StreamComponent, cloud: &mut Cloud) {
    let mut out = Outputs::default();
    stream.drain(Timestamp::MAX, &mut out);
    cloud.take(&mut out);
}

fn without_crashes(plan: &Arc<StreamPlan>, events: &[Event]) -> (Cloud, Vec<SetAsideReason>) {
    let (mut cloud, mut out) = (Cloud::default(), Outputs::default());
    let mut stream = StreamComponent::new(plan.clone(), ID, KeyValues::new());
    let mut set_aside = Vec::new();
    for event in events {
        apply(&mut stream, event, &mut out);
        set_aside.append(&mut out.set_aside);
        cloud.take(&mut out);
    }
    end(stream, &mut cloud);
    (cloud, set_aside)
}

/// Between two events anything may happen: a checkpoint, a crash, or nothing. What the stream gives back between checkpoint and crash is
/// safe in part: as much as the outbox had committed.
fn with_crashes(plan: &Arc<StreamPlan>, events: &[Event], random: &mut Random) -> (Cloud, Vec<SetAsideReason>) {
    let name = &plan.spec.name;
    let new_stream = || StreamComponent::new(plan.clone(), ID, KeyValues::new());
    let mut cloud = Cloud::default();
    let mut stream = new_stream();
    let mut checkpoint: Option<(usize, Vec<u8>)> = None;
    let mut set_aside: BTreeMap<usize, Vec<SetAsideReason>> = BTreeMap::new();
    let mut at = 0;
    // What was given back since the outbox last committed.
    let mut uncommitted = Outputs::default();
    while at < events.len() {
        let mut out = Outputs::default();
        apply(&mut stream, &events[at], &mut out);
        set_aside.insert(at, std::mem::take(&mut out.set_aside));
        uncommitted.summaries.append(&mut out.summaries);
        uncommitted.raised.append(&mut out.raised);
        at += 1;
        match random.below(12) {
            0 => cloud.take(&mut uncommitted),
            1 => {
                // A checkpoint is written when everything before it is committed.
                cloud.take(&mut uncommitted);
                checkpoint = Some((at, stream.snapshot().encode(name, stream.key())));
            }
            // A crash loses the stream and, except for what a few events gave, nothing must follow from it.
            2 if random.below(3) == 0 => {
                uncommitted = Outputs::default();
                (at, stream) = match &checkpoint {
                    None => (0, new_stream()),
                    Some((covers, bytes)) => {
                        let (_, key, state) = StreamState::decode(bytes).unwrap();
                        let (stream, lost) = StreamComponent::restore(plan.clone(), ID, key, &state);
                        assert_eq!(lost, 0);
                        (*covers, stream)
                    }
                };
            }
            _ => {}
        }
    }
    cloud.take(&mut uncommitted);
    end(stream, &mut cloud);
    (cloud, set_aside.into_values().flatten().collect())
}

#[test]
fn a_crash_at_any_place_changes_nothing_that_the_cloud_gets() {
    let seeds: u64 = std::env::var("NEARSIDE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let plan = plan();
    let mut findings = 0;
    for seed in 1..=seeds {
        let mut random = Random(seed * 0x9E37_79B9);
        let events = journal(&mut random);
        let expected = without_crashes(&plan, &events);
        let found = with_crashes(&plan, &events, &mut random);
        assert_eq!(found, expected, "seed {seed}");
        findings += expected.0.findings.len();
    }
    assert!(findings > 0, "detectors had something to see");
}
