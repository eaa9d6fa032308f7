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

use std::collections::VecDeque;
use std::time::Duration;

use nearside_schemas::{Contribution, FieldKind, FieldName, FieldSpec, FieldValue, ModelRef, Severity, Timestamp};

use crate::ModelError;
use crate::card::Card;
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting};
use crate::snapshot::{Reader, Writer};

/// How long a measured value counts without a new one.
pub const MEASURED_FOR: Duration = Duration::from_secs(3_600);
/// How long oxygen and consciousness, which a person enters, count without a new entry: the longest interval between
/// observations that the chart's guidance allows.
pub const ENTERED_FOR: Duration = Duration::from_secs(12 * 3_600);
/// The largest total.
pub const MAX_TOTAL: u32 = 20;
/// A stream with fewer of the seven observations says too little to be worth a score.
const LEAST_OBSERVATIONS: usize = 3;

const VERSION: u8 = 1;

/// One of the seven observations, in the order of the chart; the last is the choice of scale, which has no points.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Observation {
    Respiration,
    Spo2,
    Oxygen,
    Systolic,
    HeartRate,
    Consciousness,
    Temperature,
    Spo2Scale,
}

use Observation::{Consciousness, HeartRate, Oxygen, Respiration, Spo2, Spo2Scale, Systolic, Temperature};

/// The observations with points.
const SCORED: [Observation; 7] = [Respiration, Spo2, Oxygen, Systolic, HeartRate, Consciousness, Temperature];
/// All, each at the index that is its number as an enumeration.
const OBSERVATIONS: [Observation; ALL] =
    [Respiration, Spo2, Oxygen, Systolic, HeartRate, Consciousness, Temperature, Spo2Scale];
const ALL: usize = 8;

impl Observation {
    const fn field(self) -> &'static str {
        match self {
            Respiration => "respiration",
            Spo2 => "spo2",
            Oxygen => "oxygen",
            Systolic => "systolic",
            HeartRate => "heart_rate",
            Consciousness => "consciousness",
            Temperature => "temperature",
            Spo2Scale => "spo2_scale",
        }
    }

    /// The unit that the chart has, as UCUM writes it and as people do, where a field that states another one would be scored wrong.
    const fn units(self) -> &'static [&'static str] {
        match self {
            Respiration => &["/min", "1/min", "breaths/min", "{breaths}/min", "rpm", "min-1"],
            HeartRate => &["/min", "1/min", "bpm", "beats/min", "{beats}/min", "min-1"],
            Spo2 => &["%", "percent"],
            Systolic => &["mm[Hg]", "mmHg", "mm Hg"],
            Temperature => &["Cel", "°C", "℃", "C", "degC", "celsius"],
            Oxygen | Consciousness | Spo2Scale => &[],
        }
    }

    /// What a living patient can have, in the chart's steps. Outside of it the sensor is wrong.
    fn plausible(self, value: f64) -> bool {
        let (low, high) = match self {
            Respiration => (0.0, 120.0),
            Spo2 => (20.0, 100.0),
            Oxygen | Consciousness => (0.0, 1.0),
            Systolic => (20.0, 350.0),
            HeartRate => (0.0, 400.0),
            Temperature => (20.0, 46.0),
            Spo2Scale => (1.0, 2.0),
        };
        (low..=high).contains(&value)
    }

    /// How long a value counts; `None`: until another comes.
    const fn counts_for(self) -> Option<Duration> {
        match self {
            Spo2Scale => None,
            Oxygen | Consciousness => Some(ENTERED_FOR),
            _ => Some(MEASURED_FOR),
        }
    }

    /// The value in the chart's steps, where it can be read and is plausible.
    fn read(self, value: &FieldValue) -> Option<f64> {
        let number = match value {
            FieldValue::Missing => return None,
            FieldValue::Number(number) if self == Temperature => (number * 10.0).round() / 10.0,
            FieldValue::Number(number) => number.round(),
            FieldValue::Text(text) if self == Consciousness => avpu(text.expose())?,
            FieldValue::Text(_) => return None,
        };
        self.plausible(number).then_some(number)
    }
}

/// 0 for alert, 1 for new confusion, voice, pain or unresponsive; `None` for anything else.
fn avpu(text: &str) -> Option<f64> {
    match text.trim() {
        "A" | "a" => Some(0.0),
        "C" | "c" | "V" | "v" | "P" | "p" | "U" | "u" => Some(1.0),
        _ => None,
    }
}

/// The points of the NEWS2 chart, for values in the chart's steps.
pub mod chart {
    /// Breaths a minute.
    pub fn respiration(rate: f64) -> u32 {
        match rate {
            r if r <= 8.0 => 3,
            r if r <= 11.0 => 1,
            r if r <= 20.0 => 0,
            r if r <= 24.0 => 2,
            _ => 3,
        }
    }

    /// Oxygen saturation in %, scale 1.
    pub fn spo2_scale_1(percent: f64) -> u32 {
        match percent {
            p if p <= 91.0 => 3,
            p if p <= 93.0 => 2,
            p if p <= 95.0 => 1,
            _ => 0,
        }
    }

    /// Oxygen saturation in %, scale 2 (target 88 to 92 %): above the target it counts only on oxygen.
    pub fn spo2_scale_2(percent: f64, on_oxygen: bool) -> u32 {
        match percent {
            p if p <= 83.0 => 3,
            p if p <= 85.0 => 2,
            p if p <= 87.0 => 1,
            p if p <= 92.0 || !on_oxygen => 0,
            p if p <= 94.0 => 1,
            p if p <= 96.0 => 2,
            _ => 3,
        }
    }

    /// Supplemental oxygen.
    pub fn oxygen(on_oxygen: bool) -> u32 {
        if on_oxygen { 2 } else { 0 }
    }

    /// Systolic blood pressure in mmHg.
    pub fn systolic(pressure: f64) -> u32 {
        match pressure {
            p if p <= 90.0 => 3,
            p if p <= 100.0 => 2,
            p if p <= 110.0 => 1,
            p if p <= 219.0 => 0,
            _ => 3,
        }
    }

    /// Beats a minute.
    pub fn heart_rate(rate: f64) -> u32 {
        match rate {
            r if r <= 40.0 => 3,
            r if r <= 50.0 => 1,
            r if r <= 90.0 => 0,
            r if r <= 110.0 => 1,
            r if r <= 130.0 => 2,
            _ => 3,
        }
    }

    /// Alert, or one of new confusion, voice, pain, unresponsive.
    pub fn consciousness(alert: bool) -> u32 {
        if alert { 0 } else { 3 }
    }

    /// Degrees Celsius.
    pub fn temperature(degrees: f64) -> u32 {
        match degrees {
            t if t <= 35.0 => 3,
            t if t <= 36.0 => 1,
            t if t <= 38.0 => 0,
            t if t <= 39.0 => 1,
            _ => 2,
        }
    }
}

/// NEWS2 as a row model.
pub struct News2 {
    reference: ModelRef,
    /// The score, total / 20, from which on an aggregate flags; a single observation at 3 flags below it.
    threshold: f64,
}

impl News2 {
    /// With the version and threshold of the card.
    pub fn new(card: &Card) -> Self {
        Self { reference: card.reference(), threshold: card.threshold }
    }

    fn state(&self, fields: &[FieldSpec]) -> News2State {
        let columns =
            OBSERVATIONS.map(|observation| fields.iter().position(|field| field.name.as_str() == observation.field()));
        News2State {
            columns,
            known: [None; ALL],
            latest: Timestamp::MIN,
            threshold: self.threshold,
            pending: VecDeque::new(),
        }
    }
}

impl RowModel for News2 {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        let unfit = |why: String| Err(ModelError::Unfit { model: self.reference.name.to_string(), why });
        let field = |observation: &Observation| fields.iter().find(|field| field.name.as_str() == observation.field());
        for observation in OBSERVATIONS.iter().filter(|observation| **observation != Consciousness) {
            if field(observation).is_some_and(|field| field.kind != FieldKind::Number) {
                return unfit(format!("the field `{}` must be a number", observation.field()));
            }
        }
        for observation in &SCORED {
            let Some(unit) = field(observation).and_then(|field| field.unit.as_deref()) else { continue };
            let known = observation.units();
            if !known.is_empty() && !known.iter().any(|known| known.eq_ignore_ascii_case(unit)) {
                let name = observation.field();
                return unfit(format!("the field `{name}` is in `{unit}` and must be in `{}`", known[0]));
            }
        }
        let missing: Vec<&str> = SCORED.iter().filter(|o| field(o).is_none()).map(|o| o.field()).collect();
        if SCORED.len() - missing.len() < LEAST_OBSERVATIONS {
            return unfit(format!(
                "it needs at least {LEAST_OBSERVATIONS} of the seven observations; the fields {} are missing (name the fields so)",
                missing.join(", ")
            ));
        }
        Ok(())
    }

    fn new_state(&self, fields: &[FieldSpec]) -> Box<dyn RowState> {
        Box::new(self.state(fields))
    }

    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        let mut state = self.state(fields);
        let mut reader = Reader::new(self.reference.name.as_str(), VERSION, snapshot)?;
        state.latest = Timestamp::from_micros(reader.i64()?);
        for known in &mut state.known {
            if reader.u8()? != 0 {
                *known = Some((Timestamp::from_micros(reader.i64()?), reader.f64()?));
            }
        }
        reader.finish()?;
        Ok(Box::new(state))
    }
}

/// What is known of one patient: at most one value an observation.
struct News2State {
    columns: [Option<usize>; ALL],
    /// When an observation was made, and its value in the chart's steps.
    known: [Option<(Timestamp, f64)>; ALL],
    latest: Timestamp,
    threshold: f64,
    pending: VecDeque<(Timestamp, [Option<f64>; ALL])>,
}

impl News2State {
    /// The value that counts now.
    fn value(&self, observation: Observation) -> Option<f64> {
        let (at, value) = self.known[observation as usize]?;
        let fresh = observation.counts_for().is_none_or(|most| self.latest.since(at) <= most);
        fresh.then_some(value)
    }

    fn points(&self, observation: Observation) -> Option<u32> {
        let value = self.value(observation)?;
        let on_oxygen = self.value(Oxygen).is_some_and(|value| value > 0.0);
        Some(match observation {
            Respiration => chart::respiration(value),
            Spo2 if self.value(Spo2Scale) == Some(2.0) => chart::spo2_scale_2(value, on_oxygen),
            Spo2 => chart::spo2_scale_1(value),
            Oxygen => chart::oxygen(on_oxygen),
            Systolic => chart::systolic(value),
            HeartRate => chart::heart_rate(value),
            Consciousness => chart::consciousness(value == 0.0),
            Temperature => chart::temperature(value),
            Spo2Scale => 0,
        })
    }

    fn learn(&mut self, time: Timestamp, values: &[Option<f64>; ALL]) {
        self.latest = self.latest.max(time);
        for (known, value) in self.known.iter_mut().zip(values) {
            // A late row must not replace what was observed after it.
            if let Some(value) = value
                && known.is_none_or(|(at, _)| at <= time)
            {
                *known = Some((time, *value));
            }
        }
    }

    fn verdict(&self) -> RowVerdict {
        let points = SCORED.map(|observation| (observation, self.points(observation)));
        let total: u32 = points.iter().filter_map(|(_, points)| *points).sum();
        let score = f64::from(total) / f64::from(MAX_TOTAL);
        let single = points.iter().any(|(_, points)| *points == Some(3));
        let Some(class) = Class::of(total, single, self.threshold) else {
            return RowVerdict { score, threshold: self.threshold, ..RowVerdict::default() };
        };
        let sighting = Sighting {
            label: class.label(),
            severity: class.severity(),
            score,
            contributions: self.contributions(&points),
            text: self.text(class, total, &points),
        };
        let threshold = class.threshold(self.threshold);
        RowVerdict { score, threshold, flagged: true, sightings: vec![sighting] }
    }

    fn contributions(&self, points: &[(Observation, Option<u32>); 7]) -> Vec<Contribution> {
        let mut parts: Vec<Contribution> = points
            .iter()
            .filter_map(|(observation, points)| {
                let points = (*points)?;
                Some(Contribution {
                    field: FieldName::new(observation.field()).ok()?,
                    seen: self.value(*observation)?,
                    expected: None,
                    band: None,
                    share: f64::from(points),
                    note: self.note(*observation),
                })
            })
            .collect();
        // Stable, so parts with equal points stay in the order of the chart.
        parts.sort_by(|a, b| b.share.total_cmp(&a.share));
        parts
    }

    fn note(&self, observation: Observation) -> Option<String> {
        let carried = self.known[observation as usize].filter(|(at, _)| *at < self.latest);
        let mut notes = Vec::new();
        if observation == Spo2 && self.value(Spo2Scale) == Some(2.0) {
            notes.push(String::from("scale 2"));
        }
        if let Some((at, _)) = carried {
            notes.push(format!("observed {} s earlier", self.latest.since(at).as_secs()));
        }
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    fn text(&self, class: Class, total: u32, points: &[(Observation, Option<u32>); 7]) -> String {
        let missing: Vec<&str> = points.iter().filter(|(_, p)| p.is_none()).map(|(o, _)| o.field()).collect();
        let at_least = if missing.is_empty() { "" } else { "at least " };
        let threes: Vec<&str> = points.iter().filter(|(_, p)| *p == Some(3)).map(|(o, _)| o.field()).collect();
        let mut text = format!("NEWS2 total {at_least}{total} of {MAX_TOTAL}");
        if !threes.is_empty() {
            text += &format!(" with 3 points for {}", threes.join(", "));
        }
        text += class.suggestion();
        if !missing.is_empty() {
            text += &format!(" Not known: {}.", missing.join(", "));
        }
        text
    }
}

impl RowState for News2State {
    fn take(&mut self, row: &Row<'_>, _inputs: &mut Vec<f32>) -> usize {
        let values = OBSERVATIONS.map(|observation| {
            let column = self.columns[observation as usize]?;
            observation.read(row.values.get(column)?)
        });
        self.pending.push_back((row.time, values));
        0
    }

    fn judge(&mut self, _outputs: &[f32]) -> RowVerdict {
        if let Some((time, values)) = self.pending.pop_front() {
            self.learn(time, &values);
        }
        self.verdict()
    }

    fn skip(&mut self) {
        if let Some((time, values)) = self.pending.pop_front() {
            self.learn(time, &values);
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.i64(self.latest.as_micros());
        for known in self.known {
            writer.u8(u8::from(known.is_some()));
            if let Some((at, value)) = known {
                writer.i64(at.as_micros());
                writer.f64(value);
            }
        }
        writer.finish()
    }
}

/// The clinical risk that a total stands for, from the chart's thresholds and triggers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    LowMedium,
    Medium,
    High,
}

impl Class {
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
            Self::LowMedium => "news2_low_medium",
            Self::Medium => "news2_medium",
            Self::High => "news2_high",
        }
    }

    const fn severity(self) -> Severity {
        match self {
            Self::LowMedium | Self::Medium => Severity::Warning,
            Self::High => Severity::Critical,
        }
    }

    /// The score from which on this class is reached.
    fn threshold(self, medium: f64) -> f64 {
        match self {
            Self::LowMedium => f64::from(Self::SINGLE) / f64::from(MAX_TOTAL),
            Self::Medium => medium,
            Self::High => f64::from(Self::HIGH_FROM) / f64::from(MAX_TOTAL),
        }
    }

    const fn suggestion(self) -> &'static str {
        match self {
            Self::LowMedium => ": suggests an urgent ward-based review.",
            Self::Medium => ": suggests an urgent review by a clinician skilled in acute illness.",
            Self::High => ": suggests an emergency assessment by a critical-care team.",
        }
    }
}

#[cfg(test)]
#[path = "news2_tests.rs"]
mod tests;
