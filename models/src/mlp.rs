//! The network that the small models share: two hidden layers with ReLU and a straight path.
//!
//! ```text
//! x  [n, inputs]
//! h1 = relu(x · W1 + b1)       [n, hidden]
//! h2 = relu(h1 · W2 + b2)      [n, hidden]
//! y  = x · Ws + h2 · W3 + b3   [n, outputs]
//! ```
//! The straight path `x · Ws` is a linear model, so the network begins where the classical method ends.
//!
//! Cost and sameness: on the CPU a pass is four dense layers over slices ([`crate::dense`]), for as many rows as there are; on another
//! device it is the same formula on Candle, always [`BATCH`] rows, short ones filled up with zeros. Either way a row meets the same
//! arithmetic whatever travelled with it (promise I5). Training is on Candle alone.

use candle_core::{Device, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::ModelError;
use crate::dense::Dense;

/// Most rows of one pass.
pub const BATCH: usize = 64;
const TENSORS: usize = 7;

/// The widths of a network, and which model it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The model's name in the catalogue, for errors.
    pub model: &'static str,
    /// Width of a row of inputs.
    pub inputs: usize,
    /// Width of both hidden layers.
    pub hidden: usize,
    /// Width of a row of outputs.
    pub outputs: usize,
}

impl Layout {
    /// Names and shapes of the weights, in the order they are kept, for hidden layers of these widths; biases have one row.
    fn shapes(&self, (first, second): (usize, usize)) -> [(&'static str, Vec<usize>); TENSORS] {
        let Self { inputs, outputs, .. } = *self;
        [
            ("hidden1.weight", vec![inputs, first]),
            ("hidden1.bias", vec![first]),
            ("hidden2.weight", vec![first, second]),
            ("hidden2.bias", vec![second]),
            ("output.weight", vec![second, outputs]),
            ("output.bias", vec![outputs]),
            ("skip.weight", vec![inputs, outputs]),
        ]
    }

    /// The tensors of a safetensors file. A compressed network may have narrower hidden layers than the layout says, never wider.
    fn read(&self, bytes: &[u8]) -> Result<[Tensor; TENSORS], ModelError> {
        let file = safetensors::SafeTensors::deserialize(bytes).map_err(|error| self.damaged(&error.to_string()))?;
        let width = |name: &str| {
            let view = file.tensor(name).map_err(|error| self.damaged(&error.to_string()))?;
            match *view.shape() {
                [width] if (1..=self.hidden).contains(&width) => Ok(width),
                _ => Err(self.damaged(&format!("{name} is not 1 to {} 32-bit floats", self.hidden))),
            }
        };
        let widths = (width("hidden1.bias")?, width("hidden2.bias")?);
        let mut tensors = Vec::with_capacity(TENSORS);
        for (name, shape) in self.shapes(widths) {
            let view = file.tensor(name).map_err(|error| self.damaged(&error.to_string()))?;
            if view.shape() != shape || view.dtype() != safetensors::Dtype::F32 {
                return Err(self.damaged(&format!("{name} is not {shape:?} of 32-bit floats")));
            }
            let values: Vec<f32> =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            if values.iter().any(|value| !value.is_finite()) {
                return Err(self.damaged(&format!("{name} holds a number that is not finite")));
            }
            tensors.push(Tensor::from_vec(values, shape, &Device::Cpu)?);
        }
        self.seven(tensors)
    }

    fn seven(&self, tensors: Vec<Tensor>) -> Result<[Tensor; TENSORS], ModelError> {
        tensors.try_into().map_err(|_| self.damaged("seven tensors expected"))
    }

    fn damaged(&self, why: &str) -> ModelError {
        ModelError::Damaged { model: String::from(self.model), why: why.to_owned() }
    }
}

/// The weights as they are trained.
pub struct Trainable {
    layout: Layout,
    vars: Vec<Var>,
}

impl Trainable {
    /// Fresh weights: uniform in ±√(1/inputs), biases and the straight path 0.
    pub fn new(layout: Layout, rng: &mut ChaCha8Rng) -> Result<Self, ModelError> {
        let mut vars = Vec::with_capacity(TENSORS);
        for (name, shape) in layout.shapes((layout.hidden, layout.hidden)) {
            let count: usize = shape.iter().product();
            let drawn = name.ends_with("weight") && !name.starts_with("skip");
            let most = 1.0 / (shape[0] as f32).sqrt();
            let values: Vec<f32> =
                (0..count).map(|_| if drawn { rng.random_range(-most..most) } else { 0.0 }).collect();
            vars.push(Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?);
        }
        Ok(Self { layout, vars })
    }

    /// The weights of a safetensors file.
    pub fn load(layout: Layout, bytes: &[u8]) -> Result<Self, ModelError> {
        Self::of(layout, layout.read(bytes)?)
    }

    /// These weights, in the order they are kept.
    pub(crate) fn of(layout: Layout, tensors: [Tensor; TENSORS]) -> Result<Self, ModelError> {
        let vars = tensors.iter().map(Var::from_tensor).collect::<Result<_, _>>()?;
        Ok(Self { layout, vars })
    }

    /// The weights, in the order they are kept.
    pub(crate) fn into_tensors(self) -> Result<[Tensor; TENSORS], ModelError> {
        self.layout.seven(self.vars.into_iter().map(Var::into_inner).collect())
    }

    /// The names of the weights, in the order of [`Trainable::vars`].
    pub fn names(&self) -> [&'static str; TENSORS] {
        self.layout.shapes((self.layout.hidden, self.layout.hidden)).map(|(name, _)| name)
    }

    /// The weights, in a fixed order.
    pub fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// `[n, inputs]` to `[n, outputs]`, with a gradient for every weight.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let [w1, b1, w2, b2, w3, b3, skip] = self.vars.as_slice() else {
            return Err(self.layout.damaged("seven tensors expected"));
        };
        let hidden = x.matmul(w1)?.broadcast_add(b1)?.relu()?;
        let hidden = hidden.matmul(w2)?.broadcast_add(b2)?.relu()?;
        Ok(hidden.matmul(w3)?.add(&x.matmul(skip)?)?.broadcast_add(b3)?)
    }

    /// The weights as a safetensors file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        let named = self.names().into_iter().zip(&self.vars);
        let named = named.map(|(name, var)| (name.to_owned(), var.as_tensor().clone()));
        let named: std::collections::BTreeMap<String, Tensor> = named.collect();
        safetensors::serialize(named, None).map_err(|error| self.layout.damaged(&error.to_string()))
    }
}

/// The weights as they are used.
pub struct Network {
    layout: Layout,
    weights: [Tensor; TENSORS],
    engine: Engine,
}

/// What computes.
enum Engine {
    /// This core.
    Core(Layers),
    /// A device of Candle's.
    Device(Graph),
}

impl Network {
    /// Reads a safetensors file; see [`Layout`] for what it must hold. A number that is not finite is an error. It computes on the CPU.
    pub fn load(layout: Layout, bytes: &[u8]) -> Result<Self, ModelError> {
        let weights = layout.read(bytes)?;
        let engine = Engine::Core(Layers::new(&weights)?);
        Ok(Self { layout, weights, engine })
    }

    /// The same network on another device.
    pub fn on_device(&self, device: &Device) -> Result<Self, ModelError> {
        let engine = match device {
            Device::Cpu => Engine::Core(Layers::new(&self.weights)?),
            device => Engine::Device(Graph::new(&self.weights, device)?),
        };
        Ok(Self { layout: self.layout, weights: self.weights.clone(), engine })
    }

    /// `rows` rows of inputs to as many rows of outputs; `outputs` is cleared first.
    pub fn forward(&self, inputs: &[f32], rows: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        let (from, to) = (self.layout.inputs, self.layout.outputs);
        outputs.clear();
        outputs.reserve(rows * to);
        for chunk in inputs.chunks(BATCH * from) {
            match &self.engine {
                Engine::Core(layers) => layers.forward(chunk, from, to, outputs),
                Engine::Device(graph) => graph.forward(chunk, from, to, outputs)?,
            }
        }
        outputs.truncate(rows * to);
        Ok(())
    }
}

/// The network on this core.
struct Layers {
    hidden1: Dense,
    hidden2: Dense,
    output: Dense,
    skip: Dense,
}

impl Layers {
    fn new([w1, b1, w2, b2, w3, b3, skip]: &[Tensor; TENSORS]) -> Result<Self, ModelError> {
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let dense = |weights, bias| Ok::<_, ModelError>(Dense::new(&values(weights)?, &values(bias)?));
        Ok(Self {
            hidden1: dense(w1, b1)?,
            hidden2: dense(w2, b2)?,
            output: dense(w3, b3)?,
            skip: Dense::new(&values(skip)?, &vec![0.0; b3.elem_count()]),
        })
    }

    /// Appends the outputs of at most [`BATCH`] rows.
    fn forward(&self, x: &[f32], from: usize, to: usize, outputs: &mut Vec<f32>) {
        let rows = x.len() / from;
        let widths = [&self.hidden1, &self.hidden2, &self.output].map(Dense::width);
        let mut scratch = vec![0.0; rows * widths.iter().sum::<usize>()];
        let (hidden1, rest) = scratch.split_at_mut(rows * widths[0]);
        let (hidden2, y) = rest.split_at_mut(rows * widths[1]);
        self.hidden1.forward_relu(x, from, hidden1);
        self.hidden2.forward_relu(hidden1, widths[0], hidden2);
        self.output.forward(hidden2, widths[1], y);
        self.skip.add_to(x, from, y);
        y.chunks_exact(widths[2]).for_each(|row| outputs.extend_from_slice(&row[..to]));
    }
}

/// The network on a device of Candle's.
struct Graph {
    device: Device,
    weights: [Tensor; TENSORS],
}

impl Graph {
    fn new([w1, b1, w2, b2, w3, b3, skip]: &[Tensor; TENSORS], device: &Device) -> Result<Self, ModelError> {
        // A bias that already has a row for each of the batch is added without a strided copy.
        let rows = |bias: &Tensor| bias.broadcast_left(BATCH)?.contiguous()?.to_device(device);
        let there = |weights: &Tensor| weights.to_device(device);
        let weights = [there(w1)?, rows(b1)?, there(w2)?, rows(b2)?, there(w3)?, rows(b3)?, there(skip)?];
        Ok(Self { device: device.clone(), weights })
    }

    /// Appends the outputs of at most [`BATCH`] rows.
    fn forward(&self, chunk: &[f32], from: usize, to: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        let [w1, b1, w2, b2, w3, b3, skip] = &self.weights;
        let mut padded = Vec::with_capacity(BATCH * from);
        padded.extend_from_slice(chunk);
        padded.resize(BATCH * from, 0.0);
        let x = Tensor::from_vec(padded, (BATCH, from), &self.device)?;
        let hidden = x.matmul(w1)?.add(b1)?.relu()?;
        let hidden = hidden.matmul(w2)?.add(b2)?.relu()?;
        let y = hidden.matmul(w3)?.add(&x.matmul(skip)?)?.add(b3)?;
        let values = y.flatten_all()?.to_vec1::<f32>()?;
        outputs.extend(values.into_iter().take(chunk.len() / from * to));
        Ok(())
    }
}

/// The mean quantile ("pinball") loss (Koenker & Bassett, 1978) over rows and quantiles: `prediction` is
/// `[n, quantiles]`, `y` is `[n, 1]`.
pub fn pinball(prediction: &Tensor, y: &Tensor, quantiles: &[f32]) -> Result<Tensor, ModelError> {
    let rest: Vec<f32> = quantiles.iter().map(|tau| 1.0 - tau).collect();
    let tau = Tensor::from_slice(quantiles, (1, quantiles.len()), &Device::Cpu)?;
    let rest = Tensor::from_vec(rest, (1, quantiles.len()), &Device::Cpu)?;
    let error = y.broadcast_sub(prediction)?;
    let below = error.relu()?.broadcast_mul(&tau)?;
    let above = error.neg()?.relu()?.broadcast_mul(&rest)?;
    Ok(below.add(&above)?.mean_all()?)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use rand::SeedableRng;

    use super::*;

    const LAYOUT: Layout = Layout { model: "m", inputs: 20, hidden: 32, outputs: 3 };

    fn trainable() -> Trainable {
        Trainable::new(LAYOUT, &mut ChaCha8Rng::seed_from_u64(7)).unwrap()
    }

    fn inputs(rows: usize) -> Vec<f32> {
        (0..rows * LAYOUT.inputs).map(|index| ((index * 7_919) as f32 * 0.37).sin() * 3.0).collect()
    }

    #[test]
    fn every_weight_gets_a_gradient() {
        let network = trainable();
        let x = Tensor::from_vec(inputs(32), (32, LAYOUT.inputs), &Device::Cpu).unwrap();
        let y = Tensor::ones((32, 1), DType::F32, &Device::Cpu).unwrap();
        let loss = pinball(&network.forward(&x).unwrap(), &y, &[0.1, 0.5, 0.9]).unwrap();
        let gradients = loss.backward().unwrap();
        for (var, name) in network.vars().iter().zip(network.names()) {
            let gradient = gradients.get(var).unwrap().abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(gradient > 0.0, "{name}");
        }
    }

    #[test]
    fn what_is_used_is_what_was_trained() {
        let trained = trainable();
        let used = Network::load(LAYOUT, &trained.to_bytes().unwrap()).unwrap();
        let x = Tensor::from_vec(inputs(10), (10, LAYOUT.inputs), &Device::Cpu).unwrap();
        let expected = trained.forward(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut outputs = Vec::new();
        used.forward(&inputs(10), 10, &mut outputs).unwrap();
        assert_eq!(outputs.len(), expected.len());
        assert!(outputs.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn a_row_is_the_same_in_every_batch() {
        let network = Network::load(LAYOUT, &trainable().to_bytes().unwrap()).unwrap();
        let all = inputs(130);
        let alone: Vec<f32> = all
            .chunks(LAYOUT.inputs)
            .flat_map(|row| {
                let mut outputs = Vec::new();
                network.forward(row, 1, &mut outputs).unwrap();
                outputs
            })
            .collect();
        for rows in 1..=130 {
            let mut outputs = Vec::new();
            network.forward(&all[..rows * LAYOUT.inputs], rows, &mut outputs).unwrap();
            let same = outputs.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same && outputs.len() == rows * LAYOUT.outputs, "{rows} rows");
        }
    }

    #[test]
    fn the_loss_is_that_of_the_quantile() {
        let tensor = |values: &[f32]| Tensor::from_slice(values, (values.len(), 1), &Device::Cpu).unwrap();
        let loss = |y: f32| pinball(&tensor(&[0.0]), &tensor(&[y]), &[0.9]).unwrap().to_scalar::<f32>().unwrap();
        assert!((loss(2.0) - 1.8).abs() < 1e-6 && (loss(-2.0) - 0.2).abs() < 1e-6);
    }

    /// The formula on a device of Candle's, here its own CPU.
    #[test]
    fn a_device_gives_what_this_core_gives() {
        let network = Network::load(LAYOUT, &trainable().to_bytes().unwrap()).unwrap();
        let graph = Engine::Device(Graph::new(&network.weights, &Device::Cpu).unwrap());
        let other = Network { layout: LAYOUT, weights: network.weights.clone(), engine: graph };
        let (mut here, mut there) = (Vec::new(), Vec::new());
        network.forward(&inputs(130), 130, &mut here).unwrap();
        other.forward(&inputs(130), 130, &mut there).unwrap();
        assert_eq!(here.len(), there.len());
        assert!(here.iter().zip(&there).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn damaged_weights_are_refused() {
        let bytes = trainable().to_bytes().unwrap();
        assert!(Network::load(LAYOUT, &bytes[..bytes.len() - 1]).is_err());
        assert!(Network::load(LAYOUT, &[]).is_err());
        assert!(Network::load(Layout { outputs: 4, ..LAYOUT }, &bytes).is_err());
        let mut not_finite = bytes.clone();
        let at = not_finite.len() - 4;
        not_finite[at..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(Network::load(LAYOUT, &not_finite).is_err());
    }
}
