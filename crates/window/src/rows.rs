//! The rows of one window, column by column, small while they wait and made into Arrow arrays when the window closes.
//!
//! Rows are stored in order of arrival and never moved: a row out of order costs an insertion into an index of four bytes
//! a row, so that a device that sends its backlog backwards cannot make a stream slow (promise I3).

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::buffer::NullBuffer;
use arrow::record_batch::RecordBatch;
use nearside_schemas::{FieldKind, FieldValue, Personal, Reading, SetAsideReason, Timestamp, Values};

use crate::plan::WindowPlan;

/// How many rows of one instant a new row is compared with to see whether it is a duplicate: the latest ones. Without a bound
/// a flood of rows with one time would cost the square of their number.
pub(crate) const SAME_TIME_HORIZON: usize = 1_024;

/// Stands for a number that is missing: readings hold finite numbers only.
const MISSING: f64 = f64::NAN;

#[derive(Debug, Clone, Copy)]
struct Stamp {
    time: Timestamp,
    received: Timestamp,
}

/// Rows, read in order of time, rows of equal time in order of arrival. "Place" is the position in that order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    stamps: Vec<Stamp>,
    /// Empty while no row has one.
    sequences: Vec<Option<u64>>,
    /// The numeric fields, row after row.
    numbers: Vec<f64>,
    /// The text fields, row after row.
    texts: Vec<Option<Personal<Arc<str>>>>,
    /// Place to arrival; empty while they are the same.
    order: Vec<u32>,
}

impl Rows {
    /// No rows yet, with room for `rows`.
    pub(crate) fn with_capacity(plan: &WindowPlan, rows: usize) -> Self {
        Self {
            stamps: Vec::with_capacity(rows),
            sequences: Vec::new(),
            numbers: Vec::with_capacity(rows * plan.numbers),
            texts: Vec::with_capacity(rows * plan.texts),
            order: Vec::new(),
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.stamps.len()
    }

    /// The earliest time.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        (self.len() > 0).then(|| self.time(0))
    }

    /// The latest time.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        self.len().checked_sub(1).map(|place| self.time(place))
    }

    fn arrival(&self, place: usize) -> usize {
        self.order.get(place).map_or(place, |arrival| *arrival as usize)
    }

    fn time(&self, place: usize) -> Timestamp {
        self.stamps[self.arrival(place)].time
    }

    /// Puts a row at its place.
    pub(crate) fn insert(
        &mut self,
        plan: &WindowPlan,
        reading: &Reading,
        max_rows: usize,
    ) -> Result<(), SetAsideReason> {
        let place = if self.last().is_none_or(|last| last < reading.time) {
            self.len()
        } else {
            let place = self.place_after(reading.time);
            if self.holds_duplicate(plan, reading, place) {
                return Err(SetAsideReason::Duplicate);
            }
            place
        };
        if self.len() >= max_rows.min(u32::MAX as usize) {
            return Err(SetAsideReason::Overflow);
        }
        if place < self.len() || !self.order.is_empty() {
            self.index_all();
            self.order.insert(place, self.len() as u32);
        }
        self.append(plan, reading);
        Ok(())
    }

    /// Takes in the rows of `other`, all of them later than all of these.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        let offset = self.len() as u32;
        if !self.order.is_empty() || !other.order.is_empty() {
            self.index_all();
            other.index_all();
            self.order.extend(other.order.iter().map(|arrival| arrival + offset));
        }
        if !self.sequences.is_empty() || !other.sequences.is_empty() {
            self.sequences.resize(self.stamps.len(), None);
            other.sequences.resize(other.stamps.len(), None);
            self.sequences.append(&mut other.sequences);
        }
        self.stamps.append(&mut other.stamps);
        self.numbers.append(&mut other.numbers);
        self.texts.append(&mut other.texts);
    }

    fn index_all(&mut self) {
        if self.order.is_empty() {
            self.order.extend(0..self.stamps.len() as u32);
        }
    }

    /// The place after the last row that is not later than `time`.
    fn place_after(&self, time: Timestamp) -> usize {
        if self.order.is_empty() {
            self.stamps.partition_point(|stamp| stamp.time <= time)
        } else {
            self.order.partition_point(|arrival| self.stamps[*arrival as usize].time <= time)
        }
    }

    /// Whether one of the rows before `end` with the reading's time is the same row.
    fn holds_duplicate(&self, plan: &WindowPlan, reading: &Reading, end: usize) -> bool {
        let places = (end.saturating_sub(SAME_TIME_HORIZON)..end).rev();
        let mut same_time =
            places.map(|place| self.arrival(place)).take_while(|at| self.stamps[*at].time == reading.time);
        same_time.any(|at| match (self.sequences.get(at).copied().flatten(), reading.sequence) {
            // Sequence numbers tell; without them the values do, for two true readings may share a time.
            (Some(a), Some(b)) => a == b,
            (None, None) => plan.same_values_are_same_row && self.has_values(plan, at, &reading.values),
            _ => false,
        })
    }

    fn has_values(&self, plan: &WindowPlan, at: usize, values: &Values) -> bool {
        let (mut numbers, mut texts) = (self.numbers_of(plan, at).iter(), self.texts_of(plan, at).iter());
        plan.fields.iter().enumerate().all(|(index, kind)| match kind {
            FieldKind::Number => {
                let (a, b) = (numbers.next().copied().unwrap_or(MISSING), number(values.get(index)));
                a == b || (a.is_nan() && b.is_nan())
            }
            FieldKind::Text => texts.next().is_some_and(|mine| mine.as_ref() == text(values.get(index))),
        })
    }

    /// Puts a row after all others, unchecked: it must not be earlier than they are, or `order` must say where it belongs.
    pub(crate) fn append(&mut self, plan: &WindowPlan, reading: &Reading) {
        if reading.sequence.is_some() || !self.sequences.is_empty() {
            self.sequences.resize(self.stamps.len(), None);
            self.sequences.push(reading.sequence);
        }
        self.stamps.push(Stamp { time: reading.time, received: reading.received });
        for (index, kind) in plan.fields.iter().enumerate() {
            match kind {
                FieldKind::Number => self.numbers.push(number(reading.values.get(index))),
                FieldKind::Text => self.texts.push(text(reading.values.get(index)).cloned()),
            }
        }
    }

    fn numbers_of(&self, plan: &WindowPlan, at: usize) -> &[f64] {
        &self.numbers[at * plan.numbers..(at + 1) * plan.numbers]
    }

    fn texts_of(&self, plan: &WindowPlan, at: usize) -> &[Option<Personal<Arc<str>>>] {
        &self.texts[at * plan.texts..(at + 1) * plan.texts]
    }

    /// The rows as readings, in order.
    pub(crate) fn readings<'a>(&'a self, plan: &'a WindowPlan) -> impl Iterator<Item = Reading> + 'a {
        (0..self.len()).map(move |place| {
            let at = self.arrival(place);
            let (mut numbers, mut texts) = (self.numbers_of(plan, at).iter(), self.texts_of(plan, at).iter());
            let value = |kind: &FieldKind| match kind {
                FieldKind::Number => match numbers.next() {
                    Some(number) if !number.is_nan() => FieldValue::Number(*number),
                    _ => FieldValue::Missing,
                },
                FieldKind::Text => {
                    texts.next().and_then(Option::as_ref).map_or(FieldValue::Missing, |t| FieldValue::Text(t.clone()))
                }
            };
            Reading {
                time: self.stamps[at].time,
                received: self.stamps[at].received,
                sequence: self.sequences.get(at).copied().flatten(),
                values: plan.fields.iter().map(value).collect(),
            }
        })
    }

    /// The rows as Arrow columns, each of exactly the size it needs.
    pub(crate) fn to_batch(&self, plan: &WindowPlan) -> RecordBatch {
        let time_type = plan.schema.field(nearside_schemas::arrow_schema::TIME).data_type();
        let stamps = |pick: fn(&Stamp) -> Timestamp| {
            let column = TimestampMicrosecondArray::from_iter_values(self.map(|at| pick(&self.stamps[at]).as_micros()));
            Arc::new(column.with_data_type(time_type.clone())) as ArrayRef
        };
        let mut columns = Vec::with_capacity(plan.schema.fields().len());
        columns.push(stamps(|stamp| stamp.time));
        columns.push(stamps(|stamp| stamp.received));
        columns.push(Arc::new(self.sequence_column()));
        let (mut number, mut text) = (0, 0);
        for kind in &plan.fields {
            match kind {
                FieldKind::Number => {
                    columns.push(Arc::new(self.number_column(number, plan.numbers)));
                    number += 1;
                }
                FieldKind::Text => {
                    columns.push(Arc::new(self.text_column(text, plan.texts)));
                    text += 1;
                }
            }
        }
        // Columns and schema are made from the same fields; an empty batch stands in if that were ever untrue.
        RecordBatch::try_new(plan.schema.clone(), columns)
            .unwrap_or_else(|_| RecordBatch::new_empty(plan.schema.clone()))
    }

    /// `each` for the row at every place.
    fn map<'a, T>(&'a self, each: impl Fn(usize) -> T + 'a) -> impl ExactSizeIterator<Item = T> + 'a {
        (0..self.len()).map(move |place| each(self.arrival(place)))
    }

    fn sequence_column(&self) -> UInt64Array {
        if self.sequences.is_empty() {
            return UInt64Array::new_null(self.len());
        }
        self.map(|at| self.sequences.get(at).copied().flatten()).collect()
    }

    fn number_column(&self, field: usize, width: usize) -> Float64Array {
        let values: Vec<f64> = self.map(|at| self.numbers[at * width + field]).collect();
        if !values.iter().any(|value| value.is_nan()) {
            return Float64Array::from(values);
        }
        let nulls: NullBuffer = values.iter().map(|value| !value.is_nan()).collect::<Vec<bool>>().into();
        let values: Vec<f64> = values.into_iter().map(|value| if value.is_nan() { 0.0 } else { value }).collect();
        Float64Array::new(values.into(), Some(nulls))
    }

    fn text_column(&self, field: usize, width: usize) -> StringArray {
        self.map(|at| self.texts[at * width + field].as_ref().map(|text| text.expose().as_ref())).collect()
    }
}

/// The number, or [`MISSING`] where the value is none.
fn number(value: Option<&FieldValue>) -> f64 {
    value.and_then(FieldValue::number).unwrap_or(MISSING)
}

fn text(value: Option<&FieldValue>) -> Option<&Personal<Arc<str>>> {
    match value {
        Some(FieldValue::Text(text)) => Some(text),
        _ => None,
    }
}
