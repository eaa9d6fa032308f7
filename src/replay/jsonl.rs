//! JSON lines. Where the stream's own payloads have paths, a line goes through the stream's decoder as if it had come as a
//! message; else, and where that finds nothing, its members are matched by name as the columns of a CSV file are.

use std::sync::Arc;

use nearside_schemas::codec::{CodecError, Decode, Decoded, DecodedRow, Format, decoder};
use nearside_schemas::{FieldValue, KeyValues, Personal, StreamSpec, Timestamp};
use serde_json::{Map, Value};

use super::columns::{Columns, GivenKey};
use super::input::{NOT_TEXT, Recorded};

/// The lines of one file.
pub struct JsonLines {
    spec: StreamSpec,
    given: GivenKey,
    /// The stream's decoder, where its payloads have paths and a time of their own.
    decoder: Option<Arc<dyn Decode>>,
    /// The members of the last line and where the columns are among them.
    columns: (Vec<String>, Result<Columns, String>),
}

impl JsonLines {
    /// # Errors
    /// Where the stream's paths cannot be read.
    pub fn new(spec: &StreamSpec, given: GivenKey) -> Result<Self, CodecError> {
        let has_paths = matches!(spec.codec.format, Format::Json | Format::Cbor) && spec.timestamp.is_some();
        let mut as_json = spec.clone();
        as_json.codec.format = Format::Json;
        let decoder = if has_paths { Some(decoder(&as_json)?) } else { None };
        Ok(Self { spec: spec.clone(), given, decoder, columns: (Vec::new(), Err(String::new())) })
    }

    /// The rows of a line.
    pub fn rows(&mut self, line: &[u8]) -> Vec<Recorded> {
        let Ok(text) = std::str::from_utf8(line) else { return vec![no_reading(NOT_TEXT.to_owned())] };
        let members = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(members)) => members,
            // A batch of rows; it has no members that could be a key.
            Ok(_) if self.decoder.is_some() => Map::new(),
            Ok(_) => return vec![no_reading("expected an object".to_owned())],
            Err(error) => {
                let why = format!("the JSON is broken at column {}", error.column());
                return vec![no_reading(why)];
            }
        };
        let Some(decoder) = &self.decoder else { return vec![self.by_name(&members)] };
        let mut decoded = Decoded::default();
        decoder.decode(line, Timestamp::from_micros(0), &mut decoded);
        if decoded.rows.is_empty() {
            let named = self.by_name(&members);
            if named.reading.is_ok() {
                return vec![named];
            }
        }
        let rows = decoded.rows.into_iter().map(|row| self.decoded(row, &members));
        rows.chain(decoded.errors.into_iter().map(|error| no_reading(error.to_string()))).collect()
    }

    /// A row that the stream's decoder read. Parts of the key that stand in the topic are members, given, or the file's name.
    fn decoded(&self, row: DecodedRow, members: &Map<String, Value>) -> Recorded {
        let mut from_payload = row.key.into_iter();
        let key = self.spec.key.iter().filter_map(|part| {
            if part.path.is_some() {
                return from_payload.next();
            }
            let name = part.name.as_str();
            let member = || members.get(name).map(cell).filter(|cell| !cell.is_empty()).map(Arc::from);
            Some(Personal::new(self.given.value(name).or_else(member).unwrap_or_else(|| self.given.stem().clone())))
        });
        let value = row.reading.values.iter().find_map(FieldValue::number);
        Recorded {
            timestamp_text: row.reading.time.to_string(),
            value_text: value.map(|value| value.to_string()).unwrap_or_default(),
            key: key.collect(),
            reading: Ok(row.reading),
        }
    }

    /// A row whose members are columns.
    fn by_name(&mut self, members: &Map<String, Value>) -> Recorded {
        if !members.keys().eq(&self.columns.0) || members.is_empty() {
            let header: Vec<String> = members.keys().cloned().collect();
            let found = Columns::find(&self.spec, &header, &self.given);
            self.columns = (header, found);
        }
        match &self.columns.1 {
            Ok(columns) => columns.row(&members.values().map(cell).collect::<Vec<_>>(), None),
            Err(why) => no_reading(why.clone()),
        }
    }
}

/// A member as a CSV file would have it.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn no_reading(why: String) -> Recorded {
    let (timestamp_text, value_text) = (String::new(), String::new());
    Recorded { timestamp_text, value_text, key: KeyValues::new(), reading: Err(why) }
}
