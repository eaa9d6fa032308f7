//! Reading a folder of the Numenta Anomaly Benchmark: `CATEGORY/NAME.csv` with the columns `timestamp,value`, and
//! `combined_windows.json` with the anomaly windows of each file.
//!
//! Source: github.com/numenta/NAB, MIT licence. Times have no zone and count as UTC.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::NaiveDateTime;
use nearside_schemas::Timestamp;

use crate::ModelError;

/// The file with the windows.
const WINDOWS_FILE: &str = "combined_windows.json";

/// One file of the benchmark.
#[derive(Clone, Debug)]
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
}

/// Reads all files that `combined_windows.json` names and the folder holds, by name in order.
pub fn read_folder(folder: &Path) -> Result<Vec<Series>, ModelError> {
    let path = folder.join(WINDOWS_FILE);
    let text = read(&path)?;
    let windows: BTreeMap<String, Vec<(String, String)>> =
        serde_json::from_str(&text).map_err(|error| ModelError::Data { path: path.clone(), why: error.to_string() })?;
    let mut all = Vec::new();
    for (name, windows) in windows {
        let file = folder.join(&name);
        if file.exists() {
            all.push(read_series(&file, name, &windows)?);
        }
    }
    if all.is_empty() {
        return Err(ModelError::Data { path, why: String::from("none of the files it names is in the folder") });
    }
    Ok(all)
}

/// The categories of some series, each once, in order.
pub fn categories(corpus: &[Series]) -> Vec<String> {
    let mut all: Vec<String> = corpus.iter().map(|series| series.category.clone()).collect();
    all.sort();
    all.dedup();
    all
}

fn read_series(path: &Path, name: String, windows: &[(String, String)]) -> Result<Series, ModelError> {
    let text = read(path)?;
    let data = |why: String| ModelError::Data { path: path.to_owned(), why };
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for (line, row) in text.lines().enumerate().skip(1).filter(|(_, row)| !row.is_empty()) {
        let cells = row.split_once(',').and_then(|(time, value)| Some((parse_time(time)?, value.trim().parse().ok()?)));
        let Some((time, value)) = cells.filter(|(_, value): &(Timestamp, f64)| value.is_finite()) else {
            return Err(data(format!("line {}: expected `timestamp,value`", line + 1)));
        };
        times.push(time);
        values.push(value);
    }
    let mut rows = Vec::new();
    for (start, end) in windows {
        let (Some(start), Some(end)) = (parse_time(start), parse_time(end)) else {
            return Err(data(format!("{WINDOWS_FILE}: a window's time cannot be read: {start} .. {end}")));
        };
        let first = times.iter().position(|time| *time >= start);
        let last = times.iter().rposition(|time| *time <= end);
        match (first, last) {
            (Some(first), Some(last)) if first <= last => rows.push((first, last)),
            _ => return Err(data(format!("{WINDOWS_FILE}: no row lies in the window {start} .. {end}"))),
        }
    }
    if rows.windows(2).any(|pair| pair[0].1 >= pair[1].0) {
        return Err(data(format!("{WINDOWS_FILE}: windows overlap or are out of order")));
    }
    let category = name.split('/').next().unwrap_or_default().to_owned();
    Ok(Series { name, category, times, values, windows: rows })
}

fn read(path: &Path) -> Result<String, ModelError> {
    std::fs::read_to_string(path).map_err(|source| ModelError::File { path: path.to_owned(), source })
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let time = NaiveDateTime::parse_from_str(text.trim(), "%Y-%m-%d %H:%M:%S%.f").ok()?;
    Some(Timestamp::from_micros(time.and_utc().timestamp_micros()))
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

    #[test]
    fn windows_take_rows_by_time_inclusive() {
        let windows =
            r#"{"real/a.csv": [["2014-04-01 00:05:00.000000", "2014-04-01 00:05:00.000000"]], "real/b.csv": []}"#;
        let read = read_folder(folder(CSV, windows).path()).unwrap();
        assert_eq!(read.len(), 1, "a file that is not there is no error");
        assert_eq!((read[0].category.as_str(), &read[0].windows[..]), ("real", &[(1, 2)][..]));
        assert_eq!(read[0].values, [1.0, 2.5, 3.0, 4.0]);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_with_a_place() {
        for (csv, windows) in [
            ("timestamp,value\n2014-04-01 00:00:00,x\n", r#"{"real/a.csv": []}"#),
            ("timestamp,value\n2014-04-01 00:00:00,inf\n", r#"{"real/a.csv": []}"#),
            (CSV, r#"{"real/a.csv": [["2015-04-01 00:05:00.000000", "2015-04-01 00:05:00.000000"]]}"#),
            (CSV, "[]"),
            (CSV, "{}"),
        ] {
            assert!(
                matches!(read_folder(folder(csv, windows).path()), Err(ModelError::Data { .. })),
                "{csv} {windows}"
            );
        }
    }
}
