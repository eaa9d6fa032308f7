//! A head: what a site's labelled texts taught on top of a sentence encoder.
//!
//! ```text
//! y = Wᵀe + b             [labels + urgencies], softmax of each part; e is the text's embedding
//! s = max over labels of e·c   c is the mean embedding of the label's texts, of length 1
//! ```
//! A text that is less like the texts of every label than nearly all texts it learnt from, `s` below `familiar`, is unfamiliar: it is in
//! another language, about something else or without meaning, and no probability of `y` is to be believed.
//!
//! `e` is a mean of the pieces' rows over its length, so what a piece added to `y` is read off exactly (promise I6).

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::classifier::{Outputs, Scores, check, softmax};
use super::encoder::Encoder;
use crate::ModelError;

/// Where the file's header says what the head is.
const HEADER: &str = "head";
/// Widest embedding that is loaded.
const WIDEST: usize = 2_048;

/// What the header says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meaning {
    /// What the outputs mean.
    pub outputs: Outputs,
    /// The encoder's digest.
    pub encoder: String,
    /// Likeness (cosine) below which a text is unfamiliar.
    pub familiar: f32,
}

/// The weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    pub(crate) meaning: Meaning,
    /// `[hidden, outputs]`, row-major.
    pub(crate) weights: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    /// `[labels, hidden]`, row-major, each row of length 1.
    pub(crate) centres: Vec<f32>,
}

/// What a head says of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The probabilities.
    pub scores: Scores,
    /// How like the most similar label's texts it is: a cosine, −1 to 1.
    pub likeness: f32,
    /// Whether that is enough to believe the probabilities.
    pub is_familiar: bool,
}

impl Head {
    /// Whether weights are those of a head.
    pub fn is_head(bytes: &[u8]) -> bool {
        let header = SafeTensors::read_metadata(bytes).ok().and_then(|(_, header)| header.metadata().clone());
        header.is_some_and(|header| header.contains_key(HEADER))
    }

    /// What the outputs mean.
    pub const fn outputs(&self) -> &Outputs {
        &self.meaning.outputs
    }

    /// The digest of the encoder that it was trained on.
    pub fn encoder(&self) -> &str {
        &self.meaning.encoder
    }

    /// The width of the embeddings that it takes.
    pub const fn hidden(&self) -> usize {
        self.weights.len() / self.bias.len()
    }

    /// `y` of an embedding.
    pub fn logits(&self, embedding: &[f32]) -> Vec<f32> {
        let mut logits = self.bias.clone();
        for (value, row) in embedding.iter().zip(self.weights.chunks_exact(self.bias.len())) {
            logits.iter_mut().zip(row).for_each(|(logit, weight)| *logit += value * weight);
        }
        logits
    }

    /// `s` of an embedding.
    pub fn likeness(&self, embedding: &[f32]) -> f32 {
        let dot = |centre: &[f32]| centre.iter().zip(embedding).map(|(a, b)| a * b).sum::<f32>();
        self.centres.chunks_exact(self.hidden()).map(dot).fold(-1.0, f32::max)
    }

    /// What logits and likeness say.
    pub fn answer(&self, logits: &[f32], likeness: f32) -> Answer {
        let (labels, urgencies) = logits.split_at(self.outputs().labels.len().min(logits.len()));
        let scores = Scores { labels: softmax(labels), urgencies: softmax(urgencies) };
        Answer { scores, likeness, is_familiar: likeness >= self.meaning.familiar }
    }

    /// What it says of an embedding.
    pub fn judge(&self, embedding: &[f32]) -> Answer {
        self.answer(&self.logits(embedding), self.likeness(embedding))
    }

    /// What each piece of a text added to the log odds of its label and urgency, against the average of the others.
    pub fn added(&self, encoder: &Encoder, layer: &[f32], length: f32, logits: &[f32]) -> Vec<f32> {
        let preference = self.preference(logits);
        let dot = |row: &[f32]| row.iter().zip(&preference).map(|(a, b)| a * b).sum::<f32>() / length;
        layer.chunks_exact(encoder.hidden()).map(dot).collect()
    }

    /// For each number of the embedding, how much it speaks for the most probable label and urgency.
    fn preference(&self, logits: &[f32]) -> Vec<f32> {
        let labels = self.outputs().labels.len();
        let parts = [0..labels, labels..self.bias.len()];
        let chosen = parts.map(|part| {
            let highest = part.clone().max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            (part, highest)
        });
        let of_row = |row: &[f32]| {
            let above = |(part, highest): &(std::ops::Range<usize>, Option<usize>)| {
                let mean = row[part.clone()].iter().sum::<f32>() / part.len().max(1) as f32;
                highest.map_or(0.0, |highest| row[highest] - mean)
            };
            chosen.iter().map(above).sum()
        };
        self.weights.chunks_exact(self.bias.len()).map(of_row).collect()
    }

    /// The weights as a safetensors file of 32-bit floats.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        let (hidden, width) = (self.hidden(), self.bias.len());
        let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
        let tensors = BTreeMap::from([
            ("head.weight", tensor(&self.weights, &[hidden, width])?),
            ("head.bias", tensor(&self.bias, &[width])?),
            ("head.centres", tensor(&self.centres, &[self.outputs().labels.len(), hidden])?),
        ]);
        let damaged = |why: String| ModelError::Damaged { model: String::from(super::triage::NAME), why };
        let meaning = serde_json::to_string(&self.meaning).map_err(|error| damaged(error.to_string()))?;
        let header = HashMap::from([(HEADER.to_owned(), meaning)]);
        safetensors::serialize(tensors, Some(header)).map_err(|error| damaged(error.to_string()))
    }

    /// Reads a safetensors file; fails where it does not hold what the header says or a number is not finite.
    pub fn load(model: &str, bytes: &[u8]) -> Result<Self, ModelError> {
        let damaged = |why: &str| ModelError::Damaged { model: model.to_owned(), why: why.to_owned() };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(&error.to_string()))?;
        let meaning = header.metadata().as_ref().and_then(|header| header.get(HEADER));
        let meaning = meaning.ok_or_else(|| damaged("its header does not say what the outputs mean"))?;
        let meaning: Meaning = serde_json::from_str(meaning).map_err(|error| damaged(&error.to_string()))?;
        check(&meaning.outputs).map_err(|why| damaged(&why))?;
        if meaning.encoder.len() != 64 || !meaning.encoder.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(damaged("its header does not name an encoder by SHA-256"));
        }
        if !(-1.0..=1.0).contains(&meaning.familiar) {
            return Err(damaged("its header's likeness is no cosine"));
        }
        let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(&error.to_string()))?;
        let hidden = file.tensor("head.weight").map_err(|error| damaged(&error.to_string()))?.shape().first().copied();
        let hidden = hidden.filter(|hidden| (1..=WIDEST).contains(hidden));
        let hidden = hidden.ok_or_else(|| damaged("head.weight is not 1 to 2048 wide"))?;
        let read = |name: &str, shape: &[usize]| -> Result<Vec<f32>, ModelError> {
            let view = file.tensor(name).map_err(|error| damaged(&error.to_string()))?;
            if view.shape() != shape || view.dtype() != Dtype::F32 {
                return Err(damaged(&format!("{name} is not {shape:?} of 32-bit floats")));
            }
            let floats = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            let values: Vec<f32> = floats.collect();
            if values.iter().all(|value| value.is_finite()) {
                Ok(values)
            } else {
                Err(damaged(&format!("{name} holds a number that is not finite")))
            }
        };
        let (width, labels) = (meaning.outputs.len(), meaning.outputs.labels.len());
        let (weights, bias) = (read("head.weight", &[hidden, width])?, read("head.bias", &[width])?);
        Ok(Self { weights, bias, centres: read("head.centres", &[labels, hidden])?, meaning })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Head {
        let outputs = Outputs { labels: vec!["a".into(), "b".into()], urgencies: vec!["low".into(), "high".into()] };
        let meaning = Meaning { outputs, encoder: "0f".repeat(32), familiar: 0.5 };
        let weights = vec![4.0, 0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0];
        Head { meaning, weights, bias: vec![0.0; 4], centres: vec![1.0, 0.0, 0.0, 1.0] }
    }

    #[test]
    fn what_is_like_no_label_is_unfamiliar_and_what_is_read_back_says_the_same() {
        let head = small();
        let bytes = head.to_bytes().unwrap();
        assert!(Head::is_head(&bytes) && !Head::is_head(&bytes[..9]));
        let read = Head::load("m", &bytes).unwrap();
        assert_eq!(read, head);
        let near = read.judge(&[1.0, 0.0]);
        assert!(near.is_familiar && near.scores.label().0 == 0 && near.scores.urgency().unwrap().0 == 1, "{near:?}");
        let far = read.judge(&[-0.8, -0.6]);
        assert!(!far.is_familiar && far.likeness < 0.0, "{far:?}");
    }

    #[test]
    fn damaged_heads_are_refused() {
        let good = small();
        let refused = |head: &Head| Head::load("m", &head.to_bytes().unwrap()).is_err();
        let bytes = good.to_bytes().unwrap();
        assert!(Head::load("m", &[]).is_err() && Head::load("m", &bytes[..bytes.len() - 1]).is_err());
        let mut bad = good.clone();
        bad.centres[1] = f32::NAN;
        assert!(refused(&bad));
        let mut bad = good.clone();
        bad.meaning.encoder = String::from("../../etc");
        assert!(refused(&bad));
        let mut bad = good;
        bad.meaning.familiar = 7.0;
        assert!(refused(&bad));
    }
}
