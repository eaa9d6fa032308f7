//! What the last beats suggest: findings of classed beats.
//!
//! | label | when, among the last [`BEATS`] beats of a clear signal |
//! |---|---|
//! | `ventricular_beats` | [`SEVERAL`] ventricular ones; said once until there is none |
//! | `supraventricular_beats` | [`SEVERAL`] supraventricular ones; said once until there is none |
//! | `ventricular_run` | [`RUN`] ventricular ones in a row, faster than [`RUN_RATE`] a minute |
//! | `bigeminy` | [`PAIRS`] times a ventricular after another beat; said once until [`BEATS`] beats without |
//! | `pause` | an interval above [`PAUSE_SECONDS`] and [`PAUSE_RATIO`] usual ones, between two clear beats |
//! | `irregular_rhythm` | most intervals differ from the one before, without ectopic beats: suggests atrial fibrillation |
//! | `fast_rhythm`, `slow_rhythm` | a heart rate above [`FAST_RATE`] or below [`SLOW_RATE`] a minute |
//! | `noisy_signal` | the mean quality of the last [`CLEAR_BEATS`] beats is low, or no beat was clear for [`UNCLEAR_SECONDS`]: until as many are clear in a row beats count for nothing |
//!
//! A supraventricular beat counts where it follows [`STEP`] sooner than the one before did, or goes on with a run of such: a sinus node
//! that hurries makes every beat early by the pace of late, but none by much against the last.
//!
//! Beats count as ectopic from a probability of [`LEAST_PROBABILITY`] on, two of a run's do; less likely ones speak against fibrillation. The heart rate is the mean of the last [`RATE_BEATS`] beats, of which
//! [`LEAST_RATE_BEATS`] must be clear and follow a clear one. A pause or a run with another among the beats remembered goes on with it. Quality is how much of the energy lies in the complexes
//! ([`super::beats::Beat::quality`]), and none where [`super::clarity`] finds a beat unclear. Score: `1 − 2^(−n/3)` for `n` ectopic beats of one kind, fixed for the rest. Heart rate, and variability as RMSSD, stand in the contributions. The texts of `fast_rhythm` and `slow_rhythm` give the rate. Never: a text repeats a sample.

use std::collections::VecDeque;

use nearside_schemas::{Contribution, FieldName, Severity};

use super::RATES_HZ;
use super::clarity::UNCLEAR_SECONDS;
use super::class::{BeatClass, CLASSES};
use super::pieces::{LEAST_SECONDS, Unusable};
use super::range::LOST_SECONDS;
use crate::ModelError;
use crate::row_model::Sighting;
use crate::snapshot::{Reader, Writer};

/// Beats that are remembered.
pub const BEATS: usize = 32;
/// Ectopic beats among them that are worth saying.
pub const SEVERAL: usize = 3;
/// Ventricular beats in a row that are a run, and the heart rate that they have at least.
pub const RUN: usize = 3;
/// See [`RUN`].
pub const RUN_RATE: f64 = 100.0;
/// So many of them are likely ventricular: one between others that is less so ends no run.
const LIKELY_OF_RUN: usize = 2;
/// Pairs of a ventricular beat and another that are bigeminy.
pub const PAIRS: usize = 3;
/// Seconds, and usual intervals, above which an interval is a pause.
pub const PAUSE_SECONDS: f64 = 2.0;
/// See [`PAUSE_SECONDS`].
pub const PAUSE_RATIO: f64 = 1.8;
/// Beats a minute.
pub const FAST_RATE: f64 = 130.0;
/// Beats a minute.
pub const SLOW_RATE: f64 = 40.0;
/// Of a patient's first beats so many do not say it.
const FIRST_BEATS: usize = 5;
/// Beats that say whether the signal is clear.
pub const CLEAR_BEATS: usize = 8;

/// A beat below this quality counts for nothing.
const CLEAR: f64 = 0.2;
/// A beat of a class that is not more likely than all others together is of none: a patient's first beats, before their usual ones are known,
/// are such.
const LEAST_PROBABILITY: f32 = 0.5;
/// Mean quality below which the signal is noisy, and above which it is clear again. Clear recordings have 0.47 and more in the mean.
const NOISY: (f64, f64) = (0.42, 0.46);
/// Intervals between beats that are not ventricular from which on the rhythm is judged.
const LEAST_INTERVALS: usize = 24;
/// Share of the interval before that a step is no longer a sinus rhythm's, and share of such steps that is irregular.
const STEP: f64 = 0.08;
const IRREGULAR: f64 = 0.6;
/// Where less than this share are such steps the rhythm is regular again.
const REGULAR: f64 = 0.3;
/// Ectopic beats that may be among them.
const MOST_ECTOPIC: usize = 3;
/// A rate is left behind by this share before it is said again.
const RATE_MARGIN: f64 = 0.1;
/// Beats that the heart rate is taken from, and intervals between clear ones that there must be among them: a few after noise are no rate.
const RATE_BEATS: usize = 16;
const LEAST_RATE_BEATS: usize = 8;
/// The score of a signal that cannot be judged.
const UNUSABLE_SCORE: f64 = 0.8;
/// Where nothing is flagged the score stays below this share of the threshold.
const HELD: f64 = 0.98;

/// A beat with its class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classed {
    /// Event time in microseconds.
    pub at: i64,
    /// Seconds since the beat before; `None` after a gap.
    pub interval: Option<f64>,
    /// The median interval of late, in seconds.
    pub usual_interval: f64,
    /// What it is.
    pub class: BeatClass,
    /// The network's probability for that.
    pub probability: f32,
    /// How clear the signal was.
    pub quality: f64,
}

/// What has been said and still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Ventricular,
    Supraventricular,
    Run,
    Bigeminy,
    Irregular,
    Fast,
    Slow,
    Noisy,
}

/// The last beats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rhythm {
    /// Oldest first.
    beats: VecDeque<Classed>,
    /// Bits of [`Told`].
    told: u8,
    /// Beats since bigeminy was last seen.
    since_bigeminy: u32,
}

impl Rhythm {
    /// Takes the next beat; appends what is to be said now.
    pub fn push(&mut self, beat: Classed, field: &FieldName, threshold: f64, sightings: &mut Vec<Sighting>) {
        if self.beats.len() == BEATS {
            self.beats.pop_front();
        }
        self.beats.push_back(beat);
        let quality = self.quality();
        let was_noisy = self.told & (1 << Told::Noisy as u8) != 0;
        let is_noisy = quality < if was_noisy { NOISY.1 } else { NOISY.0 };
        let is_over = !is_noisy && self.beats.iter().rev().take(CLEAR_BEATS).all(Classed::is_clear);
        if self.begins(Told::Noisy, is_noisy, is_over) {
            sightings.push(self.sighting("noisy_signal", Severity::Notice, threshold, field, (0.0, "",), String::from(
                "Much of the ECG's energy lies between the complexes, or they are not alike: suggests movement or a loose electrode. Beats are not judged until it is clear.",
            )));
        }
        if is_noisy || (was_noisy && !is_over) {
            // What noise looked like is no evidence later either.
            self.beats.iter_mut().rev().take(CLEAR_BEATS).for_each(|beat| {
                (beat.class, beat.interval) = (BeatClass::Unknown, None);
            });
        }
        if is_noisy || !beat.is_clear() {
            return;
        }
        self.ectopic(field, sightings);
        self.patterns(field, sightings);
        self.intervals(field, sightings);
    }

    /// No beat has been clear for a while, though there is a signal; says so, where it was not said.
    pub(super) fn unclear(&mut self, field: &FieldName, threshold: f64, sightings: &mut Vec<Sighting>) {
        if self.begins(Told::Noisy, true, false) {
            let text = format!(
                "There is a signal and for {UNCLEAR_SECONDS} s no heartbeat could be told in it: suggests movement, a loose electrode or mains interference. Beats are not judged until it is clear. Look at the patient."
            );
            sightings.push(self.sighting("noisy_signal", Severity::Notice, threshold, field, (0.0, ""), text));
        }
    }

    /// The score where nothing is said.
    pub fn score(&self, threshold: f64) -> f64 {
        score(self.likely(BeatClass::Ventricular).len()).min(HELD * threshold)
    }

    /// Beats a minute, by the mean of the last intervals; `None` where too few of them are between clear beats.
    pub fn heart_rate(&self) -> Option<f64> {
        let pairs = self.beats.iter().rev().take(RATE_BEATS).zip(self.beats.iter().rev().skip(1));
        let clear = pairs.filter(|(beat, before)| beat.is_clear() && before.is_clear());
        let intervals: Vec<f64> = clear.filter_map(|(beat, _)| beat.interval).collect();
        let sum: f64 = intervals.iter().sum();
        (intervals.len() >= LEAST_RATE_BEATS && sum > 0.0).then(|| 60.0 * intervals.len() as f64 / sum)
    }

    /// Root mean square of the differences between intervals that follow each other, in milliseconds, of normal beats alone.
    pub fn rmssd_ms(&self) -> Option<f64> {
        let steps = self.steps(|beat| beat.class == BeatClass::Normal);
        let sum: f64 = steps.iter().map(|(before, after)| (after - before).powi(2)).sum();
        (!steps.is_empty()).then(|| 1_000.0 * (sum / steps.len() as f64).sqrt())
    }

    /// Pairs of intervals that follow each other, where all three beats are of the kind.
    fn steps(&self, is_kind: impl Fn(&Classed) -> bool) -> Vec<(f64, f64)> {
        let triples = self.beats.iter().zip(self.beats.iter().skip(1)).zip(self.beats.iter().skip(2));
        let pair = |((first, second), third): ((&Classed, &Classed), &Classed)| {
            let all = is_kind(first) && is_kind(second) && is_kind(third);
            if all { second.interval.zip(third.interval) } else { None }
        };
        triples.filter_map(pair).collect()
    }

    /// The mean quality of the last beats; 1 before there are some.
    fn quality(&self) -> f64 {
        // The first have few before them that they could be like.
        if self.beats.len() < CLEAR_BEATS + FIRST_BEATS {
            return 1.0;
        }
        self.beats.iter().rev().take(CLEAR_BEATS).map(|beat| beat.quality.min(1.0)).sum::<f64>() / CLEAR_BEATS as f64
    }

    /// The probabilities of beats that count as this class, oldest first.
    fn likely(&self, class: BeatClass) -> Vec<f32> {
        let (mut before, mut goes_on): (Option<&Classed>, bool) = (None, false);
        let mut likely = Vec::new();
        for beat in &self.beats {
            let is_sooner = |(before, interval): (&Classed, f64)| {
                interval < (1.0 - STEP) * before.interval.unwrap_or(beat.usual_interval)
            };
            let is_early = before.zip(beat.interval).is_some_and(is_sooner) || (goes_on && beat.interval.is_some());
            let is_of_class = beat.class == class && beat.is_likely() && beat.is_clear();
            goes_on = is_of_class && (is_early || class != BeatClass::Supraventricular);
            before = Some(beat);
            likely.extend(goes_on.then_some(beat.probability));
        }
        likely
    }

    /// Whether something begins that was not told; forgets that it was told where it `ends`.
    fn begins(&mut self, what: Told, is_so: bool, ends: bool) -> bool {
        let bit = 1 << what as u8;
        let was = self.told & bit != 0;
        if is_so {
            self.told |= bit;
        } else if ends {
            self.told &= !bit;
        }
        is_so && !was
    }

    fn ectopic(&mut self, field: &FieldName, sightings: &mut Vec<Sighting>) {
        for (class, told, label, severity, kind) in [
            (BeatClass::Ventricular, Told::Ventricular, "ventricular_beats", Severity::Warning, "ventricular"),
            (
                BeatClass::Supraventricular,
                Told::Supraventricular,
                "supraventricular_beats",
                Severity::Notice,
                "supraventricular",
            ),
        ] {
            let likely = self.likely(class);
            let count = likely.len();
            if self.begins(told, count >= SEVERAL, count == 0) {
                let text = format!("{count} of the last {BEATS} beats look {kind}: suggests {kind} ectopic beats.");
                let last = likely.last().copied().unwrap_or(0.0);
                let seen = (f64::from(last), "the network's probability of the last of them");
                sightings.push(self.sighting(label, severity, score(count), field, seen, text));
            }
        }
    }

    fn patterns(&mut self, field: &FieldName, sightings: &mut Vec<Sighting>) {
        let is_ventricular = |beat: &&Classed| beat.class == BeatClass::Ventricular && beat.is_clear();
        let in_a_row = self.beats.iter().rev().take_while(is_ventricular);
        let (run, likely) =
            in_a_row.fold((0, 0), |(run, likely), beat| (run + 1, likely + usize::from(beat.is_likely())));
        let intervals = self.beats.iter().rev().take(RUN - 1).filter_map(|beat| beat.interval).collect::<Vec<_>>();
        let is_fast = intervals.len() == RUN - 1 && intervals.iter().sum::<f64>() < (RUN - 1) as f64 * 60.0 / RUN_RATE;
        if self.begins(Told::Run, run >= RUN && likely >= LIKELY_OF_RUN && is_fast, run == 0) {
            let text = format!(
                "{RUN} or more beats in a row look ventricular and come fast: suggests a ventricular run. Look at the patient."
            );
            let seen = (intervals.iter().sum::<f64>() / (RUN - 1) as f64, "mean interval within it in s");
            // Runs with a beat or two between are one cluster.
            let begins = longest(self.beats.iter().rev().skip(run), |beat| is_ventricular(&beat)) < RUN;
            let sighting = self.sighting("ventricular_run", Severity::Critical, 1.0, field, seen, text);
            sightings.push(Sighting { begins, ..sighting });
        }
        let last: Vec<bool> = self.beats.iter().rev().take(2 * PAIRS).map(|beat| is_ventricular(&beat)).collect();
        let is_paired = last.len() == 2 * PAIRS && last.windows(2).all(|pair| pair[0] != pair[1]);
        self.since_bigeminy = if is_paired { 0 } else { self.since_bigeminy.saturating_add(1) };
        let is_over = self.since_bigeminy as usize >= BEATS;
        if self.begins(Told::Bigeminy, is_paired, is_over) {
            let text = String::from("Every second beat looks ventricular: suggests bigeminy.");
            sightings.push(self.sighting(
                "bigeminy",
                Severity::Warning,
                0.8,
                field,
                (PAIRS as f64, "which is how many pairs in a row"),
                text,
            ));
        }
    }

    fn intervals(&mut self, field: &FieldName, sightings: &mut Vec<Sighting>) {
        let (before, beat) = match (self.beats.iter().nth_back(1), self.beats.back()) {
            (Some(before), Some(beat)) => (*before, *beat),
            _ => return,
        };
        let is_pause = |interval: f64| interval > PAUSE_SECONDS && interval > PAUSE_RATIO * beat.usual_interval;
        if let Some(interval) = beat.interval.filter(|interval| before.is_clear() && is_pause(*interval)) {
            let text = String::from("The time between two beats is much longer than usual: suggests a pause.");
            let seen = (interval, "which is the interval in s");
            // As with runs.
            let begins = !self.beats.iter().rev().skip(1).filter_map(|beat| beat.interval).any(is_pause);
            let sighting = self.sighting("pause", Severity::Warning, 0.9, field, seen, text);
            sightings.push(Sighting { begins, ..sighting });
        }
        // Also the less likely ones: what may be ectopic beats is no fibrillation.
        let is_ectopic = |beat: &&Classed| matches!(beat.class, BeatClass::Ventricular | BeatClass::Supraventricular);
        let ectopic = self.beats.iter().filter(is_ectopic).filter(|beat| beat.is_clear()).count();
        let steps = self.steps(|beat| beat.class != BeatClass::Ventricular && beat.is_clear());
        let far = steps.iter().filter(|(before, after)| (after - before).abs() > STEP * before).count() as f64;
        let share = far / steps.len().max(1) as f64;
        let is_irregular = steps.len() >= LEAST_INTERVALS && share >= IRREGULAR && ectopic <= MOST_ECTOPIC;
        if self.begins(Told::Irregular, is_irregular, steps.len() >= LEAST_INTERVALS && share < REGULAR) {
            let text =
                String::from("Intervals between beats keep changing without a pattern: suggests atrial fibrillation.");
            let seen = (share, "which is the share of intervals that differ from the one before");
            sightings.push(self.sighting("irregular_rhythm", Severity::Warning, share.max(0.6), field, seen, text));
        }
        let Some(rate) = self.heart_rate().filter(|_| self.beats.len() >= RATE_BEATS) else { return };
        if self.begins(Told::Fast, rate > FAST_RATE, rate < FAST_RATE * (1.0 - RATE_MARGIN)) {
            let text = format!(
                "The ECG suggests {rate:.0} beats a minute, a fast rhythm. Look at the patient and the electrodes."
            );
            sightings.push(self.sighting("fast_rhythm", Severity::Warning, 0.7, field, (rate, HEART_RATE), text));
        }
        if self.begins(Told::Slow, rate < SLOW_RATE, rate > SLOW_RATE * (1.0 + RATE_MARGIN)) {
            let text = format!(
                "The ECG suggests {rate:.0} beats a minute, a slow rhythm. Look at the patient and the electrodes."
            );
            sightings.push(self.sighting("slow_rhythm", Severity::Warning, 0.7, field, (rate, HEART_RATE), text));
        }
    }

    fn sighting(
        &self,
        label: &'static str,
        severity: Severity,
        score: f64,
        field: &FieldName,
        (seen, note): (f64, &str),
        text: String,
    ) -> Sighting {
        let one = |seen: f64, note: &str, share: f64| contribution(field, seen, note, share);
        let mut contributions = Vec::new();
        if !note.is_empty() {
            contributions.push(one(seen, note, 1.0));
        }
        let rate = self.heart_rate().filter(|_| note != HEART_RATE);
        contributions.extend(rate.map(|rate| one(rate, HEART_RATE, 0.0)));
        contributions.extend(self.rmssd_ms().map(|rmssd| one(rmssd, "which is the RMSSD of normal beats in ms", 0.0)));
        Sighting { label, begins: true, severity, score, contributions, text }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.beats.len() as u32);
        self.beats.iter().for_each(|beat| beat.write(writer));
        writer.u8(self.told);
        writer.u32(self.since_bigeminy);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let count = reader.count(BEATS)?;
        let beats = (0..count).map(|_| Classed::read(reader)).collect::<Result<_, ModelError>>()?;
        Ok(Self { beats, told: reader.u8()?, since_bigeminy: reader.u32()? })
    }
}

impl Classed {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.i64(self.at);
        writer.f64(self.interval.unwrap_or(-1.0));
        writer.f64(self.usual_interval);
        writer.u8(self.class.output().unwrap_or(CLASSES.len()) as u8);
        writer.f32(self.probability);
        writer.f64(self.quality);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let at = reader.i64()?;
        let interval = Some(reader.f64()?).filter(|interval| *interval >= 0.0);
        let usual_interval = reader.f64()?;
        let class = CLASSES.get(usize::from(reader.u8()?)).copied().unwrap_or(BeatClass::Unknown);
        let (probability, quality) = (reader.f32()?, reader.f64()?);
        Ok(Self { at, interval, usual_interval, class, probability, quality })
    }

    fn is_clear(&self) -> bool {
        self.quality >= CLEAR
    }

    fn is_likely(&self) -> bool {
        self.probability >= LEAST_PROBABILITY
    }
}

/// The most of them in a row that are of a kind.
fn longest<'a>(beats: impl Iterator<Item = &'a Classed>, is_of_kind: impl Fn(&'a Classed) -> bool) -> usize {
    let count = |(most, now): (usize, usize), beat| {
        let now = if is_of_kind(beat) { now + 1 } else { 0 };
        (most.max(now), now)
    };
    beats.fold((0, 0), count).0
}

/// What a contribution says whose number is no value of the field.
const HEART_RATE: &str = "which is the heart rate in /min";

/// The finding of a signal that is lost at this sample.
pub(super) fn signal_lost(field: &FieldName, sample: f64) -> Sighting {
    Sighting {
        label: "signal_lost",
        begins: true,
        severity: Severity::Critical,
        score: 1.0,
        contributions: vec![contribution(field, sample, "its range is below a tenth of what is usual here", 1.0)],
        text: format!(
            "The ECG has had no amplitude for {LOST_SECONDS} s: suggests electrodes that are off, or that there is no heartbeat. Look at the patient."
        ),
    }
}

/// The finding of a signal of which no beat can be judged: technical, it says nothing of the patient.
pub(super) fn unusable_signal(field: &FieldName, why: Unusable) -> Sighting {
    let (seen, note, text) = match why {
        Unusable::Pieces { last_seconds } => (
            last_seconds,
            "which is how many seconds the last piece without a gap lasted",
            format!(
                "The ECG keeps coming in pieces shorter than {LEAST_SECONDS} s: suggests samples that are lost on their way, times that are wrong, or a loose electrode. Its beats are not judged until it is whole."
            ),
        ),
        Unusable::Rate { hz } => (
            hz,
            "which is the samples a second",
            format!(
                "The ECG does not have {} to {} samples a second: suggests a device that is set up otherwise. Its beats are not judged.",
                RATES_HZ.start(),
                RATES_HZ.end()
            ),
        ),
    };
    Sighting {
        label: "unusable_signal",
        begins: true,
        severity: Severity::Warning,
        score: UNUSABLE_SCORE,
        contributions: vec![contribution(field, seen, note, 1.0)],
        text,
    }
}

fn contribution(field: &FieldName, seen: f64, note: &str, share: f64) -> Contribution {
    Contribution { field: field.clone(), seen, expected: None, band: None, share, note: Some(note.to_owned()) }
}

/// 0.5 for [`SEVERAL`] beats.
fn score(count: usize) -> f64 {
    1.0 - (-(count as f64) / SEVERAL as f64).exp2()
}
