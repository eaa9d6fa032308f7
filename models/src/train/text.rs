//! Trains the text classifier: softmax regression on hashed n-grams by AdaGrad (Duchi et al., JMLR 12, 2011), then a temperature for
//! probabilities that are true.
//!
//! A text has some hundred n-grams among tens of thousands of buckets, so gradients are followed for those alone, by hand: the gradient of
//! the cross-entropy is `x·(p − truth)`. The number of passes and the temperatures are found on one text of ten; then the classifier is
//! trained again on all with both.

use std::path::Path;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::fit::{Epoch, TrainReport};
use super::reports::{FOLDS, Wording, reports};
use crate::ModelError;
use crate::card::{self, Card, Metric, Training, TrainingData};
use crate::catalog;
use crate::eval::text::{TextReport, evaluate};
use crate::eval::text_data::{Example, Labelled, Split, is_held_out, read_split};
use crate::text::classifier::{Classifier, Outputs};
use crate::text::features;
use crate::text::triage::NAME;

/// Buckets of the classifier that ships.
const SHIPPED_BUCKETS: usize = 1 << 14;
/// Buckets of a classifier trained on a site's texts, which may have more labels and more words.
const BUCKETS: usize = 1 << 15;
/// Generated texts of each topic and language to learn from, and to measure on.
const GENERATED: usize = 80;
const GENERATED_TEST: usize = 20;
/// AdaGrad's step, and what keeps its root above zero.
const RATE: f32 = 0.5;
/// Share of the n-grams of a text that are left out in each pass, so that no few of them carry it alone.
const DROPPED: f64 = 0.3;
const EPSILON: f32 = 1e-6;
/// Passes without improvement after which it stops.
const PATIENCE: usize = 3;
/// The version of the method; the weights' digest follows it.
const METHOD: &str = "1";

/// What to train on, and how.
#[derive(Clone, Copy, Debug)]
pub struct TrainText<'a> {
    /// A folder with labelled texts; without it, generated reports and notes.
    pub data: Option<&'a Path>,
    /// A sentence encoder's folder: a head on it is trained in place of a bag of n-grams. It needs `data`.
    pub encoder: Option<&'a Path>,
    /// Where the model's folder is written.
    pub out: &'a Path,
    /// Seed of everything random.
    pub seed: u64,
    /// Most passes.
    pub epochs: usize,
}

/// What training gave, and how good it is on texts that were never seen.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TextTrained {
    /// The passes.
    pub training: TrainReport,
    /// What was tested on.
    pub test_part: String,
    /// The figures there.
    pub test: TextReport,
}

/// Trains the classifier and writes its folder.
///
/// With a site's texts, the test part is never learnt from. Generated texts are tested fold by fold, each by a classifier that has
/// not seen its phrases; what is written has learnt all phrases but those held back.
pub fn train_text(settings: TrainText<'_>, progress: &mut dyn FnMut(&Epoch)) -> Result<TextTrained, ModelError> {
    let TrainText { data, encoder, out, seed, epochs } = settings;
    if let Some(encoder) = encoder {
        let data = data.ok_or_else(|| ModelError::Unfit {
            model: String::from(NAME),
            why: String::from(
                "a head on an encoder needs labelled texts (--data); generated ones are for the bag of n-grams",
            ),
        })?;
        return super::text_head::train(data, encoder, out, (seed, epochs), progress);
    }
    let (bytes, mut training, test, test_part) = match data {
        Some(data) => {
            let Split { train, test, test_part } = read_split(data)?;
            let (classifier, training) = train_classifier(&train, seed, epochs, progress)?;
            // What is written is what is measured: weights of 16 bits.
            let bytes = classifier.to_bytes()?;
            let classifier = Classifier::load(NAME, &bytes)?;
            let report = evaluate(&test, classifier.outputs(), |example| classifier.score(&example.text));
            (bytes, training, report, test_part)
        }
        None => {
            let report = test_generated(seed, epochs, progress)?;
            let (classifier, training) = train_shipped(seed, epochs, None, progress)?;
            (classifier.to_bytes()?, training, report, String::from(GENERATED_PART))
        }
    };
    training.sha256 = card::digest(&bytes);
    let trained = TextTrained { training, test_part, test };
    let command = match data {
        Some(_) => format!("nearside train text --data FOLDER --seed {seed} --epochs {epochs} --out FOLDER"),
        None => format!("nearside train text --seed {seed} --epochs {epochs} --out FOLDER"),
    };
    let outputs = Classifier::load(NAME, &bytes)?.outputs().clone();
    card::write_folder(out, &card_of(&trained, data, &outputs, seed, command)?, &bytes)?;
    Ok(trained)
}

/// What generated texts are tested on.
pub const GENERATED_PART: &str = "generated texts, each judged by a classifier that has not learnt its phrase (5 folds of phrases; single words of topics are learnt)";

/// Tests training on generated texts, fold by fold.
pub fn test_generated(seed: u64, epochs: usize, progress: &mut dyn FnMut(&Epoch)) -> Result<TextReport, ModelError> {
    let (mut test, mut scores) = (Vec::new(), Vec::new());
    for fold in 0..FOLDS {
        let (classifier, _) = train_shipped(seed, epochs, Some(fold), progress)?;
        let held_out = reports(Wording::Only(fold), GENERATED_TEST, seed.wrapping_add(2)).examples;
        scores.extend(held_out.iter().map(|example| classifier.score(&example.text)));
        test.extend(held_out);
    }
    let outputs = reports(Wording::Only(0), 0, seed).outputs;
    let mut scores = scores.into_iter();
    Ok(evaluate(&test, &outputs, |_| scores.next().unwrap_or_default()))
}

/// Trains on generated texts: on all phrases, or on all but those of a fold. Passes and temperatures are found on phrases held back,
/// which are learnt last.
fn train_shipped(
    seed: u64,
    epochs: usize,
    held_out: Option<usize>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Classifier, TrainReport), ModelError> {
    let fold = held_out.unwrap_or(0);
    let mut train = reports(Wording::Without(fold), GENERATED, seed);
    let of_fold = GENERATED / (FOLDS - 2);
    if held_out.is_none() {
        train.examples.extend(reports(Wording::Only(fold), of_fold, seed.wrapping_add(3)).examples);
    }
    let held_back = reports(Wording::Only(fold + 1), of_fold, seed.wrapping_add(1)).examples;
    train_on(&train, &held_back, SHIPPED_BUCKETS, (seed, epochs), progress)
}

pub(super) fn card_of(
    trained: &TextTrained,
    data: Option<&Path>,
    outputs: &Outputs,
    seed: u64,
    command: String,
) -> Result<Card, ModelError> {
    let mut card = catalog::card(NAME, None)?;
    let digest = &trained.training.sha256;
    card.sha256 = Some(digest.clone());
    card.version = format!("{METHOD}-{}", &digest[..8]);
    card.outputs =
        vec![format!("labels: {}", outputs.labels.join(", ")), format!("urgencies: {}", outputs.urgencies.join(", "))];
    let source = match data {
        Some(folder) => TrainingData {
            name: folder
                .file_name()
                .map_or_else(|| String::from("a site's own texts"), |name| name.to_string_lossy().into_owned()),
            licence: String::from("that of the texts"),
        },
        None => TrainingData {
            name: String::from(
                "synthetic: reports and notes in English and Chinese, generated from hand-written phrases",
            ),
            licence: String::from("Apache-2.0, part of this program"),
        },
    };
    card.training = Some(Training { command: command.clone(), seed, data: vec![source] });
    let test = &trained.test;
    let metric = |name: &str, value: f64| Metric {
        name: String::from(name),
        value: (value * 1e4).round() / 1e4,
        on: format!("{} texts: {}", test.labels.texts, trained.test_part),
        command: command.clone(),
    };
    card.metrics = vec![
        metric("label: accuracy", test.labels.accuracy),
        metric("label: macro F1", test.labels.macro_f1),
        metric("label: expected calibration error", test.labels.calibration_error),
    ];
    if let Some(urgencies) = &test.urgencies {
        card.metrics.push(metric("urgency: accuracy", urgencies.accuracy));
        card.metrics.push(metric("urgency: macro F1", urgencies.macro_f1));
    }
    Ok(card)
}

/// A text as it is learnt from.
pub(super) struct Sample {
    pub(super) vector: Vec<(usize, f32)>,
    pub(super) label: usize,
    pub(super) urgency: Option<usize>,
}

/// Trains a classifier on a site's texts; gives it and the passes.
pub fn train_classifier(
    data: &Labelled,
    seed: u64,
    epochs: usize,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Classifier, TrainReport), ModelError> {
    let is_held_back = |example: &Example| is_held_out(&example.text, "held back");
    let (held_back, examples): (Vec<Example>, Vec<Example>) = data.examples.iter().cloned().partition(is_held_back);
    let train = Labelled { outputs: data.outputs.clone(), examples };
    train_on(&train, &held_back, BUCKETS, (seed, epochs), progress)
}

/// Finds the number of passes and the temperatures on what is held back, then trains on all.
fn train_on(
    train: &Labelled,
    held_back: &[Example],
    buckets: usize,
    (seed, epochs): (u64, usize),
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Classifier, TrainReport), ModelError> {
    let fresh = Classifier::new(train.outputs.clone(), inverse_document_frequencies(&train.examples, buckets));
    let sample = |example: &Example| Sample {
        vector: fresh.vector(&features::grams(&features::units(&example.text))),
        label: example.label,
        urgency: example.urgency,
    };
    let kept: Vec<Sample> = train.examples.iter().map(sample).collect();
    let held_back: Vec<Sample> = held_back.iter().map(sample).collect();
    Ok(fit(fresh, kept, held_back, (seed, epochs), progress))
}

/// As [`train_on`], on texts that are vectors already.
pub(super) fn fit(
    fresh: Classifier,
    mut kept: Vec<Sample>,
    held_back: Vec<Sample>,
    (seed, epochs): (u64, usize),
    progress: &mut dyn FnMut(&Epoch),
) -> (Classifier, TrainReport) {
    let mut search = Descent::new(fresh.clone(), seed);
    let mut passes: Vec<Epoch> = Vec::new();
    let mut best: Option<(f32, usize, Classifier)> = None;
    for epoch in 1..=epochs {
        let loss = search.pass(&kept);
        let held_back_loss = mean_loss(&search.classifier, &held_back, [1.0; 2]);
        let pass = Epoch { epoch, epochs, loss, held_back_loss };
        progress(&pass);
        passes.push(pass);
        if best.as_ref().is_none_or(|(least, ..)| held_back_loss < *least) {
            best = Some((held_back_loss, epoch, search.classifier.clone()));
        } else if best.as_ref().is_some_and(|(_, at, _)| epoch >= at + PATIENCE) {
            break;
        }
    }
    let (held_back_loss, best_epoch, found) = best.unwrap_or((0.0, 0, fresh.clone()));
    let temperatures = temperatures(&found, &held_back);
    let report = TrainReport {
        samples: kept.len(),
        held_back: held_back.len(),
        epochs: passes,
        best_epoch,
        held_back_loss,
        sha256: String::new(),
    };
    kept.extend(held_back);
    let mut last = Descent::new(fresh, seed);
    for _ in 0..best_epoch {
        last.pass(&kept);
    }
    (cooled(last.classifier, temperatures), report)
}

/// ln((1 + n) / (1 + texts with it)) + 1; an n-gram never seen counts as the rarest, so that a text of unknown words is judged with
/// little confidence.
fn inverse_document_frequencies(examples: &[Example], buckets: usize) -> Vec<f32> {
    let mut documents = vec![0_u32; buckets];
    for example in examples {
        for (bucket, _) in features::counts(&features::grams(&features::units(&example.text)), buckets) {
            documents[bucket] += 1;
        }
    }
    let all = examples.len() as f32;
    documents.into_iter().map(|count| ((1.0 + all) / (1.0 + count as f32)).ln() + 1.0).collect()
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

    fn texts() -> Labelled {
        let outputs = Outputs {
            labels: ["animal", "weather"].map(String::from).to_vec(),
            urgencies: ["routine", "soon", "now"].map(String::from).to_vec(),
        };
        let words = [["cat", "dog", "horse", "cow"], ["rain", "snow", "wind", "storm"]];
        let example = |number: usize| {
            let label = number % 2;
            let text = format!("the {} number {number} {}", words[label][number / 2 % 4], words[label][number / 8 % 4]);
            Example { text, label, urgency: Some(2 * label) }
        };
        Labelled { outputs, examples: (0..200).map(example).collect() }
    }

    #[test]
    fn it_learns_and_the_seed_decides() {
        let (data, mut passes) = (texts(), 0);
        let (classifier, report) = train_classifier(&data, 1, 8, &mut |_| passes += 1).unwrap();
        assert_eq!(passes, report.epochs.len());
        assert_eq!(report.samples + report.held_back, data.examples.len());
        for (text, label) in [("a cow and a dog", 0), ("snow, then wind", 1)] {
            let scores = classifier.score(text);
            assert_eq!((scores.label().0, scores.urgency().unwrap().0), (label, 2 * label), "{text}: {scores:?}");
        }
        let again = train_classifier(&data, 1, 8, &mut |_| ()).unwrap().0;
        assert_eq!(again.to_bytes().unwrap(), classifier.to_bytes().unwrap());
    }

    #[test]
    fn a_temperature_above_one_makes_a_classifier_less_sure() {
        let (classifier, _) = train_classifier(&texts(), 1, 8, &mut |_| ()).unwrap();
        let sure = classifier.score("rain and storm").label();
        let cooled = cooled(classifier, [2.0, 2.0]).score("rain and storm").label();
        assert!(cooled.0 == sure.0 && cooled.1 < sure.1, "{sure:?} {cooled:?}");
    }
}
