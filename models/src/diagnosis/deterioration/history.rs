//! The last four hours of a patient in buckets of ten minutes, and what the network sees of them.
//!
//! A bucket holds the median of each sign, so single wrong readings do not show. A sign that was not measured is carried for an hour
//! (temperature: four) and its lack is an input too.

use std::collections::VecDeque;

use nearside_schemas::Timestamp;

use crate::ModelError;
use crate::diagnosis::news2::observations::{
    ALL, Consciousness, HeartRate, Known, Observation, Oxygen, Respiration, SCORED, Spo2, Systolic, Temperature,
};
use crate::snapshot::{Reader, Writer};

/// Numbers that the network sees.
pub const INPUTS: usize = 6 * SIGNS.len() + 9;
/// The signs with a course.
const SIGNS: [Observation; 5] = [HeartRate, Respiration, Spo2, Systolic, Temperature];
/// What a contribution can be of.
pub(crate) const OMITTED: [Observation; 7] =
    [HeartRate, Respiration, Spo2, Systolic, Temperature, Oxygen, Consciousness];
/// An unremarkable value of each sign, and what counts as one step from it.
const CENTRE: [f64; 5] = [80.0, 17.0, 96.0, 125.0, 36.9];
const UNIT: [f64; 5] = [20.0, 5.0, 3.0, 20.0, 0.8];
/// A bucket, microseconds.
const BUCKET: i64 = 600_000_000;
/// Buckets that are kept: four hours.
const KEPT: usize = 24;
/// Buckets of an hour.
const HOURLY: usize = 6;
/// A forecast needs this many.
const LEAST: usize = 6;
/// Readings of a bucket whose median counts; further ones are not looked at.
const MOST_READINGS: usize = 64;
/// What an unremarkable sign scatters within an hour, in units.
const USUAL_SPREAD: f64 = 0.1;

/// Ten minutes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    number: i64,
    /// The medians, in the order of [`SIGNS`].
    values: [Option<f64>; 5],
    /// Points at its end, in the order of the chart.
    points: [Option<u32>; 7],
    oxygen: Option<bool>,
    is_confused: Option<bool>,
}

/// What is known of one patient.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct VitalHistory {
    known: Known,
    open: Option<i64>,
    readings: [Vec<f64>; 5],
    past: VecDeque<Bucket>,
}

/// The patient at the end of a bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The end of the bucket.
    pub at: Timestamp,
    /// NEWS2 of what is known then.
    pub total: u32,
    past: Vec<Bucket>,
}

impl VitalHistory {
    /// Takes the observations of a row and gives the patient at the end of the bucket before, where there is enough and that is not longer
    /// ago than a sign is carried.
    pub(crate) fn push(&mut self, time: Timestamp, values: &[Option<f64>; ALL]) -> Option<Snapshot> {
        let number = time.as_micros().div_euclid(BUCKET);
        if self.open.is_some_and(|open| number < open) {
            return None;
        }
        let ended = self.open.filter(|open| *open < number);
        let snapshot = ended.and_then(|open| self.close(open));
        let is_recent = ended.is_some_and(|open| number - open <= HOURLY as i64);
        self.open = Some(number);
        self.known.learn(time, values);
        for (sign, readings) in SIGNS.iter().zip(&mut self.readings) {
            if let Some(value) = values[*sign as usize]
                && readings.len() < MOST_READINGS
            {
                readings.push(value);
            }
        }
        snapshot.filter(|_| is_recent)
    }

    fn close(&mut self, number: i64) -> Option<Snapshot> {
        let points = SCORED.map(|observation| self.known.points(observation));
        let is = |observation| self.known.value(observation).map(|value| value > 0.0);
        let (oxygen, is_confused) = (is(Oxygen), is(Consciousness));
        let values = self.readings.each_mut().map(|readings| median(std::mem::take(readings)));
        self.past.push_back(Bucket { number, values, points, oxygen, is_confused });
        while self.past.front().is_some_and(|first| number - first.number >= KEPT as i64) {
            self.past.pop_front();
        }
        let total = self.known.total();
        let at = Timestamp::from_micros((number + 1) * BUCKET);
        (self.past.len() >= LEAST).then(|| Snapshot { at, total, past: self.past.iter().copied().collect() })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.known.write(writer);
        writer.u8(u8::from(self.open.is_some()));
        writer.i64(self.open.unwrap_or(0));
        for readings in &self.readings {
            writer.u32(readings.len() as u32);
            readings.iter().for_each(|value| writer.f64(*value));
        }
        let flag = |value: Option<bool>| value.map_or(2, u8::from);
        writer.u32(self.past.len() as u32);
        for bucket in &self.past {
            writer.i64(bucket.number);
            for value in bucket.values {
                writer.u8(u8::from(value.is_some()));
                writer.f32(value.unwrap_or(0.0) as f32);
            }
            bucket.points.iter().for_each(|points| writer.u8(points.map_or(u8::MAX, |points| points as u8)));
            [flag(bucket.oxygen), flag(bucket.is_confused)].into_iter().for_each(|value| writer.u8(value));
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let known = Known::read(reader)?;
        let is_open = reader.u8()? != 0;
        let open = reader.i64()?;
        let mut readings: [Vec<f64>; 5] = Default::default();
        for readings in &mut readings {
            for _ in 0..reader.count(MOST_READINGS)? {
                readings.push(reader.f64()?);
            }
        }
        let mut past = VecDeque::new();
        for _ in 0..reader.count(KEPT)? {
            let number = reader.i64()?;
            let mut values = [None; 5];
            for value in &mut values {
                let is_there = reader.u8()? != 0;
                let number = f64::from(reader.f32()?);
                *value = is_there.then_some(number);
            }
            let mut points = [None; 7];
            for points in &mut points {
                *points = Some(u32::from(reader.u8()?)).filter(|points| *points <= 3);
            }
            let mut flag = || {
                Ok::<_, ModelError>(match reader.u8()? {
                    0 => Some(false),
                    1 => Some(true),
                    _ => None,
                })
            };
            past.push_back(Bucket { number, values, points, oxygen: flag()?, is_confused: flag()? });
        }
        Ok(Self { known, open: is_open.then_some(open), readings, past })
    }
}

/// The middle one, as a number of 32 bits: what a snapshot keeps.
fn median(mut readings: Vec<f64>) -> Option<f64> {
    readings.sort_by(f64::total_cmp);
    let (low, high) = (readings.get(readings.len().checked_sub(1)? / 2)?, readings.get(readings.len() / 2)?);
    Some(f64::from(((low + high) / 2.0) as f32))
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    (count > 0.0).then(|| sum / count)
}

impl Snapshot {
    /// The patient as is, and without each of [`OMITTED`].
    pub fn variants(&self) -> [[f32; INPUTS]; 1 + OMITTED.len()] {
        std::array::from_fn(|variant| self.inputs(variant.checked_sub(1).map(|omitted| OMITTED[omitted])))
    }

    /// Totals of the buckets, oldest first, with how many buckets ago.
    pub fn totals(&self) -> impl Iterator<Item = (i64, u32)> {
        let last = self.last();
        self.past.iter().map(move |bucket| (last - bucket.number, bucket.points.iter().flatten().sum()))
    }

    fn last(&self) -> i64 {
        self.past.last().map_or(0, |bucket| bucket.number)
    }

    /// The buckets that lie this many ago.
    fn ago(&self, ago: std::ops::Range<usize>) -> impl Iterator<Item = &Bucket> {
        let last = self.last();
        self.past
            .iter()
            .filter(move |bucket| ago.contains(&usize::try_from(last - bucket.number).unwrap_or(usize::MAX)))
    }

    /// The last value of a sign that still counts.
    fn now(&self, sign: usize) -> Option<f64> {
        let carried = if SIGNS[sign] == Temperature { KEPT } else { HOURLY };
        self.ago(0..carried).filter_map(|bucket| bucket.values[sign]).last()
    }

    /// What it was hours before: three to four, or one to two where that is not known.
    fn before(&self, sign: usize) -> Option<f64> {
        let of = |ago| mean(self.ago(ago).filter_map(|bucket| bucket.values[sign]));
        of(3 * HOURLY..4 * HOURLY).or_else(|| of(HOURLY..2 * HOURLY))
    }

    /// An observation's value and what it was hours before; `None` where it is not known.
    pub(super) fn seen(&self, observation: Observation) -> Option<(f64, Option<f64>)> {
        if let Some(sign) = SIGNS.iter().position(|sign| *sign == observation) {
            return Some((self.now(sign)?, self.before(sign)));
        }
        let flag = |bucket: &Bucket| if observation == Oxygen { bucket.oxygen } else { bucket.is_confused };
        let value = |bucket: &Bucket| flag(bucket).map(|flag| f64::from(u8::from(flag)));
        Some((value(self.past.last()?)?, self.past.first().and_then(value)))
    }

    fn inputs(&self, omitted: Option<Observation>) -> [f32; INPUTS] {
        let mut numbers = Vec::with_capacity(INPUTS);
        for (sign, observation) in SIGNS.iter().enumerate() {
            numbers.extend(if omitted == Some(*observation) { unremarkable() } else { self.sign(sign) });
        }
        let total = |bucket: &Bucket| {
            let points = SCORED.iter().zip(bucket.points).filter(|(observation, _)| Some(**observation) != omitted);
            points.filter_map(|(_, points)| points).map(f64::from).sum::<f64>()
        };
        let at = |ago: std::ops::Range<usize>| mean(self.ago(ago).map(total));
        let (last, first) = (self.past.last(), self.past.first());
        let flag = |value: Option<bool>, observation| match value {
            Some(true) if omitted != Some(observation) => 1.0,
            _ => 0.0,
        };
        let oxygen = |bucket: Option<&Bucket>| flag(bucket.and_then(|bucket| bucket.oxygen), Oxygen);
        let mind = last.and_then(|bucket| bucket.is_confused);
        let now = last.map_or(0.0, total);
        let threes = last.map_or(0, |bucket| {
            let points = SCORED.iter().zip(bucket.points).filter(|(observation, _)| Some(**observation) != omitted);
            points.filter(|(_, points)| *points == Some(3)).count()
        });
        numbers.extend([
            oxygen(last),
            oxygen(last) - oxygen(first),
            flag(mind, Consciousness),
            f64::from(u8::from(mind.is_some())),
            now / 5.0,
            threes as f64,
            at(HOURLY..2 * HOURLY).map_or(0.0, |before| (now - before) / 3.0),
            at(3 * HOURLY..4 * HOURLY).map_or(0.0, |before| (now - before) / 3.0),
            self.past.len() as f64 / KEPT as f64,
        ]);
        let mut inputs = [0.0; INPUTS];
        inputs.iter_mut().zip(numbers).for_each(|(input, number)| *input = number as f32);
        inputs
    }

    /// A sign: now, known, the hour's mean, how it moved over two hours and over four, how it scatters.
    fn sign(&self, sign: usize) -> [f64; 6] {
        let steps = |value: f64| ((value - CENTRE[sign]) / UNIT[sign]).clamp(-6.0, 6.0);
        let of = |ago| mean(self.ago(ago).filter_map(|bucket| bucket.values[sign]));
        let Some(now) = self.now(sign) else { return [0.0; 6] };
        let hour = of(0..HOURLY).unwrap_or(now);
        let moved = |before: Option<f64>| before.map_or(0.0, |before| ((hour - before) / UNIT[sign]).clamp(-6.0, 6.0));
        let spread =
            mean(self.ago(0..HOURLY).filter_map(|bucket| bucket.values[sign]).map(|value| (value - hour).powi(2)));
        let spread = spread.map_or(0.0, |square| (square.sqrt() / UNIT[sign]).min(4.0));
        [steps(now), 1.0, steps(hour), moved(of(HOURLY..2 * HOURLY)), moved(of(3 * HOURLY..4 * HOURLY)), spread]
    }
}

const fn unremarkable() -> [f64; 6] {
    [0.0, 1.0, 0.0, 0.0, 0.0, USUAL_SPREAD]
}
