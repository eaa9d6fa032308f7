//! `nearside eval ecg`: heartbeats of recorded ECGs.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use nearside_models::catalog;
use nearside_models::diagnosis::ecg::class::BeatClass;
use nearside_models::diagnosis::ecg::{NAME, network::Network};
use nearside_models::eval::SetAside;
use nearside_models::eval::ecg::{EcgOutcome, classify, leave_patients_out};
use nearside_models::eval::ecg_data::{Patient, read_patients};
use nearside_models::train::{Learner, TrainEcg};
use serde_json::json;

use super::counted;
use super::eval::show_set_aside;
use super::outputs::Inputs;
use super::train::{DEFAULT_SEED, ECG_EPOCHS, at_least_one, epoch_bar, show};
use crate::error::StartError;

/// Evaluates the ECG model.
#[derive(Args, Debug)]
pub struct EcgArgs {
    /// The folder, with .hea and .dat (format 212 or 16) files; .atr files, where there are any, say what is true. A record that cannot be
    /// read is set aside.
    #[arg(long)]
    data: PathBuf,
    /// Writes record, time and class of every beat that was found in the raw signal here, as CSV.
    #[arg(long)]
    beats: Option<PathBuf>,
    /// A folder with the model's card and weights instead of those that ship.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Leads to use at most, 1 or 2; lead II comes first.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    leads: u8,
    /// Minutes at the start of a record that are not scored: 5 is the learning period of ANSI/AAMI EC57.
    #[arg(long, default_value_t = 0.0)]
    learning_minutes: f64,
    /// Train the network anew without each fold's patients before they are judged. Without this, the shipped weights have seen the
    /// patients of the MIT-BIH database that they were trained on.
    #[arg(long)]
    retrain: bool,
    /// Folds that the patients are dealt into.
    #[arg(long, default_value_t = 11)]
    folds: usize,
    /// Seed of the training.
    #[arg(long, default_value_t = DEFAULT_SEED)]
    seed: u64,
    /// Most passes of the training.
    #[arg(long, default_value_t = ECG_EPOCHS, value_parser = at_least_one)]
    epochs: usize,
}

/// Runs the command.
pub fn run(args: &EcgArgs) -> Result<(), StartError> {
    if let Some(beats) = &args.beats {
        let inputs = Inputs::default().with_files("--data", &args.data, &["hea", "dat", "atr"]);
        inputs.with_some("--folder", args.folder.as_deref()).spare_file("--beats", beats)?;
    }
    let bar = epoch_bar(0);
    let on_record = |name: &str| bar.set_message(format!("record {name}"));
    let leads = usize::from(args.leads);
    let (patients, set_aside) = read_patients(&args.data, leads, on_record)?;
    bar.suspend(|| show_set_aside(&set_aside));
    let classes = if args.retrain {
        if patients.len() < 2 || patients.iter().any(|patient| patient.reference.is_none()) {
            return Err(StartError::Usage(String::from(
                "--retrain needs two records or more, all with annotations (.atr)",
            )));
        }
        let (learners, _) = Learner::read(&args.data, leads, args.seed, on_record)?;
        let settings = TrainEcg { seed: args.seed, epochs: args.epochs };
        leave_patients_out(&learners, args.folds, settings, &mut |fold, epoch| {
            show(&bar, epoch);
            bar.set_prefix(format!("fold {}", fold + 1));
        })?
    } else {
        let (_, weights) = catalog::parts(NAME, args.folder.as_deref())?;
        let network = Network::load(&weights)?;
        patients.iter().map(|patient| classify(&network, &patient.found)).collect::<Result<_, _>>()?
    };
    bar.finish_and_clear();
    if let Some(path) = &args.beats {
        write_beats(path, &patients, &classes)?;
    }
    let mut all = EcgOutcome::default();
    for (patient, classes) in patients.iter().zip(&classes) {
        let mut outcome = EcgOutcome::default();
        outcome.add(patient, classes, 60.0 * args.learning_minutes);
        show_patient(patient, &outcome);
        all.merge(&outcome);
    }
    if patients.iter().any(|patient| patient.reference.is_some()) {
        show_all(&all);
    }
    if !set_aside.is_empty() {
        eprintln!(
            "{} evaluated, not all that the folder holds: see what was set aside",
            counted(patients.len(), "record")
        );
    }
    println!("{}", summary(args, &patients, &set_aside, &all));
    Ok(())
}

fn write_beats(path: &Path, patients: &[Patient], classes: &[Vec<BeatClass>]) -> Result<(), StartError> {
    let file = std::fs::File::create(path).map_err(StartError::file(path))?;
    let mut file = std::io::BufWriter::new(file);
    let mut write = |line: String| writeln!(file, "{line}").map_err(StartError::file(path));
    write(String::from("record,time_s,label"))?;
    for (patient, classes) in patients.iter().zip(classes) {
        for (beat, class) in patient.found.iter().zip(classes) {
            write(format!("{},{:.3},{}", patient.name, beat.at, class.letter()))?;
        }
    }
    file.flush().map_err(StartError::file(path))
}

fn show_patient(patient: &Patient, outcome: &EcgOutcome) {
    let rate = patient.found.len() as f64 * 60.0 / patient.seconds.max(1e-9);
    eprint!("{:<12}{:>7} beats{:>7.1} /min", patient.name, patient.found.len(), rate);
    if patient.reference.is_some() {
        eprint!("{:>6} missed{:>6} extra", outcome.missed, outcome.extra);
        for class in outcome.classes().iter().filter(|class| class.beats > 0) {
            eprint!("   {} {:.3} of {}", class.class, class.f1, class.beats);
        }
    }
    eprintln!();
}

fn show_all(all: &EcgOutcome) {
    eprintln!("\nQRS: sensitivity {:.4}, precision {:.4}", all.qrs_sensitivity(), all.qrs_precision());
    eprintln!("{:<6}{:>9}{:>13}{:>11}{:>8}", "class", "beats", "sensitivity", "precision", "F1");
    for class in all.classes() {
        let (sensitivity, precision) = (class.sensitivity, class.precision);
        eprintln!("{:<6}{:>9}{sensitivity:>13.3}{precision:>11.3}{:>8.3}", class.class, class.beats, class.f1);
    }
    let (mean, of) = all.mean_f1();
    eprintln!("mean F1 of {}: {mean:.3}", of.chars().map(String::from).collect::<Vec<_>>().join(", "));
    eprintln!("{:<10}{:>8}{:>8}{:>8}{:>8}{:>8}{:>11}", "annotated", "N", "S", "V", "F", "Q", "not found");
    for (name, row) in ["N", "S", "V", "F", "Q", "no beat"].iter().zip(all.confusion) {
        let [n, s, v, f, q, none] = row;
        eprintln!("{name:<10}{n:>8}{s:>8}{v:>8}{f:>8}{q:>8}{none:>11}");
    }
}

/// Figures are null where nothing is annotated to hold them against.
fn summary(args: &EcgArgs, patients: &[Patient], set_aside: &[SetAside], all: &EcgOutcome) -> serde_json::Value {
    let annotated = patients.iter().filter(|patient| patient.reference.is_some()).count();
    let is_known = annotated > 0;
    json!({
        "model": NAME,
        "data": args.data.display().to_string(),
        "records": patients.len(),
        "annotated": annotated,
        "beats": patients.iter().map(|patient| patient.found.len()).sum::<usize>(),
        "set_aside": set_aside,
        "retrained_without_each_patient": args.retrain,
        "leads": args.leads,
        "learning_minutes": args.learning_minutes,
        "qrs_sensitivity": is_known.then(|| all.qrs_sensitivity()),
        "qrs_precision": is_known.then(|| all.qrs_precision()),
        "classes": is_known.then(|| all.classes()),
        "mean_f1_n_s_v": is_known.then_some(all.mean_f1()).filter(|(_, of)| of == "NSV").map(|(mean, _)| mean),
        "mean_f1": is_known.then(|| all.mean_f1().0),
        "mean_f1_of": is_known.then(|| all.mean_f1().1),
        "confusion": is_known.then_some(all.confusion),
    })
}
