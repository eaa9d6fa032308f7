//! Fits a text classifier pass by pass: softmax regression by AdaGrad (Duchi et al., JMLR 12, 2011), then a temperature for
//! probabilities that are true.
//!
//! A text has some hundred n-grams among tens of thousands of buckets, so gradients are followed for those alone, by hand: the gradient of
//! the cross-entropy is `x·(p − truth)`. The number of passes and the temperatures are found on texts held back; then the classifier is
//! trained again on all with both.
//!
//! Promise: what was stopped between two passes goes on as if it had not been, bit for bit.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, Generator};
use super::fit::{Epoch, TrainReport};
use crate::ModelError;
use crate::text::classifier::Classifier;

/// AdaGrad's step, and what keeps its root above zero.
const RATE: f32 = 0.5;
/// Share of the n-grams of a text that are left out in each pass, so that no few of them carry it alone.
const DROPPED: f64 = 0.3;
const EPSILON: f32 = 1e-6;
/// Passes without improvement after which it stops.
const PATIENCE: usize = 3;

/// A text as it is learnt from.
pub(super) struct Sample {
    pub(super) vector: Vec<(usize, f32)>,
    pub(super) label: usize,
    pub(super) urgency: Option<usize>,
}

/// How it is fitted.
#[derive(Clone, Copy)]
pub(super) struct TextFit<'a> {
    /// Of the order of texts and what is left out of them.
    pub(super) seed: u64,
    /// Most passes.
    pub(super) epochs: usize,
    /// Where it is kept after each pass.
    pub(super) checkpoint: Option<&'a Checkpoint>,
}

/// A fit between two passes.
struct Course {
    /// Of the search until something is found, then of the training on all.
    descent: Descent,
    /// Those of the search.
    passes: Vec<Epoch>,
    /// The least loss of the search, its pass and what was learnt by then.
    best: Option<(f32, usize, Classifier)>,
    found: Option<Found>,
    /// Passes over all.
    done: usize,
}

/// What the search found.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Found {
    passes: usize,
    held_back_loss: f32,
    temperatures: [f32; 2],
}

/// What is written of a course beside its tensors.
#[derive(Serialize, Deserialize)]
struct State {
    passes: Vec<Epoch>,
    best: Option<(f32, usize)>,
    found: Option<Found>,
    done: usize,
    #[serde(flatten)]
    generator: Generator,
}

impl Course {
    fn new(fresh: &Classifier, seed: u64) -> Self {
        let descent = Descent::new(fresh.clone(), seed);
        Self { descent, passes: Vec::new(), best: None, found: None, done: 0 }
    }

    /// Whether the search found nothing better for a while.
    fn is_over(&self, epochs: usize) -> bool {
        let no_better = |(_, at, _): &(f32, usize, Classifier)| self.passes.len() >= at + PATIENCE;
        self.passes.len() >= epochs || self.best.as_ref().is_some_and(no_better)
    }

    /// A pass of the search.
    fn search(&mut self, kept: &[Sample], held_back: &[Sample], epochs: usize) -> Epoch {
        let loss = self.descent.pass(kept);
        let held_back_loss = mean_loss(&self.descent.classifier, held_back, [1.0; 2]);
        let pass = Epoch { epoch: self.passes.len() + 1, epochs, loss, held_back_loss };
        self.passes.push(pass);
        if self.best.as_ref().is_none_or(|(least, ..)| held_back_loss < *least) {
            self.best = Some((held_back_loss, pass.epoch, self.descent.classifier.clone()));
        }
        pass
    }

    /// Takes what the search found and begins anew.
    fn settle(&mut self, fresh: &Classifier, seed: u64, held_back: &[Sample]) {
        let (held_back_loss, passes, classifier) = self.best.take().unwrap_or((0.0, 0, fresh.clone()));
        self.found = Some(Found { passes, held_back_loss, temperatures: temperatures(&classifier, held_back) });
        self.descent = Descent::new(fresh.clone(), seed);
    }

    fn save(&self, how: TextFit<'_>, task: &str) -> Result<(), ModelError> {
        let Some(checkpoint) = how.checkpoint else { return Ok(()) };
        let Descent { classifier, weights, bias, rng } = &self.descent;
        let mut parts = vec![
            ("now.weight", &classifier.weights),
            ("now.bias", &classifier.bias),
            ("sums.weight", weights),
            ("sums.bias", bias),
        ];
        if let Some((.., best)) = &self.best {
            parts.extend([("best.weight", &best.weights), ("best.bias", &best.bias)]);
        }
        let tensor = |(name, values): (&str, &Vec<f32>)| {
            Ok((name.to_owned(), Tensor::from_slice(values, values.len(), &Device::Cpu)?))
        };
        let tensors = parts.into_iter().map(tensor).collect::<Result<BTreeMap<_, _>, ModelError>>()?;
        let state = State {
            passes: self.passes.clone(),
            best: self.best.as_ref().map(|(loss, pass, _)| (*loss, *pass)),
            found: self.found,
            done: self.done,
            generator: Generator::of(rng),
        };
        checkpoint.write(task, state, tensors)
    }

    /// Goes on from what was kept; `None` where nothing was.
    fn restore(fresh: &Classifier, how: TextFit<'_>, task: &str) -> Result<Option<Self>, ModelError> {
        let Some(checkpoint) = how.checkpoint else { return Ok(None) };
        let Some((state, kept)) = checkpoint.read::<State>(task)? else { return Ok(None) };
        let damaged = || checkpoint.damaged();
        let values = |name: &str, like: &[f32]| {
            let values: Vec<f32> = kept.tensor(name).and_then(|tensor| tensor.to_vec1().ok()).ok_or_else(damaged)?;
            if values.len() == like.len() { Ok(values) } else { Err(damaged()) }
        };
        let classifier = |group: &str| {
            let mut classifier = fresh.clone();
            classifier.weights = values(&format!("{group}.weight"), &fresh.weights)?;
            classifier.bias = values(&format!("{group}.bias"), &fresh.bias)?;
            Ok::<_, ModelError>(classifier)
        };
        let descent = Descent {
            classifier: classifier("now")?,
            weights: values("sums.weight", &fresh.weights)?,
            bias: values("sums.bias", &fresh.bias)?,
            rng: state.generator.restored().ok_or_else(damaged)?,
        };
        let best = match state.best {
            Some((loss, pass)) => Some((loss, pass, classifier("best")?)),
            None => None,
        };
        Ok(Some(Self { descent, passes: state.passes, best, found: state.found, done: state.done }))
    }
}

/// What tells texts and their outputs from others.
fn digest(fresh: &Classifier, parts: [&[Sample]; 2]) -> String {
    let mut bytes = format!("{:?}", fresh.outputs()).into_bytes();
    for (part, samples) in parts.into_iter().enumerate() {
        for sample in samples {
            let place = [part, sample.label, sample.urgency.map_or(0, |urgency| urgency + 1), sample.vector.len()];
            bytes.extend(place.into_iter().flat_map(|number| (number as u64).to_le_bytes()));
            for (bucket, value) in &sample.vector {
                bytes.extend((*bucket as u64).to_le_bytes());
                bytes.extend(value.to_le_bytes());
            }
        }
    }
    crate::card::digest(&bytes)
}

/// Finds the number of passes and the temperatures on what is held back, then trains on all.
pub(super) fn fit(
    fresh: &Classifier,
    mut kept: Vec<Sample>,
    held_back: Vec<Sample>,
    how: TextFit<'_>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Classifier, TrainReport), ModelError> {
    let task = format!("text {} {} {}", how.seed, how.epochs, digest(fresh, [&kept, &held_back]));
    let sizes = (kept.len(), held_back.len());
    let mut course = Course::restore(fresh, how, &task)?.unwrap_or_else(|| Course::new(fresh, how.seed));
    course.passes.iter().for_each(&mut *progress);
    while course.found.is_none() {
        if course.is_over(how.epochs) {
            course.settle(fresh, how.seed, &held_back);
        } else {
            progress(&course.search(&kept, &held_back, how.epochs));
            course.save(how, &task)?;
        }
    }
    let found = course.found.unwrap_or_default();
    kept.extend(held_back);
    while course.done < found.passes {
        course.descent.pass(&kept);
        course.done += 1;
        course.save(how, &task)?;
    }
    let report = TrainReport {
        samples: sizes.0,
        held_back: sizes.1,
        epochs: course.passes,
        best_epoch: found.passes,
        held_back_loss: found.held_back_loss,
        sha256: String::new(),
        set_aside: Vec::new(),
    };
    Ok((cooled(course.descent.classifier, found.temperatures), report))
}

/// AdaGrad on one text after another.
struct Descent {
    classifier: Classifier,
    /// Sums of squared gradients, as the weights and the bias lie.
    weights: Vec<f32>,
    bias: Vec<f32>,
    rng: ChaCha8Rng,
}

impl Descent {
    fn new(classifier: Classifier, seed: u64) -> Self {
        let (weights, bias) = (vec![EPSILON; classifier.weights.len()], vec![EPSILON; classifier.bias.len()]);
        Self { classifier, weights, bias, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// One pass over all texts in a random order; gives the mean loss before each step.
    fn pass(&mut self, samples: &[Sample]) -> f32 {
        let mut order: Vec<usize> = (0..samples.len()).collect();
        order.shuffle(&mut self.rng);
        let sum: f64 = order.into_iter().map(|number| self.step(&samples[number])).sum();
        (sum / samples.len().max(1) as f64) as f32
    }

    fn step(&mut self, sample: &Sample) -> f64 {
        let mut vector = sample.vector.clone();
        vector.retain(|_| self.rng.random::<f64>() >= DROPPED);
        let logits = self.classifier.logits(&vector);
        let (errors, loss) = errors(&self.classifier, &logits, sample);
        let width = errors.len();
        for (bucket, value) in &vector {
            let row = bucket * width..(bucket + 1) * width;
            let sums = &mut self.weights[row.clone()];
            descend(&mut self.classifier.weights[row], sums, &errors, *value);
        }
        descend(&mut self.classifier.bias, &mut self.bias, &errors, 0.1);
        loss
    }
}

/// One step of a row whose gradient is `errors · value`.
fn descend(row: &mut [f32], sums: &mut [f32], errors: &[f32], value: f32) {
    for ((weight, sum), error) in row.iter_mut().zip(sums).zip(errors) {
        let gradient = error * value;
        *sum += gradient * gradient;
        *weight -= RATE * gradient / sum.sqrt();
    }
}

/// `p − truth` for each output, and the cross-entropies. A text without urgency teaches none.
fn errors(classifier: &Classifier, logits: &[f32], sample: &Sample) -> (Vec<f32>, f64) {
    let scores = classifier.probabilities(logits);
    let surprise = |probability: Option<&f64>| -probability.copied().unwrap_or(1.0).max(1e-12).ln();
    let mut loss = surprise(scores.labels.get(sample.label));
    let mut errors: Vec<f32> = scores.labels.iter().map(|probability| *probability as f32).collect();
    if let Some(error) = errors.get_mut(sample.label) {
        *error -= 1.0;
    }
    for (urgency, probability) in scores.urgencies.iter().enumerate() {
        errors.push(match sample.urgency {
            Some(truth) => *probability as f32 - if truth == urgency { 1.0 } else { 0.0 },
            None => 0.0,
        });
    }
    if let Some(urgency) = sample.urgency {
        loss += surprise(scores.urgencies.get(urgency));
    }
    (errors, loss)
}

/// The mean loss with logits of labels and of urgencies divided by temperatures.
fn mean_loss(classifier: &Classifier, samples: &[Sample], temperatures: [f32; 2]) -> f32 {
    let labels = classifier.outputs().labels.len();
    let loss = |sample: &Sample| {
        let logits = classifier.logits(&sample.vector).into_iter().enumerate();
        let logits: Vec<f32> = logits.map(|(at, logit)| logit / temperatures[usize::from(at >= labels)]).collect();
        errors(classifier, &logits, sample).1
    };
    (samples.iter().map(loss).sum::<f64>() / samples.len().max(1) as f64) as f32
}

/// The temperatures of labels and urgencies with the least loss, each from a grid of 5 % steps.
fn temperatures(classifier: &Classifier, samples: &[Sample]) -> [f32; 2] {
    let mut best = [1.0; 2];
    for part in [0, 1] {
        let with = |temperature: f32| {
            let mut tried = best;
            tried[part] = temperature;
            (mean_loss(classifier, samples, tried), temperature)
        };
        let tried = (-30..=30).map(|step| with(1.05_f32.powi(step)));
        best[part] = tried.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(1.0, |(_, temperature)| temperature);
    }
    best
}

/// The classifier with its temperatures in its weights.
fn cooled(mut classifier: Classifier, temperatures: [f32; 2]) -> Classifier {
    let (labels, width) = (classifier.outputs().labels.len(), classifier.bias.len());
    let scale = |at: usize| 1.0 / temperatures[usize::from(at % width >= labels)];
    classifier.weights.iter_mut().enumerate().for_each(|(at, weight)| *weight *= scale(at));
    classifier.bias.iter_mut().enumerate().for_each(|(at, bias)| *bias *= scale(at));
    classifier
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::text::tests::texts;
    use crate::train::train_classifier;

    #[test]
    fn a_temperature_above_one_makes_a_classifier_less_sure() {
        let (classifier, _) = train_classifier(&texts(), 1, 8, &mut |_| ()).unwrap();
        let sure = classifier.score("rain and storm").label();
        let cooled = cooled(classifier, [2.0, 2.0]).score("rain and storm").label();
        assert!(cooled.0 == sure.0 && cooled.1 < sure.1, "{sure:?} {cooled:?}");
    }

    /// Trains on a site's texts, stopped by a panic after `stop` passes as by a power cut.
    fn train(out: &std::path::Path, resume: bool, seed: u64, stop: Option<usize>) -> Option<(Vec<u8>, TrainReport)> {
        let (data, checkpoint) = (texts(), Checkpoint::new(out, resume));
        let mut passes = 0;
        let mut progress = |_: &Epoch| {
            passes += 1;
            if stop == Some(passes) {
                std::panic::resume_unwind(Box::new("stopped"));
            }
        };
        let how = TextFit { seed, epochs: 6, checkpoint: Some(&checkpoint) };
        let run = || crate::train::text::train_on_own(&data, how, &mut progress);
        let (classifier, report) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).ok()?.ok()?;
        Some((classifier.to_bytes().unwrap(), report))
    }

    #[test]
    fn a_training_that_was_stopped_ends_as_if_it_had_not_been() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let whole = train(folders[0].path(), false, 1, None).unwrap();
        assert_eq!(train(folders[1].path(), false, 1, Some(4)), None);
        assert_eq!(train(folders[1].path(), true, 1, None).unwrap(), whole);
        // What is kept now is of the training on all: it is over, and goes on from there all the same.
        assert_eq!(train(folders[1].path(), true, 1, None).unwrap(), whole);
        assert_eq!(train(folders[1].path(), true, 2, None), None, "what is kept is of another training");
    }
}
