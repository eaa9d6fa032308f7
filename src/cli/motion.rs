//! `train activity|sleep` and `eval activity|sleep`: the simulator's people as recordings for the models.

use std::path::PathBuf;

use clap::Args;
use nearside_models::compress::Accuracy;
use nearside_models::diagnosis::motion::activity::{self, ACTIVITIES, Activity};
use nearside_models::diagnosis::motion::sleep;
use nearside_models::eval::motion::{
    Confusion, Falls, LabelledMinute, Motion, Second, SleepCounts, best_scale, count_epochs, count_falls, score_sleep,
};
use nearside_models::mlp::Network;
use nearside_models::train::{Epoch, TrainMotion, TrainReport, train_activity, train_sleep};
use nearside_models::{ModelError, catalog};
use nearside_simulator::{Crowd, MotionRecording, MotionTruth, Posture};
use serde_json::json;

use super::train::{DEFAULT_SEED, at_least_one};
use crate::error::StartError;

/// People that the weights that ship learnt from.
pub(super) const PEOPLE: u64 = 60;
/// Passes of the weights that ship.
pub(super) const EPOCHS: usize = 20;
/// Minutes of a person's day.
const DAY_MINUTES: u64 = 60;
/// The people that a model is evaluated on, and how many of them.
const EVAL_SEED: u64 = 2;
const EVAL_PEOPLE: u64 = 30;
/// Of their nights so many are enough to tell what compression costs.
const MEASURED_NIGHTS: u64 = 12;
/// People whose nights the formula's scale is fitted to.
const FITTED: u64 = 20;

/// A training on simulated people.
#[derive(Args, Debug)]
pub(super) struct TrainOnPeople {
    /// The folder that card.toml and model.safetensors are written to.
    #[arg(long)]
    pub(super) out: PathBuf,
    /// Seed of the people and of everything else random.
    #[arg(long, default_value_t = DEFAULT_SEED)]
    pub(super) seed: u64,
    /// Simulated people; every sixth is held back.
    #[arg(long, default_value_t = PEOPLE)]
    pub(super) people: u64,
    /// Most passes over the data; it stops earlier when it no longer gets better, and the best is kept.
    #[arg(long, default_value_t = EPOCHS, value_parser = at_least_one)]
    pub(super) epochs: usize,
    /// Go on from where an earlier training into the same folder was stopped.
    #[arg(long)]
    resume: bool,
}

/// An evaluation on simulated people that the training never saw, drawn from other ranges.
#[derive(Args, Debug)]
pub(super) struct EvalOnPeople {
    /// A folder with the model's card and weights instead of those that ship.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Seed of the people; that of the training makes others too.
    #[arg(long, default_value_t = EVAL_SEED)]
    seed: u64,
    /// Simulated people.
    #[arg(long, default_value_t = EVAL_PEOPLE)]
    people: u64,
}

fn motion(recording: MotionRecording) -> Motion {
    let second = |truth: &MotionTruth| Second {
        activity: match truth.posture {
            _ if truth.is_falling => Activity::Falling,
            Posture::Lying => Activity::Lying,
            Posture::Sitting => Activity::Sitting,
            Posture::Standing => Activity::Standing,
            Posture::Walking => Activity::Walking,
        },
        is_asleep: truth.is_asleep,
    };
    let truth = recording.truth.iter().map(second).collect();
    Motion { start: recording.start, hz: recording.hz, samples: recording.samples, truth }
}

fn days(crowd: Crowd, seed: u64, people: u64) -> impl Iterator<Item = Motion> {
    (0..people).map(move |person| motion(MotionRecording::day(crowd, seed, person, DAY_MINUTES)))
}

fn nights(crowd: Crowd, seed: u64, people: u64) -> impl Iterator<Item = Motion> {
    (0..people).map(move |person| motion(MotionRecording::night(crowd, seed, person)))
}

impl TrainOnPeople {
    /// Trains the network for activity.
    pub(super) fn activity(&self, progress: &mut dyn FnMut(&Epoch)) -> Result<TrainReport, StartError> {
        let data = format!(
            "an hour of each of {} simulated people, each sixth held back: simulated people alone",
            self.people
        );
        let command = self.command("activity");
        let people = days(Crowd::Training, self.seed, self.people);
        Ok(train_activity(&self.settings(&command, &data), people, progress)?)
    }

    /// Trains the network for sleep.
    pub(super) fn sleep(&self, progress: &mut dyn FnMut(&Epoch)) -> Result<TrainReport, StartError> {
        let data = format!(
            "a night of each of {} simulated people, each sixth held back: simulated people alone",
            self.people
        );
        let command = self.command("sleep");
        let people = nights(Crowd::Training, self.seed, self.people);
        Ok(train_sleep(&self.settings(&command, &data), people, progress)?)
    }

    fn settings<'a>(&'a self, command: &'a str, data: &'a str) -> TrainMotion<'a> {
        TrainMotion { out: &self.out, seed: self.seed, epochs: self.epochs, resume: self.resume, command, data }
    }

    fn command(&self, task: &str) -> String {
        let Self { seed, people, epochs, .. } = self;
        format!("nearside train {task} --seed {seed} --people {people} --epochs {epochs} --out FOLDER")
    }
}

/// Epochs of people that the training never saw, by the network and by thresholds; `also` is shown each of them.
fn epochs(
    weights: &[u8],
    seed: u64,
    people: u64,
    mut also: impl FnMut(&Motion) -> Result<(), ModelError>,
) -> Result<[Confusion; 2], ModelError> {
    let network = Network::load(activity::LAYOUT, weights)?;
    let [mut by_network, mut by_rule] = [Confusion::default(), Confusion::default()];
    for motion in days(Crowd::Test, seed, people) {
        count_epochs(&network, &motion, &mut by_network, &mut by_rule)?;
        also(&motion)?;
    }
    Ok([by_network, by_rule])
}

/// Minutes of nights that the training never saw, by the network and by the formula, and by how many the total of each night is off.
fn minutes(weights: &[u8], scale: f64, seed: u64, people: u64) -> Result<([SleepCounts; 2], [f64; 2]), ModelError> {
    let network = Network::load(sleep::LAYOUT, weights)?;
    let mut totals = [SleepCounts::default(); 2];
    let mut off = [0.0; 2];
    for motion in nights(Crowd::Test, seed, people) {
        let counts = score_sleep(&network, &motion.minutes(), scale)?;
        for ((total, off), counts) in totals.iter_mut().zip(&mut off).zip(counts) {
            *total = total.plus(counts);
            *off += counts.surplus().unsigned_abs() as f64 / people.max(1) as f64;
        }
    }
    Ok((totals, off))
}

/// How good weights are on the people of `eval activity`.
pub(super) fn activity_accuracy(weights: &[u8]) -> Result<Accuracy, ModelError> {
    let [by_network, _] = epochs(weights, EVAL_SEED, EVAL_PEOPLE, |_| Ok(()))?;
    let on = format!("{EVAL_PEOPLE} simulated people that it has not seen");
    Ok(Accuracy { metric: "macro F1 in points", value: 100.0 * by_network.macro_f1(), more_is_better: true, on })
}

/// How good weights are on some of the people of `eval sleep`.
pub(super) fn sleep_accuracy(weights: &[u8]) -> Result<Accuracy, ModelError> {
    // The scale is of the formula, which is not asked.
    let ([by_network, _], _) = minutes(weights, 1.0, EVAL_SEED, MEASURED_NIGHTS)?;
    let on = format!("nights of {MEASURED_NIGHTS} simulated people that it has not seen");
    Ok(Accuracy { metric: "kappa in points", value: 100.0 * by_network.kappa(), more_is_better: true, on })
}

impl EvalOnPeople {
    /// Epochs and falls, by the model and by thresholds.
    pub(super) fn activity(&self) -> Result<(), StartError> {
        let (card, weights) = catalog::parts(activity::NAME, self.folder.as_deref())?;
        let model = catalog::load(activity::NAME, self.folder.as_deref())?;
        let mut falls = Falls::default();
        let fall = |motion: &Motion| count_falls(model.as_ref(), motion, &mut falls);
        let [by_network, by_rule] = epochs(&weights, self.seed, self.people, fall)?;
        eprintln!("{:<12}{:>9}{:>12}", "F1", "network", "thresholds");
        for one in ACTIVITIES {
            eprintln!("{:<12}{:>9.3}{:>12.3}", one.as_str(), by_network.f1(one), by_rule.f1(one));
        }
        let figures = |table: &Confusion| {
            let f1: serde_json::Map<String, serde_json::Value> =
                ACTIVITIES.iter().map(|one| (one.as_str().to_owned(), json!(table.f1(*one)))).collect();
            json!({ "accuracy": table.accuracy(), "macro_f1": table.macro_f1(), "f1": f1, "counts": table.counts })
        };
        eprintln!(
            "falls: {} of {} told, in {:.1} h; {:.2} false a day",
            falls.found,
            falls.falls,
            falls.hours,
            falls.false_alarms as f64 * 24.0 / falls.hours.max(1e-9)
        );
        println!(
            "{}",
            json!({
                "model": card.reference().to_string(),
                "people": self.people,
                "on": "simulated people alone",
                "network": figures(&by_network),
                "thresholds": figures(&by_rule),
                "falls": falls,
            })
        );
        Ok(())
    }

    /// Minutes of sleep, by the network and by the published formula.
    pub(super) fn sleep(&self) -> Result<(), StartError> {
        let (card, weights) = catalog::parts(sleep::NAME, self.folder.as_deref())?;
        let fitted: Vec<LabelledMinute> =
            nights(Crowd::Training, DEFAULT_SEED, FITTED).flat_map(|motion| motion.minutes()).collect();
        let scale = best_scale(&fitted);
        let (totals, off) = minutes(&weights, scale, self.seed, self.people)?;
        let figures = |counts: &SleepCounts, off: f64| {
            json!({
                "accuracy": counts.accuracy(),
                "sensitivity": counts.sensitivity(),
                "specificity": counts.specificity(),
                "kappa": counts.kappa(),
                "mean_error_of_total_sleep_minutes": off,
            })
        };
        eprintln!("{:<24}{:>9}{:>12}{:>12}{:>8}", "", "accuracy", "sensitivity", "specificity", "kappa");
        for (name, counts) in ["network", "Cole and Kripke"].iter().zip(&totals) {
            let [accuracy, sensitivity] = [counts.accuracy(), counts.sensitivity()];
            let [specificity, kappa] = [counts.specificity(), counts.kappa()];
            eprintln!("{name:<24}{accuracy:>9.3}{sensitivity:>12.3}{specificity:>12.3}{kappa:>8.3}");
        }
        println!(
            "{}",
            json!({
                "model": card.reference().to_string(),
                "people": self.people,
                "on": "simulated people alone",
                "network": figures(&totals[0], off[0]),
                "cole_kripke": figures(&totals[1], off[1]),
                "cole_kripke_hundreds_of_counts_a_g_s": scale,
            })
        );
        Ok(())
    }
}
