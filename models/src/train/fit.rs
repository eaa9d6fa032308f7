//! The training loop that the networks share: AdamW, a learning rate that falls like a cosine, and the pass kept that is best on
//! samples held back.

use candle_core::{Tensor, Var};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::adamw::AdamW;
use super::checkpoint::{Between, Checkpoint};
use super::samples::Samples;
use crate::ModelError;
use crate::eval::SetAside;
use crate::mlp::{Layout, Network, Trainable};

/// Rows of one product where a pass only compares, in a training that has the machine to itself.
pub(super) const AT_ONCE: usize = 4_096;

/// Passes without improvement after which a training of few samples stops. No training that ships had to wait so long for its best pass, so
/// it changes none of them; it ends those that were asked for far more passes.
pub(super) const PATIENCE: usize = 20;

/// One pass over the samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Which, from 1.
    pub epoch: usize,
    /// Of how many.
    pub epochs: usize,
    /// Mean loss over the samples of the pass.
    pub loss: f32,
    /// Mean loss on the samples held back; 0, and left out where it is written, where none were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held_back_loss: f32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(loss: &f32) -> bool {
    *loss == 0.0
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
    /// What of the data was not learnt from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<SetAside>,
}

/// Mean loss of predictions (first) against targets.
pub(super) type Loss = fn(&Tensor, &Tensor) -> Result<Tensor, ModelError>;

/// How a network is fitted.
#[derive(Clone, Copy)]
pub(super) struct Fit {
    pub(super) layout: Layout,
    pub(super) loss: Loss,
    pub(super) batch: usize,
    /// Rows of one product where a pass only compares.
    pub(super) at_once: usize,
    /// The highest learning rate.
    pub(super) rate: f64,
    pub(super) weight_decay: f64,
    /// Most passes.
    pub(super) epochs: usize,
    /// Passes without improvement after which it stops.
    pub(super) patience: usize,
}

/// The fewest samples that anything is learnt from: a typing error in a path should not make a model.
const LEAST_SAMPLES: usize = 20;

/// Whether there is enough to learn from.
pub(super) const fn enough(samples: usize, held_back: usize) -> Result<(), ModelError> {
    if samples < LEAST_SAMPLES || held_back == 0 {
        return Err(ModelError::TooLittle { samples, held_back, least: LEAST_SAMPLES });
    }
    Ok(())
}

impl Fit {
    /// Trains a fresh network; gives the weights file's bytes and the passes.
    pub(super) fn run(
        &self,
        samples: &Samples,
        held_back: &Samples,
        rng: &mut ChaCha8Rng,
        checkpoint: Option<&Checkpoint>,
        progress: &mut dyn FnMut(&Epoch),
    ) -> Result<(Vec<u8>, TrainReport), ModelError> {
        let start = Trainable::new(self.layout, rng)?;
        self.go_on(start, &[], samples, held_back, rng, checkpoint, progress)
    }

    /// Trains from given weights, all but the `frozen` ones (by name).
    #[expect(clippy::too_many_arguments, reason = "what a training is made of; each is one thing")]
    pub(super) fn go_on(
        &self,
        network: Trainable,
        frozen: &[&str],
        samples: &Samples,
        held_back: &Samples,
        rng: &mut ChaCha8Rng,
        checkpoint: Option<&Checkpoint>,
        progress: &mut dyn FnMut(&Epoch),
    ) -> Result<(Vec<u8>, TrainReport), ModelError> {
        enough(samples.len(), held_back.len())?;
        let free = network.names().into_iter().zip(network.vars()).filter(|(name, _)| !frozen.contains(name));
        let free: Vec<Var> = free.map(|(_, var)| var.clone()).collect();
        let mut optimizer = AdamW::new(free.iter().cloned(), self.weight_decay)?;
        let task = self.task(samples, held_back, frozen);
        let kept = checkpoint.map_or(Ok(None), |checkpoint| checkpoint.load(&task, &mut optimizer, rng))?;
        let mut between = kept.unwrap_or(Between { best: None, passes: Vec::with_capacity(self.epochs) });
        between.passes.iter().for_each(&mut *progress);
        while between.passes.len() < self.epochs && !self.is_over(&between) {
            let epoch = between.passes.len() + 1;
            let loss = self.pass(&network, &mut optimizer, samples, epoch, rng)?;
            let held_back_loss = self.mean_loss(&network, held_back)?;
            let pass = Epoch { epoch, epochs: self.epochs, loss, held_back_loss };
            progress(&pass);
            between.passes.push(pass);
            if between.best.as_ref().is_none_or(|(least, ..)| held_back_loss < *least) {
                let copies = free.iter().map(|var| var.copy()).collect::<Result<_, _>>()?;
                between.best = Some((held_back_loss, epoch, copies));
            }
            if let Some(checkpoint) = checkpoint {
                checkpoint.save(&task, &optimizer, rng, &between)?;
            }
        }
        let (held_back_loss, best_epoch) = match &between.best {
            Some((loss, epoch, best)) => {
                free.iter().zip(best).try_for_each(|(var, best)| var.set(best))?;
                (*loss, *epoch)
            }
            None => (0.0, 0),
        };
        let bytes = network.to_bytes()?;
        Network::load(self.layout, &bytes)?;
        let report = TrainReport {
            samples: samples.len(),
            held_back: held_back.len(),
            epochs: between.passes,
            best_epoch,
            held_back_loss,
            sha256: crate::card::digest(&bytes),
            set_aside: Vec::new(),
        };
        Ok((bytes, report))
    }

    /// Whether it has not got better for long enough.
    fn is_over(&self, between: &Between) -> bool {
        between.best.as_ref().is_some_and(|(_, at, _)| between.passes.len() >= at + self.patience)
    }

    /// What tells this training from another.
    fn task(&self, samples: &Samples, held_back: &Samples, frozen: &[&str]) -> String {
        let Self { layout, batch, rate, weight_decay, epochs, patience, .. } = self;
        let settings = format!("{layout:?} {batch} {rate} {weight_decay} {epochs} {patience} {frozen:?}");
        format!("{settings} {} {}", samples.digest(), held_back.digest())
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
            let rate = self.rate((epoch - 1) * batches + number, self.epochs * batches);
            let (x, y) = samples.batch(batch)?;
            let loss = (self.loss)(&network.forward(&x)?, &y)?;
            optimizer.step(&loss.backward()?, rate)?;
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

    /// The mean loss of a network on samples.
    pub(super) fn mean_loss(&self, network: &Trainable, samples: &Samples) -> Result<f32, ModelError> {
        let all: Vec<usize> = (0..samples.len()).collect();
        let mut sum = 0.0;
        for batch in all.chunks(self.at_once) {
            let (x, y) = samples.batch(batch)?;
            sum += (self.loss)(&network.forward(&x)?, &y)?.to_scalar::<f32>()? * batch.len() as f32;
        }
        Ok(sum / samples.len().max(1) as f32)
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::mlp::pinball;

    const LAYOUT: Layout = Layout { model: "m", inputs: 3, hidden: 8, outputs: 1 };

    fn fit(epochs: usize) -> Fit {
        let loss: Loss = |prediction, y| pinball(prediction, y, &[0.5]);
        Fit { layout: LAYOUT, loss, batch: 16, at_once: AT_ONCE, rate: 1e-2, weight_decay: 1e-3, epochs, patience: 3 }
    }

    fn samples(rng: &mut ChaCha8Rng) -> Samples {
        let mut samples = Samples::new(3, 1);
        for _ in 0..200 {
            let row: [f32; 3] = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
            samples.targets.push(row[0] * row[1] + row[2]);
            samples.inputs.extend(row);
        }
        samples
    }

    /// Trains, stopped by a panic after `stop` passes as by a power cut.
    fn train(out: &std::path::Path, resume: bool, stop: Option<usize>) -> Option<TrainReport> {
        let run = || {
            let mut rng = ChaCha8Rng::seed_from_u64(5);
            let (some, others) = (samples(&mut rng), samples(&mut rng));
            let checkpoint = Checkpoint::new(out, resume);
            let mut progress = |epoch: &Epoch| {
                if stop == Some(epoch.epoch) {
                    std::panic::resume_unwind(Box::new("stopped"));
                }
            };
            fit(6).run(&some, &others, &mut rng, Some(&checkpoint), &mut progress).unwrap().1
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).ok()
    }

    #[test]
    fn a_training_that_was_stopped_ends_as_if_it_had_not_been() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let whole = train(folders[0].path(), false, None).unwrap();
        assert_eq!(train(folders[1].path(), false, Some(4)), None);
        let resumed = train(folders[1].path(), true, None).unwrap();
        assert_eq!(whole, resumed);
        assert!(whole.held_back_loss < whole.epochs[0].held_back_loss, "it learns: {whole:?}");

        // Another training's state is refused, and without --resume it is not looked at.
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let (some, others) = (samples(&mut rng), samples(&mut rng));
        let checkpoint = Checkpoint::new(folders[1].path(), true);
        let refused = fit(6).run(&some, &others, &mut rng, Some(&checkpoint), &mut |_| ()).unwrap_err();
        assert!(refused.to_string().contains("--resume"), "{refused}");
        assert_eq!(train(folders[1].path(), false, None).unwrap(), whole);
        checkpoint.remove().unwrap();
        assert_eq!(std::fs::read_dir(folders[1].path()).unwrap().count(), 0);
    }

    #[test]
    fn a_training_that_was_asked_for_many_passes_may_end_earlier() {
        assert_eq!(super::super::glucose::fit(500).patience, PATIENCE);
        let pass = |held_back_loss| Epoch { epoch: 1, epochs: 1, loss: 1.0, held_back_loss };
        let told = |held_back_loss| serde_json::to_value(pass(held_back_loss)).unwrap().get("held_back_loss").is_some();
        assert!(told(0.5) && !told(0.0), "no loss is told of samples that nobody held back");
    }

    #[test]
    fn frozen_weights_stay() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (some, others) = (samples(&mut rng), samples(&mut rng));
        let before = Trainable::new(LAYOUT, &mut rng).unwrap().to_bytes().unwrap();
        let start = Trainable::load(LAYOUT, &before).unwrap();
        let frozen = ["hidden1.weight", "hidden1.bias"];
        let (after, _) = fit(2).go_on(start, &frozen, &some, &others, &mut rng, None, &mut |_| ()).unwrap();
        let tensor = |bytes: &[u8], name: &str| {
            safetensors::SafeTensors::deserialize(bytes).unwrap().tensor(name).unwrap().data().to_vec()
        };
        for name in frozen {
            assert_eq!(tensor(&before, name), tensor(&after, name), "{name}");
        }
        assert_ne!(tensor(&before, "hidden2.weight"), tensor(&after, "hidden2.weight"));
    }
}
