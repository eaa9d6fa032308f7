//! Synthetic leads: where beats are found, what is told and how often, and that a state goes on from its snapshot.

use std::sync::Arc;

use nearside_schemas::{FieldPolicy, Timestamp};

use super::qrs::{Complex, QrsDetector};
use super::*;
use crate::catalog;

pub(super) const HZ: f64 = 250.0;
const START: i64 = 1_795_486_447_794_000;

pub(super) fn fields() -> Vec<FieldSpec> {
    let name = FieldName::new("mv").unwrap();
    vec![FieldSpec { name, kind: FieldKind::Number, unit: Some("mV".to_owned()), policy: FieldPolicy::Clear }]
}

fn gauss(t: f64, at: f64, height: f64, width: f64) -> f64 {
    height * (-0.5 * ((t - at) / width).powi(2)).exp()
}

/// A lead with beats at these times, broad where said, on a wandering base line with mains hum.
pub(super) fn lead(seconds: f64, beats: &[(f64, bool)]) -> Vec<f64> {
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

pub(super) fn regular(seconds: f64, interval: f64) -> Vec<(f64, bool)> {
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

pub(super) fn model() -> Arc<dyn RowModel> {
    catalog::load(NAME, None).unwrap()
}

/// Shows samples and gives when each label was said.
fn labels(model: &dyn RowModel, state: &mut dyn RowState, from: f64, samples: &[f64]) -> Vec<(f64, &'static str)> {
    let (mut seen, mut inputs, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
    for (index, sample) in samples.iter().enumerate() {
        let at = ((from + index as f64 / HZ) * 1e3).round() / 1e3;
        let row = Row {
            time: Timestamp::from_micros(START + (at * 1e6).round() as i64),
            values: &[FieldValue::Number(*sample)],
        };
        inputs.clear();
        outputs.clear();
        let count = state.take(&row, &mut inputs);
        assert_eq!(inputs.len(), count * INPUTS);
        if count > 0 {
            model.forward(&inputs, count, &mut outputs).unwrap();
        }
        let verdict = state.judge(&outputs);
        assert_eq!(verdict.flagged, verdict.score >= verdict.threshold);
        seen.extend(verdict.sightings.iter().map(|sighting| (at, sighting.label)));
    }
    seen
}

pub(super) fn show(state: &mut dyn RowState, from: f64, samples: &[f64]) -> Vec<(f64, &'static str)> {
    labels(&*model(), state, from, samples)
}

fn complexes(leads: &[Vec<f64>]) -> Vec<Complex> {
    let mut detector = QrsDetector::new(leads.len());
    let mut found = Vec::new();
    for index in 0..leads[0].len() {
        let samples: Vec<f64> = leads.iter().map(|lead| lead[index]).collect();
        detector.push(&samples, &mut found);
    }
    found
}

/// At the rate that the detector works on.
fn resampled(samples: &[f64]) -> Vec<f64> {
    let mut given = Vec::new();
    let mut resampler = filter::Resampler::new(HZ);
    samples.iter().for_each(|sample| resampler.push(*sample, &mut given));
    given
}

#[test]
fn complexes_are_found_where_they_are() {
    for interval in [0.4, 0.8, 1.3] {
        let beats = regular(60.0, interval);
        let one = resampled(&lead(60.0, &beats));
        // A second lead that is not connected changes nothing.
        let two = vec![one.clone(), vec![0.0; one.len()]];
        assert_eq!(complexes(&two), complexes(std::slice::from_ref(&one)));
        let found: Vec<f64> = complexes(&[one]).iter().map(|complex| complex.at as f64 / RATE_HZ).collect();
        let near = |at: &f64| found.iter().any(|one| (one - at).abs() < 0.04);
        let inner: Vec<f64> = beats.iter().map(|beat| beat.0).filter(|at| *at > 1.0 && *at < 59.0).collect();
        assert!(inner.iter().all(near), "{interval}: {found:?}");
        let extra = found
            .iter()
            .filter(|at| **at > 1.0 && **at < 59.0)
            .filter(|at| beats.iter().all(|(beat, _)| (beat - *at).abs() > 0.04))
            .count();
        assert_eq!(extra, 0, "{interval}");
    }
}

#[test]
fn a_lead_that_is_connected_late_is_heard_soon() {
    let beats = lead(60.0, &regular(60.0, 0.8));
    let late = (1..=beats.len()).zip(&beats).map(|(i, x)| if i < 500 { 0.0 } else { 5.0 * f64::from(i < 510) + x });
    let found = complexes(&[resampled(&late.collect::<Vec<_>>())]);
    let after = found.iter().filter(|complex| complex.at as f64 > 15.0 * RATE_HZ).count();
    assert!(after.abs_diff(56) <= 1, "{after} of 56 from 15 s on");
}

#[test]
fn every_beat_is_told_once_with_all_inputs() {
    let beats = trigeminy(60.0);
    let mut finder = BeatFinder::new(HZ, 1);
    let mut found = Vec::new();
    lead(60.0, &beats).iter().for_each(|sample| finder.push(&[*sample], &mut found));
    finder.flush(&mut found);
    assert!(found.len().abs_diff(beats.len()) <= 2, "{} of {}", found.len(), beats.len());
    assert!(found.windows(2).all(|pair| pair[0].at + 0.2 < pair[1].at));
    assert!(found.iter().all(|beat| beat.leads() == 1 && beat.inputs.iter().all(|input| input.is_finite())));
    let quality = found.iter().map(|beat| beat.quality).sum::<f64>() / found.len() as f64;
    assert!(quality > 0.5, "a clear signal is clear: {quality}");
}

#[test]
fn a_flat_line_and_noise_are_no_beats_that_count() {
    let flat = vec![1.0; 20 * HZ as usize];
    let said = show(&mut *model().new_state(&fields()), 0.0, &flat);
    assert!(matches!(said[..], [(at, "signal_lost")] if at < 4.0), "{said:?}");
    let noise: Vec<f64> = (0..60 * HZ as i64).map(|i| ((i * i) as f64 * 0.37).sin() + ((i * 7) as f64).sin()).collect();
    let said = show(&mut *model().new_state(&fields()), 0.0, &noise);
    assert!(said.iter().all(|(_, label)| *label == "noisy_signal"), "{said:?}");
}

#[test]
fn broad_early_beats_are_told_once() {
    let mut state = model().new_state(&fields());
    let seen = show(&mut *state, 0.0, &lead(60.0, &trigeminy(60.0)));
    let times: Vec<f64> = seen.iter().filter(|(_, label)| *label == "ventricular_beats").map(|seen| seen.0).collect();
    // The third of them comes at the 21st beat.
    assert!(times.len() == 1 && (16.0..23.5).contains(&times[0]), "{seen:?}");
}

#[test]
fn an_ordinary_rhythm_says_nothing_even_in_strips_and_where_it_quickens() {
    let mut state = model().new_state(&fields());
    for strip in 0..20 {
        let interval = 0.9 - 0.02 * f64::from(strip);
        let samples = lead(10.0, &regular(10.0, interval));
        assert_eq!(show(&mut *state, f64::from(strip) * 60.0, &samples), [], "{strip}");
    }
}

/// A sinus rhythm of so many seconds at a rate that goes from one to the other between two times: intervals vary with the breath.
fn sinus(seconds: f64, (first, last): (f64, f64), (from, to): (f64, f64)) -> Vec<(f64, bool)> {
    let (mut beats, mut at) = (Vec::new(), 0.4);
    while at < seconds {
        beats.push((at, false));
        let rate = first + (last - first) * ((at - from) / (to - from)).clamp(0.0, 1.0);
        at += 60.0 / rate * (1.0 + 0.03 * (1.6 * at).sin() + 0.015 * (0.63 * at).sin());
    }
    beats
}

/// A state that has heard ten strips of 10 s, each 20 s after the one before, at 75 beats a minute, and then hears four at another rate, with
/// every so many beats early by a quarter; gives what it says of those.
fn after_a_slower_hour(rate: f64, early: Option<usize>) -> Vec<&'static str> {
    let mut state = model().new_state(&fields());
    let usual = lead(10.0, &sinus(10.0, (75.0, 75.0), (0.0, 1.0)));
    assert_eq!(strips(&mut *state, 0.0, 10, &usual), []);
    let mut beats = sinus(14.0, (rate, rate), (0.0, 1.0));
    let mut sooner = 0.0;
    for (index, beat) in beats.iter_mut().enumerate() {
        // The sinus node begins anew after it: no pause makes up for it.
        let is_early = early.is_some_and(|every| index % every == 2);
        beat.0 -= sooner + if is_early { 0.28 * 60.0 / rate } else { 0.0 };
        sooner += if is_early { 0.18 * 60.0 / rate } else { 0.0 };
    }
    strips(&mut *state, 300.0, 4, &lead(10.0, &beats)).iter().map(|seen| seen.1).collect()
}

#[test]
fn a_heart_that_beats_faster_in_the_next_strip_has_no_early_beats() {
    for rate in [55.0, 85.0, 90.0, 95.0, 100.0, 105.0, 110.0, 120.0] {
        assert_eq!(after_a_slower_hour(rate, None), [""; 0], "{rate}");
    }
}

#[test]
fn early_beats_in_a_faster_strip_are_told() {
    for rate in [75.0, 90.0, 95.0, 100.0] {
        for every in [4, 6] {
            let said = after_a_slower_hour(rate, Some(every));
            assert!(said.contains(&"supraventricular_beats"), "{rate} {every}: {said:?}");
        }
    }
}

#[test]
fn a_heart_that_quickens_within_a_strip_has_no_early_beats() {
    for seconds in [10.0, 20.0, 40.0, 60.0] {
        let beats = sinus(180.0, (75.0, 105.0), (80.0, 80.0 + seconds));
        assert_eq!(show(&mut *model().new_state(&fields()), 0.0, &lead(180.0, &beats)), [], "{seconds}");
    }
}

#[test]
fn a_state_goes_on_from_its_snapshot_while_the_pace_of_a_strip_is_not_known() {
    let model = model();
    let usual = lead(10.0, &sinus(10.0, (75.0, 75.0), (0.0, 1.0)));
    let mut beats = sinus(10.0, (95.0, 95.0), (0.0, 1.0));
    beats.iter_mut().skip(3).step_by(3).for_each(|beat| *beat = (beat.0 - 0.2, true));
    let faster = lead(10.0, &beats);
    let mut whole = model.new_state(&fields());
    strips(&mut *whole, 0.0, 4, &usual);
    let before = whole.snapshot();
    let seen = show(&mut *whole, 120.0, &faster);
    assert!(!seen.is_empty());
    for cut in [10, 400, 1_100] {
        let mut state = model.restore(&fields(), &before).unwrap();
        let mut again = show(&mut *state, 120.0, &faster[..cut]);
        let snapshot = state.snapshot();
        assert!(snapshot.len() < 16_384, "{}", snapshot.len());
        let mut state = model.restore(&fields(), &snapshot).unwrap();
        again.extend(show(&mut *state, 120.0 + cut as f64 / HZ, &faster[cut..]));
        assert_eq!(again, seen, "{cut}");
        assert_eq!(state.snapshot(), whole.snapshot(), "{cut}");
    }
}

#[test]
fn a_signal_that_is_lost_is_told_once_and_again_after_it_came_back() {
    let mut state = model().new_state(&fields());
    let beats = lead(20.0, &regular(20.0, 0.8));
    let noise: Vec<f64> = (0..2_500).map(|i| 0.002 * (f64::from(i) * 1.7).sin()).collect();
    let lost =
        |seen: &[(f64, &str)]| seen.iter().filter(|(_, label)| *label == "signal_lost").map(|one| one.0).collect();
    assert_eq!(show(&mut *state, 0.0, &beats), []);
    let seen = show(&mut *state, 20.0, &noise);
    let times: Vec<f64> = lost(&seen);
    assert!(times.len() == 1 && (22.0..25.0).contains(&times[0]), "{seen:?}");
    assert!(seen.iter().all(|(_, label)| ["signal_lost", "noisy_signal"].contains(label)), "{seen:?}");
    show(&mut *state, 30.0, &beats);
    let times: Vec<f64> = lost(&show(&mut *state, 50.0, &noise));
    assert_eq!(times.len(), 1);
}

/// Strips of a quiet rhythm, half a minute apart, from this second on.
fn strips(state: &mut dyn RowState, from: f64, count: u32, strip: &[f64]) -> Vec<(f64, &'static str)> {
    (0..count).flat_map(|number| show(state, from + 30.0 * f64::from(number), strip)).collect()
}

/// The mean that beats are held against must not follow the noise of electrodes that are off: T waves would be beats afterwards.
#[test]
fn after_a_signal_that_was_lost_for_minutes_the_rhythm_is_what_it_was() {
    let mut state = model().new_state(&fields());
    let beats = lead(10.0, &regular(10.0, 0.8));
    let noise: Vec<f64> = (0..2_500).map(|i| 0.002 * (f64::from(i) * 1.7).sin()).collect();
    assert_eq!(strips(&mut *state, 0.0, 10, &beats), []);
    let labels: Vec<&str> = strips(&mut *state, 300.0, 12, &noise).iter().map(|seen| seen.1).collect();
    assert_eq!(labels, ["signal_lost"]);
    assert_eq!(strips(&mut *state, 660.0, 6, &beats), []);
}

#[test]
fn a_beat_that_the_signal_cuts_is_not_whole() {
    let beats: Vec<(f64, bool)> = (0..10).map(|beat| (0.1 + 0.8 * f64::from(beat), false)).collect();
    let mut finder = BeatFinder::new(HZ, 1);
    let mut found = Vec::new();
    lead(7.65, &beats).iter().for_each(|sample| finder.push(&[*sample], &mut found));
    finder.flush(&mut found);
    let cut = |beat: &Beat| !(0.5..7.0).contains(&beat.at);
    assert!(found.iter().any(|beat| beat.at > 7.0), "{:?}", found.iter().map(|beat| beat.at).collect::<Vec<_>>());
    assert!(found.iter().all(|beat| beat.is_whole != cut(beat)));
}

fn told(class: BeatClass, probability: f32, interval: f64, quality: f64) -> Classed {
    Classed { at: 0, interval: Some(interval), usual_interval: 0.8, class, probability, quality }
}

#[test]
fn a_few_intervals_are_no_heart_rate() {
    let field = FieldName::new("mv").unwrap();
    let (mut rhythm, mut seen) = (Rhythm::default(), Vec::new());
    (0..16).for_each(|_| rhythm.push(told(BeatClass::Normal, 0.9, 0.4, 0.0), &field, 0.5, &mut seen));
    (0..8).for_each(|_| rhythm.push(told(BeatClass::Normal, 0.9, 0.4, 1.0), &field, 0.5, &mut seen));
    assert!(rhythm.heart_rate().is_none(), "the noise before is no rate, and little has come since");
    assert!(seen.iter().all(|sighting| sighting.label == "noisy_signal"), "{seen:?}");
    (0..16).for_each(|_| rhythm.push(told(BeatClass::Normal, 0.9, 0.4, 1.0), &field, 0.5, &mut seen));
    assert!((rhythm.heart_rate().unwrap() - 150.0).abs() < 1e-9);
    assert_eq!(seen.iter().filter(|sighting| sighting.label == "fast_rhythm").count(), 1);
}

#[test]
fn a_class_that_is_not_likely_counts_for_nothing() {
    let field = FieldName::new("mv").unwrap();
    let (mut rhythm, mut seen) = (Rhythm::default(), Vec::new());
    (0..8).for_each(|_| rhythm.push(told(BeatClass::Ventricular, 0.45, 0.8, 1.0), &field, 0.5, &mut seen));
    assert!(seen.is_empty(), "{seen:?}");
    // One that is less likely, between two that are, ends no run.
    let mut run = Rhythm::default();
    for probability in [0.9, 0.45, 0.9] {
        run.push(told(BeatClass::Ventricular, probability, 0.4, 1.0), &field, 0.5, &mut seen);
    }
    assert_eq!(seen.iter().map(|sighting| sighting.label).collect::<Vec<_>>(), ["ventricular_run"]);
    (0..3).for_each(|_| rhythm.push(told(BeatClass::Ventricular, 0.55, 0.8, 1.0), &field, 0.5, &mut seen));
    assert!(seen.iter().any(|sighting| sighting.label == "ventricular_beats"), "{seen:?}");
}

#[test]
fn a_supraventricular_beat_counts_where_it_is_sooner_than_the_one_before() {
    let field = FieldName::new("mv").unwrap();
    let said = |intervals: &[f64]| {
        let (mut rhythm, mut seen) = (Rhythm::default(), Vec::new());
        (0..10).for_each(|_| rhythm.push(told(BeatClass::Normal, 0.9, 0.8, 1.0), &field, 0.5, &mut seen));
        for interval in intervals {
            rhythm.push(told(BeatClass::Supraventricular, 0.9, *interval, 1.0), &field, 0.5, &mut seen);
        }
        seen.iter().map(|sighting| sighting.label).collect::<Vec<_>>()
    };
    assert_eq!(said(&[0.76, 0.72, 0.68, 0.64, 0.6, 0.57, 0.55, 0.53]), [""; 0], "a sinus node that hurries");
    assert_eq!(said(&[0.5, 0.5]), [""; 0], "two are not several");
    assert_eq!(said(&[0.5, 0.5, 0.5]), ["supraventricular_beats"], "a run");
}

#[test]
fn a_state_goes_on_from_its_snapshot_in_the_middle_of_a_beat() {
    let model = model();
    let samples = lead(60.0, &trigeminy(60.0));
    let whole = show(&mut *model.new_state(&fields()), 0.0, &samples);
    assert!(!whole.is_empty());
    for cut in [300, 700, 3_001, 4_100] {
        let mut state = model.new_state(&fields());
        let mut seen = show(&mut *state, 0.0, &samples[..cut]);
        let snapshot = state.snapshot();
        assert!(snapshot.len() < 16_384, "{}", snapshot.len());
        let mut state = model.restore(&fields(), &snapshot).unwrap();
        seen.extend(show(&mut *state, cut as f64 / HZ, &samples[cut..]));
        assert_eq!(seen, whole, "{cut}");
        assert!(model.restore(&fields(), &snapshot[..snapshot.len() - 1]).is_err());
    }
}

#[test]
fn damaged_snapshots_are_an_error_and_never_a_panic() {
    let model = model();
    let samples = lead(20.0, &trigeminy(20.0));
    let mut state = model.new_state(&fields());
    show(&mut *state, 0.0, &samples);
    let snapshot = state.snapshot();
    for at in 0..snapshot.len() {
        let mut damaged = snapshot.clone();
        damaged[at] ^= 0xff;
        if let Ok(mut state) = model.restore(&fields(), &damaged)
            && at % 97 == 0
        {
            show(&mut *state, 20.0, &samples[..500]);
        }
    }
}

/// Ten seconds of beats in pieces of this length, each followed by a gap as long as a beat.
fn in_pieces(state: &mut dyn RowState, from: f64, seconds: f64, piece: f64) -> Vec<(f64, &'static str)> {
    let samples = lead(seconds, &regular(seconds, 0.8));
    let pieces = samples.chunks((piece * HZ) as usize).enumerate();
    pieces.flat_map(|(number, samples)| show(state, from + number as f64 * (piece + 0.8), samples)).collect()
}

#[test]
fn a_signal_in_pieces_too_short_to_be_judged_is_told_once_and_again_after_it_was_whole() {
    let mut state = model().new_state(&fields());
    let seen = in_pieces(&mut *state, 0.0, 60.0, 1.0);
    assert!(matches!(seen[..], [(at, "unusable_signal")] if at < 20.0), "{seen:?}");
    // A state that was kept goes on without saying it anew.
    let mut state = model().restore(&fields(), &state.snapshot()).unwrap();
    assert_eq!(in_pieces(&mut *state, 200.0, 60.0, 1.0), []);
    // One piece of a few seconds is not yet a whole signal.
    assert_eq!(show(&mut *state, 400.0, &lead(5.0, &regular(5.0, 0.8))), []);
    assert_eq!(in_pieces(&mut *state, 410.0, 30.0, 1.0), []);
    assert_eq!(show(&mut *state, 600.0, &lead(20.0, &regular(20.0, 0.8))), []);
    assert_eq!(in_pieces(&mut *state, 630.0, 30.0, 1.0).len(), 1);
    // Strips that are each long enough are a whole signal too.
    assert_eq!(in_pieces(&mut *state, 800.0, 24.0, 8.0), []);
    assert_eq!(in_pieces(&mut *state, 900.0, 30.0, 1.0).len(), 1);
}

#[test]
fn strips_that_are_long_enough_and_a_few_gaps_are_nothing_to_tell() {
    let mut state = model().new_state(&fields());
    assert_eq!(in_pieces(&mut *state, 0.0, 120.0, 4.0), []);
    assert_eq!(in_pieces(&mut *state, 200.0, 8.0, 1.0), []);
}

#[test]
fn a_state_of_before_the_pieces_were_counted_goes_on() {
    let model = model();
    let mut state = model.new_state(&fields());
    let samples = lead(60.0, &trigeminy(60.0));
    let mut seen = show(&mut *state, 0.0, &samples[..300]);
    // What was added since: the pieces, and behind a byte how clear the signal is, and no beat that waits.
    let (mut clarity, mut writer) = (clarity::Clarity::new(HZ, 1, 0), Writer::new(0));
    samples[17..300].iter().for_each(|sample| assert!(!clarity.push(&[*sample], false)));
    clarity.write(&mut writer);
    let mut snapshot = state.snapshot();
    // Last stands what is known of slow waves, before it 8 bytes that say how a run began.
    let mut slow = Writer::new(0);
    clarity.write_slow(&mut slow);
    snapshot.truncate(snapshot.len() + 1 - slow.finish().len());
    snapshot[0] = 8;
    model.restore(&fields(), &snapshot).unwrap();
    snapshot.truncate(snapshot.len() - 8);
    snapshot[0] = 7;
    model.restore(&fields(), &snapshot).unwrap();
    // Between the pieces and these a byte says whether the pace of a strip is still to be found.
    snapshot.truncate(snapshot.len() - 4 - writer.finish().len() - 40);
    snapshot[0] = 4;
    let mut state = model.restore(&fields(), &snapshot).unwrap();
    seen.extend(show(&mut *state, 300.0 / HZ, &samples[300..]));
    assert_eq!(seen, show(&mut *model.new_state(&fields()), 0.0, &samples));
}

/// Rows so many milliseconds apart, for two minutes in strips of half a minute.
fn rate_told(millis: i64) -> usize {
    let mut state = model().new_state(&fields());
    let mut told = 0;
    for row in 0..120_000 / millis {
        let at = row * millis + 60_000 * (row * millis / 30_000);
        let value = [FieldValue::Number((row % 50) as f64)];
        state.take(&Row { time: Timestamp::from_millis(at), values: &value }, &mut Vec::new());
        let sightings = state.judge(&[]).sightings;
        assert!(sightings.iter().all(|sighting| sighting.label == "unusable_signal"), "{sightings:?}");
        told += sightings.len();
    }
    told
}

#[test]
fn a_rate_it_cannot_judge_is_told_once() {
    assert_eq!([1_000, 20, 12].map(rate_told), [1, 1, 1]);
}
