//! Movement held against what was so: epochs, falls, minutes of sleep.
//!
//! Each model is measured beside something simpler: activity beside thresholds on tilt, steps and impact; sleep beside the formula of
//! Cole and Kripke with the scale of its counts fitted to the people who were trained on.

use nearside_schemas::{FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, Timestamp};
use serde::Serialize;

use crate::ModelError;
use crate::diagnosis::motion::activity::{ACTIVITIES, Activity, CLASSES, decide};
use crate::diagnosis::motion::epoch::{EPOCH_MICROS, Epoch, Gatherer};
use crate::diagnosis::motion::sleep::{Minutes, Scored, cole_kripke, probability};
use crate::mlp::Network;
use crate::row_model::{Row, RowModel};

/// What was so in one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Second {
    /// What the person did.
    pub activity: Activity,
    /// Whether the person slept.
    pub is_asleep: bool,
}

/// A recording with what was so.
#[derive(Clone, Debug, PartialEq)]
pub struct Motion {
    /// The time of the first sample.
    pub start: Timestamp,
    /// Samples a second.
    pub hz: f64,
    /// x, y, z in g.
    pub samples: Vec<[f32; 3]>,
    /// One a second.
    pub truth: Vec<Second>,
}

/// An epoch with what was so in it.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// What the person did for most of it; a fall where there was one.
    pub activity: Activity,
    /// The share of its seconds that this holds for; 1 for a fall.
    pub share: f64,
}

/// A minute with whether the person slept.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledMinute {
    /// The minute.
    pub scored: Scored,
    /// Asleep for most of it.
    pub is_asleep: bool,
}

impl Motion {
    fn micros(&self, index: usize) -> i64 {
        self.start.as_micros() + (index as f64 * 1e6 / self.hz) as i64
    }

    fn seconds(&self, from: i64, micros: i64) -> &[Second] {
        let second = |at: i64| usize::try_from((at - self.start.as_micros()) / 1_000_000).unwrap_or(0);
        let until = second(from + micros).min(self.truth.len());
        self.truth.get(second(from).min(until)..until).unwrap_or_default()
    }

    fn each_epoch(&self, mut take: impl FnMut(Epoch)) {
        let mut gatherer = Gatherer::default();
        for (index, sample) in self.samples.iter().enumerate() {
            if let Some(epoch) = gatherer.push(self.micros(index), *sample) {
                take(epoch);
            }
        }
    }

    /// Its epochs.
    pub fn epochs(&self) -> Vec<LabelledEpoch> {
        let mut all = Vec::new();
        self.each_epoch(|epoch| {
            let seconds = self.seconds(epoch.number * EPOCH_MICROS, EPOCH_MICROS);
            let mut counts = [0_usize; CLASSES];
            seconds.iter().for_each(|second| counts[second.activity as usize] += 1);
            let most = ACTIVITIES.iter().max_by_key(|activity| counts[**activity as usize]).copied();
            let (activity, share) = match most {
                _ if counts[Activity::Falling as usize] > 0 => (Activity::Falling, 1.0),
                Some(activity) => (activity, counts[activity as usize] as f64 / seconds.len().max(1) as f64),
                None => return,
            };
            all.push(LabelledEpoch { epoch, activity, share });
        });
        all
    }

    /// Its minutes.
    pub fn minutes(&self) -> Vec<LabelledMinute> {
        let (mut minutes, mut all) = (Minutes::default(), Vec::new());
        self.each_epoch(|epoch| {
            if let Some(scored) = minutes.push(&epoch) {
                let seconds = self.seconds(scored.minute.number * 60_000_000, 60_000_000);
                let asleep = seconds.iter().filter(|second| second.is_asleep).count();
                all.push(LabelledMinute { scored, is_asleep: 2 * asleep > seconds.len() });
            }
        });
        all
    }

    /// The times at which falls began.
    fn falls(&self) -> Vec<Timestamp> {
        let is_fall = |second: &Second| second.activity == Activity::Falling;
        let begins =
            (0..self.truth.len()).filter(|i| is_fall(&self.truth[*i]) && (*i == 0 || !is_fall(&self.truth[i - 1])));
        begins.map(|second| Timestamp::from_micros(self.start.as_micros() + second as i64 * 1_000_000)).collect()
    }
}

/// Epochs of each activity (rows) and what was said of them (columns).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// Counts.
    pub counts: [[u64; CLASSES]; CLASSES],
}

impl Confusion {
    fn add(&mut self, truth: Activity, said: Activity) {
        self.counts[truth as usize][said as usize] += 1;
    }

    /// The share of epochs that are said right.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..CLASSES).map(|i| self.counts[i][i]).sum();
        right as f64 / self.counts.iter().flatten().sum::<u64>().max(1) as f64
    }

    /// F1 of an activity.
    pub fn f1(&self, activity: Activity) -> f64 {
        let i = activity as usize;
        let (truth, said): (u64, u64) = (self.counts[i].iter().sum(), self.counts.iter().map(|row| row[i]).sum());
        2.0 * self.counts[i][i] as f64 / (truth + said).max(1) as f64
    }

    /// The mean F1 of all.
    pub fn macro_f1(&self) -> f64 {
        ACTIVITIES.iter().map(|activity| self.f1(*activity)).sum::<f64>() / CLASSES as f64
    }
}

/// What thresholds alone make of an epoch: the measure that the network must beat.
pub fn by_thresholds(epoch: &Epoch) -> Activity {
    let [cadence, spread] = [epoch.features[10], epoch.features[3].exp()];
    match epoch {
        epoch if epoch.peak > 2.0 && epoch.features[8] < 0.7 => Activity::Falling,
        _ if cadence > 0.8 && spread > 0.06 => Activity::Walking,
        epoch if epoch.up[0] < 0.75 => Activity::Lying,
        epoch if epoch.up[0] > 0.97 => Activity::Standing,
        _ => Activity::Sitting,
    }
}

/// Epochs of a recording by the network and by thresholds, added to two tables.
pub fn count_epochs(
    network: &Network,
    motion: &Motion,
    by_network: &mut Confusion,
    by_rule: &mut Confusion,
) -> Result<(), ModelError> {
    let epochs = motion.epochs();
    let inputs: Vec<f32> = epochs.iter().flat_map(|one| one.epoch.features).collect();
    let mut outputs = Vec::new();
    network.forward(&inputs, epochs.len(), &mut outputs)?;
    for (one, outputs) in epochs.iter().zip(outputs.chunks_exact(CLASSES)) {
        by_network.add(one.activity, decide(outputs).0);
        by_rule.add(one.activity, by_thresholds(&one.epoch));
    }
    Ok(())
}

/// Falls and the findings that were raised for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Falls {
    /// Falls.
    pub falls: u64,
    /// Of those, found within a minute.
    pub found: u64,
    /// Findings that no fall explains.
    pub false_alarms: u64,
    /// Hours of recordings.
    pub hours: f64,
}

/// A finding within this long after a fall's beginning is about it.
const FALL_FOUND_SECONDS: u64 = 60;

/// Runs a recording through the model as the gateway would.
pub fn count_falls(model: &dyn RowModel, motion: &Motion, into: &mut Falls) -> Result<(), ModelError> {
    let fields: Vec<FieldSpec> = ["x", "y", "z"].into_iter().filter_map(axis).collect();
    let mut state = model.new_state(&fields);
    let (mut inputs, mut outputs, mut said) = (Vec::new(), Vec::new(), Vec::new());
    for (index, sample) in motion.samples.iter().enumerate() {
        let time = Timestamp::from_micros(motion.micros(index));
        let values = sample.map(|value| FieldValue::Number(f64::from(value)));
        inputs.clear();
        let count = state.take(&Row { time, values: &values }, &mut inputs);
        outputs.clear();
        if count > 0 {
            model.forward(&inputs, count, &mut outputs)?;
        }
        let verdict = state.judge(&outputs);
        if verdict.sightings.iter().any(|sighting| sighting.label == "fall_suggested") {
            said.push(time);
        }
    }
    let falls = motion.falls();
    let explains = |fall: &Timestamp, at: &Timestamp| *at >= *fall && at.since(*fall).as_secs() < FALL_FOUND_SECONDS;
    into.falls += falls.len() as u64;
    into.found += falls.iter().filter(|fall| said.iter().any(|at| explains(fall, at))).count() as u64;
    into.false_alarms += said.iter().filter(|at| !falls.iter().any(|fall| explains(fall, at))).count() as u64;
    into.hours += motion.samples.len() as f64 / motion.hz / 3_600.0;
    Ok(())
}

fn axis(name: &str) -> Option<FieldSpec> {
    let name = FieldName::new(name).ok()?;
    Some(FieldSpec { name, kind: FieldKind::Number, unit: Some("[g]".into()), policy: FieldPolicy::Clear })
}

/// Minutes scored against sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SleepCounts {
    /// Asleep and scored so.
    pub sleep_right: u64,
    /// Asleep and scored awake.
    pub sleep_wrong: u64,
    /// Awake and scored so.
    pub wake_right: u64,
    /// Awake and scored asleep.
    pub wake_wrong: u64,
}

impl SleepCounts {
    fn add(&mut self, is_asleep: bool, scored_asleep: bool) {
        match (is_asleep, scored_asleep) {
            (true, true) => self.sleep_right += 1,
            (true, false) => self.sleep_wrong += 1,
            (false, false) => self.wake_right += 1,
            (false, true) => self.wake_wrong += 1,
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            sleep_right: self.sleep_right + other.sleep_right,
            sleep_wrong: self.sleep_wrong + other.sleep_wrong,
            wake_right: self.wake_right + other.wake_right,
            wake_wrong: self.wake_wrong + other.wake_wrong,
        }
    }

    fn all(&self) -> f64 {
        (self.sleep_right + self.sleep_wrong + self.wake_right + self.wake_wrong).max(1) as f64
    }

    /// The share of minutes that are scored right.
    pub fn accuracy(&self) -> f64 {
        (self.sleep_right + self.wake_right) as f64 / self.all()
    }

    /// The share of minutes asleep that are scored so.
    pub fn sensitivity(&self) -> f64 {
        self.sleep_right as f64 / (self.sleep_right + self.sleep_wrong).max(1) as f64
    }

    /// The share of minutes awake that are scored so.
    pub fn specificity(&self) -> f64 {
        self.wake_right as f64 / (self.wake_right + self.wake_wrong).max(1) as f64
    }

    /// Cohen's kappa: agreement beyond chance.
    pub fn kappa(&self) -> f64 {
        let all = self.all();
        let asleep = (self.sleep_right + self.sleep_wrong) as f64 / all;
        let scored = (self.sleep_right + self.wake_wrong) as f64 / all;
        let chance = asleep * scored + (1.0 - asleep) * (1.0 - scored);
        (self.accuracy() - chance) / (1.0 - chance).max(1e-9)
    }

    /// Minutes asleep by the scoring, less those that were.
    pub fn surplus(&self) -> i64 {
        self.wake_wrong as i64 - self.sleep_wrong as i64
    }
}

/// Minutes of a recording by the network and by the formula, whose counts are `scale` times movement in g·s, in hundreds.
pub fn score_sleep(network: &Network, minutes: &[LabelledMinute], scale: f64) -> Result<[SleepCounts; 2], ModelError> {
    let inputs: Vec<f32> = minutes.iter().flat_map(|one| one.scored.inputs).collect();
    let mut outputs = Vec::new();
    network.forward(&inputs, minutes.len(), &mut outputs)?;
    let (mut by_network, mut by_formula) = (SleepCounts::default(), SleepCounts::default());
    for (one, z) in minutes.iter().zip(outputs.chunks_exact(1)) {
        by_network.add(one.is_asleep, probability(z) >= 0.5);
        by_formula.add(one.is_asleep, is_asleep_by_formula(one, scale));
    }
    Ok([by_network, by_formula])
}

fn is_asleep_by_formula(one: &LabelledMinute, scale: f64) -> bool {
    cole_kripke(one.scored.around.map(|movement| movement * scale)) < 1.0
}

/// The scale at which the formula agrees best with these minutes: the fairest that it can be held against.
pub fn best_scale(minutes: &[LabelledMinute]) -> f64 {
    let kappa = |scale: f64| {
        let mut counts = SleepCounts::default();
        minutes.iter().for_each(|one| counts.add(one.is_asleep, is_asleep_by_formula(one, scale)));
        counts.kappa()
    };
    let scales = (0..60).map(|step| 0.05 * 1.2_f64.powi(step));
    scales.max_by(|a, b| kappa(*a).total_cmp(&kappa(*b))).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_by_hand() {
        let counts = SleepCounts { sleep_right: 80, sleep_wrong: 20, wake_right: 30, wake_wrong: 10 };
        assert!((counts.accuracy() - 110.0 / 140.0).abs() < 1e-12);
        assert_eq!((counts.sensitivity(), counts.specificity(), counts.surplus()), (0.8, 0.75, -10));
        // Chance: 100/140 · 90/140 + 40/140 · 50/140 = 11,000/19,600.
        let chance = 11_000.0 / 19_600.0;
        assert!((counts.kappa() - (110.0 / 140.0 - chance) / (1.0 - chance)).abs() < 1e-12);
        let mut table = Confusion::default();
        for (truth, said, count) in [(0, 0, 8), (0, 1, 2), (1, 1, 5), (1, 0, 5)] {
            (0..count).for_each(|_| table.add(ACTIVITIES[truth], ACTIVITIES[said]));
        }
        assert_eq!(table.accuracy(), 0.65);
        // Lying: 8 right, 10 true, 13 said.
        assert!((table.f1(Activity::Lying) - 16.0 / 23.0).abs() < 1e-12);
    }

    #[test]
    fn epochs_are_labelled_by_what_was_so() {
        let second = |activity| Second { activity, is_asleep: false };
        let mut truth = vec![second(Activity::Lying); 16];
        truth.extend(vec![second(Activity::Sitting); 14]);
        truth.push(second(Activity::Falling));
        truth.extend(vec![second(Activity::Lying); 20]);
        let samples = vec![[0.0, 0.0, 1.0]; truth.len() * 25];
        let motion = Motion { start: Timestamp::from_secs(1_000), hz: 25.0, samples, truth };
        let labels: Vec<(Activity, f64)> = motion.epochs().iter().map(|one| (one.activity, one.share)).collect();
        let expected =
            [(Activity::Lying, 1.0), (Activity::Lying, 0.6), (Activity::Sitting, 1.0), (Activity::Falling, 1.0)];
        assert_eq!(labels[..4], expected);
        assert_eq!(motion.falls(), [Timestamp::from_secs(1_030)]);
    }
}
