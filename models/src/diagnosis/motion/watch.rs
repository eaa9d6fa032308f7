//! What of a person's activity should be looked at: a fall, hours without a turn, wandering at night.
//!
//! - `fall_suggested`: an epoch's probability of a fall is at the threshold, and within the next two epochs the person lies and does
//!   not walk or stand. Once for each fall.
//! - `immobile`: lying without a turn of 25 degrees for `immobile_hours`; said again every two hours. NICE clinical guideline
//!   179 (2014) has adults at risk of a pressure ulcer turned at least every six hours, those at high risk every four.
//! - `out_of_bed`: between `night_from_hour` and `night_until_hour`, on the feet in two of three epochs after ten minutes of lying.
//!
//! A patch that shows nothing but its own noise is taken off, and its lying still is nobody's.

use std::collections::VecDeque;

use nearside_schemas::Severity;

use super::activity::{ACTIVITIES, Activity, CLASSES};
use super::epoch::{EPOCH_MICROS, Epoch};
use super::{Axes, angle};
use crate::ModelError;
use crate::card::Card;
use crate::row_model::Sighting;
use crate::snapshot::{Reader, Writer};

/// Epochs after a fall that must tell.
const CONFIRM: u8 = 2;
/// A turn in bed: 25 degrees.
const TURN: f64 = 25.0 * std::f64::consts::PI / 180.0;
/// Below this standard deviation on its quietest axis, g, in every epoch for [`OFF_EPOCHS`], nobody breathes under the patch.
const OFF_G: f64 = 0.001_5;
const OFF_EPOCHS: u8 = 6;
/// Epochs of lying before somebody counts as in bed: ten minutes.
const IN_BED: u32 = 60;
/// After a pause this long nothing is known of between, microseconds.
const PAUSE: i64 = 30 * 60 * 1_000_000;
/// Activities that a note sums up: an hour's.
const REMEMBERED: usize = 360;
/// Hours between two findings of one long stillness.
const AGAIN_HOURS: f64 = 2.0;
/// The score at which stillness flags; twice the hours are 1.
const STILL_THRESHOLD: f64 = 0.5;
const HOUR: f64 = 3.6e9;

/// The card's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Settings {
    fall: f64,
    immobile_hours: f64,
    /// From and until, hours of the day where the site is.
    night: (f64, f64),
    utc_offset_hours: f64,
}

impl Settings {
    pub(super) fn of(card: &Card) -> Result<Self, ModelError> {
        Ok(Self {
            fall: card.threshold,
            immobile_hours: card.option("immobile_hours", 4.0, 0.25..=24.0)?,
            night: (
                card.option("night_from_hour", 22.0, 0.0..=24.0)?,
                card.option("night_until_hour", 6.0, 0.0..=24.0)?,
            ),
            utc_offset_hours: card.option("utc_offset_hours", 0.0, -12.0..=14.0)?,
        })
    }

    fn is_night(&self, micros: i64) -> bool {
        let hour = (micros as f64 / HOUR + self.utc_offset_hours).rem_euclid(24.0);
        let (from, until) = self.night;
        if from <= until { (from..until).contains(&hour) } else { hour >= from || hour < until }
    }
}

/// An epoch with what the network says of it.
pub(super) struct Judged<'a> {
    pub(super) epoch: &'a Epoch,
    pub(super) activity: Activity,
    /// The probability of a fall.
    pub(super) fall: f64,
}

/// Something that may have been a fall.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    probability: f64,
    peak: f64,
    before: [f64; 3],
    left: u8,
    lay: bool,
}

/// Lying without a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stillness {
    since: i64,
    reference: [f64; 3],
    largest_turn: f64,
    told: u32,
}

/// What is watched of one person.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Watch {
    settings: Settings,
    last: Option<i64>,
    last_up: [f64; 3],
    score: f64,
    candidate: Option<Candidate>,
    stillness: Option<Stillness>,
    /// Epochs that are not lying, in a row.
    not_lying: u8,
    lying: u32,
    /// Of the last three epochs since bed, a bit where the person was on their feet.
    on_feet: u8,
    off: u8,
    recent: VecDeque<Activity>,
}

impl Watch {
    pub(super) const fn new(settings: Settings) -> Self {
        Self {
            settings,
            last: None,
            last_up: [1.0, 0.0, 0.0],
            score: 0.0,
            candidate: None,
            stillness: None,
            not_lying: 0,
            lying: 0,
            on_feet: 0,
            off: 0,
            recent: VecDeque::new(),
        }
    }

    pub(super) const fn threshold(&self) -> f64 {
        self.settings.fall
    }

    /// The probability of a fall in the last epoch.
    pub(super) const fn score(&self) -> f64 {
        self.score
    }

    pub(super) fn see(&mut self, judged: &Judged<'_>, axes: &Axes, sightings: &mut Vec<Sighting>) {
        let end = judged.epoch.end();
        if self.last.is_some_and(|last| end.saturating_sub(last) > PAUSE) {
            *self = Self { recent: std::mem::take(&mut self.recent), ..Self::new(self.settings) };
        }
        self.score = judged.fall;
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(judged.activity);
        self.off = if judged.epoch.quietest < OFF_G { self.off.saturating_add(1) } else { 0 };
        if self.off >= OFF_EPOCHS {
            (self.candidate, self.stillness, self.lying) = (None, None, 0);
        } else {
            sightings.extend(self.fall(judged, axes));
            sightings.extend(self.still(judged, axes));
            sightings.extend(self.bed(judged, axes));
        }
        (self.last, self.last_up) = (Some(end), judged.epoch.up);
    }

    fn fall(&mut self, judged: &Judged<'_>, axes: &Axes) -> Option<Sighting> {
        let lies = judged.activity == Activity::Lying;
        let is_up = matches!(judged.activity, Activity::Standing | Activity::Walking);
        let Some(candidate) = &mut self.candidate else {
            if judged.fall >= self.settings.fall {
                let (probability, peak) = (judged.fall, judged.epoch.peak);
                self.candidate = Some(Candidate { probability, peak, before: self.last_up, left: CONFIRM, lay: false });
            }
            return None;
        };
        candidate.probability = candidate.probability.max(judged.fall);
        candidate.peak = candidate.peak.max(judged.epoch.peak);
        candidate.lay |= lies;
        candidate.left -= 1;
        let candidate = *candidate;
        if is_up {
            self.candidate = None;
            return None;
        }
        if candidate.left > 0 {
            return None;
        }
        self.candidate = None;
        candidate.lay.then(|| self.fall_sighting(&candidate, judged.epoch.up, axes))
    }

    fn fall_sighting(&self, candidate: &Candidate, up: [f64; 3], axes: &Axes) -> Sighting {
        // An impact may lie between two samples; 1 g is standing still.
        let peak = if candidate.peak > 1.5 {
            format!("an impact with a peak of {:.1} g; ", candidate.peak)
        } else {
            String::new()
        };
        let note = format!(
            "{peak}{:.0} % likely a fall by the network; the trunk turned by {:.0} degrees; {}",
            100.0 * candidate.probability,
            angle(candidate.before, up).to_degrees(),
            self.hour_in_words()
        );
        let shares = std::array::from_fn(|axis| (up[axis] - candidate.before[axis]).powi(2));
        Sighting {
            label: "fall_suggested",
            begins: true,
            severity: Severity::Critical,
            score: candidate.probability,
            contributions: axes.contributions(up, Some(candidate.before), shares, note),
            text: String::from(
                "The movement suggests a fall: an impact, and the person has lain since. Suggests that someone goes and looks now.",
            ),
        }
    }

    fn still(&mut self, judged: &Judged<'_>, axes: &Axes) -> Option<Sighting> {
        let (up, end) = (judged.epoch.up, judged.epoch.end());
        self.not_lying = if judged.activity == Activity::Lying { 0 } else { self.not_lying.saturating_add(1) };
        if self.not_lying >= 2 {
            self.stillness = None;
            return None;
        }
        // An odd epoch among lying ones changes nothing.
        if self.not_lying > 0 {
            return None;
        }
        let begins = Stillness { since: judged.epoch.number * EPOCH_MICROS, reference: up, largest_turn: 0.0, told: 0 };
        let stillness = self.stillness.get_or_insert(begins);
        let turn = angle(stillness.reference, up);
        if turn > TURN {
            *stillness = begins;
        }
        stillness.largest_turn = stillness.largest_turn.max(turn.min(TURN));
        let hours = end.saturating_sub(stillness.since) as f64 / HOUR;
        let limit = self.settings.immobile_hours;
        if hours < limit + AGAIN_HOURS * f64::from(stillness.told) {
            return None;
        }
        stillness.told += 1;
        let stillness = *stillness;
        let note = format!(
            "no turn of 25 degrees in {hours:.1} h, the largest was {:.0}; {}",
            stillness.largest_turn.to_degrees(),
            self.hour_in_words()
        );
        Some(Sighting {
            label: "immobile",
            begins: stillness.told == 1,
            severity: Severity::Warning,
            score: (STILL_THRESHOLD * hours / limit).min(1.0),
            contributions: axes.contributions(up, Some(stillness.reference), up.map(|value| value * value), note),
            text: format!("No turn in bed for {hours:.1} h: suggests to help with one, and to look at the skin."),
        })
    }

    fn bed(&mut self, judged: &Judged<'_>, axes: &Axes) -> Option<Sighting> {
        if judged.activity == Activity::Lying {
            (self.lying, self.on_feet) = (self.lying.saturating_add(1), 0);
            return None;
        }
        if self.lying < IN_BED {
            self.lying = 0;
            return None;
        }
        let is_up = matches!(judged.activity, Activity::Standing | Activity::Walking);
        self.on_feet = (self.on_feet << 1 | u8::from(is_up)) & 0b111;
        if self.on_feet.count_ones() < 2 {
            return None;
        }
        let minutes = i64::from(self.lying) * EPOCH_MICROS / 60_000_000;
        (self.lying, self.on_feet) = (0, 0);
        if !self.settings.is_night(judged.epoch.end()) {
            return None;
        }
        let up = judged.epoch.up;
        let note = format!("on the feet after {minutes} min in bed; {}", self.hour_in_words());
        let shares = std::array::from_fn(|axis| (up[axis] - self.last_up[axis]).powi(2) + 0.01);
        Some(Sighting {
            label: "out_of_bed",
            begins: true,
            severity: Severity::Warning,
            score: 1.0,
            contributions: axes.contributions(up, None, shares, note),
            text: String::from("Out of bed at night: suggests that someone looks whether help is needed."),
        })
    }

    /// The last hour's activities, in words.
    fn hour_in_words(&self) -> String {
        let mut counts = [0_usize; CLASSES];
        self.recent.iter().for_each(|activity| counts[*activity as usize] += 1);
        let shares = ACTIVITIES.iter().zip(counts).filter(|(_, count)| *count > 0);
        let shares: Vec<String> = shares
            .map(|(activity, count)| {
                format!("{} {:.0} %", activity.as_str(), 100.0 * count as f64 / self.recent.len() as f64)
            })
            .collect();
        format!("the last hour: {}", shares.join(", "))
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u8(u8::from(self.last.is_some()));
        writer.i64(self.last.unwrap_or(0));
        self.last_up.iter().chain([&self.score]).for_each(|value| writer.f64(*value));
        writer.u8(u8::from(self.candidate.is_some()));
        if let Some(candidate) = &self.candidate {
            [candidate.probability, candidate.peak]
                .iter()
                .chain(&candidate.before)
                .for_each(|value| writer.f64(*value));
            [candidate.left, u8::from(candidate.lay)].into_iter().for_each(|value| writer.u8(value));
        }
        writer.u8(u8::from(self.stillness.is_some()));
        if let Some(stillness) = &self.stillness {
            writer.i64(stillness.since);
            stillness.reference.iter().chain([&stillness.largest_turn]).for_each(|value| writer.f64(*value));
            writer.u32(stillness.told);
        }
        [self.not_lying, self.on_feet, self.off].into_iter().for_each(|value| writer.u8(value));
        writer.u32(self.lying);
        writer.u32(self.recent.len() as u32);
        self.recent.iter().for_each(|activity| writer.u8(*activity as u8));
    }

    pub(super) fn read(settings: Settings, reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut watch = Self::new(settings);
        let is_there = reader.u8()? != 0;
        let last = reader.i64()?;
        watch.last = is_there.then_some(last);
        watch.last_up = [reader.f64()?, reader.f64()?, reader.f64()?];
        watch.score = reader.f64()?;
        if reader.u8()? != 0 {
            let (probability, peak) = (reader.f64()?, reader.f64()?);
            let before = [reader.f64()?, reader.f64()?, reader.f64()?];
            let (left, lay) = (reader.u8()?.clamp(1, CONFIRM), reader.u8()? != 0);
            watch.candidate = Some(Candidate { probability, peak, before, left, lay });
        }
        if reader.u8()? != 0 {
            let since = reader.i64()?;
            let reference = [reader.f64()?, reader.f64()?, reader.f64()?];
            watch.stillness = Some(Stillness { since, reference, largest_turn: reader.f64()?, told: reader.u32()? });
        }
        (watch.not_lying, watch.on_feet, watch.off) = (reader.u8()?, reader.u8()?, reader.u8()?);
        watch.lying = reader.u32()?;
        for _ in 0..reader.count(REMEMBERED)? {
            let number = usize::from(reader.u8()?);
            let activity = ACTIVITIES.get(number).ok_or_else(|| reader.damaged("an activity is out of range"))?;
            watch.recent.push_back(*activity);
        }
        Ok(watch)
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
