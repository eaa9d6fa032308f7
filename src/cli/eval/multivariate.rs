//! `nearside eval multivariate`: faults that a person sees at once, on simulated devices.

use std::path::PathBuf;

use clap::Args;
use nearside_models::anomaly::multivariate;
use nearside_models::catalog;
use nearside_models::eval::multivariate::{Told, quiet, told};
use nearside_models::eval::plant::Fault;
use serde_json::json;

use crate::error::StartError;

#[derive(Args, Debug)]
pub(super) struct Multivariate {
    /// The model.
    #[arg(long, default_value = multivariate::NAME)]
    model: String,
    /// A folder with the model's card and weights instead of those that ship.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Simulated devices with each fault, and as many without.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    devices: u64,
    /// Seed of the devices; no training saw them.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(args: &Multivariate) -> Result<(), StartError> {
    let model = catalog::load(&args.model, args.folder.as_deref())?;
    eprintln!("{:<20}{:>8}{:>7}{:>7}{:>8}{:>13}", "fault", "devices", "told", "named", "placed", "median rows");
    let mut faults: Vec<Told> = Vec::new();
    for fault in Fault::ALL {
        let told = told(model.as_ref(), fault, args.devices, args.seed)?;
        let rows = told.median_rows.map_or_else(|| String::from("-"), |rows| rows.to_string());
        let Told { fault, devices, told: all, named, placed, .. } = &told;
        eprintln!("{fault:<20}{devices:>8}{all:>7}{named:>7}{placed:>8}{rows:>13}");
        faults.push(told);
    }
    let quiet = quiet(model.as_ref(), args.devices, args.seed)?;
    eprintln!("without fault: {:.2} findings per 10,000 rows", quiet.findings_per_10_000_rows);
    let line = json!({
        "model": model.reference().to_string(),
        "on": "simulated devices alone",
        "faults": faults,
        "without_fault": quiet,
    });
    println!("{line}");
    Ok(())
}
