//! One field row by row: a single wild value is told at once, and nothing else learns from it.
//!
//! A value leaps where it is farther from the field's 4-row level than [`LEAP`] usual steps and [`GUARD`] times as far as it ever was.
//! What leaps for fewer than [`ACCEPTED`] rows is replaced by the level before the means over rows see it; what stays becomes the level.

use super::field::{MOST, MOST_KEPT};
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Usual distances of a value to the level before it that are a leap.
const LEAP: f64 = 10.0;
/// Times the largest distance so far that are a leap: a field that leaps now and then is used to it.
const GUARD: f64 = 2.2;
/// How much a leap adds to the largest distance so far.
const GROWTH: f64 = 1.1;
/// Share of the largest distance that is forgotten in a row.
const FORGOTTEN: f64 = 1e-4;
/// Rows after which a leap is a level.
const ACCEPTED: u32 = 3;
/// Rows of a field before it can leap.
const LEAST_ROWS: u32 = 100;
/// Rows of a field before it is held against the others: as many as half of the shortest warm-up.
const KNOWN_ROWS: u32 = 50;
/// Rows before the usual and the largest distance are learnt.
const BLIND: [u32; 2] = [8, 30];
/// A field that changed in fewer than one of this many rows is a state or a setting.
const ROWS_PER_CHANGE: u32 = 20;
/// Rows that a field needs after it had gone.
const SETTLES: u32 = 36;
/// Rows without a value after which a field is gone.
const GONE_ROWS: u32 = 2_000;
/// Rows of the short mean.
const SHORT_ROWS: f64 = 12.0;
/// How much a row changes what is usual after the warm-up.
pub(super) const RATE: f64 = 0.0005;
/// A deviation counts as at most this many usual ones.
pub(super) const CUT: f64 = 2.5;
/// The baseline goes by at most so many deviations in `1 /` [`RATE`] rows.
const MOST_STEP: f64 = 2.0;
/// No distance in usual deviations is larger.
const MOST_Z: f64 = 50.0;
/// The row itself and its 12-row mean.
pub(super) const LEVELS: usize = 2;

/// A value that leapt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Leap {
    /// Times the least leap; positive upwards.
    pub(super) ratio: f64,
    /// The level before it.
    pub(super) expected: f64,
    /// How far from it is no leap.
    pub(super) margin: f64,
}

/// The past of one field, without what leapt.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Trace {
    rows: u32,
    changes: u32,
    /// Rows in a row that leapt.
    leapt: u32,
    /// Rows of the stream without a value, and the most of them in the warm-up.
    age: u32,
    usual_age: u32,
    /// Rows until its means are its own again, after it had gone.
    settles: u32,
    origin: f64,
    /// The value last taken, as it came; what follows are differences to `origin`.
    last: f64,
    level: f64,
    usual: f64,
    largest: f64,
    value: f64,
    mean: f64,
    baseline: f64,
    squares: [f64; LEVELS],
}

impl Trace {
    /// Takes a row in; whether it leapt. `is_warm` says that the stream's warm-up is over.
    pub(super) fn observe(&mut self, value: Option<f64>, warm_up: u32, is_warm: bool) -> Option<Leap> {
        let Some(value) = value else {
            self.age = self.age.saturating_add(1);
            return None;
        };
        if self.rows == 0 {
            (self.origin, self.last) = (value, value);
        }
        let x = (value - self.origin).clamp(-MOST, MOST);
        if self.rows < warm_up {
            self.usual_age = self.usual_age.max(self.age);
        } else if !self.is_on_time() {
            (self.level, self.mean, self.settles) = (x, x, SETTLES);
        }
        self.settles = self.settles.saturating_sub(1);
        self.age = 0;
        self.changes = self.changes.saturating_add(u32::from(value != self.last));
        self.last = value;
        self.rows = self.rows.saturating_add(1);
        let leap = self.leap(x, warm_up, is_warm);
        self.learn(warm_up);
        leap
    }

    fn leap(&mut self, x: f64, warm_up: u32, is_warm: bool) -> Option<Leap> {
        let offset = x - self.level;
        let margin = (LEAP * self.usual).max(GUARD * self.largest) + self.floor();
        if !is_warm || self.rows <= LEAST_ROWS || !self.measures(warm_up) || offset.abs() <= margin {
            self.step(x, offset, warm_up);
            return None;
        }
        let leap = Leap { ratio: offset / margin, expected: self.origin + self.level, margin };
        self.largest = self.largest.max((GROWTH * self.largest).min(offset.abs()));
        self.leapt += 1;
        if self.leapt < ACCEPTED {
            return Some(leap).filter(|_| self.leapt == 1);
        }
        (self.level, self.value, self.leapt) = (x, x, 0);
        None
    }

    fn step(&mut self, x: f64, offset: f64, warm_up: u32) {
        let rows = f64::from(self.rows);
        if let Some(young) = self.rows.checked_sub(BLIND[0]).filter(|rows| *rows > 0) {
            let most = if self.rows > warm_up { 3.0 * self.usual } else { f64::MAX };
            self.usual += (1.0 / f64::from(young)).max(RATE) * (offset.abs().min(most) - self.usual);
        }
        if self.rows > BLIND[1] {
            self.largest = (self.largest * (1.0 - FORGOTTEN)).max(offset.abs());
        }
        self.leapt = 0;
        self.level += (1.0 / rows).max(0.25) * offset;
        self.value = x;
    }

    /// What the value, as it was taken, says of what is usual.
    fn learn(&mut self, warm_up: u32) {
        let rows = f64::from(self.rows);
        // A limit taken from a field that stood still would keep it from ever being known.
        let is_ready = self.rows > warm_up && self.measures(warm_up);
        self.mean += (1.0 / rows).max(1.0 / SHORT_ROWS) * (self.value - self.mean);
        if is_ready {
            let most = MOST_STEP * self.squares[1].sqrt();
            self.baseline += RATE * (self.mean - self.baseline).clamp(-most, most);
        } else {
            self.baseline += (self.value - self.baseline) / rows;
        }
        // A mean that is not filled yet says little of how it deviates.
        for (level, unfilled) in [0.0, 2.0 * SHORT_ROWS].into_iter().enumerate() {
            if rows > unfilled {
                let square = &mut self.squares[level];
                let deviation = [self.value, self.mean][level] - self.baseline;
                let most = if is_ready { CUT * CUT * *square } else { f64::MAX };
                *square += (1.0 / (rows - unfilled)).max(RATE) * ((deviation * deviation).min(most) - *square);
            }
        }
    }

    /// Whether it changes as a measurement does.
    pub(super) fn measures(&self, warm_up: u32) -> bool {
        self.changes >= self.rows.min(warm_up) / ROWS_PER_CHANGE
    }

    /// Whether it can be held against the others, and they against it.
    pub(super) fn is_known(&self, warm_up: u32) -> bool {
        self.rows > KNOWN_ROWS && self.measures(warm_up)
    }

    /// Whether its last value still counts: it is not later than it was in the warm-up, and did not come back just now.
    pub(super) const fn is_present(&self) -> bool {
        self.rows > 0 && self.settles == 0 && self.is_on_time()
    }

    const fn is_on_time(&self) -> bool {
        self.age <= self.usual_age + 1
    }

    /// Whether it never came, or not for so long that what is known of it is old.
    pub(super) const fn is_gone(&self) -> bool {
        self.rows == 0 || self.age > GONE_ROWS
    }

    /// The least deviation: finer is rounding.
    fn floor(&self) -> f64 {
        1e-6 * self.origin.abs().min(MOST) + 1e-12
    }

    fn deviation(&self, level: usize) -> f64 {
        self.squares[level].sqrt() + self.floor()
    }

    /// How far the row or its 12-row mean is from the baseline, in usual deviations.
    pub(super) fn z(&self, level: usize) -> f64 {
        (([self.value, self.mean][level] - self.baseline) / self.deviation(level)).clamp(-MOST_Z, MOST_Z)
    }

    /// The value that lies `z` usual deviations above the baseline.
    pub(super) fn value_at(&self, level: usize, z: f64) -> f64 {
        self.origin + self.baseline + z * self.deviation(level)
    }

    /// The value last taken.
    pub(super) const fn last_value(&self) -> f64 {
        self.last
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let Self { rows, changes, leapt, age, usual_age, settles, .. } = self;
        [rows, changes, leapt, age, usual_age, settles].into_iter().for_each(|count| writer.u32(*count));
        let Self { origin, last, level, usual, largest, value, mean, baseline, squares, .. } = self;
        let numbers = [origin, last, level, usual, largest, value, mean, baseline];
        numbers.into_iter().chain(squares).for_each(|number| writer.f64(*number));
    }

    /// Reads itself back, from a snapshot of this version of the model's.
    pub(super) fn read(reader: &mut Reader<'_>, version: u8) -> Result<Self, ModelError> {
        let mut trace = Self::default();
        let Self { rows, changes, leapt, age, usual_age, settles, .. } = &mut trace;
        for count in [rows, changes, leapt, age, usual_age, settles] {
            *count = reader.u32()?;
        }
        let Self { origin, last, level, usual, largest, value, mean, baseline, squares, .. } = &mut trace;
        let numbers = [origin, last, level, usual, largest, value, mean, baseline];
        for number in numbers.into_iter().chain(squares) {
            *number = reader.f64()?;
        }
        if version < 3 {
            // Until then the last value was kept as a difference.
            trace.last += trace.origin;
        }
        let Self { level, usual, largest, value, mean, baseline, squares, .. } = &trace;
        let is_fit = [usual, largest].into_iter().chain(squares).all(|number| *number >= 0.0)
            && [level, usual, largest, value, mean, baseline].into_iter().all(|number| number.abs() <= MOST_KEPT)
            && squares.iter().all(|square| *square <= MOST_KEPT * MOST_KEPT)
            && trace.last.is_finite();
        if !is_fit || trace.leapt >= ACCEPTED || trace.usual_age == u32::MAX {
            return Err(reader.damaged("a number is out of range"));
        }
        Ok(trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(row: u32) -> f64 {
        (f64::from(row) * 12.9898).sin() * 43_758.547 % 1.0
    }

    fn leaps(rows: u32, value: impl Fn(u32) -> Option<f64>) -> Vec<(u32, bool)> {
        let mut trace = Trace::default();
        let leaps = (0..rows).map(|row| (row, trace.observe(value(row), 400, row >= 400)));
        leaps.filter_map(|(row, leap)| Some((row, leap?.ratio > 0.0))).collect()
    }

    #[test]
    fn a_single_row_is_told_once_whichever_way_and_its_return_is_not() {
        let at = |row: u32, size: f64| noise(row) + if row == 700 { size } else { 0.0 };
        for (size, is_up) in [(12.0, true), (-12.0, false), (1e300, true)] {
            assert_eq!(leaps(1_500, |row| Some(at(row, size))), [(700, is_up)], "{size}");
        }
        assert_eq!(leaps(1_500, |row| Some(at(row, 2.5))), [], "what lies near is no leap");
        assert_eq!(leaps(700, |row| Some(if row == 300 { 50.0 } else { noise(row) })), [], "not in the warm-up");
    }

    #[test]
    fn what_stays_is_told_once_and_what_leaps_often_is_used_to_it() {
        assert_eq!(leaps(1_500, |row| Some(noise(row) + if row >= 700 { 20.0 } else { 0.0 })), [(700, true)]);
        assert_eq!(leaps(3_000, |row| Some(noise(row) + if row % 90 == 0 { 20.0 } else { 0.0 })), []);
        assert_eq!(leaps(3_000, |row| Some(f64::from(row / 700))), [], "a setting is no measurement");
    }

    #[test]
    fn means_do_not_see_what_leapt() {
        let mut trace = Trace::default();
        for row in 0..700 {
            trace.observe(Some(noise(row)), 400, row >= 400);
        }
        let before = trace.z(1);
        assert!(trace.observe(Some(40.0), 400, true).is_some());
        assert!((trace.z(1) - before).abs() < 1.0);
        assert!((trace.last_value() - 40.0).abs() < 1e-9 && trace.value_at(0, 0.0).abs() < 0.2);
    }

    fn read_back(trace: &Trace, version: u8) -> Result<Trace, ModelError> {
        let mut writer = Writer::new(version);
        trace.write(&mut writer);
        let snapshot = writer.finish();
        Trace::read(&mut Reader::of_versions("trace", 1..=version, &snapshot)?.0, version)
    }

    #[test]
    fn whatever_was_seen_is_read_back_and_what_cannot_have_been_is_refused() {
        let mut trace = Trace::default();
        for row in 0..600 {
            let wild = [0.1, f64::MAX, -f64::MAX, 1e30, noise(row)][row as usize / 3 % 5];
            trace.observe(Some(wild), 400, row >= 400);
            assert_eq!(read_back(&trace, 3).unwrap(), trace, "{row}");
        }
        let damaged: [fn(&mut Trace); 5] = [
            |trace| (trace.squares, trace.mean, trace.baseline) = ([1e308; LEVELS], 1e308, -1e308),
            |trace| trace.squares[1] = 1e63,
            |trace| trace.baseline = -1e32,
            |trace| trace.usual = 1e32,
            |trace| trace.largest = -1.0,
        ];
        for damage in damaged {
            let mut damaged = trace.clone();
            damage(&mut damaged);
            assert!(read_back(&damaged, 3).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn a_last_value_kept_as_a_difference_is_read() {
        let mut trace = Trace::default();
        for value in [5.0, 7.5] {
            assert_eq!(trace.observe(Some(value), 400, false), None);
        }
        let earlier = Trace { last: 2.5, ..trace.clone() };
        assert_eq!(read_back(&earlier, 2).unwrap(), trace);
    }

    #[test]
    fn a_field_that_comes_late_is_absent() {
        let mut trace = Trace::default();
        assert!(!trace.is_present());
        for row in 0..600 {
            trace.observe((row % 3 == 0).then(|| noise(row)), 400, row >= 400);
        }
        assert!(trace.is_present());
        for _ in 0..4 {
            trace.observe(None, 400, true);
        }
        assert!(!trace.is_present());
    }
}
