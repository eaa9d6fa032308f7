//! `nearside finetune`: a model goes on learning from a site's own recordings, and is kept only where it became better.

use std::path::{Path, PathBuf};

use clap::Args;
use nearside_models::train::fine_tune;
use nearside_models::{card, catalog};
use serde_json::json;

use super::compress::read;
use super::outputs::Inputs;
use super::train::{DEFAULT_EPOCHS, DEFAULT_SEED, epoch_bar, show};
use crate::error::StartError;

/// Tunes a model on a site's own data. Its first hidden layer stays as it is; the rest goes on learning.
#[derive(Args, Debug)]
pub struct FinetuneArgs {
    /// `forecaster` or `glucose-forecast`, or the folder of such a model.
    model: String,
    /// A folder of recordings, .csv with a header. Forecaster: the time (2026-01-31 12:00:00) first, then numeric columns, each a
    /// series. Glucose: id, time and gl in mg/dL.
    #[arg(long)]
    data: PathBuf,
    /// The folder that the tuned model is written to.
    #[arg(long)]
    out: PathBuf,
    /// Most passes over the data; it stops earlier when it no longer gets better.
    #[arg(long, default_value_t = DEFAULT_EPOCHS)]
    epochs: usize,
    /// Seed of everything random.
    #[arg(long, default_value_t = DEFAULT_SEED)]
    seed: u64,
    /// Write the model even where it is not better on the last fifth of the recordings, which it has not seen.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(args: &FinetuneArgs) -> Result<(), StartError> {
    let (before, weights, _) = read(&args.model)?;
    let folder = Some(Path::new(&args.model)).filter(|_| !catalog::names().any(|name| name == args.model));
    let inputs = Inputs::default().with_some("the model", folder).with("--data", &args.data);
    inputs.spare_folder("--out", &args.out)?;
    let bar = epoch_bar(args.epochs);
    let tuned = fine_tune(&before, &weights, &args.data, args.seed, args.epochs, &mut |epoch| show(&bar, epoch))?;
    bar.finish_and_clear();
    println!("frozen {}; the rest of {} was tuned", tuned.frozen.join(", "), before.reference());
    println!("{:<28}{:>10}{:>10}", "", "before", "after");
    println!("{:<28}{:>10.4}{:>10.4}", "loss on the last fifth", tuned.loss_before, tuned.loss_after);
    let is_written = tuned.is_better() || args.force;
    if is_written {
        card::write_folder(&args.out, &tuned.card, &tuned.weights)?;
    }
    let line = json!({
        "model": before.reference().to_string(),
        "tuned": tuned.card.reference().to_string(),
        "folder": is_written.then(|| args.out.display().to_string()),
        "report": tuned,
    });
    println!("{line}");
    if is_written {
        return Ok(());
    }
    Err(StartError::Usage(
        "the tuned model is not better on data that it has not seen, and was not written; record more, or --force"
            .to_owned(),
    ))
}
