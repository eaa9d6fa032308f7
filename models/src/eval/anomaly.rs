//! Runs an anomaly detector over the benchmark, as the gateway would, and leaves categories out.
//!
//! Promises: a category is scored with a threshold that was chosen without it and, where the model is trained anew, with weights that
//! have not seen it; where there is nothing to choose on there is no such score, never one that looks like it.

use std::path::Path;
use std::sync::Arc;

use nearside_schemas::{FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue};
use serde::Serialize;

use super::nab::{Outcome, Profile, STANDARD, Scored, score};
use super::nab_data::{Series, categories};
use super::skab::Said;
use super::table;
use crate::ModelError;
use crate::row_model::{Row, RowModel};

/// Rows that travel together.
const BATCH: usize = 64;
/// Thresholds that are tried: `1 − 2^(−k/20)` for these `k`, finely where the forecaster's lie, coarsely towards 1.
fn steps() -> impl Iterator<Item = u32> {
    (12..=40).chain([45, 55, 70, 90, 115, 150, 200, 260, 330, 400])
}
/// Steps on either side that a threshold's score is averaged with, the nearer the more. With one, which step was best hung by single
/// windows; with four it is the middle of where scores are good, and weights of another seed choose the same within a step or two.
const NEIGHBOURS: usize = 4;

/// Makes the model with a threshold.
pub type WithThreshold<'a> = dyn Fn(f64) -> Result<Arc<dyn RowModel>, ModelError> + 'a;

/// One category.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Category {
    /// Its name.
    pub name: String,
    /// The threshold that was best for the other categories; `None` where those have no windows.
    pub threshold: Option<f64>,
    /// What the model got on this category with it.
    pub outcome: Option<Outcome>,
    /// What it got with the card's threshold.
    pub at_card: Outcome,
}

/// One file, with the card's threshold.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct OfFile {
    /// `CATEGORY/NAME.csv`.
    pub name: String,
    /// Rows that were judged.
    pub rows: usize,
    /// Rows that were set aside.
    pub rows_set_aside: usize,
    /// Rows that were flagged.
    pub flagged: usize,
    /// What the model got; `None` for a file that nothing is known of.
    pub outcome: Option<Outcome>,
    /// What was said of each row that was judged.
    #[serde(skip)]
    pub said: Vec<Said>,
}

/// Leave one category out.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LeaveOut {
    /// Each category.
    pub categories: Vec<Category>,
    /// Each file, in the order of the corpus.
    pub files: Vec<OfFile>,
    /// The normalised score over all windows, each category with its own threshold; `None` where one of them has none.
    pub score: Option<f64>,
    /// The normalised score over all windows with the card's threshold throughout; `None` without windows.
    pub at_card: Option<f64>,
}

/// Scores each category with a threshold chosen on the others; `model_without` gives the model to use for a category.
pub fn leave_one_category_out<'a>(
    corpus: &[Series],
    card_threshold: f64,
    mut model_without: impl FnMut(&str) -> Result<Box<WithThreshold<'a>>, ModelError>,
    mut progress: impl FnMut(&str),
) -> Result<LeaveOut, ModelError> {
    let mut all = Vec::new();
    let mut files: Vec<(usize, OfFile)> = Vec::new();
    for name in categories(corpus) {
        progress(&name);
        let model = model_without(&name)?;
        let at_card = model(card_threshold)?;
        let outputs = forecasts(at_card.as_ref(), corpus)?;
        let is_own = |series: &Series| series.category == name;
        for (index, (series, outputs)) in corpus.iter().zip(&outputs).enumerate().filter(|(_, (one, _))| is_own(one)) {
            files.push((index, of_file(at_card.as_ref(), series, outputs, Some(card_threshold))?));
        }
        let at = |threshold: f64, inside: bool| -> Result<Outcome, ModelError> {
            let model = model(threshold)?;
            let chosen = corpus.iter().zip(&outputs).filter(|(series, _)| is_own(series) == inside);
            outcome(model.as_ref(), chosen, threshold)
        };
        let can_choose = corpus.iter().any(|series| !is_own(series) && !series.windows.is_empty());
        let threshold = can_choose.then(|| choose(|threshold| at(threshold, false))).transpose()?;
        let outcome = threshold.map(|threshold| at(threshold, true)).transpose()?;
        all.push(Category { threshold, outcome, at_card: at(card_threshold, true)?, name });
    }
    files.sort_by_key(|(index, _)| *index);
    let left_out: Option<Vec<&Outcome>> = all.iter().map(|one| one.outcome.as_ref()).collect();
    let score = left_out.and_then(|outcomes| total(outcomes.into_iter()));
    let at_card = total(all.iter().map(|one| &one.at_card));
    Ok(LeaveOut { files: files.into_iter().map(|(_, file)| file).collect(), categories: all, score, at_card })
}

/// Judges series that nothing is known of.
pub fn judge(model: &dyn RowModel, corpus: &[Series]) -> Result<Vec<OfFile>, ModelError> {
    let outputs = forecasts(model, corpus)?;
    corpus.iter().zip(&outputs).map(|(series, outputs)| of_file(model, series, outputs, None)).collect()
}

/// A file, scored where a threshold is given.
fn of_file(
    model: &dyn RowModel,
    series: &Series,
    outputs: &[f32],
    threshold: Option<f64>,
) -> Result<OfFile, ModelError> {
    let said = said(model, series, outputs)?;
    let scores: Vec<f64> = said.iter().map(|said| said.score).collect();
    let scored = [Scored { scores: &scores, windows: &series.windows }];
    Ok(OfFile {
        name: series.name.clone(),
        rows: said.len(),
        rows_set_aside: series.set_aside(),
        flagged: said.iter().filter(|said| said.flagged).count(),
        outcome: threshold.map(|threshold| score(&scored, threshold, &STANDARD)),
        said,
    })
}

/// Writes `timestamp,value,anomaly_score,flagged` for every row of a series, to its name below `folder`. A row that was set aside has the
/// score 0.
pub fn write_scores(folder: &Path, series: &Series, said: &[Said]) -> Result<(), ModelError> {
    use std::fmt::Write as _;
    let path = folder.join(&series.name);
    let file = |source| ModelError::File { path: path.clone(), source };
    let mut text = String::from("timestamp,value,anomaly_score,flagged\n");
    let mut rest = said.iter();
    for row in &series.written {
        let said = if row.is_read { rest.next() } else { None };
        let Said { score, flagged } = said.copied().unwrap_or(Said { score: 0.0, flagged: false });
        let (time, value) = (table::quoted(&row.time), table::quoted(&row.value));
        // Ten digits, as a replay writes them. Writing to a string cannot fail.
        let _ = writeln!(text, "{time},{value},{score:.10},{}", u8::from(flagged));
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(file)?;
    }
    std::fs::write(&path, text).map_err(file)
}

/// The normalised score of a model with the standard profile and one threshold.
pub fn at_threshold(model: &dyn RowModel, corpus: &[Series], threshold: f64) -> Result<f64, ModelError> {
    let outputs = forecasts(model, corpus)?;
    Ok(total(std::iter::once(&outcome(model, corpus.iter().zip(&outputs), threshold)?)).unwrap_or(0.0))
}

/// The threshold with the best score, each score averaged with its neighbours'.
fn choose(at: impl Fn(f64) -> Result<Outcome, ModelError>) -> Result<f64, ModelError> {
    let thresholds: Vec<f64> = steps().map(|step| 1.0 - (-f64::from(step) / 20.0).exp2()).collect();
    let raw = thresholds.iter().map(|threshold| at(*threshold).map(|outcome| outcome.raw));
    let raw: Vec<f64> = raw.collect::<Result<_, _>>()?;
    Ok(steadiest(&raw).map_or(1.0, |index| thresholds[index]))
}

/// Where scores are best, each averaged with [`NEIGHBOURS`] on either side; beyond the ends they go on as at the ends.
fn steadiest(raw: &[f64]) -> Option<usize> {
    let smooth = |index: usize| -> f64 {
        let near = (0..=2 * NEIGHBOURS).map(|place| {
            let at = (index + place).saturating_sub(NEIGHBOURS).min(raw.len() - 1);
            (NEIGHBOURS + 1 - place.abs_diff(NEIGHBOURS)) as f64 * raw[at]
        });
        near.sum()
    };
    (0..raw.len()).max_by(|a, b| smooth(*a).total_cmp(&smooth(*b)))
}

fn total<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Option<f64> {
    let profile: Profile = STANDARD;
    let (raw, windows) = outcomes.fold((0.0, 0.0), |(raw, windows), one| (raw + one.raw, windows + one.windows as f64));
    let (null, perfect) = (-profile.false_negative * windows, profile.true_positive * windows);
    (windows > 0.0).then(|| 100.0 * (raw - null) / (perfect - null))
}

fn outcome<'a>(
    model: &dyn RowModel,
    series: impl Iterator<Item = (&'a Series, &'a Vec<f32>)>,
    threshold: f64,
) -> Result<Outcome, ModelError> {
    let mut scored = Vec::new();
    for (series, outputs) in series {
        let scores: Vec<f64> = said(model, series, outputs)?.into_iter().map(|said| said.score).collect();
        scored.push((series, scores));
    }
    let pairs: Vec<Scored<'_>> =
        scored.iter().map(|(series, scores)| Scored { scores, windows: &series.windows }).collect();
    Ok(score(&pairs, threshold, &STANDARD))
}

fn fields() -> Result<[FieldSpec; 1], ModelError> {
    let name = FieldName::new("value")
        .map_err(|error| ModelError::Unfit { model: String::from("evaluation"), why: error.to_string() })?;
    Ok([FieldSpec { name, kind: FieldKind::Number, unit: None, policy: FieldPolicy::Clear }])
}

/// The network's outputs for every row of every series, which no threshold changes.
fn forecasts(model: &dyn RowModel, corpus: &[Series]) -> Result<Vec<Vec<f32>>, ModelError> {
    let fields = fields()?;
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let mut all = Vec::new();
    for series in corpus {
        let mut state = model.new_state(&fields);
        let mut of_series = Vec::new();
        let rows: Vec<_> = series.times.iter().zip(&series.values).collect();
        for rows in rows.chunks(BATCH) {
            inputs.clear();
            let mut count = 0;
            for (time, value) in rows {
                count += state.take(&Row { time: **time, values: &[FieldValue::Number(**value)] }, &mut inputs);
            }
            rows.iter().for_each(|_| state.skip());
            if count > 0 {
                model.forward(&inputs, count, &mut outputs)?;
                of_series.extend_from_slice(&outputs);
            }
        }
        all.push(of_series);
    }
    Ok(all)
}

/// What is said of each row.
fn said(model: &dyn RowModel, series: &Series, outputs: &[f32]) -> Result<Vec<Said>, ModelError> {
    let mut state = model.new_state(&fields()?);
    let (mut unused, mut at) = (Vec::new(), 0);
    let rows = series.times.iter().zip(&series.values).map(|(time, value)| {
        unused.clear();
        let taken = state.take(&Row { time: *time, values: &[FieldValue::Number(*value)] }, &mut unused);
        let end = at + taken * model.output_width();
        let verdict = state.judge(outputs.get(at..end).unwrap_or_default());
        at = end;
        Said { score: verdict.score, flagged: verdict.flagged }
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;
    use crate::eval::nab_data::{Written, read_folder};

    fn corpus(files: &[(&str, &[(usize, usize)])]) -> Vec<Series> {
        let series = |(name, windows): &(&str, &[(usize, usize)])| {
            let times: Vec<_> = (0..400).map(|row| nearside_schemas::Timestamp::from_secs(300 * row)).collect();
            let values: Vec<f64> = (0..400).map(|row| if row == 300 { 90.0 } else { f64::from(row % 7) }).collect();
            let written =
                times.iter().map(|time| Written { time: time.to_string(), value: String::new(), is_read: true });
            let written = written.collect();
            let category = name.split('/').next().unwrap().to_owned();
            Series { name: (*name).to_owned(), category, times, values, windows: windows.to_vec(), written }
        };
        files.iter().map(series).collect()
    }

    fn left_out(corpus: &[Series]) -> LeaveOut {
        let (card, weights) = catalog::parts("robust-z", None).unwrap();
        let model_without = |_: &str| -> Result<Box<WithThreshold<'_>>, ModelError> {
            let (card, weights) = (card.clone(), weights.to_vec());
            Ok(Box::new(move |threshold| catalog::build(crate::card::Card { threshold, ..card.clone() }, &weights)))
        };
        leave_one_category_out(corpus, card.threshold, model_without, |_| ()).unwrap()
    }

    #[test]
    fn where_no_threshold_can_be_chosen_there_is_no_score() {
        let one = left_out(&corpus(&[("a/1.csv", &[(295, 310)]), ("a/2.csv", &[])]));
        assert_eq!((one.score, one.categories[0].threshold, one.categories[0].outcome), (None, None, None));
        assert!(one.at_card.is_some() && one.files.len() == 2);
        assert_eq!(one.files[0].outcome.map(|outcome| outcome.windows), Some(1));
        let two = left_out(&corpus(&[("a/1.csv", &[(295, 310)]), ("b/2.csv", &[(295, 310)])]));
        assert!(two.score.is_some() && two.categories.iter().all(|one| one.threshold.is_some()));
        let none = left_out(&corpus(&[("a/1.csv", &[]), ("b/2.csv", &[])]));
        assert_eq!((none.score, none.at_card), (None, None), "nothing is to be found");
    }

    #[test]
    fn the_middle_of_a_plateau_is_chosen_and_no_peak_beside_it() {
        let mut raw = [0.0; 40];
        raw[10..19].fill(5.0);
        assert_eq!(steadiest(&raw), Some(14));
        raw[30] = 12.0;
        assert_eq!(steadiest(&raw), Some(14), "one step is luck");
        assert_eq!(steadiest(&[3.0, 2.0, 1.0, 0.0, -1.0]), Some(0), "the end may be best");
        assert_eq!(steadiest(&[]), None);
    }

    #[test]
    fn every_row_is_written_with_its_score() {
        let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(data.path().join("a")).unwrap();
        let rows = "timestamp,value\n2014-04-01 00:00:00,1\n2014-04-01 00:05:00,\n2014-04-01 00:10:00,2\n";
        std::fs::write(data.path().join("a/1.csv"), rows).unwrap();
        let corpus = read_folder(data.path()).unwrap();
        let model = catalog::load("robust-z", None).unwrap();
        let files = judge(model.as_ref(), &corpus.unscored).unwrap();
        assert_eq!((files[0].rows, files[0].rows_set_aside, files[0].outcome), (2, 1, None));
        write_scores(out.path(), &corpus.unscored[0], &files[0].said).unwrap();
        let written = std::fs::read_to_string(out.path().join("a/1.csv")).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines[0], "timestamp,value,anomaly_score,flagged");
        assert_eq!((lines.len(), lines[2]), (4, "2014-04-01 00:05:00,,0.0000000000,0"));
    }
}
