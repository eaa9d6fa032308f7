//! `nearside eval skab`: judges every file of a folder, writes what was said of each row, and counts against the labels.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use nearside_models::anomaly::{forecaster, multivariate};
use nearside_models::eval::SetAside;
use nearside_models::eval::skab::{Counts, Run, Said, judge, read_run, write_scores};
use nearside_models::eval::table::{Found, csv_files};
use nearside_models::row_model::RowModel;
use nearside_models::{ModelError, catalog};
use serde_json::json;

use super::show_set_aside;
use crate::cli::counted;
use crate::cli::outputs::Inputs;
use crate::error::StartError;

#[derive(Args, Debug)]
pub(super) struct Skab {
    /// The folder; its .csv files and those of its sub-folders are judged, each as a stream of its own. Columns `anomaly` and `changepoint`
    /// are labels and never shown to the model.
    #[arg(long)]
    data: PathBuf,
    /// Where a file with timestamp, score and flagged is written for each file, under the same name.
    #[arg(long)]
    scores: Option<PathBuf>,
    /// The model. A file with one sensor is judged by `forecaster` where the model asks for more.
    #[arg(long, default_value = multivariate::NAME)]
    model: String,
    /// A folder with the model's card and weights instead of those that ship.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// What came of all files.
#[derive(Default)]
struct Totals {
    labelled: u64,
    judged: u64,
    counts: Counts,
    /// Of files without labels, as if all of their rows were normal.
    unlabelled: Counts,
    notes: Vec<serde_json::Value>,
    set_aside: Vec<SetAside>,
}

/// The model that was asked for, and the one for files with a single sensor.
struct Models {
    asked: Arc<dyn RowModel>,
    of_one: Arc<dyn RowModel>,
}

pub(super) fn run(args: &Skab) -> Result<(), StartError> {
    let asked = catalog::load(&args.model, args.folder.as_deref())?;
    let models = Models { asked, of_one: catalog::load(forecaster::NAME, None)? };
    let Found { files, set_aside } = csv_files(&args.data)?;
    if files.is_empty() {
        return Err(StartError::Usage(format!("{} holds no .csv file", args.data.display())));
    }
    if let Some(scores) = &args.scores {
        spare(args, scores, &files)?;
    }
    show_set_aside(&set_aside);
    let mut totals = Totals { set_aside, ..Totals::default() };
    eprintln!("{:<32}{:>7}{:>8}{:>8}{:>8}", "file", "rows", "F1", "FAR", "MAR");
    for path in &files {
        match said_of(&models, &args.data, path) {
            Ok((run, said)) => {
                args.scores.as_deref().map_or(Ok(()), |folder| write_scores(folder, &run, &said))?;
                totals.take(&run, &said);
            }
            Err(error) => {
                let one = SetAside::new(path.display(), error);
                eprintln!("{one}");
                totals.set_aside.push(one);
            }
        }
    }
    if totals.judged == 0 {
        let why = format!("none of the {} in {} could be judged", counted(files.len(), "file"), args.data.display());
        return Err(StartError::Usage(why));
    }
    totals.show();
    println!("{}", totals.summary(&models.asked.reference().to_string(), &args.data));
    Ok(())
}

/// Refuses scores that would lie on or among the data.
fn spare(args: &Skab, scores: &Path, files: &[PathBuf]) -> Result<(), StartError> {
    let inputs = Inputs::default().with_files("--data", &args.data, &["csv"]);
    let inputs = inputs.with_some("--folder", args.folder.as_deref());
    inputs.spare_folder("--scores", scores)?;
    files.iter().try_for_each(|path| inputs.spare_file("--scores", &scores.join(path)))
}

/// Reads a file and judges its rows.
fn said_of(models: &Models, folder: &Path, path: &Path) -> Result<(Run, Vec<Said>), ModelError> {
    let run = read_run(folder, path)?;
    if models.asked.accepts(&run.fields).is_err() && run.fields.len() == 1 {
        let mut run = run;
        run.notes.push(format!("it has one sensor and is judged by {}", models.of_one.reference()));
        let said = judge(models.of_one.as_ref(), &run)?;
        return Ok((run, said));
    }
    let why = models.asked.accepts(&run.fields);
    let run = run.for_model(models.asked.as_ref()).ok_or_else(|| why.err().unwrap_or_else(|| unjudged(path)))?;
    let said = judge(models.asked.as_ref(), &run)?;
    Ok((run, said))
}

fn unjudged(path: &Path) -> ModelError {
    ModelError::Data { path: path.to_owned(), why: String::from("the model does not take its sensors") }
}

impl Totals {
    fn take(&mut self, run: &Run, said: &[Said]) {
        let name = run.path.display().to_string();
        self.judged += 1;
        // Of a file without labels it is counted what was flagged, as if all of it were normal.
        let counts = Counts::of(said, run.labels.as_deref().unwrap_or(&vec![Some(false); said.len()]));
        show(&name, said.len(), counts, run.labels.is_some());
        for note in &run.notes {
            eprintln!("  {name}: {note}");
            self.notes.push(json!({ "name": name, "note": note }));
        }
        match run.labels {
            Some(_) => (self.labelled, self.counts) = (self.labelled + 1, self.counts.plus(counts)),
            None => self.unlabelled = self.unlabelled.plus(counts),
        }
    }

    fn show(&self) {
        let (labelled, others) = (self.labelled, self.judged - self.labelled);
        for (is_labelled, count, counts) in [(true, labelled, self.counts), (false, others, self.unlabelled)] {
            if count > 0 {
                let which = if is_labelled { "all rows of all labelled files" } else { "all rows of the others" };
                show(which, 0, counts, is_labelled);
            }
        }
        if !self.set_aside.is_empty() {
            let (judged, left) = (counted(self.judged, "file"), self.set_aside.len());
            eprintln!("{judged} judged, {left} set aside");
        }
    }

    /// Figures are null where no row with a label was counted.
    fn summary(&self, model: &str, data: &Path) -> serde_json::Value {
        let Self { labelled, judged, counts, unlabelled, notes, set_aside } = self;
        let is_counted = counts.rows() > 0;
        json!({
            "model": model,
            "data": data.display().to_string(),
            "files": { "judged": judged, "labelled": labelled, "set_aside": set_aside.len() },
            "set_aside": set_aside,
            "notes": notes,
            "counts": counts,
            "f1": is_counted.then(|| counts.f1()),
            "false_alarm_rate": is_counted.then(|| counts.false_alarm_rate()),
            "missed_alarm_rate": is_counted.then(|| counts.missed_alarm_rate()),
            "flagged_without_labels": (unlabelled.rows() > 0).then(|| unlabelled.false_alarm_rate()),
            "counted": "rows with a label after the first 400 of each file, pooled; FAR = FP/(FP+TN), MAR = FN/(FN+TP)",
        })
    }
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
