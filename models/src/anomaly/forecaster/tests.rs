//! Tests of the forecaster as a row model.

use nearside_schemas::{FieldPolicy, Timestamp};

use super::*;

pub(super) fn fields(count: usize) -> Vec<FieldSpec> {
    (0..count)
        .map(|index| FieldSpec {
            name: FieldName::new(&format!("f{index}")).unwrap(),
            kind: FieldKind::Number,
            unit: None,
            policy: FieldPolicy::Clear,
        })
        .collect()
}

pub(super) fn model() -> std::sync::Arc<dyn RowModel> {
    crate::catalog::load(NAME, None).unwrap()
}

fn judge(model: &dyn RowModel, state: &mut dyn RowState, row: i64, values: &[FieldValue]) -> RowVerdict {
    judge_at(model, state, row * 60, values)
}

pub(super) fn judge_at(model: &dyn RowModel, state: &mut dyn RowState, secs: i64, values: &[FieldValue]) -> RowVerdict {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let taken = state.take(&Row { time: Timestamp::from_secs(secs), values }, &mut inputs);
    model.forward(&inputs, taken, &mut outputs).unwrap();
    state.judge(&outputs)
}

/// A wave with some noise that never repeats.
fn wave(row: i64) -> f64 {
    let row = row as f64;
    20.0 + 3.0 * (row / 40.0).sin() + 0.4 * (row * 1.7).sin() + 0.3 * (row * row * 0.37).sin()
}

fn run(values: impl IntoIterator<Item = f64>) -> Vec<RowVerdict> {
    let model = model();
    let mut state = model.new_state(&fields(1));
    let rows = values.into_iter().enumerate();
    rows.map(|(row, value)| judge(model.as_ref(), state.as_mut(), row as i64, &[FieldValue::Number(value)])).collect()
}

fn labels(verdicts: &[RowVerdict]) -> Vec<(usize, &'static str)> {
    let flagged = verdicts.iter().enumerate().filter(|(_, verdict)| verdict.flagged);
    flagged.map(|(row, verdict)| (row, verdict.sightings[0].label)).collect()
}

#[test]
fn an_ordinary_sensor_is_left_alone() {
    let flagged = labels(&run((0..1_500).map(wave)));
    assert!(flagged.len() <= 1, "{flagged:?}");
}

#[test]
fn a_spike_is_flagged_once_and_explained() {
    let verdicts = run((0..600).map(|row| wave(row) + if (400..405).contains(&row) { 25.0 } else { 0.0 }));
    let found = labels(&verdicts);
    let (row, label) = found.iter().find(|(row, _)| (400..405).contains(row)).copied().unwrap();
    assert!((row == 400 || row == 401) && label == SPIKE, "{found:?}");
    assert_eq!(found.iter().filter(|(row, _)| (390..500).contains(row)).count(), 1, "{found:?}");
    let sighting = &verdicts[row].sightings[0];
    let contribution = &sighting.contributions[0];
    assert!((contribution.seen - wave(row as i64) - 25.0).abs() < 1e-9);
    assert!((contribution.expected.unwrap() - wave(row as i64)).abs() < 4.0);
    let (low, high) = contribution.band.unwrap();
    assert!(low < high && contribution.seen > high);
    assert!(sighting.text.contains("forecast") && !sighting.text.contains("44"), "{}", sighting.text);
    assert!(verdicts[row].score >= verdicts[row].threshold);
    assert!(verdicts[row + 1].score < verdicts[row + 1].threshold, "held");
}

#[test]
fn a_drop_a_new_level_and_a_dead_sensor_are_told_apart() {
    let drop = labels(&run((0..600).map(|row| wave(row) - if row == 500 { 25.0 } else { 0.0 })));
    assert!(drop.iter().any(|(row, label)| (500..502).contains(row) && *label == DROP), "{drop:?}");
    let dead = labels(&run((0..600).map(|row| if row < 500 { wave(row) } else { wave(500) })));
    assert!(dead.iter().any(|(row, label)| (500..540).contains(row) && *label == FLAT_LINE), "{dead:?}");
    let shift = labels(&run((0..700).map(|row| wave(row) + if row < 500 { 0.0 } else { 8.0 })));
    assert!(shift.iter().any(|(row, _)| (500..520).contains(row)), "{shift:?}");
    assert!(shift.iter().filter(|(row, _)| *row >= 500).count() <= 3, "{shift:?}");
}

#[test]
fn a_value_that_is_far_off_after_a_gap_is_told_as_such_and_one_that_is_not_as_missing() {
    for (off, label, words) in
        [(0.0, MISSING, "There was no f0 for 5 h"), (60.0, SPIKE, "There was none for 5 h before it.")]
    {
        let model = model();
        let mut state = model.new_state(&fields(1));
        for row in 0..600 {
            assert!(!judge(model.as_ref(), state.as_mut(), row, &[FieldValue::Number(wave(row))]).flagged, "{row}");
        }
        let verdict = judge(model.as_ref(), state.as_mut(), 900, &[FieldValue::Number(wave(900) + off)]);
        assert_eq!(verdict.sightings[0].label, label);
        assert!(verdict.sightings[0].text.contains(words), "{}", verdict.sightings[0].text);
    }
}

#[test]
fn a_row_without_values_takes_no_forecast() {
    let model = model();
    let mut state = model.new_state(&fields(2));
    assert!(!judge(model.as_ref(), state.as_mut(), 0, &[FieldValue::Missing, FieldValue::Missing]).flagged);
    let verdict = judge(model.as_ref(), state.as_mut(), 1, &[FieldValue::Missing, FieldValue::Number(1.0)]);
    assert!(!verdict.flagged);
    state.take(&Row { time: Timestamp::from_secs(2), values: &[] }, &mut Vec::new());
    state.skip();
    state.skip();
    assert!(!state.judge(&[]).flagged, "nothing was taken");
}

#[test]
fn rows_taken_ahead_are_judged_as_one_by_one() {
    let model = model();
    let (mut one, mut other) = (model.new_state(&fields(1)), model.new_state(&fields(1)));
    let mut row = 0;
    for batch in [1, 7, 64, 130, 40, 65] {
        let values: Vec<FieldValue> = (row..row + batch).map(|row| FieldValue::Number(wave(row))).collect();
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for (at, value) in (row..).zip(&values) {
            other.take(&Row { time: Timestamp::from_secs(at * 60), values: std::slice::from_ref(value) }, &mut inputs);
        }
        model.forward(&inputs, values.len(), &mut outputs).unwrap();
        for (at, (value, outputs)) in (row..).zip(values.iter().zip(outputs.chunks(OUTPUTS))) {
            let single = judge(model.as_ref(), one.as_mut(), at, std::slice::from_ref(value));
            assert_eq!(single, other.judge(outputs));
        }
        row += batch;
    }
}

#[test]
fn a_restored_state_goes_on_as_if_nothing_had_happened() {
    let model = model();
    let mut one = model.new_state(&fields(1));
    for row in 0..333 {
        judge(model.as_ref(), one.as_mut(), row, &[FieldValue::Number(wave(row))]);
    }
    let snapshot = one.snapshot();
    assert!(snapshot.len() < 4_096, "{} bytes", snapshot.len());
    let mut two = model.restore(&fields(1), &snapshot).unwrap();
    for row in 333..600 {
        let value = [FieldValue::Number(wave(row) + if row == 450 { 20.0 } else { 0.0 })];
        assert_eq!(judge(model.as_ref(), one.as_mut(), row, &value), judge(model.as_ref(), two.as_mut(), row, &value));
    }
    assert!(model.restore(&fields(2), &snapshot).is_err());
    assert!((0..snapshot.len()).step_by(97).all(|cut| model.restore(&fields(1), &snapshot[..cut]).is_err()));
}

#[test]
fn an_odd_value_among_the_first_does_not_hide_one_like_it() {
    let found = labels(&run((0..400).map(|row| wave(row) + if row == 1 || row == 350 { 25.0 } else { 0.0 })));
    assert!(found.iter().any(|(row, label)| (350..352).contains(row) && *label == SPIKE), "{found:?}");
}

/// A room's temperature with the sensor's last digit.
fn room(row: usize) -> f64 {
    21.0 + 0.1 * ((row * row * 31 + row * 17) % 97 % 9) as f64
}

#[test]
fn a_second_spike_is_told_as_high_after_twenty_rows_or_higher_after_ten() {
    for start in [40, 41, 55, 300] {
        let spikes = |second: usize, height: f64| {
            let values = (0..second + 40).map(|row| match row {
                _ if row == start => 45.0,
                _ if row == second => height,
                _ => room(row),
            });
            labels(&run(values)).into_iter().filter(|(row, _)| *row >= start).collect::<Vec<_>>()
        };
        for (second, height) in [(start + 21, 45.0), (start + 11, 90.0), (start + 31, 90.0)] {
            assert_eq!(spikes(second, height), [(start, SPIKE), (second, SPIKE)], "{start} {second} {height}");
        }
    }
}

#[test]
fn a_spike_that_comes_again_and_again_becomes_usual() {
    for every in [30, 31, 45] {
        let found = labels(&run((0..1_400).map(|row| if row >= 100 && row % every == 0 { 45.0 } else { room(row) })));
        assert!((2..=8).contains(&found.len()), "{every}: {found:?}");
        assert!(found.iter().all(|(row, _)| *row < 100 + 12 * every), "{every}: {found:?}");
    }
}

#[test]
fn a_state_of_the_versions_before_goes_on() {
    let model = model();
    let mut now = model.new_state(&fields(1));
    for row in 0..333 {
        judge(model.as_ref(), now.as_mut(), row, &[FieldValue::Number(wave(row))]);
    }
    let latest = now.snapshot();
    // At the end stand what an alarm turns out to be (28 bytes), the scatter (77), the gaps (20) and what is slow: 97 and the trends (172).
    let (rest, _) = latest.split_at(latest.len() - 105);
    let (rest, gaps) = rest.split_at(rest.len() - 20);
    let third = [&[3][..], &rest[1..rest.len() - 172], gaps].concat();
    // Before them the pace (20), the repeats (24), the hold (32) and what the errors learnt (73).
    let (rest, _) = third.split_at(third.len() - 117);
    let (rest, end) = rest.split_at(rest.len() - 44);
    let (rest, hold) = rest.split_at(rest.len() - 32);
    let errors = &rest[1..rest.len() - 73];
    let first = [&[1][..], errors, &hold[..12], end].concat();
    let second = [&[2][..], &rest[1..rest.len() - 1], &hold[..24], &third[third.len() - 161..]].concat();
    let mut restored = [&first, &second, &third].map(|before| model.restore(&fields(1), before).unwrap());
    for row in 333..600 {
        let value = [FieldValue::Number(wave(row) + if [400, 440].contains(&row) { 20.0 } else { 0.0 })];
        let expected = judge(model.as_ref(), now.as_mut(), row, &value);
        for restored in &mut restored {
            assert_eq!(judge(model.as_ref(), restored.as_mut(), row, &value), expected);
        }
    }
    for before in [first, second, third] {
        assert!((0..before.len()).step_by(97).all(|cut| model.restore(&fields(1), &before[..cut]).is_err()));
    }
    let later = [&[VERSION + 1][..], &latest[1..]].concat();
    assert!(
        model
            .restore(&fields(1), &later)
            .is_err_and(|error| error.to_string().contains(&format!("version {}", VERSION + 1)))
    );
}

#[test]
fn a_second_spike_begins_anew_and_a_growing_one_stands_out() {
    let spike = |row: i64| match row {
        400 | 440 => 25.0,
        442 => 60.0,
        _ => 0.0,
    };
    let verdicts = run((0..600).map(|row| wave(row) + spike(row)));
    let begun = verdicts.iter().enumerate().filter(|(_, verdict)| verdict.sightings.iter().any(|one| one.begins));
    let begun: Vec<usize> = begun.map(|(row, _)| row).filter(|row| (390..600).contains(row)).collect();
    assert_eq!(begun, [400, 440, 442]);
}
