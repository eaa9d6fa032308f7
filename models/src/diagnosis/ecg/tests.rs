//! Synthetic leads: where beats are found, what is told and how often, and that a state goes on from its snapshot.

use nearside_schemas::FieldPolicy;

use super::*;
use crate::catalog;

const HZ: f64 = 250.0;
const START: i64 = 1_795_486_447_794_000;

fn fields() -> Vec<FieldSpec> {
    let name = FieldName::new("mv").unwrap();
    vec![FieldSpec { name, kind: FieldKind::Number, unit: Some("mV".to_owned()), policy: FieldPolicy::Clear }]
}

fn gauss(t: f64, at: f64, height: f64, width: f64) -> f64 {
    height * (-0.5 * ((t - at) / width).powi(2)).exp()
}

/// A lead with beats at these times, broad where said, on a wandering base line with mains hum.
fn lead(seconds: f64, beats: &[(f64, bool)]) -> Vec<f64> {
    let sample = |t: f64| {
        let drift = 0.08 * (1.3 * t).sin() + 0.01 * (314.0 * t).sin() + 0.01 * ((t * 7_919.0).sin() * 43_758.5).fract();
        let near = beats.iter().filter(|(at, _)| (at - t).abs() < 0.6);
        let waves = near.map(|(at, broad)| match broad {
            false => {
                gauss(t, at - 0.16, 0.13, 0.022) + gauss(t, *at, 1.1, 0.011) - gauss(t, at + 0.028, 0.24, 0.01)
                    + gauss(t, at + 0.27, 0.3, 0.048)
            }
            true => gauss(t, *at, 1.6, 0.04) - gauss(t, at + 0.3, 0.4, 0.065),
        });
        drift + waves.sum::<f64>()
    };
    (0..(seconds * HZ) as usize).map(|index| sample(index as f64 / HZ)).collect()
}

fn regular(seconds: f64, interval: f64) -> Vec<(f64, bool)> {
    let count = (seconds / interval) as usize;
    (0..count).map(|beat| (0.4 + beat as f64 * interval, false)).collect()
}

/// Every third beat is early and broad.
fn trigeminy(seconds: f64) -> Vec<(f64, bool)> {
    let mut beats = regular(seconds, 0.8);
    for beat in beats.iter_mut().skip(14).step_by(3) {
        *beat = (beat.0 - 0.28, true);
    }
    beats
}

fn labels(state: &mut dyn RowState, from: f64, samples: &[f64]) -> Vec<(f64, &'static str)> {
    let mut seen = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let at = from + index as f64 / HZ;
        let row = Row {
            time: Timestamp::from_micros(START + (at * 1e6).round() as i64),
            values: &[FieldValue::Number(*sample)],
        };
        state.take(&row, &mut Vec::new());
        let verdict = state.judge(&[]);
        assert_eq!(verdict.flagged, verdict.score >= verdict.threshold);
        seen.extend(verdict.sightings.iter().map(|sighting| (at, sighting.label)));
    }
    seen
}

#[test]
fn complexes_are_found_where_they_are() {
    for interval in [0.4, 0.8, 1.3] {
        let beats = regular(60.0, interval);
        let mut detector = QrsDetector::new(HZ);
        let found: Vec<f64> = lead(60.0, &beats).iter().filter_map(|x| detector.push(*x)).map(|c| c.at).collect();
        let near = |at: &f64| found.iter().any(|one| (one - at).abs() < 0.02);
        let inner: Vec<f64> = beats.iter().map(|beat| beat.0).filter(|at| *at > 2.0 && *at < 59.0).collect();
        assert!(inner.iter().all(near), "{interval}: {found:?}");
        let extra = found.iter().filter(|at| beats.iter().all(|(beat, _)| (beat - *at).abs() > 0.02)).count();
        assert_eq!(extra, 0, "{interval}");
    }
}

#[test]
fn broad_early_beats_are_told_once() {
    let mut state = catalog::load("ecg-rhythm", None).unwrap().new_state(&fields());
    let seen = labels(&mut *state, 0.0, &lead(60.0, &trigeminy(60.0)));
    assert_eq!(seen.iter().map(|(_, label)| *label).collect::<Vec<_>>(), [VENTRICULAR_BEATS]);
    // The third of them comes at the 21st beat.
    assert!((16.0..18.5).contains(&seen[0].0), "{seen:?}");
}

#[test]
fn an_ordinary_rhythm_says_nothing_even_in_strips_and_where_it_quickens() {
    let mut state = catalog::load("ecg-rhythm", None).unwrap().new_state(&fields());
    for strip in 0..20 {
        let interval = 0.9 - 0.02 * f64::from(strip);
        let samples = lead(10.0, &regular(10.0, interval));
        assert_eq!(labels(&mut *state, f64::from(strip) * 60.0, &samples), [], "{strip}");
    }
}

#[test]
fn a_signal_that_is_lost_is_told_once_and_again_after_it_came_back() {
    let mut state = catalog::load("ecg-rhythm", None).unwrap().new_state(&fields());
    let beats = lead(20.0, &regular(20.0, 0.8));
    let noise: Vec<f64> = (0..2_500).map(|i| 0.002 * (f64::from(i) * 1.7).sin()).collect();
    assert_eq!(labels(&mut *state, 0.0, &beats), []);
    let lost = labels(&mut *state, 20.0, &noise);
    assert_eq!(lost.len(), 1);
    assert!(lost[0].1 == SIGNAL_LOST && (22.0..25.0).contains(&lost[0].0), "{lost:?}");
    assert_eq!(labels(&mut *state, 30.0, &beats), []);
    assert_eq!(labels(&mut *state, 50.0, &noise).len(), 1);
}

#[test]
fn a_state_goes_on_from_its_snapshot_in_the_middle_of_a_beat() {
    let model = catalog::load("ecg-rhythm", None).unwrap();
    let samples = lead(60.0, &trigeminy(60.0));
    let whole = labels(&mut *model.new_state(&fields()), 0.0, &samples);
    for cut in [700, 3_001, 4_100] {
        let mut state = model.new_state(&fields());
        let mut seen = labels(&mut *state, 0.0, &samples[..cut]);
        let snapshot = state.snapshot();
        assert!(snapshot.len() < 4_096, "{}", snapshot.len());
        let mut state = model.restore(&fields(), &snapshot).unwrap();
        seen.extend(labels(&mut *state, cut as f64 / HZ, &samples[cut..]));
        assert_eq!(seen, whole, "{cut}");
        assert!(model.restore(&fields(), &snapshot[..snapshot.len() - 1]).is_err());
    }
}

#[test]
fn a_rate_it_cannot_judge_is_passed_over() {
    let mut state = catalog::load("ecg-rhythm", None).unwrap().new_state(&fields());
    for row in 0..500 {
        let value = [FieldValue::Number(f64::from(row % 50))];
        state.take(&Row { time: Timestamp::from_secs(i64::from(row)), values: &value }, &mut Vec::new());
        assert_eq!(state.judge(&[]).sightings, []);
    }
}
