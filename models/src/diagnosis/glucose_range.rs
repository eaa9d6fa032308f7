//! Glucose outside the ranges of the international consensus (Battelino et al., Diabetes Care 42(8), 2019).
//!
//! Level 1 low: below 70 mg/dL; level 2 low: below 54; level 2 high: above 250. The field is found by its unit, `mg/dL` or
//! `mmol/L`. Every value outside is flagged, so each window that has one has its finding. A value that no living patient
//! has is a fault of the sensor and passed over. It is over once values were back for [`CALM_MINUTES`], as the consensus on continuous
//! monitoring has an event end (Danne et al., Diabetes Care 40(12), 2017); what comes after is another one.
//!
//! Score: 0.5 at 70 and at 250 mg/dL, 0.75 at 54, towards 0 within and towards 1 outside.

use std::collections::VecDeque;

use nearside_schemas::{Contribution, FieldKind, FieldName, FieldSpec, FieldValue, ModelRef, Severity};

use crate::ModelError;
use crate::card::Card;
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting};
use crate::snapshot::{Reader, Writer};
use crate::spell::Spell;

/// Below is low, in mg/dL.
pub const LOW: f64 = 70.0;
/// Below is very low, in mg/dL.
pub const VERY_LOW: f64 = 54.0;
/// Above is very high, in mg/dL.
pub const VERY_HIGH: f64 = 250.0;

/// mg/dL in a mmol/L: glucose has 180.16 g/mol.
const MG_DL_PER_MMOL_L: f64 = 18.016;
/// What sensors can show and patients can have, in mg/dL.
pub(super) const PLAUSIBLE: std::ops::RangeInclusive<f64> = 10.0..=1_000.0;
/// mg/dL above [`VERY_HIGH`] where the score is 0.75.
const HIGH_STEP: f64 = 70.0;
/// Minutes of values within after which one outside is another event.
pub const CALM_MINUTES: i64 = 15;
pub(super) const CALM: i64 = CALM_MINUTES * 60_000_000;
/// Version 1 remembered nothing.
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=2;

/// The ranges as a row model.
pub struct GlucoseRange {
    reference: ModelRef,
    threshold: f64,
}

impl GlucoseRange {
    /// With the version and threshold of the card.
    pub fn new(card: &Card) -> Self {
        Self { reference: card.reference(), threshold: card.threshold }
    }

    fn state(&self, fields: &[FieldSpec]) -> GlucoseState {
        GlucoseState {
            sensor: Sensor::of(fields),
            threshold: self.threshold,
            spells: [Spell::default(); CLASSES.len()],
            pending: VecDeque::new(),
        }
    }
}

/// The field that is glucose.
#[derive(Clone)]
pub(super) struct Sensor {
    pub(super) column: usize,
    pub(super) name: FieldName,
    unit: String,
    /// mg/dL in one of its units.
    pub(super) mg_dl: f64,
}

impl Sensor {
    pub(super) fn of(fields: &[FieldSpec]) -> Option<Self> {
        let mg_dl = |field: &FieldSpec| match (field.kind, field.unit.as_deref()?) {
            (FieldKind::Number, "mg/dL") => Some(1.0),
            (FieldKind::Number, "mmol/L") => Some(MG_DL_PER_MMOL_L),
            _ => None,
        };
        fields.iter().enumerate().find_map(|(column, field)| {
            let unit = field.unit.clone().unwrap_or_default();
            Some(Self { column, name: field.name.clone(), unit, mg_dl: mg_dl(field)? })
        })
    }

    /// Whether there is one.
    pub(super) fn accepts(fields: &[FieldSpec], model: &ModelRef) -> Result<(), ModelError> {
        if Self::of(fields).is_some() {
            return Ok(());
        }
        let why = String::from("it needs a numeric field with unit = \"mg/dL\" or \"mmol/L\"");
        Err(ModelError::Unfit { model: model.name.to_string(), why })
    }
}

impl RowModel for GlucoseRange {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        Sensor::accepts(fields, &self.reference)
    }

    fn new_state(&self, fields: &[FieldSpec]) -> Box<dyn RowState> {
        Box::new(self.state(fields))
    }

    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        let (mut reader, version) = Reader::of_versions(self.reference.name.as_str(), VERSIONS, snapshot)?;
        let mut state = self.state(fields);
        if version > 1 {
            for spell in &mut state.spells {
                *spell = Spell::read(&mut reader)?;
            }
        }
        reader.finish()?;
        Ok(Box::new(state))
    }
}

/// Where a value may lie outside.
struct Class {
    label: &'static str,
    severity: Severity,
    says: &'static str,
    holds: fn(f64) -> bool,
}

/// The worse first of those that hold together.
const CLASSES: [Class; 3] = [
    Class {
        label: "glucose_very_low",
        severity: Severity::Critical,
        says: "below 54 mg/dL",
        holds: |mg_dl| mg_dl < VERY_LOW,
    },
    Class { label: "glucose_low", severity: Severity::Warning, says: "below 70 mg/dL", holds: |mg_dl| mg_dl < LOW },
    Class {
        label: "glucose_very_high",
        severity: Severity::Warning,
        says: "above 250 mg/dL",
        holds: |mg_dl| mg_dl > VERY_HIGH,
    },
];

/// 0 to 1: the larger of two logistic curves, one for either side.
fn score(mg_dl: f64) -> f64 {
    let logistic = |beyond: f64, step: f64| 1.0 / (1.0 + (-beyond * 3.0_f64.ln() / step).exp());
    logistic(LOW - mg_dl, LOW - VERY_LOW).max(logistic(mg_dl - VERY_HIGH, HIGH_STEP))
}

/// Values that wait for their turn, and what was over.
struct GlucoseState {
    sensor: Option<Sensor>,
    threshold: f64,
    /// Of each of [`CLASSES`].
    spells: [Spell; CLASSES.len()],
    /// Event time in microseconds, and the value.
    pending: VecDeque<(i64, Option<f64>)>,
}

impl RowState for GlucoseState {
    fn take(&mut self, row: &Row<'_>, _inputs: &mut Vec<f32>) -> usize {
        let value = self.sensor.as_ref().and_then(|sensor| row.values.get(sensor.column)).and_then(FieldValue::number);
        self.pending.push_back((row.time.as_micros(), value));
        0
    }

    fn judge(&mut self, _outputs: &[f32]) -> RowVerdict {
        let mut verdict = RowVerdict { threshold: self.threshold, ..RowVerdict::default() };
        let (Some((at, Some(value))), Some(sensor)) = (self.pending.pop_front(), &self.sensor) else { return verdict };
        let mg_dl = value * sensor.mg_dl;
        if !PLAUSIBLE.contains(&mg_dl) {
            return verdict;
        }
        verdict.score = score(mg_dl);
        let flags = verdict.score >= self.threshold;
        let holds = |class: &Class| flags && (class.holds)(mg_dl);
        for (spell, class) in self.spells.iter_mut().zip(&CLASSES) {
            spell.see(at, holds(class), CALM);
        }
        let Some(class) = CLASSES.iter().find(|class| holds(class)) else { return verdict };
        // What is very low is low: on its way back it is not told as something else.
        let holding = self.spells.iter_mut().zip(&CLASSES).filter(|(_, class)| holds(class));
        let told: Vec<bool> = holding.map(|(spell, _)| spell.tell()).collect();
        let limit = class.says;
        verdict.flagged = true;
        verdict.sightings.push(Sighting {
            label: class.label,
            begins: told.first().copied().unwrap_or_default(),
            severity: class.severity,
            score: verdict.score,
            contributions: vec![Contribution {
                field: sensor.name.clone(),
                seen: value,
                expected: None,
                band: Some((LOW / sensor.mg_dl, VERY_HIGH / sensor.mg_dl)),
                share: 1.0,
                note: None,
            }],
            text: format!("Glucose is {value:.1} {}, {limit}: suggests a look at the patient.", sensor.unit),
        });
        verdict
    }

    fn skip(&mut self) {
        self.pending.pop_front();
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(*VERSIONS.end());
        self.spells.iter().for_each(|spell| spell.write(&mut writer));
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use nearside_schemas::{FieldPolicy, Timestamp};

    use super::*;
    use crate::catalog;

    fn field(unit: &str) -> Vec<FieldSpec> {
        let name = FieldName::new("sugar").unwrap();
        vec![FieldSpec { name, kind: FieldKind::Number, unit: Some(unit.to_owned()), policy: FieldPolicy::Clear }]
    }

    fn label(unit: &str, value: f64) -> Option<&'static str> {
        let mut state = catalog::load("glucose-range", None).unwrap().new_state(&field(unit));
        state.take(&Row { time: Timestamp::from_secs(0), values: &[FieldValue::Number(value)] }, &mut Vec::new());
        let verdict = state.judge(&[]);
        assert_eq!(verdict.flagged, verdict.score >= verdict.threshold, "{value}");
        verdict.sightings.first().map(|sighting| sighting.label)
    }

    #[test]
    fn the_limits_are_those_of_the_consensus() {
        for (value, expected) in [
            (53.9, Some("glucose_very_low")),
            (54.0, Some("glucose_low")),
            (69.9, Some("glucose_low")),
            (70.1, None),
            (120.0, None),
            (249.9, None),
            (250.1, Some("glucose_very_high")),
            (0.0, None),
            (5_000.0, None),
        ] {
            assert_eq!(label("mg/dL", value), expected, "{value}");
        }
        assert_eq!(label("mmol/L", 3.8), Some("glucose_low"));
        assert_eq!(label("mmol/L", 4.0), None);
    }

    #[test]
    fn a_field_of_another_unit_is_refused() {
        let model = catalog::load("glucose-range", None).unwrap();
        assert!(model.accepts(&field("mmol/L")).is_ok());
        assert!(matches!(model.accepts(&field("km/h")), Err(ModelError::Unfit { .. })));
    }

    /// The minutes at which a label begins, of values every five minutes.
    fn begins(state: &mut dyn RowState, from: i64, values: &[f64]) -> Vec<(i64, &'static str)> {
        let mut begun = Vec::new();
        for (at, value) in values.iter().enumerate() {
            let minute = from + 5 * at as i64;
            let values = [FieldValue::Number(*value)];
            state.take(&Row { time: Timestamp::from_secs(60 * minute), values: &values }, &mut Vec::new());
            let verdict = state.judge(&[]);
            begun.extend(verdict.sightings.iter().filter(|one| one.begins).map(|one| (minute, one.label)));
        }
        begun
    }

    #[test]
    fn an_event_ends_after_a_quarter_of_an_hour_within() {
        let model = catalog::load("glucose-range", None).unwrap();
        let mut state = model.new_state(&field("mg/dL"));
        let course = [100.0, 100.0, 100.0, 100.0, 60.0, 80.0, 75.0, 65.0, 50.0, 60.0, 80.0, 90.0, 90.0, 60.0, 50.0];
        assert_eq!(
            begins(&mut *state, 0, &course),
            [(20, "glucose_low"), (40, "glucose_very_low"), (65, "glucose_low"), (70, "glucose_very_low")]
        );
        // What cannot be is no value within.
        assert_eq!(begins(&mut *state, 75, &[5_000.0, 5_000.0, 5_000.0, 5_000.0, 60.0]), []);
        assert_eq!(begins(&mut *state, 100, &[100.0, 100.0, 100.0]), []);
        let mut restored = model.restore(&field("mg/dL"), &state.snapshot()).unwrap();
        assert_eq!(begins(&mut *restored, 115, &[60.0]), [(115, "glucose_low")]);
        let mut before = model.restore(&field("mg/dL"), &[1]).unwrap();
        assert_eq!(begins(&mut *before, 115, &[60.0]), [], "of a state of before nothing is known");
    }
}
