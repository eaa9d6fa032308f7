//! The interval that the sinus node keeps, which a run of early beats does not move.
//!
//! A median of late intervals follows a run that lasts, and its beats look usual after a while. The pace follows only intervals near it, a little
//! at each beat; what begins with a step is held against what was before the step. After [`MOST_OUTSIDE`] intervals that are not near, it
//! begins anew at the median.

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Inputs that it gives.
pub(super) const VALUES: usize = 6;
/// Which of them says how steeply shorter intervals began.
pub(super) const ONSET: usize = 5;

/// How near an interval is, as a logarithm of the ratio, and how much of the way the pace follows it.
const NEAR: f32 = 0.12;
const FOLLOWS: f32 = 0.15;
/// Intervals that are not near, one after the other, after which it begins anew.
const MOST_OUTSIDE: u32 = 90;
/// Intervals until which it is the median.
const YOUNG: u32 = 8;
/// A count beyond this says no more.
const MOST_COUNT: u32 = 64;

/// What is known of the pace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    /// Seconds.
    interval: f32,
    /// Intervals that it has seen, up to [`YOUNG`].
    seen: u32,
    /// Intervals in a row that are not near, and that are shorter.
    outside: u32,
    short: u32,
    /// The last interval, and the largest step down, as a logarithm, since the intervals that are shorter began.
    last: f32,
    onset: f32,
}

impl Pace {
    /// Before the first interval, of so many seconds.
    pub(super) const fn new(interval: f32) -> Self {
        Self { interval, seen: 0, outside: 0, short: 0, last: interval, onset: 0.0 }
    }

    /// Takes an interval in seconds, and the median of late.
    pub(super) fn push(&mut self, interval: f32, usual: f32) {
        let off = (interval / self.interval).ln();
        self.onset = self.onset_with(interval);
        self.last = interval;
        self.short = if off < -NEAR { self.short.saturating_add(1) } else { 0 };
        self.seen = (self.seen + 1).min(YOUNG);
        if self.seen < YOUNG {
            self.interval = usual;
        } else if off.abs() < NEAR {
            self.interval *= (FOLLOWS * off).exp();
            self.outside = 0;
        } else {
            self.outside += 1;
            if self.outside > MOST_OUTSIDE {
                (self.interval, self.outside) = (usual, 0);
            }
        }
    }

    /// How steeply the shorter intervals began, with this one: a sinus node hurries by and by, and a run begins with a step.
    fn onset_with(&self, interval: f32) -> f32 {
        let step = (interval / self.last).ln();
        if self.short > 0 { self.onset.min(step) } else { step }
    }

    /// After a gap it is another, in seconds.
    pub(super) fn begin_anew(&mut self, interval: f32) {
        (self.interval, self.outside, self.short, self.last) = (interval, 0, 0, interval);
    }

    /// How the intervals before and after a beat stand to it, in seconds, how long it has not been kept, and how steeply shorter ones began.
    pub(super) fn values(&self, before: f32, after: f32) -> [f32; VALUES] {
        let log = |interval: f32| (interval / self.interval).ln().clamp(-1.5, 1.5);
        let long = |count: u32| (count.min(MOST_COUNT) as f32).ln_1p() / 2.0;
        let onset = self.onset_with(before).clamp(-1.5, 1.5);
        [log(before), log(after), long(self.outside), long(self.short), log(f32::midpoint(before, after)), onset]
    }

    /// How its shorter intervals began, which stands apart in a snapshot: earlier versions lack it.
    pub(super) fn write_onset(&self, writer: &mut Writer) {
        writer.f32(self.last);
        writer.f32(self.onset);
    }

    /// Reads that back.
    pub(super) fn read_onset(&mut self, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        (self.last, self.onset) = (reader.f32()?.clamp(0.1, 2.5), reader.f32()?.clamp(-4.0, 4.0));
        Ok(())
    }

    /// For a state that was kept without it: the last interval, if there is one, and a run at hand is taken to have begun with a step.
    pub(super) fn guess_onset(&mut self, last: Option<f32>) {
        self.last = last.unwrap_or(self.interval);
        self.onset = (self.last / self.interval).ln();
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.f32(self.interval);
        [self.seen, self.outside, self.short].into_iter().for_each(|count| writer.u32(count));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let interval = reader.f32()?.clamp(0.1, 2.5);
        let (seen, outside, short) = (reader.u32()?.min(YOUNG), reader.u32()?.min(MOST_OUTSIDE), reader.u32()?);
        Ok(Self { interval, seen, outside, short, last: interval, onset: 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_held_against_what_was_before_it() {
        let mut pace = Pace::new(0.8);
        (0..60).for_each(|_| pace.push(1.0, 1.0));
        (0..80).for_each(|_| pace.push(0.6, 0.6));
        let [before, after, outside, short, _, onset] = pace.values(0.6, 1.0);
        assert!((before - 0.6_f32.ln()).abs() < 1e-3 && after.abs() < 1e-3);
        assert!(outside > 2.0 && short > 2.0);
        assert!((onset - 0.6_f32.ln()).abs() < 1e-3);
        (0..20).for_each(|_| pace.push(0.6, 0.6));
        assert!(pace.values(0.6, 0.6)[0].abs() < 1e-3, "what stays is a pace of its own");
    }

    #[test]
    fn a_run_begins_with_a_step_and_a_sinus_node_hurries_by_and_by() {
        let mut pace = Pace::new(0.8);
        (0..20).for_each(|_| pace.push(0.8, 0.8));
        let (mut run, mut hurry, mut interval) = (pace, pace, 0.8);
        (0..5).for_each(|_| run.push(0.5, 0.8));
        for _ in 0..20 {
            interval *= 0.975;
            hurry.push(interval, 0.8);
        }
        let onset = |pace: &Pace, before: f32| pace.values(before, before)[ONSET];
        assert!(onset(&run, 0.5) < 0.7_f32.ln() && onset(&hurry, interval) > 0.95_f32.ln());
        assert!(onset(&pace, 0.5) < 0.7_f32.ln(), "its first beat too");
        run.push(0.8, 0.8);
        assert!(onset(&run, 0.8).abs() < 1e-3, "it is over");
    }

    #[test]
    fn it_follows_a_sinus_node_that_hurries_slowly() {
        let mut pace = Pace::new(0.8);
        let mut interval = 1.0_f32;
        for _ in 0..200 {
            pace.push(interval, interval);
            interval *= 0.997;
        }
        assert!(pace.values(interval, interval)[0].abs() < 0.05);
    }
}
