//! Items of both ends of the urgency, a disk that forgets, and an outbox on it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "a test that cannot go on fails; not every test uses all of it"
)]

pub mod disk;

use std::path::Path;
use std::sync::Arc;

use nearside_outbox::{Outbox, OutboxConfig};
use nearside_privacy::{KeyRing, Sealed, SealedItem, seal_finding, seal_rollup};
use nearside_schemas::codec::{CodecSpec, Format};
use nearside_schemas::{
    ByteSize, FieldName, Finding, ManualClock, ModelName, ModelRef, Nth, RollUp, RollUpId, SecretKey, Severity, SiteId,
    StreamId, StreamName, StreamSpec, Timestamp, TopicTemplate, WindowDefinition, WindowId,
};
use nearside_telemetry::Telemetry;

pub fn keys() -> Arc<KeyRing> {
    Arc::new(KeyRing::from_master(SecretKey::new([3; 32])))
}

pub fn site() -> SiteId {
    SiteId::new("s").unwrap()
}

/// A roll-up, the least urgent class.
pub fn rollup(n: i64, revision: u32) -> SealedItem {
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
pub fn alert(n: i64) -> SealedItem {
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
        field: None,
        nth: Nth::FIRST,
        severity: Severity::Warning,
        since: Timestamp::from_secs(n),
        at: Timestamp::from_secs(n),
        rows: 1,
        score: 1.0,
        threshold: 0.5,
        contributions: vec![],
        text: "x".repeat(200),
    };
    seal_finding(&finding, &nearside_schemas::KeyValues::new(), &spec, &site(), &keys()).map(Sealed::into_item).unwrap()
}

/// A small outbox.
pub fn config() -> OutboxConfig {
    OutboxConfig { quota: ByteSize::mib(1), queue: 64, reserve: ByteSize::kib(64), ..OutboxConfig::default() }
}

/// The outbox in a folder.
pub fn open(folder: &Path, telemetry: &Telemetry) -> Outbox {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1)));
    Outbox::open(&folder.join("outbox.redb"), &config(), keys(), clock, telemetry).unwrap()
}

/// The ids that wait, in order.
pub fn waiting(outbox: &Outbox) -> Vec<String> {
    let entries = outbox.handle().batch(100_000, usize::MAX, &|_| false).unwrap();
    entries.iter().map(|entry| entry.item.id()).collect()
}

/// Runs a future to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}
