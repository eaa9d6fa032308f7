//! SenML packs (RFC 8428) in JSON or CBOR: base fields, resolved records, several sensors in a pack.
//!
//! A field's path is the name of a record, either whole or without the base name. Records of one key and one time are one
//! reading. A key part whose path is `bn` is the base name without its last separator. Times below 2^28 seconds are
//! relative to the time of receipt (section 4.5.3), and a record without any time has the time of receipt.

use std::sync::Arc;

use super::layout::{Layout, error, finite, key_text, malformed};
use super::tree::Tree;
use super::{Decode, DecodeError, Decoded, DecodedRow, cbor};
use crate::personal::Personal;
use crate::reading::{FieldValue, KeyValues, Reading, Values};
use crate::set_aside::SetAsideReason;
use crate::stream::FieldKind;
use crate::time::Timestamp;

/// Times below this are relative to now (RFC 8428 section 4.5.3).
const RELATIVE_BELOW: f64 = 268_435_456.0;

pub(super) struct Senml {
    layout: Layout,
}

impl Senml {
    pub(super) const fn new(layout: Layout) -> Self {
        Self { layout }
    }
}

/// The base fields in force (section 4.1).
#[derive(Default)]
struct Base {
    name: String,
    time: f64,
    value: f64,
}

/// A label in JSON and its number in CBOR (table 4).
fn entry<'t>(record: &'t [(String, Tree)], label: &str, number: &str) -> Option<&'t Tree> {
    record.iter().find(|(key, _)| key == label || key == number).map(|(_, value)| value)
}

fn number(value: Option<&Tree>, label: &str) -> Result<Option<f64>, DecodeError> {
    match value {
        None => Ok(None),
        Some(Tree::Number(number)) if number.is_finite() => Ok(Some(*number)),
        Some(Tree::Number(_)) => Err(error(SetAsideReason::NotFinite, format!("{label}: the number is not finite"))),
        Some(other) => Err(malformed(format!("{label}: expected a number, found {}", other.kind()))),
    }
}

fn text<'t>(value: Option<&'t Tree>, label: &str) -> Result<Option<&'t str>, DecodeError> {
    match value {
        None => Ok(None),
        Some(Tree::Text(text)) => Ok(Some(text)),
        Some(other) => Err(malformed(format!("{label}: expected text, found {}", other.kind()))),
    }
}

impl Base {
    fn take(&mut self, record: &[(String, Tree)]) -> Result<(), DecodeError> {
        if let Some(name) = text(entry(record, "bn", "-2"), "bn")? {
            name.clone_into(&mut self.name);
        }
        if let Some(time) = number(entry(record, "bt", "-3"), "bt")? {
            self.time = time;
        }
        if let Some(value) = number(entry(record, "bv", "-5"), "bv")? {
            self.value = value;
        }
        Ok(())
    }
}

impl Senml {
    /// The field that a record is for.
    fn slot(&self, base: &str, name: &str) -> Option<usize> {
        let matches = |path: &str| {
            let path = path.strip_prefix("$.").unwrap_or(path);
            path == name || path.strip_prefix(base) == Some(name)
        };
        self.layout.fields.iter().position(|slot| matches(slot.path.text()))
    }

    fn take_record(
        &self,
        record: &[(String, Tree)],
        base: &Base,
        received: Timestamp,
        before: usize,
        out: &mut Decoded,
    ) -> Result<(), DecodeError> {
        let name = text(entry(record, "n", "0"), "n")?.unwrap_or("");
        let Some(slot) = self.slot(&base.name, name) else { return Ok(()) };
        let path = self.layout.fields[slot].path.text();
        let value = entry(record, "v", "2");
        let flag = entry(record, "vb", "4");
        let words = text(entry(record, "vs", "3"), "vs")?;
        let value = match (self.layout.fields[slot].kind, number(value, path)?.or(number(flag, path)?), words) {
            (FieldKind::Number, Some(value), _) => finite(base.value + value, path)?,
            (FieldKind::Text, _, Some(words)) => FieldValue::Text(Personal::new(Arc::from(words))),
            _ => return Err(malformed(format!("{path}: the record has no value of the field's kind"))),
        };
        let time = base.time + number(entry(record, "t", "6"), "t")?.unwrap_or(0.0);
        let time = resolve(time, received)?;
        let key = self.key(base, record)?;
        let same = |row: &&mut DecodedRow| row.reading.time == time && row.key == key;
        let row = match out.rows[before..].iter_mut().find(same) {
            Some(row) => row,
            None => {
                if !self.layout.has_room(before, out) {
                    return Ok(());
                }
                let values = self.layout.fields.iter().map(|_| FieldValue::Missing).collect::<Values>();
                let reading = Reading { time, received, sequence: None, values };
                out.rows.push(DecodedRow { key, reading });
                let last = out.rows.len() - 1;
                &mut out.rows[last]
            }
        };
        row.reading.values[slot] = value;
        Ok(())
    }

    fn key(&self, base: &Base, record: &[(String, Tree)]) -> Result<KeyValues, DecodeError> {
        self.layout
            .key
            .iter()
            .map(|path| match path.text().trim_start_matches("$.") {
                "bn" => key_text(base.name.trim_end_matches([':', '/', '_', '-', '.']), "bn"),
                label => key_text(text(entry(record, label, label), label)?.unwrap_or(""), label),
            })
            .collect()
    }
}

fn resolve(time: f64, received: Timestamp) -> Result<Timestamp, DecodeError> {
    let micros = (time * 1e6).round();
    if micros.abs() > 9e18 {
        return Err(error(SetAsideReason::BadTimestamp, "t: the time is out of range"));
    }
    let micros = micros as i64;
    let base = if time < RELATIVE_BELOW { received.as_micros() } else { 0 };
    Ok(Timestamp::from_micros(base.saturating_add(micros)))
}

impl Decode for Senml {
    fn decode(&self, payload: &[u8], received: Timestamp, out: &mut Decoded) {
        if !self.layout.admits(payload, out) {
            return;
        }
        let is_json = payload.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        let tree = if is_json {
            serde_json::from_slice(payload).map_err(|_| malformed("the SenML pack is broken JSON"))
        } else {
            cbor::tree(payload)
        };
        let records = match tree {
            Ok(Tree::Array(records)) => records,
            Ok(other) => return out.errors.push(malformed(format!("expected a pack, found {}", other.kind()))),
            Err(error) => return out.errors.push(error),
        };
        let before = out.rows.len();
        let mut base = Base::default();
        for record in &records {
            let Tree::Map(record) = record else {
                out.errors.push(malformed("a record of the pack is no object"));
                continue;
            };
            // A label that ends in `_` must be understood (section 4.4), and none is.
            if record.iter().any(|(label, _)| label.ends_with('_')) {
                return out.errors.push(malformed("a record has a label that must be understood and is not"));
            }
            let taken = base.take(record).and_then(|()| self.take_record(record, &base, received, before, out));
            out.errors.extend(taken.err());
        }
        if out.rows.len() == before && out.errors.is_empty() {
            out.errors.push(malformed("no record of the pack is a field of the stream"));
        }
    }
}
