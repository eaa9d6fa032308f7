//! Payload codecs: what turns the bytes of a message into readings. One trait, one table.
//!
//! Promises: a payload of any bytes gives readings or counted errors, never a panic, and never more memory than its
//! definition's bounds allow; a bad row is set aside alone.
//! Never: an error holds a value of the payload, which may be personal (promise I2).

mod arrow_ipc;
mod cbor;
mod csv;
mod json;
mod layout;
mod number;
mod path;
mod room;
mod scan;
mod senml;
mod timestamp;
mod tree;

use layout::Layout;
pub use timestamp::parse_timestamp;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::reading::{KeyValues, Reading};
use crate::set_aside::SetAsideReason;
use crate::stream::StreamSpec;
use crate::time::Timestamp;

/// The payload formats.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A JSON object, or an array of them: fields are found by paths such as `$.a.b[0]`.
    Json,
    /// A bare number as text.
    Number,
    /// Comma-separated lines: columns by number from 0, or by name where every payload begins with a header line.
    Csv,
    /// CBOR (RFC 8949), fields found by the same paths as in JSON.
    Cbor,
    /// SenML in JSON or CBOR (RFC 8428): fields are found by record name; `name#s` is the record's sum.
    Senml,
    /// An Arrow IPC stream: fields are found by column name. Columns are plain: no dictionaries, views or nesting.
    ArrowIpc,
}

/// How a payload is decoded.
#[derive(Clone, PartialEq, Debug)]
pub struct CodecSpec {
    /// The format.
    pub format: Format,
    /// For each field of the stream, in its order: a path, a column name or number, or a SenML record name.
    pub paths: Vec<String>,
    /// Where an array of rows stands in a JSON or CBOR payload, such as `$.samples`; `None`: the payload itself.
    pub rows: Option<String>,
    /// For array values (one message with 360 samples): samples a second. Sample i lies i / rate after the timestamp.
    pub rate_hz: Option<f64>,
    /// Where the rate stands in the payload, such as `$.hz`; it goes before `rate_hz`.
    pub rate_path: Option<String>,
    /// The largest payload that is looked at, in bytes.
    pub max_payload_bytes: usize,
    /// The most readings one message may carry, good and bad ones together.
    pub max_readings: usize,
}

/// How a timestamp is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum TimestampUnit {
    /// Text in RFC 3339 or `2014-04-10 00:04:00` (UTC); a number by its size: seconds, milli-, micro- or nanoseconds since 1970.
    #[default]
    Auto,
    /// Seconds since 1970, fractions allowed.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Microseconds since 1970.
    Micros,
    /// Nanoseconds since 1970.
    Nanos,
}

/// Where the event time stands and how it is written.
#[derive(Clone, PartialEq, Debug)]
pub struct TimestampSpec {
    /// A path, a column, or empty for formats that have a time of their own (SenML).
    pub path: String,
    /// How it is written.
    pub unit: TimestampUnit,
}

/// One decoded row with the key parts that stand in the payload.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodedRow {
    /// The key parts whose [`crate::KeyPartSpec::path`] is set, in the definition's order; empty where all stand in the topic.
    pub key: KeyValues,
    /// The reading.
    pub reading: Reading,
}

/// Why a payload, or a part of it, could not be decoded. Holds no value of the payload, which may be personal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct DecodeError {
    /// The counted reason.
    pub reason: SetAsideReason,
    /// What was wrong and where, for people, such as `$.value: expected a number, found text`.
    pub detail: String,
    /// How many readings were lost by it; 1 where that cannot be known.
    pub readings: u64,
}

/// What came out of one payload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The rows, in payload order.
    pub rows: Vec<DecodedRow>,
    /// What was set aside: one entry for each row, or one for several rows or the payload as a whole.
    pub errors: Vec<DecodeError>,
}

impl Decoded {
    /// Takes in what became of one row.
    fn push(&mut self, row: Result<DecodedRow, DecodeError>) {
        match row {
            Ok(row) => self.rows.push(row),
            Err(error) => self.errors.push(error),
        }
    }
}

/// A decoder for one stream definition, with its paths compiled.
pub trait Decode: Send + Sync {
    /// Decodes one payload, appending to `out`. Never panics, never allocates more than the definition's bounds allow.
    /// A row with a bad value is set aside alone; the other rows of the payload stay.
    fn decode(&self, payload: &[u8], received: Timestamp, out: &mut Decoded);
}

/// A stream definition that no decoder can be built for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct CodecError {
    /// What is wrong, such as `` `$.a[` is not a path: `]` is missing ``.
    pub what: String,
}

/// What is wrong with a path by itself, whatever the format.
pub fn path_fault(text: &str) -> Option<CodecError> {
    path::Path::parse(text).err()
}

/// Builds the decoder of a stream definition: the one table from format to decoder.
///
/// # Errors
/// Where a path cannot be read or the format does not have what the definition asks for.
pub fn decoder(spec: &StreamSpec) -> Result<Arc<dyn Decode>, CodecError> {
    let layout = Layout::new(spec)?;
    Ok(match spec.codec.format {
        Format::Json => Arc::new(json::Json::new(layout)),
        Format::Number => Arc::new(number::Number::new(layout)?),
        Format::Csv => Arc::new(csv::Csv::new(layout)?),
        Format::Cbor => Arc::new(cbor::Cbor::new(layout)),
        Format::Senml => Arc::new(senml::Senml::new(layout)),
        Format::ArrowIpc => Arc::new(arrow_ipc::ArrowIpc::new(layout)?),
    })
}
