//! A detector of several fields on simulated devices ([`super::plant`]): which faults that a person sees at once it tells and names, and
//! how often it tells something of a device without fault.
//!
//! Devices have 3 to 8 fields, in turn. A finding is what is told in a row and was not in the row before. A fault is told where a finding
//! begins in its rows, named where one has a label for it, and placed where that one lists a field at fault first.

use nearside_schemas::{FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, Timestamp};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::plant::{Fault, Plant, ROWS, simulate_plant};
use super::skab;
use crate::ModelError;
use crate::row_model::RowModel;

/// Rows of a device without fault.
const NORMAL_ROWS: usize = 5_400;
/// Rows at the start of one in which nothing is counted.
const WARM_UP: usize = 400;
/// Seeds of devices without fault lie so far from those of the others.
const OTHER_SEEDS: u64 = 1_000_000;

/// What came of one fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// The fault.
    pub fault: &'static str,
    /// Devices that had it.
    pub devices: u64,
    /// Of which something was told.
    pub told: u64,
    /// And named.
    pub named: u64,
    /// And placed.
    pub placed: u64,
    /// Rows until it was named: the median. `None` where it never was.
    pub median_rows: Option<usize>,
    /// Findings before the fault.
    pub before: u64,
}

/// What was told of devices without fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quiet {
    /// Devices.
    pub devices: u64,
    /// Their rows.
    pub rows: u64,
    /// Rows that were flagged.
    pub flagged_rows: u64,
    /// Findings that began.
    pub findings: u64,
    /// Those per 10,000 rows.
    pub findings_per_10_000_rows: f64,
}

/// Something told that was not told in the row before.
struct Begun {
    row: usize,
    label: &'static str,
    /// The first field that it lists.
    field: Option<usize>,
}

/// Judges devices with a fault.
pub fn told(model: &dyn RowModel, fault: Fault, devices: u64, seed: u64) -> Result<Told, ModelError> {
    let mut told = Told { fault: fault.name(), devices, told: 0, named: 0, placed: 0, median_rows: None, before: 0 };
    let mut rows_until = Vec::new();
    for number in 0..devices {
        let plant = device(number, seed, ROWS, Some(fault));
        let (begun, _) = begun(model, &plant)?;
        let within: Vec<&Begun> = begun.iter().filter(|one| plant.faulty_rows.contains(&one.row)).collect();
        let named = || within.iter().filter(|one| fault.labels().contains(&one.label));
        let is_placed = |one: &&&Begun| one.field.is_some_and(|field| plant.faulty_fields.contains(&field));
        told.told += u64::from(!within.is_empty());
        told.named += u64::from(named().next().is_some());
        told.placed += u64::from(named().any(|one| is_placed(&one)));
        told.before += begun.iter().filter(|one| one.row < plant.faulty_rows.start).count() as u64;
        rows_until.extend(named().next().map(|one| one.row - plant.faulty_rows.start));
    }
    rows_until.sort_unstable();
    told.median_rows = rows_until.get(rows_until.len() / 2).copied();
    Ok(told)
}

/// Judges devices without fault.
pub fn quiet(model: &dyn RowModel, devices: u64, seed: u64) -> Result<Quiet, ModelError> {
    let mut quiet = Quiet { devices, ..Quiet::default() };
    for number in 0..devices {
        let plant = device(number, seed.wrapping_add(OTHER_SEEDS), NORMAL_ROWS, None);
        let (begun, flagged) = begun(model, &plant)?;
        quiet.rows += (NORMAL_ROWS - WARM_UP) as u64;
        quiet.flagged_rows += flagged;
        quiet.findings += begun.len() as u64;
    }
    quiet.findings_per_10_000_rows = quiet.findings as f64 * 1e4 / quiet.rows.max(1) as f64;
    Ok(quiet)
}

fn device(number: u64, seed: u64, rows: usize, fault: Option<Fault>) -> Plant {
    let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number));
    simulate_plant(3 + (number % 6) as usize, rows, fault, &mut rng)
}

/// What begins to be told after the warm-up, and how many rows are flagged.
fn begun(model: &dyn RowModel, plant: &Plant) -> Result<(Vec<Begun>, u64), ModelError> {
    let fields = fields(plant.fields)?;
    let times: Vec<Timestamp> = (0..).take(plant.values.len() / plant.fields).map(Timestamp::from_secs).collect();
    let value = |value: &Option<f64>| value.map_or(FieldValue::Missing, FieldValue::Number);
    let values: Vec<FieldValue> = plant.values.iter().map(value).collect();
    let (mut all, mut before, mut flagged) = (Vec::new(), Vec::new(), 0);
    for (row, verdict) in skab::verdicts(model, &fields, &times, &values)?.into_iter().enumerate() {
        let now: Vec<&'static str> = verdict.sightings.iter().map(|sighting| sighting.label).collect();
        if row >= WARM_UP {
            flagged += u64::from(verdict.flagged);
            all.extend(verdict.sightings.iter().filter(|sighting| !before.contains(&sighting.label)).map(|sighting| {
                let first = sighting.contributions.first().map(|part| &part.field);
                let field = fields.iter().position(|field| Some(&field.name) == first);
                Begun { row, label: sighting.label, field }
            }));
        }
        before = now;
    }
    Ok((all, flagged))
}

fn fields(count: usize) -> Result<Vec<FieldSpec>, ModelError> {
    let named = (0..count).map(|index| {
        let name = FieldName::new(&format!("f{index}"));
        let why = |error: &dyn std::fmt::Display| ModelError::Unfit {
            model: String::from("a device"),
            why: error.to_string(),
        };
        Ok(FieldSpec {
            name: name.map_err(|error| why(&error))?,
            kind: FieldKind::Number,
            unit: None,
            policy: FieldPolicy::Clear,
        })
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anomaly, catalog};

    #[test]
    fn what_a_person_sees_at_once_is_told_named_and_placed() {
        let model = catalog::load(anomaly::multivariate::NAME, None).unwrap();
        let of = |fault| told(model.as_ref(), fault, 12, 3).unwrap();
        let [spike, inverted, drift] = Fault::ALL.map(of);
        assert!(spike.placed >= 11 && spike.median_rows == Some(0), "{spike:?}");
        assert!(inverted.named >= 11 && inverted.median_rows.unwrap() < 60, "{inverted:?}");
        assert!(drift.named >= 9 && drift.placed >= 7, "{drift:?}");
    }

    #[test]
    fn little_is_told_of_devices_without_fault() {
        let model = catalog::load(anomaly::multivariate::NAME, None).unwrap();
        let quiet = quiet(model.as_ref(), 12, 3).unwrap();
        assert!(quiet.findings_per_10_000_rows < 4.0, "{quiet:?}");
    }
}
