//! Trains the glucose forecast: squared error of the expected change and pinball loss of the band. One of [`HELD_BACK`] days of each
//! patient is held back to choose the pass.

use std::path::Path;

use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::checkpoint::Checkpoint;
use super::fit::{AT_ONCE, Epoch, Fit, PATIENCE, TrainReport};
use super::samples::Samples;
use super::simulate::normal;
use crate::ModelError;
use crate::card::{self, Metric, Training, TrainingData};
use crate::catalog;
use crate::diagnosis::glucose_forecast::past::{INPUTS, Past, UNIT};
use crate::diagnosis::glucose_forecast::{BAND, LAYOUT, NAME};
use crate::eval::cgm::{self, Subject};
use crate::mlp::pinball;

/// Every this many-th day is held back.
const HELD_BACK: i64 = 8;
/// Noise put on the inputs that are differences, in their units: 1 mg/dL.
const NOISE: f64 = 0.05;
/// Changes are cut here, in units: rarer is not more to learn from.
const MOST: f64 = 6.0;
const SECONDS_PER_DAY: i64 = 86_400;
/// The version of the method; the weights' digest follows it.
const METHOD: &str = "1";

/// Trains the network on some patients; gives the weights file's bytes and the passes.
pub fn train_glucose_network(
    subjects: &[&Subject],
    seed: u64,
    epochs: usize,
    checkpoint: Option<&Checkpoint>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Vec<u8>, TrainReport), ModelError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (train, held_back) = samples(subjects, &mut rng);
    fit(epochs).run(&train, &held_back, &mut rng, checkpoint, progress)
}

/// So many of the shipped card's limits hold whoever it learnt from.
const LIMITS_OF_ALL: usize = 2;

/// How the forecast is fitted.
pub(super) fn fit(epochs: usize) -> Fit {
    Fit {
        layout: LAYOUT,
        loss,
        batch: 128,
        at_once: AT_ONCE,
        rate: 1e-3,
        weight_decay: 1e-2,
        epochs,
        patience: PATIENCE,
    }
}

/// Samples to train on and to hold back.
pub(super) fn samples(subjects: &[&Subject], rng: &mut ChaCha8Rng) -> (Samples, Samples) {
    let (mut train, mut held_back) = (Samples::new(INPUTS, 1), Samples::new(INPUTS, 1));
    for subject in subjects {
        let mut past = Past::default();
        for (row, (time, mg_dl)) in subject.readings.iter().enumerate() {
            let inputs = past.observe(*time, *mg_dl);
            let (Some(inputs), Some(later)) = (inputs, subject.at_horizon(row)) else { continue };
            let day = time.as_micros().div_euclid(SECONDS_PER_DAY * 1_000_000);
            let is_held_back = day.rem_euclid(HELD_BACK) == 0;
            let into = if is_held_back { &mut held_back } else { &mut train };
            let noise = if is_held_back { 0.0 } else { NOISE };
            into.inputs.extend(inputs.network.map(|input| input + (noise * normal(rng)) as f32));
            into.targets.push(target(later - mg_dl));
        }
    }
    (train, held_back)
}

/// What the network should say of a change in mg/dL.
pub(super) fn target(change: f64) -> f32 {
    (change / UNIT).clamp(-MOST, MOST) as f32
}

/// The squared error of the first output and the pinball loss of the other two.
fn loss(prediction: &Tensor, change: &Tensor) -> Result<Tensor, ModelError> {
    let error = prediction.narrow(1, 0, 1)?.sub(change)?.sqr()?.mean_all()?;
    Ok(error.affine(0.5, 0.0)?.add(&pinball(&prediction.narrow(1, 1, BAND.len())?, change, &BAND)?)?)
}

/// Trains the forecast and writes its folder.
pub fn train_glucose(
    data: &Path,
    out: &Path,
    seed: u64,
    epochs: usize,
    resume: bool,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<TrainReport, ModelError> {
    let cgm::Recordings { subjects, set_aside, .. } = cgm::read_folder(data, cgm::Unit::MgDl)?;
    let all: Vec<&Subject> = subjects.iter().collect();
    let checkpoint = Checkpoint::new(out, resume);
    let (bytes, mut report) = train_glucose_network(&all, seed, epochs, Some(&checkpoint), progress)?;
    report.set_aside = set_aside;
    let command = format!("nearside train glucose --data CGM --seed {seed} --epochs {epochs} --out FOLDER");
    let mut card = catalog::card(NAME, None)?;
    card.sha256 = Some(report.sha256.clone());
    card.version = format!("{METHOD}-{}", &report.sha256[..8]);
    card.training = Some(Training {
        command: command.clone(),
        seed,
        data: vec![TrainingData {
            name: format!("{} subjects of {}", subjects.len(), card::folder_name(data, "a site's own recordings")),
            licence: String::from("that of the recordings"),
        }],
    });
    // What stands there of the people that the shipped weights learnt from is not true of others.
    card.limits.truncate(LIMITS_OF_ALL);
    card.limits.push(format!("It learnt from {} people alone; how it does on others is not known.", subjects.len()));
    card.metrics = vec![Metric {
        name: String::from("half the squared error and the pinball loss of the band, in units of 20 mg/dL"),
        value: (f64::from(report.held_back_loss) * 1e4).round() / 1e4,
        on: format!("{} readings of days held back", report.held_back),
        command,
    }];
    card::write_folder(out, &card, &bytes)?;
    checkpoint.remove()?;
    Ok(report)
}
