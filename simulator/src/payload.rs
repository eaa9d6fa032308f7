//! Payload building blocks that more than one kind of device uses.

use nearside_schemas::Timestamp;

/// Milliseconds since 1970, as most devices write the time.
pub(crate) fn millis(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(1_000)
}

/// `{"ts":…,"text":"…"}`.
pub(crate) fn text(at: Timestamp, text: &str) -> Vec<u8> {
    serde_json::json!({ "ts": millis(at), "text": text }).to_string().into_bytes()
}
