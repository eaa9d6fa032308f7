//! `nearside eval`: a model against a benchmark.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use nearside_models::eval::nab::{Outcome, STANDARD, Scored, best_threshold, score};
use nearside_models::eval::nab_data::{Series, categories, read_folder};
use nearside_models::row_model::{Row, RowModel};
use nearside_schemas::{FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue};
use serde_json::json;

use crate::error::StartError;

/// Evaluates a model.
#[derive(Args, Debug)]
pub struct EvalArgs {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// An anomaly detector on a folder of the Numenta Anomaly Benchmark, standard profile.
    Anomaly {
        /// The folder, with its combined_windows.json.
        #[arg(long)]
        data: PathBuf,
        /// The model.
        #[arg(long, default_value = "robust-z")]
        model: String,
    },
}

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<(), StartError> {
    match &args.task {
        Task::Anomaly { data, model } => anomaly(data, model),
    }
}

/// Scores of one series, row by row, as the gateway would give them.
fn scores(model: &dyn RowModel, series: &Series) -> Result<(Vec<f64>, f64), StartError> {
    let field = FieldName::new("value").map_err(|error| StartError::Usage(error.to_string()))?;
    let fields = [FieldSpec { name: field, kind: FieldKind::Number, unit: None, policy: FieldPolicy::Clear }];
    model.accepts(&fields)?;
    let mut state = model.new_state(&fields);
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let mut scores = Vec::with_capacity(series.values.len());
    let mut threshold = 0.5;
    for (time, value) in series.times.iter().zip(&series.values) {
        inputs.clear();
        let taken = state.take(&Row { time: *time, values: &[FieldValue::Number(*value)] }, &mut inputs);
        outputs.clear();
        if taken > 0 {
            model.forward(&inputs, taken, &mut outputs)?;
        }
        let verdict = state.judge(&outputs);
        threshold = verdict.threshold;
        scores.push(verdict.score);
    }
    Ok((scores, threshold))
}

fn anomaly(data: &std::path::Path, name: &str) -> Result<(), StartError> {
    let model = nearside_models::catalog::load(name, None)?;
    let corpus = read_folder(data)?;
    let bar = indicatif::ProgressBar::new(corpus.len() as u64);
    let mut scored = Vec::new();
    let mut threshold = 0.5;
    for series in &corpus {
        let (scores, fixed) = scores(model.as_ref(), series)?;
        threshold = fixed;
        scored.push(scores);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let profile = STANDARD;
    let all: Vec<Scored<'_>> = corpus.iter().zip(&scored).map(|(series, scores)| pair(series, scores)).collect();
    let card = score(&all, threshold, &profile);
    println!("{:<26}{:>10}{:>12}{:>10}", "category", "score", "threshold", "at card");
    // Leave one category out: the threshold is chosen on the others.
    let mut held_out = Vec::new();
    for category in categories(&corpus) {
        let of = |inside: bool| -> Vec<Scored<'_>> {
            let chosen = corpus.iter().zip(&scored).filter(|(series, _)| (series.category == category) == inside);
            chosen.map(|(series, scores)| pair(series, scores)).collect()
        };
        let (chosen, _) = best_threshold(&of(false), &profile);
        let (inside, at_card) = (score(&of(true), chosen, &profile), score(&of(true), threshold, &profile));
        println!("{category:<26}{:>10.1}{chosen:>12.4}{:>10.1}", inside.score, at_card.score);
        held_out.push(inside);
    }
    let (raw, windows) = held_out.iter().fold((0.0, 0.0), |(raw, windows): (f64, f64), outcome: &Outcome| {
        (raw + outcome.raw, windows + outcome.windows as f64)
    });
    let (null, perfect) = (-profile.false_negative * windows, profile.true_positive * windows);
    let leave_out = 100.0 * (raw - null) / (perfect - null).max(f64::MIN_POSITIVE);
    println!(
        "{}",
        json!({
            "model": model.reference().to_string(),
            "series": corpus.len(),
            "threshold": threshold,
            "score_at_card_threshold": card.score,
            "score_leave_one_category_out": leave_out,
        })
    );
    Ok(())
}

fn pair<'a>(series: &'a Series, scores: &'a [f64]) -> Scored<'a> {
    Scored { scores, windows: &series.windows }
}
