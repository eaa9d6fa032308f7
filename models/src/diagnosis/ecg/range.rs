//! How far the signal reaches in each second, and whether it is lost.

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Seconds in a row without amplitude after which the signal is lost.
pub const LOST_SECONDS: u32 = 3;
/// Seconds of signal before its range is usual.
const LEAST_SECONDS: u32 = 8;
/// What less signal than this taught may be the noise of leads that were not on yet; after so long without amplitude it is learnt anew, or
/// the heart's own signal would be taken for none for ever.
const YOUNG_SECONDS: u32 = 60;
const RELEARN_SECONDS: u32 = 30;
/// A range below this share of the usual is none.
const NO_RANGE: f64 = 0.1;

/// The range of each second of signal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Range {
    low: f32,
    high: f32,
    samples: u32,
    seconds: u32,
    /// The usual range.
    usual: f64,
    quiet: u32,
}

impl Range {
    /// The next sample is the first of its second.
    pub(super) fn restart(&mut self) {
        self.samples = 0;
    }

    /// The usual range, in the unit of the samples.
    pub(super) const fn usual(&self) -> f64 {
        self.usual
    }

    /// Whether the signal is lost.
    pub(super) const fn is_lost(&self) -> bool {
        self.quiet >= LOST_SECONDS
    }

    /// Takes a sample; true once, where the signal is lost.
    pub(super) fn push(&mut self, sample: f64, rate_hz: f64) -> bool {
        let sample = sample as f32;
        (self.low, self.high) = match self.samples {
            0 => (sample, sample),
            _ => (self.low.min(sample), self.high.max(sample)),
        };
        self.samples += 1;
        if f64::from(self.samples) < rate_hz {
            return false;
        }
        self.samples = 0;
        let range = f64::from(self.high - self.low);
        // One value from the start: nothing is usual yet, and it is no signal.
        if range <= 0.0 && self.usual <= 0.0 {
            self.quiet = self.quiet.saturating_add(1);
            return self.quiet == LOST_SECONDS;
        }
        if self.seconds >= LEAST_SECONDS && range < NO_RANGE * self.usual {
            self.quiet = self.quiet.saturating_add(1);
            if self.seconds < YOUNG_SECONDS && self.quiet >= RELEARN_SECONDS {
                (self.quiet, self.seconds) = (0, 0);
            }
            return self.quiet == LOST_SECONDS;
        }
        self.quiet = 0;
        self.seconds = self.seconds.saturating_add(1);
        let rate = (1.0 / f64::from(self.seconds)).max(0.05);
        // An artefact is not what is usual.
        let most = if self.seconds > LEAST_SECONDS { 2.0 * self.usual } else { f64::MAX };
        self.usual += rate * (range.min(most) - self.usual);
        false
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.f32(self.low);
        writer.f32(self.high);
        [self.samples, self.seconds, self.quiet].into_iter().for_each(|count| writer.u32(count));
        writer.f64(self.usual);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let (low, high) = (reader.f32()?, reader.f32()?);
        let (samples, seconds, quiet) = (reader.u32()?, reader.u32()?, reader.u32()?);
        Ok(Self { low, high, samples, seconds, quiet, usual: reader.f64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of a signal of this range at 4 samples a second; how often it was told lost.
    fn feed(range: &mut Range, high: f64, seconds: u32) -> u32 {
        let samples = (0..4 * seconds).map(|index| if index % 2 == 0 { 0.0 } else { high });
        samples.map(|sample| u32::from(range.push(sample, 4.0))).sum()
    }

    #[test]
    fn what_was_there_before_the_leads_were_on_is_not_usual_for_ever() {
        let mut range = Range::default();
        assert_eq!(feed(&mut range, 100.0, 20), 0);
        assert_eq!(feed(&mut range, 1.0, 29), 1);
        assert!(range.is_lost());
        assert_eq!(feed(&mut range, 1.0, 20), 0);
        assert!(!range.is_lost() && range.usual() < 2.0);
        // Leads that are off after a while of signal stay off.
        assert_eq!(feed(&mut range, 1.0, 60), 0);
        assert_eq!(feed(&mut range, 0.01, 600), 1);
        assert!(range.is_lost());
    }
}
