//! The training loop that the networks share: AdamW, a learning rate that falls like a cosine, and the pass kept that is best on
//! samples held back.

use candle_core::Tensor;
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::samples::Samples;
use crate::ModelError;
use crate::mlp::{Layout, Network, Trainable};

/// One pass over the samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Epoch {
    /// Which, from 1.
    pub epoch: usize,
    /// Of how many.
    pub epochs: usize,
    /// Mean loss over the samples of the pass.
    pub loss: f32,
    /// Mean loss on the samples held back.
    pub held_back_loss: f32,
}

/// What training gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TrainReport {
    /// Samples trained on.
    pub samples: usize,
    /// Samples held back.
    pub held_back: usize,
    /// Every pass.
    pub epochs: Vec<Epoch>,
    /// The pass whose weights were kept.
    pub best_epoch: usize,
    /// Its loss on the samples held back.
    pub held_back_loss: f32,
    /// SHA-256 of the weights.
    pub sha256: String,
}

/// Mean loss of predictions (first) against targets.
pub(super) type Loss = fn(&Tensor, &Tensor) -> Result<Tensor, ModelError>;

/// How a network is fitted.
#[derive(Clone, Copy)]
pub(super) struct Fit {
    pub(super) layout: Layout,
    pub(super) loss: Loss,
    pub(super) batch: usize,
    /// The highest learning rate.
    pub(super) rate: f64,
    pub(super) weight_decay: f64,
    /// Most passes.
    pub(super) epochs: usize,
    /// Passes without improvement after which it stops.
    pub(super) patience: usize,
}

impl Fit {
    /// Trains a fresh network; gives the weights file's bytes and the passes.
    pub(super) fn run(
        &self,
        samples: &Samples,
        held_back: &Samples,
        rng: &mut ChaCha8Rng,
        progress: &mut dyn FnMut(&Epoch),
    ) -> Result<(Vec<u8>, TrainReport), ModelError> {
        let network = Trainable::new(self.layout, rng)?;
        let params = ParamsAdamW { lr: self.rate, weight_decay: self.weight_decay, ..ParamsAdamW::default() };
        let mut optimizer = AdamW::new(network.vars().to_vec(), params)?;
        let mut best: Option<(f32, usize, Vec<u8>)> = None;
        let mut passes = Vec::with_capacity(self.epochs);
        for epoch in 1..=self.epochs {
            let loss = self.pass(&network, &mut optimizer, samples, epoch, rng)?;
            let held_back_loss = self.mean_loss(&network, held_back)?;
            let pass = Epoch { epoch, epochs: self.epochs, loss, held_back_loss };
            progress(&pass);
            passes.push(pass);
            if best.as_ref().is_none_or(|(least, ..)| held_back_loss < *least) {
                best = Some((held_back_loss, epoch, network.to_bytes()?));
            } else if best.as_ref().is_some_and(|(_, at, _)| epoch >= at + self.patience) {
                break;
            }
        }
        let (held_back_loss, best_epoch, bytes) = match best {
            Some(best) => best,
            None => (0.0, 0, network.to_bytes()?),
        };
        Network::load(self.layout, &bytes)?;
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

    /// One pass over all samples in a random order; gives the mean loss.
    fn pass(
        &self,
        network: &Trainable,
        optimizer: &mut AdamW,
        samples: &Samples,
        epoch: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<f32, ModelError> {
        let batches = samples.len().div_ceil(self.batch);
        let mut sum = 0.0;
        for (number, batch) in samples.shuffled(rng).chunks(self.batch).enumerate() {
            optimizer.set_learning_rate(self.rate((epoch - 1) * batches + number, self.epochs * batches));
            let (x, y) = samples.batch(batch)?;
            let loss = (self.loss)(&network.forward(&x)?, &y)?;
            optimizer.backward_step(&loss)?;
            sum += loss.to_scalar::<f32>()? * batch.len() as f32;
        }
        Ok(sum / samples.len().max(1) as f32)
    }

    /// The learning rate: a short rise, then half a cosine down to 0.
    fn rate(&self, step: usize, steps: usize) -> f64 {
        let done = step as f64 / steps.max(1) as f64;
        let rise = (step as f64 / 100.0).min(1.0);
        self.rate * rise * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }

    fn mean_loss(&self, network: &Trainable, samples: &Samples) -> Result<f32, ModelError> {
        let all: Vec<usize> = (0..samples.len()).collect();
        let mut sum = 0.0;
        for batch in all.chunks(4_096) {
            let (x, y) = samples.batch(batch)?;
            sum += (self.loss)(&network.forward(&x)?, &y)?.to_scalar::<f32>()? * batch.len() as f32;
        }
        Ok(sum / samples.len().max(1) as f32)
    }
}
