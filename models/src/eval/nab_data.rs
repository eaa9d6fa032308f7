//! Reading a folder of the Numenta Anomaly Benchmark: `CATEGORY/NAME.csv` with the columns `timestamp,value`, and
//! `combined_windows.json` with the anomaly windows of each file, beside them or in `labels/` as the benchmark itself has it.
//!
//! Source: github.com/numenta/NAB, MIT licence. Times have no zone and count as UTC.
//!
//! Promise: a row that cannot be read is set aside and counted, a file that cannot be read or scored is named, and the others are read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use nearside_schemas::Timestamp;

use super::SetAside;
use super::table::{self, TIME_NAMES};
use crate::ModelError;

/// The file with the windows.
const WINDOWS_FILE: &str = "combined_windows.json";
/// Where it may be, below the folder; the benchmark's own layout has data and labels beside each other.
const WINDOWS_PLACES: [&str; 3] = ["", "labels", "../labels"];
/// Where the series are in the benchmark's own layout.
const DATA: &str = "data";

/// One file of the benchmark.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// `CATEGORY/NAME.csv`.
    pub name: String,
    /// The category: the folder.
    pub category: String,
    /// Times, ascending but for repeats.
    pub times: Vec<Timestamp>,
    /// One finite value a row.
    pub values: Vec<f64>,
    /// First and last row of each anomaly window, in order.
    pub windows: Vec<(usize, usize)>,
    /// Every row as the file has it, those that were set aside too.
    pub written: Vec<Written>,
}

/// A row as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The time.
    pub time: String,
    /// The value.
    pub value: String,
    /// Whether it was read; else it was set aside.
    pub is_read: bool,
}

impl Series {
    /// Rows that could not be read.
    pub fn set_aside(&self) -> usize {
        self.written.len() - self.times.len()
    }
}

/// A folder, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Corpus {
    /// Series with windows (or none of them), by name in order.
    pub series: Vec<Series>,
    /// Series that nothing is known of: they can be judged, not scored.
    pub unscored: Vec<Series>,
    /// What was not read, or not scored although others are.
    pub set_aside: Vec<SetAside>,
}

impl Corpus {
    /// What a detector learns from: the scored ones; all, where no windows are known.
    pub fn learnt_from(&self) -> &[Series] {
        if self.series.is_empty() { &self.unscored } else { &self.series }
    }
}

type Windows = BTreeMap<String, Vec<(String, String)>>;

/// Reads the series of a folder. Where there is no file of windows none is scored.
pub fn read_folder(folder: &Path) -> Result<Corpus, ModelError> {
    let windows = WINDOWS_PLACES.iter().map(|place| folder.join(place).join(WINDOWS_FILE)).find(|path| path.is_file());
    let known = windows.as_deref().map(read_windows).transpose()?;
    let beside_labels = Some(folder.join("labels").join(WINDOWS_FILE)) == windows;
    let base =
        Some(folder.join(DATA)).filter(|data| beside_labels && data.is_dir()).unwrap_or_else(|| folder.to_owned());
    let mut corpus = Corpus::default();
    let mut listed = BTreeSet::new();
    for (name, windows) in known.iter().flatten() {
        let place = PathBuf::from(name);
        if !place.components().all(|part| matches!(part, Component::Normal(_))) {
            corpus.set_aside.push(SetAside::new(name, format!("{WINDOWS_FILE} names a place outside of the folder")));
            continue;
        }
        if base.join(&place).is_file() {
            corpus.add(&base, name.clone(), Some(windows));
        }
        listed.insert(place);
    }
    let found = table::csv_files(&base)?;
    corpus.set_aside.extend(found.set_aside);
    for place in found.files.into_iter().filter(|place| !listed.contains(place)) {
        // Names are as the benchmark writes them on every system.
        let parts: Vec<_> = place.iter().map(|part| part.to_string_lossy()).collect();
        let name = parts.join("/");
        if known.is_some() {
            corpus.set_aside.push(SetAside::new(&name, format!("{WINDOWS_FILE} does not name it: it is not scored")));
        }
        corpus.add(&base, name, None);
    }
    if corpus.series.is_empty() && corpus.unscored.is_empty() {
        let first = corpus.set_aside.first().map(|one| format!("; {one}")).unwrap_or_default();
        let why = format!("there is no series in it: CATEGORY/NAME.csv with the columns timestamp,value{first}");
        return Err(ModelError::Data { path: folder.to_owned(), why });
    }
    Ok(corpus)
}

fn read_windows(path: &Path) -> Result<Windows, ModelError> {
    let text = table::read_text(path)?;
    serde_json::from_str(&text).map_err(|error| ModelError::Data { path: path.to_owned(), why: error.to_string() })
}

/// The categories of some series, each once, in order.
pub fn categories(corpus: &[Series]) -> Vec<String> {
    let mut all: Vec<String> = corpus.iter().map(|series| series.category.clone()).collect();
    all.sort();
    all.dedup();
    all
}

impl Corpus {
    fn add(&mut self, base: &Path, name: String, windows: Option<&Vec<(String, String)>>) {
        let read = table::read_text(&base.join(&name)).map_err(|error| error.to_string());
        let mut series = match read.and_then(|text| parse(&text)) {
            Ok(series) => series,
            Err(why) => {
                self.set_aside.push(SetAside::new(name, why));
                return;
            }
        };
        series.category = name.split('/').next().unwrap_or_default().to_owned();
        series.name = name;
        match windows.map(|windows| rows_of(windows, &series.times)) {
            Some(Ok(rows)) => {
                series.windows = rows;
                self.series.push(series);
            }
            Some(Err(why)) => {
                self.set_aside.push(SetAside::new(&series.name, format!("{WINDOWS_FILE}: {why}: it is not scored")));
                self.unscored.push(series);
            }
            None => self.unscored.push(series),
        }
    }
}

fn parse(text: &str) -> Result<Series, String> {
    let mut lines = text.lines().filter(|row| !row.trim().is_empty());
    let header = lines.next().ok_or("it is empty")?;
    let separator = table::separator(header);
    let names = table::cells(header, separator);
    let time = table::column(&names, &TIME_NAMES).unwrap_or(0);
    let value = table::column(&names, &["value"]).unwrap_or(usize::from(time == 0));
    let mut series = Series::default();
    for row in lines {
        let cells = table::cells(row, separator);
        let cell = |column: usize| cells.get(column).copied().unwrap_or_default();
        let read = table::time(cell(time)).zip(table::number(cell(value), separator));
        let (time, value) = (cell(time).to_owned(), cell(value).to_owned());
        series.written.push(Written { time, value, is_read: read.is_some() });
        if let Some((time, value)) = read {
            series.times.push(time);
            series.values.push(value);
        }
    }
    if series.times.is_empty() {
        return Err(String::from("no row of it has a time and a value"));
    }
    Ok(series)
}

/// The first and last row of each window.
fn rows_of(windows: &[(String, String)], times: &[Timestamp]) -> Result<Vec<(usize, usize)>, String> {
    let mut rows = Vec::new();
    for (start, end) in windows {
        let (Some(from), Some(to)) = (table::time(start), table::time(end)) else {
            return Err(format!("a window's time cannot be read: {start} .. {end}"));
        };
        let first = times.iter().position(|time| *time >= from);
        let last = times.iter().rposition(|time| *time <= to);
        match (first, last) {
            (Some(first), Some(last)) if first <= last => rows.push((first, last)),
            _ => return Err(format!("no row lies in the window {start} .. {end}")),
        }
    }
    if rows.windows(2).any(|pair| pair[0].1 >= pair[1].0) {
        return Err(String::from("windows overlap or are out of order"));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(csv: &str, windows: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("real")).unwrap();
        std::fs::write(folder.path().join("real/a.csv"), csv).unwrap();
        std::fs::write(folder.path().join(WINDOWS_FILE), windows).unwrap();
        folder
    }

    const CSV: &str = "timestamp,value\n2014-04-01 00:00:00,1\n2014-04-01 00:05:00,2.5\n2014-04-01 00:05:00,3\n2014-04-01 00:10:00,4\n";
    const WINDOWS: &str =
        r#"{"real/a.csv": [["2014-04-01 00:05:00.000000", "2014-04-01 00:05:00.000000"]], "real/b.csv": []}"#;

    #[test]
    fn windows_take_rows_by_time_inclusive() {
        let read = read_folder(folder(CSV, WINDOWS).path()).unwrap();
        assert_eq!((read.series.len(), &read.set_aside), (1, &Vec::new()), "a file that is not there is no error");
        let series = &read.series[0];
        assert_eq!((series.category.as_str(), &series.windows[..]), ("real", &[(1, 2)][..]));
        assert_eq!((series.values.as_slice(), series.set_aside()), (&[1.0, 2.5, 3.0, 4.0][..], 0));
    }

    #[test]
    fn a_bad_row_is_set_aside_and_the_others_stay() {
        let csv = "value,Timestamp\n1,2014-04-01 00:00:00\n,2014-04-01 00:05:00\ninf,2014-04-01 00:05:00\n4,2014-04-01T00:05:00\n";
        let read = read_folder(folder(csv, WINDOWS).path()).unwrap();
        let series = &read.series[0];
        assert_eq!(
            (series.values.as_slice(), series.set_aside(), &series.windows[..]),
            (&[1.0, 4.0][..], 2, &[(1, 1)][..])
        );
        assert_eq!(series.written.iter().map(|row| row.is_read).collect::<Vec<_>>(), [true, false, false, true]);
    }

    #[test]
    fn what_cannot_be_scored_is_named_and_can_still_be_judged() {
        for (windows, why) in [
            (r#"{"real/a.csv": [["2015-04-01 00:05:00", "2015-04-01 00:05:00"]]}"#, "no row"),
            (r#"{"real/a.csv": [["soon", "2015-04-01 00:05:00"]]}"#, "cannot be read"),
            (
                r#"{"real/a.csv": [["2014-04-01 00:00:00", "2014-04-01 00:05:00"], ["2014-04-01 00:05:00", "2014-04-01 00:10:00"]]}"#,
                "overlap",
            ),
            ("{}", "does not name it"),
        ] {
            let read = read_folder(folder(CSV, windows).path()).unwrap();
            assert_eq!((read.series.len(), read.unscored.len()), (0, 1), "{windows}");
            assert!(
                read.set_aside[0].name == "real/a.csv" && read.set_aside[0].why.contains(why),
                "{:?}",
                read.set_aside
            );
        }
        let folder = folder(CSV, "[]");
        assert!(matches!(read_folder(folder.path()), Err(ModelError::Data { .. })), "windows that are none");
        std::fs::remove_file(folder.path().join(WINDOWS_FILE)).unwrap();
        let read = read_folder(folder.path()).unwrap();
        assert_eq!((read.learnt_from().len(), read.set_aside.len()), (1, 0), "without windows none is scored");
        std::fs::write(folder.path().join("real/a.csv"), "timestamp,value\nx,y\n").unwrap();
        assert!(matches!(read_folder(folder.path()), Err(ModelError::Data { .. })), "nothing is left");
    }

    #[test]
    fn the_benchmarks_own_layout_is_known() {
        let folder = folder(CSV, WINDOWS);
        let at = |place: &str| folder.path().join(place);
        std::fs::create_dir(at("labels")).unwrap();
        std::fs::rename(at(WINDOWS_FILE), at("labels/combined_windows.json")).unwrap();
        assert_eq!(read_folder(folder.path()).unwrap().series.len(), 1);
        std::fs::create_dir(at("data")).unwrap();
        std::fs::rename(at("real"), at("data/real")).unwrap();
        for place in ["", "data"] {
            assert_eq!(read_folder(&at(place)).unwrap().series[0].windows, [(1, 2)], "{place}");
        }
    }
}
