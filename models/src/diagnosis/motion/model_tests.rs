//! Both models on made signals: the same in every batch, the same over a restart, and every finding explained.

use nearside_schemas::{FieldValue, Timestamp};

use super::tests::axes;
use crate::catalog;
use crate::row_model::{Row, RowModel, RowState, RowVerdict};

/// Lying, walking, a fall and lying again; 25 samples a second.
fn signal(index: i64) -> [f64; 3] {
    let t = index as f64 / 25.0;
    let breath = 0.012 * (1.6 * t).sin();
    let noise = 0.004 * ((index * 7_919) as f64 * 0.37).sin();
    match t {
        t if t < 400.0 => [0.2 + noise, 0.1, 0.97 + breath],
        t if t < 700.0 => {
            let step = (std::f64::consts::TAU * 1.8 * t).sin();
            [0.99 + 0.22 * step + noise, 0.05 * (5.6 * t).sin(), 0.1 + 0.1 * step]
        }
        t if t < 700.5 => [0.4, 0.1, 0.1],
        t if t < 700.7 => [2.4, 1.8, -1.5],
        _ => [0.05 + noise, 0.7 + noise, 0.7 + breath],
    }
}

fn values(index: i64) -> [FieldValue; 3] {
    signal(index).map(FieldValue::Number)
}

/// Judges rows, `batch` of them taken before they are judged.
fn judge(model: &dyn RowModel, state: &mut dyn RowState, rows: std::ops::Range<i64>, batch: usize) -> Vec<RowVerdict> {
    let all: Vec<i64> = rows.collect();
    let mut verdicts = Vec::new();
    for part in all.chunks(batch) {
        let (mut inputs, mut outputs, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for index in part {
            let time = Timestamp::from_micros(1_704_067_200_000_000 + index * 40_000);
            counts.push(state.take(&Row { time, values: &values(*index) }, &mut inputs));
        }
        model.forward(&inputs, inputs.len() / model.input_width(), &mut outputs).unwrap();
        let mut rest = outputs.as_slice();
        for count in counts {
            let (own, others) = rest.split_at(count * model.output_width());
            rest = others;
            verdicts.push(state.judge(own));
        }
    }
    verdicts
}

const ROWS: i64 = 25 * 1_000;

#[test]
fn every_score_is_the_same_in_every_batch_and_over_a_restart() {
    for name in [super::activity::NAME, super::sleep::NAME] {
        let model = catalog::load(name, None).unwrap();
        let one = judge(model.as_ref(), model.new_state(&axes()).as_mut(), 0..ROWS, 1);
        for batch in [7, 250, 6_000] {
            assert!(one == judge(model.as_ref(), model.new_state(&axes()).as_mut(), 0..ROWS, batch), "{name} {batch}");
        }
        let mut state = model.new_state(&axes());
        let mut parts = judge(model.as_ref(), state.as_mut(), 0..ROWS / 3, 100);
        let mut state = model.restore(&axes(), &state.snapshot()).unwrap();
        assert!(state.snapshot().len() < 8_192);
        parts.extend(judge(model.as_ref(), state.as_mut(), ROWS / 3..ROWS, 100));
        assert!(parts == one, "{name}");
        let damaged = &state.snapshot()[..20];
        assert!(model.restore(&axes(), damaged).is_err());
    }
}

#[test]
fn a_fall_is_found_and_explains_itself() {
    let model = catalog::load(super::activity::NAME, None).unwrap();
    let verdicts = judge(model.as_ref(), model.new_state(&axes()).as_mut(), 0..ROWS, 250);
    let falls: Vec<_> = verdicts.iter().flat_map(|v| &v.sightings).filter(|s| s.label == "fall_suggested").collect();
    assert_eq!(falls.len(), 1);
    let fall = falls[0];
    assert!(fall.score >= model_threshold(super::activity::NAME) && fall.contributions.len() == 3);
    assert!(
        fall.contributions[0].expected.is_some()
            && fall.contributions[0].note.as_ref().is_some_and(|note| note.contains("peak"))
    );
    // It is night, and the person got up after six minutes in bed: not yet out of bed.
    assert!(verdicts.iter().flat_map(|v| &v.sightings).all(|s| s.label != "out_of_bed"));
}

fn model_threshold(name: &str) -> f64 {
    catalog::card(name, None).unwrap().threshold
}
