//! Continuous glucose monitoring: reading recordings, and how good forecasts of them are.
//!
//! A file has the columns `id,time,gl` (subject, local time, mg/dL), or what else they are usually called, and others that are not used;
//! subjects are told apart by id. A row without a number (`Low`, `High`, nothing) is set aside and counted.
//! Source of the data it was written for: H. Hall et al., PLoS Biology 16(7), 2018, CC BY 4.0.
//!
//! Promises: a forecast is held against the reading nearest to 30 minutes later, within 150 s, and against "it stays as it is"
//! (persistence) on the same rows; alarms are counted by episode; millimoles are never taken for milligrams unsaid.

use std::collections::BTreeMap;
use std::path::Path;

use nearside_schemas::Timestamp;
use serde::Serialize;

use super::SetAside;
use super::table::{self, TIME_NAMES};
use crate::ModelError;
use crate::diagnosis::glucose_forecast::{Forecast, HORIZON_MINUTES, TOLERANCE_SECONDS};

const MINUTE: i64 = 60_000_000;
/// The year 1973.
const EARLIEST_MICROS: i64 = 100_000_000 * 1_000_000;
/// An episode begins after this long without one, and an alarm this long before it is its alarm.
const APART_MINUTES: i64 = 60;
/// A longer step between readings is a pause and counts as this much of a day.
const MOST_STEP_MINUTES: i64 = 15;

/// mg/dL of a mmol/L.
const MG_DL_OF_MMOL: f64 = 18.0182;
/// No recording is below this throughout in mg/dL, none above it throughout in mmol/L.
const BETWEEN_UNITS: f64 = 35.0;
/// What the columns may be called, first the usual name.
const ID_NAMES: [&str; 5] = ["id", "subject", "subjectid", "subject_id", "patient"];
const GLUCOSE_NAMES: [&str; 5] = ["gl", "glucose", "glucosevalue", "glucose_value", "mg_dl"];

/// What a recording's numbers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// mg/dL.
    MgDl,
    /// mmol/L.
    MmolL,
}

/// A folder, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recordings {
    /// In order of their ids.
    pub subjects: Vec<Subject>,
    /// Files that are no recordings.
    pub set_aside: Vec<SetAside>,
    /// Rows without a time or a number.
    pub rows_set_aside: u64,
}

/// One subject's recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// As the file has it.
    pub id: String,
    /// Time, ascending, and glucose in mg/dL.
    pub readings: Vec<(Timestamp, f64)>,
    /// Times as the file has them.
    pub stamps: Vec<String>,
}

impl Subject {
    /// The reading half an hour after this one.
    pub fn at_horizon(&self, row: usize) -> Option<f64> {
        let due = self.readings[row].0.as_micros() + HORIZON_MINUTES * MINUTE;
        let distance = |index: usize| {
            let time = self.readings.get(index)?.0.as_micros();
            Some(((time - due).abs(), index))
        };
        let after = self.readings.partition_point(|(time, _)| time.as_micros() < due);
        let nearest = [after.checked_sub(1), Some(after)].into_iter().flatten().filter_map(distance).min();
        let (_, index) = nearest.filter(|(distance, _)| *distance <= TOLERANCE_SECONDS * 1_000_000)?;
        Some(self.readings[index].1)
    }
}

/// Reads every `.csv` file of a folder and its sub-folders.
pub fn read_folder(folder: &Path, unit: Unit) -> Result<Recordings, ModelError> {
    let wrong = |why: String| ModelError::Data { path: folder.to_owned(), why };
    let table::Found { files, set_aside } = table::csv_files(folder)?;
    let mut read = Recordings { set_aside, ..Recordings::default() };
    let mut rows = Rows::new();
    for path in files {
        let parsed = table::read_text(&folder.join(&path)).map_err(|error| error.to_string());
        match parsed.and_then(|text| parse(&text, &mut rows)) {
            Ok(set_aside) => read.rows_set_aside += set_aside,
            Err(why) => read.set_aside.push(SetAside::new(path.display(), why)),
        }
    }
    if rows.is_empty() {
        let first = read.set_aside.first().map(|one| format!("; {one}")).unwrap_or_default();
        return Err(wrong(format!("no .csv file with readings{first}")));
    }
    in_mg_dl(&mut rows, unit).map_err(wrong)?;
    for (id, mut rows) in rows {
        rows.sort_by_key(|(time, ..)| *time);
        let readings = rows.iter().map(|(time, mg_dl, _)| (*time, *mg_dl)).collect();
        read.subjects.push(Subject { id, readings, stamps: rows.into_iter().map(|(.., stamp)| stamp).collect() });
    }
    Ok(read)
}

/// Rows of each subject: time, glucose, and the time as the file has it.
type Rows = BTreeMap<String, Vec<(Timestamp, f64, String)>>;

/// Makes all of it mg/dL, and says where that cannot be what they are.
fn in_mg_dl(rows: &mut Rows, unit: Unit) -> Result<(), String> {
    let values = || rows.values().flatten().map(|(_, value, _)| *value);
    match unit {
        Unit::MgDl if values().all(|value| value < BETWEEN_UNITS) => Err(format!(
            "all readings are below {BETWEEN_UNITS}: they look like mmol/L and were to be mg/dL, 18.02 times as many; convert them, or \
             say --unit mmol/L to `eval glucose`"
        )),
        Unit::MmolL if values().all(|value| value > BETWEEN_UNITS) => {
            Err(format!("all readings are above {BETWEEN_UNITS}: they look like mg/dL; leave --unit mmol/L out"))
        }
        Unit::MgDl => Ok(()),
        Unit::MmolL => {
            rows.values_mut().flatten().for_each(|(_, value, _)| *value *= MG_DL_OF_MMOL);
            Ok(())
        }
    }
}

/// Adds a file's rows; gives how many were set aside.
fn parse(text: &str, subjects: &mut Rows) -> Result<u64, String> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let header = lines.next().ok_or("it is empty")?;
    let separator = table::separator(header);
    let names = table::cells(header, separator);
    let column = |known: &[&str]| table::column(&names, known).ok_or(format!("no column `{}`", known[0]));
    let time_names = [&["time"], &TIME_NAMES[..]].concat();
    let (id, time, glucose) = (column(&ID_NAMES)?, column(&time_names)?, column(&GLUCOSE_NAMES)?);
    let (mut taken, mut set_aside) = (0, 0);
    for row in lines {
        let cells = table::cells(row, separator);
        let read = || {
            let stamp = *cells.get(time)?;
            let value = table::number(cells.get(glucose)?, separator)?;
            // A small number counts minutes or rows: half an hour later could not be told.
            let at = table::time(stamp).filter(|at| at.as_micros() > EARLIEST_MICROS)?;
            Some((*cells.get(id)?, (at, value, stamp.to_owned())))
        };
        match read() {
            Some((id, reading)) => {
                subjects.entry(id.to_owned()).or_default().push(reading);
                taken += 1;
            }
            None => set_aside += 1,
        }
    }
    if taken == 0 {
        return Err(format!(
            "none of its {set_aside} rows has an id, a time such as 2026-01-31 12:00:00, and a number"
        ));
    }
    Ok(set_aside)
}

/// Sums over forecasts that came due.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    count: u64,
    squared: f64,
    absolute: f64,
    persistence_squared: f64,
    persistence_absolute: f64,
    inside: u64,
    width: f64,
}

/// What the sums say, in mg/dL.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Forecasts that came due.
    pub forecasts: u64,
    /// Root of the mean squared error.
    pub rmse: f64,
    /// Mean absolute error.
    pub mae: f64,
    /// The same of "it stays as it is".
    pub persistence_rmse: f64,
    /// The same of "it stays as it is".
    pub persistence_mae: f64,
    /// By how much the RMSE is better than that of persistence, 0 to 1.
    pub better: f64,
    /// Readings inside the band; it is meant for 0.9.
    pub coverage: f64,
    /// Mean width of the band.
    pub width: f64,
}

impl Errors {
    /// Of one subject's forecasts, one for each reading.
    pub fn of(subject: &Subject, forecasts: &[Option<Forecast>]) -> Self {
        let mut errors = Self::default();
        for (row, forecast) in forecasts.iter().enumerate() {
            let (Some(forecast), Some(came)) = (forecast, subject.at_horizon(row)) else { continue };
            let (error, stays) = (came - forecast.expected, came - subject.readings[row].1);
            errors.count += 1;
            errors.squared += error * error;
            errors.absolute += error.abs();
            errors.persistence_squared += stays * stays;
            errors.persistence_absolute += stays.abs();
            errors.inside += u64::from((forecast.band.0..=forecast.band.1).contains(&came));
            errors.width += forecast.band.1 - forecast.band.0;
        }
        errors
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            squared: self.squared + other.squared,
            absolute: self.absolute + other.absolute,
            persistence_squared: self.persistence_squared + other.persistence_squared,
            persistence_absolute: self.persistence_absolute + other.persistence_absolute,
            inside: self.inside + other.inside,
            width: self.width + other.width,
        }
    }

    /// What they say; `None` where no forecast came due.
    pub fn accuracy(&self) -> Option<Accuracy> {
        if self.count == 0 {
            return None;
        }
        let count = self.count as f64;
        let (rmse, persistence_rmse) = ((self.squared / count).sqrt(), (self.persistence_squared / count).sqrt());
        Some(Accuracy {
            forecasts: self.count,
            rmse,
            mae: self.absolute / count,
            persistence_rmse,
            persistence_mae: self.persistence_absolute / count,
            better: 1.0 - rmse / persistence_rmse.max(f64::MIN_POSITIVE),
            coverage: self.inside as f64 / count,
            width: self.width / count,
        })
    }
}

/// What is said of recordings in which no forecast comes due.
pub fn too_short(data: &Path) -> ModelError {
    let why = String::from("no forecast came due: the recordings are too short, or have a pause every hour");
    ModelError::Data { path: data.to_owned(), why }
}

/// Alarms by episode.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Alarms {
    /// Times that glucose passed the limit after an hour within it.
    pub episodes: u64,
    /// Minutes between an episode and the first alarm in the hour before it, of those that had one.
    pub lead_minutes: Vec<f64>,
    /// Alarms after an hour without one.
    pub alarms: u64,
    /// Alarms that no episode followed within the hour.
    pub false_alarms: u64,
    /// Days of readings, pauses left out.
    pub days: f64,
}

impl Alarms {
    /// Of one subject: `is_outside` says of each reading whether it is past the limit, `is_alarm` whether an alarm was raised on it.
    pub fn of(subject: &Subject, is_outside: impl Fn(usize) -> bool, is_alarm: impl Fn(usize) -> bool) -> Self {
        let starts = |of: &dyn Fn(usize) -> bool| -> Vec<i64> {
            let times = subject.readings.iter().enumerate().filter(|(row, _)| of(*row));
            let times: Vec<i64> = times.map(|(_, (time, _))| time.as_micros()).collect();
            let is_start = |index: &usize| *index == 0 || times[*index] - times[*index - 1] > APART_MINUTES * MINUTE;
            (0..times.len()).filter(is_start).map(|index| times[index]).collect()
        };
        let (episodes, alarms) = (starts(&is_outside), starts(&is_alarm));
        let raised: Vec<i64> = (0..subject.readings.len())
            .filter(|row| is_alarm(*row))
            .map(|row| subject.readings[row].0.as_micros())
            .collect();
        let within = |earlier: i64, later: i64| earlier < later && later - earlier <= APART_MINUTES * MINUTE;
        let lead = |episode: &i64| {
            let first = raised.iter().find(|alarm| within(**alarm, *episode))?;
            Some((episode - first) as f64 / MINUTE as f64)
        };
        let is_false = |alarm: &&i64| !episodes.iter().any(|episode| within(**alarm, *episode));
        let steps = subject.readings.iter().zip(subject.readings.iter().skip(1));
        let watched: i64 =
            steps.map(|((a, _), (b, _))| (b.as_micros() - a.as_micros()).min(MOST_STEP_MINUTES * MINUTE)).sum();
        Self {
            episodes: episodes.len() as u64,
            lead_minutes: episodes.iter().filter_map(lead).collect(),
            alarms: alarms.len() as u64,
            false_alarms: alarms.iter().filter(is_false).count() as u64,
            days: watched as f64 / (24 * 60 * MINUTE) as f64,
        }
    }

    /// Takes in another subject's.
    pub fn add(&mut self, other: Self) {
        self.episodes += other.episodes;
        self.lead_minutes.extend(other.lead_minutes);
        self.alarms += other.alarms;
        self.false_alarms += other.false_alarms;
        self.days += other.days;
    }

    /// The median of the leads.
    pub fn median_lead_minutes(&self) -> Option<f64> {
        let mut leads = self.lead_minutes.clone();
        leads.sort_by(f64::total_cmp);
        leads.get(leads.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(values: &[f64]) -> Subject {
        let readings = values.iter().zip(0..).map(|(value, row)| (Timestamp::from_secs(row * 300), *value));
        Subject { id: String::from("s"), readings: readings.collect(), stamps: Vec::new() }
    }

    #[test]
    fn subjects_are_told_apart_and_put_in_order() {
        let text = "id,time,gl,diagnosis\nb,2014-02-03 08:47:12,93.0,x\nb,2014-02-03 08:42:12,91.5,x\na,2014-02-03 08:42:12,80,y\n";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("g.csv"), text).unwrap();
        let read = read_folder(folder.path(), Unit::MgDl).unwrap().subjects;
        let ids: Vec<_> = read.iter().map(|subject| (subject.id.as_str(), subject.readings.len())).collect();
        assert_eq!(ids, [("a", 1), ("b", 2)]);
        assert_eq!((read[1].readings[0].1, read[1].stamps[0].as_str()), (91.5, "2014-02-03 08:42:12"));
        for text in ["", "id,time\n", "id,time,gl\na,yesterday,1\n", "id,time,gl\na,2014-02-03 08:42:12,nan\n"] {
            std::fs::write(folder.path().join("g.csv"), text).unwrap();
            assert!(matches!(read_folder(folder.path(), Unit::MgDl), Err(ModelError::Data { .. })), "{text}");
        }
    }

    #[test]
    fn rows_and_files_that_are_no_readings_are_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let text = "Id;Time;Glucose;x\na;2014-02-03T08:42:12;91,5;\na;2014-02-03 08:47:12;Low;\na;2014-02-03 08:52:12;;\na;later;90;\n";
        std::fs::write(folder.path().join("g.csv"), text).unwrap();
        std::fs::write(folder.path().join("notes.csv"), [0xff, 0xfe, 0x00]).unwrap();
        let read = read_folder(folder.path(), Unit::MgDl).unwrap();
        assert_eq!((read.subjects[0].readings.len(), read.subjects[0].readings[0].1), (1, 91.5));
        assert_eq!(read.rows_set_aside, 3);
        assert_eq!(read.set_aside.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["notes.csv"]);
    }

    #[test]
    fn millimoles_are_not_taken_for_milligrams() {
        let folder = tempfile::tempdir().unwrap();
        let text = "id,time,gl\na,2014-02-03 08:42:12,5.0\na,2014-02-03 08:47:12,12.0\n";
        std::fs::write(folder.path().join("g.csv"), text).unwrap();
        assert!(read_folder(folder.path(), Unit::MgDl).unwrap_err().to_string().contains("--unit mmol/L"));
        let read = read_folder(folder.path(), Unit::MmolL).unwrap();
        assert!((read.subjects[0].readings[0].1 - 90.1).abs() < 0.1);
        std::fs::write(folder.path().join("g.csv"), text.replace("5.0", "95").replace("12.0", "120")).unwrap();
        assert!(read_folder(folder.path(), Unit::MmolL).is_err());
    }

    #[test]
    fn errors_are_held_against_the_reading_half_an_hour_later() {
        let subject = subject(&[100.0, 1.0, 1.0, 1.0, 1.0, 1.0, 130.0]);
        assert_eq!((subject.at_horizon(0), subject.at_horizon(1)), (Some(130.0), None));
        let mut forecasts = vec![None; 7];
        forecasts[0] = Some(Forecast { expected: 120.0, band: (110.0, 131.0) });
        forecasts[3] = forecasts[0];
        let accuracy = Errors::of(&subject, &forecasts).accuracy().unwrap();
        assert_eq!(Errors::default().accuracy(), None);
        assert_eq!((accuracy.forecasts, accuracy.rmse, accuracy.persistence_rmse), (1, 10.0, 30.0));
        assert_eq!((accuracy.coverage, accuracy.width), (1.0, 21.0));
        assert!((accuracy.better - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn alarms_are_counted_by_episode() {
        // Low at rows 40 and 41 and again at 100; alarms at 35 to 38 (before the first) and at 70 (before none).
        let subject = subject(&[100.0; 120]);
        let alarms = Alarms::of(&subject, |row| [40, 41, 100].contains(&row), |row| [35, 38, 70].contains(&row));
        assert_eq!((alarms.episodes, alarms.alarms, alarms.false_alarms), (2, 2, 1));
        assert_eq!(alarms.lead_minutes, [25.0]);
        assert_eq!(alarms.median_lead_minutes(), Some(25.0));
    }
}
