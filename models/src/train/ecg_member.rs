//! Trains one member of the ensemble that classes beats, pass by pass.
//!
//! Promise: a member restored between two passes goes on as if it had not been stopped, bit for bit.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::Epoch;
use super::adamw::AdamW;
use super::checkpoint::{Kept, numbered};
use crate::ModelError;
use crate::diagnosis::ecg::beats::INPUTS;
use crate::diagnosis::ecg::network::{HIDDEN, Member, OUTPUTS, Scaling};

const BATCH: usize = 256;
const RATE: f64 = 2e-3;
const WEIGHT_DECAY: f64 = 0.02;
/// Share of the hidden units that a step leaves out.
const DROPOUT: f32 = 0.2;
/// Deviation of the noise on standardised inputs.
const NOISE: f32 = 0.5;
/// One normal beat in so many is a sample of a member.
const NORMAL_SHARE: usize = 4;
/// The power of its share in a class that a patient weighs by.
const PATIENT_POWER: f32 = 0.7;
/// A sample weighs at most so many times the mean.
const MOST_WEIGHT: f32 = 20.0;
/// Passes without improvement after which a member is done.
const PATIENCE: usize = 4;

/// Where a sample comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Recorded,
    Early,
    Fibrillating,
}

/// A beat in one lead.
#[derive(Clone, Copy)]
pub(super) struct Sample<'a> {
    pub(super) inputs: &'a [f32],
    pub(super) class: usize,
    pub(super) patient: usize,
    pub(super) origin: Origin,
}

impl Sample<'_> {
    /// Whether it is one of the many normal ones, of which a member gets some.
    fn is_common(&self) -> bool {
        self.class == 0 && self.origin == Origin::Recorded
    }
}

/// Near enough to a standard normal number: see [`Noise::normal`].
pub(super) fn normal(rng: &mut ChaCha8Rng) -> f32 {
    Noise(rng.random()).normal()
}

/// Numbers for noise, of which training needs very many: SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to 1.
    fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// The sum of four uniform numbers, with mean 0 and deviation 1.
    fn normal(&mut self) -> f32 {
        let bits = self.bits();
        let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
        0.75_f32.sqrt() * (sum as f32 / 32_768.0 - 4.0)
    }
}

/// What a member learns from, and how long.
pub(super) struct Lessons<'a> {
    kept: Vec<Sample<'a>>,
    held_back: Vec<Sample<'a>>,
    scaling: &'a Scaling,
    epochs: usize,
}

impl<'a> Lessons<'a> {
    pub(super) const fn new(
        kept: Vec<Sample<'a>>,
        held_back: Vec<Sample<'a>>,
        scaling: &'a Scaling,
        epochs: usize,
    ) -> Self {
        Self { kept, held_back, scaling, epochs }
    }
}

/// A member between two passes.
pub(super) struct InTraining {
    member: Member,
    optimizer: AdamW,
    /// The samples kept that it learns from, by number, in the order of the last pass.
    drawn: Vec<u32>,
    passes: usize,
    best: Option<(Epoch, Vec<Tensor>)>,
}

/// What is written of it beside its tensors.
#[derive(Serialize, Deserialize)]
pub(super) struct Standing {
    passes: usize,
    steps: usize,
    best_pass: Option<Epoch>,
}

/// The names that its tensors are kept under.
const GROUPS: [&str; 4] = ["now", "first", "second", "best"];
const DRAWN: &str = "drawn";

impl InTraining {
    fn of(member: Member) -> Result<Self, ModelError> {
        let optimizer = AdamW::new(member.vars().iter().cloned(), WEIGHT_DECAY)?;
        Ok(Self { member, optimizer, drawn: Vec::new(), passes: 0, best: None })
    }

    /// One that has learnt nothing.
    pub(super) fn new(lessons: &Lessons<'_>, rng: &mut ChaCha8Rng) -> Result<Self, ModelError> {
        let mut fresh = Self::of(Member::new(rng)?)?;
        let numbered = (0_u32..).zip(&lessons.kept);
        let drawn = numbered.filter(|(_, sample)| !sample.is_common() || rng.random_range(0..NORMAL_SHARE) == 0);
        fresh.drawn = drawn.map(|(number, _)| number).collect();
        Ok(fresh)
    }

    /// One that was kept; `None` where what is kept is damaged.
    pub(super) fn restore(standing: &Standing, kept: &Kept) -> Result<Option<Self>, ModelError> {
        let mut training = Self::of(Member::new(&mut ChaCha8Rng::seed_from_u64(0))?)?;
        let [Some(now), Some(first), Some(second), best] =
            GROUPS.map(|group| kept.group(group, training.optimizer.len()))
        else {
            return Ok(None);
        };
        if training.optimizer.restore(standing.steps, &now, &first, &second).is_err() {
            return Ok(None);
        }
        let Some(drawn) = kept.tensor(DRAWN).and_then(|drawn| drawn.to_vec1().ok()) else { return Ok(None) };
        training.drawn = drawn;
        training.passes = standing.passes;
        training.best = standing.best_pass.zip(best);
        Ok(Some(training))
    }

    /// What [`InTraining::restore`] takes.
    pub(super) fn parts(&self) -> Result<(Standing, BTreeMap<String, Tensor>), ModelError> {
        let (now, first, second) = self.optimizer.parts();
        let (best_pass, best) = self.best.clone().unzip();
        let groups = GROUPS.iter().zip([now, first, second, best.unwrap_or_default()]);
        let mut tensors: BTreeMap<_, _> = groups.flat_map(|(group, members)| numbered(group, members)).collect();
        tensors.insert(DRAWN.to_owned(), Tensor::new(self.drawn.as_slice(), &Device::Cpu)?);
        Ok((Standing { passes: self.passes, steps: self.optimizer.steps(), best_pass }, tensors))
    }

    /// Whether it has learnt what it can.
    pub(super) fn is_over(&self, lessons: &Lessons<'_>) -> bool {
        let no_better = |(best, _): &(Epoch, _)| self.passes >= best.epoch + PATIENCE;
        self.passes >= lessons.epochs || self.best.as_ref().is_some_and(no_better)
    }

    /// One pass over its samples in a random order.
    pub(super) fn pass(&mut self, lessons: &Lessons<'_>, rng: &mut ChaCha8Rng) -> Result<Epoch, ModelError> {
        self.drawn.shuffle(rng);
        let drawn = self.drawn.iter().filter_map(|number| lessons.kept.get(*number as usize).copied());
        let drawn: Vec<Sample<'_>> = drawn.collect();
        let weights = Weights::of(&drawn);
        let (batches, epochs) = (drawn.len().div_ceil(BATCH), lessons.epochs);
        let mut sum = 0.0;
        for (number, batch) in drawn.chunks(BATCH).enumerate() {
            let (x, targets) = tensors(batch, &weights, lessons.scaling, Some(rng))?;
            let keep = dropout(batch.len(), rng)?;
            let loss = self.member.loss(&x, &targets, Some(&keep))?;
            self.optimizer.step(&loss.backward()?, rate(self.passes * batches + number, epochs * batches))?;
            sum += loss.to_scalar::<f32>()? * batch.len() as f32;
        }
        self.passes += 1;
        let held_back_loss =
            mean_loss(&self.member, &lessons.held_back, &Weights::of(&lessons.held_back), lessons.scaling)?;
        let pass = Epoch { epoch: self.passes, epochs, loss: sum / drawn.len().max(1) as f32, held_back_loss };
        // Where nobody is held back nothing tells passes apart but how far they have come.
        let is_untold = lessons.held_back.is_empty();
        if self.best.as_ref().is_none_or(|(least, _)| is_untold || held_back_loss < least.held_back_loss) {
            let copies = self.member.vars().iter().map(|var| var.as_tensor().copy()).collect::<Result<Vec<_>, _>>()?;
            self.best = Some((pass, copies));
        }
        Ok(pass)
    }

    /// The member as its best pass left it, and that pass.
    pub(super) fn finish(self, epochs: usize) -> Result<(Member, Epoch), ModelError> {
        let none = (Epoch { epoch: 0, epochs, loss: 0.0, held_back_loss: 0.0 }, Vec::new());
        let (pass, copies) = self.best.unwrap_or(none);
        for (var, copy) in self.member.vars().iter().zip(&copies) {
            var.set(copy)?;
        }
        Ok((self.member, pass))
    }
}

/// What tells these samples from others.
pub(super) fn digest(samples: &[Sample<'_>]) -> String {
    let of = |sample: &Sample<'_>| {
        let place = [sample.class as u32, sample.patient as u32, sample.origin as u32];
        let inputs = sample.inputs.iter().map(|input| input.to_bits());
        place.into_iter().chain(inputs).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
    };
    crate::card::digest(&samples.iter().flat_map(of).collect::<Vec<u8>>())
}

/// The learning rate: a short rise, then half a cosine down to 0.
fn rate(step: usize, steps: usize) -> f64 {
    let done = step as f64 / steps.max(1) as f64;
    RATE * (step as f64 / 100.0).min(1.0) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

/// What a sample of a class, patient and origin weighs; about 1 in the mean of those that were recorded.
struct Weights(BTreeMap<(usize, usize, Origin), f32>);

impl Weights {
    fn of(samples: &[Sample<'_>]) -> Self {
        let mut counts = BTreeMap::<(usize, usize, Origin), f32>::new();
        let mut classes = [0.0_f32; OUTPUTS];
        for sample in samples {
            *counts.entry((sample.class, sample.patient, sample.origin)).or_default() += 1.0;
            classes[sample.class] += 1.0;
        }
        // Within a class patients weigh by a power of how few beats they have, and the class keeps its weight.
        let mut spread = [0.0_f32; OUTPUTS];
        counts.iter().for_each(|((class, ..), count)| spread[*class] += count.powf(1.0 - PATIENT_POWER));
        let weight = |(class, ..): &(usize, usize, Origin), count: f32| {
            (count.powf(-PATIENT_POWER) * classes[*class] / spread[*class]).min(MOST_WEIGHT)
        };
        Self(counts.into_iter().map(|(key, count)| (key, weight(&key, count))).collect())
    }

    fn get(&self, sample: &Sample<'_>) -> f32 {
        self.0.get(&(sample.class, sample.patient, sample.origin)).copied().unwrap_or(1.0)
    }
}

/// Standardised inputs, with noise where `rng` is given, and one weighted target a row.
fn tensors(
    batch: &[Sample<'_>],
    weights: &Weights,
    scaling: &Scaling,
    rng: Option<&mut ChaCha8Rng>,
) -> Result<(Tensor, Tensor), ModelError> {
    let mut x = Vec::with_capacity(batch.len() * INPUTS);
    batch.iter().for_each(|sample| scaling.apply(sample.inputs, &mut x));
    if let Some(rng) = rng {
        let mut noise = Noise(rng.random());
        x.iter_mut().for_each(|value| *value += NOISE * noise.normal());
    }
    let mut targets = vec![0.0_f32; batch.len() * OUTPUTS];
    for (sample, row) in batch.iter().zip(targets.chunks_exact_mut(OUTPUTS)) {
        row[sample.class] = weights.get(sample);
    }
    let x = Tensor::from_vec(x, (batch.len(), INPUTS), &Device::Cpu)?;
    Ok((x, Tensor::from_vec(targets, (batch.len(), OUTPUTS), &Device::Cpu)?))
}

fn dropout(rows: usize, rng: &mut ChaCha8Rng) -> Result<Tensor, ModelError> {
    let mut noise = Noise(rng.random());
    let kept = 1.0 / (1.0 - DROPOUT);
    let keep = (0..rows * HIDDEN).map(|_| if noise.uniform() < DROPOUT { 0.0 } else { kept }).collect::<Vec<_>>();
    Ok(Tensor::from_vec(keep, (rows, HIDDEN), &Device::Cpu)?)
}

fn mean_loss(member: &Member, samples: &[Sample<'_>], weights: &Weights, scaling: &Scaling) -> Result<f32, ModelError> {
    let mut sum = 0.0;
    for batch in samples.chunks(4_096) {
        let (x, targets) = tensors(batch, weights, scaling, None)?;
        sum += member.loss(&x, &targets, None)?.to_scalar::<f32>()? * batch.len() as f32;
    }
    Ok(sum / samples.len().max(1) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_mean_0_and_deviation_1() {
        let mut noise = Noise(1);
        let drawn: Vec<f32> = (0..20_000).map(|_| noise.normal()).collect();
        let mean = drawn.iter().sum::<f32>() / drawn.len() as f32;
        let square = drawn.iter().map(|value| value * value).sum::<f32>() / drawn.len() as f32;
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.05, "{mean} {square}");
        assert!((0..1_000).map(|_| noise.uniform()).all(|value| (0.0..1.0).contains(&value)));
    }
}
