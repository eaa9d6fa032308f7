//! Trains the networks for activity and sleep on recordings of simulated people. One of [`HELD_BACK`] people is held back to choose the
//! pass.

use std::path::Path;

use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::checkpoint::Checkpoint;
use super::fit::{AT_ONCE, Epoch, Fit, PATIENCE, TrainReport};
use super::samples::Samples;
use crate::ModelError;
use crate::card::{self, Metric, Training, TrainingData};
use crate::catalog;
use crate::diagnosis::motion::activity::{self, CLASSES};
use crate::diagnosis::motion::epoch::FEATURES;
use crate::diagnosis::motion::sleep;
use crate::eval::motion::Motion;

/// Every this many-th person is held back.
const HELD_BACK: usize = 6;
/// Epochs in which less than this share is one activity are not learnt from.
const LEAST_SHARE: f64 = 0.8;
/// The version of both methods; the weights' digest follows it.
const METHOD: &str = "1";

/// What a training on recordings of people is told besides.
#[derive(Clone, Copy, Debug)]
pub struct TrainMotion<'a> {
    /// The folder that card and weights are written to.
    pub out: &'a Path,
    /// Seed of everything random.
    pub seed: u64,
    /// Most passes.
    pub epochs: usize,
    /// Go on from where an earlier training into the same folder was stopped.
    pub resume: bool,
    /// The command that trains it again.
    pub command: &'a str,
    /// What the recordings are, for the card.
    pub data: &'a str,
}

/// Trains the network for activity on a recording a person, and writes its folder.
pub fn train_activity(
    settings: &TrainMotion<'_>,
    people: impl Iterator<Item = Motion>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<TrainReport, ModelError> {
    let fit = fit(activity::LAYOUT, cross_entropy, settings.epochs);
    let rows = people.map(|motion| {
        let learnt = motion.epochs().into_iter().filter(|one| one.share >= LEAST_SHARE);
        learnt.map(|one| (one.epoch.features.to_vec(), one.activity as usize as f32)).collect()
    });
    train(&fit, settings, FEATURES, rows, "cross entropy, nats", progress)
}

/// Trains the network for sleep on a night a person, and writes its folder.
pub fn train_sleep(
    settings: &TrainMotion<'_>,
    people: impl Iterator<Item = Motion>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<TrainReport, ModelError> {
    let fit = fit(sleep::LAYOUT, binary_cross_entropy, settings.epochs);
    let rows = people.map(|motion| {
        let minutes = motion.minutes().into_iter();
        minutes.map(|one| (one.scored.inputs.to_vec(), f32::from(u8::from(one.is_asleep)))).collect()
    });
    train(&fit, settings, sleep::INPUTS, rows, "binary cross entropy, nats", progress)
}

fn fit(layout: crate::mlp::Layout, loss: super::fit::Loss, epochs: usize) -> Fit {
    Fit { layout, loss, batch: 64, at_once: AT_ONCE, rate: 2e-3, weight_decay: 1e-2, epochs, patience: PATIENCE }
}

/// Mean cross entropy of softmax over the outputs; the target is the class's number. The slow form: candle's fused softmax has no gradient.
fn cross_entropy(logits: &Tensor, classes: &Tensor) -> Result<Tensor, ModelError> {
    let most = logits.max_keepdim(1)?.detach();
    let shifted = logits.broadcast_sub(&most)?;
    let log_sum = shifted.exp()?.sum_keepdim(1)?.log()?;
    let numbers = Tensor::arange(0.0_f32, CLASSES as f32, logits.device())?.reshape((1, CLASSES))?;
    let is_class = classes.broadcast_eq(&numbers)?.to_dtype(logits.dtype())?;
    let of_class = shifted.broadcast_sub(&log_sum)?.mul(&is_class)?.sum_keepdim(1)?;
    Ok(of_class.neg()?.mean_all()?)
}

/// Mean binary cross entropy of a logit: `relu(z) - z·y + ln(1 + e^-|z|)`.
pub(super) fn binary_cross_entropy(logit: &Tensor, y: &Tensor) -> Result<Tensor, ModelError> {
    let soft = logit.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?;
    Ok(logit.relu()?.sub(&logit.mul(y)?)?.add(&soft)?.mean_all()?)
}

fn train(
    fit: &Fit,
    settings: &TrainMotion<'_>,
    width: usize,
    people: impl Iterator<Item = Vec<(Vec<f32>, f32)>>,
    loss: &str,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<TrainReport, ModelError> {
    let (mut samples, mut held_back) = (Samples::new(width, 1), Samples::new(width, 1));
    for (person, rows) in people.enumerate() {
        let into = if (person + 1).is_multiple_of(HELD_BACK) { &mut held_back } else { &mut samples };
        for (inputs, target) in rows {
            into.inputs.extend(inputs);
            into.targets.push(target);
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let checkpoint = Checkpoint::new(settings.out, settings.resume);
    let (bytes, report) = fit.run(&samples, &held_back, &mut rng, Some(&checkpoint), progress)?;
    let mut card = catalog::card(fit.layout.model, None)?;
    card.sha256 = Some(report.sha256.clone());
    card.version = format!("{METHOD}-{}", &report.sha256[..8]);
    card.training = Some(Training {
        command: settings.command.to_owned(),
        seed: settings.seed,
        data: vec![TrainingData {
            name: settings.data.to_owned(),
            licence: String::from("made by this program; Apache-2.0"),
        }],
    });
    card.metrics = vec![Metric {
        name: loss.to_owned(),
        value: (f64::from(report.held_back_loss) * 1e4).round() / 1e4,
        on: format!("{} of {} of simulated people held back", report.held_back, report.held_back + report.samples),
        command: settings.command.to_owned(),
    }];
    card::write_folder(settings.out, &card, &bytes)?;
    checkpoint.remove()?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn losses_by_hand() {
        let logits = Tensor::from_slice(&[1.0_f32, 0.0, 0.0, 0.0, 0.0], (1, 5), &Device::Cpu).unwrap();
        let class = |number: f32| Tensor::from_slice(&[number], (1, 1), &Device::Cpu).unwrap();
        let loss = |number: f32| cross_entropy(&logits, &class(number)).unwrap().to_scalar::<f32>().unwrap();
        // ln(e + 4) = 1.9048.
        assert!((loss(0.0) - 0.9048).abs() < 1e-3 && (loss(3.0) - 1.9048).abs() < 1e-3);
        let binary = |z: f32, y: f32| binary_cross_entropy(&class(z), &class(y)).unwrap().to_scalar::<f32>().unwrap();
        assert!((binary(2.0, 1.0) - 0.126_9).abs() < 1e-3 && (binary(2.0, 0.0) - 2.126_9).abs() < 1e-3);
        assert!((binary(-80.0, 1.0) - 80.0).abs() < 1e-3, "no overflow");
    }

    #[test]
    fn every_weight_gets_a_gradient() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let network = crate::mlp::Trainable::new(activity::LAYOUT, &mut rng).unwrap();
        let rows: Vec<f32> = (0..8 * FEATURES).map(|i| (i as f32 * 0.37).sin()).collect();
        let x = Tensor::from_vec(rows, (8, FEATURES), &Device::Cpu).unwrap();
        let y = Tensor::from_vec((0..8).map(|i| (i % 5) as f32).collect::<Vec<_>>(), (8, 1), &Device::Cpu).unwrap();
        let gradients = cross_entropy(&network.forward(&x).unwrap(), &y).unwrap().backward().unwrap();
        for var in network.vars() {
            let size = gradients.get(var).unwrap().abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(size > 0.0);
        }
    }
}
