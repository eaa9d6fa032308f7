//! What is measured of a model before and after: the size of its weights' file, the time of a pass, and how good it is.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use nearside_models::card::{Card, Task};
use nearside_models::compress::{self, Accuracy, Compression, TextTest};
use nearside_models::diagnosis::deterioration;
use nearside_models::diagnosis::motion::{activity, sleep};
use nearside_models::text::Encoder;
use nearside_models::text::classifier::Classifier;
use nearside_models::text::head::Head;
use nearside_models::train::reports::{Wording, reports};
use nearside_models::{ModelError, catalog};

use super::super::train::{TEXT_EPOCHS, epoch_bar, show};
use super::super::{courses, motion};
use super::CompressArgs;
use crate::error::StartError;

/// Rows of a measured forward pass, what a network takes at once; texts that are scored one after another.
const ROWS: usize = 64;
/// Passes that are measured; the median counts.
const PASSES: usize = 401;
/// How often what takes long shows that it goes on.
const TICK: Duration = Duration::from_millis(200);

/// What is measured of a model.
pub(super) struct Figures {
    /// Bytes of the weights' file.
    pub(super) bytes: usize,
    /// The median time of a pass, µs; `None` of a head, whose encoder takes nearly all of it.
    pub(super) pass_us: Option<f64>,
    /// `None` where nothing can be measured on: no data was named.
    pub(super) accuracy: Option<Accuracy>,
    is_of_texts: bool,
}

impl Figures {
    /// What the time of a pass is called in JSON.
    pub(super) const fn pass_name(&self) -> &'static str {
        if self.is_of_texts { "scoring_64_texts_us" } else { "pass_of_64_rows_us" }
    }
}

/// What models are measured with.
pub(super) struct Measure<'a> {
    args: &'a CompressArgs,
    /// Of a model of texts, what it is tested on.
    texts: Option<TextTest>,
}

impl<'a> Measure<'a> {
    pub(super) fn new(args: &'a CompressArgs, card: &Card, weights: &[u8]) -> Result<Self, StartError> {
        let texts = (card.task == Task::Text).then(|| texts(args, card, weights)).transpose()?;
        Ok(Self { args, texts })
    }

    /// The figures of weights (32-bit floats) whose file has so many bytes; `made_by` is how they became smaller.
    pub(super) fn figures(
        &self,
        card: &Card,
        floats: &[u8],
        bytes: usize,
        made_by: Option<&Compression>,
    ) -> Result<Figures, StartError> {
        let what = if made_by.is_none() { "measures the model as it is" } else { "measures the smaller model" };
        // Simulating plants or people to measure on takes a minute.
        let bar = waiting(what);
        let accuracy = match &self.texts {
            Some(texts) => texts.accuracy(card, floats, made_by),
            None => self.accuracy(card, floats),
        };
        bar.finish_and_clear();
        let card = Card { sha256: None, ..card.clone() };
        let pass_us = match &self.texts {
            Some(_) if Head::is_head(floats) => None,
            Some(_) => Some(texts_us(&card, floats)?),
            None => Some(pass_us(card, floats)?),
        };
        Ok(Figures { bytes, pass_us, accuracy: accuracy?, is_of_texts: self.texts.is_some() })
    }

    fn accuracy(&self, card: &Card, floats: &[u8]) -> Result<Option<Accuracy>, ModelError> {
        let accuracy = match card.method() {
            // Those that people and patients are simulated for are measured as `eval` measures them.
            activity::NAME => motion::activity_accuracy(floats),
            sleep::NAME => motion::sleep_accuracy(floats),
            deterioration::NAME => courses::accuracy(floats),
            _ => compress::accuracy(card, floats, self.args.data.as_deref(), self.args.seed),
        };
        match accuracy {
            // What cannot be trained here can still be made smaller.
            Err(ModelError::Unfit { .. }) => Ok(None),
            accuracy => accuracy.map(Some),
        }
    }
}

/// What a model of texts is tested on: the data where some are named; of the one that ships, generated texts.
fn texts(args: &CompressArgs, card: &Card, weights: &[u8]) -> Result<TextTest, StartError> {
    if let Some(data) = &args.data {
        let encoder = args.encoder.as_deref().map(Encoder::load).transpose()?;
        let bar = waiting("reads the texts");
        let test = TextTest::on_data(card.name.as_str(), weights, data, encoder.as_deref());
        bar.finish_and_clear();
        return Ok(test?);
    }
    if !args.is_shipped() {
        return Ok(TextTest::Nothing);
    }
    let bar = epoch_bar(TEXT_EPOCHS);
    let test = TextTest::on_generated(args.seed, TEXT_EPOCHS, &mut |epoch| show(&bar, epoch));
    bar.finish_and_clear();
    Ok(test?)
}

fn waiting(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(TICK);
    bar
}

/// The median time of a forward pass of [`ROWS`] rows, µs.
fn pass_us(card: Card, floats: &[u8]) -> Result<f64, StartError> {
    let model = catalog::build(card, floats)?;
    let inputs: Vec<f32> = (0..ROWS * model.input_width()).map(|n| (n as f32 * 0.37).sin()).collect();
    let mut outputs = Vec::new();
    median_us(|| Ok(model.forward(&inputs, ROWS, &mut outputs)?))
}

/// The median time of scoring [`ROWS`] generated texts, µs.
fn texts_us(card: &Card, floats: &[u8]) -> Result<f64, StartError> {
    let bag = Classifier::load(card.name.as_str(), floats)?;
    let texts = reports(Wording::Only(0), 1, 1).examples;
    median_us(|| {
        texts.iter().cycle().take(ROWS).for_each(|example| {
            std::hint::black_box(bag.score(&example.text));
        });
        Ok(())
    })
}

fn median_us(mut pass: impl FnMut() -> Result<(), StartError>) -> Result<f64, StartError> {
    let mut times = Vec::with_capacity(PASSES);
    for _ in 0..PASSES {
        let started = Instant::now();
        pass()?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[PASSES / 2])
}

/// Before and after, for people.
pub(super) fn show_table(before: &Figures, after: &Figures) {
    let row = |name: &str, before: f64, after: f64, digits: usize| {
        let ratio = if after == 0.0 { 0.0 } else { before / after };
        println!("{name:<34}{before:>12.digits$}{after:>12.digits$}{ratio:>9.2}x");
    };
    println!("{:<34}{:>12}{:>12}{:>10}", "", "before", "after", "ratio");
    row("weights file, bytes", before.bytes as f64, after.bytes as f64, 0);
    let pass = if before.is_of_texts {
        format!("scoring {ROWS} texts, µs")
    } else {
        format!("forward pass of {ROWS} rows, µs")
    };
    match (before.pass_us, after.pass_us) {
        (Some(before), Some(after)) => row(&pass, before, after, 1),
        _ => println!("the time of a text is its encoder's, as before"),
    }
    let (Some(before), Some(after)) = (&before.accuracy, &after.accuracy) else {
        println!("accuracy: not measured; name --data");
        return;
    };
    row(before.metric, before.value, after.value, 4);
    println!("  on {}; {} is better", before.on, if before.more_is_better { "more" } else { "less" });
}
