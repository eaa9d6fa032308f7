//! A detector on the Skoltech Anomaly Benchmark (I. Katser, V. Kozitsin, 2020): runs of a water pump in files of their own.
//!
//! A file is a stream: `;`-separated, first column the time, then one column a sensor, and, where they are known, the labels
//! `anomaly` and `changepoint`. Its first [`NORMAL_ROWS`] rows are normal by protocol. Scoring counts every later row of every
//! labelled file alike: F1 = 2 TP / (2 TP + FP + FN), false-alarm rate FP / (FP + TN), missed-alarm rate FN / (FN + TP).
//!
//! Promises: rows are judged in order, each from itself and earlier rows alone; labels are never shown to the model; nothing is
//! chosen per file.

use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDateTime};
use nearside_schemas::{FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, Timestamp};
use serde::Serialize;

use crate::ModelError;
use crate::row_model::{Row, RowModel, RowVerdict};

/// Rows at the start of a file that are normal and not scored.
pub const NORMAL_ROWS: usize = 400;
/// Rows that travel together.
const BATCH: usize = 64;
/// Columns that are labels, not sensors.
const LABELS: [&str; 2] = ["anomaly", "changepoint"];

/// One run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The file below the folder that was read.
    pub path: PathBuf,
    /// One for each sensor.
    pub fields: Vec<FieldSpec>,
    /// Times as the file has them.
    pub stamps: Vec<String>,
    /// The same as numbers.
    pub times: Vec<Timestamp>,
    /// Row-major, one for each field; missing where the file has no number.
    pub values: Vec<FieldValue>,
    /// Whether a row is anomalous, where the file says so.
    pub labels: Option<Vec<bool>>,
}

/// What a detector said of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Said {
    /// 0 to 1.
    pub score: f64,
    /// Whether it was flagged.
    pub flagged: bool,
}

/// Rows by what they were and what was said of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Anomalous and flagged.
    pub true_positives: u64,
    /// Normal and flagged.
    pub false_positives: u64,
    /// Anomalous and not flagged.
    pub false_negatives: u64,
    /// Normal and not flagged.
    pub true_negatives: u64,
}

impl Counts {
    /// Counts the rows after the normal ones.
    pub fn of(said: &[Said], labels: &[bool]) -> Self {
        let mut counts = Self::default();
        for (said, is_anomalous) in said.iter().zip(labels).skip(NORMAL_ROWS) {
            let of = match (is_anomalous, said.flagged) {
                (true, true) => &mut counts.true_positives,
                (false, true) => &mut counts.false_positives,
                (true, false) => &mut counts.false_negatives,
                (false, false) => &mut counts.true_negatives,
            };
            *of += 1;
        }
        counts
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            true_positives: self.true_positives + other.true_positives,
            false_positives: self.false_positives + other.false_positives,
            false_negatives: self.false_negatives + other.false_negatives,
            true_negatives: self.true_negatives + other.true_negatives,
        }
    }

    /// 0 to 1; 0 where nothing is anomalous and nothing was flagged.
    pub fn f1(&self) -> f64 {
        ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)
    }

    /// The share of normal rows that were flagged.
    pub fn false_alarm_rate(&self) -> f64 {
        ratio(self.false_positives, self.false_positives + self.true_negatives)
    }

    /// The share of anomalous rows that were not flagged.
    pub fn missed_alarm_rate(&self) -> f64 {
        ratio(self.false_negatives, self.false_negatives + self.true_positives)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The `.csv` files of a folder and its sub-folders, in order, as paths below the folder.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let path = folder.join(&below);
        let file = |source| ModelError::File { path: path.clone(), source };
        for entry in std::fs::read_dir(&path).map_err(file)? {
            let entry = entry.map_err(file)?;
            let (kind, name) = (entry.file_type().map_err(file)?, below.join(entry.file_name()));
            if kind.is_dir() {
                folders.push(name);
            } else if name.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Reads the file `path` below `folder`.
pub fn read_run(folder: &Path, path: &Path) -> Result<Run, ModelError> {
    let full = folder.join(path);
    let text = std::fs::read_to_string(&full).map_err(|source| ModelError::File { path: full.clone(), source })?;
    parse(path, &text).map_err(|why| ModelError::Data { path: full, why })
}

fn parse(path: &Path, text: &str) -> Result<Run, String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, header) = lines.next().ok_or("it is empty")?;
    let separator = if header.contains(';') { ';' } else { ',' };
    let names: Vec<&str> = header.split(separator).map(str::trim).collect();
    let sensors: Vec<usize> = (1..names.len()).filter(|column| !LABELS.contains(&names[*column])).collect();
    let label = names.iter().position(|name| *name == LABELS[0]);
    let fields: Vec<FieldSpec> = sensors.iter().map(|column| field(names[*column])).collect::<Result<_, _>>()?;
    let mut run = Run {
        path: path.to_owned(),
        fields,
        stamps: Vec::new(),
        times: Vec::new(),
        values: Vec::new(),
        labels: label.map(|_| Vec::new()),
    };
    for (line, row) in lines {
        let cells: Vec<&str> = row.split(separator).map(str::trim).collect();
        let number = |column: usize| cells.get(column).and_then(|cell| cell.parse::<f64>().ok());
        let time = cells.first().and_then(|cell| parse_time(cell));
        run.times.push(time.ok_or_else(|| format!("line {}: it does not begin with a time", line + 1))?);
        run.stamps.push(cells[0].to_owned());
        let values = sensors.iter().map(|column| number(*column).filter(|value| value.is_finite()));
        run.values.extend(values.map(|value| value.map_or(FieldValue::Missing, FieldValue::Number)));
        if let (Some(column), Some(labels)) = (label, &mut run.labels) {
            let is_anomalous = number(column).ok_or_else(|| format!("line {}: no label", line + 1))?;
            labels.push(is_anomalous != 0.0);
        }
    }
    Ok(run)
}

/// A sensor by its column's name, with `_` for what a field name cannot have.
fn field(name: &str) -> Result<FieldSpec, String> {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let name = FieldName::new(&plain).map_err(|error| error.to_string())?;
    Ok(FieldSpec { name, kind: FieldKind::Number, unit: None, policy: FieldPolicy::Clear })
}

fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(Timestamp::from_micros(time.timestamp_micros()));
    }
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    let time = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
    Some(Timestamp::from_micros(time.and_utc().timestamp_micros()))
}

/// What the model says of every row, in order.
pub fn judge(model: &dyn RowModel, run: &Run) -> Result<Vec<Said>, ModelError> {
    model.accepts(&run.fields)?;
    let mut state = model.new_state(&run.fields);
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let mut said = Vec::with_capacity(run.times.len());
    let rows: Vec<_> = run.times.iter().zip(run.values.chunks_exact(run.fields.len())).collect();
    for rows in rows.chunks(BATCH) {
        inputs.clear();
        let counts: Vec<usize> =
            rows.iter().map(|(time, values)| state.take(&Row { time: **time, values }, &mut inputs)).collect();
        model.forward(&inputs, counts.iter().sum(), &mut outputs)?;
        let mut rest = outputs.as_slice();
        for count in counts {
            let (own, later) = rest.split_at(count * model.output_width());
            let RowVerdict { score, flagged, .. } = state.judge(own);
            said.push(Said { score, flagged });
            rest = later;
        }
    }
    Ok(said)
}

/// Writes `timestamp,score,flagged` for every row, to the run's own path below `folder`.
pub fn write_scores(folder: &Path, run: &Run, said: &[Said]) -> Result<(), ModelError> {
    use std::fmt::Write as _;
    let path = folder.join(&run.path);
    let file = |source| ModelError::File { path: path.clone(), source };
    let mut text = String::from("timestamp,score,flagged\n");
    for (stamp, said) in run.stamps.iter().zip(said) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{stamp},{:.6},{}", said.score, u8::from(said.flagged));
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(file)?;
    }
    std::fs::write(&path, text).map_err(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    const LABELLED: &str = "datetime;Volume Flow RateRMS;Pressure;anomaly;changepoint\n\
        2020-03-09 10:14:33;32.0;0.05;0.0;0.0\n2020-03-09 10:14:34;nothing;0.38;1.0;1.0\n";

    #[test]
    fn labels_are_not_sensors_and_what_is_no_number_is_missing() {
        let run = parse(Path::new("1.csv"), LABELLED).unwrap();
        let names: Vec<&str> = run.fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["volume_flow_raterms", "pressure"]);
        assert_eq!(run.labels.as_deref(), Some(&[false, true][..]));
        assert_eq!(run.values[2], FieldValue::Missing);
        assert_eq!(run.values[3], FieldValue::Number(0.38));
        assert_eq!(run.times[1].as_micros() - run.times[0].as_micros(), 1_000_000);
        let unlabelled = parse(Path::new("x"), "t,a,b\n2020-03-09 10:14:33,1,2\n").unwrap();
        assert_eq!((unlabelled.labels, unlabelled.fields.len()), (None, 2));
        assert!(parse(Path::new("x"), "").is_err());
        assert!(parse(Path::new("x"), "t;a\nyesterday;1\n").unwrap_err().contains("line 2"));
    }

    #[test]
    fn rates_are_those_of_the_benchmark() {
        let flag = |flags: &str| -> Vec<Said> {
            let normal = std::iter::repeat_n('1', NORMAL_ROWS);
            normal.chain(flags.chars()).map(|c| Said { score: 0.0, flagged: c == '1' }).collect()
        };
        let labels: Vec<bool> =
            std::iter::repeat_n(true, NORMAL_ROWS).chain("1111000000".chars().map(|c| c == '1')).collect();
        let counts = Counts::of(&flag("1110110000"), &labels);
        assert_eq!((counts.true_positives, counts.false_positives), (3, 2), "the first 400 rows count for nothing");
        assert_eq!((counts.false_negatives, counts.true_negatives), (1, 4));
        assert!((counts.f1() - 6.0 / 9.0).abs() < 1e-12);
        assert!((counts.false_alarm_rate() - 2.0 / 6.0).abs() < 1e-12);
        assert!((counts.missed_alarm_rate() - 0.25).abs() < 1e-12);
        assert_eq!(counts.plus(Counts::default()), counts);
        assert_eq!(Counts::default().f1(), 0.0);
    }

    #[test]
    fn every_row_gets_a_line_and_sub_folders_are_walked() {
        let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(data.path().join("a/b")).unwrap();
        std::fs::write(data.path().join("a/b/1.csv"), LABELLED).unwrap();
        std::fs::write(data.path().join("2.csv"), LABELLED).unwrap();
        std::fs::write(data.path().join("notes.txt"), "none").unwrap();
        let found = files(data.path()).unwrap();
        assert_eq!(found, [PathBuf::from("2.csv"), PathBuf::from("a/b/1.csv")]);
        let model = catalog::load("multivariate", None).unwrap();
        let run = read_run(data.path(), &found[1]).unwrap();
        let said = judge(model.as_ref(), &run).unwrap();
        write_scores(out.path(), &run, &said).unwrap();
        let written = std::fs::read_to_string(out.path().join("a/b/1.csv")).unwrap();
        assert_eq!(
            written,
            "timestamp,score,flagged\n2020-03-09 10:14:33,0.000000,0\n2020-03-09 10:14:34,0.000000,0\n"
        );
    }
}
