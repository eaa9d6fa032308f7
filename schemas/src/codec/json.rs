//! JSON: objects, arrays of objects. Objects whose paths are all names of the top level take a short way without a tree.

use std::sync::Arc;

use super::layout::{Layout, bad_timestamp, finite, key_text, malformed};
use super::scan::{self, Scalar};
use super::timestamp::{from_number, parse_timestamp};
use super::tree::Tree;
use super::{Decode, DecodeError, Decoded, DecodedRow};
use crate::personal::Personal;
use crate::reading::{FieldValue, KeyValues, Reading, Values};
use crate::stream::FieldKind;
use crate::time::Timestamp;

pub(super) struct Json {
    layout: Layout,
    flat: Option<Flat>,
}

impl Json {
    pub(super) fn new(layout: Layout) -> Self {
        let flat = Flat::new(&layout);
        Self { layout, flat }
    }
}

impl Decode for Json {
    fn decode(&self, payload: &[u8], received: Timestamp, out: &mut Decoded) {
        if !self.layout.admits(payload, out) {
            return;
        }
        if let Some(flat) = &self.flat
            && let Some(row) = flat.decode(&self.layout, payload, received)
        {
            return out.push(row);
        }
        match serde_json::from_slice::<Tree>(payload) {
            Ok(tree) => self.layout.take_tree(&tree, received, out),
            Err(error) => out.errors.push(syntax(&error)),
        }
    }
}

/// Where the JSON breaks. serde_json's own text may quote the payload.
fn syntax(error: &serde_json::Error) -> DecodeError {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "ends too early",
        _ => "is broken",
    };
    malformed(format!("the JSON {what} at line {}, column {}", error.line(), error.column()))
}

/// What a name of the top level is for; a name may be for several things.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Field(usize),
    Key(usize),
    Time,
    Sequence,
}

/// The names of the top level that matter.
struct Flat {
    names: Vec<(String, Role)>,
    slots: usize,
}

impl Flat {
    fn new(layout: &Layout) -> Option<Self> {
        if layout.rows.is_some() || layout.rate.is_some() || layout.rate_hz.is_some() {
            return None;
        }
        let mut names = Vec::new();
        for (index, slot) in layout.fields.iter().enumerate() {
            names.push((slot.path.top_level_name()?.to_owned(), Role::Field(index)));
        }
        for (index, path) in layout.key.iter().enumerate() {
            names.push((path.top_level_name()?.to_owned(), Role::Key(index)));
        }
        if let Some((path, _)) = &layout.timestamp {
            names.push((path.top_level_name()?.to_owned(), Role::Time));
        }
        if let Some(path) = &layout.sequence {
            names.push((path.top_level_name()?.to_owned(), Role::Sequence));
        }
        let mut distinct: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
        distinct.sort_unstable();
        distinct.dedup();
        // One name for two things needs the tree.
        let slots = names.len();
        (distinct.len() == slots).then_some(Self { names, slots })
    }

    /// The row, or `None` where the payload is no flat object and needs the tree (which also words its errors).
    fn decode(&self, layout: &Layout, payload: &[u8], received: Timestamp) -> Option<Result<DecodedRow, DecodeError>> {
        let mut found: smallvec::SmallVec<[Scalar<'_>; 8]> = smallvec::SmallVec::new();
        found.resize_with(self.slots, || Scalar::Null);
        scan::object(payload, |name, value| {
            let place = self.names.iter().position(|(known, _)| known == name);
            // The first of two equal names counts, as in the tree.
            if let Some(slot) = place.and_then(|place| found.get_mut(place))
                && *slot == Scalar::Null
            {
                *slot = value;
            }
        })?;
        if found.iter().any(|scalar| matches!(scalar, Scalar::Other)) {
            return None;
        }
        Some(self.row(layout, &found, received))
    }

    fn row(&self, layout: &Layout, found: &[Scalar<'_>], received: Timestamp) -> Result<DecodedRow, DecodeError> {
        let mut values = Values::new();
        let mut key = KeyValues::new();
        let (mut time, mut sequence, mut any) = (received, None, false);
        for ((_, role), scalar) in self.names.iter().zip(found) {
            match role {
                Role::Field(index) => {
                    let slot = &layout.fields[*index];
                    let value = scalar.field(slot.kind, slot.path.text())?;
                    any |= value != FieldValue::Missing;
                    values.push(value);
                }
                Role::Key(index) => key.push(scalar.key(layout.key[*index].text())?),
                Role::Time => {
                    let Some((path, spec)) = &layout.timestamp else { continue };
                    let read = match scalar {
                        Scalar::Integer(number) => from_number(*number as f64, spec.unit),
                        Scalar::Number(number) => from_number(*number, spec.unit),
                        Scalar::Text(text) => parse_timestamp(text, spec.unit),
                        Scalar::Null | Scalar::Other => None,
                    };
                    time = read.ok_or_else(|| bad_timestamp(path.text()))?;
                }
                Role::Sequence => sequence = scalar.sequence(),
            }
        }
        if !any {
            let first = layout.fields.first().map_or("$", |slot| slot.path.text());
            return Err(malformed(format!("{first}: no field of the stream has a value")));
        }
        Ok(DecodedRow { key, reading: Reading { time, received, sequence, values } })
    }
}

impl Scalar<'_> {
    fn field(&self, kind: FieldKind, path: &str) -> Result<FieldValue, DecodeError> {
        match (kind, self) {
            (_, Self::Null) => Ok(FieldValue::Missing),
            (FieldKind::Number, Self::Integer(number)) => finite(*number as f64, path),
            (FieldKind::Number, Self::Number(number)) => finite(*number, path),
            (FieldKind::Text, Self::Text(text)) => Ok(FieldValue::Text(Personal::new(Arc::from(text.as_ref())))),
            (FieldKind::Number, _) => Err(malformed(format!("{path}: expected a number, found text"))),
            (FieldKind::Text, _) => Err(malformed(format!("{path}: expected text, found a number"))),
        }
    }

    fn key(&self, path: &str) -> Result<Personal<Arc<str>>, DecodeError> {
        match self {
            Self::Text(text) => key_text(text, path),
            Self::Integer(number) => key_text(&number.to_string(), path),
            _ => key_text("", path),
        }
    }

    fn sequence(&self) -> Option<u64> {
        match self {
            Self::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}
