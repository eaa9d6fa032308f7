//! Whether a signal comes in pieces long enough to be judged, at a rate that can be.
//!
//! The detector listens for 2.5 s before it tells anything, and after a gap it listens anew. So of a signal with a gap every second no beat
//! is judged, ever; that is said once, after [`MANY`] pieces in a row that were too short, and again only after the signal, or strips
//! that were each long enough, went on for [`WHOLE_MICROS`]. A rate outside of [`RATES_HZ`] is said at once. Never: a strip that is long enough is held against a stream.

use nearside_schemas::Timestamp;

use super::RATES_HZ;
use super::clock::Follows;
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Seconds that a piece lasts at least for one of its beats to be judged.
pub(super) const LEAST_SECONDS: u32 = 3;
/// Shorter pieces in a row that are worth saying.
const MANY: u32 = 10;
/// Event time that they take at least: a burst of odd times is over before that.
const LEAST_MICROS: i64 = 10_000_000;
/// Event time in pieces that are all long enough after which the signal is whole again.
const WHOLE_MICROS: i64 = 10_000_000;

/// Why a signal is not judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unusable {
    /// It comes in pieces that are too short.
    Pieces {
        /// Seconds that the last of them lasted.
        last_seconds: f64,
    },
    /// Its rate is not one of [`RATES_HZ`].
    Rate {
        /// Samples a second.
        hz: f64,
    },
}

/// The pieces of a signal, by the times of its samples in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pieces {
    /// The first and the last sample of the piece at hand.
    from: i64,
    last: i64,
    /// Pieces in a row that were too short, and where the first of them began.
    short: u32,
    since: i64,
    /// How long the pieces in a row before the one at hand lasted that were long enough.
    whole: i64,
    /// Whether there was a sample, whether the rate is one that is judged, and whether something was said that still holds.
    has_begun: bool,
    is_fit: bool,
    is_told: bool,
}

impl Pieces {
    /// Takes the time of a sample and how it follows the one before; says once what keeps the signal from being judged.
    pub(super) fn next(&mut self, time: Timestamp, follows: Follows) -> Option<Unusable> {
        let at = time.as_micros();
        let unusable = match follows {
            Follows::Breaks => self.broke(at),
            Follows::Begins(hz) => {
                self.is_fit = RATES_HZ.contains(&hz);
                (!self.is_fit).then_some(Unusable::Rate { hz })
            }
            Follows::Unknown | Follows::GoesOn => None,
        };
        if self.is_fit && self.whole.saturating_add(at.saturating_sub(self.from)) >= WHOLE_MICROS {
            (self.short, self.is_told) = (0, false);
        }
        self.last = at;
        unusable.filter(|_| !std::mem::replace(&mut self.is_told, true))
    }

    /// A piece ends and another begins at this sample.
    fn broke(&mut self, at: i64) -> Option<Unusable> {
        let lasted = self.last.saturating_sub(self.from);
        let is_short = std::mem::replace(&mut self.has_begun, true) && lasted < i64::from(LEAST_SECONDS) * 1_000_000;
        if !is_short {
            self.short = 0;
        } else if self.short == 0 {
            (self.short, self.since) = (1, self.from);
        } else {
            self.short = self.short.saturating_add(1);
        }
        let was_fit = std::mem::replace(&mut self.is_fit, false);
        self.whole = if is_short || !was_fit { 0 } else { self.whole.saturating_add(lasted) };
        self.from = at;
        // Where a clock went back the time that they took is not known: it is counted from here.
        self.since = self.since.min(at);
        let is_lasting = self.short >= MANY && at.saturating_sub(self.since) >= LEAST_MICROS;
        is_lasting.then_some(Unusable::Pieces { last_seconds: lasted as f64 / 1e6 })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        [self.from, self.last, self.since, self.whole].into_iter().for_each(|time| writer.i64(time));
        writer.u32(self.short);
        [self.has_begun, self.is_fit, self.is_told].into_iter().for_each(|is_so| writer.u8(u8::from(is_so)));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let [from, last, since, whole] = [reader.i64()?, reader.i64()?, reader.i64()?, reader.i64()?];
        let short = reader.u32()?;
        let [has_begun, is_fit, is_told] = [reader.u8()? == 1, reader.u8()? == 1, reader.u8()? == 1];
        Ok(Self { from, last, since, whole, short, has_begun, is_fit, is_told })
    }
}
