//! The seven observations of the chart: which fields they are, how long a value counts, and the points of what is known.

use std::time::Duration;

use nearside_schemas::{FieldKind, FieldSpec, FieldValue, ModelRef, Timestamp};

use super::chart;
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// How long a measured value counts without a new one.
pub const MEASURED_FOR: Duration = Duration::from_secs(3_600);
/// How long oxygen and consciousness, which a person enters, count without a new entry: the longest interval between
/// observations that the chart's guidance allows.
pub const ENTERED_FOR: Duration = Duration::from_secs(12 * 3_600);
/// A stream with fewer of the seven observations says too little to be worth a score.
const LEAST_OBSERVATIONS: usize = 3;

/// One of the seven observations, in the order of the chart; the last is the choice of scale, which has no points.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Observation {
    Respiration,
    Spo2,
    Oxygen,
    Systolic,
    HeartRate,
    Consciousness,
    Temperature,
    Spo2Scale,
}

pub(crate) use Observation::{Consciousness, HeartRate, Oxygen, Respiration, Spo2, Spo2Scale, Systolic, Temperature};

/// The observations with points.
pub(crate) const SCORED: [Observation; 7] =
    [Respiration, Spo2, Oxygen, Systolic, HeartRate, Consciousness, Temperature];
/// All, each at the index that is its number as an enumeration.
pub(crate) const OBSERVATIONS: [Observation; ALL] =
    [Respiration, Spo2, Oxygen, Systolic, HeartRate, Consciousness, Temperature, Spo2Scale];
pub(crate) const ALL: usize = 8;

impl Observation {
    pub(crate) const fn field(self) -> &'static str {
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

/// Whether a stream has enough of the observations, in the chart's units.
pub(crate) fn accepts(fields: &[FieldSpec], model: &ModelRef) -> Result<(), ModelError> {
    let unfit = |why: String| Err(ModelError::Unfit { model: model.name.to_string(), why });
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

/// The columns of the observations.
pub(crate) fn columns(fields: &[FieldSpec]) -> [Option<usize>; ALL] {
    OBSERVATIONS.map(|observation| fields.iter().position(|field| field.name.as_str() == observation.field()))
}

/// The observations of a row, in the chart's steps.
pub(crate) fn read(columns: &[Option<usize>; ALL], values: &[FieldValue]) -> [Option<f64>; ALL] {
    OBSERVATIONS.map(|observation| {
        let column = columns[observation as usize]?;
        observation.read(values.get(column)?)
    })
}

/// What is known of one patient: at most one value an observation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    /// When an observation was made, and its value in the chart's steps.
    values: [Option<(Timestamp, f64)>; ALL],
    latest: Timestamp,
}

impl Default for Known {
    fn default() -> Self {
        Self { values: [None; ALL], latest: Timestamp::MIN }
    }
}

impl Known {
    /// Takes the observations of a row in.
    pub(crate) fn learn(&mut self, time: Timestamp, values: &[Option<f64>; ALL]) {
        self.latest = self.latest.max(time);
        for (known, value) in self.values.iter_mut().zip(values) {
            // A late row must not replace what was observed after it.
            if let Some(value) = value
                && known.is_none_or(|(at, _)| at <= time)
            {
                *known = Some((time, *value));
            }
        }
    }

    /// The value that counts now.
    pub(crate) fn value(&self, observation: Observation) -> Option<f64> {
        let (at, value) = self.values[observation as usize]?;
        let fresh = observation.counts_for().is_none_or(|most| self.latest.since(at) <= most);
        fresh.then_some(value)
    }

    /// How long before the latest row an observation was made.
    pub(crate) fn age(&self, observation: Observation) -> Option<Duration> {
        self.values[observation as usize].map(|(at, _)| self.latest.since(at))
    }

    /// Whether a clinician chose saturation scale 2.
    pub(crate) fn is_scale_2(&self) -> bool {
        self.value(Spo2Scale) == Some(2.0)
    }

    /// The points of an observation; `None` where it is not known.
    pub(crate) fn points(&self, observation: Observation) -> Option<u32> {
        let value = self.value(observation)?;
        let on_oxygen = self.value(Oxygen).is_some_and(|value| value > 0.0);
        Some(match observation {
            Respiration => chart::respiration(value),
            Spo2 if self.is_scale_2() => chart::spo2_scale_2(value, on_oxygen),
            Spo2 => chart::spo2_scale_1(value),
            Oxygen => chart::oxygen(on_oxygen),
            Systolic => chart::systolic(value),
            HeartRate => chart::heart_rate(value),
            Consciousness => chart::consciousness(value == 0.0),
            Temperature => chart::temperature(value),
            Spo2Scale => 0,
        })
    }

    /// The total of what is known.
    pub(crate) fn total(&self) -> u32 {
        SCORED.iter().filter_map(|observation| self.points(*observation)).sum()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.i64(self.latest.as_micros());
        for known in self.values {
            writer.u8(u8::from(known.is_some()));
            if let Some((at, value)) = known {
                writer.i64(at.as_micros());
                writer.f64(value);
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut known = Self { latest: Timestamp::from_micros(reader.i64()?), ..Self::default() };
        for value in &mut known.values {
            if reader.u8()? != 0 {
                *value = Some((Timestamp::from_micros(reader.i64()?), reader.f64()?));
            }
        }
        Ok(known)
    }
}
