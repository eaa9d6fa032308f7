//! Trains the multivariate detector on simulated plants, and on a site's own recordings where it has some: cross-entropy of "this field is
//! at fault in this row".

use std::path::Path;

use candle_core::Tensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::checkpoint::Checkpoint;
use super::fit::{AT_ONCE, Epoch, Fit, TrainReport};
use super::plant::simulate_plant;
use super::recorded::{ROWS, Recorded, WARM_UPS};
use super::samples::Samples;
use crate::ModelError;
use crate::anomaly::multivariate::watch::{INPUTS, Watch};
use crate::anomaly::multivariate::{LAYOUT, NAME};
use crate::card::{self, Card, Metric, Training, TrainingData};
use crate::catalog;

/// Numbers of fields of the plants.
const FIELDS: [usize; 6] = [2, 3, 4, 6, 8, 10];
/// Plants of each number of fields to train on, and to hold back.
const PLANTS: usize = 150;
const HELD_BACK: usize = 40;
/// Samples drawn from a row of a plant, on average.
const PER_ROW: f64 = 0.48;
/// The version of the method; the weights' digest follows it.
const METHOD: &str = "2";

/// How the detector is trained.
#[derive(Clone, Copy, Debug)]
pub struct TrainMultivariate<'a> {
    /// A folder of a site's own recordings; `None`: simulated plants alone.
    pub data: Option<&'a Path>,
    /// The folder that `model.safetensors` and `card.toml` are written to.
    pub out: &'a Path,
    /// Seed of the weights, the plants, the faults and the order of samples.
    pub seed: u64,
    /// Most passes over the samples.
    pub epochs: usize,
    /// Whether it goes on from what an earlier training left in `out`.
    pub resume: bool,
}

/// Trains the detector on simulated plants, and on recordings with simulated faults, and writes its folder. What a file says of anomalies is
/// never learnt: rows that it calls anomalous are left out.
pub fn train_multivariate(
    settings: &TrainMultivariate<'_>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<TrainReport, ModelError> {
    let TrainMultivariate { data, out, seed, epochs, resume } = *settings;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // First, so that a folder of nothing is said at once.
    let recorded = data.map(|data| Recorded::read(data, &mut rng)).transpose()?;
    let (mut samples, mut held_back) = both(&mut rng);
    if let Some(recorded) = &recorded {
        recorded.add(PER_ROW, &mut samples, &mut held_back, &mut rng);
    }
    let checkpoint = Checkpoint::new(out, resume);
    let (bytes, mut report) = fit(epochs).run(&samples, &held_back, &mut rng, Some(&checkpoint), progress)?;
    let mut card = catalog::card(NAME, None)?;
    card.sha256 = Some(report.sha256.clone());
    card.version = format!("{METHOD}-{}", &report.sha256[..8]);
    describe(&mut card, settings, recorded.as_ref().map(|recorded| recorded.recordings), &report);
    card::write_folder(out, &card, &bytes)?;
    checkpoint.remove()?;
    report.set_aside = recorded.map(|recorded| recorded.set_aside).unwrap_or_default();
    Ok(report)
}

/// Says on the card what it was trained on.
fn describe(card: &mut Card, settings: &TrainMultivariate<'_>, recordings: Option<usize>, report: &TrainReport) {
    let TrainMultivariate { seed, epochs, .. } = settings;
    let data = if recordings.is_some() { " --data DIR" } else { "" };
    let command = format!("nearside train multivariate{data} --seed {seed} --epochs {epochs} --out FOLDER");
    let plants = TrainingData {
        name: format!("{} simulated plants of 2 to 10 fields with simulated faults", PLANTS * FIELDS.len()),
        licence: String::from("Apache-2.0, part of this program"),
    };
    let own = recordings.map(|recordings| TrainingData {
        name: format!("{recordings} recordings of the site with simulated faults"),
        licence: String::from("the site's own"),
    });
    let of_own = if recordings.is_some() { " and of recordings that were held back" } else { "" };
    card.training =
        Some(Training { command: command.clone(), seed: *seed, data: std::iter::once(plants).chain(own).collect() });
    card.metrics = vec![Metric {
        name: String::from("cross-entropy of a field's fault"),
        value: (f64::from(report.held_back_loss) * 1e4).round() / 1e4,
        on: format!("{} rows of {} other simulated plants{of_own}", report.held_back, HELD_BACK * FIELDS.len()),
        command,
    }];
}

/// How the detector is fitted.
pub(super) fn fit(epochs: usize) -> Fit {
    Fit {
        layout: LAYOUT,
        loss: cross_entropy,
        batch: 512,
        at_once: AT_ONCE,
        rate: 2e-3,
        weight_decay: 1e-4,
        epochs,
        patience: 4,
    }
}

/// Samples to train on and to hold back.
pub(super) fn both(rng: &mut ChaCha8Rng) -> (Samples, Samples) {
    let train = samples(PLANTS, rng);
    (train, samples(HELD_BACK, rng))
}

fn samples(plants: usize, rng: &mut ChaCha8Rng) -> Samples {
    let mut samples = Samples::new(INPUTS, 1);
    let mut inputs = Vec::new();
    for fields in FIELDS {
        for _ in 0..plants {
            let warm_up = WARM_UPS[rng.random_range(0..WARM_UPS.len())];
            let plant = simulate_plant(fields, warm_up as usize + ROWS, warm_up as usize, rng);
            let mut watch = Watch::new(fields, warm_up);
            for (row, faulty) in plant.values.chunks_exact(fields).zip(plant.faulty.chunks_exact(fields)) {
                inputs.clear();
                let judged = watch.observe(row.iter().copied().map(Some), &mut inputs);
                for (field, inputs) in judged.into_iter().zip(inputs.chunks_exact(INPUTS)) {
                    if rng.random::<f64>() < PER_ROW / fields as f64 {
                        samples.inputs.extend_from_slice(inputs);
                        samples.targets.push(if faulty[field] { 1.0 } else { 0.0 });
                    }
                }
            }
        }
    }
    samples
}

/// The mean of `softplus(o) − y·o` for log odds `o` and truth `y` (0 or 1).
fn cross_entropy(odds: &Tensor, truth: &Tensor) -> Result<Tensor, ModelError> {
    let softplus = odds.relu()?.add(&odds.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?)?;
    Ok(softplus.sub(&odds.mul(truth)?)?.mean_all()?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn the_loss_is_cross_entropy_with_its_gradient() {
        for (odds, truth) in [(0.0_f32, 1.0_f32), (2.0, 0.0), (-40.0, 1.0), (40.0, 1.0)] {
            let var = Var::new(&[[odds]], &Device::Cpu).unwrap();
            let truth_tensor = Tensor::new(&[[truth]], &Device::Cpu).unwrap();
            let loss = cross_entropy(var.as_tensor(), &truth_tensor).unwrap();
            let p = 1.0 / (1.0 + f64::from(-odds).exp());
            let expected = if truth > 0.5 { f64::from(-odds).exp().ln_1p() } else { f64::from(odds).exp().ln_1p() };
            assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - expected).abs() < 1e-4, "{odds}");
            let gradients = loss.backward().unwrap();
            let gradient = gradients.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
            if odds != 0.0 {
                assert!((f64::from(gradient) - (p - f64::from(truth))).abs() < 1e-4, "{odds}: {gradient}");
            }
        }
    }
}
