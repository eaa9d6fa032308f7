//! Tests of what a change is called, in virtual time: every kind within the stated number of rows, for several seeds.

use std::f64::consts::TAU;

use nearside_schemas::FieldValue;

use super::tests::{fields, judge_at, model};
use super::*;

const MINUTE: i64 = 60;
const ROWS_A_DAY: usize = 1_440;

/// Normal deviates of a seed.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.uniform()).cos()
    }
}

/// A row each minute: a level with a rhythm of a day, and noise of deviation 0.3 that is changed from `at` on.
fn minutes(seed: u64, rows: usize, day: f64, change: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    let mut noise = Noise(seed);
    let value = |row: usize| {
        let rhythm = day * (TAU * row as f64 / ROWS_A_DAY as f64).sin();
        21.0 + rhythm + change(row, 0.3 * noise.normal())
    };
    (0..rows).map(value).collect()
}

/// What is said of rows a minute apart that travel `batch` at a time.
fn verdicts(values: &[f64], batch: usize) -> Vec<RowVerdict> {
    let model = model();
    let mut state = model.new_state(&fields(1));
    let (mut inputs, mut outputs, mut said) = (Vec::new(), Vec::new(), Vec::new());
    for rows in values.chunks(batch) {
        inputs.clear();
        for value in rows {
            let time = Timestamp::from_secs(1_700_000_000 + MINUTE * (said.len() + inputs.len() / INPUTS) as i64);
            state.take(&Row { time, values: &[FieldValue::Number(*value)] }, &mut inputs);
        }
        model.forward(&inputs, rows.len(), &mut outputs).unwrap();
        said.extend(outputs.chunks(OUTPUTS).map(|outputs| state.judge(outputs)));
    }
    said
}

/// Rows after `at`, with labels.
fn told(said: &[RowVerdict], at: usize) -> Vec<(usize, &'static str)> {
    let flagged = said.iter().enumerate().skip(at).filter(|(_, verdict)| verdict.flagged);
    flagged.map(|(row, verdict)| (row - at, verdict.sightings[0].label)).collect()
}

fn rows_of(found: &[(usize, &'static str)], label: &str) -> Vec<usize> {
    found.iter().filter(|(_, told)| *told == label).map(|(row, _)| *row).collect()
}

#[test]
fn a_value_that_stays_away_is_a_level_shift_within_24_rows() {
    let at = 3 * ROWS_A_DAY / 2;
    for (seed, shift, day) in [(1, 2.0, 0.0), (2, -4.0, 0.0), (3, 10.0, 0.0), (4, 4.0, 3.0), (5, -10.0, 3.0)] {
        let values = minutes(seed, at + 400, day, |row, noise| noise + if row >= at { shift } else { 0.0 });
        let said = verdicts(&values, 64);
        let found = told(&said, at);
        assert!(found.first().is_some_and(|(row, _)| *row < 4), "{seed}: {found:?}");
        let levels = rows_of(&found, LEVEL_SHIFT);
        assert!(matches!(levels[..], [row] if row < 24), "{seed}: {found:?}");
        let row = &said[at + levels[0]];
        if levels[0] > 4 {
            assert!(row.score < row.threshold, "no alarm of its own");
            assert!(row.sightings[0].text.contains("stays there"), "{}", row.sightings[0].text);
        }
        assert!(row.sightings[0].score >= row.threshold, "a finding all the same");
    }
}

#[test]
fn a_spike_of_some_rows_is_no_level_shift() {
    let at = 600;
    for (seed, rows) in [(1, 1), (2, 5), (3, 12)] {
        let values =
            minutes(seed, at + 300, 0.0, |row, noise| noise + if (at..at + rows).contains(&row) { 9.0 } else { 0.0 });
        let found = told(&verdicts(&values, 64), at);
        let late: Vec<_> = found.iter().filter(|(row, label)| *row >= 12 && *label == LEVEL_SHIFT).collect();
        assert!(!found.is_empty() && late.is_empty(), "{seed}: {found:?}");
    }
}

#[test]
fn more_scatter_is_named_within_64_rows_and_much_less_within_80() {
    for (seed, known_days, times, within) in
        [(1, 1, 4.0, 64), (2, 1, 4.0, 64), (3, 1, 10.0, 64), (4, 3, 0.15, 80), (5, 3, 0.15, 80)]
    {
        let at = known_days * ROWS_A_DAY + 5;
        let values = minutes(seed, at + 500, 0.0, |row, noise| if row >= at { times * noise } else { noise });
        let said = verdicts(&values, 64);
        let found = told(&said, at);
        let named = rows_of(&found, CHANGED_VARIANCE);
        assert!(named.first().is_some_and(|row| *row < within) && named.len() <= 2, "{seed}: {found:?}");
        if times < 1.0 {
            let text = &said[at + named[0]].sightings[0].text;
            assert!(text.contains("scatters 0.1") || text.contains("scatters 0.2"), "{text}");
        }
    }
}

#[test]
fn what_is_usual_gets_no_name() {
    for seed in [1, 2] {
        let white = minutes(seed, 5 * ROWS_A_DAY, 0.0, |_, noise| noise);
        let by_day = minutes(seed, 5 * ROWS_A_DAY, 3.0, |_, noise| noise);
        // By night it scatters by a third.
        let nights = |row: usize, noise: f64| if row % ROWS_A_DAY < ROWS_A_DAY / 2 { 0.33 * noise } else { noise };
        let nights = minutes(seed, 5 * ROWS_A_DAY, 0.0, nights);
        // The first night and morning are news.
        for (name, values) in [("white", white), ("day", by_day), ("nights", nights)] {
            let said = verdicts(&values, 64);
            let known = said.iter().skip(ROWS_A_DAY);
            let named = known.filter(|verdict| verdict.flagged && verdict.score < verdict.threshold).count();
            assert_eq!(named, 0, "{name} {seed}: {:?}", told(&said, 0));
        }
    }
}

#[test]
fn names_do_not_depend_on_batches_and_go_on_from_a_snapshot() {
    let at = 400;
    let model = model();
    for (label, shift, times) in [(LEVEL_SHIFT, 6.0, 1.0), (CHANGED_VARIANCE, 0.0, 8.0)] {
        let change = |row: usize, noise: f64| if row >= at { shift + times * noise } else { noise };
        let values = minutes(7, at + 100, 0.0, change);
        let whole = verdicts(&values, 128);
        assert!(!rows_of(&told(&whole, at), label).is_empty(), "{label}: {:?}", told(&whole, at));
        assert_eq!(whole, verdicts(&values, 1), "{label}");
        let mut state = model.new_state(&fields(1));
        for (row, value) in values.iter().enumerate() {
            if row % 7 == 0 {
                state = model.restore(&fields(1), &state.snapshot()).unwrap();
            }
            let time = 1_700_000_000 + MINUTE * row as i64;
            let verdict = judge_at(model.as_ref(), state.as_mut(), time, &[FieldValue::Number(*value)]);
            assert_eq!(verdict, whole[row], "{label} {row}");
        }
    }
}
