//! What is left of a field once the other fields of the row are known, held against what was usually left: relations that break and
//! fields that move slowly away from the others are seen long before any field leaves its own range.
//!
//! At two levels, the row itself and its 12-row mean, fields are distances to their baselines ([`super::trace`]) and go together as
//! [`super::relation`] learnt. A field's residual is divided by its usual size, which is learnt on rows that the relation has not
//! learnt from yet. Two cumulative sums (E. S. Page, "Continuous Inspection Schemes", Biometrika 41, 1954) gather the squares beyond
//! 3 usual sizes: of the residual (a relation breaks) and of its 100-row mean (a field drifts).
//!
//! Cautious where little is known: a residual counts where the others explain at least half of the field; its usual size is never below
//! a third of the largest so far, grows where it wanders, and where any field is farther out than the relation was learnt.

use super::trace::{CUT, RATE};
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// The share of a field that the others must explain.
const LEAST_EXPLAINED: f64 = 0.5;
/// Usual sizes that are ordinary.
pub(super) const ORDINARY: f64 = 3.0;
/// No row adds more than this to a sum.
const MOST_SQUARE: f64 = 40.0;
/// The sums from which on a relation is broken, or a field drifts.
const BROKEN: f64 = 150.0;
const DRIFTED: f64 = 300.0;
/// Sums go on to this many times as much, so that a raised threshold can be met.
const MOST_RATIO: f64 = 4.0;
/// Rows of the slow mean, which drifts by half as much as it could by chance before it counts.
const SLOW_ROWS: f64 = 100.0;
const SLOW_WEIGHT: f64 = 4.0;
/// A slow mean counts as at most this many usual ones: what drifts is not learnt while it does.
const SLOW_CUT: f64 = 1.6;
/// Rows of the mean square that says which field is to blame.
const POWER_ROWS: f64 = 20.0;
/// The usual size is at least the largest residual by this.
const LARGEST: f64 = 3.0;
/// How a residual that wanders makes the usual size grow: from this share of the slow mean on, over this range, by this much.
const WANDERS: (f64, f64, f64) = (0.4, 0.5, 3.0);
/// Rows after which the usual size is known to a factor of 2.
const YOUNG_ROWS: f64 = 100.0;
/// Rows from which on it is judged and its learning is limited: as many as the shortest warm-up leaves.
const LEAST_ROWS: u32 = 50;
/// No residual is larger.
const MOST_SIZE: f64 = 50.0;
/// How fast the largest residual follows after the warm-up.
const LARGEST_RATE: f64 = 0.1 * RATE;

/// The residual of one field at one level.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Residual {
    rows: u32,
    square: f64,
    largest: f64,
    slow: f64,
    slow_square: f64,
    /// The cumulative sums.
    broken: f64,
    drifted: f64,
    /// The mean square of the last rows.
    power: f64,
}

impl Residual {
    /// Takes the residual of a row, in deviations that the relation leaves open; `precision` says how few those are.
    pub(super) fn observe(&mut self, residual: f64, precision: f64, is_warm: bool) {
        let residual = residual.clamp(-MOST_SIZE, MOST_SIZE);
        self.rows = self.rows.saturating_add(1);
        // A field may come, or begin to measure, after the warm-up.
        let is_warm = is_warm && self.rows > LEAST_ROWS;
        let young = 1.0 / f64::from(self.rows);
        self.slow += young.max(1.0 / SLOW_ROWS) * (residual - self.slow);
        self.power += (residual * residual - self.power) / POWER_ROWS;
        if is_warm {
            self.sum_up(residual, precision);
        }
        let rate = young.max(RATE);
        let learnt = |square: f64, value: f64, cut: f64| {
            let most = if is_warm { cut * cut * square } else { f64::MAX };
            square + rate * ((value * value).min(most) - square)
        };
        self.square = learnt(self.square, residual, CUT);
        self.slow_square = learnt(self.slow_square, self.slow, SLOW_CUT);
        if is_warm {
            let size = residual.abs();
            self.largest += LARGEST_RATE * (size.min(1.5 * self.largest) - self.largest);
            self.largest = self.largest.max(size.min(self.largest * (1.0 + RATE)));
        } else {
            self.largest = self.largest.max(residual.abs());
        }
    }

    fn sum_up(&mut self, residual: f64, precision: f64) {
        let usual = self.usual();
        let size = self.size();
        let is_explained = 1.0 - usual * usual / precision >= LEAST_EXPLAINED;
        let gain = |square: f64| {
            let square = if is_explained { square.min(MOST_SQUARE) } else { 0.0 };
            square - ORDINARY * ORDINARY
        };
        let (now, slow) = (residual / size, self.slow / size);
        self.broken = (self.broken + gain(now * now)).clamp(0.0, MOST_RATIO * BROKEN);
        self.drifted = (self.drifted + gain(SLOW_WEIGHT * slow * slow)).clamp(0.0, MOST_RATIO * DRIFTED);
    }

    fn usual(&self) -> f64 {
        self.square.sqrt().max(self.largest / LARGEST)
    }

    /// The size that a residual is divided by.
    pub(super) fn size(&self) -> f64 {
        let (from, range, most) = WANDERS;
        let wanders = (self.slow_square / self.square.max(1e-30)).sqrt().min(1.0);
        let wandering = 1.0 + most * ((wanders - from) / range).clamp(0.0, 1.0);
        let unknown = 1.0 + YOUNG_ROWS / f64::from(self.rows.max(1));
        self.usual() * wandering * unknown + 1e-6
    }

    /// How far the sums are on their way: 1 where something is told.
    pub(super) fn ratio(&self) -> f64 {
        (self.broken / BROKEN).max(self.drifted / DRIFTED)
    }

    /// Whether it drifts more than it is broken.
    pub(super) fn drifts(&self) -> bool {
        self.drifted / DRIFTED > self.broken / BROKEN
    }

    /// The mean square of the last rows.
    pub(super) const fn power(&self) -> f64 {
        self.power
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.rows);
        let Self { square, largest, slow, slow_square, broken, drifted, power, .. } = self;
        [square, largest, slow, slow_square, broken, drifted, power].iter().for_each(|number| writer.f64(**number));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut residual = Self { rows: reader.u32()?, ..Self::default() };
        let Self { square, largest, slow, slow_square, broken, drifted, power, .. } = &mut residual;
        for number in [&mut *square, &mut *largest, &mut *slow, slow_square, broken, drifted, power] {
            *number = reader.f64()?;
        }
        let Self { square, largest, slow_square, broken, drifted, power, .. } = &residual;
        if [square, largest, slow_square, broken, drifted, power].iter().any(|number| **number < 0.0) {
            return Err(reader.damaged("a number is out of range"));
        }
        Ok(residual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(row: u32) -> f64 {
        (f64::from(row) * 12.9898).sin() * 43_758.547 % 1.0
    }

    /// The row at which it is told, of a residual that is noise for 700 rows, and whether it drifts.
    fn told(precision: f64, later: impl Fn(u32) -> f64) -> Option<(u32, bool)> {
        let mut residual = Residual::default();
        (0..4_000).find_map(|row| {
            let value = noise(row) + if row < 700 { 0.0 } else { later(row - 700) };
            residual.observe(value, precision, row >= 200);
            (residual.ratio() >= 1.0).then(|| (row, residual.drifts()))
        })
    }

    #[test]
    fn what_breaks_and_what_drifts_is_told_and_noise_is_not() {
        assert_eq!(told(30.0, |_| 0.0), None);
        let (at, _) = told(30.0, |row| 6.0 * (f64::from(row) / 9.0).sin()).unwrap();
        assert!(at < 740, "{at}");
        let (at, drifts) = told(30.0, |row| f64::from(row) / 700.0).unwrap();
        assert!(at < 3_200 && drifts, "{at}");
        assert_eq!(told(0.5, |_| 6.0), None, "the others say nothing of it");
    }

    #[test]
    fn one_row_is_not_enough_and_it_ends() {
        let mut residual = Residual::default();
        (0..700).for_each(|row| residual.observe(noise(row), 30.0, row >= 200));
        residual.observe(1e9, 30.0, true);
        assert!(residual.ratio() < 1.0);
        (0..200).for_each(|_| residual.observe(40.0, 30.0, true));
        assert!(residual.ratio() > 3.9, "it goes on beyond what is told");
        (0..700).for_each(|row| residual.observe(noise(row), 30.0, true));
        assert!(residual.ratio() < 0.1);
    }
}
