//! `nearside train`: makes a model's folder from stated data and a seed.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use nearside_models::card::LabelRoles;
use nearside_models::train::{
    Epoch, TrainAnomaly, TrainEcg, TrainMultivariate, TrainReport, TrainText, train_anomaly, train_ecg, train_glucose,
    train_multivariate, train_text,
};
use serde_json::json;

use super::courses::TrainOnPatients;
use super::eval::show_set_aside;
use super::motion::TrainOnPeople;
use super::outputs::Inputs;
use crate::error::StartError;

/// Trains a model.
#[derive(Args, Debug)]
pub struct TrainArgs {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// The forecaster, on simulated series and a folder of the Numenta Anomaly Benchmark. Labels are not used.
    Anomaly {
        /// The folder, with its combined_windows.json; without it, simulated series alone.
        #[arg(long)]
        data: Option<PathBuf>,
        /// The folder that card.toml and model.safetensors are written to.
        #[arg(long)]
        out: PathBuf,
        /// Seed of everything random.
        #[arg(long, default_value_t = DEFAULT_SEED)]
        seed: u64,
        /// Most passes over the data; it stops earlier when it no longer gets better.
        #[arg(long, default_value_t = DEFAULT_EPOCHS, value_parser = at_least_one)]
        epochs: usize,
        /// Go on from where an earlier training into the same folder was stopped.
        #[arg(long)]
        resume: bool,
        /// A category to leave out, to be evaluated on later.
        #[arg(long)]
        exclude: Option<String>,
    },
    /// The network that classes heartbeats, on a folder of annotated records in the WFDB format (MIT-BIH Arrhythmia Database).
    Ecg {
        /// The folder, with .hea, .dat (format 212 or 16) and .atr files.
        #[arg(long)]
        data: PathBuf,
        /// The folder that card.toml and model.safetensors are written to.
        #[arg(long)]
        out: PathBuf,
        /// Seed of everything random.
        #[arg(long, default_value_t = DEFAULT_SEED)]
        seed: u64,
        /// Most passes of each network of the ensemble; it stops earlier when it no longer gets better.
        #[arg(long, default_value_t = ECG_EPOCHS, value_parser = at_least_one)]
        epochs: usize,
        /// Go on from where an earlier training into the same folder was stopped.
        #[arg(long)]
        resume: bool,
    },
    /// The multivariate detector, on simulated plants with simulated faults, and on a folder of a site's own recordings.
    Multivariate {
        /// The folder; its .csv files and those of its sub-folders are read: a column of times, then one for each sensor. They should
        /// show the devices as they ordinarily are; faults are simulated upon them. Columns `anomaly` and `changepoint` are no sensors,
        /// and rows that the first calls anomalous are left out. Without it, simulated plants alone: the model that ships.
        #[arg(long)]
        data: Option<PathBuf>,
        /// The folder that card.toml and model.safetensors are written to.
        #[arg(long)]
        out: PathBuf,
        /// Seed of everything random.
        #[arg(long, default_value_t = DEFAULT_SEED)]
        seed: u64,
        /// Most passes over the data; it stops earlier when it no longer gets better.
        #[arg(long, default_value_t = 12, value_parser = at_least_one)]
        epochs: usize,
        /// Go on from where an earlier training into the same folder was stopped.
        #[arg(long)]
        resume: bool,
    },
    /// The glucose forecast, on a folder of continuous recordings (csv with id, time, gl in mg/dL).
    Glucose {
        /// The folder.
        #[arg(long)]
        data: PathBuf,
        /// The folder that card.toml and model.safetensors are written to.
        #[arg(long)]
        out: PathBuf,
        /// Seed of everything random.
        #[arg(long, default_value_t = DEFAULT_SEED)]
        seed: u64,
        /// Most passes over the data; it stops earlier when it no longer gets better, and the best is kept.
        #[arg(long, default_value_t = GLUCOSE_EPOCHS, value_parser = at_least_one)]
        epochs: usize,
        /// Go on from where an earlier training into the same folder was stopped.
        #[arg(long)]
        resume: bool,
    },
    /// The network that tells lying, sitting, standing, walking and falls apart, on simulated people.
    Activity(TrainOnPeople),
    /// The network that tells sleep from wake, on nights of simulated people.
    Sleep(TrainOnPeople),
    /// The forecast of deterioration, on courses of simulated patients.
    Deterioration(TrainOnPatients),
    /// The text classifier, on a folder of labelled texts (train.csv or one other .csv with the columns text, category and perhaps
    /// urgency), or on generated reports and notes in English and Chinese.
    Text {
        /// The folder; without it, generated texts alone: the model that ships.
        #[arg(long)]
        data: Option<PathBuf>,
        /// A sentence encoder's folder (BERT, Hugging Face layout): trains a head on its embeddings in place of a bag of words. The
        /// model's folder refers to the encoder by SHA-256.
        #[arg(long, requires = "data")]
        encoder: Option<PathBuf>,
        /// A label of the data whose texts the model is to have no opinion on (small talk, other languages): a text that is most likely of such
        /// a label is never flagged. May be given several times; what generated texts have of that is known.
        #[arg(long, requires = "data", value_name = "LABEL")]
        no_opinion_label: Vec<String>,
        /// A label of the data that asks for nothing: where the data has no urgencies a text of it is not flagged. May be given several
        /// times.
        #[arg(long, requires = "data", value_name = "LABEL")]
        quiet_label: Vec<String>,
        /// The folder that card.toml and model.safetensors are written to.
        #[arg(long)]
        out: PathBuf,
        /// Seed of everything random.
        #[arg(long, default_value_t = DEFAULT_SEED)]
        seed: u64,
        /// Most passes over the data; it stops earlier when it no longer gets better.
        #[arg(long, default_value_t = TEXT_EPOCHS, value_parser = at_least_one)]
        epochs: usize,
        /// Go on from where an earlier training into the same folder was stopped.
        #[arg(long)]
        resume: bool,
    },
}

/// The seed of the weights that ship.
pub const DEFAULT_SEED: u64 = 1;
/// Passes of the weights that ship.
pub const DEFAULT_EPOCHS: usize = 8;
/// Most passes of the network for heartbeats that ships.
pub const ECG_EPOCHS: usize = 3;
/// Passes of the glucose forecast that ships.
pub const GLUCOSE_EPOCHS: usize = 15;
/// Most passes of the text classifier.
pub const TEXT_EPOCHS: usize = 40;

/// Runs the command.
pub fn run(args: &TrainArgs) -> Result<(), StartError> {
    let (epochs, out) = match &args.task {
        Task::Anomaly { epochs, out, .. }
        | Task::Ecg { epochs, out, .. }
        | Task::Multivariate { epochs, out, .. }
        | Task::Glucose { epochs, out, .. }
        | Task::Text { epochs, out, .. } => (*epochs, out),
        Task::Activity(people) | Task::Sleep(people) => (people.epochs, &people.out),
        Task::Deterioration(patients) => (patients.epochs, &patients.out),
    };
    let (data, encoder) = args.task.inputs();
    let inputs = Inputs::default().with_some("--data", data).with_some("--encoder", encoder);
    inputs.spare_folder("--out", out)?;
    let bar = epoch_bar(epochs);
    let mut progress = |epoch: &Epoch| show(&bar, epoch);
    let report = match &args.task {
        Task::Anomaly { data, out, seed, epochs, resume, exclude } => {
            let (data, exclude_category) = (data.as_deref(), exclude.as_deref());
            let settings = TrainAnomaly { data, out, seed: *seed, epochs: *epochs, resume: *resume, exclude_category };
            train_anomaly(&settings, &mut progress)
        }
        Task::Ecg { data, out, seed, epochs, resume } => {
            train_ecg(data, out, TrainEcg { seed: *seed, epochs: *epochs }, *resume, &mut progress)
        }
        Task::Multivariate { data, out, seed, epochs, resume } => {
            let (data, seed, epochs, resume) = (data.as_deref(), *seed, *epochs, *resume);
            train_multivariate(&TrainMultivariate { data, out, seed, epochs, resume }, &mut progress)
        }
        Task::Glucose { data, out, seed, epochs, resume } => {
            train_glucose(data, out, *seed, *epochs, *resume, &mut progress)
        }
        Task::Activity(people) => return finish(people.activity(&mut progress)?, &bar, out),
        Task::Sleep(people) => return finish(people.sleep(&mut progress)?, &bar, out),
        Task::Deterioration(patients) => return finish(patients.train(&mut progress)?, &bar, out),
        Task::Text { data, encoder, no_opinion_label, quiet_label, out, seed, epochs, resume } => {
            let (data, encoder) = (data.as_deref(), encoder.as_deref());
            let labels = LabelRoles { no_opinion: no_opinion_label.clone(), quiet: quiet_label.clone() };
            let (labels, seed, epochs, resume) = (&labels, *seed, *epochs, *resume);
            let settings = TrainText { data, encoder, labels, out, seed, epochs, resume };
            let trained = train_text(settings, &mut progress)?;
            bar.finish_and_clear();
            let figures = &trained.test.labels;
            eprintln!(
                "accuracy {:.4}, macro F1 {:.4} on {} texts: {}",
                figures.accuracy, figures.macro_f1, figures.texts, trained.test_part
            );
            Ok(trained.training)
        }
    }?;
    finish(report, &bar, out)
}

impl Task {
    /// The folders of data and of an encoder that are read.
    fn inputs(&self) -> (Option<&Path>, Option<&Path>) {
        match self {
            Self::Anomaly { data, .. } | Self::Multivariate { data, .. } => (data.as_deref(), None),
            Self::Ecg { data, .. } | Self::Glucose { data, .. } => (Some(data), None),
            Self::Text { data, encoder, .. } => (data.as_deref(), encoder.as_deref()),
            Self::Activity(_) | Self::Sleep(_) | Self::Deterioration(_) => (None, None),
        }
    }
}

/// A number of passes.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(passes) if passes > 0 => Ok(passes),
        _ => Err("there must be at least one pass".to_owned()),
    }
}

/// Says what came of it.
fn finish(report: TrainReport, bar: &ProgressBar, out: &Path) -> Result<(), StartError> {
    bar.finish_and_clear();
    show_set_aside(&report.set_aside);
    println!("{}", json!({ "folder": out.display().to_string(), "report": report }));
    Ok(())
}

/// A bar of passes.
pub fn epoch_bar(epochs: usize) -> ProgressBar {
    let bar = ProgressBar::new(epochs as u64);
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style)
}

/// Shows a pass.
pub fn show(bar: &ProgressBar, epoch: &Epoch) {
    bar.set_length(epoch.epochs as u64);
    bar.set_position(epoch.epoch as u64);
    let message = format!("loss {:.4}, held back {:.4}", epoch.loss, epoch.held_back_loss);
    // Where there is no terminal the bar shows nothing.
    if bar.is_hidden() {
        eprintln!("pass {} of {}: {message}", epoch.epoch, epoch.epochs);
    }
    bar.set_message(message);
}
