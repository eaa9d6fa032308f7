//! `nearside eval`: a model against a benchmark. Tables and progress are for people and go to standard error; what comes out at the end
//! goes to standard output, as one JSON object.

mod anomaly;
mod glucose;
mod multivariate;
mod skab;
mod text;

use clap::{Args, Subcommand};
use nearside_models::eval::SetAside;

use super::courses::EvalOnPatients;
use super::motion::EvalOnPeople;
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
    Anomaly(anomaly::Anomaly),
    /// A detector of several fields on a folder of files as the Skoltech Anomaly Benchmark has them; sub-folders are walked.
    Skab(skab::Skab),
    /// A detector of several fields on simulated devices: faults that a person sees at once, and devices without fault.
    Multivariate(multivariate::Multivariate),
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

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<(), StartError> {
    match &args.task {
        Task::Anomaly(args) => anomaly::run(args),
        Task::Skab(args) => skab::run(args),
        Task::Multivariate(args) => multivariate::run(args),
        Task::Glucose(args) => glucose::run(args),
        Task::Ecg(args) => super::eval_ecg::run(args),
        Task::Activity(args) => args.activity(),
        Task::Sleep(args) => args.sleep(),
        Task::Deterioration(args) => args.run(),
        Task::Text(args) => text::run(args),
    }
}

/// Says what of the data was not used.
pub(super) fn show_set_aside(set_aside: &[SetAside]) {
    for one in set_aside {
        eprintln!("{one}");
    }
}
