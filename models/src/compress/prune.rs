//! Structured pruning: whole hidden units go, so the network is really smaller and faster, not only full of zeros.
//!
//! A unit's weight is the product of the norms of what comes in and what goes out (H. Li et al., "Pruning Filters for Efficient
//! ConvNets", ICLR 2017, for both sides of a unit); the lightest go first, the same share of both layers. Of a bag of n-grams the buckets
//! that say least over many texts lose their rows.

use candle_core::{Device, Tensor};

use crate::ModelError;
use crate::mlp::{Layout, Trainable};
use crate::text::classifier::Classifier;

/// The network with `share` of its hidden units less, 0 to below 1; at least one of each layer stays.
pub fn prune(layout: Layout, weights: &[u8], share: f64) -> Result<Trainable, ModelError> {
    let [w1, b1, w2, b2, w3, b3, skip] = Trainable::load(layout, weights)?.into_tensors()?;
    let first = kept(&norms(&w1, 0)?, &norms(&w2, 1)?, share)?;
    let w1 = w1.index_select(&first, 1)?;
    let (b1, w2) = (b1.index_select(&first, 0)?, w2.index_select(&first, 0)?);
    let second = kept(&norms(&w2, 0)?, &norms(&w3, 1)?, share)?;
    let w2 = w2.index_select(&second, 1)?;
    let (b2, w3) = (b2.index_select(&second, 0)?, w3.index_select(&second, 0)?);
    Trainable::of(layout, [w1, b1, w2, b2, w3, b3, skip])
}

/// The classifier of texts with `share` of the buckets that have a row less, 0 to below 1, as a weights file of 16-bit floats. Nothing
/// learns anew: the buckets that go are those that say least.
pub fn prune_bag(model: &str, weights: &[u8], share: f64) -> Result<Vec<u8>, ModelError> {
    let bag = Classifier::load(model, weights)?;
    let rows = bag.in_use().into_iter().filter(|is_used| *is_used).count();
    let count = ((rows as f64 * (1.0 - share)).round() as usize).max(1);
    bag.to_bytes_of(&bag.most_important(count))
}

/// The norm of each unit's weights: over `axis` of a matrix.
fn norms(matrix: &Tensor, axis: usize) -> Result<Vec<f32>, ModelError> {
    Ok(matrix.sqr()?.sum(axis)?.sqrt()?.to_vec1::<f32>()?)
}

/// The numbers of the heaviest units, ascending.
fn kept(incoming: &[f32], outgoing: &[f32], share: f64) -> Result<Tensor, ModelError> {
    let count = ((incoming.len() as f64 * (1.0 - share)).round() as usize).clamp(1, incoming.len());
    let mut order: Vec<u32> = (0..incoming.len() as u32).collect();
    let weight = |unit: &u32| incoming[*unit as usize] * outgoing[*unit as usize];
    order.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then(a.cmp(b)));
    order.truncate(count);
    order.sort_unstable();
    Ok(Tensor::new(order, &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::mlp::Network;

    const LAYOUT: Layout = Layout { model: "m", inputs: 6, hidden: 8, outputs: 2 };

    #[test]
    fn units_without_weight_go_first_and_nothing_changes() {
        let whole = Trainable::new(LAYOUT, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        // Every other unit of both layers gives nothing to the next.
        let mask = |rows: usize| {
            let values: Vec<f32> = (0..rows).map(|row| (row % 2) as f32).collect();
            Tensor::new(values, &Device::Cpu).unwrap().reshape((rows, 1)).unwrap()
        };
        for matrix in [2, 4] {
            let var = &whole.vars()[matrix];
            var.set(&var.broadcast_mul(&mask(8)).unwrap()).unwrap();
        }
        let bytes = whole.to_bytes().unwrap();
        let small = prune(LAYOUT, &bytes, 0.5).unwrap().to_bytes().unwrap();
        assert!(small.len() < bytes.len());
        let inputs: Vec<f32> = (0..60).map(|n| (n as f32).sin()).collect();
        let run = |bytes: &[u8]| {
            let mut outputs = Vec::new();
            Network::load(LAYOUT, bytes).unwrap().forward(&inputs, 10, &mut outputs).unwrap();
            outputs
        };
        assert!(run(&bytes).iter().zip(run(&small)).all(|(a, b)| (a - b).abs() < 1e-5));
        assert!(prune(LAYOUT, &bytes, 0.999).is_ok(), "one unit stays");
    }
}
