//! Notices a sensor that used to change and now repeats one value.

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// A single value must be repeated this often, and four times as often as ever before, to be a flat line.
pub(crate) const FLAT_AFTER: u32 = 30;

/// Runs of one value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Repeats {
    last: f64,
    /// Times `last` was repeated.
    run: u32,
    /// The longest earlier run.
    longest: u32,
    rows: u32,
    changes: u32,
}

impl Repeats {
    /// Counts a value; true once in a run, where the run becomes a flat line: the value was repeated `least` times and
    /// four times as often as ever before, after it had changed as many times as `least` and in most rows.
    pub(crate) fn count(&mut self, value: f64, least: u32) -> bool {
        if self.rows > 0 && value == self.last {
            self.run = self.run.saturating_add(1);
        } else {
            self.longest = self.longest.max(self.run);
            self.changes = self.changes.saturating_add(u32::from(self.rows > 0));
            self.run = 0;
        }
        self.last = value;
        self.rows = self.rows.saturating_add(1);
        let before = self.rows.saturating_sub(self.run);
        let has_varied = self.changes >= least && 2 * u64::from(self.changes) > u64::from(before);
        has_varied && self.run == least.max(self.longest.saturating_mul(4))
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64(self.last);
        [self.run, self.longest, self.rows, self.changes].into_iter().for_each(|count| writer.u32(count));
    }

    /// Reads itself back.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        Ok(Self {
            last: reader.f64()?,
            run: reader.u32()?,
            longest: reader.u32()?,
            rows: reader.u32()?,
            changes: reader.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flats(values: impl IntoIterator<Item = f64>) -> Vec<usize> {
        let mut repeats = Repeats::default();
        values
            .into_iter()
            .enumerate()
            .filter(|(_, value)| repeats.count(*value, FLAT_AFTER))
            .map(|(row, _)| row)
            .collect()
    }

    #[test]
    fn a_sensor_that_stops_changing_is_noticed_once() {
        let lively = (0..100).map(f64::from);
        assert_eq!(flats(lively.chain(std::iter::repeat_n(7.0, 500))), [100 + FLAT_AFTER as usize]);
    }

    #[test]
    fn a_sensor_that_often_repeats_itself_is_not() {
        assert!(flats((0..2_000).map(|row| f64::from(row / 10))).is_empty());
        assert!(flats(std::iter::repeat_n(1.0, 2_000)).is_empty());
    }
}
