//! Tests of the detector as a row model.

use nearside_schemas::{FieldPolicy, Timestamp};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const FIELDS: usize = 4;

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

fn model() -> std::sync::Arc<dyn RowModel> {
    crate::catalog::load(NAME, None).unwrap()
}

/// Uniform in ±1.7, so about of deviation 1; the same for the same row and seed.
fn noise(row: i64, seed: u64) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_word_pos(16 * u128::from(row.unsigned_abs()));
    rng.random_range(-1.7..1.7)
}

/// A pump: two fields that go together, one that wanders, one that only scatters.
fn pump(row: i64) -> [f64; FIELDS] {
    let load = (row as f64 / 25.0).sin() + 0.5 * noise(row, 1);
    let wandering = 60.0 + 0.3 * (row as f64 / 120.0).sin() + 0.1 * noise(row, 5);
    [230.0 + load + 0.1 * noise(row, 2), 5.0 + 0.2 * load + 0.02 * noise(row, 3), wandering, 32.0 + noise(row, 4)]
}

fn judge(model: &dyn RowModel, state: &mut dyn RowState, row: i64, values: &[FieldValue]) -> RowVerdict {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let taken = state.take(&Row { time: Timestamp::from_secs(row), values }, &mut inputs);
    model.forward(&inputs, taken, &mut outputs).unwrap();
    state.judge(&outputs)
}

fn run(rows: i64, values: impl Fn(i64) -> [Option<f64>; FIELDS]) -> Vec<RowVerdict> {
    let model = model();
    let mut state = model.new_state(&fields(FIELDS));
    let value = |value: Option<f64>| value.map_or(FieldValue::Missing, FieldValue::Number);
    (0..rows).map(|row| judge(model.as_ref(), state.as_mut(), row, &values(row).map(value))).collect()
}

fn with(change: impl Fn(i64, &mut [f64; FIELDS])) -> Vec<RowVerdict> {
    run(1_400, |row| {
        let mut values = pump(row);
        change(row, &mut values);
        values.map(Some)
    })
}

fn flagged(verdicts: &[RowVerdict], rows: std::ops::Range<usize>) -> usize {
    verdicts[rows].iter().filter(|verdict| verdict.flagged).count()
}

#[test]
fn an_ordinary_pump_is_left_alone() {
    let verdicts = run(3_000, |row| pump(row).map(Some));
    assert!(verdicts[..400].iter().all(|verdict| verdict.score == 0.0), "nothing in the warm-up");
    assert!(flagged(&verdicts, 400..3_000) < 130, "{}", flagged(&verdicts, 400..3_000));
}

#[test]
fn a_field_that_leaves_its_level_is_named_with_what_was_expected() {
    let verdicts = with(|row, values| {
        if (700..1_000).contains(&row) {
            values[3] -= 4.0;
        }
    });
    assert!(flagged(&verdicts, 500..700) < 20);
    assert!(flagged(&verdicts, 720..1_000) > 250, "{}", flagged(&verdicts, 720..1_000));
    assert!(flagged(&verdicts, 1_150..1_400) < 50, "it ends: {}", flagged(&verdicts, 1_150..1_400));
    let sighting = &verdicts[800].sightings[0];
    assert_eq!(sighting.label, "level_shift");
    let first = &sighting.contributions[0];
    assert_eq!((first.field.as_str(), first.seen), ("f3", pump(800)[3] - 4.0));
    assert!((first.expected.unwrap() - 32.0).abs() < 1.0, "{first:?}");
    assert!(first.share > 0.6, "{first:?}");
    assert!(sighting.text.contains("f3") && !sighting.text.chars().any(|c| c == '.' && sighting.text.contains("2.")));
}

#[test]
fn a_field_that_scatters_is_flagged_and_labels_say_what_a_field_does() {
    let verdicts = with(|row, values| {
        if row >= 800 {
            values[3] = 32.0 + 5.0 * (values[3] - 32.0);
        }
    });
    assert!(flagged(&verdicts, 850..1_400) > 250, "{}", flagged(&verdicts, 850..1_400));
    let taken =
        Taken { field: 0, value: 0.0, expected: 0.0, margin: 1.0, distance: 1.0, unexplained: 6.0, roughness: 1.1 };
    assert_eq!(Label::of(&taken), Label::ChangedRelation);
    assert_eq!(Label::of(&Taken { unexplained: 1.2, ..taken }), Label::LevelShift);
    assert_eq!(Label::of(&Taken { unexplained: 1.0, roughness: 0.3, ..taken }), Label::ChangedVariance);
}

/// The labels that are told after the warm-up, with the first row and the first field of each.
fn told(verdicts: &[RowVerdict]) -> Vec<(usize, &'static str, String)> {
    let mut told: Vec<(usize, &'static str, String)> = Vec::new();
    for (row, verdict) in verdicts.iter().enumerate() {
        for sighting in &verdict.sightings {
            if !told.iter().any(|(_, label, _)| *label == sighting.label) {
                told.push((row, sighting.label, sighting.contributions[0].field.to_string()));
            }
        }
    }
    told
}

#[test]
fn a_single_row_that_leaps_is_told_with_its_field() {
    for (size, label) in [(20.0, "spike"), (-20.0, "drop"), (2_000.0, "spike")] {
        let verdicts = with(|row, values| values[3] += if row == 900 { size } else { 0.0 });
        let told = told(&verdicts);
        assert!(told.contains(&(900, label, String::from("f3"))), "{told:?}");
        let sighting = &verdicts[900].sightings[0];
        let first = &sighting.contributions[0];
        assert!((first.expected.unwrap() - 32.0).abs() < 2.0 && first.share == 1.0, "{first:?}");
        assert!(sighting.score >= verdicts[900].threshold && verdicts[900].flagged);
        assert_eq!(flagged(&verdicts, 901..1_000), 0, "and only once: {told:?}");
    }
}

#[test]
fn a_relation_that_turns_round_and_a_field_that_leaves_the_others_slowly_are_told() {
    let inverted = with(|row, values| {
        if row >= 900 {
            values[1] = 10.0 - values[1];
        }
    });
    let (row, label, field) = told(&inverted).remove(0);
    assert!(label == "changed_relation" && ["f0", "f1"].contains(&field.as_str()), "{row} {label} {field}");
    assert!((900..960).contains(&row), "{row}");
    let slow = run(2_400, |row| {
        let mut values = pump(row);
        values[1] += 0.6 * ((row - 900) as f64 / 1_200.0).clamp(0.0, 1.0);
        values.map(Some)
    });
    let part = |verdict: &RowVerdict| verdict.sightings.first().map(|sighting| sighting.contributions[0].clone());
    let names = |part: &Contribution| ["f0", "f1"].contains(&part.field.as_str());
    let leaves =
        |part: &Contribution| names(part) && part.note.as_ref().is_some_and(|note| note.contains("usual residuals"));
    let row = slow.iter().position(|verdict| part(verdict).is_some_and(|part| leaves(&part))).unwrap();
    assert!((900..1_500).contains(&row), "{row}");
    assert!(["drift", "changed_relation"].contains(&slow[row].sightings[0].label));
    assert!(part(&slow[row]).is_some_and(|part| part.expected.is_some()));
}

#[test]
fn what_was_seen_is_shown_as_it_was_sent() {
    let change = |row: i64, values: &mut [f64; FIELDS]| {
        // Far enough from the first value that a difference to it is rounded.
        values[1] -= if row == 0 { 2.4 } else { 4.5 };
        if row >= 900 {
            values[1] = 1.0 - values[1];
        }
        if row > 600 && row % 50 == 0 {
            values[3] = 0.1 * (row % 7 + 1) as f64;
        }
    };
    let verdicts = with(change);
    let mut shown = 0;
    for (row, verdict) in verdicts.iter().enumerate() {
        let mut values = pump(row as i64);
        change(row as i64, &mut values);
        for part in verdict.sightings.iter().flat_map(|sighting| &sighting.contributions) {
            let field: usize = part.field.as_str()[1..].parse().unwrap();
            assert_eq!(part.seen.to_bits(), values[field].to_bits(), "{row} {part:?}");
            shown += 1;
        }
    }
    let told = told(&verdicts);
    let is_told = |wanted: &str| told.iter().any(|(_, label, _)| *label == wanted);
    assert!(shown > 100 && is_told("drop") && is_told("changed_relation"), "{shown} {told:?}");
}

#[test]
fn a_raised_threshold_asks_for_more_evidence() {
    let model = model();
    let leap = |steps: f64, size: f64| {
        let mut state = model.new_state(&fields(FIELDS));
        state.raise_threshold(None, steps);
        let rows = (0..=900).map(|row| {
            let mut values = pump(row);
            values[3] += if row == 900 { size } else { 0.0 };
            judge(model.as_ref(), state.as_mut(), row, &values.map(FieldValue::Number))
        });
        let last = rows.last().unwrap();
        (last.flagged, last.score >= last.threshold)
    };
    assert_eq!((leap(0.0, 13.0), leap(2.0, 13.0), leap(2.0, 60.0)), ((true, true), (false, false), (true, true)));
}

/// What versions wrote that had no evidence beside the network's.
#[test]
fn states_of_the_first_format_are_read_and_the_rest_is_learnt_anew() {
    let model = model();
    let value = |row: i64| pump(row).map(FieldValue::Number);
    let mut one = model.new_state(&fields(FIELDS));
    (0..1_000).for_each(|row| drop(judge(model.as_ref(), one.as_mut(), row, &value(row))));
    let mut first = one.snapshot();
    let parted = 1 + 4 + 144 * FIELDS + 4 + 8 * FIELDS * (FIELDS + 1) / 2 + 1 + 8 + 1;
    first.truncate(parted + 1 + 8 * FIELDS);
    first.remove(parted);
    first[0] = 1;
    let mut two = model.restore(&fields(FIELDS), &first).unwrap();
    for row in 1_000..1_300 {
        let scores = [&mut one, &mut two].map(|state| judge(model.as_ref(), state.as_mut(), row, &value(row)).score);
        assert_eq!(scores[0], scores[1], "{row}");
    }
    first[0] = VERSION + 1;
    assert!(model.restore(&fields(FIELDS), &first).is_err());
}

#[test]
fn a_verdict_is_flagged_where_its_score_reaches_the_threshold() {
    let verdicts = with(|row, values| values[0] += if row > 400 && row % 400 > 300 { 8.0 } else { 0.0 });
    assert!(verdicts.iter().all(|verdict| verdict.flagged == (verdict.score >= verdict.threshold)));
    assert!(verdicts.iter().all(|verdict| (0.0..=1.0).contains(&verdict.score)));
    assert!(verdicts.iter().any(|verdict| verdict.flagged));
}

#[test]
fn missing_fields_are_borne() {
    let verdicts = run(1_400, |row| {
        let mut values = pump(row).map(Some);
        values[0] = values[0].filter(|_| row % 3 != 0);
        values[2] = None;
        values[3] = values[3].filter(|_| row < 900).map(|value| if row >= 700 { value + 5.0 } else { value });
        if row % 50 == 0 { [None; FIELDS] } else { values }
    });
    assert!(flagged(&verdicts, 730..900) > 140);
    assert!(verdicts.iter().all(|verdict| verdict.score.is_finite()));
    let model = model();
    let mut state = model.new_state(&fields(FIELDS));
    assert!(!judge(model.as_ref(), state.as_mut(), 0, &[]).flagged);
    state.skip();
    assert!(!state.judge(&[]).flagged, "nothing was taken");
}

#[test]
fn rows_taken_ahead_are_judged_as_one_by_one() {
    let model = model();
    let (mut one, mut other) = (model.new_state(&fields(FIELDS)), model.new_state(&fields(FIELDS)));
    let values = |row: i64| {
        let shift = if row > 600 { 3.0 } else { 0.0 };
        pump(row).map(|value| FieldValue::Number(value + shift))
    };
    let mut row = 0;
    for batch in [380, 1, 7, 64, 130, 40, 65, 90] {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        let counts: Vec<usize> = (row..row + batch)
            .map(|at| other.take(&Row { time: Timestamp::from_secs(at), values: &values(at) }, &mut inputs))
            .collect();
        model.forward(&inputs, counts.iter().sum(), &mut outputs).unwrap();
        let mut outputs = outputs.as_slice();
        for (at, count) in (row..).zip(counts) {
            let (own, rest) = outputs.split_at(count);
            assert_eq!(judge(model.as_ref(), one.as_mut(), at, &values(at)), other.judge(own));
            outputs = rest;
        }
        row += batch;
    }
}

#[test]
fn a_restored_state_goes_on_as_if_nothing_had_happened() {
    let model = model();
    for at in [200, 1_000] {
        let values = |row: i64| pump(row).map(|value| FieldValue::Number(value + if row > 900 { 2.0 } else { 0.0 }));
        let mut one = model.new_state(&fields(FIELDS));
        (0..at).for_each(|row| drop(judge(model.as_ref(), one.as_mut(), row, &values(row))));
        let snapshot = one.snapshot();
        assert!(snapshot.len() < 2_048, "{} bytes", snapshot.len());
        let mut two = model.restore(&fields(FIELDS), &snapshot).unwrap();
        for row in at..at + 400 {
            let (one, two) = (one.as_mut(), two.as_mut());
            assert_eq!(judge(model.as_ref(), one, row, &values(row)), judge(model.as_ref(), two, row, &values(row)));
        }
        assert!(model.restore(&fields(FIELDS - 1), &snapshot).is_err());
        assert!((0..snapshot.len()).step_by(13).all(|cut| model.restore(&fields(FIELDS), &snapshot[..cut]).is_err()));
    }
}

#[test]
fn streams_that_do_not_fit_are_refused() {
    let model = model();
    assert!(model.accepts(&fields(2)).is_ok() && model.accepts(&fields(32)).is_ok());
    for count in [0, 1, 33] {
        assert!(matches!(model.accepts(&fields(count)), Err(ModelError::Unfit { .. })), "{count}");
    }
    let (mut card, weights) = crate::catalog::parts(NAME, None).unwrap();
    for warm_up in [None, Some(3), Some(u32::MAX)] {
        card.warm_up_rows = warm_up;
        assert!(matches!(Multivariate::new(&card, &weights), Err(ModelError::Damaged { .. })));
    }
}

#[test]
fn another_leap_begins_and_a_relation_that_stays_broken_does_once() {
    let verdicts = with(|row, values| {
        values[3] += if [800, 803, 820].contains(&row) { 60.0 } else { 0.0 };
        if (1_000..1_100).contains(&row) {
            values[1] = -values[1];
        }
    });
    let begun = |rows: std::ops::Range<usize>, is_leap: bool| {
        let begins = |one: &Sighting| one.begins && ["spike", "drop"].contains(&one.label) == is_leap;
        let rows = verdicts[rows.clone()].iter().zip(rows);
        rows.filter(|(verdict, _)| verdict.sightings.iter().any(begins)).map(|(_, row)| row).collect::<Vec<_>>()
    };
    assert_eq!(begun(700..1_000, true), [800, 820]);
    let broken = begun(1_000..verdicts.len(), false);
    assert!(matches!(broken[..], [1_000..1_050]), "{broken:?}");
    assert!(verdicts[1_000..1_100].iter().filter(|verdict| verdict.flagged).count() > 20, "it lasts");
}
