//! Glucose half an hour ahead, with a band, and a word before it leaves its range. It suggests, it does not diagnose.
//!
//! 1. [`past`]: differences of the last two hours and the day's level become scale-free inputs.
//! 2. A small network (Candle, [`crate::mlp`]), the same for all patients, gives the expected change and its 5 % and 95 % quantiles.
//! 3. The patient's own correction, learnt from forecasts that came due, moves the forecast and widens or narrows the band.
//!
//! Score: the probability, by a normal curve through forecast and band, that glucose is below [`LOW`] (or above [`VERY_HIGH`]) in
//! [`HORIZON_MINUTES`]. `low-glucose-expected` and `high-glucose-expected` are flagged from the threshold on, and only while glucose
//! is still within: what is already outside is for `glucose-range` to say. Another one begins where neither was so for
//! [`super::glucose_range::CALM_MINUTES`].
//!
//! Never: a forecast from less than an hour of readings or across a pause; a value of the patient's in a text.

pub mod past;
mod personal;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Device;
use nearside_schemas::{Contribution, FieldSpec, FieldValue, ModelRef, Severity, Timestamp};

use self::past::{INPUTS, Past, UNIT};
use self::personal::{Personal, TERMS};
use super::glucose_range::{CALM, LOW, PLAUSIBLE, Sensor, VERY_HIGH};
use crate::ModelError;
use crate::card::Card;
use crate::mlp::{Layout, Network};
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting};
use crate::snapshot::{Reader, Writer};
use crate::spell::Spell;

/// The name in the catalogue.
pub const NAME: &str = "glucose-forecast";
/// How far ahead it looks.
pub const HORIZON_MINUTES: i64 = 30;
/// A reading this close to the horizon is what came of a forecast.
pub const TOLERANCE_SECONDS: i64 = 150;
/// The quantiles that are the band.
pub const BAND: [f32; 2] = [0.05, 0.95];
/// The network's outputs: the expected change and the band, in units of [`UNIT`] mg/dL.
pub const OUTPUTS: usize = 3;
/// The network's widths.
pub const LAYOUT: Layout = Layout { model: NAME, inputs: INPUTS, hidden: 32, outputs: OUTPUTS };
/// Standard deviations from the middle of a normal curve to its 95 % quantile.
const DEVIATIONS: f64 = 1.645;
/// Half a band is at least this wide, mg/dL: a sensor is no better.
const LEAST_HALF: f64 = 2.0;
/// Forecasts that wait for what comes of them: half an hour of readings as far apart as they are kept, and some.
const WAITING: usize = 16;
/// Version 1 did not know what was over.
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=2;

const HORIZON: i64 = HORIZON_MINUTES * 60_000_000;
const TOLERANCE: i64 = TOLERANCE_SECONDS * 1_000_000;

/// The forecast as a row model.
pub struct GlucoseForecast {
    reference: ModelRef,
    threshold: f64,
    network: Network,
}

impl GlucoseForecast {
    /// With the version and threshold of the card; fails where the weights are not the network's.
    pub fn new(card: &Card, weights: &[u8]) -> Result<Self, ModelError> {
        let network = Network::load(LAYOUT, weights)?;
        Ok(Self { reference: card.reference(), threshold: card.threshold, network })
    }

    fn state(&self, fields: &[FieldSpec], patient: Patient) -> State {
        let (low, high) = (Spell::default(), Spell::default());
        State { sensor: Sensor::of(fields), threshold: self.threshold, patient, low, high, taken: VecDeque::new() }
    }
}

impl RowModel for GlucoseForecast {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        Sensor::accepts(fields, &self.reference)
    }

    fn input_width(&self) -> usize {
        INPUTS
    }

    fn output_width(&self) -> usize {
        OUTPUTS
    }

    fn new_state(&self, fields: &[FieldSpec]) -> Box<dyn RowState> {
        let patient = Patient { forecaster: PatientForecaster::default(), past: Past::default() };
        Box::new(self.state(fields, patient))
    }

    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        let (mut reader, version) = Reader::of_versions(NAME, VERSIONS, snapshot)?;
        let patient = Patient { past: Past::read(&mut reader)?, forecaster: PatientForecaster::read(&mut reader)? };
        let mut state = self.state(fields, patient);
        if version > 1 {
            (state.low, state.high) = (Spell::read(&mut reader)?, Spell::read(&mut reader)?);
        }
        reader.finish()?;
        Ok(Box::new(state))
    }

    fn on_device(&self, device: &Device) -> Result<Option<Arc<dyn RowModel>>, ModelError> {
        let network = self.network.on_device(device)?;
        let reference = self.reference.clone();
        Ok(Some(Arc::new(Self { reference, threshold: self.threshold, network })))
    }

    fn forward(&self, inputs: &[f32], rows: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        self.network.forward(inputs, rows, outputs)
    }
}

/// Glucose in half an hour, mg/dL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// What is expected.
    pub expected: f64,
    /// Nine of ten readings fall between these.
    pub band: (f64, f64),
}

impl Forecast {
    /// The probability that glucose will be below `limit`.
    pub fn below(&self, limit: f64) -> f64 {
        cumulative(DEVIATIONS * (limit - self.expected) / (self.expected - self.band.0))
    }

    /// The probability that glucose will be above `limit`.
    pub fn above(&self, limit: f64) -> f64 {
        cumulative(DEVIATIONS * (self.expected - limit) / (self.band.1 - self.expected))
    }
}

/// The logistic curve that is nowhere 1 % away from the normal distribution's.
fn cumulative(deviations: f64) -> f64 {
    1.0 / (1.0 + (-1.702 * deviations).exp())
}

/// A reading that waits for its verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Taken {
    time: i64,
    mg_dl: f64,
    /// The patient's own terms, but for the network's forecast; `None` where there is no forecast.
    own: Option<[f64; 4]>,
}

/// Forecasts of one patient from the network's outputs; used by the gateway and by the evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
struct PatientForecaster {
    personal: Personal,
    waiting: VecDeque<Waiting>,
}

/// A forecast that has not come due.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Waiting {
    time: i64,
    mg_dl: f64,
    terms: [f64; TERMS],
    band: (f64, f64),
}

impl PatientForecaster {
    /// Learns from a reading what came of earlier forecasts.
    fn learn(&mut self, time: i64, mg_dl: f64) {
        while let Some(first) = self.waiting.front().copied() {
            let late = time.saturating_sub(first.time).saturating_sub(HORIZON);
            if late < -TOLERANCE {
                return;
            }
            self.waiting.pop_front();
            if late <= TOLERANCE {
                let was_inside = (first.band.0..=first.band.1).contains(&mg_dl);
                self.personal.learn(&first.terms, (mg_dl - first.mg_dl) / UNIT, was_inside);
            }
        }
    }

    /// The forecast from a reading and the network's outputs for it.
    fn forecast(&mut self, time: i64, mg_dl: f64, own: [f64; 4], outputs: [f32; OUTPUTS]) -> Forecast {
        let [change, low, high] = outputs.map(f64::from);
        let [a, b, c, d] = own;
        let terms: [f64; TERMS] = [change, 1.0, a, b, c, d];
        let expected = (mg_dl + UNIT * self.personal.change(&terms)).clamp(*PLAUSIBLE.start(), *PLAUSIBLE.end());
        let half = |distance: f64| (UNIT * distance * self.personal.width()).max(LEAST_HALF);
        let band = (expected - half(change - low), expected + half(high - change));
        let is_apart = self.waiting.back().is_none_or(|last| time.saturating_sub(last.time) >= TOLERANCE);
        if is_apart && self.waiting.len() < WAITING {
            self.waiting.push_back(Waiting { time, mg_dl, terms, band });
        }
        Forecast { expected, band }
    }

    fn write(&self, writer: &mut Writer) {
        self.personal.write(writer);
        writer.u32(self.waiting.len() as u32);
        for waiting in &self.waiting {
            writer.i64(waiting.time);
            let numbers = [waiting.mg_dl, waiting.band.0, waiting.band.1];
            numbers.iter().chain(&waiting.terms).for_each(|value| writer.f64(*value));
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let personal = Personal::read(reader)?;
        let mut waiting = VecDeque::new();
        for _ in 0..reader.count(WAITING)? {
            let (time, mg_dl, band) = (reader.i64()?, reader.f64()?, (reader.f64()?, reader.f64()?));
            let mut terms = [0.0; TERMS];
            for term in &mut terms {
                *term = reader.f64()?;
            }
            waiting.push_back(Waiting { time, mg_dl, terms, band });
        }
        Ok(Self { personal, waiting })
    }
}

/// One patient: what depends on readings alone, and what depends on the network too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patient {
    past: Past,
    forecaster: PatientForecaster,
}

impl Patient {
    /// Takes a reading in mg/dL and appends the network's inputs where there is enough history. `None` for what no living
    /// patient has.
    fn take(&mut self, time: Timestamp, mg_dl: f64, inputs: &mut Vec<f32>) -> Option<Taken> {
        if !PLAUSIBLE.contains(&mg_dl) {
            return None;
        }
        let of_reading = self.past.observe(time, mg_dl);
        if let Some(of_reading) = &of_reading {
            inputs.extend_from_slice(&of_reading.network);
        }
        Some(Taken { time: time.as_micros(), mg_dl, own: of_reading.map(|of_reading| of_reading.own) })
    }

    fn judge(&mut self, taken: Taken, outputs: &[f32]) -> Option<Forecast> {
        self.forecaster.learn(taken.time, taken.mg_dl);
        let outputs = <[f32; OUTPUTS]>::try_from(outputs).ok()?;
        Some(self.forecaster.forecast(taken.time, taken.mg_dl, taken.own?, outputs))
    }
}

/// The forecast of every reading, in order and each from itself and earlier ones alone; `None` where there is too little history.
pub fn forecasts(network: &Network, readings: &[(Timestamp, f64)]) -> Result<Vec<Option<Forecast>>, ModelError> {
    let mut patient = Patient::default();
    let mut inputs = Vec::new();
    let taken: Vec<_> = readings.iter().map(|(time, mg_dl)| patient.take(*time, *mg_dl, &mut inputs)).collect();
    let mut outputs = Vec::new();
    network.forward(&inputs, inputs.len() / INPUTS, &mut outputs)?;
    let mut outputs = outputs.chunks_exact(OUTPUTS);
    let judge = |taken: Option<Taken>| {
        let taken = taken?;
        let own = taken.own.and_then(|_| outputs.next()).unwrap_or_default();
        patient.judge(taken, own)
    };
    Ok(taken.into_iter().map(judge).collect())
}

impl State {
    /// Takes a reading in; whether what is flagged is another one.
    fn begins(&mut self, taken: &Taken, flagged: Option<&Expectation>) -> bool {
        let mut begins = false;
        for (spell, limit, is_outside) in
            [(&mut self.low, LOW, taken.mg_dl < LOW), (&mut self.high, VERY_HIGH, taken.mg_dl > VERY_HIGH)]
        {
            let is_expected = flagged.is_some_and(|expectation| expectation.limit == limit);
            spell.see(taken.time, is_outside || is_expected, CALM);
            // What has come is for others to tell; then it is not expected any more.
            if is_outside || is_expected {
                let is_another = spell.tell();
                begins |= is_another && is_expected;
            }
        }
        begins
    }
}

struct State {
    sensor: Option<Sensor>,
    threshold: f64,
    patient: Patient,
    /// Low and high, expected or there.
    low: Spell,
    high: Spell,
    taken: VecDeque<Option<Taken>>,
}

impl RowState for State {
    fn take(&mut self, row: &Row<'_>, inputs: &mut Vec<f32>) -> usize {
        let value = self.sensor.as_ref().and_then(|sensor| {
            let value = row.values.get(sensor.column).and_then(FieldValue::number)?;
            Some(value * sensor.mg_dl)
        });
        let taken = value.and_then(|mg_dl| self.patient.take(row.time, mg_dl, inputs));
        self.taken.push_back(taken);
        usize::from(taken.is_some_and(|taken| taken.own.is_some()))
    }

    fn judge(&mut self, outputs: &[f32]) -> RowVerdict {
        let mut verdict = RowVerdict { threshold: self.threshold, ..RowVerdict::default() };
        let Some(Some(taken)) = self.taken.pop_front() else { return verdict };
        let Some(forecast) = self.patient.judge(taken, outputs) else { return verdict };
        let expectation = Expectation::of(&forecast, taken.mg_dl);
        let flagged = expectation.filter(|expectation| expectation.probability >= self.threshold);
        let begins = self.begins(&taken, flagged.as_ref());
        let Some(expectation) = expectation else { return verdict };
        verdict.score = expectation.probability;
        verdict.flagged = flagged.is_some();
        if let (true, Some(sensor)) = (verdict.flagged, &self.sensor) {
            verdict.sightings.push(Sighting { begins, ..expectation.sighting(sensor, &taken, &forecast) });
        }
        verdict
    }

    fn skip(&mut self) {
        self.taken.pop_front();
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(*VERSIONS.end());
        self.patient.past.write(&mut writer);
        self.patient.forecaster.write(&mut writer);
        self.low.write(&mut writer);
        self.high.write(&mut writer);
        writer.finish()
    }
}

/// Which limit glucose is more likely to pass, and how likely.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Expectation {
    label: &'static str,
    limit: f64,
    probability: f64,
}

impl Expectation {
    /// `None` where glucose is outside already.
    fn of(forecast: &Forecast, mg_dl: f64) -> Option<Self> {
        if !(LOW..=VERY_HIGH).contains(&mg_dl) {
            return None;
        }
        let low = Self { label: "low-glucose-expected", limit: LOW, probability: forecast.below(LOW) };
        let high = Self { label: "high-glucose-expected", limit: VERY_HIGH, probability: forecast.above(VERY_HIGH) };
        Some(if low.probability >= high.probability { low } else { high })
    }

    /// When the straight line from now to the forecast passes the limit; the horizon where it does not.
    fn lead_minutes(&self, mg_dl: f64, forecast: &Forecast) -> f64 {
        let horizon = HORIZON_MINUTES as f64;
        let share = (self.limit - mg_dl) / (forecast.expected - mg_dl);
        if (0.0..=1.0).contains(&share) { horizon * share } else { horizon }
    }

    fn sighting(&self, sensor: &Sensor, taken: &Taken, forecast: &Forecast) -> Sighting {
        let own = |mg_dl: f64| mg_dl / sensor.mg_dl;
        let side = if self.limit == LOW { "below 70" } else { "above 250" };
        let lead = self.lead_minutes(taken.mg_dl, forecast);
        let pace = taken.own.map_or(0.0, |[_, fifteen, ..]| fifteen * UNIT / 15.0);
        let note = format!(
            "in {HORIZON_MINUTES} minutes; {:.0} % likely {side} mg/dL then; {pace:+.1} mg/dL a minute over the last 15 minutes",
            100.0 * self.probability
        );
        Sighting {
            label: self.label,
            begins: false,
            severity: Severity::Warning,
            score: self.probability,
            contributions: vec![Contribution {
                field: sensor.name.clone(),
                seen: own(taken.mg_dl),
                expected: Some(own(forecast.expected)),
                band: Some((own(forecast.band.0), own(forecast.band.1))),
                share: 1.0,
                note: Some(note),
            }],
            text: format!("The course of glucose suggests that it may be {side} mg/dL in about {lead:.0} minutes."),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
