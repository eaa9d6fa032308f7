//! Trains the forecaster: AdamW on the pinball loss, with the epoch kept that is best on series held back.

use std::path::Path;

use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use nearside_schemas::Timestamp;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::samples::Samples;
use super::simulate::simulate;
use crate::ModelError;
use crate::anomaly::forecaster::{
    self,
    network::{Network, Trainable},
};
use crate::card::{self, Metric, Training, TrainingData};
use crate::catalog;
use crate::eval::nab_data::{self, Series};

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
    /// A category of the benchmark to leave out, to be evaluated on later.
    pub exclude_category: Option<&'a str>,
}

/// One pass over the samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Epoch {
    /// Which, from 1.
    pub epoch: usize,
    /// Of how many.
    pub epochs: usize,
    /// Mean loss over the samples of the pass.
    pub loss: f32,
    /// Mean loss on the series held back.
    pub held_back_loss: f32,
}

/// What training gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TrainReport {
    /// Samples trained on.
    pub samples: usize,
    /// Samples of the series held back.
    pub held_back: usize,
    /// Every pass.
    pub epochs: Vec<Epoch>,
    /// The pass whose weights were kept.
    pub best_epoch: usize,
    /// Its loss on the series held back.
    pub held_back_loss: f32,
    /// SHA-256 of the weights.
    pub sha256: String,
}

/// Simulated series that are trained on, and rows of each.
const SIMULATED: usize = 120;
const SIMULATED_ROWS: usize = 2_000;
/// Samples drawn from one series.
const SAMPLES: usize = 4_000;
/// Every this many-th series is held back.
const HELD_BACK: usize = 8;
const BATCH: usize = 512;
const RATE: f64 = 2e-3;
/// Passes without improvement after which training stops.
const PATIENCE: usize = 4;
/// The version of the method; the weights' digest follows it.
const METHOD: &str = "1";

/// Trains the network on `series` and simulated ones; gives the weights file's bytes and the passes.
pub fn train_network(
    series: &[&Series],
    seed: u64,
    epochs: usize,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Vec<u8>, TrainReport), ModelError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (samples, held_back) = samples(series, seed, &mut rng);
    let network = Trainable::new(&mut rng)?;
    let params = ParamsAdamW { lr: RATE, weight_decay: 1e-4, ..ParamsAdamW::default() };
    let mut optimizer = AdamW::new(network.vars().to_vec(), params)?;
    let batches = samples.len().div_ceil(BATCH);
    let mut best: Option<(f32, usize, Vec<u8>)> = None;
    let mut passes = Vec::with_capacity(epochs);
    for epoch in 1..=epochs {
        let mut sum = 0.0;
        for (number, batch) in samples.shuffled(&mut rng).chunks(BATCH).enumerate() {
            optimizer.set_learning_rate(rate((epoch - 1) * batches + number, epochs * batches));
            let (x, y) = samples.batch(batch)?;
            let loss = network.loss(&x, &y)?;
            optimizer.backward_step(&loss)?;
            sum += loss.to_scalar::<f32>()? * batch.len() as f32;
        }
        let held_back_loss = mean_loss(&network, &held_back)?;
        let pass = Epoch { epoch, epochs, loss: sum / samples.len().max(1) as f32, held_back_loss };
        progress(&pass);
        passes.push(pass);
        if best.as_ref().is_none_or(|(least, ..)| held_back_loss < *least) {
            best = Some((held_back_loss, epoch, network.to_bytes()?));
        } else if best.as_ref().is_some_and(|(_, at, _)| epoch >= at + PATIENCE) {
            break;
        }
    }
    let (held_back_loss, best_epoch, bytes) = match best {
        Some(best) => best,
        None => (0.0, 0, network.to_bytes()?),
    };
    Network::load(&bytes)?;
    let report = TrainReport {
        samples: samples.len(),
        held_back: held_back.len(),
        epochs: passes,
        best_epoch,
        held_back_loss,
        sha256: crate::card::digest(&bytes),
    };
    Ok((bytes, report))
}

/// The learning rate: a short rise, then half a cosine down to 0.
fn rate(step: usize, steps: usize) -> f64 {
    let done = step as f64 / steps.max(1) as f64;
    let rise = (step as f64 / 100.0).min(1.0);
    RATE * rise * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

fn samples(series: &[&Series], seed: u64, rng: &mut ChaCha8Rng) -> (Samples, Samples) {
    let (mut train, mut held_back) = (Samples::default(), Samples::default());
    let simulated = simulate(SIMULATED, SIMULATED_ROWS, seed ^ 0x5151);
    let real = series.iter().map(|series| (series.times.as_slice(), series.values.as_slice()));
    let simulated = simulated.iter().map(|(times, values)| (times.as_slice(), values.as_slice()));
    for all in [real.collect::<Vec<(&[Timestamp], &[f64])>>(), simulated.collect()] {
        for (number, (times, values)) in all.into_iter().enumerate() {
            let into = if number % HELD_BACK == HELD_BACK - 1 { &mut held_back } else { &mut train };
            into.add(times, values, SAMPLES, rng);
        }
    }
    (train, held_back)
}

fn mean_loss(network: &Trainable, samples: &Samples) -> Result<f32, ModelError> {
    let all: Vec<usize> = (0..samples.len()).collect();
    let mut sum = 0.0;
    for batch in all.chunks(4_096) {
        let (x, y) = samples.batch(batch)?;
        sum += network.loss(&x, &y)?.to_scalar::<f32>()? * batch.len() as f32;
    }
    Ok(sum / samples.len().max(1) as f32)
}

/// Trains the forecaster and writes its folder.
pub fn train_anomaly(settings: &TrainAnomaly<'_>, progress: &mut dyn FnMut(&Epoch)) -> Result<TrainReport, ModelError> {
    let corpus = settings.data.map_or_else(|| Ok(Vec::new()), nab_data::read_folder)?;
    let kept: Vec<&Series> =
        corpus.iter().filter(|series| settings.exclude_category != Some(series.category.as_str())).collect();
    let (bytes, report) = train_network(&kept, settings.seed, settings.epochs, progress)?;
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
