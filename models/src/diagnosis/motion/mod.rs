//! What an accelerometer on the breastbone tells: what a person does, falls, how long without a turn, and sleep.
//!
//! 1. [`epoch`] cuts samples of three axes into epochs of ten seconds and describes each by numbers.
//! 2. [`activity`] classes epochs with a small network and watches for falls, long stillness and nightly wandering.
//! 3. [`sleep`] scores minutes as sleep or wake with another, and sums up a rest.
//!
//! The axes are fields whose names end in `x`, `y` and `z`: to the head, to the left, forward, with the body upright; in g, or in
//! m/s2 where the unit says so. Raw samples, one a row, 10 to 100 a second: a message may hold many.
//! Never: a claim about what a person has. Both networks learnt from simulated people alone, and their cards say so.

pub mod activity;
pub mod epoch;
#[cfg(test)]
mod model_tests;
pub mod sleep;
mod watch;

use nearside_schemas::{Contribution, FieldKind, FieldName, FieldSpec, FieldValue, ModelRef};

use crate::ModelError;
use crate::row_model::Row;

/// m/s2 in a g.
const STANDARD_GRAVITY: f64 = 9.806_65;

/// The three axes among a stream's fields.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axes {
    fields: [(usize, FieldName); 3],
    /// g in a unit of the fields.
    g: f64,
}

impl Axes {
    /// `Err` says what is missing.
    fn of(fields: &[FieldSpec]) -> Result<Self, String> {
        let mut found = Vec::with_capacity(3);
        let mut units: Vec<Option<f64>> = Vec::with_capacity(3);
        for axis in ["x", "y", "z"] {
            let is_axis = |field: &FieldSpec| field.kind == FieldKind::Number && field.name.as_str().ends_with(axis);
            let mut of_axis = fields.iter().enumerate().filter(|(_, field)| is_axis(field));
            let (Some((column, field)), None) = (of_axis.next(), of_axis.next()) else {
                return Err(format!(
                    "it needs exactly one numeric field whose name ends in `{axis}`: acceleration along that axis (x to the head, y to the left, z to the front)"
                ));
            };
            units.push(match field.unit.as_deref() {
                None | Some("g" | "[g]") => Some(1.0),
                Some("m/s2" | "m/s²" | "m/s^2") => Some(1.0 / STANDARD_GRAVITY),
                Some(unit) => {
                    return Err(format!("the field `{}` is in `{unit}` and must be in `[g]` or `m/s2`", field.name));
                }
            });
            found.push((column, field.name.clone()));
        }
        let fields = <[(usize, FieldName); 3]>::try_from(found).map_err(|_| String::from("it needs three axes"))?;
        match units.as_slice() {
            [Some(x), Some(y), Some(z)] if x == y && y == z => Ok(Self { fields, g: *x }),
            _ => Err(String::from("its three axes must have one unit")),
        }
    }

    fn accepts(fields: &[FieldSpec], model: &ModelRef) -> Result<(), ModelError> {
        Self::of(fields).map(|_| ()).map_err(|why| ModelError::Unfit { model: model.name.to_string(), why })
    }

    /// The sample of a row in g; `None` where an axis is missing.
    fn sample(&self, row: &Row<'_>) -> Option<[f32; 3]> {
        let mut sample = [0.0; 3];
        for (value, (column, _)) in sample.iter_mut().zip(&self.fields) {
            *value = (row.values.get(*column).and_then(FieldValue::number)? * self.g) as f32;
        }
        sample.iter().all(|value| value.is_finite()).then_some(sample)
    }

    /// What each axis showed and what was before, in the fields' unit; `shares` are the axes' parts of the score. The first carries the
    /// note.
    fn contributions(
        &self,
        seen: [f64; 3],
        before: Option<[f64; 3]>,
        shares: [f64; 3],
        note: String,
    ) -> Vec<Contribution> {
        let whole = shares.iter().sum::<f64>();
        // Where nothing changed, all axes tell the same.
        let share = |axis: usize| if whole > 1e-9 { shares[axis] / whole } else { 1.0 / 3.0 };
        let mut parts: Vec<Contribution> = (0..3)
            .map(|axis| Contribution {
                field: self.fields[axis].1.clone(),
                seen: seen[axis] / self.g,
                expected: before.map(|before| before[axis] / self.g),
                band: None,
                share: share(axis),
                note: None,
            })
            .collect();
        parts.sort_by(|a, b| b.share.total_cmp(&a.share));
        if let Some(first) = parts.first_mut() {
            first.note = Some(note);
        }
        parts
    }
}

/// The angle between two directions of length 1, radians.
fn angle(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>().clamp(-1.0, 1.0).acos()
}

#[cfg(test)]
pub(crate) mod tests {
    use nearside_schemas::FieldPolicy;

    use super::*;

    pub(crate) fn fields(names: &[(&str, Option<&str>)]) -> Vec<FieldSpec> {
        names
            .iter()
            .map(|(name, unit)| FieldSpec {
                name: FieldName::new(name).unwrap(),
                kind: FieldKind::Number,
                unit: unit.map(Into::into),
                policy: FieldPolicy::Clear,
            })
            .collect()
    }

    pub(crate) fn axes() -> Vec<FieldSpec> {
        fields(&[("x", Some("[g]")), ("y", Some("[g]")), ("z", Some("[g]"))])
    }

    #[test]
    fn three_axes_of_one_unit_are_needed() {
        assert!(Axes::of(&axes()).is_ok());
        assert!(Axes::of(&fields(&[("acc_x", None), ("acc_y", None), ("acc_z", None)])).is_ok());
        for wrong in [
            vec![("x", None), ("y", None)],
            vec![("x", None), ("ax", None), ("y", None), ("z", None)],
            vec![("x", Some("[g]")), ("y", Some("m/s2")), ("z", Some("[g]"))],
            vec![("x", Some("mV")), ("y", Some("mV")), ("z", Some("mV"))],
        ] {
            assert!(Axes::of(&fields(&wrong)).is_err(), "{wrong:?}");
        }
        let metric = Axes::of(&fields(&[("x", Some("m/s2")), ("y", Some("m/s2")), ("z", Some("m/s2"))])).unwrap();
        let values = [9.806_65, 0.0, -9.806_65].map(FieldValue::Number);
        let row = Row { time: nearside_schemas::Timestamp::from_secs(0), values: &values };
        assert_eq!(metric.sample(&row), Some([1.0, 0.0, -1.0]));
    }

    #[test]
    fn angles_are_angles() {
        assert!((angle([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]) - std::f64::consts::FRAC_PI_2).abs() < 1e-12);
        assert!(angle([0.0, 1.0, 0.0], [0.0, 1.0, 0.0]) < 1e-6);
    }
}
