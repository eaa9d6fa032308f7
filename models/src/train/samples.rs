//! Samples: the network's inputs and what it should say, row by row.

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::ModelError;

/// Row-major inputs and targets.
pub(super) struct Samples {
    input_width: usize,
    target_width: usize,
    /// Rows of `input_width`.
    pub(super) inputs: Vec<f32>,
    /// Rows of `target_width`.
    pub(super) targets: Vec<f32>,
}

impl Samples {
    /// None yet, of these widths.
    pub(super) const fn new(input_width: usize, target_width: usize) -> Self {
        Self { input_width, target_width, inputs: Vec::new(), targets: Vec::new() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.targets.len() / self.target_width
    }

    /// The same inputs with other targets, rows of `width`.
    pub(super) fn with_targets(&self, width: usize, targets: Vec<f32>) -> Self {
        Self { input_width: self.input_width, target_width: width, inputs: self.inputs.clone(), targets }
    }

    /// What tells these samples from others.
    pub(super) fn digest(&self) -> String {
        let bytes: Vec<u8> = self.inputs.iter().chain(&self.targets).flat_map(|value| value.to_le_bytes()).collect();
        crate::card::digest(&bytes)
    }

    /// All sample numbers in a random order.
    pub(super) fn shuffled(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(rng);
        order
    }

    /// The samples with these numbers: `[n, input_width]` and `[n, target_width]`.
    pub(super) fn batch(&self, numbers: &[usize]) -> Result<(Tensor, Tensor), ModelError> {
        let gather = |rows: &[f32], width: usize| -> Result<Tensor, ModelError> {
            let values = numbers.iter().flat_map(|number| &rows[number * width..(number + 1) * width]);
            let values: Vec<f32> = values.copied().collect();
            Ok(Tensor::from_vec(values, (numbers.len(), width), &Device::Cpu)?)
        };
        Ok((gather(&self.inputs, self.input_width)?, gather(&self.targets, self.target_width)?))
    }
}
