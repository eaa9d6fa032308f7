//! Online update: the forecaster goes on learning from a site's own recent rows, beside the version in force.
//!
//! One step at a time, each on rows that the one before has not seen:
//! 1. **Trying**: fine-tuning, as by `nearside finetune`, on the recent rows of each series: the first 70 % are learnt from, the next 10 %
//!    choose the pass, the last 20 % compare. A candidate that is not better there by the margin is dropped.
//! 2. **In shadow**: the candidate waits for rows that came after it was made, and is compared with the version in force on those. It must be
//!    better by the margin there too, and must meet what operators said of findings no worse.
//! 3. **Watched**: once promoted it is compared with the version before on rows that came after. Where that one is better by the margin,
//!    the promoted one is taken back.
//!
//! What is compared is the mean pinball loss of the forecasts, in units of each series' own scale.
//!
//! Promises: the same rows, seed and versions give the same steps; a step costs bounded time, on one core, and rests after each pass over
//! rows, whether it learns from them or compares on them, so that judging is not starved.
//! Never: it writes a file, reads a clock or keeps rows.

use std::collections::BTreeMap;

use nearside_schemas::{FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, Opinion, StreamId, Timestamp};
use serde::{Deserialize, Serialize};

use super::anomaly;
use super::finetune::{FineTuned, Parts, tune};
use super::fit::Fit;
use super::samples::Samples;
use crate::ModelError;
use crate::anomaly::forecaster::{
    self,
    history::{History, INPUTS},
};
use crate::card::Card;
use crate::catalog;
use crate::mlp::Trainable;
use crate::row_model::Row;

/// Rows of one product, in training and in comparing: more of them would be shared out among all cores.
const BATCH: usize = 128;
/// Rows around one that an operator spoke of, in which a version counts as having found the same.
const NEAR: usize = 5;

/// Recent rows of one field of one stream, in the order in which they came.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The stream.
    pub stream: StreamId,
    /// The field.
    pub field: FieldName,
    /// How many rows came before the first of these.
    pub first: u64,
    /// The rows.
    pub rows: Vec<(Timestamp, f64)>,
}

/// What an operator said of a finding on a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Spoken {
    /// The stream.
    pub stream: StreamId,
    /// The field.
    pub field: FieldName,
    /// The row that the finding is about.
    pub at: Timestamp,
    /// What was said.
    pub opinion: Opinion,
}

/// A version: its card and its weights as 32-bit floats.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// The card.
    pub card: Card,
    /// The weights' file.
    pub weights: Vec<u8>,
}

/// How it learns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learning {
    /// By what share a loss must be lower to count as better, such as 0.02.
    pub margin: f64,
    /// Rows without which nothing is compared.
    pub least_rows: usize,
    /// Most passes over the rows.
    pub epochs: usize,
    /// The seed of the order of rows.
    pub seed: u64,
}

/// Losses on the same rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// Of the version in force when they were compared.
    pub in_force: f32,
    /// Of the other one.
    pub other: f32,
    /// On so many rows.
    pub rows: usize,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// There are not enough rows yet.
    Waits,
    /// A candidate is in shadow.
    Shadowing(Losses),
    /// A candidate is not better, or meets what operators said worse: it is dropped.
    Refused(Losses),
    /// The candidate is better: put it in force.
    Promote(Box<Version>, Losses),
    /// The version before is better: put it in force again.
    RollBack(Box<Version>, Losses),
    /// The promoted version stays.
    Settled(Losses),
    /// Another version came in force by another way: it begins anew.
    Superseded,
}

/// Rows of each series so far.
type Marks = BTreeMap<(StreamId, FieldName), u64>;

enum Stage {
    Trying,
    Shadow { candidate: Version, of: Option<String>, marks: Marks },
    Watched { before: Version, now: Option<String>, marks: Marks },
}

/// What learns one model.
pub struct OnlineLearner {
    learning: Learning,
    stage: Stage,
}

impl OnlineLearner {
    /// Has learnt nothing.
    pub const fn new(learning: Learning) -> Self {
        Self { learning, stage: Stage::Trying }
    }

    /// One step from the version in force and the recent rows. `rest` is called after each pass over rows and returns when the next may
    /// begin.
    ///
    /// # Errors
    /// Where weights cannot be read or trained; the next step begins anew.
    pub fn step(
        &mut self,
        in_force: &Version,
        series: &[Series],
        spoken: &[Spoken],
        rest: &mut dyn FnMut(),
    ) -> Result<Step, ModelError> {
        match std::mem::replace(&mut self.stage, Stage::Trying) {
            Stage::Trying => self.attempt(in_force, series, rest),
            Stage::Shadow { of, .. } if of != in_force.card.sha256 => Ok(Step::Superseded),
            Stage::Watched { now, .. } if now != in_force.card.sha256 => Ok(Step::Superseded),
            Stage::Shadow { candidate, of, marks } => {
                let Some(later) = self.later(series, &marks) else {
                    self.stage = Stage::Shadow { candidate, of, marks };
                    return Ok(Step::Waits);
                };
                let losses = self.losses(in_force, &candidate, &later, rest)?;
                let mut met = |version: &Version| {
                    let met = met(version, series, spoken);
                    rest();
                    met
                };
                if !self.is_better(losses.other, losses.in_force) || met(&candidate)? < met(in_force)? {
                    return Ok(Step::Refused(losses));
                }
                let (now, marks) = (candidate.card.sha256.clone(), marks_of(series));
                self.stage = Stage::Watched { before: in_force.clone(), now, marks };
                Ok(Step::Promote(Box::new(candidate), losses))
            }
            Stage::Watched { before, now, marks } => {
                let Some(later) = self.later(series, &marks) else {
                    self.stage = Stage::Watched { before, now, marks };
                    return Ok(Step::Waits);
                };
                let losses = self.losses(in_force, &before, &later, rest)?;
                if self.is_better(losses.other, losses.in_force) {
                    return Ok(Step::RollBack(Box::new(before), losses));
                }
                Ok(Step::Settled(losses))
            }
        }
    }

    /// Makes a candidate.
    fn attempt(&mut self, in_force: &Version, series: &[Series], rest: &mut dyn FnMut()) -> Result<Step, ModelError> {
        let mut parts = Parts::new(INPUTS);
        for series in series {
            let rows = series.rows.len();
            each_row(series, |row, history, time, value| {
                anomaly::add_sample(history, time, value, parts.of(row, rows));
            });
        }
        if parts.rows().iter().any(|rows| *rows < self.learning.least_rows) {
            return Ok(Step::Waits);
        }
        let Version { card, weights } = in_force;
        let tuned = tune(card, weights, parts, series.len(), self.fit(), self.learning.seed, &mut |_| rest())?;
        // After the last pass it was compared.
        rest();
        let losses = Losses { in_force: tuned.loss_before, other: tuned.loss_after, rows: tuned.rows[2] };
        if !self.is_better(losses.other, losses.in_force) {
            return Ok(Step::Refused(losses));
        }
        let candidate = described(tuned, card);
        self.stage = Stage::Shadow { candidate, of: card.sha256.clone(), marks: marks_of(series) };
        Ok(Step::Shadowing(losses))
    }

    fn is_better(&self, loss: f32, than: f32) -> bool {
        f64::from(loss) < f64::from(than) * (1.0 - self.learning.margin)
    }

    fn fit(&self) -> Fit {
        Fit { batch: BATCH, at_once: BATCH, ..anomaly::fit(self.learning.epochs) }
    }

    /// The rows behind the marks, where there are enough.
    fn later(&self, series: &[Series], marks: &Marks) -> Option<Samples> {
        let mut later = Samples::new(INPUTS, 1);
        for series in series {
            let mark = marks.get(&(series.stream, series.field.clone())).copied().unwrap_or(0);
            each_row(series, |row, history, time, value| {
                if series.first + row as u64 >= mark {
                    anomaly::add_sample(history, time, value, &mut later);
                }
            });
        }
        (later.len() >= self.learning.least_rows).then_some(later)
    }

    /// The losses of two versions on the same rows.
    fn losses(
        &self,
        in_force: &Version,
        other: &Version,
        later: &Samples,
        rest: &mut dyn FnMut(),
    ) -> Result<Losses, ModelError> {
        let fit = self.fit();
        let mut loss = |version: &Version| {
            let loss = fit.mean_loss(&Trainable::load(fit.layout, &version.weights)?, later);
            rest();
            loss
        };
        Ok(Losses { in_force: loss(in_force)?, other: loss(other)?, rows: later.len() })
    }
}

/// Shows each row of a series, and what came before it, but for the first ones, whose past says nothing yet.
fn each_row(series: &Series, mut show: impl FnMut(usize, &History, Timestamp, f64)) {
    let mut history = History::default();
    for (row, (time, value)) in series.rows.iter().enumerate() {
        if row >= anomaly::SKIPPED {
            show(row, &history, *time, *value);
        }
        history.learn(*time, *value);
    }
}

fn marks_of(series: &[Series]) -> Marks {
    let marks = series.iter().map(|one| ((one.stream, one.field.clone()), one.first + one.rows.len() as u64));
    marks.collect()
}

fn described(mut tuned: FineTuned, before: &Card) -> Version {
    tuned.describe_as(before, "online update, [models.online]");
    Version { card: tuned.card, weights: tuned.weights }
}

/// How a version meets what operators said: confirmed findings that it finds, less false alarms that it raises.
fn met(version: &Version, series: &[Series], spoken: &[Spoken]) -> Result<i64, ModelError> {
    let mut met = 0;
    let model = catalog::build(version.card.clone(), &version.weights)?;
    for series in series {
        let on: Vec<&Spoken> =
            spoken.iter().filter(|one| one.stream == series.stream && one.field == series.field).collect();
        if on.is_empty() {
            continue;
        }
        let field =
            FieldSpec { name: series.field.clone(), kind: FieldKind::Number, unit: None, policy: FieldPolicy::Clear };
        let mut state = model.new_state(&[field]);
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for (time, value) in &series.rows {
            state.take(&Row { time: *time, values: &[FieldValue::Number(*value)] }, &mut inputs);
        }
        model.forward(&inputs, series.rows.len(), &mut outputs)?;
        let rows = outputs.chunks(model.output_width().max(1));
        let flagged: Vec<bool> = rows.map(|outputs| state.judge(outputs).flagged).collect();
        for one in on {
            let Some(row) = series.rows.iter().position(|(time, _)| *time == one.at) else { continue };
            let near = row.saturating_sub(NEAR)..(row + NEAR + 1).min(flagged.len());
            if flagged[near].contains(&true) {
                met += if one.opinion == Opinion::Confirmed { 1 } else { -1 };
            }
        }
    }
    Ok(met)
}

/// Whether weights of this method can be learnt so.
pub fn can_learn(method: &str) -> bool {
    method == forecaster::NAME
}

#[cfg(test)]
#[path = "online_tests.rs"]
mod tests;
