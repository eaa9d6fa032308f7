//! SenML packs (RFC 8428) in JSON or CBOR: base fields, resolved records, several sensors in a pack.
//!
//! A field's path is the name of a record, either whole or without the base name; with `#s` behind it, which no name can hold, it is
//! the record's sum in place of its value. Records of one key and one time are one reading; a second value for one field of a
//! reading is set aside, so a pack of several sensors needs their name as a key. A key part whose path is `bn` is the base name
//! without its last separator. Times below 2^28 seconds are relative to the time of receipt (section 4.5.3), and a record
//! without any time has the time of receipt.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::layout::{Layout, error, finite, key_text, malformed};
use super::room::Room;
use super::tree::Tree;
use super::{Decode, DecodeError, Decoded, DecodedRow, cbor};
use crate::personal::Personal;
use crate::reading::{FieldValue, KeyValues, Reading, Values};
use crate::set_aside::SetAsideReason;
use crate::stream::FieldKind;
use crate::time::Timestamp;

/// Times below this are relative to now (RFC 8428 section 4.5.3).
const RELATIVE_BELOW: f64 = 268_435_456.0;

/// The version of the format that is read; it counts where a pack states none (section 4.1).
const VERSION: f64 = 10.0;
/// What makes a field's path mean a record's sum.
const SUM: &str = "#s";

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
    value: Option<f64>,
    sum: Option<f64>,
}

/// The rows of a pack by time and key; `None`: the row found no room.
type Rows = HashMap<(Timestamp, KeyValues), Option<usize>>;

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
            self.value = Some(value);
        }
        if let Some(sum) = number(entry(record, "bs", "-6"), "bs")? {
            self.sum = Some(sum);
        }
        Ok(())
    }
}

/// A base value or sum and a record's own; a missing one of the two counts as zero.
fn with_base(base: Option<f64>, own: Option<f64>) -> Option<f64> {
    if base.is_none() && own.is_none() { None } else { Some(base.unwrap_or(0.0) + own.unwrap_or(0.0)) }
}

/// Refuses a pack whose form is not known (section 4.4): of a later version or of several, or with a label that must be understood.
fn check_form(records: &[Tree]) -> Result<(), DecodeError> {
    let mut version = None;
    for record in records {
        let Tree::Map(record) = record else { continue };
        if record.iter().any(|(label, _)| label.ends_with('_')) {
            return Err(malformed("a record has a label that must be understood and is not"));
        }
        // One that is not stated is that of the records before, or the default.
        let stated = number(entry(record, "bver", "-1"), "bver")?.or(version).unwrap_or(VERSION);
        if stated.fract() != 0.0 || !(1.0..=VERSION).contains(&stated) {
            return Err(malformed(format!("bver: expected a version from 1 to {VERSION}")));
        }
        if version.is_some_and(|version| version != stated) {
            return Err(malformed("bver: the records of a pack must have one version"));
        }
        version = Some(stated);
    }
    Ok(())
}

impl Senml {
    /// The field that a record is for, and whether it takes the record's sum.
    fn slots(&self, base: &str, name: &str) -> impl Iterator<Item = (usize, bool)> {
        self.layout.fields.iter().enumerate().filter_map(move |(index, slot)| {
            let path = slot.path.text();
            let path = path.strip_prefix("$.").unwrap_or(path);
            let (path, sum) = path.strip_suffix(SUM).map_or((path, false), |path| (path, true));
            (path == name || path.strip_prefix(base) == Some(name)).then_some((index, sum))
        })
    }

    fn take_record(
        &self,
        record: &[(String, Tree)],
        base: &Base,
        received: Timestamp,
        pack: &mut Pack<'_>,
    ) -> Result<(), DecodeError> {
        let name = text(entry(record, "n", "0"), "n")?.unwrap_or("");
        for (slot, sum) in self.slots(&base.name, name) {
            let value = if sum {
                let sum = with_base(base.sum, number(entry(record, "s", "5"), "s")?);
                sum.map(|sum| finite(sum, SUM)).transpose()?
            } else {
                self.value(record, base, slot)?
            };
            // A record may bring a sum alone (section 4.2), or no sum.
            let Some(value) = value else { continue };
            let time = base.time + number(entry(record, "t", "6"), "t")?.unwrap_or(0.0);
            let at = (resolve(time, received)?, self.key(base, record)?);
            self.place(slot, value, at, received, pack)?;
        }
        Ok(())
    }

    /// A record's value as the field wants it; `None` where it has a sum only.
    fn value(&self, record: &[(String, Tree)], base: &Base, slot: usize) -> Result<Option<FieldValue>, DecodeError> {
        let slot = &self.layout.fields[slot];
        let path = slot.path.text();
        let value = number(entry(record, "v", "2"), path)?;
        let flag = number(entry(record, "vb", "4"), path)?;
        let words = text(entry(record, "vs", "3"), "vs")?;
        let is_data = entry(record, "vd", "8").is_some();
        let kinds = [value.is_some(), flag.is_some(), words.is_some(), is_data];
        let stated = kinds.into_iter().filter(|is_stated| *is_stated).count();
        if stated > 1 {
            return Err(malformed(format!("{path}: a record has at most one value")));
        }
        let own = if stated == 0 { base.value } else { value.map(|value| base.value.unwrap_or(0.0) + value) };
        match (slot.kind, own.or(flag), words) {
            (FieldKind::Number, Some(value), _) => finite(value, path).map(Some),
            (FieldKind::Text, _, Some(words)) => Ok(Some(FieldValue::Text(Personal::new(Arc::from(words))))),
            _ if is_data => Err(malformed(format!("{path}: a data value (vd) is neither a number nor text"))),
            _ if stated == 0 && entry(record, "s", "5").is_some() => Ok(None),
            _ => Err(malformed(format!("{path}: the record has no value of the field's kind"))),
        }
    }

    /// Puts a value into the reading of its time and key.
    fn place(
        &self,
        slot: usize,
        value: FieldValue,
        (time, key): (Timestamp, KeyValues),
        received: Timestamp,
        pack: &mut Pack<'_>,
    ) -> Result<(), DecodeError> {
        let row = match pack.rows.entry((time, key)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let row = pack.room.take().then(|| {
                    let values = self.layout.fields.iter().map(|_| FieldValue::Missing).collect::<Values>();
                    let reading = Reading { time, received, sequence: None, values };
                    pack.out.rows.push(DecodedRow { key: new.key().1.clone(), reading });
                    pack.out.rows.len() - 1
                });
                *new.insert(row)
            }
        };
        let Some(row) = row else { return Ok(()) };
        let place = &mut pack.out.rows[row].reading.values[slot];
        if *place != FieldValue::Missing {
            let path = self.layout.fields[slot].path.text();
            let detail = format!(
                "{path}: a second value for one time and key; several sensors in a pack need a key such as `bn`"
            );
            return Err(error(SetAsideReason::Duplicate, detail));
        }
        *place = value;
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

/// A pack while it is decoded.
struct Pack<'o> {
    rows: Rows,
    room: Room,
    out: &'o mut Decoded,
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
        if let Err(error) = check_form(&records) {
            return out.errors.push(DecodeError { readings: records.len() as u64, ..error });
        }
        let before = (out.rows.len(), out.errors.len());
        let mut pack = Pack { rows: Rows::new(), room: self.layout.room(), out };
        let mut base = Base::default();
        for record in &records {
            let taken = match record {
                Tree::Map(record) => {
                    base.take(record).and_then(|()| self.take_record(record, &base, received, &mut pack))
                }
                _ => Err(malformed("a record of the pack is no object")),
            };
            if let Err(error) = taken
                && pack.room.take()
            {
                pack.out.errors.push(error);
            }
        }
        pack.room.close(out);
        if (out.rows.len(), out.errors.len()) == before {
            out.errors.push(malformed("no record of the pack is a field of the stream"));
        }
    }
}
