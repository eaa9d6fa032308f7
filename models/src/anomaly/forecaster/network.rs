//! The forecasting network: five quantiles of a row's value from its inputs.
//!
//! ```text
//! x  [n, INPUTS]           normalised history
//! h1 = relu(x · W1 + b1)   [n, 64]
//! h2 = relu(h1 · W2 + b2)  [n, 64]
//! q  = x · Ws + h2 · W3 + b3   [n, 5]
//! ```
//! Trained with the quantile ("pinball") loss of Koenker & Bassett (1978). The straight path `x · Ws` is a linear
//! autoregression, so the network begins where the classical method ends.
//!
//! Cost and sameness: a forward pass is always [`BATCH`] rows, short ones filled up with zeros, so a row meets the same arithmetic
//! whatever travelled with it (promise I5). Each product stays below the size at which the GEMM library hands work to other
//! threads, so a worker stays on its core.

use candle_core::{DType, Device, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::history::INPUTS;
use crate::ModelError;

/// Rows of one pass.
pub const BATCH: usize = 64;
/// Width of the hidden layers.
pub const HIDDEN: usize = 64;
/// The quantiles that the network gives.
pub const QUANTILES: [f32; OUTPUTS] = [0.02, 0.1, 0.5, 0.9, 0.98];
/// Width of the network's output.
pub const OUTPUTS: usize = 5;

/// Names and shapes of the weights, in the order they are kept.
const SHAPES: [(&str, &[usize]); 7] = [
    ("hidden1.weight", &[INPUTS, HIDDEN]),
    ("hidden1.bias", &[HIDDEN]),
    ("hidden2.weight", &[HIDDEN, HIDDEN]),
    ("hidden2.bias", &[HIDDEN]),
    ("output.weight", &[HIDDEN, OUTPUTS]),
    ("output.bias", &[OUTPUTS]),
    ("skip.weight", &[INPUTS, OUTPUTS]),
];

/// The weights as they are trained.
pub struct Trainable {
    vars: Vec<Var>,
}

impl Trainable {
    /// Fresh weights: uniform in ±√(1/inputs), biases and the straight path 0.
    pub fn new(rng: &mut ChaCha8Rng) -> Result<Self, ModelError> {
        let mut vars = Vec::with_capacity(SHAPES.len());
        for (name, shape) in SHAPES {
            let count: usize = shape.iter().product();
            let drawn = name.ends_with("weight") && !name.starts_with("skip");
            let most = 1.0 / (shape[0] as f32).sqrt();
            let values: Vec<f32> =
                (0..count).map(|_| if drawn { rng.random_range(-most..most) } else { 0.0 }).collect();
            vars.push(Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?);
        }
        Ok(Self { vars })
    }

    /// The weights, in a fixed order.
    pub fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// `[n, INPUTS]` to `[n, OUTPUTS]`, with a gradient for every weight.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let [w1, b1, w2, b2, w3, b3, skip] = self.vars.as_slice() else {
            return Err(weights("seven tensors expected"));
        };
        let hidden = x.matmul(w1)?.broadcast_add(b1)?.relu()?;
        let hidden = hidden.matmul(w2)?.broadcast_add(b2)?.relu()?;
        Ok(hidden.matmul(w3)?.add(&x.matmul(skip)?)?.broadcast_add(b3)?)
    }

    /// The mean pinball loss over rows and quantiles; `y` is `[n, 1]`.
    pub fn loss(&self, x: &Tensor, y: &Tensor) -> Result<Tensor, ModelError> {
        let tau = Tensor::from_slice(&QUANTILES, (1, OUTPUTS), &Device::Cpu)?;
        let rest = Tensor::from_slice(&QUANTILES.map(|tau| 1.0 - tau), (1, OUTPUTS), &Device::Cpu)?;
        let error = y.broadcast_sub(&self.forward(x)?)?;
        let below = error.relu()?.broadcast_mul(&tau)?;
        let above = error.neg()?.relu()?.broadcast_mul(&rest)?;
        Ok(below.add(&above)?.mean_all()?)
    }

    /// The weights as a safetensors file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        let named = SHAPES.iter().zip(&self.vars).map(|((name, _), var)| (name.to_string(), var.as_tensor().clone()));
        let named: std::collections::BTreeMap<String, Tensor> = named.collect();
        safetensors::serialize(named, None).map_err(|error| weights(&error.to_string()))
    }
}

/// The weights as they are used.
pub struct Network {
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    skip: Tensor,
}

impl Network {
    /// Reads a safetensors file.
    pub fn load(bytes: &[u8]) -> Result<Self, ModelError> {
        let file = safetensors::SafeTensors::deserialize(bytes).map_err(|error| weights(&error.to_string()))?;
        let mut tensors = Vec::with_capacity(SHAPES.len());
        for (name, shape) in SHAPES {
            let view = file.tensor(name).map_err(|error| weights(&error.to_string()))?;
            if view.shape() != shape || view.dtype() != safetensors::Dtype::F32 {
                return Err(weights(&format!("{name} is not {shape:?} of 32-bit floats")));
            }
            let values: Vec<f32> =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            if values.iter().any(|value| !value.is_finite()) {
                return Err(weights(&format!("{name} holds a number that is not finite")));
            }
            tensors.push(Tensor::from_vec(values, shape, &Device::Cpu)?);
        }
        let [w1, b1, w2, b2, w3, b3, skip] =
            <[Tensor; 7]>::try_from(tensors).map_err(|_| weights("seven tensors expected"))?;
        // A bias that already has a row for each of the batch is added without a strided copy.
        let rows = |bias: Tensor| bias.broadcast_left(BATCH)?.contiguous();
        Ok(Self { w1, b1: rows(b1)?, w2, b2: rows(b2)?, w3, b3: rows(b3)?, skip })
    }

    /// Rows of [`INPUTS`] to rows of [`OUTPUTS`], each row's quantiles in ascending order.
    pub fn forward(&self, inputs: &[f32], rows: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        outputs.clear();
        outputs.reserve(rows * OUTPUTS);
        for chunk in inputs.chunks(BATCH * INPUTS) {
            let mut padded = Vec::with_capacity(BATCH * INPUTS);
            padded.extend_from_slice(chunk);
            padded.resize(BATCH * INPUTS, 0.0);
            let x = Tensor::from_vec(padded, (BATCH, INPUTS), &Device::Cpu)?;
            let hidden = x.matmul(&self.w1)?.add(&self.b1)?.relu()?;
            let hidden = hidden.matmul(&self.w2)?.add(&self.b2)?.relu()?;
            let quantiles = hidden.matmul(&self.w3)?.add(&x.matmul(&self.skip)?)?.add(&self.b3)?;
            let values = quantiles.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            outputs.extend(values.into_iter().take(chunk.len() / INPUTS * OUTPUTS));
        }
        outputs.truncate(rows * OUTPUTS);
        // Five quantiles are five outputs: nothing keeps them from crossing, so they are put in order.
        outputs.chunks_exact_mut(OUTPUTS).for_each(|row| row.sort_by(f32::total_cmp));
        Ok(())
    }
}

fn weights(why: &str) -> ModelError {
    ModelError::Damaged { model: String::from(super::NAME), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn trainable() -> Trainable {
        Trainable::new(&mut ChaCha8Rng::seed_from_u64(7)).unwrap()
    }

    fn inputs(rows: usize) -> Vec<f32> {
        (0..rows * INPUTS).map(|index| ((index * 7_919) as f32 * 0.37).sin() * 3.0).collect()
    }

    #[test]
    fn every_weight_gets_a_gradient() {
        let network = trainable();
        let x = Tensor::from_vec(inputs(32), (32, INPUTS), &Device::Cpu).unwrap();
        let y = Tensor::ones((32, 1), DType::F32, &Device::Cpu).unwrap();
        let gradients = network.loss(&x, &y).unwrap().backward().unwrap();
        for (var, (name, _)) in network.vars().iter().zip(SHAPES) {
            let gradient = gradients.get(var).unwrap().abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(gradient > 0.0, "{name}");
        }
    }

    #[test]
    fn what_is_used_is_what_was_trained() {
        let trained = trainable();
        let used = Network::load(&trained.to_bytes().unwrap()).unwrap();
        let x = Tensor::from_vec(inputs(10), (10, INPUTS), &Device::Cpu).unwrap();
        let mut expected = trained.forward(&x).unwrap().to_vec2::<f32>().unwrap();
        let mut outputs = Vec::new();
        used.forward(&inputs(10), 10, &mut outputs).unwrap();
        for (row, expected) in outputs.chunks(OUTPUTS).zip(&mut expected) {
            expected.sort_by(f32::total_cmp);
            assert!(row.iter().zip(expected).all(|(a, b)| (*a - *b).abs() < 1e-4));
        }
    }

    #[test]
    fn a_row_is_the_same_in_every_batch() {
        let network = Network::load(&trainable().to_bytes().unwrap()).unwrap();
        let all = inputs(130);
        let alone: Vec<f32> = all
            .chunks(INPUTS)
            .flat_map(|row| {
                let mut outputs = Vec::new();
                network.forward(row, 1, &mut outputs).unwrap();
                outputs
            })
            .collect();
        for rows in 1..=130 {
            let mut outputs = Vec::new();
            network.forward(&all[..rows * INPUTS], rows, &mut outputs).unwrap();
            let same = outputs.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same && outputs.len() == rows * OUTPUTS, "{rows} rows");
        }
    }

    #[test]
    fn products_stay_on_one_thread() {
        let largest = BATCH * HIDDEN * INPUTS.max(HIDDEN);
        assert!(largest < 48 * 48 * 256, "the GEMM library would share {largest} multiplications among threads");
    }

    #[test]
    fn damaged_weights_are_refused() {
        let bytes = trainable().to_bytes().unwrap();
        assert!(Network::load(&bytes[..bytes.len() - 1]).is_err());
        assert!(Network::load(&[]).is_err());
        let mut not_finite = bytes.clone();
        let at = not_finite.len() - 4;
        not_finite[at..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(Network::load(&not_finite).is_err());
    }
}
