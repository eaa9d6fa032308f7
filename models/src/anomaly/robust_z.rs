//! Streaming robust z-score of each numeric field: no network, no training, cheap.
//!
//! `z = (x - m) / s` where `m` is the median of the field's last [`HISTORY`] values and `s` the robust scale
//! `1.4826 · MAD` (Iglewicz & Hoaglin 1993). Where more than half of the values are equal the MAD is 0 and says nothing:
//! `s` is then the larger of `1.2533 ·` mean absolute deviation and a quarter of the largest deviation in the history, so what a
//! two-state sensor does now and then is ordinary. `s` is never below 1 % of `|m|`. Median and scale are taken
//! anew every [`REFRESH`] rows; the value itself never counts towards its own baseline.
//!
//! Score: `|z| / (|z| + `[`HALF_AT`]`)`, 0 to 1 and monotone in `|z|`; a card's threshold of 0.5 flags from `|z|` = 6 on. Nothing is
//! flagged in the first [`WARM_UP`] rows.
//! Labels: `spike`, `drop` by the sign of `z`; `level_shift` for the [`SHIFT_AFTER`]th in a row on the same side, after which the
//! baseline is learnt anew from the new level; `flat_line` once, when a sensor that used to change repeats one value far
//! longer than it ever did (its score is the threshold). Another `spike`, `drop` or `level_shift` begins where [`BACK_AFTER`] rows that were
//! judged were without it.

use std::collections::VecDeque;

use nearside_schemas::{Contribution, FieldKind, FieldName, FieldSpec, FieldValue, ModelRef, Severity};

use crate::ModelError;
use crate::card::Card;
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting, raised_threshold};
use crate::snapshot::{Reader, Writer};

/// Values of the past that a field keeps.
pub const HISTORY: usize = 64;
/// Rows between two computations of median and scale.
pub const REFRESH: u32 = 8;
/// Rows of a field before anything is flagged.
pub const WARM_UP: u32 = 16;
/// The `|z|` whose score is 0.5.
pub const HALF_AT: f64 = 6.0;
/// Rows in a row on the same side that make a new level.
pub const SHIFT_AFTER: i8 = 5;
/// A value must be repeated this often, and four times as often as ever before, to be a flat line.
pub const FLAT_AFTER: u32 = 30;

/// Judged rows without a label after which the next with it is another one.
pub const BACK_AFTER: u32 = 10;

/// Version 1 did not know what was over.
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=2;
/// No z is larger: it would say nothing more.
const MOST_Z: f64 = 1e6;

/// The robust z-score as a row model.
pub struct RobustZ {
    reference: ModelRef,
    threshold: f64,
}

impl RobustZ {
    /// With the version and threshold of the card.
    pub fn new(card: &Card) -> Self {
        Self { reference: card.reference(), threshold: card.threshold }
    }

    fn state(&self, fields: &[FieldSpec]) -> RobustZState {
        let numeric = fields.iter().enumerate().filter(|(_, field)| field.kind == FieldKind::Number);
        RobustZState {
            fields: numeric.map(|(column, field)| (column, field.name.clone(), Baseline::default())).collect(),
            thresholds: vec![self.threshold; fields.iter().filter(|field| field.kind == FieldKind::Number).count()],
            threshold: self.threshold,
            pending: VecDeque::new(),
        }
    }
}

impl RowModel for RobustZ {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn judges_fields(&self) -> bool {
        true
    }

    fn judges_patients(&self) -> bool {
        false
    }

    fn heeds_feedback(&self, label: &str) -> bool {
        label != FLAT_LINE
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        if fields.iter().any(|field| field.kind == FieldKind::Number) {
            return Ok(());
        }
        let why = String::from("it judges numbers and the stream has no numeric field");
        Err(ModelError::Unfit { model: self.reference.name.to_string(), why })
    }

    fn new_state(&self, fields: &[FieldSpec]) -> Box<dyn RowState> {
        Box::new(self.state(fields))
    }

    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        let mut state = self.state(fields);
        let (mut reader, version) = Reader::of_versions(self.reference.name.as_str(), VERSIONS, snapshot)?;
        if reader.count(u32::MAX as usize)? != state.fields.len() {
            return Err(reader.damaged("the stream has other fields now"));
        }
        for (_, _, baseline) in &mut state.fields {
            *baseline = Baseline::read(&mut reader, version)?;
        }
        reader.finish()?;
        Ok(Box::new(state))
    }
}

struct RobustZState {
    /// Column, name and baseline of each numeric field.
    fields: Vec<(usize, FieldName, Baseline)>,
    /// Of each of `fields`: the card's, or raised by feedback.
    thresholds: Vec<f64>,
    threshold: f64,
    /// The numeric values of rows that were taken and not judged, in the order of `fields`.
    pending: VecDeque<Option<f64>>,
}

impl RowState for RobustZState {
    fn take(&mut self, row: &Row<'_>, _inputs: &mut Vec<f32>) -> usize {
        let values = self.fields.iter().map(|(column, ..)| row.values.get(*column).and_then(FieldValue::number));
        self.pending.extend(values);
        0
    }

    fn judge(&mut self, _outputs: &[f32]) -> RowVerdict {
        let mut verdict = RowVerdict { threshold: self.threshold, ..RowVerdict::default() };
        let mut seen: Vec<(usize, Judged)> = Vec::new();
        for (index, (_, _, baseline)) in self.fields.iter_mut().enumerate() {
            let Some(Some(value)) = self.pending.pop_front() else { continue };
            let threshold = self.thresholds[index];
            let judged = baseline.judge(value, flag_at(threshold));
            let score = match (judged.label, score(judged.z)) {
                (Some(FLAT_LINE), _) => threshold,
                // Beyond the card's threshold and not beyond the raised one.
                (None, score) if score >= self.threshold => self.threshold.next_down(),
                (_, score) => score,
            };
            verdict.score = verdict.score.max(score);
            if judged.label.is_some() {
                seen.push((index, judged));
            }
        }
        if !seen.is_empty() {
            verdict.flagged = true;
            let (sighting, threshold) = self.sighting(seen, verdict.score);
            verdict.sightings.push(sighting);
            verdict.threshold = threshold;
        }
        verdict
    }

    fn raise_threshold(&mut self, field: Option<&FieldName>, steps: f64) {
        if let Some(at) = self.fields.iter().position(|(_, name, _)| Some(name) == field) {
            self.thresholds[at] = raised_threshold(self.threshold, steps);
        }
    }

    fn skip(&mut self) {
        let _ = self.judge(&[]);
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(*VERSIONS.end());
        writer.u32(self.fields.len() as u32);
        self.fields.iter().for_each(|(_, _, baseline)| baseline.write(&mut writer));
        writer.finish()
    }
}

impl RobustZState {
    /// What was seen, and the threshold of the field that it is about.
    fn sighting(&self, mut seen: Vec<(usize, Judged)>, score: f64) -> (Sighting, f64) {
        // What begins is told before what goes on.
        seen.sort_by(|(_, a), (_, b)| b.begins.cmp(&a.begins).then(b.z.abs().total_cmp(&a.z.abs())));
        let band = |index: usize, judged: &Judged| {
            let ordinary = flag_at(self.thresholds[index]) * judged.scale;
            (judged.median - ordinary, judged.median + ordinary)
        };
        let sum: f64 = seen.iter().map(|(_, judged)| judged.z.abs()).sum();
        let count = seen.len() as f64;
        let contributions = seen.iter().map(|(index, judged)| Contribution {
            field: self.fields[*index].1.clone(),
            seen: judged.value,
            expected: Some(judged.median),
            band: Some(band(*index, judged)),
            share: if sum > 0.0 { judged.z.abs() / sum } else { 1.0 / count },
            note: judged.label.filter(|label| *label != judged.side()).map(String::from),
        });
        let contributions = contributions.collect();
        let (index, first) = &seen[0];
        let name = &self.fields[*index].1;
        let text = match first.label {
            Some(FLAT_LINE) => format!("{name} repeats one value for {FLAT_AFTER} rows or more and used to change."),
            Some(LEVEL_SHIFT) => {
                format!("{name} stays {:.1} robust standard deviations from its recent level.", first.z)
            }
            _ => format!("{name} is {:.1} robust standard deviations from its recent median.", first.z),
        };
        let label = first.label.unwrap_or(SPIKE);
        let begins = first.begins;
        (Sighting { label, begins, severity: Severity::Warning, score, contributions, text }, self.thresholds[*index])
    }
}

const SPIKE: &str = "spike";
const DROP: &str = "drop";
const LEVEL_SHIFT: &str = "level_shift";
const FLAT_LINE: &str = "flat_line";

/// 0 to 1, monotone in `|z|`.
fn score(z: f64) -> f64 {
    z.abs() / (z.abs() + HALF_AT)
}

/// The `|z|` whose score is `threshold`.
fn flag_at(threshold: f64) -> f64 {
    HALF_AT * threshold / (1.0 - threshold).max(f64::MIN_POSITIVE)
}

/// One value and what it was held against.
struct Judged {
    value: f64,
    z: f64,
    median: f64,
    scale: f64,
    label: Option<&'static str>,
    /// Whether that is another one.
    begins: bool,
}

impl Judged {
    fn side(&self) -> &'static str {
        if self.z < 0.0 { DROP } else { SPIKE }
    }
}

/// What is known of one field: the last values, their median and scale, and runs.
#[derive(Clone)]
struct Baseline {
    history: [f64; HISTORY],
    /// Values in `history`.
    filled: u32,
    /// Where the next value goes.
    next: u32,
    /// Rows until median and scale are computed anew.
    stale_in: u32,
    median: f64,
    scale: f64,
    /// Values beyond the threshold in a row: positive above, negative below.
    beyond: i8,
    last: f64,
    /// Times `last` was repeated.
    run: u32,
    /// The longest earlier run.
    longest: u32,
    /// Judged rows since one above, one below and a new level.
    calm: [u32; 3],
}

impl Default for Baseline {
    fn default() -> Self {
        Self {
            history: [0.0; HISTORY],
            filled: 0,
            next: 0,
            stale_in: 0,
            median: 0.0,
            scale: 0.0,
            beyond: 0,
            last: 0.0,
            run: 0,
            longest: 0,
            calm: [0; 3],
        }
    }
}

impl Baseline {
    fn judge(&mut self, value: f64, flag_at: f64) -> Judged {
        let flat = self.count_run(value);
        let (median, scale, label) = (self.median, self.scale, flat.then_some(FLAT_LINE));
        let mut judged = Judged { value, z: 0.0, median, scale, label, begins: flat };
        if self.filled >= WARM_UP {
            judged.z = self.z(value);
            self.count_beyond(judged.z, flag_at);
            let is_shift = self.beyond.abs() >= SHIFT_AFTER;
            if self.beyond != 0 {
                judged.label = Some(if is_shift { LEVEL_SHIFT } else { judged.side() });
            }
            judged.begins |= self.count_calm([self.beyond > 0, self.beyond < 0, is_shift]);
        }
        self.push(value);
        if self.beyond.abs() >= SHIFT_AFTER {
            self.relearn();
        }
        judged
    }

    /// Counts the rows without each; whether what the row is told as was over before it.
    fn count_calm(&mut self, is_there: [bool; 3]) -> bool {
        // A new level is told as that.
        let told = is_there.iter().rposition(|is_there| *is_there);
        let begins = told.is_some_and(|told| self.calm[told] >= BACK_AFTER);
        for (calm, is_there) in self.calm.iter_mut().zip(is_there) {
            *calm = if is_there { 0 } else { calm.saturating_add(1) };
        }
        begins
    }

    fn z(&self, value: f64) -> f64 {
        let deviation = (value - self.median).clamp(-f64::MAX, f64::MAX);
        if deviation == 0.0 {
            return 0.0;
        }
        (deviation / self.scale.max(f64::MIN_POSITIVE)).clamp(-MOST_Z, MOST_Z)
    }

    fn count_beyond(&mut self, z: f64, flag_at: f64) {
        self.beyond = match self.beyond {
            _ if z.abs() < flag_at => 0,
            before if z > 0.0 => before.max(0) + 1,
            before => before.min(0) - 1,
        };
    }

    /// Counts repetitions; whether this one makes a flat line.
    fn count_run(&mut self, value: f64) -> bool {
        if self.filled > 0 && value == self.last {
            self.run = self.run.saturating_add(1);
        } else {
            self.longest = self.longest.max(self.run);
            self.run = 0;
        }
        self.last = value;
        // The scale is that of the varying past as long as most of the history is older than the run.
        self.run == FLAT_AFTER.max(4 * self.longest.min(u32::MAX / 4)) && self.run < HISTORY as u32 && self.has_varied()
    }

    /// Whether most values before the run differ from it.
    fn has_varied(&self) -> bool {
        let before = self.filled.saturating_sub(self.run);
        let other = self.history[..self.filled as usize].iter().filter(|value| **value != self.last).count() as u32;
        before >= WARM_UP && 2 * other > before
    }

    fn push(&mut self, value: f64) {
        self.history[self.next as usize % HISTORY] = value;
        self.next = (self.next + 1) % HISTORY as u32;
        self.filled = (self.filled + 1).min(HISTORY as u32);
        if self.stale_in <= 1 || self.filled == WARM_UP {
            self.refresh();
            self.stale_in = REFRESH;
        } else {
            self.stale_in -= 1;
        }
    }

    /// Forgets all but the values of the new level.
    fn relearn(&mut self) {
        let Self { last, run, longest, calm, .. } = *self;
        let mut fresh = Self { last, run, longest, calm, ..Self::default() };
        for back in (1..=SHIFT_AFTER as usize).rev() {
            fresh.push(self.history[(self.next as usize + HISTORY - back) % HISTORY]);
        }
        *self = fresh;
    }

    fn refresh(&mut self) {
        let mut values = self.history;
        let values = &mut values[..self.filled as usize];
        self.median = middle(values);
        let median = self.median;
        for value in values.iter_mut() {
            *value = (*value - median).abs().min(f64::MAX);
        }
        let mad = middle(values);
        let spread = if mad > 0.0 {
            1.4826 * mad
        } else {
            let largest = values.iter().fold(0.0, |most: f64, value| most.max(*value));
            // Divided before it is summed: a sum of huge deviations must not overflow.
            let mean: f64 = values.iter().map(|value| value / self.filled as f64).sum();
            (1.2533 * mean).max(largest / 4.0)
        };
        self.scale = spread.max(0.01 * median.abs()).min(f64::MAX);
    }

    fn write(&self, writer: &mut Writer) {
        writer.u32(self.filled);
        writer.u32(self.next);
        writer.u32(self.stale_in);
        writer.f64(self.median);
        writer.f64(self.scale);
        writer.u8(self.beyond.to_le_bytes()[0]);
        writer.f64(self.last);
        writer.u32(self.run);
        writer.u32(self.longest);
        self.calm.iter().for_each(|rows| writer.u32(*rows));
        self.history[..self.filled as usize].iter().for_each(|value| writer.f64(*value));
    }

    fn read(reader: &mut Reader<'_>, version: u8) -> Result<Self, ModelError> {
        let mut baseline = Self {
            filled: reader.count(HISTORY)? as u32,
            next: reader.count(HISTORY - 1)? as u32,
            stale_in: reader.count(REFRESH as usize)? as u32,
            median: reader.f64()?,
            scale: reader.f64()?,
            beyond: i8::from_le_bytes([reader.u8()?]),
            last: reader.f64()?,
            run: reader.u32()?,
            longest: reader.u32()?,
            ..Self::default()
        };
        if version > 1 {
            for rows in &mut baseline.calm {
                *rows = reader.u32()?;
            }
        }
        for index in 0..baseline.filled as usize {
            baseline.history[index] = reader.f64()?;
        }
        if baseline.beyond.unsigned_abs() >= SHIFT_AFTER.unsigned_abs() || baseline.scale < 0.0 {
            return Err(reader.damaged("a number is out of range"));
        }
        Ok(baseline)
    }
}

/// The lower median; reorders the values. 0 where there are none.
fn middle(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
#[path = "robust_z_tests.rs"]
mod tests;
