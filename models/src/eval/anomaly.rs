//! Runs an anomaly detector over the benchmark, as the gateway would, and leaves categories out.
//!
//! Promises: a category is scored with a threshold that was chosen without it and, where the model is trained anew, with weights that
//! have not seen it.

use std::sync::Arc;

use nearside_schemas::{FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue};
use serde::Serialize;

use super::nab::{Outcome, Profile, STANDARD, Scored, score};
use super::nab_data::{Series, categories};
use crate::ModelError;
use crate::row_model::{Row, RowModel};

/// Rows that travel together.
const BATCH: usize = 64;
/// Thresholds that are tried: `1 − 2^(−k/20)` for these `k`, finely where the forecaster's lie, coarsely towards 1.
fn steps() -> impl Iterator<Item = u32> {
    (14..=45).chain((50..400).step_by(10))
}

/// Makes the model with a threshold.
pub type WithThreshold<'a> = dyn Fn(f64) -> Result<Arc<dyn RowModel>, ModelError> + 'a;

/// One category.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Category {
    /// Its name.
    pub name: String,
    /// The threshold that was best for the other categories.
    pub threshold: f64,
    /// What the model got on this category with it.
    pub outcome: Outcome,
    /// What it got with the card's threshold.
    pub at_card: Outcome,
}

/// Leave one category out.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LeaveOut {
    /// Each category.
    pub categories: Vec<Category>,
    /// The normalised score over all windows, each category with its own threshold.
    pub score: f64,
    /// The normalised score over all windows with the card's threshold throughout.
    pub at_card: f64,
}

/// Scores each category with a threshold chosen on the others; `model_without` gives the model to use for a category.
pub fn leave_one_category_out<'a>(
    corpus: &[Series],
    card_threshold: f64,
    mut model_without: impl FnMut(&str) -> Result<Box<WithThreshold<'a>>, ModelError>,
    mut progress: impl FnMut(&str),
) -> Result<LeaveOut, ModelError> {
    let mut all = Vec::new();
    for name in categories(corpus) {
        progress(&name);
        let model = model_without(&name)?;
        let outputs = forecasts(model(card_threshold)?.as_ref(), corpus)?;
        let at = |threshold: f64, inside: bool| -> Result<Outcome, ModelError> {
            let model = model(threshold)?;
            let chosen = corpus.iter().zip(&outputs).filter(|(series, _)| (series.category == name) == inside);
            outcome(model.as_ref(), chosen, threshold)
        };
        let threshold = choose(|threshold| at(threshold, false))?;
        all.push(Category { threshold, outcome: at(threshold, true)?, at_card: at(card_threshold, true)?, name });
    }
    let (score, at_card) = (total(all.iter().map(|one| &one.outcome)), total(all.iter().map(|one| &one.at_card)));
    Ok(LeaveOut { categories: all, score, at_card })
}

/// The normalised score of a model with the standard profile and one threshold.
pub fn at_threshold(model: &dyn RowModel, corpus: &[Series], threshold: f64) -> Result<f64, ModelError> {
    let outputs = forecasts(model, corpus)?;
    Ok(total(std::iter::once(&outcome(model, corpus.iter().zip(&outputs), threshold)?)))
}

/// The threshold with the best score, each score averaged with its neighbours': a peak of one step is luck.
fn choose(at: impl Fn(f64) -> Result<Outcome, ModelError>) -> Result<f64, ModelError> {
    let thresholds: Vec<f64> = steps().map(|step| 1.0 - (-f64::from(step) / 20.0).exp2()).collect();
    let raw = thresholds.iter().map(|threshold| at(*threshold).map(|outcome| outcome.raw));
    let raw: Vec<f64> = raw.collect::<Result<_, _>>()?;
    let smooth = |index: usize| {
        let (before, after) = (raw[index.saturating_sub(1)], raw[(index + 1).min(raw.len() - 1)]);
        0.25 * before + 0.5 * raw[index] + 0.25 * after
    };
    let best = (0..raw.len()).max_by(|a, b| smooth(*a).total_cmp(&smooth(*b)));
    Ok(best.map_or(1.0, |index| thresholds[index]))
}

fn total<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> f64 {
    let profile: Profile = STANDARD;
    let (raw, windows) = outcomes.fold((0.0, 0.0), |(raw, windows), one| (raw + one.raw, windows + one.windows as f64));
    let (null, perfect) = (-profile.false_negative * windows, profile.true_positive * windows);
    100.0 * (raw - null) / (perfect - null).max(f64::MIN_POSITIVE)
}

fn outcome<'a>(
    model: &dyn RowModel,
    series: impl Iterator<Item = (&'a Series, &'a Vec<f32>)>,
    threshold: f64,
) -> Result<Outcome, ModelError> {
    let mut scored = Vec::new();
    for (series, outputs) in series {
        scored.push((series, scores(model, series, outputs)?));
    }
    let pairs: Vec<Scored<'_>> =
        scored.iter().map(|(series, scores)| Scored { scores, windows: &series.windows }).collect();
    Ok(score(&pairs, threshold, &STANDARD))
}

fn fields() -> Result<[FieldSpec; 1], ModelError> {
    let name = FieldName::new("value")
        .map_err(|error| ModelError::Unfit { model: String::from("evaluation"), why: error.to_string() })?;
    Ok([FieldSpec { name, kind: FieldKind::Number, unit: None, policy: FieldPolicy::Clear }])
}

/// The network's outputs for every row of every series, which no threshold changes.
fn forecasts(model: &dyn RowModel, corpus: &[Series]) -> Result<Vec<Vec<f32>>, ModelError> {
    let fields = fields()?;
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let mut all = Vec::new();
    for series in corpus {
        let mut state = model.new_state(&fields);
        let mut of_series = Vec::new();
        let rows: Vec<_> = series.times.iter().zip(&series.values).collect();
        for rows in rows.chunks(BATCH) {
            inputs.clear();
            let mut count = 0;
            for (time, value) in rows {
                count += state.take(&Row { time: **time, values: &[FieldValue::Number(**value)] }, &mut inputs);
            }
            rows.iter().for_each(|_| state.skip());
            if count > 0 {
                model.forward(&inputs, count, &mut outputs)?;
                of_series.extend_from_slice(&outputs);
            }
        }
        all.push(of_series);
    }
    Ok(all)
}

/// The score of each row.
fn scores(model: &dyn RowModel, series: &Series, outputs: &[f32]) -> Result<Vec<f64>, ModelError> {
    let mut state = model.new_state(&fields()?);
    let (mut unused, mut at) = (Vec::new(), 0);
    let rows = series.times.iter().zip(&series.values).map(|(time, value)| {
        unused.clear();
        let taken = state.take(&Row { time: *time, values: &[FieldValue::Number(*value)] }, &mut unused);
        let end = at + taken * model.output_width();
        let verdict = state.judge(outputs.get(at..end).unwrap_or_default());
        at = end;
        verdict.score
    });
    Ok(rows.collect())
}
