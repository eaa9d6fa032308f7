//! The network that classes beats: an ensemble of small perceptrons in two products.
//!
//! ```text
//! x  [n, INPUTS]                 inputs, less their mean in training, over their deviation there, cut at ±4
//! h  = relu(x · W1 + b1)         [n, MEMBERS × HIDDEN], all members side by side
//! z  = h · W2 + b2               [n, MEMBERS × 4], W2 block-diagonal: members do not mix
//! p  = mean over members of softmax(z)   [n, 4]: N, S, V, F
//! q  = p · prior / sum of p · prior      [n, 4]; prior [4] is chosen in training, on patients held back
//! y  = q, S's share given to N where no beat can be told for supraventricular
//! ```
//! The last line is no statistics of few patients but what the word means: a beat is supraventricular because it comes early, so where
//! intervals are [`MOST_UNEVEN`], as in atrial fibrillation, none is, and where shorter intervals did not begin with a step of
//! [`LEAST_STEP`] a sinus node hurries (ANSI/AAMI EC57 counts both as N).
//!
//! Patients differ more than beats do, and there are few of them: members that start from different weights err on different
//! patients, and their mean errs less (L. Hansen, P. Salamon, "Neural network ensembles", IEEE PAMI 12(10), 1990).
//!
//! Cost and sameness: on the CPU a pass is a dense layer and one for each member over slices ([`crate::dense`]), for as many rows as there
//! are; on another device it is the same formula on Candle, always [`BATCH`] rows, short ones filled up with zeros. Either way a row
//! meets the same arithmetic whatever travelled with it (promise I5). Training is on Candle alone.

use candle_core::{Device, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::beats::{INPUTS, ONSET, UNEVEN};
use super::class::CLASSES;
use crate::ModelError;
use crate::dense::Dense;

/// Most rows of one pass.
pub const BATCH: usize = 64;
/// Networks of the ensemble.
pub const MEMBERS: usize = 8;
/// Width of a member's hidden layer.
pub const HIDDEN: usize = 32;
/// Width of the network's output: a probability for each of [`CLASSES`].
pub const OUTPUTS: usize = CLASSES.len();
/// Standardised inputs are cut here.
pub const MOST_INPUT: f32 = 4.0;

/// The usual difference between intervals, as a logarithm, above which none is early: fibrillation has 0.17 and more.
pub const MOST_UNEVEN: f32 = 0.15;
/// The share by which the first of a supraventricular run, or the one there is, is sooner than the one before.
pub const LEAST_STEP: f32 = 0.1;

/// Names and shapes of the weights, in the order they are kept.
const SHAPES: [(&str, &[usize]); 7] = [
    ("input.mean", &[INPUTS]),
    ("input.deviation", &[INPUTS]),
    ("hidden.weight", &[INPUTS, MEMBERS * HIDDEN]),
    ("hidden.bias", &[MEMBERS * HIDDEN]),
    ("output.weight", &[MEMBERS * HIDDEN, OUTPUTS]),
    ("output.bias", &[MEMBERS * OUTPUTS]),
    ("output.prior", &[OUTPUTS]),
];

/// How inputs are made comparable.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// Mean of each input in training.
    pub mean: Vec<f32>,
    /// Standard deviation of each, above 0.
    pub deviation: Vec<f32>,
}

impl Scaling {
    /// Of rows of [`INPUTS`].
    pub fn of(rows: &[&[f32]]) -> Self {
        let count = rows.len().max(1) as f64;
        let over = |value: &dyn Fn(&[f32]) -> f64| rows.iter().map(|row| value(row)).sum::<f64>() / count;
        let mean: Vec<f32> = (0..INPUTS).map(|input| over(&|row| f64::from(row[input])) as f32).collect();
        let spread = |input: usize| over(&|row| f64::from(row[input] - mean[input]).powi(2)).sqrt() as f32;
        let deviation = (0..INPUTS).map(|input| spread(input) + 1e-3).collect();
        Self { mean, deviation }
    }

    /// Appends a row, standardised.
    pub fn apply(&self, row: &[f32], into: &mut Vec<f32>) {
        let scaled = row.iter().zip(&self.mean).zip(&self.deviation);
        into.extend(
            scaled.map(|((value, mean), deviation)| ((value - mean) / deviation).clamp(-MOST_INPUT, MOST_INPUT)),
        );
    }
}

/// One member as it is trained.
pub struct Member {
    vars: [Var; 4],
}

impl Member {
    /// Fresh weights: uniform in ±√(6/inputs), of the output layer a third of that; biases 0.
    pub fn new(rng: &mut ChaCha8Rng) -> Result<Self, ModelError> {
        let mut drawn = |rows: usize, columns: usize, scale: f32| {
            let most = scale * (6.0 / rows as f32).sqrt();
            let values: Vec<f32> = (0..rows * columns).map(|_| rng.random_range(-most..most)).collect();
            Var::from_tensor(&Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
        };
        let zeros = |count: usize| Var::from_tensor(&Tensor::from_vec(vec![0.0_f32; count], count, &Device::Cpu)?);
        Ok(Self { vars: [drawn(INPUTS, HIDDEN, 1.0)?, zeros(HIDDEN)?, drawn(HIDDEN, OUTPUTS, 0.3)?, zeros(OUTPUTS)?] })
    }

    /// The weights, in a fixed order.
    pub const fn vars(&self) -> &[Var; 4] {
        &self.vars
    }

    /// Standardised rows `[n, INPUTS]` to logits `[n, 4]`; `keep` `[n, HIDDEN]` multiplies the hidden layer (dropout).
    pub fn forward(&self, x: &Tensor, keep: Option<&Tensor>) -> Result<Tensor, ModelError> {
        let [w1, b1, w2, b2] = &self.vars;
        let mut hidden = x.matmul(w1)?.broadcast_add(b1)?.relu()?;
        if let Some(keep) = keep {
            hidden = hidden.mul(keep)?;
        }
        Ok(hidden.matmul(w2)?.broadcast_add(b2)?)
    }

    /// Standardised rows to a row of probabilities each.
    pub fn probabilities(&self, x: &Tensor) -> Result<Vec<[f32; OUTPUTS]>, ModelError> {
        let logits = self.forward(x, None)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(logits.chunks_exact(OUTPUTS).map(softmax).collect())
    }

    /// The weighted mean cross-entropy; `targets` is `[n, 4]` and holds a row's weight where its class is.
    pub fn loss(&self, x: &Tensor, targets: &Tensor, keep: Option<&Tensor>) -> Result<Tensor, ModelError> {
        let logits = self.forward(x, keep)?;
        // The slow form: candle's fused softmax has no gradient.
        let most = logits.detach().max_keepdim(1)?;
        let shifted = logits.broadcast_sub(&most)?;
        let log_sum = shifted.exp()?.sum_keepdim(1)?.log()?;
        let log_probability = shifted.broadcast_sub(&log_sum)?;
        let rows = x.dim(0)?.max(1) as f64;
        Ok((targets.mul(&log_probability)?.sum_all()? / -rows)?)
    }
}

/// An ensemble as a safetensors file.
pub fn to_bytes(scaling: &Scaling, members: &[Member], prior: &[f32; OUTPUTS]) -> Result<Vec<u8>, ModelError> {
    if members.len() != MEMBERS {
        return Err(weights(&format!("{} members, not {MEMBERS}", members.len())));
    }
    let part = |index: usize| members.iter().map(|member| member.vars[index].as_tensor()).collect::<Vec<_>>();
    let vector = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
    let tensors = [
        vector(&scaling.mean)?,
        vector(&scaling.deviation)?,
        Tensor::cat(&part(0), 1)?,
        Tensor::cat(&part(1), 0)?,
        Tensor::cat(&part(2), 0)?,
        Tensor::cat(&part(3), 0)?,
        vector(prior)?,
    ];
    let named: std::collections::BTreeMap<String, Tensor> =
        SHAPES.iter().map(|(name, _)| (*name).to_owned()).zip(tensors).collect();
    safetensors::serialize(named, None).map_err(|error| weights(&error.to_string()))
}

/// The ensemble as it is used.
pub struct Network {
    scaling: Scaling,
    weights: Weights,
    engine: Engine,
    prior: Vec<f32>,
}

impl Network {
    /// Reads a safetensors file.
    pub fn load(bytes: &[u8]) -> Result<Self, ModelError> {
        let file = safetensors::SafeTensors::deserialize(bytes).map_err(|error| weights(&error.to_string()))?;
        let mut parts = Vec::with_capacity(SHAPES.len());
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
            parts.push(values);
        }
        let [mean, deviation, w1, b1, w2, b2, prior] =
            <[Vec<f32>; 7]>::try_from(parts).map_err(|_| weights("seven tensors expected"))?;
        if prior.iter().any(|prior| *prior <= 0.0) {
            return Err(weights("a prior is not above 0"));
        }
        if deviation.iter().any(|deviation| *deviation <= 0.0) {
            return Err(weights("a deviation is not above 0"));
        }
        let weights = Weights { w1, b1, w2, b2 };
        let engine = Engine::Core(Layers::new(&weights));
        Ok(Self { scaling: Scaling { mean, deviation }, weights, engine, prior })
    }

    /// The same network on another device.
    pub fn on_device(&self, device: &Device) -> Result<Self, ModelError> {
        let weights = self.weights.clone();
        let engine = match device {
            Device::Cpu => Engine::Core(Layers::new(&weights)),
            device => Engine::Device(Graph::new(&weights, device)?),
        };
        Ok(Self { scaling: self.scaling.clone(), weights, engine, prior: self.prior.clone() })
    }

    /// Rows of [`INPUTS`] to rows of [`OUTPUTS`] shares that sum to 1: probabilities weighed by the prior.
    pub fn forward(&self, inputs: &[f32], rows: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        outputs.clear();
        outputs.reserve(rows * OUTPUTS);
        let mut x = Vec::with_capacity(rows.min(BATCH) * INPUTS);
        for chunk in inputs.chunks(BATCH * INPUTS) {
            x.clear();
            chunk.chunks_exact(INPUTS).for_each(|row| self.scaling.apply(row, &mut x));
            let logits = match &self.engine {
                Engine::Core(layers) => layers.forward(&x),
                Engine::Device(graph) => graph.forward(&x)?,
            };
            for (logits, row) in logits.chunks_exact(MEMBERS * OUTPUTS).zip(chunk.chunks_exact(INPUTS)) {
                outputs.extend(shares(&mean_softmax(logits), &self.prior, can_be_early(row)));
            }
        }
        outputs.truncate(rows * OUTPUTS);
        Ok(())
    }
}

/// The weights as the file holds them.
#[derive(Clone)]
struct Weights {
    w1: Vec<f32>,
    b1: Vec<f32>,
    w2: Vec<f32>,
    b2: Vec<f32>,
}

/// What computes.
enum Engine {
    /// This core.
    Core(Layers),
    /// A device of Candle's.
    Device(Graph),
}

/// The network on this core. Members are layers of their own: what is 0 between them is not multiplied.
struct Layers {
    hidden: Dense,
    members: Vec<Dense>,
}

impl Layers {
    fn new(Weights { w1, b1, w2, b2 }: &Weights) -> Self {
        let members = w2.chunks_exact(HIDDEN * OUTPUTS).zip(b2.chunks_exact(OUTPUTS));
        Self { hidden: Dense::new(w1, b1), members: members.map(|(w, b)| Dense::new(w, b)).collect() }
    }

    /// Standardised rows to rows of `MEMBERS × OUTPUTS` logits.
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / INPUTS;
        let mut hidden = vec![0.0; rows * self.hidden.width()];
        self.hidden.forward_relu(x, INPUTS, &mut hidden);
        let mut logits = vec![0.0; rows * MEMBERS * OUTPUTS];
        let mut y = Vec::new();
        for (member, layer) in self.members.iter().enumerate() {
            y.resize(rows * layer.width(), 0.0);
            layer.forward(&hidden[member * HIDDEN..], self.hidden.width(), &mut y);
            let into = logits.chunks_exact_mut(MEMBERS * OUTPUTS).zip(y.chunks_exact(layer.width()));
            into.for_each(|(row, y)| row[member * OUTPUTS..][..OUTPUTS].copy_from_slice(&y[..OUTPUTS]));
        }
        logits
    }
}

/// The network on a device of Candle's.
struct Graph {
    device: Device,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
}

impl Graph {
    fn new(Weights { w1, b1, w2, b2 }: &Weights, device: &Device) -> Result<Self, ModelError> {
        // A bias that already has a row for each of the batch is added without a strided copy.
        let rows = |bias: &[f32]| Tensor::from_vec(bias.repeat(BATCH), (BATCH, bias.len()), device);
        Ok(Self {
            device: device.clone(),
            w1: Tensor::from_slice(w1, (INPUTS, MEMBERS * HIDDEN), device)?,
            b1: rows(b1)?,
            w2: Tensor::from_vec(block_diagonal(w2), (MEMBERS * HIDDEN, MEMBERS * OUTPUTS), device)?,
            b2: rows(b2)?,
        })
    }

    /// At most [`BATCH`] standardised rows to rows of `MEMBERS × OUTPUTS` logits.
    fn forward(&self, x: &[f32]) -> Result<Vec<f32>, ModelError> {
        let mut padded = Vec::with_capacity(BATCH * INPUTS);
        padded.extend_from_slice(x);
        padded.resize(BATCH * INPUTS, 0.0);
        let padded = Tensor::from_vec(padded, (BATCH, INPUTS), &self.device)?;
        let hidden = padded.matmul(&self.w1)?.add(&self.b1)?.relu()?;
        let mut logits = hidden.matmul(&self.w2)?.add(&self.b2)?.flatten_all()?.to_vec1::<f32>()?;
        logits.truncate(x.len() / INPUTS * MEMBERS * OUTPUTS);
        Ok(logits)
    }
}

/// `[MEMBERS × HIDDEN, OUTPUTS]` to `[MEMBERS × HIDDEN, MEMBERS × OUTPUTS]`, each member's rows in its own columns.
fn block_diagonal(stacked: &[f32]) -> Vec<f32> {
    let mut wide = vec![0.0; MEMBERS * HIDDEN * MEMBERS * OUTPUTS];
    for (row, values) in stacked.chunks_exact(OUTPUTS).enumerate() {
        let at = row * MEMBERS * OUTPUTS + row / HIDDEN * OUTPUTS;
        wide[at..at + OUTPUTS].copy_from_slice(values);
    }
    wide
}

/// The mean over members of their probabilities.
fn mean_softmax(logits: &[f32]) -> [f32; OUTPUTS] {
    let mut mean = [0.0; OUTPUTS];
    for member in logits.chunks_exact(OUTPUTS) {
        mean.iter_mut().zip(softmax(member)).for_each(|(mean, share)| *mean += share / MEMBERS as f32);
    }
    mean
}

/// Of one row of logits.
fn softmax(logits: &[f32]) -> [f32; OUTPUTS] {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let powers: [f32; OUTPUTS] = std::array::from_fn(|class| (logits[class] - most).exp());
    let sum: f32 = powers.iter().sum();
    powers.map(|power| power / sum)
}

/// Whether a beat with these inputs, as they are before they are made comparable, can be told for supraventricular.
pub fn can_be_early(inputs: &[f32]) -> bool {
    inputs[UNEVEN] <= 5.0 * MOST_UNEVEN && inputs[ONSET] <= (1.0 - LEAST_STEP).ln()
}

/// Probabilities times a prior, over their sum; what a supraventricular beat has where it cannot be one is a normal one's.
pub fn shares(probabilities: &[f32; OUTPUTS], prior: &[f32], can_be_early: bool) -> [f32; OUTPUTS] {
    let products: [f32; OUTPUTS] = std::array::from_fn(|class| probabilities[class] * prior[class]);
    let sum = products.iter().sum::<f32>().max(f32::MIN_POSITIVE);
    let [normal, early, ventricular, fusion] = products.map(|product| product / sum);
    if can_be_early { [normal, early, ventricular, fusion] } else { [normal + early, 0.0, ventricular, fusion] }
}

fn weights(why: &str) -> ModelError {
    ModelError::Damaged { model: String::from(super::NAME), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use rand::SeedableRng;

    use super::*;

    const PRIOR: [f32; OUTPUTS] = [1.0, 0.5, 0.7, 1.0];

    fn members() -> Vec<Member> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        (0..MEMBERS).map(|_| Member::new(&mut rng).unwrap()).collect()
    }

    fn inputs(rows: usize) -> Vec<f32> {
        (0..rows * INPUTS).map(|index| ((index * 7_919) as f32 * 0.37).sin() * 2.0).collect()
    }

    fn bytes() -> Vec<u8> {
        to_bytes(&Scaling { mean: vec![0.0; INPUTS], deviation: vec![1.0; INPUTS] }, &members(), &PRIOR).unwrap()
    }

    #[test]
    fn every_weight_gets_a_gradient() {
        let x = Tensor::from_vec(inputs(32), (32, INPUTS), &Device::Cpu).unwrap();
        let targets = Tensor::eye(OUTPUTS, DType::F32, &Device::Cpu).unwrap().repeat((8, 1)).unwrap();
        let member = &members()[0];
        let gradients = member.loss(&x, &targets, None).unwrap().backward().unwrap();
        for var in member.vars() {
            let gradient = gradients.get(var).unwrap().abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(gradient > 0.0);
        }
    }

    #[test]
    fn what_is_used_is_the_mean_of_what_was_trained() {
        let used = Network::load(&bytes()).unwrap();
        let mut outputs = Vec::new();
        used.forward(&inputs(10), 10, &mut outputs).unwrap();
        let x = Tensor::from_vec(inputs(10), (10, INPUTS), &Device::Cpu).unwrap();
        let mut means = [[0.0; OUTPUTS]; 10];
        for member in members() {
            for (row, mean) in member.probabilities(&x).unwrap().iter().zip(&mut means) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                mean.iter_mut().zip(row).for_each(|(mean, share)| *mean += share / MEMBERS as f32);
            }
        }
        let expected = means.iter().zip(inputs(10).chunks(INPUTS).map(can_be_early).collect::<Vec<_>>());
        let expected: Vec<f32> = expected.flat_map(|(mean, can)| shares(mean, &PRIOR, can)).collect();
        assert!(outputs.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{outputs:?} {expected:?}");
    }

    /// The formula on a device of Candle's, here its own CPU.
    #[test]
    fn a_device_gives_what_this_core_gives() {
        let network = Network::load(&bytes()).unwrap();
        let engine = Engine::Device(Graph::new(&network.weights, &Device::Cpu).unwrap());
        let other = Network { engine, ..network.on_device(&Device::Cpu).unwrap() };
        let (mut here, mut there) = (Vec::new(), Vec::new());
        network.forward(&inputs(70), 70, &mut here).unwrap();
        other.forward(&inputs(70), 70, &mut there).unwrap();
        assert_eq!(here.len(), there.len());
        assert!(here.iter().zip(&there).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn no_beat_is_early_in_fibrillation_or_where_the_sinus_node_hurries() {
        let row = |uneven: f32, onset: f32| {
            let mut row = [0.0; INPUTS];
            (row[UNEVEN], row[ONSET]) = (5.0 * uneven, onset);
            row
        };
        let can = [(0.05, -0.4), (0.05, -0.05), (0.25, -0.4)].map(|(uneven, onset)| can_be_early(&row(uneven, onset)));
        assert_eq!(can, [true, false, false]);
        let p = [0.1, 0.7, 0.2, 0.0];
        assert_eq!(shares(&p, &[1.0; OUTPUTS], true), p);
        let others = shares(&p, &[1.0; OUTPUTS], false);
        assert!((others[0] - 0.8).abs() < 1e-6 && others[1] == 0.0 && (others[2] - 0.2).abs() < 1e-6);
    }

    #[test]
    fn a_row_is_the_same_in_every_batch() {
        let network = Network::load(&bytes()).unwrap();
        let all = inputs(70);
        let mut together = Vec::new();
        network.forward(&all, 70, &mut together).unwrap();
        for (row, expected) in all.chunks(INPUTS).zip(together.chunks(OUTPUTS)) {
            let mut alone = Vec::new();
            network.forward(row, 1, &mut alone).unwrap();
            assert!(alone.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn damaged_weights_are_refused() {
        let bytes = bytes();
        assert!(Network::load(&bytes[..bytes.len() - 1]).is_err());
        assert!(Network::load(&[]).is_err());
        let mut not_finite = bytes.clone();
        let at = not_finite.len() - 4;
        not_finite[at..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(Network::load(&not_finite).is_err());
    }
}
