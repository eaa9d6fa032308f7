//! Rows of series as samples: the network's inputs and the value that came, both relative to the history.

use candle_core::{Device, Tensor};
use nearside_schemas::Timestamp;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::ModelError;
use crate::anomaly::forecaster::history::{History, INPUTS};

/// Rows of a series before the first sample.
const SKIPPED: usize = 64;
/// Targets are cut here: beyond it, farther is not more to learn from.
const MOST_TARGET: f32 = 30.0;

/// Samples: row-major inputs and one target each.
#[derive(Default)]
pub(super) struct Samples {
    inputs: Vec<f32>,
    targets: Vec<f32>,
}

impl Samples {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.targets.len()
    }

    /// Adds about `most` rows of a series, drawn evenly.
    pub(super) fn add(&mut self, times: &[Timestamp], values: &[f64], most: usize, rng: &mut ChaCha8Rng) {
        let share = most as f64 / values.len().max(1) as f64;
        let mut history = History::default();
        for (row, (time, value)) in times.iter().zip(values).enumerate() {
            if row >= SKIPPED && rng.random::<f64>() < share {
                let norm = history.norm();
                history.write_inputs(*time, norm, &mut self.inputs);
                let target = (history.relative(*value) - norm.level) / norm.scale;
                self.targets.push((target as f32).clamp(-MOST_TARGET, MOST_TARGET));
            }
            history.learn(*time, *value);
        }
    }

    /// All sample numbers in a random order.
    pub(super) fn shuffled(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(rng);
        order
    }

    /// The samples with these numbers: `[n, INPUTS]` and `[n, 1]`.
    pub(super) fn batch(&self, numbers: &[usize]) -> Result<(Tensor, Tensor), ModelError> {
        let inputs: Vec<f32> =
            numbers.iter().flat_map(|number| &self.inputs[number * INPUTS..(number + 1) * INPUTS]).copied().collect();
        let targets: Vec<f32> = numbers.iter().map(|number| self.targets[*number]).collect();
        let count = numbers.len();
        let inputs = Tensor::from_vec(inputs, (count, INPUTS), &Device::Cpu)?;
        Ok((inputs, Tensor::from_vec(targets, (count, 1), &Device::Cpu)?))
    }
}
