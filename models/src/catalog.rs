//! The catalogue: one explicit table of every model. Adding a model is its file and its row.
//!
//! The default weights are part of the binary; a folder with `card.toml` and weights replaces them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::ModelError;
use crate::anomaly::forecaster::Forecaster;
use crate::anomaly::multivariate::Multivariate;
use crate::anomaly::robust_z::RobustZ;
use crate::anomaly::sensor_check::SensorCheck;
use crate::artefact::{self, Trust};
use crate::card::{self, Card, Task};
use crate::compress;
use crate::diagnosis::deterioration::Deterioration;
use crate::diagnosis::ecg::EcgRhythm;
use crate::diagnosis::glucose_forecast::GlucoseForecast;
use crate::diagnosis::glucose_range::GlucoseRange;
use crate::diagnosis::motion::activity::ActivityModel;
use crate::diagnosis::motion::sleep::SleepModel;
use crate::diagnosis::news2::News2;
use crate::row_model::RowModel;
use crate::text::{Encoders, TextTriage};

/// Makes a model of its card and checked weights.
type Build = fn(Card, &[u8], &Encoders) -> Result<Arc<dyn RowModel>, ModelError>;

struct Entry {
    name: &'static str,
    card: &'static str,
    weights: &'static [u8],
    build: Build,
}

const TABLE: &[Entry] = &[
    Entry {
        name: "robust-z",
        card: include_str!("../weights/robust-z/card.toml"),
        weights: &[],
        build: |card, _, _| Ok(Arc::new(RobustZ::new(&card))),
    },
    Entry {
        name: "forecaster",
        card: include_str!("../weights/forecaster/card.toml"),
        weights: include_bytes!("../weights/forecaster/model.safetensors"),
        build: |card, weights, _| Ok(Arc::new(Forecaster::new(&card, weights)?)),
    },
    Entry {
        name: "multivariate",
        card: include_str!("../weights/multivariate/card.toml"),
        weights: include_bytes!("../weights/multivariate/model.safetensors"),
        build: |card, weights, _| Ok(Arc::new(Multivariate::new(&card, weights)?)),
    },
    Entry {
        name: "news2",
        card: include_str!("../weights/news2/card.toml"),
        weights: &[],
        build: |card, _, _| Ok(Arc::new(News2::new(&card)?)),
    },
    Entry {
        name: "deterioration",
        card: include_str!("../weights/deterioration/card.toml"),
        weights: include_bytes!("../weights/deterioration/model.safetensors"),
        build: |card, weights, _| Ok(Arc::new(Deterioration::new(&card, weights)?)),
    },
    Entry {
        name: "sensor-check",
        card: include_str!("../weights/sensor-check/card.toml"),
        weights: &[],
        build: |card, _, _| Ok(Arc::new(SensorCheck::new(&card))),
    },
    Entry {
        name: "glucose-range",
        card: include_str!("../weights/glucose-range/card.toml"),
        weights: &[],
        build: |card, _, _| Ok(Arc::new(GlucoseRange::new(&card))),
    },
    Entry {
        name: "glucose-forecast",
        card: include_str!("../weights/glucose-forecast/card.toml"),
        weights: include_bytes!("../weights/glucose-forecast/model.safetensors"),
        build: |card, weights, _| Ok(Arc::new(GlucoseForecast::new(&card, weights)?)),
    },
    Entry {
        name: "ecg-rhythm",
        card: include_str!("../weights/ecg-rhythm/card.toml"),
        weights: include_bytes!("../weights/ecg-rhythm/model.safetensors"),
        build: |card, weights, _| Ok(Arc::new(EcgRhythm::new(&card, weights)?)),
    },
    Entry {
        name: "activity",
        card: include_str!("../weights/activity/card.toml"),
        weights: include_bytes!("../weights/activity/model.safetensors"),
        build: |card, weights, _| Ok(Arc::new(ActivityModel::new(&card, weights)?)),
    },
    Entry {
        name: "sleep",
        card: include_str!("../weights/sleep/card.toml"),
        weights: include_bytes!("../weights/sleep/model.safetensors"),
        build: |card, weights, _| Ok(Arc::new(SleepModel::new(&card, weights)?)),
    },
    Entry {
        name: "text-triage",
        card: include_str!("../weights/text-triage/card.toml"),
        weights: include_bytes!("../weights/text-triage/model.safetensors"),
        build: |card, weights, encoders| Ok(Arc::new(TextTriage::new(&card, weights, encoders)?)),
    },
];

/// The names of all models, in the order of the table.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|entry| entry.name)
}

/// Loads a model: from `folder`, or the one that ships with the binary. Weights whose SHA-256 is not the one on the card
/// are refused.
pub fn load(name: &str, folder: Option<&Path>) -> Result<Arc<dyn RowModel>, ModelError> {
    let (card, weights) = parts(name, folder)?;
    build(card, &weights)
}

/// A model's card and its checked weights as 32-bit floats: from `folder`, whoever signed it, or those that ship with the binary.
pub fn parts(name: &str, folder: Option<&Path>) -> Result<(Card, Cow<'static, [u8]>), ModelError> {
    let entry = entry(name)?;
    match folder {
        Some(folder) => {
            let artefact::Artefact { card, weights, .. } = artefact::read(folder, &Trust::default())?;
            if card.method() != name {
                let why = format!("it holds a model of the method `{}`", card.method());
                return Err(ModelError::Damaged { model: name.to_owned(), why });
            }
            let floats = compress::decode(name, &weights)?.into_owned();
            Ok((card, Cow::Owned(floats)))
        }
        None => {
            let card = Card::parse(name, entry.card)?;
            card.check_weights(entry.weights)?;
            Ok((card, Cow::Borrowed(entry.weights)))
        }
    }
}

/// Makes a model of a card and weights in any format: of a folder, freshly trained, or with another threshold. What the card says must suit the
/// model whose weights these are.
pub fn build(card: Card, weights: &[u8]) -> Result<Arc<dyn RowModel>, ModelError> {
    build_on(card, weights, &Encoders::default())
}

/// As [`build`], with the encoders that a site names: a text model may refer to one.
pub fn build_on(card: Card, weights: &[u8], encoders: &Encoders) -> Result<Arc<dyn RowModel>, ModelError> {
    let entry = entry(card.method())?;
    let damaged = |why: String| Err(ModelError::Damaged { model: card.name.to_string(), why });
    if card.method() != card.name.as_str() && self::entry(card.name.as_str()).is_ok() {
        return damaged(format!(
            "`{}` ships with another method than `{}`; give it another name",
            card.name,
            card.method()
        ));
    }
    let shipped = Card::parse(entry.name, entry.card)?;
    if card.task != shipped.task {
        return damaged(format!("its task is {:?}; that of `{}` is {:?}", card.task, entry.name, shipped.task));
    }
    if card.label_roles.is_some() && card.task != Task::Text {
        return damaged(format!("`{}` judges no texts, so its card has no table `labels`", entry.name));
    }
    if let Some(unknown) = card.options.keys().find(|name| !shipped.options.contains_key(*name)) {
        let known: Vec<&str> = shipped.options.keys().map(String::as_str).collect();
        let known = if known.is_empty() { String::from("it has none") } else { format!("it has {}", known.join(", ")) };
        return damaged(format!("`{}` has no option `{unknown}`; {known}", entry.name));
    }
    if weights.is_empty() != entry.weights.is_empty() {
        let (has, does) = if weights.is_empty() { ("no", "needs") } else { ("", "has no") };
        return damaged(format!("it has {has} weights and the method `{}` {does} any", entry.name));
    }
    let floats = compress::decode(card.name.as_str(), weights)?;
    (entry.build)(card, &floats, encoders)
}

/// The card of a model: from `folder`, or of the one that ships with the binary.
pub fn card(name: &str, folder: Option<&Path>) -> Result<Card, ModelError> {
    parts(name, folder).map(|(card, _)| card)
}

/// The labels that a model that ships gives; none of a name that is nobody's. Its weights are not looked at.
pub fn labels(name: &str) -> BTreeSet<String> {
    let card = entry(name).and_then(|entry| Card::parse(name, entry.card));
    card.map(|card| card.labels()).unwrap_or_default()
}

/// SHA-256 of the card of a model that ships.
pub fn digest(name: &str) -> Result<String, ModelError> {
    entry(name).map(|entry| card::digest(entry.card.as_bytes()))
}

fn entry(name: &str) -> Result<&'static Entry, ModelError> {
    TABLE.iter().find(|entry| entry.name == name).ok_or_else(|| unknown(name))
}

/// The error that a name is nobody's.
pub fn unknown(name: &str) -> ModelError {
    ModelError::Unknown { name: name.chars().take(80).collect(), known: names().collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_that_ships_loads_and_says_who_it_is() {
        for name in names() {
            let model = load(name, None).unwrap();
            assert_eq!(model.reference(), &card(name, None).unwrap().reference());
            assert_eq!(model.reference().name.as_str(), name);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = load("psychic", None).err().unwrap().to_string();
        assert!(names().all(|name| error.contains(name)), "{error}");
    }
}
