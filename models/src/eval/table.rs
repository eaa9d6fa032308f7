//! Tables of recorded readings as public benchmarks have them, and as they come out of spreadsheets: separated by `;`, tabs or commas, cells
//! perhaps in quotes, times in several forms.
//!
//! Promises: what a cell means never depends on the machine's language or zone; a time without a zone counts as UTC; bytes that are no
//! text spoil only the cells they stand in. Never: day and month are guessed where both orders are usual (`3/4/2020`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use nearside_schemas::Timestamp;
use nearside_schemas::codec::{TimestampUnit, parse_timestamp};

use super::SetAside;
use crate::ModelError;

/// A larger file is refused.
const MOST_BYTES: u64 = 1 << 30;
/// What a column of times may be called.
pub const TIME_NAMES: [&str; 7] = ["datetime", "timestamp", "time", "ts", "date", "displaytime", "date_time"];

/// The `.csv` files of a folder and its sub-folders.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Paths below the folder, in order.
    pub files: Vec<PathBuf>,
    /// Sub-folders that cannot be read.
    pub set_aside: Vec<SetAside>,
}

/// Finds the `.csv` files below a folder. Links are followed, each folder is entered once.
pub fn csv_files(folder: &Path) -> Result<Found, ModelError> {
    let mut found = Found::default();
    let mut entered = BTreeSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let path = folder.join(&below);
        if !path.canonicalize().is_ok_and(|place| entered.insert(place)) && !below.as_os_str().is_empty() {
            continue;
        }
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(source) if below.as_os_str().is_empty() => return Err(ModelError::File { path, source }),
            Err(error) => {
                found.set_aside.push(SetAside::new(below.display(), error));
                continue;
            }
        };
        for entry in entries.flatten() {
            let name = below.join(entry.file_name());
            let is_csv = name.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
            match std::fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_dir() => folders.push(name),
                Ok(metadata) if is_csv && metadata.is_file() => found.files.push(name),
                Err(error) if is_csv => found.set_aside.push(SetAside::new(name.display(), error)),
                _ => {}
            }
        }
        // The first by name is next: a folder is walked the same everywhere.
        folders.sort_by(|a, b| b.cmp(a));
    }
    found.files.sort();
    found.set_aside.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// A file's text, without a byte order mark; what is no UTF-8 becomes `�`.
pub fn read_text(path: &Path) -> Result<String, ModelError> {
    let file = |source| ModelError::File { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(file)?.len();
    if size > MOST_BYTES {
        let why = format!("{size} bytes; at most {MOST_BYTES} are read");
        return Err(ModelError::Data { path: path.to_owned(), why });
    }
    let bytes = std::fs::read(path).map_err(file)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// What separates the cells of a table with this first line.
pub fn separator(header: &str) -> char {
    [';', '\t'].into_iter().find(|separator| header.contains(*separator)).unwrap_or(',')
}

/// The cells of a line, without the blanks and quotes around them.
pub fn cells(line: &str, separator: char) -> Vec<&str> {
    let mut cells = Vec::new();
    let (mut start, mut is_quoted, mut is_begin) = (0, false, true);
    for (at, c) in line.char_indices() {
        match c {
            '"' if is_begin => (is_quoted, is_begin) = (true, false),
            '"' if is_quoted => is_quoted = false,
            c if c == separator && !is_quoted => {
                cells.push(bare(&line[start..at]));
                (start, is_begin) = (at + c.len_utf8(), true);
            }
            c => is_begin = is_begin && c.is_whitespace(),
        }
    }
    cells.push(bare(&line[start..]));
    cells
}

fn bare(cell: &str) -> &str {
    let cell = cell.trim();
    cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"')).unwrap_or(cell).trim()
}

/// A cell for a table that commas separate.
pub fn quoted(cell: &str) -> String {
    if cell.contains([',', '"']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

/// The first column that has one of these names, whatever the case.
pub fn column(header: &[&str], names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| header.iter().position(|cell| cell.eq_ignore_ascii_case(name)))
}

/// A finite number. Where cells are not separated by commas a comma may stand for the point.
pub fn number(cell: &str, separator: char) -> Option<f64> {
    let plain = cell.parse::<f64>().ok();
    let other = || (separator != ',').then(|| cell.replacen(',', ".", 1).parse::<f64>().ok()).flatten();
    plain.or_else(other).filter(|number| number.is_finite())
}

/// A time: ISO 8601, `dd.mm.yyyy`, `yyyy/mm/dd`, a date alone, or a number of seconds (milli-, micro-, nanoseconds by its size).
pub fn time(cell: &str) -> Option<Timestamp> {
    parse_timestamp(cell, TimestampUnit::Auto).or_else(|| date_time(cell)).or_else(|| date_alone(cell))
}

/// A time that is more than a number.
pub fn date_time(cell: &str) -> Option<Timestamp> {
    const DATES: [&str; 3] = ["%Y-%m-%d", "%d.%m.%Y", "%Y/%m/%d"];
    const TIMES: [&str; 2] = ["%H:%M:%S%.f", "%H:%M"];
    let forms = DATES.iter().flat_map(|date| TIMES.iter().map(move |time| format!("{date} {time}")));
    let spaced = cell.trim().trim_end_matches(['Z', 'z']).replacen('T', " ", 1);
    let time = forms.into_iter().find_map(|form| NaiveDateTime::parse_from_str(&spaced, &form).ok())?;
    in_our_time(time)
}

fn date_alone(cell: &str) -> Option<Timestamp> {
    let forms = ["%Y-%m-%d", "%d.%m.%Y", "%Y/%m/%d"];
    let date = forms.iter().find_map(|form| NaiveDate::parse_from_str(cell.trim(), form).ok())?;
    in_our_time(date.and_time(NaiveTime::MIN))
}

/// What seems to lie before 1900 was written in another form, with a year of two digits say.
fn in_our_time(time: NaiveDateTime) -> Option<Timestamp> {
    let at = time.and_utc().timestamp_micros();
    (at > -2_208_988_800 * 1_000_000).then(|| Timestamp::from_micros(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_told_apart() {
        assert_eq!(cells("a; b ;\"c;d\";", ';'), ["a", "b", "c;d", ""]);
        assert_eq!(cells("\"2020-03-09\",\"1.5\"", ','), ["2020-03-09", "1.5"]);
        assert_eq!(cells("5\" pipe,2", ','), ["5\" pipe", "2"], "a quote within a cell is part of it");
        assert_eq!(["a;b,c", "a\tb,c", "a,b", "a"].map(separator), [';', '\t', ',', ',']);
        assert_eq!((number("0,5", ';'), number("0,5", ','), number("nan", ';')), (Some(0.5), None, None));
        assert_eq!(column(&["Id", "TIME"], &TIME_NAMES), Some(1));
        assert_eq!((quoted("a"), quoted("a,\"b")), (String::from("a"), String::from("\"a,\"\"b\"")));
    }

    #[test]
    fn times_are_read_in_the_usual_forms() {
        let expected = time("2020-03-09T10:14:00Z").unwrap();
        for form in ["2020-03-09 10:14:00", "09.03.2020 10:14:00", "2020/03/09 10:14", "2020-03-09 10:14", "1583748840"]
        {
            assert_eq!(time(form), Some(expected), "{form}");
        }
        assert_eq!(time("09.03.2020"), time("2020-03-09"));
        for bad in ["", "yesterday", "3/4/2020 10:00", "12/11/14 10:00", "09.03.20", "2020-13-01"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_once() {
        let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(other.path().join("1.csv"), "x").unwrap();
        std::os::unix::fs::symlink(other.path(), data.path().join("linked")).unwrap();
        std::os::unix::fs::symlink(data.path(), data.path().join("loop")).unwrap();
        std::os::unix::fs::symlink("nowhere", data.path().join("gone.csv")).unwrap();
        let found = csv_files(data.path()).unwrap();
        assert_eq!(found.files, [PathBuf::from("linked/1.csv")]);
        assert_eq!(found.set_aside[0].name, "gone.csv");
        assert!(csv_files(&data.path().join("none")).is_err());
    }
}
