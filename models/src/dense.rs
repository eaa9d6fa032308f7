//! Dense layers on plain slices: `y = relu(x · W + b)`, for networks so small that a tensor library's own work outweighs theirs.
//!
//! ```text
//! x  [rows, stride]      the first `inputs` numbers of each row count
//! y  [rows, width]       width: the layer's outputs, rounded up to whole panels; the rest are 0
//! ```
//! [`PANEL`] outputs are computed side by side and each is summed over the inputs in their order, whatever the number of rows and whatever
//! stands in the others: a row meets the same arithmetic in every batch, without padding (promise I5). Weights are kept as the product
//! reads them: panel by panel, then input by input. Vector instructions are chosen when the program runs (`pulp`); there is no thread but
//! the caller's.

use pulp::{Arch, Simd, WithSimd};

/// Outputs side by side: two registers of AVX2, four of NEON.
const PANEL: usize = 16;
/// Rows that share a load of weights: with two registers a row, as many sums as hide a multiplication's latency.
const ROWS: usize = 4;

/// A layer.
#[derive(Clone, Debug)]
pub struct Dense {
    inputs: usize,
    /// `[panels, inputs, PANEL]`.
    weights: Vec<f32>,
    /// `[width]`.
    bias: Vec<f32>,
}

impl Dense {
    /// A layer of weights `[inputs, outputs]`, row after row, and a bias for each output.
    pub fn new(weights: &[f32], bias: &[f32]) -> Self {
        let outputs = bias.len().max(1);
        let inputs = weights.len() / outputs;
        let panels = outputs.div_ceil(PANEL);
        let mut packed = vec![0.0; panels * inputs * PANEL];
        for (input, row) in weights.chunks_exact(outputs).enumerate() {
            for (panel, values) in row.chunks(PANEL).enumerate() {
                let at = (panel * inputs + input) * PANEL;
                packed[at..at + values.len()].copy_from_slice(values);
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(panels * PANEL, 0.0);
        Self { inputs, weights: packed, bias }
    }

    /// Width of a row of outputs: a whole number of panels.
    pub const fn width(&self) -> usize {
        self.bias.len()
    }

    /// `y = x · W + b` for as many rows as `y` has room for.
    pub fn forward(&self, x: &[f32], stride: usize, y: &mut [f32]) {
        Arch::new().dispatch(Product { layer: self, x, stride, y, begin: Begin::Bias, is_cut: false });
    }

    /// `y = relu(x · W + b)`.
    pub fn forward_relu(&self, x: &[f32], stride: usize, y: &mut [f32]) {
        Arch::new().dispatch(Product { layer: self, x, stride, y, begin: Begin::Bias, is_cut: true });
    }

    /// `y += x · W`, without the bias.
    pub fn add_to(&self, x: &[f32], stride: usize, y: &mut [f32]) {
        Arch::new().dispatch(Product { layer: self, x, stride, y, begin: Begin::Sum, is_cut: false });
    }
}

/// What the sums begin with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// The bias.
    Bias,
    /// What `y` holds.
    Sum,
}

struct Product<'a> {
    layer: &'a Dense,
    x: &'a [f32],
    stride: usize,
    y: &'a mut [f32],
    begin: Begin,
    /// Whether what is below 0 becomes 0.
    is_cut: bool,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match PANEL / S::F32_LANES {
            1 => self.run::<S, 1>(simd),
            2 => self.run::<S, 2>(simd),
            4 => self.run::<S, 4>(simd),
            _ => self.run::<S, PANEL>(simd),
        }
    }
}

impl Product<'_> {
    /// `VECTORS` registers are a panel.
    #[inline(always)]
    fn run<S: Simd, const VECTORS: usize>(mut self, simd: S) {
        let width = self.layer.width();
        let rows = self.y.len() / width;
        let whole = rows - rows % ROWS;
        for panel in 0..width / PANEL {
            for row in (0..whole).step_by(ROWS) {
                self.tile::<S, VECTORS, ROWS>(simd, panel, row);
            }
            for row in whole..rows {
                self.tile::<S, VECTORS, 1>(simd, panel, row);
            }
        }
    }

    /// One panel of `N` rows.
    #[inline(always)]
    fn tile<S: Simd, const VECTORS: usize, const N: usize>(&mut self, simd: S, panel: usize, first: usize) {
        let Dense { inputs, weights, bias } = self.layer;
        let (inputs, width) = (*inputs, bias.len());
        let weights = &weights[panel * inputs * PANEL..(panel + 1) * inputs * PANEL];
        let (weights, _) = S::as_simd_f32s(weights);
        let x: [&[f32]; N] = std::array::from_fn(|row| &self.x[(first + row) * self.stride..][..inputs]);
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; N];
        for (row, sums) in sums.iter_mut().enumerate() {
            let at = (first + row) * width + panel * PANEL;
            let begin = match self.begin {
                Begin::Bias => &bias[panel * PANEL..(panel + 1) * PANEL],
                Begin::Sum => &self.y[at..at + PANEL],
            };
            sums.copy_from_slice(S::as_simd_f32s(begin).0);
        }
        for (input, weights) in weights.chunks_exact(VECTORS).enumerate() {
            for (sums, x) in sums.iter_mut().zip(&x) {
                let value = simd.splat_f32s(x[input]);
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = simd.mul_add_e_f32s(value, *weight, *sum);
                }
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            let at = (first + row) * width + panel * PANEL;
            let y = &mut self.y[at..at + PANEL];
            S::as_mut_simd_f32s(y).0.copy_from_slice(&sums);
            if self.is_cut {
                // What is not a number stays, so that whoever looks at the outputs sees it.
                y.iter_mut().for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|index| (((index + seed) * 7_919) as f32 * 0.37).sin()).collect()
    }

    /// `x · W + b` as the formula says.
    fn expected(x: &[f32], stride: usize, weights: &[f32], bias: &[f32]) -> Vec<f64> {
        let product = |x: &[f32], output: usize| {
            let terms = x.iter().zip(weights.iter().skip(output).step_by(bias.len()));
            f64::from(bias[output]) + terms.map(|(x, weight)| f64::from(*x) * f64::from(*weight)).sum::<f64>()
        };
        let inputs = weights.len() / bias.len();
        x.chunks(stride).flat_map(|x| (0..bias.len()).map(move |output| product(&x[..inputs], output))).collect()
    }

    #[test]
    fn it_is_the_formula_for_every_shape() {
        for (inputs, outputs) in [(1, 1), (3, 5), (42, 64), (20, 17), (33, 40), (64, 16)] {
            for rows in [1, 2, 4, 7, 65] {
                let (stride, weights, bias) = (inputs + 3, numbers(inputs * outputs, 1), numbers(outputs, 2));
                let x = numbers(rows * stride, 3);
                let layer = Dense::new(&weights, &bias);
                let width = layer.width();
                let mut y = vec![7.0; rows * width];
                layer.forward(&x, stride, &mut y);
                let mut cut = vec![7.0; rows * width];
                layer.forward_relu(&x, stride, &mut cut);
                let mut twice = y.clone();
                layer.add_to(&x, stride, &mut twice);
                for (index, expected) in expected(&x, stride, &weights, &bias).into_iter().enumerate() {
                    let (at, bias) = (index / outputs * width + index % outputs, f64::from(bias[index % outputs]));
                    assert!((f64::from(y[at]) - expected).abs() < 1e-4, "{inputs} {outputs} {rows}");
                    assert_eq!(cut[at], y[at].max(0.0));
                    assert!((f64::from(twice[at]) - (2.0 * expected - bias)).abs() < 1e-4);
                }
                assert!(y.chunks(width).all(|row| row[outputs..].iter().all(|rest| *rest == 0.0)));
            }
        }
    }

    /// Promise I5: with other rows beside it, or alone.
    #[test]
    fn a_row_is_the_same_bits_in_every_batch() {
        let layer = Dense::new(&numbers(42 * 20, 1), &numbers(20, 2));
        let x = numbers(11 * 42, 3);
        let mut alone = vec![0.0; 11 * layer.width()];
        x.chunks(42).zip(alone.chunks_mut(layer.width())).for_each(|(x, y)| layer.forward(x, 42, y));
        for rows in 1..=11 {
            let mut together = vec![0.0; rows * layer.width()];
            layer.forward(&x, 42, &mut together);
            assert!(together.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits()), "{rows} rows");
        }
    }
}
