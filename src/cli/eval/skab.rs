//! `nearside eval skab`: judges every file of a folder, writes what was said of each row, and counts against the labels.

use std::path::PathBuf;

use clap::Args;
use nearside_models::eval::skab::{Counts, files, judge, read_run, write_scores};
use nearside_models::{ModelError, anomaly::multivariate, catalog};
use serde_json::json;

use crate::error::StartError;

#[derive(Args, Debug)]
pub(super) struct Skab {
    /// The folder; its .csv files and those of its sub-folders are judged, each as a stream of its own.
    #[arg(long)]
    data: PathBuf,
    /// Where a file with timestamp, score and flagged is written for each file, under the same name.
    #[arg(long)]
    scores: Option<PathBuf>,
    /// The model.
    #[arg(long, default_value = multivariate::NAME)]
    model: String,
    /// A folder with the model's card and weights instead of those that ship.
    #[arg(long)]
    folder: Option<PathBuf>,
}

pub(super) fn run(args: &Skab) -> Result<(), StartError> {
    let model = catalog::load(&args.model, args.folder.as_deref())?;
    let found = files(&args.data)?;
    if found.is_empty() {
        return Err(StartError::Usage(format!("{} holds no .csv file", args.data.display())));
    }
    let (mut total, mut unlabelled) = (Counts::default(), Counts::default());
    let (mut labelled, mut judged, mut set_aside) = (0, 0, 0);
    eprintln!("{:<32}{:>7}{:>8}{:>8}{:>8}", "file", "rows", "F1", "FAR", "MAR");
    for path in &found {
        let done = read_run(&args.data, path).and_then(|run| {
            let said = judge(model.as_ref(), &run)?;
            args.scores.as_deref().map_or(Ok(()), |folder| write_scores(folder, &run, &said))?;
            Ok((run, said))
        });
        let (run, said) = match done {
            Ok(done) => done,
            Err(error @ (ModelError::Data { .. } | ModelError::Unfit { .. })) => {
                set_aside += 1;
                eprintln!("set aside: {}: {error}", path.display());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        judged += 1;
        // Of a file without labels it is counted what was flagged, as if all of it were normal.
        let counts = Counts::of(&said, run.labels.as_deref().unwrap_or(&vec![false; said.len()]));
        show(&path.display().to_string(), said.len(), counts, run.labels.is_some());
        match run.labels {
            Some(_) => (labelled, total) = (labelled + 1, total.plus(counts)),
            None => unlabelled = unlabelled.plus(counts),
        }
    }
    for (is_labelled, count, counts) in [(true, labelled, total), (false, judged - labelled, unlabelled)] {
        if count > 0 {
            let which = if is_labelled { "all rows of all labelled files" } else { "all rows of the others" };
            show(which, 0, counts, is_labelled);
        }
    }
    let summary = json!({
        "model": model.reference().to_string(),
        "data": args.data.display().to_string(),
        "files": { "judged": judged, "labelled": labelled, "set_aside": set_aside },
        "counts": total,
        "f1": (labelled > 0).then(|| total.f1()),
        "false_alarm_rate": (labelled > 0).then(|| total.false_alarm_rate()),
        "missed_alarm_rate": (labelled > 0).then(|| total.missed_alarm_rate()),
        "flagged_without_labels": (judged > labelled).then(|| unlabelled.false_alarm_rate()),
        "counted": "rows after the first 400 of each labelled file, pooled; FAR = FP/(FP+TN), MAR = FN/(FN+TP)",
    });
    println!("{summary}");
    Ok(())
}

fn show(name: &str, rows: usize, counts: Counts, is_labelled: bool) {
    let rows = if rows > 0 { rows.to_string() } else { String::new() };
    let flagged = counts.false_alarm_rate();
    if is_labelled {
        let (f1, missed) = (counts.f1(), counts.missed_alarm_rate());
        eprintln!("{name:<32}{rows:>7}{f1:>8.3}{flagged:>8.3}{missed:>8.3}");
    } else {
        eprintln!("{name:<32}{rows:>7}  no labels; {flagged:.3} of the rows after the first 400 are flagged");
    }
}
