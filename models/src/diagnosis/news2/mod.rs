//! NEWS2, the National Early Warning Score 2 (Royal College of Physicians, London 2017).
//!
//! Seven observations give 0 to 3 points each (supplemental oxygen 0 or 2); the total, 0 to 20, and any single
//! observation at 3 say how urgently a clinician should look. The points stand in [`chart`].
//!
//! Fields are found by name: `heart_rate`, `respiration`, `spo2` (%), `oxygen` (0 air, 1 oxygen), `systolic`,
//! `temperature` (°C), `consciousness` (text `A C V P U`, or a number: 0 alert, 1 not). `spo2_scale` (1 or 2) is a
//! clinician's choice for one patient, so it is a field of the stream and not an option of the site; it holds until
//! another comes, and scale 1 counts until one came. Any value but 1 and 2 is passed over.
//!
//! Messages may be partial: an observation is carried forward for [`MEASURED_FOR`], what a person enters for [`ENTERED_FOR`].
//! A missing observation counts 0 points and is named: the total is then a lower bound, so a flag stays right. A value
//! outside what a living patient can have is a fault of the sensor, and counts as missing rather than as points.
//! Values between two steps of the chart are rounded to its steps: whole numbers, tenths of a degree.
//!
//! A class is over once totals were below it for [`CALM_MINUTES`]; what comes after is another one.
//!
//! How the total moved over the last hours stands in every finding's words ([`trend`]); a rise of itself is a finding,
//! `news2_rising`, only while the total has no urgent word of its own.

pub mod chart;
pub(crate) mod observations;
mod trend;

use std::collections::VecDeque;

use nearside_schemas::{Contribution, FieldName, FieldSpec, ModelRef, Severity, Timestamp};

use self::observations::{ALL, Known, Observation, SCORED, Spo2, accepts, columns, read};
pub use self::observations::{ENTERED_FOR, MEASURED_FOR};
use self::trend::{Course, Seen, Trend, TrendSettings};
use crate::ModelError;
use crate::card::Card;
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting};
use crate::snapshot::{Reader, Writer};
use crate::spell::Spell;

/// The largest total.
pub const MAX_TOTAL: u32 = 20;
/// Minutes of totals below a class after which one that reaches it is another one.
pub const CALM_MINUTES: i64 = 10;
const CALM: i64 = CALM_MINUTES * 60_000_000;
/// Version 1 had no trend, version 2 did not know what was over.
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=3;

/// NEWS2 as a row model.
pub struct News2 {
    reference: ModelRef,
    /// The score, total / 20, from which on an aggregate flags; a single observation at 3 flags below it.
    threshold: f64,
    trend: TrendSettings,
}

impl News2 {
    /// With the version, threshold and options of the card; fails where an option makes no sense.
    pub fn new(card: &Card) -> Result<Self, ModelError> {
        Ok(Self { reference: card.reference(), threshold: card.threshold, trend: TrendSettings::of(card)? })
    }

    fn state(&self, fields: &[FieldSpec]) -> News2State {
        News2State {
            columns: columns(fields),
            known: Known::default(),
            threshold: self.threshold,
            trend: Trend::new(self.trend),
            spells: [Spell::default(); Class::ALL.len()],
            pending: VecDeque::new(),
        }
    }
}

impl RowModel for News2 {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        accepts(fields, &self.reference)
    }

    fn new_state(&self, fields: &[FieldSpec]) -> Box<dyn RowState> {
        Box::new(self.state(fields))
    }

    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        let mut state = self.state(fields);
        let (mut reader, version) = Reader::of_versions(self.reference.name.as_str(), VERSIONS, snapshot)?;
        state.known = Known::read(&mut reader)?;
        if version > 1 {
            state.trend = Trend::read(self.trend, &mut reader)?;
        }
        if version > 2 {
            for spell in &mut state.spells {
                *spell = Spell::read(&mut reader)?;
            }
        }
        reader.finish()?;
        Ok(Box::new(state))
    }
}

/// What is known of one patient: at most one value an observation, and how the total moved.
struct News2State {
    columns: [Option<usize>; ALL],
    known: Known,
    threshold: f64,
    trend: Trend,
    /// Of each class: that or a higher one.
    spells: [Spell; Class::ALL.len()],
    pending: VecDeque<(Timestamp, [Option<f64>; ALL])>,
}

impl News2State {
    fn verdict(&mut self, time: Timestamp) -> RowVerdict {
        let points = SCORED.map(|observation| (observation, self.known.points(observation)));
        let total: u32 = points.iter().filter_map(|(_, points)| *points).sum();
        let score = f64::from(total) / f64::from(MAX_TOTAL);
        let single = points.iter().any(|(_, points)| *points == Some(3));
        let class = Class::of(total, single, self.threshold);
        let scale_2 = self.known.is_scale_2();
        let seen = Seen { time, total, points: points.map(|(_, points)| points), scale_2, is_urgent: class.is_some() };
        let course = self.trend.observe(&seen);
        let reached = class.or(course.rise.as_ref().map(|_| Class::Rising));
        for (spell, class) in self.spells.iter_mut().zip(Class::ALL) {
            spell.see(time.as_micros(), reached.is_some_and(|reached| reached >= class), CALM);
        }
        let class = match (class, &course.rise) {
            (Some(class), _) => class,
            (None, Some(rise)) if rise.is_new => Class::Rising,
            (None, _) => return RowVerdict { score, threshold: self.threshold, ..RowVerdict::default() },
        };
        let threshold = match (class, &course.rise) {
            (Class::Rising, Some(rise)) => rise.flags_from / f64::from(MAX_TOTAL),
            _ => class.threshold(self.threshold),
        };
        // Those below it are told with it: on the way back they are nothing new.
        let told = self.spells.iter_mut().zip(Class::ALL).filter(|(_, other)| *other <= class);
        let begins = told.map(|(spell, _)| spell.tell()).fold(false, |_, of_class| of_class);
        let sighting = Sighting {
            label: class.label(),
            begins,
            severity: class.severity(),
            score,
            contributions: self.contributions(&points, &course),
            text: self.text(class, total, &points, &course),
        };
        RowVerdict { score, threshold, flagged: true, sightings: vec![sighting] }
    }

    fn contributions(&self, points: &[(Observation, Option<u32>); 7], course: &Course) -> Vec<Contribution> {
        let mut parts: Vec<Contribution> = points
            .iter()
            .filter_map(|(observation, points)| {
                let points = points.as_ref()?;
                Some(Contribution {
                    field: FieldName::new(observation.field()).ok()?,
                    seen: self.known.value(*observation)?,
                    expected: None,
                    band: None,
                    share: f64::from(*points),
                    note: self.note(*observation, *points, course),
                })
            })
            .collect();
        // Stable, so parts with equal points stay in the order of the chart.
        parts.sort_by(|a, b| b.share.total_cmp(&a.share));
        parts
    }

    fn note(&self, observation: Observation, points: u32, course: &Course) -> Option<String> {
        let mut notes = Vec::new();
        if observation == Spo2 && self.known.is_scale_2() {
            notes.push(String::from("scale 2"));
        }
        if let Some(age) = self.known.age(observation).filter(|age| !age.is_zero()) {
            notes.push(format!("observed {} s earlier", age.as_secs()));
        }
        let low = course.rise.as_ref().and_then(|rise| Some((rise.points[observation as usize]?, rise.minutes_ago)));
        if let Some((before, minutes)) = low.filter(|(before, _)| *before < points) {
            notes.push(format!("{before} points {} before", trend::span_in_words(minutes)));
        }
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    fn text(&self, class: Class, total: u32, points: &[(Observation, Option<u32>); 7], course: &Course) -> String {
        let missing: Vec<&str> = points.iter().filter(|(_, p)| p.is_none()).map(|(o, _)| o.field()).collect();
        let at_least = if missing.is_empty() { "" } else { "at least " };
        let threes: Vec<&str> = points.iter().filter(|(_, p)| *p == Some(3)).map(|(o, _)| o.field()).collect();
        let mut text = format!("NEWS2 total {at_least}{total} of {MAX_TOTAL}");
        if !threes.is_empty() {
            text += &format!(" with 3 points for {}", threes.join(", "));
        }
        text += class.suggestion();
        text += &course.in_words();
        if !missing.is_empty() {
            text += &format!(" Not known: {}.", missing.join(", "));
        }
        text
    }
}

impl RowState for News2State {
    fn take(&mut self, row: &Row<'_>, _inputs: &mut Vec<f32>) -> usize {
        self.pending.push_back((row.time, read(&self.columns, row.values)));
        0
    }

    fn judge(&mut self, _outputs: &[f32]) -> RowVerdict {
        match self.pending.pop_front() {
            Some((time, values)) => {
                self.known.learn(time, &values);
                self.verdict(time)
            }
            None => RowVerdict { threshold: self.threshold, ..RowVerdict::default() },
        }
    }

    fn skip(&mut self) {
        if let Some((time, values)) = self.pending.pop_front() {
            self.known.learn(time, &values);
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(*VERSIONS.end());
        self.known.write(&mut writer);
        self.trend.write(&mut writer);
        self.spells.iter().for_each(|spell| spell.write(&mut writer));
        writer.finish()
    }
}

/// The clinical risk that a total stands for, from the chart's thresholds and triggers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    /// No urgent word of the chart's, and well above what it was.
    Rising,
    LowMedium,
    Medium,
    High,
}

impl Class {
    /// The least urgent first.
    const ALL: [Self; 4] = [Self::Rising, Self::LowMedium, Self::Medium, Self::High];
    const HIGH_FROM: u32 = 7;
    const SINGLE: u32 = 3;

    fn of(total: u32, single_three: bool, threshold: f64) -> Option<Self> {
        if total >= Self::HIGH_FROM {
            Some(Self::High)
        } else if f64::from(total) / f64::from(MAX_TOTAL) >= threshold {
            Some(Self::Medium)
        } else {
            single_three.then_some(Self::LowMedium)
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Rising => "news2_rising",
            Self::LowMedium => "news2_low_medium",
            Self::Medium => "news2_medium",
            Self::High => "news2_high",
        }
    }

    const fn severity(self) -> Severity {
        match self {
            Self::Rising | Self::LowMedium | Self::Medium => Severity::Warning,
            Self::High => Severity::Critical,
        }
    }

    /// The score from which on this class is reached.
    fn threshold(self, medium: f64) -> f64 {
        match self {
            Self::Rising | Self::LowMedium => f64::from(Self::SINGLE) / f64::from(MAX_TOTAL),
            Self::Medium => medium,
            Self::High => f64::from(Self::HIGH_FROM) / f64::from(MAX_TOTAL),
        }
    }

    const fn suggestion(self) -> &'static str {
        match self {
            Self::Rising => ": a rise suggests a prompt review by a registered nurse, and observations more often.",
            Self::LowMedium => ": suggests an urgent ward-based review.",
            Self::Medium => ": suggests an urgent review by a clinician skilled in acute illness.",
            Self::High => ": suggests an emergency assessment by a critical-care team.",
        }
    }
}

#[cfg(test)]
mod tests;
