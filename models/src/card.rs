//! A model's card: what it is for, what it takes and gives, what it was trained on, how good it is and how to check that.
//!
//! A model is a folder with `card.toml` and, where it has weights, `model.safetensors`. Promises: weights are used only if
//! their SHA-256 is the one on the card; an unknown key on a card is an error, not a surprise later.

use std::path::Path;

use nearside_schemas::{ModelName, ModelRef};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ModelError;

/// The card's file name in a model's folder.
pub const CARD_FILE: &str = "card.toml";
/// The weights' file name in a model's folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Weights larger than this are refused: an edge gateway's models are small, and a damaged length must not fill the memory.
const MAX_WEIGHTS: u64 = 64 << 20;
/// A card larger than this is refused.
const MAX_CARD: u64 = 256 << 10;

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

/// A model's card, as `card.toml` holds it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The name in the catalogue.
    pub name: ModelName,
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
    /// Rows from which a model first learns what is usual for a stream; absent for a model without such a phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up_rows: Option<u32>,
    /// SHA-256 of `model.safetensors` in hexadecimal; absent for a model without weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
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

/// How a model was trained.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
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
    /// Reads a card's text. `name` is the model it must be for.
    pub fn parse(name: &str, text: &str) -> Result<Self, ModelError> {
        let damaged = |why: String| ModelError::Damaged { model: name.to_owned(), why };
        let card: Self = toml::from_str(text).map_err(|error| damaged(format!("{CARD_FILE}: {error}")))?;
        if card.name.as_str() != name {
            return Err(damaged(format!("{CARD_FILE} is the card of `{}`", card.name)));
        }
        if !(card.threshold > 0.0 && card.threshold <= 1.0) {
            return Err(damaged(format!("{CARD_FILE}: the threshold {} is not above 0 and up to 1", card.threshold)));
        }
        Ok(card)
    }

    /// The name and version that findings carry.
    pub fn reference(&self) -> ModelRef {
        ModelRef { name: self.name.clone(), version: self.version.as_str().into() }
    }

    /// Whether these are the weights that the card describes; without a digest on the card there must be none.
    pub fn check_weights(&self, weights: &[u8]) -> Result<(), ModelError> {
        let damaged = |why: String| Err(ModelError::Damaged { model: self.name.to_string(), why });
        match &self.sha256 {
            Some(stated) if !stated.eq_ignore_ascii_case(&digest(weights)) => damaged(format!(
                "{WEIGHTS_FILE} does not have the SHA-256 on the card; fetch the folder again or train the model anew"
            )),
            None if !weights.is_empty() => damaged(format!("{CARD_FILE} has no sha256 for {WEIGHTS_FILE}")),
            _ => Ok(()),
        }
    }
}

/// SHA-256 in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a model's card and its weights (empty where the card states none) from a folder and checks the digest.
pub fn read_folder(name: &str, folder: &Path) -> Result<(Card, Vec<u8>), ModelError> {
    let text = read_bounded(name, &folder.join(CARD_FILE), MAX_CARD)?;
    let text = String::from_utf8(text)
        .map_err(|_| ModelError::Damaged { model: name.to_owned(), why: format!("{CARD_FILE} is not UTF-8") })?;
    let card = Card::parse(name, &text)?;
    let weights = match card.sha256 {
        Some(_) => read_bounded(name, &folder.join(WEIGHTS_FILE), MAX_WEIGHTS)?,
        None => Vec::new(),
    };
    card.check_weights(&weights)?;
    Ok((card, weights))
}

/// Writes a model's folder; the card is written last, so a folder with a card is complete.
pub fn write_folder(folder: &Path, card: &Card, weights: &[u8]) -> Result<(), ModelError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| ModelError::File { path, source }
    };
    let text = toml::to_string(card)
        .map_err(|error| ModelError::Damaged { model: card.name.to_string(), why: format!("{CARD_FILE}: {error}") })?;
    std::fs::create_dir_all(folder).map_err(file(folder))?;
    let (weights_path, card_path) = (folder.join(WEIGHTS_FILE), folder.join(CARD_FILE));
    std::fs::write(&weights_path, weights).map_err(file(&weights_path))?;
    std::fs::write(&card_path, text).map_err(file(&card_path))
}

fn read_bounded(name: &str, path: &Path, most: u64) -> Result<Vec<u8>, ModelError> {
    let file = |source| ModelError::File { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(file)?.len();
    if size > most {
        let why = format!("{} has {size} bytes; at most {most} are read", path.display());
        return Err(ModelError::Damaged { model: name.to_owned(), why });
    }
    std::fs::read(path).map_err(file)
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
    fn weights_must_be_the_ones_on_the_card() {
        let folder = tempfile::tempdir().unwrap();
        let stated = card(&format!("sha256 = \"{}\"\n", digest(b"weights")));
        std::fs::write(folder.path().join(CARD_FILE), &stated).unwrap();
        assert!(matches!(read_folder("m", folder.path()), Err(ModelError::File { .. })), "no weights there");
        std::fs::write(folder.path().join(WEIGHTS_FILE), b"weights").unwrap();
        assert_eq!(read_folder("m", folder.path()).unwrap().1, b"weights");
        std::fs::write(folder.path().join(WEIGHTS_FILE), b"weightz").unwrap();
        assert!(matches!(read_folder("m", folder.path()), Err(ModelError::Damaged { .. })));
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
