//! Fine-tuning: a model goes on learning from a site's own recordings, its first layer left as it is.
//!
//! Each recording is cut by time: the first 70 % are learnt from, the next 10 % choose the pass, the last 20 % are seen by nobody and
//! say whether the model became better.

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::fit::{Epoch, Fit};
use super::samples::Samples;
use super::{anomaly, glucose};
use crate::ModelError;
use crate::anomaly::forecaster;
use crate::anomaly::forecaster::history::History;
use crate::card::{Card, Metric, TrainingData};
use crate::diagnosis::glucose_forecast::{self, past::Past};
use crate::eval::{cgm, skab, table};
use crate::mlp::Trainable;

/// The weights that stay as they are: what the first layer sees in a past is the same everywhere.
pub const FROZEN: [&str; 2] = ["hidden1.weight", "hidden1.bias"];
/// Parts of a recording, in tenths: where the choosing begins, and where the tail.
const CHOOSE_FROM: usize = 7;
const TAIL_FROM: usize = 8;
/// Rows of a part below which nothing can be said.
const LEAST: usize = 50;
/// The learning rate is this much of that from nothing: the weights are good already.
const GENTLER: f64 = 0.25;

/// What fine-tuning gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FineTuned {
    /// The card of the tuned model.
    #[serde(skip)]
    pub card: Card,
    /// Its weights file.
    #[serde(skip)]
    pub weights: Vec<u8>,
    /// Recordings learnt from.
    pub recordings: usize,
    /// Rows learnt from, rows that chose the pass, rows of the tails.
    pub rows: [usize; 3],
    /// The weights that were left as they are.
    pub frozen: [&'static str; 2],
    /// The loss on the tails before.
    pub loss_before: f32,
    /// The loss on the tails after.
    pub loss_after: f32,
}

impl FineTuned {
    /// Whether it is better on what nobody saw.
    pub fn is_better(&self) -> bool {
        self.loss_after < self.loss_before
    }
}

/// The three parts of all recordings.
pub(super) struct Parts([Samples; 3]);

impl Parts {
    pub(super) fn new(inputs: usize) -> Self {
        Self([(); 3].map(|()| Samples::new(inputs, 1)))
    }

    /// Rows of each part.
    pub(super) fn rows(&self) -> [usize; 3] {
        [0, 1, 2].map(|part| self.0[part].len())
    }

    /// The part that a row of so many belongs to.
    pub(super) fn of(&mut self, row: usize, rows: usize) -> &mut Samples {
        let tenth = 10 * row / rows.max(1);
        &mut self.0[usize::from(tenth >= CHOOSE_FROM) + usize::from(tenth >= TAIL_FROM)]
    }
}

/// Goes on with a model of card and weights (safetensors of 32-bit floats) on the recordings in `data`.
pub fn fine_tune(
    card: &Card,
    weights: &[u8],
    data: &Path,
    seed: u64,
    epochs: usize,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<FineTuned, ModelError> {
    let (parts, recordings, fit) = match card.method() {
        forecaster::NAME => {
            let (parts, recordings) = series(data)?;
            (parts, recordings, anomaly::fit(epochs))
        }
        glucose_forecast::NAME => {
            let (parts, recordings) = patients(data)?;
            (parts, recordings, glucose::fit(epochs))
        }
        method => {
            let why = format!(
                "`{method}` is not tuned by recordings; `{}` and `{}` are, and `multivariate` learns each stream by itself; `nearside train multivariate --data` learns from recordings",
                forecaster::NAME,
                glucose_forecast::NAME
            );
            return Err(ModelError::Unfit { model: card.name.to_string(), why });
        }
    };
    let rows = parts.rows();
    if rows.iter().any(|rows| *rows < LEAST) {
        let why = format!(
            "too little to tune on: {rows:?} usable rows to learn from, to choose and to compare; {LEAST} of each at least"
        );
        return Err(ModelError::Data { path: data.to_owned(), why });
    }
    let mut tuned = tune(card, weights, parts, recordings, fit, seed, progress)?;
    tuned.describe(card, seed, epochs);
    Ok(tuned)
}

/// Goes on with a model on parts of recordings.
pub(super) fn tune(
    card: &Card,
    weights: &[u8],
    parts: Parts,
    recordings: usize,
    fit: Fit,
    seed: u64,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<FineTuned, ModelError> {
    let rows = parts.rows();
    let [learn, choose, tail] = parts.0;
    let fit = Fit { rate: GENTLER * fit.rate, ..fit };
    let start = Trainable::load(fit.layout, weights)?;
    let loss_before = fit.mean_loss(&start, &tail)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (tuned, report) = fit.go_on(start, &FROZEN, &learn, &choose, &mut rng, None, progress)?;
    let loss_after = fit.mean_loss(&Trainable::load(fit.layout, &tuned)?, &tail)?;
    let mut card = card.clone();
    card.version = format!("{}-{}", card.version.split('-').next().unwrap_or_default(), &report.sha256[..8]);
    card.sha256 = Some(report.sha256);
    Ok(FineTuned { card, weights: tuned, recordings, rows, frozen: FROZEN, loss_before, loss_after })
}

impl FineTuned {
    fn describe(&mut self, before: &Card, seed: u64, epochs: usize) {
        let command =
            format!("nearside finetune {} --data DIR --seed {seed} --epochs {epochs} --out FOLDER", before.name);
        self.describe_as(before, &command);
    }

    /// Says on the card where it comes from, and that `command` made it.
    pub(super) fn describe_as(&mut self, before: &Card, command: &str) {
        let figure = |name: &str, value: f32| Metric {
            name: name.to_owned(),
            value: (f64::from(value) * 1e4).round() / 1e4,
            on: format!("{} rows, the last fifth of each of {} recordings of the site", self.rows[2], self.recordings),
            command: command.to_owned(),
        };
        let metrics = vec![figure("loss", self.loss_after), figure("loss before", self.loss_before)];
        let card = &mut self.card;
        card.weights = None;
        card.from = Some(before.reference().to_string());
        card.frozen = FROZEN.map(str::to_owned).to_vec();
        card.metrics = metrics;
        if let Some(training) = &mut card.training {
            training.command = format!("{}; then {command}", training.command);
            let name = format!("{} recordings of the site", self.recordings);
            training.data.push(TrainingData { name, licence: String::from("the site's own") });
        }
    }
}

/// Each numeric column of each file is a series.
fn series(data: &Path) -> Result<(Parts, usize), ModelError> {
    let (mut parts, mut count) = (Parts::new(forecaster::history::INPUTS), 0);
    for path in table::csv_files(data)?.files {
        let run = skab::read_run(data, &path)?;
        if !run.is_timed {
            let why = String::from("no time of it can be read: write 2026-01-31 12:00:00 into a column `time`");
            return Err(ModelError::Data { path: data.join(path), why });
        }
        for field in 0..run.fields.len() {
            let values = run.values.iter().skip(field).step_by(run.fields.len());
            let rows: Vec<_> =
                run.times.iter().zip(values).filter_map(|(time, value)| Some((*time, value.number()?))).collect();
            let mut history = History::default();
            for (row, (time, value)) in rows.iter().enumerate() {
                if row >= anomaly::SKIPPED {
                    anomaly::add_sample(&history, *time, *value, parts.of(row, rows.len()));
                }
                history.learn(*time, *value);
            }
            count += usize::from(!rows.is_empty());
        }
    }
    Ok((parts, count))
}

/// Each subject is a recording.
fn patients(data: &Path) -> Result<(Parts, usize), ModelError> {
    let subjects = cgm::read_folder(data, cgm::Unit::MgDl)?.subjects;
    let mut parts = Parts::new(glucose_forecast::past::INPUTS);
    for subject in &subjects {
        let mut past = Past::default();
        for (row, (time, mg_dl)) in subject.readings.iter().enumerate() {
            let inputs = past.observe(*time, *mg_dl);
            let (Some(inputs), Some(later)) = (inputs, subject.at_horizon(row)) else { continue };
            let part = parts.of(row, subject.readings.len());
            part.inputs.extend(inputs.network);
            part.targets.push(glucose::target(later - mg_dl));
        }
    }
    Ok((parts, subjects.len()))
}
