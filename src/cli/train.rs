//! `nearside train`: makes a model's folder from stated data and a seed.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use nearside_models::train::{Epoch, TrainAnomaly, train_anomaly};
use serde_json::json;

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
        #[arg(long, default_value_t = DEFAULT_EPOCHS)]
        epochs: usize,
        /// A category to leave out, to be evaluated on later.
        #[arg(long)]
        exclude: Option<String>,
    },
}

/// The seed of the weights that ship.
pub const DEFAULT_SEED: u64 = 1;
/// Passes of the weights that ship.
pub const DEFAULT_EPOCHS: usize = 8;

/// Runs the command.
pub fn run(args: &TrainArgs) -> Result<(), StartError> {
    let Task::Anomaly { data, out, seed, epochs, exclude } = &args.task;
    let bar = epoch_bar(*epochs);
    let settings =
        TrainAnomaly { data: data.as_deref(), out, seed: *seed, epochs: *epochs, exclude_category: exclude.as_deref() };
    let report = train_anomaly(&settings, &mut |epoch| show(&bar, epoch))?;
    bar.finish_and_clear();
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
    bar.set_position(epoch.epoch as u64);
    bar.set_message(format!("loss {:.4}, held back {:.4}", epoch.loss, epoch.held_back_loss));
}
