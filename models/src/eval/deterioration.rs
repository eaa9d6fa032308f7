//! The forecast of deterioration held against what came, beside the score itself and beside its trend drawn on.
//!
//! What came is taken from the simulator's truth, not from its faulty instruments: an **onset** is the first instant of ten minutes or
//! more at a true NEWS2 of 7, after an hour below. At the end of each ten minutes with a true and a measured total below 7, a
//! forecast is right to be high where an onset follows within four hours. Alarms are counted as the gateway gives them.

use nearside_schemas::Timestamp;
use serde::Serialize;

use crate::ModelError;
use crate::diagnosis::deterioration::history::{INPUTS, Snapshot, VitalHistory};
use crate::diagnosis::deterioration::{HORIZON_HOURS, Rearm, URGENT_TOTAL, probability};
use crate::diagnosis::news2::MAX_TOTAL;
use crate::diagnosis::news2::observations::{ALL, Known, Observation};
use crate::mlp::Network;

/// A value of each sign at an instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VitalSigns {
    /// When.
    pub time: Timestamp,
    /// Heart rate, respiration, saturation, systolic pressure, temperature, in the chart's units.
    pub signs: [Option<f64>; 5],
    /// Whether oxygen is given.
    pub oxygen: Option<bool>,
    /// Whether the patient is confused, or worse.
    pub is_confused: Option<bool>,
}

/// A patient: what was measured, and what was so.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// As measured.
    pub measured: Vec<VitalSigns>,
    /// As it was, complete.
    pub truth: Vec<VitalSigns>,
}

/// One instant at which a forecast is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Instant {
    /// The end of ten minutes.
    pub at: Timestamp,
    /// What the network sees, the patient as is.
    pub inputs: [f32; INPUTS],
    /// The measured NEWS2.
    pub total: u32,
    /// The total that a straight line through the last two hours' totals has in four hours.
    pub drawn_on: f64,
    /// Whether an onset follows within the horizon; `None` where none is to be told, as the patient is that ill already.
    pub is_before_onset: Option<bool>,
}

/// A patient's instants and onsets.
#[derive(Clone, Debug, PartialEq)]
pub struct Followed {
    /// Where forecasts are made.
    pub instants: Vec<Instant>,
    /// When the patient's true NEWS2 reached 7 and stayed.
    pub onsets: Vec<Timestamp>,
    /// How long the patient was followed, days.
    pub days: f64,
}

const MINUTE: i64 = 60_000_000;
/// A true total of 7 counts from this long on.
const LASTS: i64 = 10 * MINUTE;
/// Below 7 for this long, another onset is another.
const APART: i64 = 60 * MINUTE;

fn observations(vitals: &VitalSigns) -> [Option<f64>; ALL] {
    let mut all = [None; ALL];
    let order = [
        Observation::HeartRate,
        Observation::Respiration,
        Observation::Spo2,
        Observation::Systolic,
        Observation::Temperature,
    ];
    for (observation, value) in order.into_iter().zip(vitals.signs) {
        // In the chart's steps, as fields are read.
        let tenths = if observation == Observation::Temperature { 10.0 } else { 1.0 };
        all[observation as usize] = value.map(|value| (value * tenths).round() / tenths);
    }
    all[Observation::Oxygen as usize] = vitals.oxygen.map(|given| f64::from(u8::from(given)));
    all[Observation::Consciousness as usize] = vitals.is_confused.map(|confused| f64::from(u8::from(confused)));
    all
}

impl Course {
    /// Its instants and onsets.
    pub fn follow(&self) -> Followed {
        let ill = self.ill_spells();
        let onsets: Vec<Timestamp> = ill.iter().map(|(from, _)| *from).collect();
        let mut history = VitalHistory::default();
        let mut instants = Vec::new();
        for vitals in &self.measured {
            let Some(snapshot) = history.push(vitals.time, &observations(vitals)) else { continue };
            let at = snapshot.at;
            let is_ill =
                ill.iter().any(|(from, until)| (*from..*until).contains(&at)) || snapshot.total >= URGENT_TOTAL;
            let horizon = at.as_micros() + HORIZON_HOURS * 60 * MINUTE;
            let comes = onsets.iter().any(|onset| *onset > at && onset.as_micros() <= horizon);
            instants.push(Instant {
                at,
                inputs: snapshot.variants()[0],
                total: snapshot.total,
                drawn_on: drawn_on(&snapshot),
                is_before_onset: (!is_ill).then_some(comes),
            });
        }
        let days = match (self.truth.first(), self.truth.last()) {
            (Some(first), Some(last)) => last.time.since(first.time).as_secs_f64() / 86_400.0,
            _ => 0.0,
        };
        // Ill from the beginning is no onset.
        let onsets = onsets.into_iter().filter(|onset| self.truth.first().is_some_and(|first| *onset > first.time));
        Followed { instants, onsets: onsets.collect(), days }
    }

    /// From when until when the true total was at least 7.
    fn ill_spells(&self) -> Vec<(Timestamp, Timestamp)> {
        let mut known = Known::default();
        let mut spells: Vec<(Timestamp, Timestamp)> = Vec::new();
        let mut since: Option<Timestamp> = None;
        for vitals in &self.truth {
            known.learn(vitals.time, &observations(vitals));
            if known.total() < URGENT_TOTAL {
                since = None;
                continue;
            }
            let from = *since.get_or_insert(vitals.time);
            match spells.last_mut() {
                Some((_, until)) if vitals.time.as_micros() - until.as_micros() < APART => *until = vitals.time,
                _ if vitals.time.as_micros() - from.as_micros() >= LASTS => spells.push((from, vitals.time)),
                _ => {}
            }
        }
        spells
    }
}

/// The total in four hours, by least squares through the totals of the last two.
fn drawn_on(snapshot: &Snapshot) -> f64 {
    let points: Vec<(f64, f64)> = snapshot
        .totals()
        .filter(|(ago, _)| *ago < 12)
        .map(|(ago, total)| (-(ago as f64) / 6.0, f64::from(total)))
        .collect();
    let count = points.len().max(1) as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), (hour, total)| (x + hour / count, y + total / count));
    let over: f64 = points.iter().map(|(hour, total)| (hour - x) * (total - y)).sum();
    let under: f64 = points.iter().map(|(hour, _)| (hour - x).powi(2)).sum();
    let slope = if under > 0.0 { over / under } else { 0.0 };
    (y + slope * (HORIZON_HOURS as f64 - x)).clamp(0.0, f64::from(MAX_TOTAL))
}

/// How a score tells onsets from none, whatever its threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ranking {
    /// The probability that an instant before an onset has a higher score than another.
    pub auroc: f64,
    /// Average precision.
    pub auprc: f64,
}

impl Ranking {
    /// Of scores with whether an onset followed.
    pub fn of(mut scored: Vec<(f64, bool)>) -> Self {
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        let positive = scored.iter().filter(|(_, is)| *is).count() as f64;
        let negative = scored.len() as f64 - positive;
        let (mut hits, mut misses, mut area, mut precision) = (0.0, 0.0, 0.0, 0.0);
        let mut at = 0;
        while let Some((score, _)) = scored.get(at) {
            let equal = scored[at..].iter().take_while(|(other, _)| other == score);
            let (right, all) =
                equal.fold((0.0, 0_usize), |(right, all), (_, is)| (right + f64::from(u8::from(*is)), all + 1));
            let wrong = all as f64 - right;
            // Equal scores share their places: half of the pairs among them count.
            area += wrong * (hits + right / 2.0);
            (hits, misses) = (hits + right, misses + wrong);
            precision += right * hits / (hits + misses);
            at += all;
        }
        Self { auroc: area / (positive * negative).max(1.0), auprc: precision / f64::max(positive, 1.0) }
    }
}

/// Alarms at one threshold, as the gateway gives them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AlarmFigures {
    /// The threshold.
    pub threshold: f64,
    /// Onsets.
    pub onsets: u64,
    /// Of those, told within four hours before.
    pub told: u64,
    /// Alarms.
    pub alarms: u64,
    /// Of those, followed by an onset within four hours.
    pub right: u64,
    /// Alarms a patient and day.
    pub alarms_a_day: f64,
    /// Half of the onsets that were told were told at least so many minutes before.
    pub median_lead_minutes: f64,
}

impl AlarmFigures {
    /// Of a score with a threshold over all patients.
    pub fn of(patients: &[Followed], scores: &[Vec<f64>], threshold: f64) -> Self {
        let mut figures = Self { threshold, ..Self::default() };
        let (mut leads, mut days) = (Vec::new(), 0.0);
        for (patient, scores) in patients.iter().zip(scores) {
            let mut rearm = Rearm::default();
            let mut alarms = Vec::new();
            for (instant, score) in patient.instants.iter().zip(scores) {
                if instant.total < URGENT_TOTAL && rearm.alarms(instant.at, *score, threshold) {
                    alarms.push(instant.at);
                }
            }
            let leads_to = |alarm: &Timestamp, onset: &Timestamp| {
                let lead = onset.as_micros() - alarm.as_micros();
                (1..=HORIZON_HOURS * 60 * MINUTE).contains(&lead).then_some(lead as f64 / MINUTE as f64)
            };
            for onset in &patient.onsets {
                let first = alarms.iter().find_map(|alarm| leads_to(alarm, onset));
                leads.extend(first);
            }
            figures.onsets += patient.onsets.len() as u64;
            figures.alarms += alarms.len() as u64;
            let is_right = |alarm: &&Timestamp| patient.onsets.iter().any(|onset| leads_to(alarm, onset).is_some());
            figures.right += alarms.iter().filter(is_right).count() as u64;
            days += patient.days;
        }
        leads.sort_by(f64::total_cmp);
        figures.told = leads.len() as u64;
        figures.alarms_a_day = figures.alarms as f64 / f64::max(days, 1e-9);
        figures.median_lead_minutes = leads.get(leads.len() / 2).copied().unwrap_or(0.0);
        figures
    }

    /// The share of alarms that an onset followed.
    pub fn precision(&self) -> f64 {
        self.right as f64 / self.alarms.max(1) as f64
    }

    /// The lowest of some thresholds at which alarms are at most so many a day: a way to hold scores of different sorts against each other.
    pub fn at_most(patients: &[Followed], scores: &[Vec<f64>], alarms_a_day: f64, thresholds: &[f64]) -> Self {
        let all = thresholds.iter().map(|threshold| Self::of(patients, scores, *threshold));
        let few = all.filter(|figures| figures.alarms_a_day <= alarms_a_day);
        few.max_by_key(|figures| figures.told).unwrap_or_default()
    }
}

/// The network's probabilities at each patient's instants.
pub fn forecasts(network: &Network, patients: &[Followed]) -> Result<Vec<Vec<f64>>, ModelError> {
    let forecast = |patient: &Followed| {
        let inputs: Vec<f32> = patient.instants.iter().flat_map(|instant| instant.inputs).collect();
        let mut outputs = Vec::new();
        network.forward(&inputs, patient.instants.len(), &mut outputs)?;
        Ok(outputs.into_iter().map(probability).collect())
    };
    patients.iter().map(forecast).collect()
}

/// Scores with whether an onset followed, where it is asked.
pub fn labelled(patients: &[Followed], scores: &[Vec<f64>]) -> Vec<(f64, bool)> {
    let all = patients.iter().zip(scores).flat_map(|(patient, scores)| patient.instants.iter().zip(scores));
    all.filter_map(|(instant, score)| Some((*score, instant.is_before_onset?))).collect()
}

/// The mean squared error of probabilities (Brier), and that of always saying the base rate.
pub fn brier(scored: &[(f64, bool)]) -> (f64, f64) {
    let count = scored.len().max(1) as f64;
    let rate = scored.iter().filter(|(_, is)| *is).count() as f64 / count;
    let error = |said: f64, is: bool| (said - f64::from(u8::from(is))).powi(2);
    (scored.iter().map(|(said, is)| error(*said, *is)).sum::<f64>() / count, rate * (1.0 - rate))
}

/// Ten bins of probability: how many, what was said on average, what came.
pub fn calibration(scored: &[(f64, bool)]) -> Vec<(usize, f64, f64)> {
    let bin = |number: usize| {
        let inside = scored.iter().filter(|(said, _)| ((said * 10.0) as usize).min(9) == number);
        let (count, said, came) = inside
            .fold((0, 0.0, 0.0), |(count, said, came), (p, is)| (count + 1, said + p, came + f64::from(u8::from(*is))));
        (count, said / f64::max(count as f64, 1.0), came / f64::max(count as f64, 1.0))
    };
    (0..10).map(bin).filter(|(count, ..)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rankings_by_hand() {
        // Pairs: 3 of 4 are in order.
        let ranking = Ranking::of(vec![(0.9, true), (0.6, false), (0.5, true), (0.1, false)]);
        assert!((ranking.auroc - 0.75).abs() < 1e-12);
        assert!((ranking.auprc - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        let ties = Ranking::of(vec![(0.5, true), (0.5, false), (0.5, false)]);
        assert!((ties.auroc - 0.5).abs() < 1e-12 && (ties.auprc - 1.0 / 3.0).abs() < 1e-12);
        let (error, base) = brier(&[(0.8, true), (0.4, false)]);
        assert!((error - 0.1).abs() < 1e-12 && (base - 0.25).abs() < 1e-12);
    }

    fn vitals(minute: i64, heart_rate: f64, respiration: f64) -> VitalSigns {
        let signs = [Some(heart_rate), Some(respiration), Some(97.0), Some(120.0), Some(37.0)];
        VitalSigns { time: Timestamp::from_secs(60 * minute), signs, oxygen: Some(false), is_confused: Some(false) }
    }

    /// Ill from minute 300 to 400: 3 points each for pulse and breath, and 3 for the mind.
    fn course() -> Course {
        let at = |minute: i64| {
            let is_ill = (300..400).contains(&minute) || (200..205).contains(&minute);
            let calm = vitals(minute, 70.0, 15.0);
            if is_ill { VitalSigns { is_confused: Some(true), ..vitals(minute, 140.0, 30.0) } } else { calm }
        };
        let truth: Vec<VitalSigns> = (0..720).map(at).collect();
        Course { measured: truth.clone(), truth }
    }

    #[test]
    fn an_onset_lasts_and_instants_before_it_are_known() {
        let followed = course().follow();
        assert_eq!(followed.onsets, [Timestamp::from_secs(60 * 300)], "five minutes are no onset");
        let at =
            |minute: i64| followed.instants.iter().find(|one| one.at == Timestamp::from_secs(60 * minute)).unwrap();
        assert_eq!(followed.instants[0].at, Timestamp::from_secs(3_600), "an hour of history");
        assert_eq!((at(60).is_before_onset, at(290).is_before_onset), (Some(true), Some(true)));
        assert_eq!((at(350).is_before_onset, at(500).is_before_onset), (None, Some(false)));
        assert_eq!((at(350).total, at(500).total), (9, 0));
    }

    #[test]
    fn alarms_are_counted_as_they_are_given() {
        let followed = [course().follow()];
        let scores: Vec<f64> = followed[0]
            .instants
            .iter()
            .map(|one| if one.at >= Timestamp::from_secs(60 * 240) { 0.9 } else { 0.0 })
            .collect();
        let figures = AlarmFigures::of(&followed, &[scores], 0.5);
        // At 240, 60 minutes before; again at 480, four hours later, for nothing.
        assert_eq!((figures.onsets, figures.told, figures.alarms, figures.right), (1, 1, 2, 1));
        assert_eq!(figures.median_lead_minutes, 60.0);
    }

    #[test]
    fn the_drawn_on_total_is_on_the_line() {
        let mut history = VitalHistory::default();
        let mut last = None;
        for minute in 0..121 {
            // One point more after an hour.
            let vitals = vitals(minute, if minute < 60 { 80.0 } else { 100.0 }, 15.0);
            last = history.push(vitals.time, &observations(&vitals)).or(last);
        }
        // Totals 0 six times, then 1 six times, at hours -11/6 to 0: slope 36/143·... by least squares.
        let xs: Vec<f64> = (0..12).map(|i| (f64::from(i) - 11.0) / 6.0).collect();
        let ys: Vec<f64> = (0..12).map(|i| if i < 6 { 0.0 } else { 1.0 }).collect();
        let (x, y) = (xs.iter().sum::<f64>() / 12.0, 0.5);
        let slope = xs.iter().zip(&ys).map(|(a, b)| (a - x) * (b - y)).sum::<f64>()
            / xs.iter().map(|a| (a - x).powi(2)).sum::<f64>();
        assert!((drawn_on(&last.unwrap()) - (y + slope * (4.0 - x))).abs() < 1e-9);
    }
}
