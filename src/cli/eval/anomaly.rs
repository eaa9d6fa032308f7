//! `nearside eval anomaly`: a detector on a folder of the Numenta Anomaly Benchmark, one category left out at a time.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use nearside_models::ModelError;
use nearside_models::anomaly::forecaster;
use nearside_models::card::Card;
use nearside_models::catalog;
use nearside_models::eval::anomaly::{LeaveOut, OfFile, WithThreshold, judge, leave_one_category_out, write_scores};
use nearside_models::eval::nab_data::{Corpus, Series, read_folder};
use nearside_models::train::train_network;
use serde_json::json;

use super::show_set_aside;
use crate::cli::outputs::Inputs;
use crate::cli::train::{DEFAULT_EPOCHS, DEFAULT_SEED, at_least_one, epoch_bar, show};
use crate::error::StartError;

#[derive(Args, Debug)]
pub(super) struct Anomaly {
    /// The folder, with its combined_windows.json (in it, or in labels/ as the benchmark has it). Without windows it is judged and not
    /// scored.
    #[arg(long)]
    data: PathBuf,
    /// A folder where for each file one of the same name is written: timestamp, value, anomaly_score and flagged, by the card's threshold.
    #[arg(long)]
    scores: Option<PathBuf>,
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
    #[arg(long, default_value_t = DEFAULT_EPOCHS, value_parser = at_least_one)]
    epochs: usize,
}

pub(super) fn run(args: &Anomaly) -> Result<(), StartError> {
    if args.retrain && args.model != forecaster::NAME {
        return Err(StartError::Usage(format!("`{}` is not trained; leave --retrain out", args.model)));
    }
    if let Some(scores) = &args.scores {
        let inputs = Inputs::default().with_files("--data", &args.data, &["csv"]);
        inputs.with_some("--folder", args.folder.as_deref()).spare_folder("--scores", scores)?;
    }
    let corpus = read_folder(&args.data)?;
    if args.retrain && corpus.series.is_empty() {
        return Err(StartError::Usage(String::from("--retrain needs files with windows, in combined_windows.json")));
    }
    show_set_aside(&corpus.set_aside);
    let (card, weights) = catalog::parts(&args.model, args.folder.as_deref())?;
    let threshold = card.threshold;
    let card = Card { sha256: None, ..card };
    let report = score(args, &corpus, &card, &weights)?;
    let model = catalog::build(card, &weights)?;
    let unscored = judge(model.as_ref(), &corpus.unscored)?;
    if let Some(folder) = &args.scores {
        let scored = corpus.series.iter().zip(&report.files);
        for (series, file) in scored.chain(corpus.unscored.iter().zip(&unscored)) {
            write_scores(folder, series, &file.said)?;
        }
    }
    show_report(&report, &unscored);
    println!("{}", summary(args, &corpus, &report, &unscored, threshold));
    Ok(())
}

fn score(args: &Anomaly, corpus: &Corpus, card: &Card, weights: &[u8]) -> Result<LeaveOut, StartError> {
    let bar = epoch_bar(args.epochs);
    let model_without = |category: &str| -> Result<Box<WithThreshold<'_>>, ModelError> {
        let weights = if args.retrain {
            let kept: Vec<&Series> = corpus.series.iter().filter(|series| series.category != category).collect();
            train_network(&kept, args.seed, args.epochs, None, &mut |epoch| show(&bar, epoch))?.0
        } else {
            weights.to_vec()
        };
        let card = card.clone();
        Ok(Box::new(move |threshold| catalog::build(Card { threshold, ..card.clone() }, &weights)))
    };
    let progress = |category: &str| {
        bar.set_message(format!("without {category}"));
        // The bar shows itself on a terminal only.
        if !std::io::stderr().is_terminal() {
            eprintln!("without {category}");
        }
    };
    let report = leave_one_category_out(&corpus.series, card.threshold, model_without, progress)?;
    bar.finish_and_clear();
    Ok(report)
}

/// A figure, or that there is none.
fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| String::from("none"), |value| format!("{value:.digits$}"))
}

fn show_report(report: &LeaveOut, unscored: &[OfFile]) {
    if !report.categories.is_empty() {
        eprintln!(
            "{:<24}{:>8}{:>10}{:>10}{:>8}{:>11}{:>9}",
            "category", "windows", "detected", "false", "score", "threshold", "at card"
        );
    }
    for one in &report.categories {
        let outcome = one.outcome.as_ref().unwrap_or(&one.at_card);
        eprintln!(
            "{:<24}{:>8}{:>10}{:>10}{:>8}{:>11}{:>9}",
            one.name,
            outcome.windows,
            outcome.detected,
            outcome.false_alarms,
            figure(one.outcome.map(|outcome| outcome.score), 1),
            figure(one.threshold, 3),
            figure((outcome.windows > 0).then_some(one.at_card.score), 1)
        );
    }
    for file in report.files.iter().chain(unscored).filter(|file| file.rows_set_aside > 0) {
        eprintln!("set aside: {}: {} of its rows have no time or no number", file.name, file.rows_set_aside);
    }
    for file in unscored {
        eprintln!("not scored: {}: {} of {} rows are flagged", file.name, file.flagged, file.rows);
    }
    if let Some(why) = why_none(report) {
        eprintln!("no score with a category left out: {why}");
    }
}

/// Why there is no score with a category left out.
fn why_none(report: &LeaveOut) -> Option<&'static str> {
    match report.categories.len() {
        _ if report.score.is_some() => None,
        0 => Some("no file has windows: there is no combined_windows.json, or it names none of them"),
        1 => Some("there is one category only, so there is nothing that a threshold could be chosen on"),
        _ => Some(
            "the windows are all in one category, or there are none, so there is nothing that a threshold could be chosen on",
        ),
    }
}

fn summary(
    args: &Anomaly,
    corpus: &Corpus,
    report: &LeaveOut,
    unscored: &[OfFile],
    threshold: f64,
) -> serde_json::Value {
    json!({
        "model": args.model,
        "data": args.data.display().to_string(),
        "series": report.files.len(),
        "retrained_without_each_category": args.retrain,
        "threshold": threshold,
        "score_at_card_threshold": report.at_card,
        "score_leave_one_category_out": report.score,
        "why_no_score": why_none(report),
        "categories": report.categories,
        "files": report.files.iter().map(of_file).collect::<Vec<_>>(),
        "not_scored": unscored.iter().map(of_file).collect::<Vec<_>>(),
        "rows_set_aside": report.files.iter().chain(unscored).map(|file| file.rows_set_aside).sum::<usize>(),
        "set_aside": corpus.set_aside,
    })
}

/// A file at the card's threshold; one without windows has no score, and what is flagged in it is a false alarm.
fn of_file(file: &OfFile) -> serde_json::Value {
    let outcome = file.outcome.as_ref();
    json!({
        "name": file.name,
        "rows": file.rows,
        "rows_set_aside": file.rows_set_aside,
        "flagged": file.flagged,
        "score": outcome.filter(|outcome| outcome.windows > 0).map(|outcome| outcome.score),
        "windows": outcome.map(|outcome| outcome.windows),
        "detected": outcome.map(|outcome| outcome.detected),
        "false_alarms": outcome.map(|outcome| outcome.false_alarms),
    })
}
