//! `nearside eval`: a model against a benchmark. Tables and progress are for people and go to standard error; what comes out at the end
//! goes to standard output, as one JSON object.

mod glucose;
mod skab;
mod text;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nearside_models::anomaly::forecaster;
use nearside_models::catalog;
use nearside_models::eval::anomaly::{LeaveOut, WithThreshold, leave_one_category_out};
use nearside_models::eval::nab_data::{Series, read_folder};
use nearside_models::train::train_network;
use serde_json::json;

use super::courses::EvalOnPatients;
use super::motion::EvalOnPeople;
use super::train::{DEFAULT_EPOCHS, DEFAULT_SEED, epoch_bar, show};
use crate::error::StartError;

/// Evaluates a model.
#[derive(Args, Debug)]
pub struct EvalArgs {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// An anomaly detector on a folder of the Numenta Anomaly Benchmark, standard profile, one category left out at a time.
    Anomaly(Anomaly),
    /// A detector of several fields on a folder of files as the Skoltech Anomaly Benchmark has them; sub-folders are walked.
    Skab(skab::Skab),
    /// The glucose forecast on a folder of continuous recordings, against "it stays as it is".
    Glucose(glucose::Glucose),
    /// Heartbeats of recorded ECGs: found in the raw signal and classed, held against annotations where there are any.
    Ecg(super::eval_ecg::EcgArgs),
    /// Activity and falls, on simulated people that no training saw, beside thresholds.
    Activity(EvalOnPeople),
    /// Sleep and wake, on nights of simulated people that no training saw, beside the formula of Cole and Kripke.
    Sleep(EvalOnPeople),
    /// The forecast of deterioration, on simulated patients that no training saw, beside NEWS2 and its trend drawn on.
    Deterioration(EvalOnPatients),
    /// A text classifier on a folder of labelled texts: accuracy, macro F1, and how true its probabilities are.
    Text(text::Text),
}

#[derive(Args, Debug)]
struct Anomaly {
    /// The folder, with its combined_windows.json.
    #[arg(long)]
    data: PathBuf,
    /// The model.
    #[arg(long, default_value = forecaster::NAME)]
    model: String,
    /// A folder with the model's card and weights instead of those that ship.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Train the forecaster anew without each category before it is scored. Without this, the shipped weights have seen
    /// (unlabelled) what they are scored on.
    #[arg(long)]
    retrain: bool,
    /// Seed of the training.
    #[arg(long, default_value_t = DEFAULT_SEED)]
    seed: u64,
    /// Most passes of the training.
    #[arg(long, default_value_t = DEFAULT_EPOCHS)]
    epochs: usize,
}

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<(), StartError> {
    match &args.task {
        Task::Anomaly(args) => anomaly(args),
        Task::Skab(args) => skab::run(args),
        Task::Glucose(args) => glucose::run(args),
        Task::Ecg(args) => super::eval_ecg::run(args),
        Task::Activity(args) => args.activity(),
        Task::Sleep(args) => args.sleep(),
        Task::Deterioration(args) => args.run(),
        Task::Text(args) => text::run(args),
    }
}

fn anomaly(args: &Anomaly) -> Result<(), StartError> {
    if args.retrain && args.model != forecaster::NAME {
        return Err(StartError::Usage(format!("`{}` is not trained; leave --retrain out", args.model)));
    }
    let corpus = read_folder(&args.data)?;
    let (card, weights) = catalog::parts(&args.model, args.folder.as_deref())?;
    let bar = epoch_bar(args.epochs);
    let model_without = |category: &str| -> Result<Box<WithThreshold<'_>>, nearside_models::ModelError> {
        let weights = if args.retrain {
            let kept: Vec<&Series> = corpus.iter().filter(|series| series.category != category).collect();
            train_network(&kept, args.seed, args.epochs, None, &mut |epoch| show(&bar, epoch))?.0
        } else {
            weights.to_vec()
        };
        let mut card = card.clone();
        card.sha256 = None;
        Ok(Box::new(move |threshold| {
            catalog::build(nearside_models::card::Card { threshold, ..card.clone() }, &weights)
        }))
    };
    let progress = |category: &str| {
        bar.set_message(format!("without {category}"));
        // The bar shows itself on a terminal only.
        if !std::io::stderr().is_terminal() {
            eprintln!("without {category}");
        }
    };
    let report = leave_one_category_out(&corpus, card.threshold, model_without, progress)?;
    bar.finish_and_clear();
    show_report(&report);
    println!("{}", summary(args, &args.data, &report, corpus.len(), card.threshold));
    Ok(())
}

fn show_report(report: &LeaveOut) {
    eprintln!(
        "{:<24}{:>8}{:>10}{:>10}{:>8}{:>11}{:>9}",
        "category", "windows", "detected", "false", "score", "threshold", "at card"
    );
    for one in &report.categories {
        let outcome = &one.outcome;
        eprintln!(
            "{:<24}{:>8}{:>10}{:>10}{:>8.1}{:>11.3}{:>9.1}",
            one.name,
            outcome.windows,
            outcome.detected,
            outcome.false_alarms,
            outcome.score,
            one.threshold,
            one.at_card.score
        );
    }
}

fn summary(args: &Anomaly, data: &Path, report: &LeaveOut, series: usize, threshold: f64) -> serde_json::Value {
    json!({
        "model": args.model,
        "data": data.display().to_string(),
        "series": series,
        "retrained_without_each_category": args.retrain,
        "threshold": threshold,
        "score_at_card_threshold": report.at_card,
        "score_leave_one_category_out": report.score,
    })
}
