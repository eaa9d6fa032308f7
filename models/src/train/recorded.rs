//! A site's own recordings of devices of several sensors, as the multivariate detector learns from them: what was recorded is taken for
//! ordinary, and simulated faults are put upon it.
//!
//! A recording is cut into pieces, each a stream of its own with a warm-up; every fifth piece is held back. A row that its file calls
//! anomalous is no example of anything. Promise: what cannot be used is set aside, named and said; the files are only read.

use std::path::Path;

use nearside_schemas::FieldValue;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::plant::add_faults;
use super::samples::Samples;
use crate::ModelError;
use crate::anomaly::multivariate::{NAME, watch::INPUTS, watch::Watch};
use crate::catalog;
use crate::eval::SetAside;
use crate::eval::skab::{Run, read_run};
use crate::eval::table::{Found, csv_files};

/// Rows that a piece is normal for, and rows after them.
pub(super) const WARM_UPS: [u32; 4] = [200, 300, 400, 600];
pub(super) const ROWS: usize = 800;
/// A value beyond this stands for none: it is no measurement, and squares of it would overflow.
const MOST_VALUE: f64 = 1e30;
/// Rows after the warm-up below which a piece is no piece.
const LEAST_ROWS: usize = 100;
/// Every this many-th piece is held back.
const HELD_BACK: usize = 5;
/// Most times that each piece is learnt from, each time with other faults.
const TIMES: usize = 8;
/// Past this many pieces, all times together, fewer times and then fewer of their rows are learnt from, as many as of simulated plants.
const MOST_PIECES: usize = 1_200;

/// Rows of a device, row-major.
struct Piece {
    fields: usize,
    warm_up: u32,
    values: Vec<Option<f64>>,
    /// Whether the file says that a row is anomalous.
    is_odd: Vec<bool>,
}

/// What was recorded.
pub(super) struct Recorded {
    pieces: Vec<Piece>,
    /// Files with at least one piece.
    pub(super) recordings: usize,
    /// What was not used.
    pub(super) set_aside: Vec<SetAside>,
}

impl Recorded {
    /// Reads the .csv files of a folder and its sub-folders: a column of times and one for each sensor. Fails where they give nothing to
    /// hold back.
    pub(super) fn read(folder: &Path, rng: &mut ChaCha8Rng) -> Result<Self, ModelError> {
        let model = catalog::load(NAME, None)?;
        let Found { files, set_aside } = csv_files(folder)?;
        let mut recorded = Self { pieces: Vec::new(), recordings: 0, set_aside };
        for path in files {
            let run = read_run(folder, &path).map_err(|error| error.to_string());
            let pieces = run.and_then(|run| {
                let why = model.accepts(&run.fields).err().map(|error| error.to_string());
                let run = run.for_model(model.as_ref()).ok_or_else(|| why.unwrap_or_default())?;
                cut(&run, rng)
            });
            match pieces {
                Ok(pieces) => {
                    recorded.recordings += 1;
                    recorded.pieces.extend(pieces);
                }
                Err(why) => recorded.set_aside.push(SetAside::new(path.display(), why)),
            }
        }
        if recorded.pieces.len() < HELD_BACK {
            let (pieces, bad) = (recorded.pieces.len(), recorded.set_aside.len());
            let first = recorded.set_aside.first().map(|one| format!("; {one}")).unwrap_or_default();
            let why = format!(
                "too little to learn from: {pieces} pieces of {} rows or more, {HELD_BACK} at least are needed; {bad} files were set aside{first}",
                WARM_UPS[0] as usize + LEAST_ROWS
            );
            return Err(ModelError::Data { path: folder.to_owned(), why });
        }
        Ok(recorded)
    }

    /// Adds samples of the pieces with simulated faults, about `per_row` of a row each time.
    pub(super) fn add(&self, per_row: f64, train: &mut Samples, held_back: &mut Samples, rng: &mut ChaCha8Rng) {
        let times = (MOST_PIECES / self.pieces.len().max(1)).clamp(1, TIMES);
        let per_row = per_row * (MOST_PIECES as f64 / self.pieces.len().max(1) as f64).min(1.0);
        for (number, piece) in self.pieces.iter().enumerate() {
            let into = if number % HELD_BACK == HELD_BACK - 1 { &mut *held_back } else { &mut *train };
            (0..times).for_each(|_| piece.add(per_row, into, rng));
        }
    }
}

/// Cuts a recording into pieces; fails where it is too short for one.
fn cut(run: &Run, rng: &mut ChaCha8Rng) -> Result<Vec<Piece>, String> {
    let (fields, rows) = (run.fields.len(), run.times.len());
    let is_odd = |row: usize| run.labels.as_ref().is_some_and(|labels| labels[row] == Some(true));
    let number = |value: &FieldValue| value.number().filter(|number| number.abs() <= MOST_VALUE);
    let (mut pieces, mut start) = (Vec::new(), 0);
    while rows - start >= WARM_UPS[0] as usize + LEAST_ROWS {
        let fitting = WARM_UPS.iter().filter(|warm_up| rows - start >= **warm_up as usize + LEAST_ROWS).count();
        let warm_up = WARM_UPS[rng.random_range(0..fitting)];
        let end = rows.min(start + warm_up as usize + ROWS);
        pieces.push(Piece {
            fields,
            warm_up,
            values: run.values[start * fields..end * fields].iter().map(number).collect(),
            is_odd: (start..end).map(is_odd).collect(),
        });
        start = end;
    }
    if pieces.is_empty() {
        return Err(format!("it has {rows} rows, fewer than {}", WARM_UPS[0] as usize + LEAST_ROWS));
    }
    Ok(pieces)
}

impl Piece {
    fn add(&self, per_row: f64, samples: &mut Samples, rng: &mut ChaCha8Rng) {
        let (fields, warm_up) = (self.fields, self.warm_up as usize);
        let mut columns: Vec<Vec<f64>> = (0..fields).map(|field| self.column(field)).collect();
        let mut faulty = vec![false; self.values.len()];
        add_faults(&mut columns, warm_up, &mut faulty, rng);
        let mut watch = Watch::new(fields, self.warm_up);
        let mut inputs = Vec::new();
        for (row, values) in self.values.chunks_exact(fields).enumerate() {
            inputs.clear();
            let now = values.iter().zip(&columns).map(|(value, column)| value.map(|_| column[row]));
            let judged = watch.observe(now, &mut inputs);
            for (field, inputs) in judged.into_iter().zip(inputs.chunks_exact(INPUTS)) {
                if rng.random::<f64>() < per_row / fields as f64 && !self.is_odd[row] {
                    samples.inputs.extend_from_slice(inputs);
                    samples.targets.push(if faulty[row * fields + field] { 1.0 } else { 0.0 });
                }
            }
        }
    }

    /// The values of a field; where it has none, its last one, and before the first the first.
    fn column(&self, field: usize) -> Vec<f64> {
        let values = || self.values.iter().skip(field).step_by(self.fields);
        let mut last = values().flatten().next().copied().unwrap_or(0.0);
        values()
            .map(|value| {
                last = value.unwrap_or(last);
                last
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn write(folder: &Path, name: &str, rows: usize, anomalous: bool) {
        let line = |row: usize| {
            let (a, b) = ((row as f64 / 9.0).sin(), (row as f64 / 7.0).cos());
            let gap = if row.is_multiple_of(7) { String::new() } else { b.to_string() };
            format!(
                "2026-01-01 {:02}:{:02}:{:02},{a},{gap},{}\n",
                row / 3600,
                row / 60 % 60,
                row % 60,
                u8::from(anomalous)
            )
        };
        let text: String = (0..rows).map(line).collect();
        std::fs::write(folder.join(name), format!("time,a,b,anomaly\n{text}")).unwrap();
    }

    #[test]
    fn recordings_are_cut_and_what_is_bad_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "long.csv", 8_000, false);
        write(folder.path(), "short.csv", 250, false);
        write(folder.path(), "odd.csv", 1_000, true);
        std::fs::write(folder.path().join("one.csv"), "time,a\n2026-01-01 00:00:00,1\n").unwrap();
        std::fs::write(folder.path().join("words.csv"), "none\n").unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let recorded = Recorded::read(folder.path(), &mut rng).unwrap();
        assert_eq!(recorded.recordings, 2);
        let set_aside: Vec<&str> = recorded.set_aside.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(set_aside, ["one.csv", "short.csv", "words.csv"]);
        let (mut train, mut held_back) = (Samples::new(INPUTS, 1), Samples::new(INPUTS, 1));
        recorded.add(0.5, &mut train, &mut held_back, &mut rng);
        assert!(
            train.len() > 4 * held_back.len() / 2 && held_back.len() > 1_000,
            "{} {}",
            train.len(),
            held_back.len()
        );
        let share = train.targets.iter().sum::<f32>() / train.len() as f32;
        assert!((0.05..0.6).contains(&share) && train.inputs.iter().all(|input| input.is_finite()), "{share}");
    }

    #[test]
    fn a_value_that_stands_for_none_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.csv");
        write(folder.path(), "long.csv", 8_000, false);
        let text = std::fs::read_to_string(&path).unwrap();
        let sentinel = |(row, line): (usize, &str)| match line.split_once(',') {
            Some((time, rest)) if row % 1_000 == 900 => {
                let rest = rest.split_once(',').map_or("", |(_, rest)| rest);
                format!("{time},{},{rest}\n", if row < 4_000 { 1e200 } else { f64::MAX })
            }
            _ => format!("{line}\n"),
        };
        std::fs::write(&path, text.lines().enumerate().map(sentinel).collect::<String>()).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let recorded = Recorded::read(folder.path(), &mut rng).unwrap();
        let missing = recorded.pieces.iter().flat_map(|piece| piece.values.iter().step_by(2));
        assert_eq!(missing.filter(|value| value.is_none()).count(), 8);
        let (mut train, mut held_back) = (Samples::new(INPUTS, 1), Samples::new(INPUTS, 1));
        recorded.add(0.5, &mut train, &mut held_back, &mut rng);
        assert!(train.len() > 1_000 && train.inputs.iter().all(|input| input.is_finite()));
    }

    #[test]
    fn too_little_is_refused_with_what_was_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "short.csv", 250, false);
        let error = Recorded::read(folder.path(), &mut ChaCha8Rng::seed_from_u64(1)).err().unwrap().to_string();
        assert!(error.contains("too little") && error.contains("short.csv"), "{error}");
    }
}
