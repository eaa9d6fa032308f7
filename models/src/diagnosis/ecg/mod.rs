//! Heartbeats from one lead of raw ECG: what comes early and broad, and a signal that is lost.
//!
//! [`qrs`] finds the complexes; a beat is taken for ventricular where it comes early (its interval below
//! [`EARLY`] of the usual) and is broad (its width above [`BROAD`] of the usual). `ventricular_beats`: [`SEVERAL`] such among the last
//! [`BEATS`], said once until there is none. `signal_lost`: [`LOST_SECONDS`] in a row whose range is below a tenth of the usual: electrodes are
//! off, or the heart stands still. Score: `1 − 2^(−n/3)` for `n` ventricular beats, 1 for a lost signal.
//!
//! Samples may come in strips: after a gap the detector starts again and keeps what it knows of the patient. The first
//! beat after a gap has no interval and is not judged. Never: a claim about what the patient has; it suggests.

mod filter;
pub mod qrs;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use nearside_schemas::{Contribution, FieldKind, FieldName, FieldSpec, FieldValue, ModelRef, Severity, Timestamp};

use self::qrs::{Complex, QrsDetector};
use crate::ModelError;
use crate::card::Card;
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting};
use crate::snapshot::{Reader, Writer};

/// Samples a second that can be judged.
pub const RATES_HZ: std::ops::RangeInclusive<f64> = 100.0..=1_000.0;
/// Beats that are remembered.
pub const BEATS: usize = 32;
/// An interval below this share of the usual is early.
pub const EARLY: f64 = 0.85;
/// A width above this share of the usual is broad.
pub const BROAD: f64 = 1.5;
/// Ventricular beats among the last [`BEATS`] that are worth saying.
pub const SEVERAL: u32 = 3;
/// Seconds in a row without amplitude after which the signal is lost.
pub const LOST_SECONDS: u32 = 3;

/// Beats before anything is usual.
const LEAST_BEATS: usize = 8;
/// Seconds of signal before its range is usual.
const LEAST_SECONDS: u32 = 8;
/// A range below this share of the usual is none.
const NO_RANGE: f64 = 0.1;
/// A beat has at least this share of the usual range.
const LEAST_AMPLITUDE: f64 = 0.2;
/// Intervals that the rate is taken from.
const RATE_INTERVALS: i64 = 16;
/// An interval this much longer than a sample is a gap.
const GAP: f64 = 1.6;

const VERSION: u8 = 1;
const VENTRICULAR_BEATS: &str = "ventricular_beats";
const SIGNAL_LOST: &str = "signal_lost";
/// Where nothing is flagged the score stays below this share of the threshold.
const HELD: f64 = 0.98;

/// The rules as a row model.
pub struct EcgRhythm {
    reference: ModelRef,
    threshold: f64,
}

impl EcgRhythm {
    /// With the version and threshold of the card.
    pub fn new(card: &Card) -> Self {
        Self { reference: card.reference(), threshold: card.threshold }
    }

    fn state(&self, fields: &[FieldSpec]) -> EcgState {
        EcgState {
            lead: lead(fields).map(|(column, field)| (column, field.name.clone())),
            threshold: self.threshold,
            clock: SampleClock::default(),
            detector: None,
            rhythm: Rhythm::default(),
            range: Range::default(),
            pending: VecDeque::new(),
        }
    }
}

fn lead(fields: &[FieldSpec]) -> Option<(usize, &FieldSpec)> {
    fields.iter().enumerate().find(|(_, field)| field.kind == FieldKind::Number)
}

impl RowModel for EcgRhythm {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        if lead(fields).is_some() {
            return Ok(());
        }
        let why = String::from("it needs a numeric field with the samples of a lead");
        Err(ModelError::Unfit { model: self.reference.name.to_string(), why })
    }

    fn new_state(&self, fields: &[FieldSpec]) -> Box<dyn RowState> {
        Box::new(self.state(fields))
    }

    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        let mut state = self.state(fields);
        let mut reader = Reader::new(self.reference.name.as_str(), VERSION, snapshot)?;
        state.clock = SampleClock::read(&mut reader)?;
        if reader.u8()? == 1 {
            state.detector = Some(QrsDetector::read(&mut reader)?);
        }
        state.rhythm = Rhythm::read(&mut reader)?;
        state.range = Range::read(&mut reader)?;
        reader.finish()?;
        Ok(Box::new(state))
    }
}

/// The samples' rate and whether one follows the other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct SampleClock {
    last: i64,
    /// Unbroken intervals, up to [`RATE_INTERVALS`], and their sum.
    intervals: i64,
    micros: i64,
}

/// How a sample follows the one before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Follows {
    /// The rate is not known yet.
    Unknown,
    /// The signal begins anew, at this rate.
    Begins(f64),
    /// It goes on.
    GoesOn,
}

impl SampleClock {
    fn next(&mut self, time: Timestamp) -> Follows {
        let interval = time.as_micros().saturating_sub(self.last);
        let slowest = 1e6 / RATES_HZ.start();
        let usual = if self.intervals > 0 { self.micros as f64 / self.intervals as f64 } else { slowest };
        self.last = time.as_micros();
        let is_gap = interval <= 0 || interval as f64 > GAP * usual;
        if is_gap {
            (self.intervals, self.micros) = (0, 0);
            return Follows::Unknown;
        }
        if self.intervals > RATE_INTERVALS {
            return Follows::GoesOn;
        }
        self.intervals += 1;
        if self.intervals > RATE_INTERVALS {
            return Follows::Begins(1e6 / usual);
        }
        self.micros = self.micros.saturating_add(interval);
        Follows::Unknown
    }

    fn write(&self, writer: &mut Writer) {
        [self.last, self.intervals, self.micros].into_iter().for_each(|number| writer.i64(number));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        Ok(Self { last: reader.i64()?, intervals: reader.i64()?, micros: reader.i64()? })
    }
}

/// The range of each second of signal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Range {
    low: f32,
    high: f32,
    samples: u32,
    seconds: u32,
    /// The usual range.
    usual: f64,
    quiet: u32,
}

impl Range {
    /// The next sample is the first of its second.
    fn restart(&mut self) {
        self.samples = 0;
    }

    /// Takes a sample; true once, where the signal is lost.
    fn push(&mut self, sample: f64, rate_hz: f64) -> bool {
        let sample = sample as f32;
        (self.low, self.high) = match self.samples {
            0 => (sample, sample),
            _ => (self.low.min(sample), self.high.max(sample)),
        };
        self.samples += 1;
        if f64::from(self.samples) < rate_hz {
            return false;
        }
        self.samples = 0;
        let range = f64::from(self.high - self.low);
        if self.seconds >= LEAST_SECONDS && range < NO_RANGE * self.usual {
            self.quiet = self.quiet.saturating_add(1);
            return self.quiet == LOST_SECONDS;
        }
        self.quiet = 0;
        self.seconds = self.seconds.saturating_add(1);
        let rate = (1.0 / f64::from(self.seconds)).max(0.05);
        // An artefact is not what is usual.
        let most = if self.seconds > LEAST_SECONDS { 2.0 * self.usual } else { f64::MAX };
        self.usual += rate * (range.min(most) - self.usual);
        false
    }

    fn write(&self, writer: &mut Writer) {
        writer.f32(self.low);
        writer.f32(self.high);
        [self.samples, self.seconds, self.quiet].into_iter().for_each(|count| writer.u32(count));
        writer.f64(self.usual);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let (low, high) = (reader.f32()?, reader.f32()?);
        let (samples, seconds, quiet) = (reader.u32()?, reader.u32()?, reader.u32()?);
        Ok(Self { low, high, samples, seconds, quiet, usual: reader.f64()? })
    }
}

/// The last beats.
#[derive(Clone, Debug, Default, PartialEq)]
struct Rhythm {
    /// Interval before it and width, in seconds, and whether it is taken for ventricular; oldest first.
    beats: VecDeque<(f32, f32, bool)>,
    /// When the last complex was, in seconds of the unbroken signal.
    last: Option<f64>,
    is_told: bool,
}

/// What was seen in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    ventricular: u32,
    /// The usual and the last ventricular beat's width in seconds, where several are to be told.
    told: Option<(f64, f64)>,
    /// The sample at which the signal was lost.
    lost: Option<f64>,
}

impl Rhythm {
    /// Takes a complex; the widths to tell where there are now several ventricular beats.
    fn push(&mut self, complex: Complex) -> Option<(f64, f64)> {
        let interval = self.last.replace(complex.at).map(|last| complex.at - last)?;
        let usual = (self.beats.len() >= LEAST_BEATS).then(|| self.usual());
        let is_ventricular = usual.is_some_and(|(usual_interval, usual_width)| {
            interval < EARLY * usual_interval && complex.width > BROAD * usual_width
        });
        if self.beats.len() == BEATS {
            self.beats.pop_front();
        }
        self.beats.push_back((interval as f32, complex.width as f32, is_ventricular));
        let count = self.ventricular();
        self.is_told &= count > 0;
        if count < SEVERAL || self.is_told {
            return None;
        }
        self.is_told = true;
        usual.map(|(_, width)| (width, complex.width))
    }

    fn ventricular(&self) -> u32 {
        self.beats.iter().filter(|(.., is_ventricular)| *is_ventricular).count() as u32
    }

    /// Median interval, and the width that two thirds of the beats exceed: with a broad beat for each narrow one the median
    /// would say nothing.
    fn usual(&self) -> (f64, f64) {
        let at = |mut values: Vec<f32>, share: usize| {
            values.sort_by(f32::total_cmp);
            f64::from(values.get(values.len() / share).copied().unwrap_or(0.0))
        };
        (at(self.beats.iter().map(|beat| beat.0).collect(), 2), at(self.beats.iter().map(|beat| beat.1).collect(), 3))
    }

    fn write(&self, writer: &mut Writer) {
        writer.u32(self.beats.len() as u32);
        for (interval, width, is_ventricular) in &self.beats {
            writer.f32(*interval);
            writer.f32(*width);
            writer.u8(u8::from(*is_ventricular));
        }
        writer.u8(u8::from(self.last.is_some()));
        writer.f64(self.last.unwrap_or(0.0));
        writer.u8(u8::from(self.is_told));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let count = reader.count(BEATS)?;
        let beat = |_| Ok((reader.f32()?, reader.f32()?, reader.u8()? == 1));
        let beats = (0..count).map(beat).collect::<Result<_, ModelError>>()?;
        let has_last = reader.u8()? == 1;
        let last = reader.f64()?;
        Ok(Self { beats, last: has_last.then_some(last), is_told: reader.u8()? == 1 })
    }
}

struct EcgState {
    lead: Option<(usize, FieldName)>,
    threshold: f64,
    clock: SampleClock,
    detector: Option<QrsDetector>,
    rhythm: Rhythm,
    range: Range,
    pending: VecDeque<Taken>,
}

impl EcgState {
    fn see(&mut self, row: &Row<'_>) -> Taken {
        let value = self.lead.as_ref().and_then(|(column, _)| row.values.get(*column)).and_then(FieldValue::number);
        let mut taken = Taken { ventricular: self.rhythm.ventricular(), ..Taken::default() };
        let Some(sample) = value else { return taken };
        match self.clock.next(row.time) {
            Follows::Unknown => return taken,
            Follows::Begins(rate_hz) => self.begin(rate_hz),
            Follows::GoesOn => {}
        }
        let Some(detector) = &mut self.detector else { return taken };
        if self.range.push(sample, detector.rate_hz()) {
            taken.lost = Some(sample);
        }
        let least = LEAST_AMPLITUDE * self.range.usual;
        // Where the signal is gone, noise has the shape of beats.
        if let Some(complex) = detector.push(sample).filter(|complex| complex.amplitude >= least) {
            taken.told = self.rhythm.push(complex);
            taken.ventricular = self.rhythm.ventricular();
        }
        taken
    }

    fn begin(&mut self, rate_hz: f64) {
        let is_same = |detector: &QrsDetector| (detector.rate_hz() / rate_hz - 1.0).abs() < 0.02;
        match &mut self.detector {
            _ if !RATES_HZ.contains(&rate_hz) => self.detector = None,
            Some(detector) if is_same(detector) => detector.restart(),
            _ => self.detector = Some(QrsDetector::new(rate_hz)),
        }
        self.rhythm.last = None;
        self.range.restart();
    }

    fn sightings(&self, taken: Taken) -> Vec<Sighting> {
        let Some((_, field)) = &self.lead else { return Vec::new() };
        let mut sightings = Vec::new();
        if let Some(seen) = taken.lost {
            let note = Some(String::from("its range is below a tenth of what is usual here"));
            let contribution =
                Contribution { field: field.clone(), seen, expected: None, band: None, share: 1.0, note };
            sightings.push(Sighting {
                label: SIGNAL_LOST,
                severity: Severity::Critical,
                score: 1.0,
                contributions: vec![contribution],
                text: format!(
                    "The ECG has had no amplitude for {LOST_SECONDS} s: suggests electrodes that are off, or a heart that stands still. Look at the patient."
                ),
            });
        }
        if let Some((usual, width)) = taken.told {
            let contribution = Contribution {
                field: field.clone(),
                seen: width,
                expected: Some(usual),
                band: Some((0.0, BROAD * usual)),
                share: 1.0,
                note: Some(String::from("width of the beat in s")),
            };
            sightings.push(Sighting {
                label: VENTRICULAR_BEATS,
                severity: Severity::Warning,
                score: score(taken.ventricular),
                contributions: vec![contribution],
                text: format!(
                    "{} of the last {BEATS} beats came early and were broad: suggests ventricular ectopic beats.",
                    taken.ventricular
                ),
            });
        }
        sightings
    }
}

/// 0.5 for [`SEVERAL`] ventricular beats.
fn score(ventricular: u32) -> f64 {
    1.0 - (-f64::from(ventricular) / f64::from(SEVERAL)).exp2()
}

impl RowState for EcgState {
    fn take(&mut self, row: &Row<'_>, _inputs: &mut Vec<f32>) -> usize {
        let taken = self.see(row);
        self.pending.push_back(taken);
        0
    }

    fn judge(&mut self, _outputs: &[f32]) -> RowVerdict {
        let taken = self.pending.pop_front().unwrap_or_default();
        let sightings = if taken.lost.is_some() || taken.told.is_some() { self.sightings(taken) } else { Vec::new() };
        let quiet = score(taken.ventricular).min(HELD * self.threshold);
        let score = sightings.iter().fold(quiet, |most, sighting| most.max(sighting.score));
        RowVerdict { score, threshold: self.threshold, flagged: !sightings.is_empty(), sightings }
    }

    fn skip(&mut self) {
        self.pending.pop_front();
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        self.clock.write(&mut writer);
        writer.u8(u8::from(self.detector.is_some()));
        if let Some(detector) = &self.detector {
            detector.write(&mut writer);
        }
        self.rhythm.write(&mut writer);
        self.range.write(&mut writer);
        writer.finish()
    }
}
