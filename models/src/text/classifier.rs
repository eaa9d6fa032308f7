//! The classifier: a bag of embedded n-grams that is linear from end to end.
//!
//! ```text
//! x  [buckets]   (1 + ln count) · idf of each n-gram's bucket, of length 1 (tf-idf: Salton & Buckley, 1988)
//! y  = Wᵀx + b   [labels + urgencies]
//! p  = softmax of the labels' part; softmax of the urgencies' part
//! ```
//! Each bucket has a row of `W`, so scoring is a sum of some hundred short rows in a fixed order, cheaper than filling a matrix for a
//! GEMM, and the same in any batch because there is none (promise I5). What a word adds to `y` is read off exactly (I6). The temperatures
//! that make the probabilities true (Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017) are part of `W` and `b`.

use std::borrow::Cow;
use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::features::{self, Features, Gram, Unit, bucket};
use crate::ModelError;

/// Most buckets and outputs that are loaded: a damaged length must not fill the memory.
const MOST_BUCKETS: usize = 1 << 20;
const MOST_OUTPUTS: usize = 1_024;
/// Most weights that are spread out from a file with some rows alone.
const MOST_SPREAD: usize = 32 << 20;
/// Most characters of a label.
const MOST_LABEL: usize = 64;
/// Which buckets have a row in the file; where it has no such tensor, all do.
const KEPT: &str = "bag.kept";
/// Where the file's header says what the outputs mean, by the n-grams that were learnt from. One of them alone: a header of several keys
/// is written in any order.
const HEADERS: [(&str, Features); 2] = [("text", Features::Words), ("text_with_numbers", Features::WordsAndNumbers)];

/// What the outputs mean: labels first, then urgencies from the least to the most urgent (there may be none).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outputs {
    /// What a text may be about.
    pub labels: Vec<String>,
    /// How soon someone should act.
    pub urgencies: Vec<String>,
}

impl Outputs {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len() + self.urgencies.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A text's probabilities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// One for each label; they sum to 1.
    pub labels: Vec<f64>,
    /// One for each urgency; they sum to 1, or there are none.
    pub urgencies: Vec<f64>,
}

impl Scores {
    /// The most probable label and its probability.
    pub fn label(&self) -> (usize, f64) {
        most(&self.labels)
    }

    /// The most probable urgency and its probability.
    pub fn urgency(&self) -> Option<(usize, f64)> {
        (!self.urgencies.is_empty()).then(|| most(&self.urgencies))
    }
}

fn most(values: &[f64]) -> (usize, f64) {
    let first = (0, values.first().copied().unwrap_or(0.0));
    values.iter().copied().enumerate().skip(1).fold(first, |best, one| if one.1 > best.1 { one } else { best })
}

/// A word, or ideographs that stand together, and what it added to the log odds of the outputs it was asked about. It is a piece of the
/// text: as personal as that.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The word as folded.
    pub text: String,
    /// What it added.
    pub added: f64,
}

/// The weights.
#[derive(Clone, Debug)]
pub struct Classifier {
    /// What the outputs mean.
    outputs: Outputs,
    features: Features,
    pub(crate) idf: Vec<f32>,
    /// `[buckets, outputs]`, row-major.
    pub(crate) weights: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Classifier {
    /// One that has learnt nothing, with these inverse document frequencies, one for each bucket.
    pub(crate) fn new(outputs: Outputs, idf: Vec<f32>) -> Self {
        let (buckets, width) = (idf.len(), outputs.len());
        let features = Features::default();
        Self { outputs, features, idf, weights: vec![0.0; buckets * width], bias: vec![0.0; width] }
    }

    /// What the outputs mean.
    pub const fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// How many buckets there are.
    pub(crate) const fn buckets(&self) -> usize {
        self.idf.len()
    }

    /// The vector `x` of n-grams: bucket and value, by ascending bucket.
    pub(crate) fn vector(&self, grams: &[Gram]) -> Vec<(usize, f32)> {
        let mut vector = features::counts(grams, self.buckets());
        for (bucket, value) in &mut vector {
            *value *= self.idf[*bucket];
        }
        let length = vector.iter().map(|(_, value)| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        for (_, value) in &mut vector {
            *value /= length;
        }
        vector
    }

    /// `y` of a vector.
    pub(crate) fn logits(&self, vector: &[(usize, f32)]) -> Vec<f32> {
        let width = self.bias.len();
        let mut logits = self.bias.clone();
        for (bucket, value) in vector {
            let row = &self.weights[bucket * width..(bucket + 1) * width];
            for (logit, weight) in logits.iter_mut().zip(row) {
                *logit += value * weight;
            }
        }
        logits
    }

    /// The probabilities of logits.
    pub(crate) fn probabilities(&self, logits: &[f32]) -> Scores {
        let (labels, urgencies) = logits.split_at(self.outputs.labels.len().min(logits.len()));
        Scores { labels: softmax(labels), urgencies: softmax(urgencies) }
    }

    /// The bag of a text: bucket and value of its n-grams, by ascending bucket.
    pub fn bag(&self, text: &str) -> Vec<(usize, f32)> {
        self.vector(&features::grams(&features::units(text), self.features))
    }

    /// Scores a bag.
    pub fn score_bag(&self, bag: &[(usize, f32)]) -> Scores {
        self.probabilities(&self.logits(bag))
    }

    /// Scores a text.
    pub fn score(&self, text: &str) -> Scores {
        self.score_bag(&self.bag(text))
    }

    /// The words that spoke most for this label, and for this urgency where one is given, against the average of the others; at most
    /// `most`, only those that spoke for it, most first.
    pub fn explain(&self, text: &str, label: usize, urgency: Option<usize>, most: usize) -> Vec<Term> {
        let units = features::units(text);
        let grams = features::grams(&units, self.features);
        terms(&units, &self.added(&units, &grams, label, urgency), most)
    }

    /// What each unit added to a label and an urgency, against the average of the others.
    fn added(&self, units: &[Unit], grams: &[Gram], label: usize, urgency: Option<usize>) -> Vec<f64> {
        let vector: HashMap<usize, f32> = self.vector(grams).into_iter().collect();
        let mut sharing: HashMap<usize, f64> = HashMap::new();
        for gram in grams {
            *sharing.entry(bucket(gram.hash, self.buckets())).or_default() += 1.0;
        }
        let mut added = vec![0.0; units.len()];
        for gram in grams {
            let bucket = bucket(gram.hash, self.buckets());
            let value = f64::from(vector.get(&bucket).copied().unwrap_or(0.0)) / sharing.get(&bucket).unwrap_or(&1.0);
            // A pair of words with one between them belongs to its two ends; the sum is spread over all it spans.
            let spans = (gram.last - gram.first + 1) as f64;
            for unit in &mut added[gram.first..=gram.last] {
                *unit += value * self.preference(bucket, label, urgency) / spans;
            }
        }
        added
    }

    /// What a bucket's row says for a label and an urgency, less what it says for all.
    fn preference(&self, bucket: usize, label: usize, urgency: Option<usize>) -> f64 {
        let width = self.bias.len();
        let row = &self.weights[bucket * width..(bucket + 1) * width];
        let (labels, urgencies) = row.split_at(self.outputs.labels.len());
        let above = |part: &[f32], at: usize| {
            let mean = part.iter().sum::<f32>() / part.len().max(1) as f32;
            f64::from(part.get(at).copied().unwrap_or(mean) - mean)
        };
        above(labels, label) + urgency.map_or(0.0, |urgency| above(urgencies, urgency))
    }

    /// How much each bucket says over many texts: the norm of its row, less what that says for all labels or all urgencies alike, times the
    /// root mean square of its value in a text (M. Sun et al., *A Simple and Effective Pruning Approach for Large Language Models*, ICLR
    /// 2024). How many texts hold it is read off its inverse document frequency; that a text's values are of length 1 is left out.
    pub(crate) fn importance(&self) -> Vec<f64> {
        let labels = self.outputs.labels.len();
        let spread = |part: &[f32]| {
            let mean = part.iter().map(|weight| f64::from(*weight)).sum::<f64>() / part.len().max(1) as f64;
            part.iter().map(|weight| (f64::from(*weight) - mean).powi(2)).sum::<f64>()
        };
        let of_row = |(row, idf): (&[f32], &f32)| {
            let (labels, urgencies) = row.split_at(labels);
            let idf = f64::from(*idf);
            (spread(labels) + spread(urgencies)).sqrt() * idf * (-idf).exp().sqrt()
        };
        self.weights.chunks_exact(self.bias.len().max(1)).zip(&self.idf).map(of_row).collect()
    }

    /// Which buckets have a row that says anything.
    pub(crate) fn in_use(&self) -> Vec<bool> {
        let rows = self.weights.chunks_exact(self.bias.len().max(1));
        rows.map(|row| row.iter().any(|weight| *weight != 0.0)).collect()
    }

    /// Of the buckets, the `count` that say most over many texts.
    pub(crate) fn most_important(&self, count: usize) -> Vec<bool> {
        let importance = self.importance();
        let mut order: Vec<usize> = (0..importance.len()).collect();
        order.sort_by(|a, b| importance[*b].total_cmp(&importance[*a]).then(a.cmp(b)));
        let mut kept = vec![false; importance.len()];
        order.into_iter().take(count).for_each(|bucket| kept[bucket] = true);
        kept
    }

    /// Empties the rows of all buckets but these.
    pub(crate) fn keep(&mut self, kept: &[bool]) {
        let rows = self.weights.chunks_exact_mut(self.bias.len().max(1)).zip(kept);
        rows.filter(|(_, kept)| !**kept).for_each(|(row, _)| row.fill(0.0));
    }

    /// The weights as a safetensors file of 16-bit floats; `idf` and `bias` keep 32 bits.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        self.write(None)
    }

    /// As [`Classifier::to_bytes`], with the rows of these buckets alone: the others are 0 when it is read.
    pub(crate) fn to_bytes_of(&self, kept: &[bool]) -> Result<Vec<u8>, ModelError> {
        self.write(Some(kept))
    }

    fn write(&self, kept: Option<&[bool]>) -> Result<Vec<u8>, ModelError> {
        let (buckets, width) = (self.buckets(), self.bias.len());
        let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
        let mut tensors = std::collections::BTreeMap::from([
            ("bag.bias", tensor(&self.bias, &[width])?),
            ("bag.idf", tensor(&self.idf, &[buckets])?),
        ]);
        let rows = match kept {
            Some(kept) => {
                let eight = bits(kept);
                tensors.insert(KEPT, tensor(&eight, &[eight.len()])?);
                let rows = self.weights.chunks_exact(width).zip(kept).filter(|(_, kept)| **kept);
                Cow::Owned(rows.flat_map(|(row, _)| row).copied().collect::<Vec<f32>>())
            }
            None => Cow::Borrowed(self.weights.as_slice()),
        };
        tensors.insert("bag.weight", tensor(&rows, &[rows.len() / width, width])?.to_dtype(DType::F16)?);
        let damaged = |why: String| ModelError::Damaged { model: String::from(super::triage::NAME), why };
        let meaning = serde_json::to_string(&self.outputs).map_err(|error| damaged(error.to_string()))?;
        let key = HEADERS.into_iter().find(|(_, features)| *features == self.features).map_or("", |(key, _)| key);
        let header = HashMap::from([(key.to_owned(), meaning)]);
        safetensors::serialize(tensors, Some(header)).map_err(|error| damaged(error.to_string()))
    }

    /// Reads a safetensors file; fails where it does not hold what the header says or a number is not finite.
    pub fn load(model: &str, bytes: &[u8]) -> Result<Self, ModelError> {
        let damaged = |why: &str| ModelError::Damaged { model: model.to_owned(), why: why.to_owned() };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(&error.to_string()))?;
        let said = |(key, features)| Some((header.metadata().as_ref()?.get(key)?, features));
        let said = HEADERS.into_iter().find_map(said);
        let (meaning, features) = said.ok_or_else(|| damaged("the header does not say what the outputs mean"))?;
        let outputs: Outputs = serde_json::from_str(meaning).map_err(|error| damaged(&error.to_string()))?;
        check(&outputs).map_err(|why| damaged(&why))?;
        let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(&error.to_string()))?;
        let buckets = file.tensor("bag.idf").map_err(|error| damaged(&error.to_string()))?.shape().first().copied();
        let buckets = buckets.filter(|buckets| buckets.is_power_of_two() && *buckets <= MOST_BUCKETS);
        let buckets = buckets.ok_or_else(|| damaged("the number of buckets is not a power of two up to 2^20"))?;
        let read = |name: &str, shape: &[usize]| -> Result<Vec<f32>, ModelError> {
            let view = file.tensor(name).map_err(|error| damaged(&error.to_string()))?;
            let dtype = match view.dtype() {
                Dtype::F16 => DType::F16,
                Dtype::F32 => DType::F32,
                _ => return Err(damaged(&format!("{name} is not of 16- or 32-bit floats"))),
            };
            if view.shape() != shape {
                return Err(damaged(&format!("{name} is not of shape {shape:?}")));
            }
            let tensor = Tensor::from_raw_buffer(view.data(), dtype, shape, &Device::Cpu)?;
            let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            if values.iter().all(|value| value.is_finite()) {
                Ok(values)
            } else {
                Err(damaged(&format!("{name} holds a number that is not finite")))
            }
        };
        let width = outputs.len();
        let (idf, bias) = (read("bag.idf", &[buckets])?, read("bag.bias", &[width])?);
        let weights = match file.tensor(KEPT) {
            Ok(_) => {
                let kept = of_bits(&read(KEPT, &[buckets.div_ceil(8)])?, buckets);
                let kept = kept.ok_or_else(|| damaged("bag.kept is not a bit for each bucket"))?;
                if buckets * width > MOST_SPREAD {
                    return Err(damaged("its rows, with those that are 0, are larger than any of ours"));
                }
                let rows = read("bag.weight", &[kept.iter().filter(|kept| **kept).count(), width])?;
                let (mut rows, none) = (rows.chunks_exact(width), vec![0.0; width]);
                kept.iter().flat_map(|kept| kept.then(|| rows.next()).flatten().unwrap_or(&none)).copied().collect()
            }
            Err(_) => read("bag.weight", &[buckets, width])?,
        };
        Ok(Self { weights, outputs, features, idf, bias })
    }
}

/// Eight buckets to a number, a bit each, the first bucket the lowest: whole numbers below 256, which floats of any width hold exactly.
fn bits(kept: &[bool]) -> Vec<f32> {
    let number = |eight: &[bool]| eight.iter().rev().fold(0_u8, |number, kept| number << 1 | u8::from(*kept));
    kept.chunks(8).map(|eight| f32::from(number(eight))).collect()
}

/// What [`bits`] was made of, for so many buckets; `None` where that cannot be.
fn of_bits(numbers: &[f32], buckets: usize) -> Option<Vec<bool>> {
    let is_byte = |number: &f32| (0.0..256.0).contains(number) && number.fract() == 0.0;
    let bit = |at: usize| numbers.get(at / 8).map(|number| *number as u8 >> (at % 8) & 1 == 1);
    numbers.iter().all(is_byte).then(|| (0..buckets).map(bit).collect()).flatten()
}

/// Whether outputs can be used: one label at least, few enough, none empty, long or twice.
pub(crate) fn check(outputs: &Outputs) -> Result<(), String> {
    if outputs.labels.is_empty() || outputs.len() > MOST_OUTPUTS {
        return Err(format!("{} labels and urgencies; 1 to {MOST_OUTPUTS} are possible", outputs.len()));
    }
    for group in [&outputs.labels, &outputs.urgencies] {
        for (index, label) in group.iter().enumerate() {
            let length = label.chars().count();
            if length == 0 || length > MOST_LABEL || label.chars().any(char::is_control) {
                return Err(format!("label {index} is empty, longer than {MOST_LABEL} characters or not printable"));
            }
            if group[..index].contains(label) {
                return Err(format!("label {index} stands there twice"));
            }
        }
    }
    Ok(())
}

/// Softmax in 64 bits; nothing of nothing.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut values: Vec<f64> = logits.iter().map(|logit| f64::from(logit - highest).exp()).collect();
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
    values
}

/// Words with what they added; ideographs that stand together and spoke for it are one term.
fn terms(units: &[Unit], added: &[f64], most: usize) -> Vec<Term> {
    let mut terms: Vec<Term> = Vec::new();
    let mut joins = false;
    for (unit, added) in units.iter().zip(added) {
        let speaks = *added > 0.0;
        match terms.last_mut().filter(|_| joins && unit.is_ideograph && speaks) {
            Some(term) => {
                term.text.push_str(&unit.text);
                term.added += added;
            }
            None if speaks => terms.push(Term { text: unit.text.clone(), added: *added }),
            None => {}
        }
        joins = unit.is_ideograph && speaks;
    }
    terms.sort_by(|a, b| b.added.total_cmp(&a.added));
    terms.truncate(most);
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Classifier {
        let outputs = Outputs { labels: vec!["a".into(), "b".into()], urgencies: vec!["low".into(), "high".into()] };
        let mut classifier = Classifier::new(outputs, vec![1.0; 1 << 8]);
        let weights = classifier.weights.iter_mut().enumerate();
        weights.for_each(|(at, weight)| *weight = f32::from((at * 37 % 101) as u8) / 64.0);
        classifier
    }

    #[test]
    fn what_is_read_back_scores_the_same() {
        let classifier = small();
        let bytes = classifier.to_bytes().unwrap();
        assert_eq!(bytes, classifier.to_bytes().unwrap(), "the same bytes each time");
        let read = Classifier::load("m", &bytes).unwrap();
        assert_eq!(read.outputs(), classifier.outputs());
        assert_eq!(
            read.score("some words 一些字"),
            classifier.score("some words 一些字"),
            "these weights have 16 bits"
        );
        let scores = read.score("some words");
        assert!((scores.labels.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!((scores.urgencies.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn weights_of_before_numbers_were_read_are_read_without_them() {
        let old = Classifier { features: Features::Words, ..small() };
        let read = Classifier::load("m", &old.to_bytes().unwrap()).unwrap();
        assert_eq!(read.features, Features::Words);
        assert_eq!(read.score("SpO2 82"), read.score("SpO2 98"));
        let new = Classifier::load("m", &small().to_bytes().unwrap()).unwrap();
        assert_ne!(new.score("SpO2 82"), new.score("SpO2 98"));
    }

    #[test]
    fn rows_that_are_not_kept_are_read_as_zeros() {
        let classifier = small();
        let kept: Vec<bool> = (0..classifier.buckets()).map(|bucket| bucket % 3 != 1).collect();
        let bytes = classifier.to_bytes_of(&kept).unwrap();
        assert!(bytes.len() < classifier.to_bytes().unwrap().len());
        let read = Classifier::load("m", &bytes).unwrap();
        for ((row, was), kept) in read.weights.chunks(4).zip(classifier.weights.chunks(4)).zip(&kept) {
            assert_eq!(row, if *kept { was } else { &[0.0; 4] });
        }
        for damaged in [f32::NAN, -1.0, 0.5, 256.0, 0.0] {
            assert!(of_bits(&[255.0, damaged], 16).is_none() == (damaged != 0.0), "{damaged}");
        }
        assert!(of_bits(&[255.0], 16).is_none());
    }

    #[test]
    fn damaged_weights_are_refused() {
        let bytes = small().to_bytes().unwrap();
        assert!(Classifier::load("m", &[]).is_err());
        assert!(Classifier::load("m", &bytes[..bytes.len() - 1]).is_err());
        let mut not_finite = small();
        not_finite.weights[3] = f32::INFINITY;
        assert!(Classifier::load("m", &not_finite.to_bytes().unwrap()).is_err());
        let twice = Outputs { labels: vec!["a".into(), "a".into()], urgencies: Vec::new() };
        assert!(Classifier::load("m", &Classifier::new(twice, vec![1.0; 8]).to_bytes().unwrap()).is_err());
        let odd = Outputs { labels: vec!["a".into()], urgencies: Vec::new() };
        assert!(Classifier::load("m", &Classifier::new(odd, vec![1.0; 12]).to_bytes().unwrap()).is_err());
    }

    /// All words' shares together are what the text added to the answer, against the mean of its group.
    #[test]
    fn contributions_sum_to_what_the_text_added() {
        let classifier = small();
        let text = "water in the cellar again";
        let units = features::units(text);
        let grams = features::grams(&units, classifier.features);
        let logits = classifier.logits(&classifier.vector(&grams));
        for (label, urgency) in [(0, 1), (1, 0)] {
            let above = |part: &[f32], at: usize| f64::from(part[at] - part.iter().sum::<f32>() / part.len() as f32);
            let expected = above(&logits[..2], label) + above(&logits[2..], urgency);
            let sum: f64 = classifier.added(&units, &grams, label, Some(urgency)).iter().sum();
            assert!((sum - expected).abs() < 1e-4, "{sum} {expected}");
        }
    }
}
