//! Compression: smaller networks (pruned, or a smaller one that learns from the larger) and smaller numbers (quantised).
//!
//! Promises: what comes out is an artefact like any other, with a version of its own and the figures before and after on its card; the
//! same model, data and seed give the same bytes.

mod gguf;
mod measure;
mod prune;
mod quantize;
mod text;

use std::path::Path;

pub use self::measure::{Accuracy, accuracy};
pub use self::quantize::decode;
pub use self::text::TextTest;
use crate::ModelError;
use crate::card::{Card, Metric, Task, Training, WeightsFormat};
use crate::mlp::Layout;
use crate::text::head::Head;
use crate::train::{Epoch, Lesson};

/// What is done, in this order: pruning or distillation, then quantisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compression {
    /// The share of hidden units that go; what stays then learns from the whole network, where there is data to learn on.
    pub prune: Option<f64>,
    /// The hidden units of each layer of a smaller network that learns from the whole one.
    pub distill: Option<usize>,
    /// How the numbers are kept.
    pub quantize: Option<WeightsFormat>,
    /// Passes over the data for a smaller network.
    pub epochs: usize,
    /// Seed of everything random.
    pub seed: u64,
}

/// A model, made smaller.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// Its card; its metrics are still those of the model that it was made of.
    pub card: Card,
    /// Its weights file.
    pub weights: Vec<u8>,
}

/// Compresses a model of card and weights (safetensors of 32-bit floats). `data` is what its method is trained on.
pub fn compress(
    card: &Card,
    weights: &[u8],
    how: &Compression,
    data: Option<&Path>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<Compressed, ModelError> {
    let unfit = |why: String| ModelError::Unfit { model: card.name.to_string(), why };
    let (mut small, is_bag) = (weights.to_vec(), card.task == Task::Text);
    check(card, weights, how).map_err(unfit)?;
    if let (true, Some(share)) = (is_bag, how.prune) {
        small = prune::prune_bag(card.name.as_str(), weights, share)?;
    } else if let (true, Some(layout)) = (how.prune.is_some() || how.distill.is_some(), layout(card.method())) {
        small = smaller(card, layout, weights, how, data, progress)?;
    }
    if let Some(format) = how.quantize {
        small = quantize::encode(card.name.as_str(), &small, format)?;
    }
    let digest = crate::card::digest(&small);
    let command = format!("nearside compress {}{} --out FOLDER", card.name, words(how, !is_bag));
    let mut card = card.clone();
    let from = card.reference().to_string();
    card.version = format!("{}-{}", card.version.split('-').next().unwrap_or_default(), &digest[..8]);
    card.weights = how.quantize;
    card.from = Some(from);
    card.sha256 = Some(digest);
    let training = card.training.get_or_insert_with(|| Training { seed: how.seed, ..Training::default() });
    training.command = format!("{}; then {command}", training.command);
    Ok(Compressed { card, weights: small })
}

/// Puts figures of before and after on a card, in the place of those that it has.
pub fn note_figures(card: &mut Card, before: &Accuracy, after: &Accuracy, command: &str) {
    let figure = |name: String, value: f64, on: &str| Metric {
        name,
        value: (value * 1e4).round() / 1e4,
        on: on.to_owned(),
        command: command.to_owned(),
    };
    card.metrics = vec![
        figure(after.metric.to_owned(), after.value, &after.on),
        figure(format!("{} before compression", before.metric), before.value, &before.on),
    ];
}

/// The widths of a method's network, where others than its own can be used.
pub fn layout(method: &str) -> Option<Layout> {
    use crate::anomaly::{forecaster, multivariate};
    use crate::diagnosis::glucose_forecast;
    let known = [forecaster::network::LAYOUT, multivariate::LAYOUT, glucose_forecast::LAYOUT];
    known.into_iter().find(|layout| layout.model == method)
}

/// Whether this can be done to this model; fails with why not and what can.
pub fn check(card: &Card, weights: &[u8], how: &Compression) -> Result<(), String> {
    let option = match (how.prune, how.distill) {
        (None, None) => return Ok(()),
        (Some(_), Some(_)) => return Err("--prune and --distill both make it smaller; choose one".to_owned()),
        (Some(share), None) if !(share > 0.0 && share < 1.0) => {
            return Err("--prune takes a share above 0 and below 1".to_owned());
        }
        (Some(_), None) => "--prune",
        (None, Some(_)) => "--distill",
    };
    let method = card.method();
    match (layout(method), how.distill) {
        (None, None) if card.task == Task::Text && !Head::is_head(weights) => Ok(()),
        (None, None) if card.task == Task::Text => Err(
            "--prune: a head on an encoder has a row for each number of the encoder's embedding; it can be quantised (--quantize)".to_owned()
        ),
        (None, Some(_)) if card.task == Task::Text => Err(
            "--distill: a classifier of texts has no hidden units; a bag of n-grams can be pruned (--prune), and both it and a head on an encoder quantised (--quantize)".to_owned()
        ),
        (None, _) => Err(format!("{option}: the network of `{method}` has one width only; it can be quantised (--quantize). --prune and --distill are for forecaster, multivariate and glucose-forecast, --prune for classifiers of texts too")),
        (Some(layout), Some(units)) if !(1..layout.hidden).contains(&units) => Err(format!(
            "--distill {units}: the network of `{method}` has {0} units a layer, and a smaller one takes 1 to {1}",
            layout.hidden,
            layout.hidden - 1
        )),
        _ => Ok(()),
    }
}

fn smaller(
    card: &Card,
    layout: Layout,
    weights: &[u8],
    how: &Compression,
    data: Option<&Path>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<Vec<u8>, ModelError> {
    let start = how.prune.map(|share| prune::prune(layout, weights, share)).transpose()?;
    let mut lesson = Lesson::of(card.method(), data, how.seed)?;
    let hidden = how.distill.unwrap_or(layout.hidden);
    lesson.learn_from(layout, weights, hidden, start, how.epochs, progress)
}

/// What the command says; of passes and seed only where something `learns` of them.
fn words(how: &Compression, learns: bool) -> String {
    let mut words = String::new();
    if let Some(share) = how.prune {
        words.push_str(&format!(" --prune {share}"));
    }
    if let Some(hidden) = how.distill {
        words.push_str(&format!(" --distill {hidden}"));
    }
    match how.quantize {
        Some(WeightsFormat::F16) => words.push_str(" --quantize f16"),
        Some(WeightsFormat::Q8_0) => words.push_str(" --quantize q8_0"),
        Some(WeightsFormat::Q4_0) => words.push_str(" --quantize q4_0"),
        None => {}
    }
    if learns && (how.prune.is_some() || how.distill.is_some()) {
        words.push_str(&format!(" --epochs {} --seed {}", how.epochs, how.seed));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_on_the_card_says_all_that_the_bytes_depend_on() {
        let how =
            Compression { prune: None, distill: Some(16), quantize: Some(WeightsFormat::Q8_0), epochs: 9, seed: 4 };
        assert_eq!(words(&how, true), " --distill 16 --quantize q8_0 --epochs 9 --seed 4");
        assert_eq!(words(&Compression { distill: None, ..how }, true), " --quantize q8_0");
        let pruned = Compression { distill: None, prune: Some(0.5), ..how };
        assert_eq!(words(&pruned, false), " --prune 0.5 --quantize q8_0");
    }
}
