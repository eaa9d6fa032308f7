//! When something is told, as what, and when it is over.

use super::evidence::{Parting, WHOLE};
use super::trace::Leap;
use super::watch::Taken;
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Rows that log odds are averaged over.
pub const SMOOTHED: f64 = 20.0;
/// How far below the threshold an alarm ends, in log odds.
pub const HYSTERESIS: f64 = 1.5;
/// Rows without something after which the next with it is another one: within as many log odds hold the same rows.
const OVER_AFTER: u32 = SMOOTHED as u32;
/// Rows after a leap after which the next is another one.
const LEAP_OVER_AFTER: u32 = 10;
/// Log odds are cut here.
const MOST_ODDS: f64 = 15.0;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    LevelShift,
    ChangedVariance,
    ChangedRelation,
    Drift,
    Spike,
    Drop,
}

impl Label {
    /// Those that go on over rows.
    const LASTING: [Self; 4] = [Self::LevelShift, Self::ChangedVariance, Self::ChangedRelation, Self::Drift];

    /// What the most suspicious field does.
    pub(super) fn of(taken: &Taken) -> Self {
        let Taken { distance, unexplained, roughness, .. } = taken;
        // Twice as rough or half as rough, and no farther than the scatter explains.
        let explained = 2.0 * roughness.max(1.0);
        if roughness.ln().abs() > 0.7 && distance.abs() < explained && unexplained.abs() < explained {
            Self::ChangedVariance
        } else if unexplained.abs() > 1.5 * distance.abs() {
            Self::ChangedRelation
        } else {
            Self::LevelShift
        }
    }

    /// What a leap is told as.
    pub(super) fn of_leap(leap: &Leap) -> Self {
        if leap.ratio > 0.0 { Self::Spike } else { Self::Drop }
    }

    /// None, or one of those that last.
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, ModelError> {
        let label = usize::from(reader.u8()?);
        if label > Self::LASTING.len() {
            return Err(reader.damaged("a label is out of range"));
        }
        Ok(label.checked_sub(1).and_then(|label| Self::LASTING.get(label).copied()))
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::LevelShift => "level_shift",
            Self::ChangedVariance => "changed_variance",
            Self::ChangedRelation => "changed_relation",
            Self::Drift => "drift",
            Self::Spike => "spike",
            Self::Drop => "drop",
        }
    }

    pub(super) const fn says(self) -> &'static str {
        match self {
            Self::LevelShift => "leaves its usual level",
            Self::ChangedVariance => "scatters differently than usual",
            Self::ChangedRelation => "no longer goes with the other fields as it used to",
            Self::Drift => "moves slowly away from what the other fields say",
            Self::Spike => "leaps up for a row, farther than it ever did",
            Self::Drop => "leaps down for a row, farther than it ever did",
        }
    }
}

/// From the fields' log odds to one alarm an incident.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alarm {
    pub(super) of_card: f64,
    /// The card's, or raised by feedback.
    pub(super) threshold: f64,
    /// Log odds of a row, averaged; `None` before the first.
    odds: Option<f64>,
    /// `−ln(1 − p)` of each field, averaged.
    pub(super) suspicion: Vec<f64>,
    /// What the network's alarm that goes on was raised for.
    pub(super) label: Option<Label>,
    /// What is told of a relation that is not whole.
    pub(super) parted: Option<Label>,
    calm: Calm,
}

/// Rows since what is told was there last, for what is another one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Calm {
    alarm: u32,
    parting: u32,
    spike: u32,
    drop: u32,
}

/// Counts a row; whether it is the first with it after `least` without.
fn begins(calm: &mut u32, is_there: bool, least: u32) -> bool {
    let before = std::mem::replace(calm, if is_there { 0 } else { calm.saturating_add(1) });
    is_there && before >= least
}

impl Alarm {
    pub(super) fn new(fields: usize, threshold: f64) -> Self {
        Self {
            of_card: threshold,
            threshold,
            odds: None,
            suspicion: vec![0.0; fields],
            label: None,
            parted: None,
            calm: Calm::default(),
        }
    }

    /// The network's score of a row; afterwards `label` says whether it is flagged and as what.
    pub(super) fn judge(&mut self, taken: &[Taken], outputs: &[f32]) -> f64 {
        let mut sum = 0.0;
        for (taken, output) in taken.iter().zip(outputs) {
            let suspicion = f64::from(*output).clamp(-MOST_ODDS, MOST_ODDS).exp().ln_1p();
            self.suspicion[taken.field] += (suspicion - self.suspicion[taken.field]) / SMOOTHED;
            sum += suspicion;
        }
        // 1 − Π(1 − p) as log odds.
        let row = sum.exp_m1().ln().clamp(-MOST_ODDS, MOST_ODDS);
        let odds = self.odds.map_or(row, |odds| odds + (row - odds) / SMOOTHED);
        self.odds = Some(odds);
        let begins_at = (self.threshold / (1.0 - self.threshold)).ln();
        let score = 1.0 / (1.0 + (-odds).exp());
        match self.label {
            None if odds >= begins_at => {
                let first = taken.iter().max_by(|a, b| self.suspicion[a.field].total_cmp(&self.suspicion[b.field]));
                self.label = first.map(Label::of);
                score.max(self.threshold)
            }
            None => score.min(self.of_card.next_down()),
            Some(_) if odds < begins_at - HYSTERESIS => {
                self.label = None;
                score
            }
            Some(_) => score.max(self.threshold),
        }
    }

    /// Counts a row once it is judged, with the leap that it is; whether what is told of the network, of a relation and of a leap is another one.
    pub(super) fn count(&mut self, leap: Option<Label>) -> [bool; 3] {
        let Self { calm, label, parted, .. } = self;
        // A parting says the same and more than an alarm.
        let is_alarm = begins(&mut calm.alarm, label.is_some() || parted.is_some(), OVER_AFTER);
        let is_parting = begins(&mut calm.parting, parted.is_some(), OVER_AFTER);
        let is_spike = begins(&mut calm.spike, leap == Some(Label::Spike), LEAP_OVER_AFTER);
        let is_drop = begins(&mut calm.drop, leap == Some(Label::Drop), LEAP_OVER_AFTER);
        // A relation that breaks may have been told by the network.
        let is_parting = is_parting && (is_alarm || *label != *parted);
        [is_alarm, is_parting, is_spike || is_drop]
    }

    /// The score of evidence that is told from a `ratio` of 1 on, once the threshold is the card's; `None` where the threshold is higher.
    pub(super) fn score_of(&self, ratio: f64) -> Option<f64> {
        let score = 1.0 - (1.0 - self.of_card) / ratio;
        (score >= self.threshold).then_some(score)
    }

    /// The score of a relation while something is told of it; afterwards `parted` says what.
    pub(super) fn part(&mut self, parting: Option<&Parting>) -> Option<f64> {
        let Some(parting) = parting.filter(|parting| parting.ratio >= WHOLE) else {
            self.parted = None;
            return None;
        };
        let score = self.score_of(parting.ratio);
        if self.parted.is_none() && score.is_some() {
            self.parted = Some(if parting.drifts { Label::Drift } else { Label::ChangedRelation });
        }
        self.parted.map(|_| score.unwrap_or(self.threshold))
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u8(u8::from(self.odds.is_some()));
        writer.f64(self.odds.unwrap_or(0.0));
        for label in [self.label, self.parted] {
            writer.u8(label.map_or(0, |label| 1 + label as u8));
        }
        self.suspicion.iter().for_each(|suspicion| writer.f64(*suspicion));
        let Calm { alarm, parting, spike, drop } = self.calm;
        [alarm, parting, spike, drop].into_iter().for_each(|rows| writer.u32(rows));
    }

    /// Reads what a snapshot of `version` says of it; the first knew nothing of relations that part, those up to the third nothing of what
    /// was over.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>, version: u8) -> Result<(), ModelError> {
        let is_known = reader.u8()? == 1;
        self.odds = Some(reader.f64()?).filter(|_| is_known);
        self.label = Label::read(reader)?;
        self.parted = if version >= 2 { Label::read(reader)? } else { None };
        for suspicion in &mut self.suspicion {
            *suspicion = reader.f64()?;
        }
        if version >= 4 {
            let Calm { alarm, parting, spike, drop } = &mut self.calm;
            for rows in [alarm, parting, spike, drop] {
                *rows = reader.u32()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows on which an alarm and a broken relation begin, of rows on which they are told or not.
    fn begun(rows: &[(usize, Option<Label>, Option<Label>)]) -> (Vec<usize>, Vec<usize>) {
        let mut alarm = Alarm::new(2, 0.5);
        let (mut alarms, mut partings, mut row) = (Vec::new(), Vec::new(), 0);
        for (count, label, parted) in rows {
            for _ in 0..*count {
                (alarm.label, alarm.parted) = (*label, *parted);
                let mut writer = Writer::new(4);
                alarm.write(&mut writer);
                let snapshot = writer.finish();
                alarm.read(&mut Reader::new("m", 4, &snapshot).unwrap(), 4).unwrap();
                let [is_alarm, is_parting, is_leap] = alarm.count(None);
                assert!(!is_leap);
                alarms.extend(is_alarm.then_some(row));
                partings.extend(is_parting.then_some(row));
                row += 1;
            }
        }
        (alarms, partings)
    }

    #[test]
    fn what_was_over_for_twenty_rows_begins_again() {
        let shift = Some(Label::LevelShift);
        let rows = [(30, None, None), (5, shift, None), (19, None, None), (5, shift, None), (20, None, None)];
        let rows = [&rows[..], &[(5, shift, None)]].concat();
        assert_eq!(begun(&rows), (vec![30, 79], vec![]));
        let (relation, drift) = (Some(Label::ChangedRelation), Some(Label::Drift));
        let rows = [(30, None, None), (5, relation, None), (5, relation, relation), (5, None, relation)];
        assert_eq!(begun(&rows), (vec![30], vec![]), "the relation was told by the network");
        let rows = [(30, None, None), (5, relation, None), (5, relation, drift), (40, None, None), (5, None, relation)];
        assert_eq!(begun(&rows), (vec![30, 80], vec![35, 80]));
    }
}
