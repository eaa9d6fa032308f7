//! Trains the forecaster on the pinball loss, with every eighth series held back.

use std::path::Path;

use nearside_schemas::Timestamp;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::checkpoint::Checkpoint;
use super::fit::{AT_ONCE, Epoch, Fit, TrainReport};
use super::samples::Samples;
use super::simulate::simulate;
use crate::ModelError;
use crate::anomaly::forecaster::{
    self,
    history::{History, INPUTS},
    network::{LAYOUT, QUANTILES},
};
use crate::card::{self, Metric, Training, TrainingData};
use crate::catalog;
use crate::eval::nab_data::{self, Corpus, Series};
use crate::mlp::pinball;

/// How the forecaster is trained.
#[derive(Clone, Copy, Debug)]
pub struct TrainAnomaly<'a> {
    /// A folder of the Numenta Anomaly Benchmark; `None`: simulated series alone.
    pub data: Option<&'a Path>,
    /// The folder that `model.safetensors` and `card.toml` are written to.
    pub out: &'a Path,
    /// Seed of the weights, the simulated series and the order of samples.
    pub seed: u64,
    /// Passes over the samples.
    pub epochs: usize,
    /// Whether it goes on from what an earlier training left in `out`.
    pub resume: bool,
    /// A category of the benchmark to leave out, to be evaluated on later.
    pub exclude_category: Option<&'a str>,
}

/// Simulated series that are trained on, and rows of each.
const SIMULATED: usize = 120;
const SIMULATED_ROWS: usize = 2_000;
/// Samples drawn from one series.
const SAMPLES: usize = 4_000;
/// Rows of a series before the first sample.
pub(super) const SKIPPED: usize = 64;
/// Targets are cut here: beyond it, farther is not more to learn from.
const MOST_TARGET: f32 = 30.0;
/// Every this many-th series is held back.
const HELD_BACK: usize = 8;
const BATCH: usize = 512;
const RATE: f64 = 2e-3;
/// Passes without improvement after which training stops.
const PATIENCE: usize = 4;
/// The version of the method; the weights' digest follows it.
const METHOD: &str = "2";

/// Trains the network on `series` and simulated ones; gives the weights file's bytes and the passes.
pub fn train_network(
    series: &[&Series],
    seed: u64,
    epochs: usize,
    checkpoint: Option<&Checkpoint>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Vec<u8>, TrainReport), ModelError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (samples, held_back) = samples(series, seed, &mut rng);
    fit(epochs).run(&samples, &held_back, &mut rng, checkpoint, progress)
}

/// How the forecaster is fitted.
pub(super) fn fit(epochs: usize) -> Fit {
    Fit {
        layout: LAYOUT,
        loss: |prediction, y| pinball(prediction, y, &QUANTILES),
        batch: BATCH,
        at_once: AT_ONCE,
        rate: RATE,
        weight_decay: 1e-4,
        epochs,
        patience: PATIENCE,
    }
}

/// Samples to train on and to hold back.
pub(super) fn samples(series: &[&Series], seed: u64, rng: &mut ChaCha8Rng) -> (Samples, Samples) {
    let (mut train, mut held_back) = (Samples::new(INPUTS, 1), Samples::new(INPUTS, 1));
    let simulated = simulate(SIMULATED, SIMULATED_ROWS, seed ^ 0x5151);
    let real = series.iter().map(|series| (series.times.as_slice(), series.values.as_slice()));
    let simulated = simulated.iter().map(|(times, values)| (times.as_slice(), values.as_slice()));
    for all in [real.collect::<Vec<(&[Timestamp], &[f64])>>(), simulated.collect()] {
        for (number, (times, values)) in all.into_iter().enumerate() {
            let into = if number % HELD_BACK == HELD_BACK - 1 { &mut held_back } else { &mut train };
            add(into, times, values, rng);
        }
    }
    (train, held_back)
}

/// Adds about [`SAMPLES`] rows of a series, drawn evenly.
fn add(samples: &mut Samples, times: &[Timestamp], values: &[f64], rng: &mut ChaCha8Rng) {
    let share = SAMPLES as f64 / values.len().max(1) as f64;
    let mut history = History::default();
    for (row, (time, value)) in times.iter().zip(values).enumerate() {
        if row >= SKIPPED && rng.random::<f64>() < share {
            add_sample(&history, *time, *value, samples);
        }
        history.learn(*time, *value);
    }
}

/// Adds a row, given what came before it.
pub(super) fn add_sample(history: &History, time: Timestamp, value: f64, samples: &mut Samples) {
    let norm = history.norm();
    history.write_inputs(time, norm, &mut samples.inputs);
    let target = (history.relative(value) - norm.level) / norm.scale;
    samples.targets.push((target as f32).clamp(-MOST_TARGET, MOST_TARGET));
}

/// Trains the forecaster and writes its folder.
pub fn train_anomaly(settings: &TrainAnomaly<'_>, progress: &mut dyn FnMut(&Epoch)) -> Result<TrainReport, ModelError> {
    let corpus = settings.data.map_or_else(|| Ok(Corpus::default()), nab_data::read_folder)?;
    let series = corpus.learnt_from();
    let kept: Vec<&Series> =
        series.iter().filter(|series| settings.exclude_category != Some(series.category.as_str())).collect();
    let checkpoint = Checkpoint::new(settings.out, settings.resume);
    let (bytes, mut report) = train_network(&kept, settings.seed, settings.epochs, Some(&checkpoint), progress)?;
    report.set_aside = corpus.set_aside.clone();
    let mut card = catalog::card(forecaster::NAME, None)?;
    card.sha256 = Some(report.sha256.clone());
    card.version = format!("{}-{}", METHOD, &report.sha256[..8]);
    card.training = Some(training(settings, kept.len()));
    card.metrics = vec![Metric {
        name: String::from("pinball loss"),
        value: (f64::from(report.held_back_loss) * 1e4).round() / 1e4,
        on: format!("{} rows of series held back from training, in units of their scale", report.held_back),
        command: command(settings),
    }];
    card::write_folder(settings.out, &card, &bytes)?;
    checkpoint.remove()?;
    Ok(report)
}

fn command(settings: &TrainAnomaly<'_>) -> String {
    let data = if settings.data.is_some() { " --data NAB" } else { "" };
    let exclude = settings.exclude_category.map(|category| format!(" --exclude {category}")).unwrap_or_default();
    format!("nearside train anomaly{data}{exclude} --seed {} --epochs {} --out FOLDER", settings.seed, settings.epochs)
}

fn training(settings: &TrainAnomaly<'_>, series: usize) -> Training {
    let mut data = vec![TrainingData {
        name: format!("{SIMULATED} simulated sensor series of {SIMULATED_ROWS} rows"),
        licence: String::from("Apache-2.0, part of this program"),
    }];
    if series > 0 {
        let name = format!("Numenta Anomaly Benchmark, {series} files; values only, no labels");
        data.push(TrainingData { name, licence: String::from("MIT") });
    }
    Training { command: command(settings), seed: settings.seed, data }
}
