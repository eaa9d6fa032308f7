//! Whether a device still measures: no network, no training, a few bytes a stream.
//!
//! `flat_line`: all numeric fields of a row repeat exactly, [`FROZEN_AFTER`] times and four times as often as ever before.
//! One field may well repeat by chance, a whole row hardly does, so this is seen within a few rows where a detector of
//! single fields must wait. A stream with a single number is one of those: its value must be repeated [`FLAT_AFTER`] times. `missing`: a field that came in nearly all of the last [`USUAL_ROWS`] rows is absent [`MISSING_AFTER`] times in a
//! row. Either is said once, and again only after it was over. Score: 1 on the row that is flagged, else 0.
//!
//! Never: says anything about whether a value is plausible.

use std::collections::VecDeque;

use nearside_schemas::{Contribution, FieldKind, FieldSpec, FieldValue, ModelRef, Severity};

use super::repeats::{FLAT_AFTER, Repeats};
use crate::ModelError;
use crate::card::Card;
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting};
use crate::snapshot::{Reader, Writer};

/// Repetitions of a whole row that make it a flat line.
pub const FROZEN_AFTER: u32 = 4;
/// Absences in a row after which a field is missing.
pub const MISSING_AFTER: u32 = 4;
/// Rows before them in which the field must have come, all but one.
pub const USUAL_ROWS: u32 = 12;
/// Fewer numbers than this repeat by chance.
const LEAST_FIELDS: usize = 2;

const VERSION: u8 = 1;
const FLAT_LINE: &str = "flat_line";
const MISSING: &str = "missing";

/// The check as a row model.
pub struct SensorCheck {
    reference: ModelRef,
    threshold: f64,
}

impl SensorCheck {
    /// With the version and threshold of the card.
    pub fn new(card: &Card) -> Self {
        Self { reference: card.reference(), threshold: card.threshold }
    }

    fn state(&self, fields: &[FieldSpec]) -> SensorCheckState {
        SensorCheckState {
            is_single: fields.iter().filter(|field| field.kind == FieldKind::Number).count() == 1,
            specs: fields.to_vec(),
            threshold: self.threshold,
            repeats: Repeats::default(),
            presence: vec![Presence::default(); fields.len()],
            pending: VecDeque::new(),
        }
    }
}

impl RowModel for SensorCheck {
    fn judges_patients(&self) -> bool {
        false
    }

    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn judges_fields(&self) -> bool {
        true
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        if fields.len() >= LEAST_FIELDS || fields.iter().any(|field| field.kind == FieldKind::Number) {
            return Ok(());
        }
        let why = String::from(
            "it looks at numbers that repeat and fields that stop coming, and the stream's only field is no number",
        );
        Err(ModelError::Unfit { model: self.reference.name.to_string(), why })
    }

    fn new_state(&self, fields: &[FieldSpec]) -> Box<dyn RowState> {
        Box::new(self.state(fields))
    }

    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        let mut state = self.state(fields);
        let mut reader = Reader::new(self.reference.name.as_str(), VERSION, snapshot)?;
        if reader.count(u32::MAX as usize)? != state.presence.len() {
            return Err(reader.damaged("the stream has other fields now"));
        }
        state.repeats = Repeats::read(&mut reader)?;
        for presence in &mut state.presence {
            *presence = Presence { came: reader.u32()?, is_told: reader.u8()? == 1 };
        }
        reader.finish()?;
        Ok(Box::new(state))
    }
}

/// In which of the last rows a field came: the newest is the lowest bit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Presence {
    came: u32,
    is_told: bool,
}

impl Presence {
    /// Notes a row; true once, where the field has become missing.
    fn note(&mut self, came: bool) -> bool {
        self.came = self.came << 1 | u32::from(came);
        if came {
            self.is_told = false;
        }
        let recent = self.came & ((1 << MISSING_AFTER) - 1);
        let before = (self.came >> MISSING_AFTER) & ((1 << USUAL_ROWS) - 1);
        let is_missing = recent == 0 && before.count_ones() + 1 >= USUAL_ROWS && !self.is_told;
        self.is_told |= is_missing;
        is_missing
    }
}

/// What was found in a row that waits for its turn.
#[derive(Default)]
struct Taken {
    frozen: Option<Vec<Contribution>>,
    /// The columns of fields that are missing.
    missing: Vec<usize>,
}

struct SensorCheckState {
    specs: Vec<FieldSpec>,
    /// Whether only one of them is a number.
    is_single: bool,
    threshold: f64,
    repeats: Repeats,
    presence: Vec<Presence>,
    pending: VecDeque<Taken>,
}

impl SensorCheckState {
    fn is_frozen(&mut self, row: &Row<'_>) -> bool {
        let mut numbers = row.values.iter().filter_map(FieldValue::number);
        if self.is_single {
            return numbers.next().is_some_and(|number| self.repeats.count(number, FLAT_AFTER));
        }
        if numbers.clone().count() < LEAST_FIELDS {
            return false;
        }
        self.repeats.count(fingerprint(numbers), FROZEN_AFTER)
    }

    fn seen(&self, row: &Row<'_>) -> Vec<Contribution> {
        let numeric = self.specs.iter().zip(row.values).filter(|(spec, _)| spec.kind == FieldKind::Number);
        let numbers: Vec<_> = numeric.filter_map(|(spec, value)| Some((spec.name.clone(), value.number()?))).collect();
        let share = 1.0 / numbers.len().max(1) as f64;
        numbers
            .into_iter()
            .map(|(field, seen)| Contribution { field, seen, expected: None, band: None, share, note: None })
            .collect()
    }
}

/// A number that is the same for equal rows and hardly ever for others (FNV-1a over the values' bits).
fn fingerprint(values: impl Iterator<Item = f64>) -> f64 {
    let hash = values
        .flat_map(|value| value.to_bits().to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // 53 bits fit a number exactly.
    (hash >> 11) as f64
}

impl RowState for SensorCheckState {
    fn take(&mut self, row: &Row<'_>, _inputs: &mut Vec<f32>) -> usize {
        let frozen = self.is_frozen(row).then(|| self.seen(row));
        let came = |column: usize| !matches!(row.values.get(column), None | Some(FieldValue::Missing));
        let missing = self.presence.iter_mut().enumerate();
        let missing = missing.filter_map(|(column, presence)| presence.note(came(column)).then_some(column)).collect();
        self.pending.push_back(Taken { frozen, missing });
        0
    }

    fn judge(&mut self, _outputs: &[f32]) -> RowVerdict {
        let taken = self.pending.pop_front().unwrap_or_default();
        let mut verdict = RowVerdict { threshold: self.threshold, ..RowVerdict::default() };
        let sighting = |label, text, contributions| Sighting {
            label,
            begins: true,
            severity: Severity::Warning,
            score: 1.0,
            contributions,
            text,
        };
        if let Some(contributions) = taken.frozen {
            let what = if self.is_single { "one value" } else { "one row exactly" };
            let text = format!("The device repeats {what} and used to change: it may no longer measure.");
            verdict.sightings.push(sighting(FLAT_LINE, text, contributions));
        }
        if !taken.missing.is_empty() {
            let names: Vec<_> = taken.missing.iter().map(|column| self.specs[*column].name.as_str()).collect();
            let text = format!("{} used to come with every row and no longer does.", names.join(", "));
            verdict.sightings.push(sighting(MISSING, text, Vec::new()));
        }
        verdict.flagged = !verdict.sightings.is_empty();
        verdict.score = if verdict.flagged { 1.0 } else { 0.0 };
        verdict
    }

    fn skip(&mut self) {
        self.pending.pop_front();
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.u32(self.presence.len() as u32);
        self.repeats.write(&mut writer);
        for presence in &self.presence {
            writer.u32(presence.came);
            writer.u8(u8::from(presence.is_told));
        }
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use nearside_schemas::{FieldName, FieldPolicy, Timestamp};

    use super::*;
    use crate::catalog;

    fn fields(count: usize) -> Vec<FieldSpec> {
        let name = |index| FieldName::new(&format!("f{index}")).unwrap();
        (0..count)
            .map(|index| FieldSpec {
                name: name(index),
                kind: FieldKind::Number,
                unit: None,
                policy: FieldPolicy::Clear,
            })
            .collect()
    }

    fn labels(state: &mut dyn RowState, rows: &[[Option<f64>; 2]]) -> Vec<(usize, &'static str)> {
        let mut seen = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let value = |value: &Option<f64>| value.map_or(FieldValue::Missing, FieldValue::Number);
            let values: Vec<FieldValue> = row.iter().map(value).collect();
            state.take(&Row { time: Timestamp::from_secs(index as i64), values: &values }, &mut Vec::new());
            seen.extend(state.judge(&[]).sightings.iter().map(|sighting| (index, sighting.label)));
        }
        seen
    }

    fn lively(rows: std::ops::Range<usize>) -> Vec<[Option<f64>; 2]> {
        rows.map(|row| [Some(row as f64 * 0.1), Some((row % 3) as f64)]).collect()
    }

    #[test]
    fn a_frozen_device_is_seen_within_a_few_rows_and_said_once() {
        let model = catalog::load("sensor-check", None).unwrap();
        let mut rows = lively(0..20);
        rows.extend([rows[19]; 30]);
        assert_eq!(labels(&mut *model.new_state(&fields(2)), &rows), [(23, FLAT_LINE)]);
    }

    #[test]
    fn a_device_that_often_repeats_itself_is_given_time() {
        let model = catalog::load("sensor-check", None).unwrap();
        let rows: Vec<_> = (0..200).map(|row| [Some(f64::from(row / 6)), Some(1.0)]).collect();
        assert_eq!(labels(&mut *model.new_state(&fields(2)), &rows), []);
    }

    #[test]
    fn a_field_that_stops_coming_is_missed_once_and_again_after_it_came_back() {
        let model = catalog::load("sensor-check", None).unwrap();
        let mut rows = lively(0..20);
        let gone = lively(20..40).into_iter().map(|row| [row[0], None]);
        rows.extend(gone.clone());
        rows.extend(lively(40..60));
        rows.extend(gone);
        assert_eq!(labels(&mut *model.new_state(&fields(2)), &rows), [(23, MISSING), (63, MISSING)]);
    }

    #[test]
    fn a_field_that_comes_now_and_then_is_never_missed() {
        let model = catalog::load("sensor-check", None).unwrap();
        let rows: Vec<_> = (0..300).map(|row| [Some(f64::from(row)), (row % 10 == 0).then_some(1.0)]).collect();
        assert_eq!(labels(&mut *model.new_state(&fields(2)), &rows), []);
    }

    #[test]
    fn a_state_goes_on_from_its_snapshot() {
        let model = catalog::load("sensor-check", None).unwrap();
        let mut rows = lively(0..20);
        rows.extend([rows[19]; 3]);
        let mut state = model.new_state(&fields(2));
        assert_eq!(labels(&mut *state, &rows), []);
        let mut restored = model.restore(&fields(2), &state.snapshot()).unwrap();
        assert_eq!(labels(&mut *restored, &[rows[19]]), [(0, FLAT_LINE)]);
        assert!(model.restore(&fields(1), &state.snapshot()).is_err());
    }

    #[test]
    fn a_single_number_is_given_longer_and_missed_where_rows_come_without_it() {
        let model = catalog::load("sensor-check", None).unwrap();
        let mut rows = lively(0..60);
        rows.extend([rows[59]; 100]);
        rows.extend(lively(60..80));
        rows.extend([[None, None]; 10]);
        assert_eq!(
            labels(&mut *model.new_state(&fields(1)), &rows),
            [(59 + FLAT_AFTER as usize, FLAT_LINE), (183, MISSING)]
        );
        assert!(model.accepts(&fields(1)).is_ok());
        let text = FieldSpec { kind: FieldKind::Text, ..fields(1).remove(0) };
        assert!(matches!(model.accepts(&[text]), Err(ModelError::Unfit { .. })));
        assert!(matches!(model.accepts(&[]), Err(ModelError::Unfit { .. })));
    }
}
