//! What one field of a stream usually does, and how far it is from that now.
//!
//! Kept, as differences to the first value: exponential means over [`SPANS`] rows, a slow baseline, the mean square of each
//! mean's distance to the baseline, and how rough the field is (its distance to its own 4-row mean).
//!
//! During warm-up all of it is learnt plainly. Afterwards it follows a drift, but no row moves it far: the baseline goes by at most
//! [`MOST_STEP`] usual deviations in `1 /` [`RATE`] rows, and a deviation counts as at most [`MOST_DEVIATION`] usual ones. So an
//! anomaly of a few hundred rows does not become normal, and one of many thousands does.

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Rows of the exponential means.
pub(super) const SPANS: [f64; 5] = [1.0, 4.0, 12.0, 36.0, 100.0];
/// The place of the 4-, 12- and 36-row mean in [`SPANS`].
const ROUGHNESS: usize = 1;
pub(super) const SHORT: usize = 2;
pub(super) const LONG: usize = 3;
/// How much a row changes what is usual after the warm-up.
pub(super) const RATE: f64 = 0.0005;
const MOST_STEP: f64 = 2.0;
const MOST_DEVIATION: f64 = 2.5;
/// Rows of the two means of roughness.
const ROUGH_SPANS: [f64; 2] = [8.0, 32.0];
/// A past peak fades over this many rows.
const PEAK_ROWS: f64 = 100.0;
/// A field that changed in fewer than one of this many rows is a state or a setting, not a measurement.
const ROWS_PER_CHANGE: u32 = 20;
/// Differences to the first value are cut here so that sums of squares stay finite.
pub(super) const MOST: f64 = 1e30;
/// No difference is larger; a snapshot with one is damaged.
pub(super) const MOST_KEPT: f64 = 10.0 * MOST;
/// No distance in usual deviations is larger.
const MOST_Z: f64 = 50.0;

/// How far a field is from what is usual, in usual deviations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Distance {
    /// Of each exponential mean.
    pub(super) z: [f64; SPANS.len()],
    /// Logarithm of how much rougher than usual the last 8 and 32 rows were.
    pub(super) rough: [f64; 2],
    /// Logarithm of the usual deviation of the 12- and 100-row mean by that of the row: how much the field wanders.
    pub(super) wander: [f64; 2],
    /// The largest distance of the 12-row mean, fading.
    pub(super) peak: f64,
}

/// The past of one field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Field {
    origin: f64,
    last: f64,
    rows: u32,
    changes: u32,
    baseline: f64,
    means: [f64; SPANS.len()],
    /// Mean squares of the means' distances to the baseline.
    squares: [f64; SPANS.len()],
    rough: [f64; 2],
    usual_rough: f64,
    peak: f64,
}

impl Field {
    /// Whether the warm-up of `warm_up` rows is over and the field measures something.
    pub(super) const fn is_ready(&self, warm_up: u32) -> bool {
        self.rows >= warm_up && self.changes >= warm_up / ROWS_PER_CHANGE
    }

    /// Takes a value in; says how far the field is from what is usual once it is ready.
    pub(super) fn observe(&mut self, value: f64, warm_up: u32) -> Option<Distance> {
        let is_ready = self.is_ready(warm_up);
        if self.rows == 0 {
            self.origin = value;
        }
        let x = (value - self.origin).clamp(-MOST, MOST);
        self.changes = self.changes.saturating_add(u32::from(x != self.last));
        self.last = x;
        self.rows = self.rows.saturating_add(1);
        let young = 1.0 / f64::from(self.rows);
        for (mean, rows) in self.means.iter_mut().zip(SPANS) {
            *mean += young.max(1.0 / rows) * (x - *mean);
        }
        let roughness = (x - self.means[ROUGHNESS]).abs();
        for (rough, rows) in self.rough.iter_mut().zip(ROUGH_SPANS) {
            *rough += young.max(1.0 / rows) * (roughness - *rough);
        }
        if is_ready {
            Some(self.judge(roughness, young.max(RATE)))
        } else {
            self.warm_up(x, roughness, warm_up);
            None
        }
    }

    fn warm_up(&mut self, x: f64, roughness: f64, warm_up: u32) {
        let rows = f64::from(self.rows);
        self.baseline += (x - self.baseline) / rows;
        self.usual_rough += (roughness - self.usual_rough) / rows;
        for ((square, mean), span) in self.squares.iter_mut().zip(self.means).zip(SPANS) {
            // A mean that is not filled yet says little of how it deviates.
            if rows > 2.0 * span || self.rows > warm_up / 2 {
                let deviation = mean - self.baseline;
                *square += (deviation * deviation - *square) / (rows - 2.0 * span).max(1.0);
            }
        }
    }

    fn judge(&mut self, roughness: f64, rate: f64) -> Distance {
        let most = MOST_STEP * self.deviation(SHORT);
        self.baseline += rate * (self.means[SHORT] - self.baseline).clamp(-most, most);
        let z: [f64; SPANS.len()] = std::array::from_fn(|span| self.z(span));
        self.peak = (self.peak * (-1.0 / PEAK_ROWS).exp()).max(z[SHORT].abs());
        let floor = 0.1 * self.floor();
        let distance = Distance {
            z,
            rough: self.rough.map(|rough| ((rough + floor) / (self.usual_rough + floor)).ln()),
            wander: [SHORT, SPANS.len() - 1].map(|span| (self.deviation(span) / self.deviation(0)).ln()),
            peak: self.peak,
        };
        for span in 0..SPANS.len() {
            let most = MOST_DEVIATION * self.deviation(span);
            let deviation = (self.means[span] - self.baseline).clamp(-most, most);
            self.squares[span] += rate * (deviation * deviation - self.squares[span]);
        }
        self.usual_rough += rate * (roughness.min(2.0 * self.usual_rough) - self.usual_rough);
        distance
    }

    /// The least deviation: finer is rounding.
    fn floor(&self) -> f64 {
        1e-6 * self.origin.abs().min(MOST) + 1e-12
    }

    /// The usual deviation of the mean over a span; positive.
    fn deviation(&self, span: usize) -> f64 {
        self.squares[span].sqrt() + self.floor()
    }

    /// The distance of the mean over a span, in usual deviations; 0 before there is one.
    pub(super) fn z(&self, span: usize) -> f64 {
        let z = (self.means[span] - self.baseline) / self.deviation(span);
        z.clamp(-MOST_Z, MOST_Z)
    }

    /// The value that lies `z` usual deviations of the 12-row mean above the baseline.
    pub(super) fn value_at(&self, z: f64) -> f64 {
        self.origin + self.baseline + z * self.deviation(SHORT)
    }

    /// The usual deviation of a single value.
    pub(super) fn usual_deviation(&self) -> f64 {
        self.deviation(0)
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.rows);
        writer.u32(self.changes);
        let one = [self.origin, self.last, self.baseline, self.usual_rough, self.peak];
        one.iter().chain(&self.means).chain(&self.squares).chain(&self.rough).for_each(|value| writer.f64(*value));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut field = Self { rows: reader.u32()?, changes: reader.u32()?, ..Self::default() };
        for value in [&mut field.origin, &mut field.last, &mut field.baseline, &mut field.usual_rough, &mut field.peak]
        {
            *value = reader.f64()?;
        }
        for value in field.means.iter_mut().chain(&mut field.squares).chain(&mut field.rough) {
            *value = reader.f64()?;
        }
        let Self { last, baseline, means, squares, rough, usual_rough, .. } = &field;
        let is_fit = squares.iter().chain(rough).chain([usual_rough]).all(|value| *value >= 0.0)
            && [last, baseline, usual_rough]
                .into_iter()
                .chain(means)
                .chain(rough)
                .all(|value| value.abs() <= MOST_KEPT)
            && squares.iter().all(|square| *square <= MOST_KEPT * MOST_KEPT);
        if !is_fit {
            return Err(reader.damaged("a number is out of range"));
        }
        Ok(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(row: u32) -> f64 {
        (f64::from(row) * 12.9898).sin() * 43_758.547 % 1.0
    }

    fn warm() -> Field {
        let mut field = Field::default();
        (0..400).for_each(|row| assert_eq!(field.observe(100.0 + noise(row), 400), None));
        field
    }

    #[test]
    fn a_shift_is_far_and_stays_far_for_hundreds_of_rows() {
        let mut field = warm();
        let far: Vec<f64> =
            (400..1_000).filter_map(|row| Some(field.observe(105.0 + noise(row), 400)?.z[SHORT])).collect();
        assert!(far[30] > 20.0 && far[400] > 5.0, "{} {}", far[30], far[400]);
    }

    #[test]
    fn a_slow_drift_is_followed() {
        let mut field = warm();
        let drift = |row: u32| 100.0 + noise(row) + f64::from(row - 400) * 1e-4;
        let last = (400..20_000).filter_map(|row| field.observe(drift(row), 400)).last().unwrap();
        assert!(last.z[LONG].abs() < 3.0, "{last:?}");
        assert!((field.value_at(0.0) - drift(19_999)).abs() < 1.5);
    }

    #[test]
    fn distances_do_not_depend_on_unit_and_offset() {
        let (mut one, mut other) = (Field::default(), Field::default());
        for row in 0..600 {
            let a = one.observe(1.0 + noise(row), 400);
            let b = other.observe(-70.0 + 1e3 * noise(row), 400);
            let close = |a: Distance, b: Distance| a.z.iter().zip(b.z).all(|(a, b)| (a - b).abs() < 0.01);
            assert!(a.zip(b).is_none_or(|(a, b)| close(a, b)), "{row}");
        }
    }

    #[test]
    fn a_setting_is_not_a_measurement() {
        let mut field = Field::default();
        assert!((0..2_000).all(|row| field.observe(f64::from(row / 500), 400).is_none()));
    }

    #[test]
    fn any_number_is_borne() {
        let mut field = Field::default();
        for (row, value) in [f64::MAX, f64::MIN, 0.0, 1e-300, -1e300, 7.0].iter().cycle().take(1_000).enumerate() {
            let distance = field.observe(*value, 100);
            assert!(
                distance.is_none_or(|d| d.z.iter().chain(&d.rough).chain(&d.wander).all(|v| v.is_finite())),
                "{row}"
            );
        }
    }

    #[test]
    fn whatever_was_seen_is_read_back_and_what_cannot_have_been_is_refused() {
        let read_back = |field: &Field| {
            let mut writer = Writer::new(1);
            field.write(&mut writer);
            let snapshot = writer.finish();
            Field::read(&mut Reader::of_versions("field", 1..=1, &snapshot)?.0)
        };
        let mut field = Field::default();
        for row in 0..600 {
            field.observe([0.1, f64::MAX, -f64::MAX, 1e30, noise(row)][row as usize / 3 % 5], 400);
            assert_eq!(read_back(&field).unwrap(), field, "{row}");
        }
        let damaged: [fn(&mut Field); 4] = [
            |field| (field.squares, field.means, field.baseline) = ([1e308; SPANS.len()], [1e308; SPANS.len()], -1e308),
            |field| field.squares[1] = 1e63,
            |field| field.means[0] = -1e32,
            |field| field.rough[0] = -1.0,
        ];
        for damage in damaged {
            let mut damaged = field.clone();
            damage(&mut damaged);
            assert!(read_back(&damaged).is_err(), "{damaged:?}");
        }
    }
}
