//! A model's card: what it is for, what it takes and gives, what it was trained on, how good it is and how to check that.
//!
//! The folder that a card and its weights stand in is [`crate::artefact`]'s. Promises: weights are used only if their SHA-256 is the
//! one on the card; an unknown key on a card is an error, not a surprise later.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use nearside_schemas::{ModelName, ModelRef};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ModelError;
pub use crate::artefact::write as write_folder;

/// The card's file name in a model's folder.
pub const CARD_FILE: &str = "card.toml";
/// The names that weights may have in a model's folder: as they are trained, and quantised.
pub const WEIGHTS_FILES: [&str; 2] = ["model.safetensors", "model.gguf"];
/// The cards that are understood.
const SCHEMA: u32 = 1;

/// What a model is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Finds what is out of the ordinary in a stream.
    Anomaly,
    /// Decision support for patients: suggests, never diagnoses.
    Diagnosis,
    /// Says what a text is about and how urgent it is: suggests.
    Text,
}

/// How numbers are kept in a weights file. In memory they are 32-bit floats again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightsFormat {
    /// 16-bit floats, in `model.safetensors`.
    F16,
    /// Blocks of 32 numbers of 8 bits with a common scale (GGML's Q8_0), in `model.gguf`; vectors other than biases stay floats.
    Q8_0,
    /// Blocks of 32 numbers of 4 bits with a common scale (GGML's Q4_0), in `model.gguf`; vectors stay floats, of 16 bits where those do.
    Q4_0,
}

/// A model's card, as `card.toml` holds it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The name that streams use: that of a model that ships, or a site's own.
    pub name: ModelName,
    /// Which cards it is one of; absent: the first, 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<u32>,
    /// The model in the catalogue whose weights these are; absent: the one of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Which version of method and weights this is; findings name it.
    pub version: String,
    /// What it is for.
    pub task: Task,
    /// What it does, for people.
    pub summary: String,
    /// What it takes, one line each.
    pub inputs: Vec<String>,
    /// What it gives, one line each.
    pub outputs: Vec<String>,
    /// The score from which on it flags, the same for every stream.
    pub threshold: f64,
    /// Settings of the method by name, in the units that their names state. A card need not repeat those that ship.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, f64>,
    /// Of a model of texts: what some of its labels mean; absent on cards of before there was such a table, where names decide: a label `other` is
    /// no opinion, and `none`, `other`, `routine`, `normal` and `praise` ask for nothing.
    #[serde(default, rename = "labels", skip_serializing_if = "Option::is_none")]
    pub label_roles: Option<LabelRoles>,
    /// Rows from which a model first learns what is usual for a stream; absent for a model without such a phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up_rows: Option<u32>,
    /// How the weights are kept; absent: 32-bit floats in `model.safetensors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsFormat>,
    /// SHA-256 of the weights' file (before encryption at rest) in hexadecimal; absent for a model without weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The model and version that it began from; absent: from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The weights that were left, when it was trained on from there, as they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<String>,
    /// Where the method comes from.
    #[serde(default)]
    pub sources: Vec<String>,
    /// What is known not to work.
    #[serde(default)]
    pub limits: Vec<String>,
    /// How it was trained; absent for a model without training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// How good it is.
    #[serde(default)]
    pub metrics: Vec<Metric>,
}

/// What some labels of a model of texts mean: `[labels]` on its card. All others are what they are called.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelRoles {
    /// Of texts that it has no opinion on (small talk, other languages): a text that is more likely of these than of all others together is not
    /// flagged, however urgent it looks.
    pub no_opinion: Vec<String>,
    /// Of texts that ask for nothing: where there are no urgencies a text of such a label is not flagged.
    pub quiet: Vec<String>,
}

/// How a model was trained.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The command that trains it again.
    pub command: String,
    /// The seed of everything random.
    pub seed: u64,
    /// What it was trained on.
    pub data: Vec<TrainingData>,
}

/// A data set that a model was trained on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingData {
    /// Its name and which part of it.
    pub name: String,
    /// Its licence.
    pub licence: String,
}

/// A measured figure.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// What was measured.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// On what, and by which protocol.
    pub on: String,
    /// The command that measures it again.
    pub command: String,
}

impl Card {
    /// The labels that its outputs name, as findings carry them. An output is a sentence: labels with commas between them, each perhaps
    /// with words in brackets, and after a semicolon what comes with them. Where a colon stands in it only `labels:` begins a list of labels.
    pub fn labels(&self) -> BTreeSet<String> {
        let mut labels = BTreeSet::new();
        for output in &self.outputs {
            let listed = without_brackets(output.split(';').next().unwrap_or_default());
            let words = |text: &str| text.split(',').map(|word| word.trim().to_owned()).collect::<Vec<String>>();
            match listed.split_once(':') {
                Some((what, rest)) if what.trim() == "labels" => {
                    labels.extend(words(rest).iter().map(|word| word_of(word)));
                }
                Some(_) => {}
                // What has several words says something of a label before it.
                None => labels.extend(words(&listed).into_iter().filter(|word| !word.contains(' '))),
            }
        }
        labels.remove("");
        labels
    }

    /// Reads a card's text. `name` is the model it must be for.
    pub fn parse(name: &str, text: &str) -> Result<Self, ModelError> {
        let card = Self::read(name, text)?;
        if card.name.as_str() != name {
            let why = format!(
                "{CARD_FILE} is the card of `{0}`: name the folder so, or write name = \"{name}\" into it, and method = \"{1}\" where it has no method",
                card.name,
                card.method()
            );
            return Err(ModelError::Damaged { model: name.to_owned(), why });
        }
        Ok(card)
    }

    /// Reads the text of a card of any model; `label` is for errors.
    pub fn read(label: &str, text: &str) -> Result<Self, ModelError> {
        let damaged = |why: String| ModelError::Damaged { model: label.to_owned(), why: format!("{CARD_FILE}: {why}") };
        // Looked at first: a card of a later schema may hold keys that this one does not know.
        if let Ok(Versioned { schema }) = toml::from_str(text)
            && schema > SCHEMA
        {
            return Err(damaged(format!(
                "its schema {schema} is newer than {SCHEMA}, which this program reads; bring the program up to date"
            )));
        }
        let card: Self = toml::from_str(text).map_err(|error| damaged(error.to_string()))?;
        if !(card.threshold > 0.0 && card.threshold <= 1.0) {
            return Err(damaged(format!("the threshold {} is not above 0 and up to 1", card.threshold)));
        }
        Ok(card)
    }

    /// The model in the catalogue whose weights these are.
    pub fn method(&self) -> &str {
        self.method.as_deref().unwrap_or(self.name.as_str())
    }

    /// The name of the file that the weights are in.
    pub const fn weights_file(&self) -> &'static str {
        match self.weights {
            None | Some(WeightsFormat::F16) => WEIGHTS_FILES[0],
            Some(WeightsFormat::Q8_0 | WeightsFormat::Q4_0) => WEIGHTS_FILES[1],
        }
    }

    /// The name and version that findings carry.
    pub fn reference(&self) -> ModelRef {
        ModelRef { name: self.name.clone(), version: self.version.as_str().into() }
    }

    /// A setting of the method: as the card says, or `usual`. Fails where it is not within `range`.
    pub fn option(&self, name: &str, usual: f64, range: RangeInclusive<f64>) -> Result<f64, ModelError> {
        let value = self.options.get(name).copied().unwrap_or(usual);
        if range.contains(&value) {
            return Ok(value);
        }
        let why =
            format!("{CARD_FILE}: the option `{name}` is {value} and must be {} to {}", range.start(), range.end());
        Err(ModelError::Damaged { model: self.name.to_string(), why })
    }

    /// Whether these are the weights that the card describes; without a digest on the card there must be none.
    pub fn check_weights(&self, weights: &[u8]) -> Result<(), ModelError> {
        let damaged = |why: String| Err(ModelError::Damaged { model: self.name.to_string(), why });
        match &self.sha256 {
            Some(stated) if !stated.eq_ignore_ascii_case(&digest(weights)) => damaged(format!(
                "{} does not have the SHA-256 on the card; fetch the folder again or train the model anew",
                self.weights_file()
            )),
            None if !weights.is_empty() => damaged(format!("{CARD_FILE} has no sha256 for its weights")),
            _ => Ok(()),
        }
    }
}

/// SHA-256 in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of a card only what tells which cards it is one of.
#[derive(Deserialize)]
struct Versioned {
    #[serde(default)]
    schema: u32,
}

/// A label as findings carry it: a word of identifiers.
pub(crate) fn word_of(label: &str) -> String {
    label.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

/// The text without what stands in brackets.
fn without_brackets(text: &str) -> String {
    let outside = text.split('(').enumerate().map(|(n, part)| match part.split_once(')') {
        Some((_, after)) if n > 0 => after,
        _ if n > 0 => "",
        _ => part,
    });
    outside.collect()
}

/// What a card calls a folder of data: never its path, which says something of the machine.
pub(crate) fn folder_name(folder: &Path, otherwise: &str) -> String {
    folder.file_name().map_or_else(|| otherwise.to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(extra: &str) -> String {
        format!(
            "name = \"m\"\nversion = \"1\"\ntask = \"anomaly\"\nsummary = \"s\"\ninputs = []\noutputs = []\nthreshold = 0.5\n{extra}"
        )
    }

    #[test]
    fn a_card_says_what_is_wrong_with_it() {
        assert!(Card::parse("m", &card("")).is_ok());
        for (name, text) in [
            ("other", card("")),
            ("m", card("colour = \"red\"\n")),
            ("m", card("").replace("0.5", "0")),
            ("m", card("").replace("0.5", "nan")),
            ("m", String::from("not toml")),
        ] {
            assert!(matches!(Card::parse(name, &text), Err(ModelError::Damaged { .. })), "{text}");
        }
    }

    #[test]
    fn labels_are_told_from_what_is_said_of_them() {
        let labels = |outputs: &[&str]| {
            let mut card = Card::parse("m", &card("")).unwrap();
            card.outputs = outputs.iter().map(|output| (*output).to_owned()).collect();
            card.labels().into_iter().collect::<Vec<String>>()
        };
        assert_eq!(
            labels(&["drop, flat_line (it repeats, always); with a band", "low, while it is below 7"]),
            ["drop", "flat_line", "low"]
        );
        assert_eq!(labels(&["labels: lost card, fee", "urgencies: soon, now"]), ["fee", "lost_card"]);
        let shipped = crate::catalog::labels("text-triage");
        assert!(shipped.contains("chest_pain") && !shipped.contains("soon"));
        for name in crate::catalog::names() {
            let labels = crate::catalog::labels(name);
            let is_word = |label: &String| label.chars().all(|c| c.is_ascii_lowercase() || "_-2".contains(c));
            assert!(!labels.is_empty() && labels.iter().all(is_word), "{name}: {labels:?}");
        }
    }

    #[test]
    fn a_card_survives_being_written() {
        let read =
            Card::parse("m", &card("[[metrics]]\nname = \"n\"\nvalue = 1.5\non = \"x\"\ncommand = \"c\"\n")).unwrap();
        assert_eq!(Card::parse("m", &toml::to_string(&read).unwrap()).unwrap(), read);
    }

    #[test]
    fn the_digest_is_sha_256() {
        assert_eq!(digest(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
