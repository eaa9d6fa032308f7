//! One alarm for what is one incident, and fewer of a field that raises many.
//!
//! Promises: after an alarm it is quiet until [`HOLD`] rows have passed without evidence. It is raised again before that where it gets
//! ten times rarer, and for a row that is odd by itself where its error is well above the largest of the incident, or nearly as large
//! after the field had been back to normal. Never: an alarm for a row without evidence.
//!
//! Habituation: how often evidence reaches a threshold differs from field to field, by how its errors hang together, and no one threshold
//! fits all. So alarms are counted, fading over [`MEMORY`] rows, and a field with `n` of them beyond [`FREE`] takes what is `1 + n` times as
//! rare: evidence is a `log10`, so `log10(1 + n)` more of it.

use super::likelihood::Evidence;
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Rows without evidence after which an alarm is over.
pub const HOLD: u32 = 100;
/// By how much the evidence must grow for a second alarm within the hold: ten times rarer.
pub const ESCALATION: f64 = 1.0;
/// How many times the largest error of the incident an error must be to be told again at once.
const HIGHER: f64 = 1.5;
/// Rows that are not odd after which a field is back to normal.
const BACK_AFTER: u32 = 10;
/// How many times the largest error of the incident an error must be to be told again when the field was back to normal.
const AS_HIGH: f64 = 0.8;
/// Rows over which alarms fade.
pub const MEMORY: f64 = 5_000.0;
/// An alarm that is one of so many changes nothing for the next.
pub const FREE: f64 = 1.0;
/// No error is larger: see [`super::likelihood::Errors`]. The largest of an incident that nothing is known of.
const UNKNOWN: f64 = 1e30;

/// Raises one alarm for what is one incident.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Hold {
    /// Rows that it stays quiet for.
    rows: u32,
    /// The most evidence since the alarm.
    peak: f64,
    /// The largest error since the alarm.
    largest: f64,
    /// Rows since one that was odd.
    calm: u32,
    /// Alarms so far, fading.
    alarms: f64,
}

/// An alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// Of an incident of its own, or of a row that stands out from the one that goes on.
    Anew,
    /// Of the incident that goes on and has become rarer.
    Again,
}

/// A row as the hold sees it.
#[derive(Clone, Copy, Debug)]
pub struct Unusual {
    /// Its discounted evidence.
    pub strength: f64,
    /// How far off its forecast was.
    pub error: f64,
    /// Whether that is odd by itself.
    pub is_odd: bool,
}

impl Unusual {
    /// Of a row with this error.
    pub const fn new(evidence: &Evidence, strength: f64, error: f64) -> Self {
        Self { strength, error: error.abs().min(UNKNOWN), is_odd: evidence.is_odd }
    }
}

impl Hold {
    /// What an alarm takes now of a field where one takes `least` evidence.
    fn needed(&self, least: f64) -> f64 {
        least + (1.0 + (self.alarms - FREE).max(0.0)).log10()
    }

    /// The alarm that a row raises; `least` is the evidence it takes where there were none.
    pub fn raises(&mut self, row: Unusual, least: f64) -> Option<Raised> {
        let Unusual { strength, error, is_odd } = row;
        self.alarms *= 1.0 - 1.0 / MEMORY;
        let is_quiet = self.rows > 0;
        let was_back = self.calm >= BACK_AFTER;
        self.rows = self.rows.saturating_sub(1);
        self.calm = if is_odd { 0 } else { self.calm.saturating_add(1) };
        if strength < self.needed(least) {
            return None;
        }
        self.rows = HOLD;
        let is_another = is_odd && (error > HIGHER * self.largest || (was_back && error > AS_HIGH * self.largest));
        let is_new = !is_quiet || is_another;
        let raised = if is_new { Some(Raised::Anew) } else { None };
        let raised = raised.or((strength > self.peak + ESCALATION).then_some(Raised::Again));
        self.peak = if is_quiet { self.peak.max(strength) } else { strength };
        self.largest = if is_quiet { self.largest.max(error) } else { error };
        self.alarms += f64::from(u8::from(raised.is_some()));
        raised
    }

    /// Whether an alarm was raised and is not over.
    pub const fn goes_on(&self) -> bool {
        self.rows > 0
    }

    /// Whether the last row had the evidence of an alarm.
    pub const fn has_evidence(&self) -> bool {
        self.rows == HOLD
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u32(self.rows);
        writer.f64(self.peak);
        writer.f64(self.largest);
        writer.u32(self.calm);
        writer.f64(self.alarms);
    }

    /// Reads itself back, from a snapshot of this version of the model's.
    pub(crate) fn read(reader: &mut Reader<'_>, version: u8) -> Result<Self, ModelError> {
        let mut hold = Self {
            rows: reader.count(HOLD as usize)? as u32,
            peak: reader.f64()?,
            largest: UNKNOWN,
            calm: 0,
            alarms: 0.0,
        };
        if version >= 2 {
            (hold.largest, hold.calm) = (reader.f64()?, reader.u32()?);
        }
        if version >= 3 {
            hold.alarms = reader.f64()?.max(0.0);
        }
        Ok(hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(strength: f64) -> Unusual {
        Unusual { strength, error: 1.0, is_odd: false }
    }

    fn odd(error: f64) -> Unusual {
        Unusual { strength: 3.0, error, is_odd: true }
    }

    fn raises(hold: &mut Hold, row: Unusual) -> bool {
        hold.raises(row, 2.0).is_some()
    }

    #[test]
    fn an_alarm_is_raised_once_and_again_when_it_gets_worse_or_comes_back() {
        let mut hold = Hold::default();
        assert!(!raises(&mut hold, row(1.9)));
        assert!(raises(&mut hold, row(2.0)));
        assert!((0..50).all(|_| !raises(&mut hold, row(2.9))), "the same incident");
        assert!(raises(&mut hold, row(4.0)), "ten times rarer");
        assert!((0..HOLD).all(|_| !raises(&mut hold, row(0.0))), "it is over");
        assert!(raises(&mut hold, row(2.5)), "and another, which takes a little more");
        (0..HOLD - 1).for_each(|_| assert!(!raises(&mut hold, row(0.0))));
        assert!(!raises(&mut hold, row(2.5)), "within the hold");
    }

    /// Which of a hundred incidents of this evidence, `apart` rows from one another, raise an alarm.
    fn raised(strength: f64, apart: u32) -> Vec<u32> {
        let mut hold = Hold::default();
        let mut is_raised = |_: &u32| {
            let is_raised = raises(&mut hold, row(strength));
            (1..apart).for_each(|_| assert!(!raises(&mut hold, row(0.0))));
            is_raised
        };
        (0..100).filter(|incident| is_raised(incident)).collect()
    }

    #[test]
    fn a_field_that_raises_many_alarms_takes_more_for_the_next() {
        assert_eq!(raised(2.0, 20_000).len(), 100, "seldom: what one takes is enough");
        let often = raised(2.0, 200);
        assert!(often.starts_with(&[0, 1]) && often.len() < 10, "{often:?}");
        assert!(raised(2.5, 200).len() > often.len(), "what is rarer is told more often");
        assert_eq!(raised(4.0, 200).len(), 100, "what is much rarer, always");
    }

    #[test]
    fn another_odd_row_is_told_where_it_is_higher_or_the_field_was_back_to_normal() {
        let mut hold = Hold::default();
        assert!(raises(&mut hold, odd(10.0)));
        assert!((0..30).all(|_| !raises(&mut hold, odd(14.0))), "it goes on");
        assert!(raises(&mut hold, odd(22.0)), "much higher");
        (0..BACK_AFTER - 1).for_each(|_| assert!(!raises(&mut hold, row(0.0))));
        assert!(!raises(&mut hold, odd(22.0)), "it was not back");
        (0..BACK_AFTER).for_each(|_| assert!(!raises(&mut hold, row(0.0))));
        assert!(raises(&mut hold, odd(21.0)), "back, and as high again");
        (0..BACK_AFTER).for_each(|_| assert!(!raises(&mut hold, row(0.0))));
        assert!(!raises(&mut hold, odd(15.0)), "lower");
        assert!(!raises(&mut hold, Unusual { strength: 1.9, ..odd(100.0) }), "no evidence");
    }

    #[test]
    fn what_only_becomes_rarer_is_the_same_incident() {
        let mut hold = Hold::default();
        assert_eq!(hold.raises(row(2.0), 2.0), Some(Raised::Anew));
        assert_eq!(hold.raises(row(4.0), 2.0), Some(Raised::Again), "ten times rarer");
        assert_eq!(
            hold.raises(Unusual { strength: 6.0, ..odd(10.0) }, 2.0),
            Some(Raised::Anew),
            "a row that stands out"
        );
        (0..BACK_AFTER).for_each(|_| assert_eq!(hold.raises(row(0.0), 2.0), None));
        assert_eq!(hold.raises(odd(9.0), 2.0), Some(Raised::Anew), "the field had been back");
    }
}
