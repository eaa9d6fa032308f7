//! `train deterioration` and `eval deterioration`: the simulator's patients as courses for the model.

use std::path::PathBuf;

use clap::Args;
use nearside_models::compress::Accuracy;
use nearside_models::diagnosis::deterioration::{LAYOUT, NAME};
use nearside_models::eval::deterioration::{
    AlarmFigures, Course, Followed, Instant, Ranking, VitalSigns, brier, calibration, forecasts, labelled,
};
use nearside_models::mlp::Network;
use nearside_models::train::{Epoch, TrainDeterioration, TrainReport, train_deterioration};
use nearside_models::{ModelError, catalog};
use nearside_simulator::{Cohort, VitalCourse, Vitals};
use serde_json::{Value, json};

use super::train::{DEFAULT_SEED, at_least_one};
use crate::error::StartError;

/// Hours of a course.
const HOURS: u64 = 30;
/// NEWS2 from which on the chart asks for an urgent review: the plain alarm.
const URGENT_REVIEW: f64 = 5.0;

/// The patients that a model is evaluated on, and how many of them.
const EVAL_SEED: u64 = 2;
const EVAL_PATIENTS: u64 = 500;

/// A training on simulated patients.
#[derive(Args, Debug)]
pub(super) struct TrainOnPatients {
    /// The folder that card.toml and model.safetensors are written to.
    #[arg(long)]
    pub(super) out: PathBuf,
    /// Seed of the patients and of everything else random.
    #[arg(long, default_value_t = DEFAULT_SEED)]
    seed: u64,
    /// Simulated patients; every fifth is held back.
    #[arg(long, default_value_t = 1_500)]
    patients: u64,
    /// Most passes over the data; it stops earlier when it no longer gets better, and the best is kept.
    #[arg(long, default_value_t = 12, value_parser = at_least_one)]
    pub(super) epochs: usize,
    /// Go on from where an earlier training into the same folder was stopped.
    #[arg(long)]
    resume: bool,
}

/// An evaluation on simulated patients that the training never saw, drawn from other ranges.
#[derive(Args, Debug)]
pub(super) struct EvalOnPatients {
    /// A folder with the model's card and weights instead of those that ship.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Seed of the patients.
    #[arg(long, default_value_t = EVAL_SEED)]
    seed: u64,
    /// Simulated patients.
    #[arg(long, default_value_t = EVAL_PATIENTS)]
    patients: u64,
}

fn courses(cohort: Cohort, seed: u64, patients: u64) -> impl Iterator<Item = Course> {
    (0..patients).map(move |number| {
        let course = VitalCourse::new(cohort, seed, number, HOURS);
        Course {
            measured: course.measured.iter().map(signs).collect(),
            truth: course.truth.iter().map(signs).collect(),
        }
    })
}

fn signs(vitals: &Vitals) -> VitalSigns {
    let Vitals { time, heart_rate, respiration, spo2, systolic, temperature, oxygen, is_alert } = *vitals;
    let signs = [heart_rate, respiration, spo2, systolic, temperature];
    VitalSigns { time, signs, oxygen, is_confused: is_alert.map(|is_alert| !is_alert) }
}

impl TrainOnPatients {
    /// Trains the network.
    pub(super) fn train(&self, progress: &mut dyn FnMut(&Epoch)) -> Result<TrainReport, StartError> {
        let Self { out, seed, patients, epochs, resume } = self;
        let command =
            format!("nearside train deterioration --seed {seed} --patients {patients} --epochs {epochs} --out FOLDER");
        let data = format!(
            "{HOURS} h of each of {patients} simulated patients, each fifth held back: simulated patients alone"
        );
        let settings =
            TrainDeterioration { out, seed: *seed, epochs: *epochs, resume: *resume, command: &command, data: &data };
        Ok(train_deterioration(&settings, courses(Cohort::Training, *seed, *patients), progress)?)
    }
}

/// How good weights are on the patients of `eval deterioration`.
pub(super) fn accuracy(weights: &[u8]) -> Result<Accuracy, ModelError> {
    let network = Network::load(LAYOUT, weights)?;
    let patients: Vec<Followed> =
        courses(Cohort::Test, EVAL_SEED, EVAL_PATIENTS).map(|course| course.follow()).collect();
    let ranking = Ranking::of(labelled(&patients, &forecasts(&network, &patients)?));
    let on = format!("{EVAL_PATIENTS} simulated patients that it has not seen");
    Ok(Accuracy { metric: "AUROC in points", value: 100.0 * ranking.auroc, more_is_better: true, on })
}

impl EvalOnPatients {
    /// The network, the plain total, and its trend drawn on, beside each other.
    pub(super) fn run(&self) -> Result<(), StartError> {
        let (card, weights) = catalog::parts(NAME, self.folder.as_deref())?;
        let network = Network::load(LAYOUT, &weights)?;
        let patients: Vec<Followed> =
            courses(Cohort::Test, self.seed, self.patients).map(|course| course.follow()).collect();
        let by = |score: fn(&Instant) -> f64| -> Vec<Vec<f64>> {
            patients.iter().map(|patient| patient.instants.iter().map(score).collect()).collect()
        };
        let (total, drawn_on) = (by(|one| f64::from(one.total)), by(|one| one.drawn_on));
        let network = forecasts(&network, &patients)?;
        let said = labelled(&patients, &network);
        let own = AlarmFigures::of(&patients, &network, card.threshold);
        let shares: Vec<f64> = (1..100).map(|step| f64::from(step) / 100.0).collect();
        let points: Vec<f64> = (2..56).map(|step| f64::from(step) / 4.0).collect();
        let plain = AlarmFigures::of(&patients, &total, URGENT_REVIEW);
        let as_often = |rate: f64| -> Value {
            json!({
                "network": AlarmFigures::at_most(&patients, &network, rate, &shares),
                "news2": AlarmFigures::at_most(&patients, &total, rate, &points),
                "news2_drawn_on": AlarmFigures::at_most(&patients, &drawn_on, rate, &points),
            })
        };
        eprintln!("{:<18}{:>8}{:>8}", "", "AUROC", "AUPRC");
        let rankings = [("network", &network), ("news2", &total), ("news2 drawn on", &drawn_on)]
            .map(|(name, scores)| (name, Ranking::of(labelled(&patients, scores))));
        for (name, ranking) in &rankings {
            eprintln!("{name:<18}{:>8.3}{:>8.3}", ranking.auroc, ranking.auprc);
        }
        for (count, said, came) in calibration(&said) {
            eprintln!("said {said:.2}, came {came:.2} ({count})");
        }
        eprintln!(
            "alarms at {}: {:.0} % of them right, {:.2} a patient and day; {} of {} onsets told",
            card.threshold,
            100.0 * own.precision(),
            own.alarms_a_day,
            own.told,
            own.onsets
        );
        let (error, base) = brier(&said);
        let ranking_of = |name: &str, ranking: &Ranking| (name.to_owned(), json!(ranking));
        let rankings: serde_json::Map<String, Value> =
            rankings.iter().map(|(name, ranking)| ranking_of(name, ranking)).collect();
        println!(
            "{}",
            json!({
                "model": card.reference().to_string(),
                "on": "simulated patients alone",
                "patients": self.patients,
                "instants": said.len(),
                "before_an_onset": said.iter().filter(|(_, is)| *is).count(),
                "ranking": rankings,
                "brier": error,
                "brier_of_the_base_rate": base,
                "at_the_threshold": own,
                "news2_from_5": plain,
                "no_more_alarms_than_at_the_threshold": as_often(own.alarms_a_day),
                "no_more_alarms_than_news2_from_5": as_often(plain.alarms_a_day),
            })
        );
        Ok(())
    }
}
