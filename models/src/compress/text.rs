//! How good a model of texts is, before and after it was made smaller: the share of texts that get their true label.

use std::path::Path;

use super::{Accuracy, Compression, compress, decode};
use crate::ModelError;
use crate::card::Card;
use crate::eval::text_data::{Example, read_test};
use crate::text::Encoder;
use crate::text::classifier::{Classifier, Outputs, Scores};
use crate::text::head::Head;
use crate::train::{Epoch, Fold, GENERATED_PART, folds};

/// What a model of texts is measured on.
pub enum TextTest {
    /// Texts with their labels, for a bag of n-grams.
    Texts {
        /// The texts.
        examples: Vec<Example>,
        /// What they are.
        on: String,
    },
    /// The same for a head, each text through its encoder once.
    Embedded {
        /// The texts.
        examples: Vec<Example>,
        /// Their embeddings.
        embeddings: Vec<Vec<f32>>,
        /// What they are.
        on: String,
    },
    /// The method's own test: classifiers of generated texts, each on phrases that it has not learnt, each made as much smaller. The weights
    /// that ship have learnt every phrase, so on generated texts they are always right.
    Folds(Vec<Fold>),
    /// Nothing to measure on was named.
    Nothing,
}

impl TextTest {
    /// The part of a folder of labelled texts that `eval text` tests on; `encoder` is that of a head.
    ///
    /// # Errors
    /// Where the texts cannot be read, or the encoder is not the one that the head was trained on.
    pub fn on_data(model: &str, weights: &[u8], data: &Path, encoder: Option<&Encoder>) -> Result<Self, ModelError> {
        let weights = decode(model, weights)?;
        if !Head::is_head(&weights) {
            let (examples, on) = named(data, Classifier::load(model, &weights)?.outputs())?;
            return Ok(Self::Texts { examples, on });
        }
        let head = Head::load(model, &weights)?;
        let encoder = encoder.filter(|encoder| encoder.digest() == head.encoder()).ok_or_else(|| {
            let why = format!("it was trained on the encoder {}: name its folder with --encoder", head.encoder());
            ModelError::Unfit { model: model.to_owned(), why }
        })?;
        let (examples, on) = named(data, head.outputs())?;
        let embeddings = examples.iter().map(|example| Ok(encoder.embed(&example.text)?.0));
        Ok(Self::Embedded { embeddings: embeddings.collect::<Result<_, ModelError>>()?, examples, on })
    }

    /// Generated texts: trains a classifier for each fold of phrases.
    pub fn on_generated(seed: u64, epochs: usize, progress: &mut dyn FnMut(&Epoch)) -> Result<Self, ModelError> {
        folds(seed, epochs, progress).map(Self::Folds)
    }

    /// The accuracy of weights in any format; `made_by` is how the weights became smaller. `None` where there is nothing to measure on.
    pub fn accuracy(
        &self,
        card: &Card,
        weights: &[u8],
        made_by: Option<&Compression>,
    ) -> Result<Option<Accuracy>, ModelError> {
        let model = card.name.as_str();
        let weights = decode(model, weights)?;
        let (right, texts, on) = match self {
            Self::Nothing => return Ok(None),
            Self::Texts { examples, on } => {
                let bag = Classifier::load(model, &weights)?;
                (right(examples, |at| bag.score(&examples[at].text)), examples.len(), on.clone())
            }
            Self::Embedded { examples, embeddings, on } => {
                let head = Head::load(model, &weights)?;
                (right(examples, |at| head.judge(&embeddings[at]).scores), examples.len(), on.clone())
            }
            Self::Folds(folds) => {
                let (mut sum, mut texts) = (0, 0);
                for Fold { classifier, held_out } in folds {
                    let bag = smaller(card, classifier, made_by)?;
                    sum += right(held_out, |at| bag.score(&held_out[at].text));
                    texts += held_out.len();
                }
                (sum, texts, GENERATED_PART.to_owned())
            }
        };
        let value = 100.0 * right as f64 / texts.max(1) as f64;
        Ok(Some(Accuracy {
            metric: "label accuracy in points",
            value,
            more_is_better: true,
            on: format!("{texts} texts: {on}"),
        }))
    }
}

/// The texts of a folder that are tested on, and what they are; of the folder its name alone, for that stands on a card.
fn named(data: &Path, outputs: &Outputs) -> Result<(Vec<Example>, String), ModelError> {
    let (examples, on) = read_test(data, outputs)?;
    if examples.is_empty() {
        let why = String::from("there is no text to test on");
        return Err(ModelError::Data { path: data.to_owned(), why });
    }
    Ok((examples, format!("{on} in {}", data.file_name().unwrap_or_default().to_string_lossy())))
}

/// A classifier, made smaller as the weights were that it stands for.
fn smaller(card: &Card, classifier: &Classifier, made_by: Option<&Compression>) -> Result<Classifier, ModelError> {
    let (model, weights) = (card.name.as_str(), classifier.to_bytes()?);
    let Some(how) = made_by else { return Classifier::load(model, &weights) };
    let small = compress(card, &weights, how, None, &mut |_| ())?;
    Classifier::load(model, &decode(model, &small.weights)?)
}

/// How many texts get their label.
fn right(examples: &[Example], mut score: impl FnMut(usize) -> Scores) -> usize {
    examples.iter().enumerate().filter(|(at, example)| score(*at).label().0 == example.label).count()
}
