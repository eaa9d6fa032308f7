//! Whether one sample follows the other, and at which rate they come.

use nearside_schemas::Timestamp;

use super::RATES_HZ;
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Intervals that the rate is taken from.
const RATE_INTERVALS: i64 = 16;
/// An interval this much longer than a sample is a gap.
const GAP: f64 = 1.6;

/// The samples' rate and whether one follows the other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct SampleClock {
    last: i64,
    /// Unbroken intervals, up to [`RATE_INTERVALS`] and one, and their sum.
    intervals: i64,
    micros: i64,
}

/// How a sample follows the one before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Follows {
    /// There was a gap, or it is the first.
    Breaks,
    /// The rate is not known yet.
    Unknown,
    /// The signal begins anew, at this rate.
    Begins(f64),
    /// It goes on.
    GoesOn,
}

impl SampleClock {
    pub(super) fn next(&mut self, time: Timestamp) -> Follows {
        let interval = time.as_micros().saturating_sub(self.last);
        let slowest = 1e6 / RATES_HZ.start();
        let usual = if self.intervals > 0 { self.micros as f64 / self.intervals as f64 } else { slowest };
        self.last = time.as_micros();
        let is_gap = interval <= 0 || interval as f64 > GAP * usual;
        if is_gap {
            (self.intervals, self.micros) = (0, 0);
            return Follows::Breaks;
        }
        if self.intervals > RATE_INTERVALS {
            return Follows::GoesOn;
        }
        self.intervals += 1;
        if self.intervals > RATE_INTERVALS {
            return Follows::Begins(1e6 / usual);
        }
        self.micros = self.micros.saturating_add(interval);
        Follows::Unknown
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        [self.last, self.intervals, self.micros].into_iter().for_each(|number| writer.i64(number));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        Ok(Self { last: reader.i64()?, intervals: reader.i64()?, micros: reader.i64()? })
    }
}
