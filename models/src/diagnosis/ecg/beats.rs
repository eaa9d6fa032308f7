//! From samples to beats with what a network needs to class them.
//!
//! A beat is told when its successor has been cut out, 0.45 s after that one's middle, for how a beat is followed says much
//! of it; where none follows, [`LONGEST_WAIT`] seconds after its own; the first after a gap later, see below. What it carries depends on the
//! signal alone. One that the beginning or the end of the signal cuts has half a shape: it counts for the rhythm and is no example of what is usual.
//! Rhythm inputs are intervals over the usual ones (medians of the last 40 and 200, mean of the last 10, the sinus node's pace) as logarithms,
//! how much intervals scatter, and the shapes of the two beats before and the one after; shape inputs are those of [`super::shape`], for each lead.
//!
//! A heart may beat otherwise after a gap than before it, and no beat is early for that. So the beats that follow a gap are held until
//! [`super::strip`] has said from their own intervals at which pace the signal goes on, and what was usual before is moved there.
//!
//! Promises: constant memory; the same samples give the same beats, however they were cut into messages. Never: it reports a beat twice.

use std::collections::VecDeque;

use super::filter::Resampler;
use super::pace::{self, Pace};
use super::qrs::{Complex, QrsDetector, median};
use super::shape::{AFTER, LeadShapes, Shape, VALUES};
use super::strip;
use super::{MOST_LEADS, RATE_HZ};
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Seconds that a beat waits for its successor.
pub const LONGEST_WAIT: f64 = 2.5;
/// Inputs that say how a beat stands in the rhythm; they come first.
const RHYTHM: usize = 21 + pace::VALUES;
/// Which input says how uneven the rhythm is, in fifths of a logarithm, and which how steeply shorter intervals began, as a logarithm.
pub(super) const UNEVEN: usize = 12;
pub(super) const ONSET: usize = 21 + pace::ONSET;
/// Width of the network's input for one lead of a beat.
pub const INPUTS: usize = RHYTHM + VALUES;

/// Intervals that are kept, and those that the short medians are taken from.
const LONG: usize = 200;
const SHORT: usize = 40;
const NEAR: usize = 10;
/// Beats after which a rhythm may repeat itself: quadrigeminy.
const MOST_PERIOD: usize = 4;
/// The interval before any is known, in seconds.
const FIRST_INTERVAL: f32 = 0.8;
/// An interval counts at most this much, in seconds.
const MOST_INTERVAL: f32 = LONGEST_WAIT as f32;
/// A second lead below this is not connected.
const NO_AMPLITUDE: f32 = 1e-6;
/// Samples from the start of the signal until a beat's shape can be told: 0.5 s. It must lie in the signal whole, on a base line that has
/// settled.
const WARM_UP: u64 = 90;
/// Complexes that wait until their T wave has passed, and beats that are held.
const MOST_WAITING: usize = 8;

/// A beat that is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Beat {
    /// Seconds from the first sample of the unbroken signal to its middle.
    pub at: f64,
    /// Seconds since the one before; `None` for the first after a gap.
    pub interval: Option<f64>,
    /// The median interval of late, in seconds.
    pub usual_interval: f64,
    /// How much of the energy lies in the complexes: about 1 in a clean signal, below 0.5 where noise could be a beat.
    pub quality: f64,
    /// Peak to peak amplitude in the first lead, in the unit of the samples.
    pub amplitude: f64,
    /// Whether it lies in the signal as a whole. What a network says of half a beat is worth little.
    pub is_whole: bool,
    /// The network's inputs, [`INPUTS`] for each lead that has a signal.
    pub inputs: Vec<f32>,
}

impl Beat {
    /// How many leads it is described in.
    pub const fn leads(&self) -> usize {
        self.inputs.len() / INPUTS
    }
}

/// A beat whose successor is not known.
#[derive(Clone, Debug)]
struct Held {
    at: u64,
    interval: Option<f32>,
    quality: f32,
    is_whole: bool,
    shapes: Vec<Shape>,
}

/// Finds beats in an unbroken signal of one lead or two.
#[derive(Clone, Debug)]
pub struct BeatFinder {
    resamplers: Vec<Resampler>,
    detector: QrsDetector,
    leads: Vec<LeadShapes>,
    /// Samples of the signal at [`RATE_HZ`].
    pushed: u64,
    waiting: VecDeque<Complex>,
    last: Option<u64>,
    /// Those not told yet.
    held: VecDeque<Held>,
    /// Intervals in seconds, oldest first.
    intervals: VecDeque<f32>,
    pace: Pace,
    /// Whether the signal goes on after a gap, at a pace that is not known yet.
    is_new: bool,
}

impl BeatFinder {
    /// For samples at this rate, [`super::RATES_HZ`], of 1 to [`MOST_LEADS`] leads.
    pub fn new(rate_hz: f64, leads: usize) -> Self {
        let leads = leads.clamp(1, MOST_LEADS);
        Self {
            resamplers: vec![Resampler::new(rate_hz); leads],
            detector: QrsDetector::new(leads),
            leads: vec![LeadShapes::new(); leads],
            pushed: 0,
            waiting: VecDeque::new(),
            last: None,
            held: VecDeque::new(),
            intervals: VecDeque::new(),
            pace: Pace::new(FIRST_INTERVAL),
            is_new: false,
        }
    }

    /// Samples a second.
    pub fn rate_hz(&self) -> f64 {
        self.resamplers.first().map_or(RATE_HZ, Resampler::rate_hz)
    }

    /// Seconds of the unbroken signal.
    pub fn seconds(&self) -> f64 {
        self.pushed as f64 / RATE_HZ
    }

    /// Samples of the unbroken signal at [`RATE_HZ`].
    pub(super) const fn samples(&self) -> u64 {
        self.pushed
    }

    /// Tells what is held, forgets the signal after a gap of so many seconds, and keeps what it knows of the patient. The signal goes on at
    /// this rate.
    pub fn restart(&mut self, rate_hz: f64, gap: f64, found: &mut Vec<Beat>) {
        self.flush(found);
        self.resamplers.fill(Resampler::new(rate_hz));
        self.detector.restart();
        self.leads.iter_mut().for_each(LeadShapes::restart);
        (self.pushed, self.last) = (0, None);
        self.waiting.clear();
        self.is_new = gap >= strip::LEAST_GAP && !self.intervals.is_empty();
    }

    /// Whether beats are held until the pace after a gap is known.
    pub(super) const fn is_new(&self) -> bool {
        self.is_new
    }

    /// See [`Self::is_new`]; for a state that is read back.
    pub(super) const fn set_new(&mut self, is_new: bool) {
        self.is_new = is_new;
    }

    /// Appends how shorter intervals began; see [`Pace::write_onset`].
    pub(crate) fn write_onset(&self, writer: &mut Writer) {
        self.pace.write_onset(writer);
    }

    /// Reads that back.
    pub(crate) fn read_onset(&mut self, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        self.pace.read_onset(reader)
    }

    /// For a state that was kept without it.
    pub(super) fn guess_onset(&mut self) {
        self.pace.guess_onset(self.intervals.back().copied());
    }

    /// Says whether the signal is lost: what is heard meanwhile is not learnt from.
    pub fn hold(&mut self, is_lost: bool) {
        self.detector.hold(is_lost);
    }

    /// Takes a sample of each lead; appends the beats that are now known, in order of time.
    pub fn push(&mut self, samples: &[f64], found: &mut Vec<Beat>) {
        let mut given: Vec<Vec<f64>> = vec![Vec::new(); self.resamplers.len()];
        for ((resampler, sample), given) in self.resamplers.iter_mut().zip(samples).zip(&mut given) {
            resampler.push(*sample, given);
        }
        let count = given.iter().map(Vec::len).min().unwrap_or(0);
        for index in 0..count {
            let mut at_once = [0.0; MOST_LEADS];
            at_once.iter_mut().zip(&given).for_each(|(sample, lead)| *sample = lead[index]);
            self.step(&at_once[..given.len()], found);
        }
    }

    fn step(&mut self, samples: &[f64], found: &mut Vec<Beat>) {
        self.leads.iter_mut().zip(samples).for_each(|(lead, sample)| lead.push(*sample));
        let mut complexes = Vec::new();
        self.detector.push(samples, &mut complexes);
        self.pushed += 1;
        self.waiting.extend(complexes);
        let is_ready = |complex: &Complex, pushed: u64| complex.at + AFTER < pushed;
        while let Some(complex) = self.waiting.pop_front_if(|complex| is_ready(complex, self.pushed)) {
            self.describe(complex);
            self.tell_followed(found);
        }
        debug_assert!(self.waiting.len() <= MOST_WAITING);
        let longest = (LONGEST_WAIT * RATE_HZ) as u64;
        if self.waiting.is_empty() && self.held.back().is_some_and(|held| held.at + longest < self.pushed) {
            self.tell_all(found);
        }
    }

    /// Cuts a complex out of each lead.
    fn describe(&mut self, complex: Complex) {
        let back = (self.pushed - 1 - complex.at) as usize;
        let interval = self.last.replace(complex.at).map(|last| (complex.at - last) as f32 / RATE_HZ as f32);
        let usual = self.usual_before(interval);
        let relative = interval.map_or(1.0, |interval| interval / usual);
        let is_whole = complex.at >= WARM_UP && back as u64 >= AFTER;
        let leads = self.leads.iter_mut();
        let shapes = match is_whole {
            true => leads.map(|lead| lead.describe(back, relative)).collect(),
            false => leads.map(|lead| lead.describe_cut(back, relative)).collect(),
        };
        let length = interval.unwrap_or(usual).min(MOST_INTERVAL);
        // The long mean of the envelope is 1, so this is the share of its area below the complex.
        let quality = complex.height * 0.15 / length.max(0.2);
        self.held.push_back(Held { at: complex.at, interval, quality, is_whole, shapes });
    }

    /// The usual interval where this one ends: of the strip alone while its pace is not known.
    fn usual_before(&self, interval: Option<f32>) -> f32 {
        match self.is_new {
            true => usual(&self.own_intervals().chain(interval).collect::<Vec<_>>()),
            false => usual(&recent(&self.intervals, SHORT)),
        }
    }

    /// The intervals between those that are held.
    fn own_intervals(&self) -> impl Iterator<Item = f32> {
        self.held.iter().filter_map(|held| held.interval).map(|interval| interval.clamp(0.1, MOST_INTERVAL))
    }

    /// Tells all that have a successor; after a gap, once the pace is known.
    fn tell_followed(&mut self, found: &mut Vec<Beat>) {
        let is_early = self.pushed < (strip::LONGEST * RATE_HZ) as u64;
        if self.is_new && is_early && self.held.len() <= strip::INTERVALS {
            return;
        }
        self.settle();
        while self.held.len() > 1 {
            self.tell(found);
        }
    }

    /// The pace after a gap is what the beats that are held say.
    fn settle(&mut self) {
        if !std::mem::take(&mut self.is_new) {
            return;
        }
        let own: Vec<f32> = self.own_intervals().collect();
        let usual = usual(&recent(&self.intervals, SHORT));
        let Some(now) = strip::pace(&own, usual) else { return };
        let ratio = now / usual;
        self.intervals.iter_mut().for_each(|interval| *interval = (*interval * ratio).clamp(0.1, MOST_INTERVAL));
        self.pace.begin_anew(now);
    }

    /// Tells all that are held: the signal ends.
    pub fn flush(&mut self, found: &mut Vec<Beat>) {
        while let Some(complex) = self.waiting.pop_front() {
            if complex.at < self.pushed {
                self.describe(complex);
            }
            self.tell_followed(found);
        }
        self.tell_all(found);
    }

    fn tell_all(&mut self, found: &mut Vec<Beat>) {
        self.settle();
        while !self.held.is_empty() {
            self.tell(found);
        }
    }

    fn tell(&mut self, found: &mut Vec<Beat>) {
        let Some(held) = self.held.pop_front() else { return };
        let after = match self.held.front() {
            Some(next) => (next.at - held.at) as f32 / RATE_HZ as f32,
            None => usual(&recent(&self.intervals, SHORT)).max((self.pushed - held.at) as f32 / RATE_HZ as f32),
        };
        let usual_interval = usual(&recent(&self.intervals, SHORT));
        let before = held.interval.unwrap_or(usual_interval).clamp(0.1, MOST_INTERVAL);
        let after = after.clamp(0.1, MOST_INTERVAL);
        let rhythm = rhythm(&self.intervals, before, after, held.quality);
        let pace = self.pace.values(before, after);
        let mut inputs = Vec::with_capacity(INPUTS * self.leads.len());
        for (lead, shape) in held.shapes.iter().enumerate() {
            if lead > 0 && shape.amplitude < NO_AMPLITUDE {
                continue;
            }
            inputs.extend(rhythm);
            inputs.extend(pace);
            inputs.extend(shape.values);
        }
        found.push(Beat {
            at: held.at as f64 / RATE_HZ,
            interval: held.interval.map(f64::from),
            usual_interval: f64::from(usual_interval),
            quality: f64::from(held.quality),
            is_whole: held.is_whole,
            amplitude: held.shapes.first().map_or(0.0, |shape| f64::from(shape.amplitude)),
            inputs,
        });
        if held.interval.is_some() {
            if self.intervals.len() == LONG {
                self.intervals.pop_front();
            }
            self.intervals.push_back(before);
            self.pace.push(before, usual(&recent(&self.intervals, SHORT)));
        }
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        self.resamplers.iter().for_each(|resampler| resampler.write(writer));
        self.leads.iter().for_each(|lead| lead.write(writer));
        self.detector.write(writer);
        writer.i64(self.pushed as i64);
        writer.u32(self.waiting.len() as u32);
        for complex in &self.waiting {
            writer.i64(complex.at as i64);
            writer.f32(complex.height);
        }
        writer.i64(self.last.map_or(-1, |last| last as i64));
        writer.u32(self.held.len() as u32);
        for held in &self.held {
            writer.i64(held.at as i64);
            writer.f32(held.interval.unwrap_or(-1.0));
            writer.f32(held.quality);
            writer.u8(u8::from(held.is_whole));
            for shape in &held.shapes {
                shape.values.iter().for_each(|value| writer.f32(*value));
                writer.f32(shape.amplitude);
            }
        }
        writer.u32(self.intervals.len() as u32);
        self.intervals.iter().for_each(|interval| writer.f32(*interval));
        self.pace.write(writer);
    }

    /// Reads itself back, for so many leads.
    pub(crate) fn read(reader: &mut Reader<'_>, count: usize) -> Result<Self, ModelError> {
        let mut finder = Self::new(RATE_HZ, count);
        finder.resamplers = (0..count).map(|_| Resampler::read(reader)).collect::<Result<_, _>>()?;
        finder.leads = (0..count).map(|_| LeadShapes::read(reader)).collect::<Result<_, _>>()?;
        finder.detector = QrsDetector::read(reader, count)?;
        finder.pushed = reader.index(u64::MAX >> 1)?;
        let pushed = finder.pushed;
        for _ in 0..reader.count(MOST_WAITING)? {
            finder.waiting.push_back(Complex { at: reader.index(pushed)?, height: reader.f32()? });
        }
        finder.last = u64::try_from(reader.i64()?).ok();
        for _ in 0..reader.count(MOST_WAITING)? {
            finder.held.push_back(Held::read(reader, pushed, count)?);
        }
        for _ in 0..reader.count(LONG)? {
            finder.intervals.push_back(reader.f32()?.clamp(0.1, MOST_INTERVAL));
        }
        finder.pace = Pace::read(reader)?;
        let places = finder.held.iter().map(|held| held.at);
        let is_ordered = places.clone().zip(places.skip(1)).all(|(before, after)| before < after);
        let later = finder.waiting.iter().all(|complex| finder.last.is_none_or(|last| last < complex.at));
        if !is_ordered || !later || finder.last.is_some_and(|last| last > pushed) {
            return Err(reader.damaged("beats are out of order"));
        }
        Ok(finder)
    }
}

impl Held {
    fn read(reader: &mut Reader<'_>, pushed: u64, leads: usize) -> Result<Self, ModelError> {
        let at = reader.index(pushed)?;
        let interval = Some(reader.f32()?).filter(|interval| *interval >= 0.0);
        let quality = reader.f32()?;
        let is_whole = reader.u8()? == 1;
        let shape = |reader: &mut Reader<'_>| {
            let mut shape = Shape { values: [0.0; VALUES], amplitude: 0.0 };
            for value in &mut shape.values {
                *value = reader.f32()?;
            }
            shape.amplitude = reader.f32()?;
            Ok(shape)
        };
        let shapes = (0..leads).map(|_| shape(reader)).collect::<Result<_, ModelError>>()?;
        Ok(Self { at, interval, quality, is_whole, shapes })
    }
}

/// The median interval in seconds.
fn usual(intervals: &[f32]) -> f32 {
    median(intervals).unwrap_or(FIRST_INTERVAL)
}

/// The last of some intervals, at most so many.
fn recent(intervals: &VecDeque<f32>, most: usize) -> Vec<f32> {
    intervals.iter().skip(intervals.len().saturating_sub(most)).copied().collect()
}

/// How far the logarithms of intervals usually lie from what they were a few beats ago: least over one beat to [`MOST_PERIOD`], for ectopic
/// beats by turns with others are a rhythm that repeats itself, and fibrillation is none.
fn uneven(logs: &[f32]) -> f32 {
    let off = |period: usize| {
        let pairs = logs.iter().zip(logs.iter().skip(period));
        median(&pairs.map(|(before, after)| (after - before).abs()).collect::<Vec<_>>())
    };
    (1..=MOST_PERIOD).filter_map(off).reduce(f32::min).unwrap_or(0.0)
}

/// The network's inputs that say how a beat stands in the rhythm: the intervals of late (oldest first), those before and after it, in
/// seconds, and how clear the signal is.
fn rhythm(intervals: &VecDeque<f32>, before: f32, after: f32, quality: f32) -> [f32; RHYTHM - pace::VALUES] {
    let near = recent(intervals, SHORT);
    let log = |ratio: f32| ratio.max(1e-3).ln().clamp(-1.5, 1.5);
    let usual_interval = usual(&near);
    let long = usual(&recent(intervals, LONG));
    let nearest = recent(intervals, NEAR);
    let mean = if nearest.is_empty() { usual_interval } else { nearest.iter().sum::<f32>() / nearest.len() as f32 };
    let past = |back: usize| intervals.iter().rev().nth(back).copied().unwrap_or(usual_interval);
    let logs: Vec<f32> = near.iter().map(|interval| interval.ln()).collect();
    let middle = median(&logs).unwrap_or(0.0);
    let off: Vec<f32> = logs.iter().map(|log| (log - middle).abs()).collect();
    let scatter = median(&off).unwrap_or(0.0) + 0.01;
    let steps: Vec<f32> = logs.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    let count = steps.len().max(1) as f32;
    let late = &steps[steps.len().saturating_sub(NEAR)..];
    let mut sorted = near.clone();
    sorted.sort_by(f32::total_cmp);
    let quarter = |share: usize| sorted.get(sorted.len() * share / 8).copied().unwrap_or(usual_interval);
    [
        log(before / usual_interval),
        log(after / usual_interval),
        log(before / mean),
        log(after / mean),
        log(before / past(0)),
        log(after / before),
        log(past(0) / usual_interval),
        log(past(1) / usual_interval),
        log((before + after) / 2.0 / usual_interval),
        ((before / usual_interval).ln() / scatter / 4.0).clamp(-3.0, 3.0),
        ((after / usual_interval).ln() / scatter / 4.0).clamp(-3.0, 3.0),
        (20.0 * scatter).ln(),
        5.0 * uneven(&logs),
        3.0 * late.iter().sum::<f32>() / late.len().max(1) as f32,
        steps.iter().filter(|step| **step > 0.1).count() as f32 / count,
        log(before / quarter(6)),
        log(before / long),
        log(long),
        log(before / quarter(2)),
        quality.min(3.0),
        log(past(2) / usual_interval),
    ]
}
