//! Where things stand in a payload, and how a row of values becomes readings: what all codecs share.

use std::sync::Arc;
use std::time::Duration;

use super::path::Path;
use super::room::Room;
use super::timestamp::{from_number, parse_timestamp};
use super::tree::Tree;
use super::{CodecError, DecodeError, Decoded, DecodedRow, TimestampSpec};
use crate::personal::Personal;
use crate::reading::{FieldValue, KeyValues, Reading, Values};
use crate::set_aside::SetAsideReason;
use crate::stream::{FieldKind, StreamSpec};
use crate::time::Timestamp;

/// Longest key part, in bytes.
const MAX_KEY_BYTES: usize = 256;

/// One field: its path and kind.
pub(super) struct Slot {
    pub(super) path: Path,
    pub(super) kind: FieldKind,
}

/// A stream definition with its paths read.
pub(super) struct Layout {
    pub(super) fields: Vec<Slot>,
    pub(super) key: Vec<Path>,
    pub(super) timestamp: Option<(Path, TimestampSpec)>,
    pub(super) sequence: Option<Path>,
    pub(super) rows: Option<Path>,
    pub(super) rate_hz: Option<f64>,
    pub(super) rate: Option<Path>,
    pub(super) max_payload_bytes: usize,
    pub(super) max_readings: usize,
}

pub(super) fn error(reason: SetAsideReason, detail: impl Into<String>) -> DecodeError {
    DecodeError { reason, detail: detail.into(), readings: 1 }
}

pub(super) fn malformed(detail: impl Into<String>) -> DecodeError {
    error(SetAsideReason::Malformed, detail)
}

impl Layout {
    pub(super) fn new(spec: &StreamSpec) -> Result<Self, CodecError> {
        if spec.fields.is_empty() || spec.codec.paths.len() != spec.fields.len() {
            return Err(CodecError { what: "a stream needs at least one field, and each field a path".to_owned() });
        }
        let optional = |path: &Option<String>| path.as_deref().map(Path::parse).transpose();
        let fields = spec.fields.iter().zip(&spec.codec.paths);
        let timestamp = match &spec.timestamp {
            Some(timestamp) if !timestamp.path.is_empty() => Some((Path::parse(&timestamp.path)?, timestamp.clone())),
            _ => None,
        };
        Ok(Self {
            fields: fields
                .map(|(field, path)| Ok(Slot { path: Path::parse(path)?, kind: field.kind }))
                .collect::<Result<_, CodecError>>()?,
            key: spec.key.iter().filter_map(|part| part.path.as_deref()).map(Path::parse).collect::<Result<_, _>>()?,
            timestamp,
            sequence: optional(&spec.sequence)?,
            rows: optional(&spec.codec.rows)?,
            rate_hz: spec.codec.rate_hz,
            rate: optional(&spec.codec.rate_path)?,
            max_payload_bytes: spec.codec.max_payload_bytes,
            max_readings: spec.codec.max_readings,
        })
    }

    /// Whether the payload is small enough to be looked at.
    pub(super) fn admits(&self, payload: &[u8], out: &mut Decoded) -> bool {
        let fits = payload.len() <= self.max_payload_bytes;
        if !fits {
            let detail = format!("the payload has more than {} bytes", self.max_payload_bytes);
            out.errors.push(error(SetAsideReason::TooLarge, detail));
        }
        fits
    }

    /// The room of a message.
    pub(super) const fn room(&self) -> Room {
        Room::new(self.max_readings)
    }

    /// The rows of a tree: the tree itself, its items where it is an array, or what stands at `rows`.
    pub(super) fn take_tree(&self, tree: &Tree, received: Timestamp, out: &mut Decoded) {
        let rows = match &self.rows {
            None => Some(tree),
            Some(path) => path.find(tree),
        };
        let mut room = self.room();
        match rows {
            Some(Tree::Array(items)) => {
                let common = self.common(tree);
                for item in items {
                    self.take_row(item, &common, received, &mut room, out);
                }
            }
            Some(row @ Tree::Map(_)) => {
                let common = if self.rows.is_some() { self.common(tree) } else { Common(Vec::new()) };
                self.take_row(row, &common, received, &mut room, out);
            }
            Some(other) => {
                out.errors.push(malformed(format!("expected an object or an array, found {}", other.kind())))
            }
            None => {
                let path = self.rows.as_ref().map_or("$", Path::text);
                out.errors.push(malformed(format!("{path}: nothing stands there")));
            }
        }
        room.close(out);
    }

    /// What stands at the payload's top for each path: a device's name, a common time. Looked for once a message, not once a row.
    fn common<'t>(&'t self, top: &'t Tree) -> Common<'t> {
        let fields = self.fields.iter().map(|slot| &slot.path).chain(&self.key);
        let others = self.timestamp.iter().map(|(path, _)| path).chain(&self.sequence).chain(&self.rate);
        Common(fields.chain(others).map(|path| (path, path.find(top))).collect())
    }

    /// One row. What does not stand in the row itself is looked for at the payload's top.
    fn take_row(&self, row: &Tree, common: &Common<'_>, received: Timestamp, room: &mut Room, out: &mut Decoded) {
        let find = |path: &Path| path.find(row).or_else(|| common.find(path));
        match self.read_row(&find, received) {
            Ok(parsed) => {
                let samples = parsed.columns.iter().map(Column::len).max().unwrap_or(0);
                for sample in 0..room.take_many(samples) {
                    out.push(parsed.reading(sample));
                }
            }
            Err(error) => {
                if room.take() {
                    out.errors.push(error);
                }
            }
        }
    }

    fn read_row<'t>(
        &self,
        find: &impl Fn(&Path) -> Option<&'t Tree>,
        received: Timestamp,
    ) -> Result<ParsedRow<'t>, DecodeError> {
        let mut columns = Vec::with_capacity(self.fields.len());
        for slot in &self.fields {
            columns.push(match find(&slot.path) {
                None | Some(Tree::Null) => Column::Scalar(FieldValue::Missing),
                Some(Tree::Array(items)) => Column::Array(items, slot.kind, slot.path.text().to_owned()),
                Some(value) => Column::Scalar(scalar(value, slot.kind, slot.path.text())?),
            });
        }
        let has_value = |column: &Column<'_>| !matches!(column, Column::Scalar(FieldValue::Missing));
        if !columns.iter().any(has_value) {
            let first = self.fields.first().map_or("$", |slot| slot.path.text());
            return Err(malformed(format!("{first}: no field of the stream has a value")));
        }
        let rate = match self.rate.as_ref().and_then(find) {
            Some(Tree::Number(rate)) => Some(*rate),
            _ => self.rate_hz,
        };
        let is_array = columns.iter().any(|column| matches!(column, Column::Array(..)));
        let rate = match rate {
            Some(rate) if rate.is_finite() && rate > 0.0 => Some(rate),
            _ if is_array => return Err(malformed("an array of samples needs a rate above zero")),
            _ => None,
        };
        Ok(ParsedRow {
            key: self.read_key(find)?,
            time: self.read_time(find, received)?,
            received,
            sequence: self.sequence.as_ref().and_then(find).and_then(sequence),
            rate,
            columns,
        })
    }

    fn read_key<'t>(&self, find: &impl Fn(&Path) -> Option<&'t Tree>) -> Result<KeyValues, DecodeError> {
        self.key.iter().map(|path| key_part(find(path), path.text())).collect()
    }

    fn read_time<'t>(
        &self,
        find: &impl Fn(&Path) -> Option<&'t Tree>,
        received: Timestamp,
    ) -> Result<Timestamp, DecodeError> {
        let Some((path, spec)) = &self.timestamp else { return Ok(received) };
        let time = match find(path) {
            Some(Tree::Number(number)) => from_number(*number, spec.unit),
            Some(Tree::Text(text)) => parse_timestamp(text, spec.unit),
            _ => None,
        };
        time.ok_or_else(|| bad_timestamp(path.text()))
    }
}

/// What stands at a payload's top, by path.
struct Common<'t>(Vec<(&'t Path, Option<&'t Tree>)>);

impl<'t> Common<'t> {
    /// `path` is one of the layout's own: the same place in memory is the same path.
    fn find(&self, path: &Path) -> Option<&'t Tree> {
        self.0.iter().find(|(known, _)| std::ptr::eq(*known, path)).and_then(|(_, found)| *found)
    }
}

pub(super) fn bad_timestamp(path: &str) -> DecodeError {
    error(SetAsideReason::BadTimestamp, format!("{path}: expected a timestamp"))
}

/// A key part from a payload's value.
fn key_part(value: Option<&Tree>, path: &str) -> Result<Personal<Arc<str>>, DecodeError> {
    match value {
        Some(Tree::Text(text)) => key_text(text, path),
        Some(Tree::Number(number)) if number.fract() == 0.0 && number.abs() < 9e15 => {
            key_text(&(*number as i64).to_string(), path)
        }
        _ => Err(error(SetAsideReason::BadKey, format!("{path}: expected text or a whole number for the key"))),
    }
}

pub(super) fn key_text(text: &str, path: &str) -> Result<Personal<Arc<str>>, DecodeError> {
    if text.is_empty() || text.len() > MAX_KEY_BYTES {
        let detail = format!("{path}: a key part has 1 to {MAX_KEY_BYTES} bytes");
        return Err(error(SetAsideReason::BadKey, detail));
    }
    Ok(Personal::new(Arc::from(text)))
}

fn sequence(value: &Tree) -> Option<u64> {
    match value {
        Tree::Number(number) if number.fract() == 0.0 && (0.0..1.8e19).contains(number) => Some(*number as u64),
        _ => None,
    }
}

/// A value as its field wants it.
pub(super) fn scalar(value: &Tree, kind: FieldKind, path: &str) -> Result<FieldValue, DecodeError> {
    match (kind, value) {
        (_, Tree::Null) => Ok(FieldValue::Missing),
        (FieldKind::Number, Tree::Number(number)) => finite(*number, path),
        (FieldKind::Text, Tree::Text(text)) => Ok(FieldValue::Text(Personal::new(Arc::from(text.as_str())))),
        (FieldKind::Number, other) => Err(malformed(format!("{path}: expected a number, found {}", other.kind()))),
        (FieldKind::Text, other) => Err(malformed(format!("{path}: expected text, found {}", other.kind()))),
    }
}

pub(super) fn finite(number: f64, path: &str) -> Result<FieldValue, DecodeError> {
    if number.is_finite() {
        Ok(FieldValue::Number(number))
    } else {
        Err(error(SetAsideReason::NotFinite, format!("{path}: the number is not finite")))
    }
}

enum Column<'t> {
    Scalar(FieldValue),
    Array(&'t [Tree], FieldKind, String),
}

impl Column<'_> {
    const fn len(&self) -> usize {
        match self {
            Self::Scalar(_) => 1,
            Self::Array(items, ..) => items.len(),
        }
    }
}

struct ParsedRow<'t> {
    key: KeyValues,
    time: Timestamp,
    received: Timestamp,
    sequence: Option<u64>,
    rate: Option<f64>,
    columns: Vec<Column<'t>>,
}

impl ParsedRow<'_> {
    /// Sample number `sample`: scalars repeat beside arrays.
    fn reading(&self, sample: usize) -> Result<DecodedRow, DecodeError> {
        let mut values = Values::new();
        for column in &self.columns {
            values.push(match column {
                Column::Scalar(value) => value.clone(),
                Column::Array(items, kind, path) => match items.get(sample) {
                    Some(item) => scalar(item, *kind, path)?,
                    None => FieldValue::Missing,
                },
            });
        }
        let offset = self.rate.map_or(0.0, |rate| sample as f64 / rate);
        // An hour's worth of samples at most lies in a message; the bound keeps the arithmetic in range.
        let time = self.time.plus(Duration::from_secs_f64(offset.clamp(0.0, 1e9)));
        // A message's number tells its samples apart only together with their place.
        let sequence = if sample == 0 { self.sequence } else { None };
        let reading = Reading { time, received: self.received, sequence, values };
        Ok(DecodedRow { key: self.key.clone(), reading })
    }
}
