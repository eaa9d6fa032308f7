//! Tests of the robust z-score.

use nearside_schemas::{FieldPolicy, Timestamp};
use proptest::prelude::*;

use super::*;

fn fields(count: usize) -> Vec<FieldSpec> {
    (0..count)
        .map(|index| FieldSpec {
            name: FieldName::new(&format!("f{index}")).unwrap(),
            kind: FieldKind::Number,
            unit: None,
            policy: FieldPolicy::Clear,
        })
        .collect()
}

fn model() -> RobustZ {
    RobustZ::new(&crate::catalog::card("robust-z", None).unwrap())
}

fn judge(state: &mut dyn RowState, values: &[f64]) -> RowVerdict {
    let values: Vec<FieldValue> = values.iter().map(|value| FieldValue::Number(*value)).collect();
    state.take(&Row { time: Timestamp::from_secs(0), values: &values }, &mut Vec::new());
    state.judge(&[])
}

fn run(values: impl IntoIterator<Item = f64>) -> Vec<RowVerdict> {
    let model = model();
    let mut state = model.new_state(&fields(1));
    values.into_iter().map(|value| judge(state.as_mut(), &[value])).collect()
}

fn labels(verdicts: &[RowVerdict]) -> Vec<(usize, &'static str)> {
    let flagged = verdicts.iter().enumerate().filter(|(_, verdict)| verdict.flagged);
    flagged.map(|(at, verdict)| (at, verdict.sightings[0].label)).collect()
}

/// A steady sensor: 20 ± 1 without randomness.
fn steady(row: usize) -> f64 {
    20.0 + (row as f64 * 2.399_963).sin()
}

#[test]
fn a_spike_and_a_drop_are_named_and_nothing_else_is() {
    let verdicts = run((0..300).map(|row| match row {
        150 => 60.0,
        220 => -20.0,
        _ => steady(row),
    }));
    assert_eq!(labels(&verdicts), [(150, "spike"), (220, "drop")]);
    let part = &verdicts[150].sightings[0].contributions[0];
    assert_eq!((part.seen, part.share), (60.0, 1.0));
    let (low, high) = part.band.unwrap();
    assert!(low < 20.0 && 20.0 < high && high < 60.0);
    assert!(!verdicts[150].sightings[0].text.contains("60"), "the text repeats no value");
}

#[test]
fn a_new_level_is_named_once_and_then_ordinary() {
    let verdicts = run((0..300).map(|row| steady(row) + if row >= 150 { 40.0 } else { 0.0 }));
    let labels = labels(&verdicts);
    assert_eq!(labels.last(), Some(&(154, "level_shift")));
    assert_eq!(labels.len(), 5);
}

#[test]
fn a_constant_series_is_never_flagged_and_its_change_is() {
    for constant in [0.0, 5.0, -3e300, 1e-300] {
        assert!(labels(&run(std::iter::repeat_n(constant, 500))).is_empty(), "{constant}");
    }
    let verdicts = run((0..200).map(|row| if row == 100 { 8.0 } else { 5.0 }));
    assert_eq!(labels(&verdicts), [(100, "spike")]);
    let jitter = run((0..200).map(|row| if row % 50 == 49 { 20.1 } else { 20.0 }));
    assert!(labels(&jitter).is_empty(), "half a percent is the sensor's last digit");
}

#[test]
fn a_two_state_sensor_is_not_flagged_again_and_again() {
    let verdicts = run((0..2_000).map(|row| if row % 40 == 39 { 1.0 } else { 0.0 }));
    assert_eq!(labels(&verdicts), [(39, "spike")], "only the first time");
}

#[test]
fn a_flat_line_is_named_once() {
    let verdicts = run((0..400).map(|row| if (100..300).contains(&row) { steady(100) } else { steady(row) }));
    let flat: Vec<_> = labels(&verdicts).into_iter().filter(|(_, label)| *label == "flat_line").collect();
    assert_eq!(flat, [(130, "flat_line")]);
    assert_eq!(verdicts[130].score, verdicts[130].threshold);
}

#[test]
fn nothing_is_flagged_while_warming_up() {
    let verdicts = run((0..WARM_UP).map(|row| f64::from(row).exp()));
    assert!(labels(&verdicts).is_empty());
}

#[test]
fn of_several_fields_the_worst_comes_first() {
    let model = model();
    let mut state = model.new_state(&fields(2));
    for row in 0..100 {
        judge(state.as_mut(), &[steady(row), steady(row + 50)]);
    }
    let verdict = judge(state.as_mut(), &[-40.0, 90.0]);
    let parts = &verdict.sightings[0].contributions;
    assert_eq!((verdict.sightings[0].label, parts[0].field.as_str(), parts[1].field.as_str()), ("spike", "f1", "f0"));
    assert!((parts.iter().map(|part| part.share).sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn missing_values_and_foreign_rows_are_borne() {
    let model = model();
    let mut state = model.new_state(&fields(2));
    for values in [&[][..], &[FieldValue::Missing, FieldValue::Number(1.0)]] {
        state.take(&Row { time: Timestamp::from_secs(0), values }, &mut Vec::new());
        assert!(!state.judge(&[]).flagged);
    }
    assert!(!state.judge(&[]).flagged, "nothing was taken");
    assert!(model.accepts(&[]).is_err());
}

proptest! {
    #[test]
    fn scores_stay_in_range_for_any_numbers(values in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::ZERO, 1..300)) {
        for verdict in run(values) {
            prop_assert!((0.0..=1.0).contains(&verdict.score));
            prop_assert_eq!(verdict.flagged, !verdict.sightings.is_empty());
            prop_assert!(!verdict.flagged || verdict.score >= verdict.threshold);
        }
    }

    #[test]
    fn the_score_is_monotone(a in 0.0..1e6_f64, b in 0.0..1e6_f64) {
        prop_assert!(score(a.min(b)) <= score(-a.max(b)));
        prop_assert_eq!(a >= flag_at(0.5), score(a) >= 0.5);
    }

    /// The baseline against a plain computation over all values so far.
    #[test]
    fn median_and_scale_are_those_of_the_last_values(values in prop::collection::vec(-1e3..1e3_f64, 72..200)) {
        let mut baseline = Baseline::default();
        values.iter().for_each(|value| baseline.push(*value));
        baseline.refresh();
        let sorted = |values: &[f64]| { let mut v = values.to_vec(); v.sort_by(f64::total_cmp); v };
        let last = &values[values.len() - HISTORY..];
        let median = sorted(last)[(HISTORY - 1) / 2];
        let deviations: Vec<f64> = last.iter().map(|value| (value - median).abs()).collect();
        prop_assert_eq!(baseline.median, median);
        let scale = (1.4826 * sorted(&deviations)[(HISTORY - 1) / 2]).max(0.01 * median.abs());
        prop_assert_eq!(baseline.scale, scale);
    }

    #[test]
    fn a_restored_state_goes_on_as_if_nothing_had_happened(
        values in prop::collection::vec(-1e3..1e3_f64, 1..150), cut in 0..150usize, scale in 1.0..1e3_f64,
    ) {
        let model = model();
        let mut one = model.new_state(&fields(1));
        let cut = cut.min(values.len());
        for value in &values[..cut] {
            judge(one.as_mut(), &[*value]);
        }
        let mut two = model.restore(&fields(1), &one.snapshot()).unwrap();
        for value in &values[cut..] {
            prop_assert_eq!(judge(one.as_mut(), &[value * scale]), judge(two.as_mut(), &[value * scale]));
        }
        prop_assert!(model.restore(&fields(2), &one.snapshot()).is_err());
    }
}

#[test]
fn another_spike_begins_where_the_field_was_back() {
    let spikes = [150, 151, 155, 166, 180];
    let verdicts = run((0..300).map(|row| if spikes.contains(&row) { 60.0 } else { steady(row) }));
    let begun = verdicts.iter().enumerate().filter(|(_, verdict)| verdict.sightings.iter().any(|one| one.begins));
    assert_eq!(begun.map(|(row, _)| row).collect::<Vec<_>>(), [150, 166, 180], "ten rows after 155");
}

#[test]
fn states_of_before_what_was_over_was_known_are_read() {
    let model = model();
    let mut state = model.new_state(&fields(1));
    (0..100).for_each(|row| drop(judge(state.as_mut(), &[steady(row)])));
    let mut before = state.snapshot();
    // Behind the longest run stand three counts, then the history.
    let counts = before.len() - 8 * HISTORY - 12;
    before.drain(counts..counts + 12);
    before[0] = 1;
    let mut restored = model.restore(&fields(1), &before).unwrap();
    let verdicts = [&mut state, &mut restored].map(|state| judge(state.as_mut(), &[60.0]));
    assert_eq!(verdicts.each_ref().map(|verdict| verdict.score), [verdicts[0].score; 2]);
    assert_eq!(verdicts.map(|verdict| verdict.sightings[0].begins), [true, false], "nothing is known of before");
    (101..111).for_each(|row| drop(judge(restored.as_mut(), &[steady(row)])));
    assert!(judge(restored.as_mut(), &[60.0]).sightings[0].begins);
}
