//! One stream with all kinds of windows, and what may happen to it.

#![allow(clippy::unwrap_used, dead_code, reason = "a test that cannot go on fails; not every test uses all of it")]

use std::sync::Arc;
use std::time::Duration;

use nearside_actors::stream::{Outputs, PlannedModel, StreamComponent, StreamPlan};
use nearside_schemas::codec::{CodecSpec, Format};
use nearside_schemas::{
    FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, HumanDuration, KeyValues, Reading, SiteId, StreamId,
    StreamName, StreamSpec, Timestamp, TopicTemplate, Values,
};
use nearside_window::{GuardConfig, LatePolicy, WindowConfig, WindowKind, WindowPlan};

/// Numbers from a seed (xorshift; Marsaglia 2003).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// What the journal holds.
#[derive(Clone)]
pub enum Event {
    Reading(Reading),
    Tick(Timestamp),
    /// A stop that closes windows.
    Close(Timestamp),
}

/// One of each kind.
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

/// A definition with all kinds of windows and a detector.
pub fn plan() -> Arc<StreamPlan> {
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
        models: vec![PlannedModel { model, queue: None, recent: None }],
        priority: nearside_actors::Priority::Ordinary,
        min_rows: 1,
        silent_after: None,
        judge_deadline: Duration::from_secs(2),
        panics_per_minute: 5,
    })
}

/// What devices send, and how time passes.
pub fn events(random: &mut Random) -> Vec<Event> {
    let mut now = 1_000_000;
    let mut events = Vec::new();
    for _ in 0..60 + random.below(100) {
        // Mostly steady, sometimes silent for long enough that windows close as idle.
        now += match random.below(40) {
            0 => 60_000,
            _ => random.below(1_500) as i64,
        };
        if random.below(4) == 0 {
            let now = Timestamp::from_micros(now * 1_000);
            events.push(if random.below(10) == 0 { Event::Close(now) } else { Event::Tick(now) });
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
        let value = if random.below(25) == 0 { 90.0 } else { 20.0 + random.below(10) as f64 / 10.0 };
        events.push(Event::Reading(Reading {
            time: Timestamp::from_micros((now - late) * 1_000),
            received: Timestamp::from_micros(now * 1_000),
            sequence: None,
            values: Values::from_iter([FieldValue::Number(value)]),
        }));
    }
    events
}

/// Shows an event to a stream.
pub fn apply(stream: &mut StreamComponent, event: &Event, out: &mut Outputs) {
    match event {
        Event::Reading(reading) => stream.on_reading(reading.clone(), out),
        Event::Tick(now) => stream.on_tick(*now, true, out),
        Event::Close(now) => stream.close_windows(*now, false, out),
    }
}

/// The one stream.
pub const ID: StreamId = StreamId::from_bytes([1; 16]);

/// The stream before its first event.
pub fn new_stream(plan: &Arc<StreamPlan>) -> StreamComponent {
    StreamComponent::new(plan.clone(), ID, KeyValues::new())
}
