//! AdamW (I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019), with its moments in reach: candle's own keeps
//! them to itself, so a training could not go on where it was stopped.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::ModelError;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The optimiser of some weights.
pub(super) struct AdamW {
    vars: Vec<Moments>,
    steps: usize,
    weight_decay: f64,
}

struct Moments {
    var: Var,
    first: Tensor,
    second: Tensor,
}

impl AdamW {
    /// Has not made a step yet.
    pub(super) fn new(vars: impl IntoIterator<Item = Var>, weight_decay: f64) -> Result<Self, ModelError> {
        let moments = |var: Var| Ok(Moments { first: var.zeros_like()?, second: var.zeros_like()?, var });
        Ok(Self { vars: vars.into_iter().map(moments).collect::<Result<_, ModelError>>()?, steps: 0, weight_decay })
    }

    /// One step down the gradients.
    pub(super) fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<(), ModelError> {
        self.steps += 1;
        let scale = |beta: f64| 1.0 / (1.0 - beta.powi(self.steps as i32));
        let (scale_first, scale_second) = (scale(BETA1), scale(BETA2));
        for Moments { var, first, second } in &mut self.vars {
            let Some(gradient) = gradients.get(var) else { continue };
            *first = ((&*first * BETA1)? + (gradient * (1.0 - BETA1))?)?.detach();
            *second = ((&*second * BETA2)? + (gradient.sqr()? * (1.0 - BETA2))?)?.detach();
            let step = ((&*first * scale_first)? / ((&*second * scale_second)?.sqrt()? + EPSILON)?)?;
            let decayed = (var.as_tensor() * (1.0 - rate * self.weight_decay))?;
            var.set(&(decayed - (step * rate)?)?)?;
        }
        Ok(())
    }

    /// How many weights' tensors it has.
    pub(super) fn len(&self) -> usize {
        self.vars.len()
    }

    /// Steps made.
    pub(super) const fn steps(&self) -> usize {
        self.steps
    }

    /// Weights, first moments and second moments.
    pub(super) fn parts(&self) -> (Vec<Tensor>, Vec<Tensor>, Vec<Tensor>) {
        let of = |part: fn(&Moments) -> &Tensor| self.vars.iter().map(|moments| part(moments).clone()).collect();
        (of(|moments| moments.var.as_tensor()), of(|moments| &moments.first), of(|moments| &moments.second))
    }

    /// Goes on from what [`AdamW::parts`] gave after so many steps.
    pub(super) fn restore(
        &mut self,
        steps: usize,
        weights: &[Tensor],
        first: &[Tensor],
        second: &[Tensor],
    ) -> Result<(), ModelError> {
        for (index, moments) in self.vars.iter_mut().enumerate() {
            moments.var.set(&weights[index])?;
            (moments.first, moments.second) = (first[index].clone(), second[index].clone());
        }
        self.steps = steps;
        Ok(())
    }
}
