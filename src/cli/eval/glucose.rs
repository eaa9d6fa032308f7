//! `nearside eval glucose`: forecasts of recordings, patient by patient, against "it stays as it is".

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use nearside_models::catalog;
use nearside_models::diagnosis::glucose_forecast::{Forecast, LAYOUT, NAME, forecasts};
use nearside_models::diagnosis::glucose_range::{LOW, VERY_HIGH};
use nearside_models::eval::cgm::{self, Accuracy, Alarms, Errors, Recordings, Subject, read_folder, too_short};
use nearside_models::mlp::Network;
use nearside_models::train::train_glucose_network;
use serde_json::json;

use super::show_set_aside;
use crate::cli::counted;
use crate::cli::outputs::Inputs;
use crate::cli::train::{DEFAULT_SEED, GLUCOSE_EPOCHS, at_least_one, epoch_bar, show};
use crate::error::StartError;

/// Level 1 high by the international consensus, mg/dL. The gateway alarms at [`VERY_HIGH`], which many recordings hardly pass; told beside it.
const HIGH: f64 = 180.0;

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    #[value(name = "mg/dL", alias = "mg/dl")]
    MgDl,
    #[value(name = "mmol/L", alias = "mmol/l")]
    MmolL,
}

impl From<Unit> for cgm::Unit {
    fn from(unit: Unit) -> Self {
        match unit {
            Unit::MgDl => Self::MgDl,
            Unit::MmolL => Self::MmolL,
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct Glucose {
    /// The folder: csv files with id, time and gl.
    #[arg(long)]
    data: PathBuf,
    /// What gl is in.
    #[arg(long, value_enum, default_value_t = Unit::MgDl)]
    unit: Unit,
    /// Train the network anew without each subject before the subject is forecast. Without this, the shipped weights may have
    /// seen what they are scored on.
    #[arg(long)]
    retrain: bool,
    /// A csv file that every forecast is written to: subject, timestamp, forecast, low and high, in mg/dL.
    #[arg(long)]
    forecasts: Option<PathBuf>,
    /// A folder with the model's card and weights instead of those that ship.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Seed of the training.
    #[arg(long, default_value_t = DEFAULT_SEED)]
    seed: u64,
    /// Passes of the training.
    #[arg(long, default_value_t = GLUCOSE_EPOCHS, value_parser = at_least_one)]
    epochs: usize,
}

pub(super) fn run(args: &Glucose) -> Result<(), StartError> {
    if let Some(forecasts) = &args.forecasts {
        let inputs = Inputs::default().with_files("--data", &args.data, &["csv"]);
        inputs.with_some("--folder", args.folder.as_deref()).spare_file("--forecasts", forecasts)?;
    }
    let Recordings { subjects, set_aside, rows_set_aside } = read_folder(&args.data, args.unit.into())?;
    show_set_aside(&set_aside);
    if rows_set_aside > 0 {
        eprintln!("set aside: {} without a time or a number", counted(rows_set_aside, "row"));
    }
    let (card, weights) = catalog::parts(NAME, args.folder.as_deref())?;
    let (mut errors, mut low, mut high, mut above_180) =
        (Errors::default(), Alarms::default(), Alarms::default(), Alarms::default());
    let mut written = String::from("subject,timestamp,forecast,low,high\n");
    eprintln!(
        "{:<16}{:>10}{:>8}{:>13}{:>8}{:>10}",
        "subject", "forecasts", "RMSE", "persistence", "better", "coverage"
    );
    let bar = epoch_bar(args.epochs);
    for subject in &subjects {
        let weights = if args.retrain {
            let others: Vec<&Subject> = subjects.iter().filter(|other| other.id != subject.id).collect();
            bar.reset();
            train_glucose_network(&others, args.seed, args.epochs, None, &mut |epoch| show(&bar, epoch))?.0.into()
        } else {
            weights.clone()
        };
        let made = forecasts(&Network::load(LAYOUT, &weights)?, &subject.readings)?;
        let of_subject = Errors::of(subject, &made);
        bar.suspend(|| show_accuracy(&subject.id, of_subject.accuracy().as_ref()));
        errors = errors.plus(of_subject);
        low.add(alarms(subject, &made, card.threshold, |mg_dl| mg_dl < LOW, |forecast| forecast.below(LOW)));
        for (limit, high) in [(VERY_HIGH, &mut high), (HIGH, &mut above_180)] {
            high.add(alarms(subject, &made, card.threshold, |mg_dl| mg_dl > limit, |forecast| forecast.above(limit)));
        }
        write_forecasts(&mut written, subject, &made);
    }
    bar.finish_and_clear();
    let Some(accuracy) = errors.accuracy() else {
        return Err(too_short(&args.data).into());
    };
    show_accuracy("all", Some(&accuracy));
    show_alarms(&format!("below {LOW} mg/dL, as the gateway alarms"), &low);
    show_alarms(&format!("above {VERY_HIGH} mg/dL, as the gateway alarms"), &high);
    show_alarms(&format!("above {HIGH} mg/dL, where the gateway does not alarm"), &above_180);
    if let Some(path) = &args.forecasts {
        std::fs::write(path, written).map_err(|source| StartError::File { path: path.clone(), source })?;
    }
    let summary = json!({
        "model": card.reference().to_string(),
        "data": args.data.display().to_string(),
        "subjects": subjects.len(),
        "retrained_without_each_subject": args.retrain,
        "threshold": card.threshold,
        "accuracy": accuracy,
        "low_alarms": summary_of(&low, LOW),
        "high_alarms": summary_of(&high, VERY_HIGH),
        "above_180": summary_of(&above_180, HIGH),
        "rows_set_aside": rows_set_aside,
        "set_aside": set_aside,
    });
    println!("{summary}");
    Ok(())
}

/// Alarms as the gateway raises them: from the threshold on, while glucose is still within the limit.
fn alarms(
    subject: &Subject,
    made: &[Option<Forecast>],
    threshold: f64,
    is_outside: impl Fn(f64) -> bool,
    probability: impl Fn(&Forecast) -> f64,
) -> Alarms {
    let outside = |row: usize| is_outside(subject.readings[row].1);
    let is_alarm = |row: usize| !outside(row) && made[row].is_some_and(|forecast| probability(&forecast) >= threshold);
    Alarms::of(subject, outside, is_alarm)
}

fn show_accuracy(name: &str, accuracy: Option<&Accuracy>) {
    let Some(accuracy) = accuracy else {
        eprintln!("{name:<16}{:>10}", 0);
        return;
    };
    let Accuracy { forecasts, rmse, persistence_rmse, better, coverage, .. } = accuracy;
    eprintln!("{name:<16}{forecasts:>10}{rmse:>8.2}{persistence_rmse:>13.2}{:>7.1}%{coverage:>10.3}", 100.0 * better);
}

fn show_alarms(name: &str, alarms: &Alarms) {
    eprintln!(
        "{name}: {} episodes, {} of them told before, {:.0} minutes in the median; {} alarms, {} of them false, {:.2} false a day",
        alarms.episodes,
        alarms.lead_minutes.len(),
        alarms.median_lead_minutes().unwrap_or(0.0),
        alarms.alarms,
        alarms.false_alarms,
        false_a_day(alarms)
    );
}

fn false_a_day(alarms: &Alarms) -> f64 {
    alarms.false_alarms as f64 / alarms.days.max(f64::MIN_POSITIVE)
}

fn summary_of(alarms: &Alarms, limit_mg_dl: f64) -> serde_json::Value {
    json!({
        "limit_mg_dl": limit_mg_dl,
        "episodes": alarms.episodes,
        "told_before": alarms.lead_minutes.len(),
        "median_lead_minutes": alarms.median_lead_minutes(),
        "alarms": alarms.alarms,
        "false_alarms": alarms.false_alarms,
        "false_alarms_a_day": false_a_day(alarms),
    })
}

fn write_forecasts(into: &mut String, subject: &Subject, made: &[Option<Forecast>]) {
    for (stamp, forecast) in subject.stamps.iter().zip(made) {
        let Some(Forecast { expected, band: (low, high) }) = forecast else { continue };
        // Writing to a string cannot fail.
        let _ = writeln!(into, "{},{stamp},{expected:.1},{low:.1},{high:.1}", subject.id);
    }
}
