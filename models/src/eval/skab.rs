//! A detector on the Skoltech Anomaly Benchmark (I. Katser, V. Kozitsin, 2020): runs of a water pump in files of their own.
//!
//! A file is a stream: a table with a column of times, one column a sensor, and, where they are known, the labels `anomaly` and
//! `changepoint`. Its first [`NORMAL_ROWS`] rows are normal by protocol. Scoring counts every later row that has a label alike:
//! F1 = 2 TP / (2 TP + FP + FN), false-alarm rate FP / (FP + TN), missed-alarm rate FN / (FN + TP).
//!
//! Promises: rows are judged in order, each from itself and earlier rows alone; labels are never shown to the model, however they are
//! written; nothing is chosen per file; every row of a file that is judged has a score, and what had to be made up for that is noted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nearside_schemas::{FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, Timestamp};
use serde::Serialize;

use super::table::{self, TIME_NAMES};
use crate::ModelError;
use crate::row_model::{Row, RowModel, RowVerdict};

/// Rows at the start of a file that are normal and not scored.
pub const NORMAL_ROWS: usize = 400;
/// Rows that travel together.
const BATCH: usize = 64;
/// Characters of a sensor's name that are kept.
const MOST_NAME: usize = 48;
/// Columns that are labels, not sensors, in whatever case.
const LABELS: [&str; 2] = ["anomaly", "changepoint"];

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The file below the folder that was read.
    pub path: PathBuf,
    /// One for each sensor.
    pub fields: Vec<FieldSpec>,
    /// Times as the file has them.
    pub stamps: Vec<String>,
    /// The same as numbers.
    pub times: Vec<Timestamp>,
    /// Whether any of them could be read; else rows are a second apart.
    pub is_timed: bool,
    /// Row-major, one for each field; missing where the file has no number.
    pub values: Vec<FieldValue>,
    /// Whether a row is anomalous; `None` where the file says so of no row, and for the rows that it does not say it of.
    pub labels: Option<Vec<Option<bool>>>,
    /// What the file does not say and had to be made up, for people.
    pub notes: Vec<String>,
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
    /// Counts the rows after the normal ones that have a label.
    pub fn of(said: &[Said], labels: &[Option<bool>]) -> Self {
        let mut counts = Self::default();
        for (said, label) in said.iter().zip(labels).skip(NORMAL_ROWS) {
            let Some(is_anomalous) = label else { continue };
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

    /// How many rows.
    pub const fn rows(&self) -> u64 {
        self.true_positives + self.false_positives + self.false_negatives + self.true_negatives
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

/// Reads the file `path` below `folder`.
pub fn read_run(folder: &Path, path: &Path) -> Result<Run, ModelError> {
    let full = folder.join(path);
    let text = table::read_text(&full)?;
    parse(path, &text).map_err(|why| ModelError::Data { path: full, why })
}

fn parse(path: &Path, text: &str) -> Result<Run, String> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let header = lines.next().ok_or("it is empty")?;
    let separator = table::separator(header);
    let names = table::cells(header, separator);
    let rows: Vec<Vec<&str>> = lines.map(|line| table::cells(line, separator)).collect();
    let first = rows.first().ok_or("it has a header and no row")?;
    let is_label = |column: usize| LABELS.iter().any(|label| names[column].eq_ignore_ascii_case(label));
    let time = time_column(&names, first, is_label).ok_or("all its columns are labels")?;
    // A column without a name is the numbering that a table was written with.
    let sensors: Vec<usize> =
        (0..names.len()).filter(|column| *column != time && !is_label(*column) && !names[*column].is_empty()).collect();
    let cell = |row: &[&str], column: usize| row.get(column).and_then(|cell| table::number(cell, separator));
    let values: Vec<FieldValue> = rows
        .iter()
        .flat_map(|row| sensors.iter().map(|column| cell(row, *column)))
        .map(|value| value.map_or(FieldValue::Missing, FieldValue::Number))
        .collect();
    if values.iter().all(|value| *value == FieldValue::Missing) {
        return Err(String::from("no column of it has numbers"));
    }
    let mut notes = Vec::new();
    let stamps: Vec<String> = rows.iter().map(|row| row.get(time).copied().unwrap_or_default().to_owned()).collect();
    let label = table::column(&names, &LABELS[..1]);
    let labels = label.map(|label| rows.iter().map(|row| truth(row.get(label)?, separator)).collect());
    Ok(Run {
        path: path.to_owned(),
        fields: fields(sensors.iter().map(|column| names[*column]))?,
        is_timed: stamps.iter().any(|stamp| table::time(stamp).is_some()),
        times: times(&stamps, &mut notes),
        stamps,
        values,
        labels: known(labels, &mut notes),
        notes,
    })
}

/// The column of times: by its name, else the first with a date in it, else the first that is no label.
fn time_column(names: &[&str], first: &[&str], is_label: impl Fn(usize) -> bool) -> Option<usize> {
    let dated = || first.iter().take(names.len()).position(|cell| table::date_time(cell).is_some());
    table::column(names, &TIME_NAMES).or_else(dated).or_else(|| (0..names.len()).find(|column| !is_label(*column)))
}

/// One for each row: what cannot be read is as late as the row before it. Where none can be read the rows are a second apart.
fn times(stamps: &[String], notes: &mut Vec<String>) -> Vec<Timestamp> {
    let read: Vec<Option<Timestamp>> = stamps.iter().map(|stamp| table::time(stamp)).collect();
    let unread = read.iter().filter(|time| time.is_none()).count();
    if unread == read.len() {
        notes.push(String::from("its times cannot be read; its rows are taken to be a second apart"));
        return (0..).take(read.len()).map(Timestamp::from_secs).collect();
    }
    if unread > 0 {
        notes.push(format!(
            "{unread} of its times cannot be read; those rows are taken to be as late as the one before"
        ));
    }
    let mut last = read.iter().flatten().next().copied().unwrap_or(Timestamp::from_secs(0));
    read.into_iter()
        .map(|time| {
            last = time.unwrap_or(last);
            last
        })
        .collect()
}

/// Labels, where there is at least one.
fn known(labels: Option<Vec<Option<bool>>>, notes: &mut Vec<String>) -> Option<Vec<Option<bool>>> {
    let labels = labels?;
    match labels.iter().filter(|label| label.is_none()).count() {
        0 => Some(labels),
        blank if blank == labels.len() => {
            notes.push(String::from("no row of its column `anomaly` can be read; it counts as a file without labels"));
            None
        }
        blank => {
            notes.push(format!("{blank} of its rows have no label and are not counted"));
            Some(labels)
        }
    }
}

fn truth(cell: &str, separator: char) -> Option<bool> {
    match cell {
        _ if cell.eq_ignore_ascii_case("true") => Some(true),
        _ if cell.eq_ignore_ascii_case("false") => Some(false),
        _ => table::number(cell, separator).map(|number| number != 0.0),
    }
}

/// Sensors by their columns' names, with `_` for what a field name cannot have; numbered where nothing else is left or two are alike.
fn fields<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<FieldSpec>, String> {
    let mut taken = BTreeSet::new();
    let named = names.enumerate().map(|(index, name)| {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
        let plain: String = name.chars().map(letter).take(MOST_NAME).collect();
        let is_plain = plain.contains(|c: char| c != '_') && taken.insert(plain.clone());
        let plain = if is_plain { plain } else { format!("sensor_{}", index + 1) };
        let name = FieldName::new(&plain).map_err(|error| error.to_string())?;
        Ok(FieldSpec { name, kind: FieldKind::Number, unit: None, policy: FieldPolicy::Clear })
    });
    named.collect()
}

impl Run {
    /// As it is where the model takes it, else with as many sensors of those that have numbers as it takes, and a note. `None` where it
    /// takes none of that.
    pub fn for_model(mut self, model: &dyn RowModel) -> Option<Self> {
        if model.accepts(&self.fields).is_ok() {
            return Some(self);
        }
        let width = self.fields.len();
        let has_numbers =
            |sensor: &usize| self.values.iter().skip(*sensor).step_by(width).any(|value| *value != FieldValue::Missing);
        let mut kept: Vec<usize> = (0..width).filter(has_numbers).collect();
        let of = |kept: &[usize]| kept.iter().map(|sensor| self.fields[*sensor].clone()).collect::<Vec<_>>();
        while model.accepts(&of(&kept)).is_err() {
            kept.pop()?;
        }
        self.fields = of(&kept);
        let rows = self.values.chunks_exact(width);
        self.values = rows.flat_map(|row| kept.iter().map(|sensor| row[*sensor].clone())).collect();
        self.notes.push(format!("it is judged by {} of its {width} sensors: the model takes no more", kept.len()));
        Some(self)
    }
}

/// What the model says of every row, in order.
pub fn judge(model: &dyn RowModel, run: &Run) -> Result<Vec<Said>, ModelError> {
    let said = verdicts(model, &run.fields, &run.times, &run.values)?.into_iter();
    Ok(said.map(|RowVerdict { score, flagged, .. }| Said { score, flagged }).collect())
}

/// The verdicts of a model on rows of these fields, in order; `values` is row-major.
pub(super) fn verdicts(
    model: &dyn RowModel,
    fields: &[FieldSpec],
    times: &[Timestamp],
    values: &[FieldValue],
) -> Result<Vec<RowVerdict>, ModelError> {
    model.accepts(fields)?;
    let mut state = model.new_state(fields);
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let mut verdicts = Vec::with_capacity(times.len());
    let rows: Vec<_> = times.iter().zip(values.chunks_exact(fields.len())).collect();
    for rows in rows.chunks(BATCH) {
        inputs.clear();
        let counts: Vec<usize> =
            rows.iter().map(|(time, values)| state.take(&Row { time: **time, values }, &mut inputs)).collect();
        model.forward(&inputs, counts.iter().sum(), &mut outputs)?;
        let mut rest = outputs.as_slice();
        for count in counts {
            let (own, later) = rest.split_at(count * model.output_width());
            verdicts.push(state.judge(own));
            rest = later;
        }
    }
    Ok(verdicts)
}

/// Writes `timestamp,score,flagged` for every row, to the run's own path below `folder`.
pub fn write_scores(folder: &Path, run: &Run, said: &[Said]) -> Result<(), ModelError> {
    use std::fmt::Write as _;
    let path = folder.join(&run.path);
    let file = |source| ModelError::File { path: path.clone(), source };
    let mut text = String::from("timestamp,score,flagged\n");
    for (stamp, said) in run.stamps.iter().zip(said) {
        let stamp = table::quoted(stamp);
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
        assert_eq!(run.labels.as_deref(), Some(&[Some(false), Some(true)][..]));
        assert_eq!(run.values[2], FieldValue::Missing);
        assert_eq!(run.values[3], FieldValue::Number(0.38));
        assert_eq!(run.times[1].as_micros() - run.times[0].as_micros(), 1_000_000);
        let unlabelled = parse(Path::new("x"), "t,a,b\n2020-03-09 10:14:33,1,2\n").unwrap();
        assert_eq!((unlabelled.labels, unlabelled.fields.len()), (None, 2));
        assert!(parse(Path::new("x"), "").is_err());
        for nothing in ["", "t;a\n", "t;a\n2020-03-09 10:14:33;x\n", "anomaly;changepoint\n1;0\n"] {
            assert!(parse(Path::new("x"), nothing).is_err(), "{nothing}");
        }
    }

    /// The same run in every dress that it was met in.
    #[test]
    fn every_dress_of_a_run_is_read_and_labels_stay_labels() {
        let dressed = [
            "datetime\tA\tB\tAnomaly\n2020-03-09 10:14:33\t1.5\t2\t0\n2020-03-09 10:14:34\t3\t4\t1\n",
            "\"datetime\",\"A\",\"B\",\"ANOMALY\",\"ChangePoint\"\n\"2020-03-09 10:14:33\",\"1.5\",\"2\",\"0.0\",\"0\"\n\"2020-03-09 10:14:34\",\"3\",\"4\",\"1.0\",\"1\"\n",
            "anomaly;changepoint;datetime;A;B\n0.0;0;09.03.2020 10:14:33;1,5;2\n1.0;1;09.03.2020 10:14:34;3;4\n",
            ";datetime;A;B;anomaly\n0;1583748873;1.5;2;False\n1;1583748874;3;4;True\n",
        ];
        for text in dressed {
            let run = parse(Path::new("x"), text).unwrap();
            let names: Vec<&str> = run.fields.iter().map(|field| field.name.as_str()).collect();
            assert_eq!(names, ["a", "b"], "{text}");
            assert_eq!(run.values, [1.5, 2.0, 3.0, 4.0].map(FieldValue::Number), "{text}");
            assert_eq!(run.labels, Some(vec![Some(false), Some(true)]), "{text}");
            assert_eq!(run.times[0], table::time("2020-03-09 10:14:33").unwrap(), "{text}");
            assert!(run.notes.is_empty(), "{text}: {:?}", run.notes);
        }
    }

    #[test]
    fn what_a_file_does_not_say_is_made_up_and_noted() {
        let odd = "t;1st;1st;温度;anomaly\nyesterday;1;2;3;\ntoday;4;5;6;1\n";
        let run = parse(Path::new("x"), odd).unwrap();
        let names: Vec<&str> = run.fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["1st", "sensor_2", "sensor_3"]);
        assert_eq!(run.times, [0, 1].map(Timestamp::from_secs));
        assert_eq!(run.labels, Some(vec![None, Some(true)]));
        assert_eq!(run.notes.len(), 2, "{:?}", run.notes);
        let run = parse(Path::new("x"), "t;a;anomaly\n2020-03-09 10:14:33;1;\n?;2;\n").unwrap();
        assert_eq!((run.times[1], run.labels), (run.times[0], None));
    }

    #[test]
    fn a_model_gets_as_many_sensors_as_it_takes() {
        let model = catalog::load("multivariate", None).unwrap();
        let names: String = (0..40).map(|n| format!(";s{n}")).collect();
        let row: String = (0..40).map(|n| if n == 0 { String::from(";x") } else { format!(";{n}") }).collect();
        let run = parse(Path::new("x"), &format!("t{names}\n2020-03-09 10:14:33{row}\n")).unwrap();
        let run = run.for_model(model.as_ref()).unwrap();
        assert_eq!((run.fields.len(), run.fields[0].name.as_str()), (32, "s1"), "a column of words is no sensor");
        assert_eq!((run.values.len(), &run.values[31]), (32, &FieldValue::Number(32.0)));
        let one = parse(Path::new("x"), "t;a\n2020-03-09 10:14:33;1\n").unwrap();
        assert_eq!(one.for_model(model.as_ref()), None);
    }

    #[test]
    fn rates_are_those_of_the_benchmark() {
        let flag = |flags: &str| -> Vec<Said> {
            let normal = std::iter::repeat_n('1', NORMAL_ROWS);
            normal.chain(flags.chars()).map(|c| Said { score: 0.0, flagged: c == '1' }).collect()
        };
        let labels: Vec<Option<bool>> =
            std::iter::repeat_n(true, NORMAL_ROWS).chain("1111000000".chars().map(|c| c == '1')).map(Some).collect();
        let counts = Counts::of(&flag("1110110000"), &labels);
        assert_eq!((counts.true_positives, counts.false_positives), (3, 2), "the first 400 rows count for nothing");
        assert_eq!((counts.false_negatives, counts.true_negatives), (1, 4));
        assert!((counts.f1() - 6.0 / 9.0).abs() < 1e-12);
        assert!((counts.false_alarm_rate() - 2.0 / 6.0).abs() < 1e-12);
        assert!((counts.missed_alarm_rate() - 0.25).abs() < 1e-12);
        assert_eq!(counts.plus(Counts::default()), counts);
        assert_eq!((Counts::default().f1(), counts.rows()), (0.0, 10));
        let blank = vec![None; NORMAL_ROWS + 10];
        assert_eq!(Counts::of(&flag("1110110000"), &blank), Counts::default(), "what has no label counts for nothing");
    }

    #[test]
    fn every_row_gets_a_line_and_sub_folders_are_walked() {
        let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(data.path().join("a/b")).unwrap();
        std::fs::write(data.path().join("a/b/1.csv"), LABELLED).unwrap();
        std::fs::write(data.path().join("2.csv"), LABELLED).unwrap();
        std::fs::write(data.path().join("notes.txt"), "none").unwrap();
        let found = table::csv_files(data.path()).unwrap().files;
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
