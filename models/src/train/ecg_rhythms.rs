//! Rhythms that a recorded patient did not have, made of the beats that the patient has.
//!
//! Few patients have supraventricular beats or atrial fibrillation, and what has been seen in so few says little of others. So recordings
//! are cut and joined anew in diastole, where the heart is at rest:
//!
//! - [`premature`]: some normal beats of a regular rhythm come early, alone or in runs, with their P wave or without it, and what
//!   follows is a full compensatory pause, a shorter one or none.
//! - [`fibrillating`]: every P wave is taken out, intervals are drawn independently, and the base line trembles at 4.5 to 8 Hz.
//!
//! What is made goes through our own detector like any recording. It is for training alone: nothing is ever judged on it.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::ecg_member::normal;
use crate::diagnosis::ecg::class::BeatClass;
use crate::diagnosis::ecg::qrs::median;
use crate::eval::wfdb::{Annotation, Lead, Record};

/// Annotations of an early beat, and of one that is not to be learnt from.
const EARLY: u8 = 8;
const UNUSED: u8 = 13;
/// Beats around an early one that its rhythm is taken from, and the share of uneven intervals above which there is none to be early in.
const AROUND: usize = 10;
const UNEVEN: f64 = 0.4;
/// Share of the usual interval after which an early beat comes.
const EARLY_SHARE: std::ops::Range<f64> = 0.5..0.9;
/// Seconds before an early beat's middle that stay as they are: with 0.2 the P wave stays, with 0.05 it goes.
const KEPT_BEFORE: std::ops::Range<f64> = 0.05..0.2;
/// Seconds after a beat that stay as they are, where the next comes early, and in fibrillation.
const KEPT_AFTER: f64 = 0.17;
const KEPT_T_WAVE: f64 = 0.3;
/// Early beats are apart by fewer beats than this. Of 100 so many begin a short run, and a long one, of this many beats.
const APART: usize = 24;
const SHORT_RUNS: (u32, std::ops::Range<usize>) = (24, 2..11);
const LONG_RUNS: (u32, std::ops::Range<usize>) = (6, 12..MOST_RUN);
const MOST_RUN: usize = 50;
/// How much the intervals of a run scatter.
const RUN_DEVIATION: f64 = 0.03;
/// Seconds before a beat's middle in which a pause is put.
const PAUSE_AT: f64 = 0.24;
/// Seconds before a beat's middle that its P wave is taken out up to, and for how long.
const P_WAVE_UNTIL: f64 = 0.06;
const P_WAVE: f64 = 0.14;
/// Seconds over which a step at a join is spread.
const JOIN: f64 = 0.06;

/// A place in a recording where samples before it are taken out (below 0) or put in.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Edit {
    at: usize,
    change: isize,
}

/// The annotated beats of a record.
struct Beats {
    at: Vec<usize>,
    class: Vec<BeatClass>,
}

impl Beats {
    fn of(record: &Record) -> Self {
        let (mut at, mut class) = (Vec::new(), Vec::new());
        for one in record.annotations.iter().flatten() {
            if let Some(kind) = BeatClass::of_annotation(one.code) {
                at.push(usize::try_from(one.sample).unwrap_or(usize::MAX));
                class.push(kind);
            }
        }
        Self { at, class }
    }

    /// Samples from the beat before.
    fn interval(&self, beat: usize) -> f64 {
        self.at[beat].saturating_sub(self.at[beat - 1]) as f64
    }

    /// The usual interval around a beat in samples; `None` where it is uneven or where not all around are normal.
    fn even_interval(&self, beat: usize, run: usize) -> Option<f64> {
        let intervals: Vec<f32> = (beat - AROUND..beat + AROUND).map(|beat| self.interval(beat) as f32).collect();
        let usual = f64::from(median(&intervals)?);
        let uneven = intervals.windows(2).filter(|pair| f64::from((pair[1] - pair[0]).abs()) > 0.1 * usual).count();
        let are_normal = self.class[beat - 2..beat + run + 2].iter().all(|class| *class == BeatClass::Normal);
        let is_even = (uneven as f64) < UNEVEN * (intervals.len() - 1) as f64;
        (is_even && are_normal && self.interval(beat) > 0.8 * usual).then_some(usual)
    }
}

/// The record with early beats; they alone are annotated supraventricular.
pub(super) fn premature(record: &Record, rng: &mut ChaCha8Rng) -> Record {
    let beats = Beats::of(record);
    let (mut edits, mut early) = (Vec::new(), Vec::new());
    let mut beat = AROUND + 2;
    while beat + AROUND + MOST_RUN + 2 < beats.at.len() {
        let run = run_length(rng);
        let Some(usual) = beats.even_interval(beat, run) else {
            beat += 1;
            continue;
        };
        let share = rng.random_range(EARLY_SHARE);
        let kept = rng.random_range(KEPT_BEFORE);
        let mut last = None;
        for early_beat in beat..beat + run {
            let interval = share * usual * (1.0 + RUN_DEVIATION * f64::from(normal(rng)));
            let Some(edit) = brought_forward(record.rate_hz, &beats, early_beat, interval, kept) else { break };
            edits.push(edit);
            early.push(beats.at[early_beat]);
            last = Some(early_beat);
        }
        if let Some(last) = last {
            let missing = (1.0 - share) * usual;
            let pause = match rng.random_range(0..20) {
                0..7 => 0.0,
                7..15 => missing * rng.random::<f64>(),
                _ => missing,
            };
            let at = beats.at[last + 1].saturating_sub((PAUSE_AT * record.rate_hz) as usize);
            edits.push(Edit { at, change: pause as isize });
        }
        beat += run - 1 + rng.random_range(2..APART);
    }
    let code = |one: &Annotation| match BeatClass::of_annotation(one.code) {
        Some(_) if early.binary_search(&(one.sample as usize)).is_ok() => EARLY,
        Some(BeatClass::Supraventricular) => UNUSED,
        _ => one.code,
    };
    edited(record, &edits, code, rng)
}

fn run_length(rng: &mut ChaCha8Rng) -> usize {
    let drawn = rng.random_range(0..100);
    if drawn < SHORT_RUNS.0 {
        rng.random_range(SHORT_RUNS.1)
    } else if drawn < SHORT_RUNS.0 + LONG_RUNS.0 {
        rng.random_range(LONG_RUNS.1)
    } else {
        1
    }
}

/// Takes diastole out so that the beat comes so many samples after the one before; `None` where there is not enough.
fn brought_forward(rate_hz: f64, beats: &Beats, beat: usize, interval: f64, kept: f64) -> Option<Edit> {
    let surplus = beats.interval(beat) - interval;
    let room = beats.interval(beat) - (kept + KEPT_AFTER) * rate_hz;
    let at = beats.at[beat].saturating_sub((kept * rate_hz) as usize);
    (surplus > 0.05 * interval && surplus < room).then_some(Edit { at, change: -(surplus as isize) })
}

/// The record as if the atria fibrillated; normal and ventricular beats stay annotated.
pub(super) fn fibrillating(record: &Record, rng: &mut ChaCha8Rng) -> Record {
    let beats = Beats::of(record);
    let rate_hz = record.rate_hz;
    let intervals: Vec<f32> = (1..beats.at.len()).map(|beat| beats.interval(beat) as f32).collect();
    let usual = f64::from(median(&intervals).unwrap_or(0.0)) * rng.random_range(0.75..1.1);
    let deviation = rng.random_range(0.12..0.28);
    let mut edits = Vec::new();
    for beat in 1..beats.at.len() {
        if beats.class[beat - 1..=beat].contains(&BeatClass::Ventricular) {
            continue;
        }
        let target = usual * (deviation * f64::from(normal(rng))).exp();
        let surplus = beats.interval(beat) - target.clamp(0.32 * rate_hz, 2.0 * rate_hz);
        let room = beats.interval(beat) - (P_WAVE_UNTIL + KEPT_T_WAVE) * rate_hz;
        let out = surplus.max(P_WAVE * rate_hz).min(room);
        if out >= 2.0 {
            let at = beats.at[beat].saturating_sub((P_WAVE_UNTIL * rate_hz) as usize);
            edits.push(Edit { at, change: -(out as isize) });
            edits.push(Edit { at: at + 1, change: (out - surplus) as isize });
        }
    }
    let code = |one: &Annotation| match BeatClass::of_annotation(one.code) {
        Some(BeatClass::Supraventricular | BeatClass::Fusion) => UNUSED,
        _ => one.code,
    };
    let mut made = edited(record, &edits, code, rng);
    let amplitude = rng.random_range(0.0..0.08_f32);
    for lead in &mut made.leads {
        tremble(lead, amplitude * rng.random_range(0.3..1.0), rate_hz, rng);
    }
    made
}

/// Adds waves of a frequency that wanders a little.
fn tremble(lead: &mut Lead, amplitude: f32, rate_hz: f64, rng: &mut ChaCha8Rng) {
    let usual_hz = rng.random_range(4.5..8.0_f32);
    let mut phase = 0.0_f32;
    for second in lead.samples.chunks_mut(rate_hz.ceil() as usize) {
        let step = std::f32::consts::TAU * (usual_hz + 0.3 * normal(rng)) / rate_hz as f32;
        for sample in second {
            phase = (phase + step) % std::f32::consts::TAU;
            *sample += amplitude * phase.sin();
        }
    }
}

/// The record with stretches taken out and put in; `code` says what an annotation becomes. Edits that overlap one before are left out.
fn edited(record: &Record, edits: &[Edit], code: impl Fn(&Annotation) -> u8, rng: &mut ChaCha8Rng) -> Record {
    let len = record.leads.iter().map(|lead| lead.samples.len()).min().unwrap_or(0);
    // Spans of the record that stay, and how many samples are put in after each.
    let (mut kept, mut from) = (Vec::new(), 0);
    for edit in edits.iter().filter(|edit| edit.change != 0 && edit.at < len) {
        let until = edit.at.saturating_sub((-edit.change).max(0) as usize);
        if until > from {
            kept.push((from..until, edit.change.max(0) as usize));
            from = edit.at;
        }
    }
    kept.push((from..len, 0));
    let leads =
        record.leads.iter().map(|lead| Lead { name: lead.name.clone(), samples: joined(lead, &kept, record, rng) });
    let leads = leads.collect();
    let mut annotations = Vec::new();
    let (mut spans, mut moved) = (kept.iter().peekable(), 0_u64);
    for one in record.annotations.iter().flatten() {
        let at = one.sample as usize;
        while let Some((span, put_in)) = spans.next_if(|(span, _)| span.end <= at) {
            moved += (span.len() + put_in) as u64;
        }
        if let Some((span, _)) = spans.peek().filter(|(span, _)| span.contains(&at)) {
            annotations.push(Annotation { sample: moved + (at - span.start) as u64, code: code(one) });
        }
    }
    Record { leads, annotations: Some(annotations), ..record.clone() }
}

/// The samples of the spans one after the other, without a step between them.
fn joined(lead: &Lead, kept: &[(std::ops::Range<usize>, usize)], record: &Record, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let join = (JOIN * record.rate_hz).max(1.0);
    let level = (record.rate_hz / 20.0) as usize;
    let mut samples: Vec<f32> = Vec::with_capacity(lead.samples.len());
    for (span, put_in) in kept {
        let step = samples.last().map_or(0.0, |last| last - lead.samples.get(span.start).unwrap_or(last));
        let spread = |index: usize| step * (1.0 - index as f64 / join).max(0.0) as f32;
        samples.extend(lead.samples[span.clone()].iter().enumerate().map(|(index, sample)| sample + spread(index)));
        let late = &samples[samples.len().saturating_sub(level)..];
        let mean = late.iter().sum::<f32>() / late.len().max(1) as f32;
        let off = samples.last().map_or(0.0, |last| last - mean);
        for index in 0..*put_in {
            samples.push(mean + off * (-(index as f32) / 8.0).exp() + 0.005 * normal(rng));
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// A beat each 0.8 s at 360 Hz; sample values tell where a sample came from.
    fn record() -> Record {
        let samples: Vec<f32> = (0..360 * 120).map(|index| (index as f32 / 57.3).sin()).collect();
        let beats = (1..148).map(|beat| Annotation { sample: beat * 288, code: if beat % 40 == 0 { 5 } else { 1 } });
        let leads = vec![Lead { name: String::from("MLII"), samples }];
        Record { name: String::from("r"), rate_hz: 360.0, leads, annotations: Some(beats.collect()) }
    }

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(3)
    }

    #[test]
    fn what_is_early_comes_early_and_nothing_else_changes_its_class() {
        let (old, new) = (record(), premature(&record(), &mut rng()));
        let annotations = new.annotations.unwrap();
        assert_eq!(annotations.len(), old.annotations.unwrap().len());
        let intervals = annotations.windows(2).map(|pair| (pair[1].code, pair[1].sample - pair[0].sample));
        let early: Vec<u64> =
            intervals.clone().filter(|(code, _)| *code == EARLY).map(|(_, interval)| interval).collect();
        assert!(early.len() > 5 && early.iter().all(|interval| *interval < 275), "{early:?}");
        assert!(intervals.filter(|(code, _)| *code != EARLY).all(|(_, interval)| interval >= 287));
        assert_eq!(annotations.iter().filter(|one| one.code == 5).count(), 3);
        assert!(new.leads[0].samples.windows(2).all(|pair| (pair[1] - pair[0]).abs() < 0.1), "no step at a join");
    }

    #[test]
    fn fibrillation_is_uneven_and_spares_what_is_ventricular() {
        let new = fibrillating(&record(), &mut rng());
        let annotations = new.annotations.unwrap();
        assert_eq!(annotations.iter().filter(|one| one.code == 5).count(), 3);
        let intervals: Vec<f64> = annotations.windows(2).map(|pair| (pair[1].sample - pair[0].sample) as f64).collect();
        let uneven = intervals.windows(2).filter(|pair| (pair[1] - pair[0]).abs() > 0.08 * pair[0]).count();
        assert!(uneven * 10 > intervals.len() * 6, "{intervals:?}");
    }

    #[test]
    fn a_record_without_beats_stays_as_it_is() {
        let none = Record { annotations: None, ..record() };
        assert_eq!(premature(&none, &mut rng()).leads, none.leads);
        assert_eq!(fibrillating(&none, &mut rng()).leads[0].samples.len(), none.leads[0].samples.len());
    }
}
