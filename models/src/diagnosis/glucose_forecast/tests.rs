//! Tests of the forecast as a row model.

use nearside_schemas::{FieldKind, FieldName, FieldPolicy};

use super::*;
use crate::catalog;

fn field(unit: &str) -> Vec<FieldSpec> {
    let name = FieldName::new("sugar").unwrap();
    vec![FieldSpec { name, kind: FieldKind::Number, unit: Some(unit.to_owned()), policy: FieldPolicy::Clear }]
}

fn judge(model: &dyn RowModel, state: &mut dyn RowState, minute: i64, value: f64) -> RowVerdict {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let row = Row { time: Timestamp::from_secs(minute * 60), values: &[FieldValue::Number(value)] };
    let taken = state.take(&row, &mut inputs);
    model.forward(&inputs, taken, &mut outputs).unwrap();
    state.judge(&outputs)
}

/// A patient at 110 mg/dL with small waves who from minute 600 on falls by 1.5 mg/dL a minute to 50.
fn falling(minute: i64) -> f64 {
    let waves = 110.0 + 4.0 * (minute as f64 / 50.0).sin();
    (waves - 1.5 * (minute - 600).max(0) as f64).max(50.0)
}

fn run(unit: &str, per_mg_dl: f64, course: impl Fn(i64) -> f64) -> Vec<(i64, RowVerdict)> {
    let model = catalog::load(NAME, None).unwrap();
    let mut state = model.new_state(&field(unit));
    let minutes = (0..800).step_by(5);
    minutes.map(|minute| (minute, judge(model.as_ref(), state.as_mut(), minute, course(minute) * per_mg_dl))).collect()
}

#[test]
fn a_fall_is_told_before_it_is_low() {
    let verdicts = run("mg/dL", 1.0, falling);
    let low_at = (0..800).step_by(5).find(|minute| falling(*minute) < LOW).unwrap();
    let (first, verdict) = verdicts.iter().find(|(_, verdict)| verdict.flagged).unwrap();
    assert!((600..low_at).contains(first), "told at {first}, low at {low_at}");
    let sighting = &verdict.sightings[0];
    assert_eq!(sighting.label, "low-glucose-expected");
    assert!(sighting.text.contains("suggests") && sighting.text.contains("below 70 mg/dL in about"));
    let contribution = &sighting.contributions[0];
    let (expected, (low, high)) = (contribution.expected.unwrap(), contribution.band.unwrap());
    assert!(low < LOW && low < expected && expected < high, "{contribution:?}");
    let outside = verdicts.iter().filter(|(minute, _)| falling(*minute) < LOW);
    assert!(outside.into_iter().all(|(_, verdict)| !verdict.flagged), "what is low already is not expected");
}

#[test]
fn a_steady_patient_is_left_alone_and_so_is_the_first_hour() {
    let steady = run("mg/dL", 1.0, |minute| 110.0 + 4.0 * (minute as f64 / 50.0).sin());
    assert!(steady.iter().all(|(_, verdict)| !verdict.flagged));
    let steep = run("mg/dL", 1.0, |minute| (200.0 - 3.0 * minute as f64).max(71.0));
    assert!(steep.iter().take(11).all(|(_, verdict)| !verdict.flagged && verdict.score == 0.0));
}

#[test]
fn a_rise_towards_very_high_is_told() {
    let rising = run("mg/dL", 1.0, |minute| 120.0 + 2.5 * (minute - 600).max(0) as f64);
    let (first, verdict) = rising.iter().find(|(_, verdict)| verdict.flagged).unwrap();
    assert_eq!(verdict.sightings[0].label, "high-glucose-expected");
    assert!((610..652).contains(first), "{first}");
}

#[test]
fn units_make_no_difference_and_contributions_are_in_the_devices_unit() {
    let (mg, mmol) = (run("mg/dL", 1.0, falling), run("mmol/L", 1.0 / 18.016, falling));
    for ((minute, a), (_, b)) in mg.iter().zip(&mmol) {
        assert!((a.score - b.score).abs() < 1e-3, "{minute}");
    }
    let sighting = mmol.iter().find_map(|(_, verdict)| verdict.sightings.first()).unwrap();
    assert!(sighting.contributions[0].seen < 10.0 && sighting.contributions[0].expected.unwrap() < 10.0);
}

#[test]
fn values_no_patient_has_and_missing_ones_are_passed_over() {
    let model = catalog::load(NAME, None).unwrap();
    let mut state = model.new_state(&field("mg/dL"));
    for minute in (0..300).step_by(5) {
        judge(model.as_ref(), state.as_mut(), minute, 100.0);
        assert!(!judge(model.as_ref(), state.as_mut(), minute + 1, 0.0).flagged);
        let row = Row { time: Timestamp::from_secs(minute * 60 + 61), values: &[FieldValue::Missing] };
        assert_eq!(state.take(&row, &mut Vec::new()), 0);
        assert!(!state.judge(&[]).flagged);
    }
    state.skip();
    assert!(!state.judge(&[]).flagged, "nothing was taken");
    assert!(matches!(model.accepts(&field("km/h")), Err(ModelError::Unfit { .. })));
}

#[test]
fn a_restored_state_goes_on_as_if_nothing_had_happened() {
    let model = catalog::load(NAME, None).unwrap();
    let mut one = model.new_state(&field("mg/dL"));
    (0..620).step_by(5).for_each(|minute| drop(judge(model.as_ref(), one.as_mut(), minute, falling(minute))));
    let snapshot = one.snapshot();
    assert!(snapshot.len() < 2_560, "{} bytes", snapshot.len());
    let mut two = model.restore(&field("mg/dL"), &snapshot).unwrap();
    for minute in (620..700).step_by(5) {
        let value = falling(minute);
        assert_eq!(
            judge(model.as_ref(), one.as_mut(), minute, value),
            judge(model.as_ref(), two.as_mut(), minute, value)
        );
    }
    let cuts = (0..snapshot.len()).step_by(31);
    assert!(cuts.into_iter().all(|cut| model.restore(&field("mg/dL"), &snapshot[..cut]).is_err()));
}

#[test]
fn probabilities_follow_forecast_and_band() {
    let forecast = Forecast { expected: 70.0, band: (60.0, 90.0) };
    assert!((forecast.below(70.0) - 0.5).abs() < 1e-12 && (forecast.above(70.0) - 0.5).abs() < 1e-12);
    assert!((forecast.below(60.0) - 0.05).abs() < 0.01 && (forecast.above(90.0) - 0.05).abs() < 0.01);
}
