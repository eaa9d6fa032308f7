//! QRS complexes in raw ECG, sample by sample, from one lead or several together.
//!
//! After M. Elgendi, "Fast QRS detection with an optimized knowledge-based method", PLoS ONE 8(9), 2013 (band and energy), and
//! J. Pan, W. Tompkins, "A real-time QRS detection algorithm", IEEE Transactions on Biomedical Engineering 32(3), 1985
//! (adaptive threshold, search back):
//!
//! ```text
//! lead ─▶ band-pass 8–20 Hz ─▶ root of the mean square over 0.15 s ─▶ ÷ its own mean over 8 s ─▶ ┐
//! lead ─▶ …                                                                                     ├─▶ mean ─▶ maxima within ±0.15 s
//! ```
//! A maximum is a complex where it is above [`THRESHOLD`] of the usual height of complexes. Right after a complex it must be
//! higher (T waves); where one is overdue by [`OVERDUE`] of the usual interval the highest maximum above [`SEARCH_BACK`] since
//! then is taken after all. A complex is told 0.24 s after it, one that was searched for with the next maximum.
//!
//! While the signal is lost ([`QrsDetector::hold`]) no mean follows it: what is left is noise, and after it the first beats would stand
//! so far above it that their T waves did too.
//!
//! Promises: constant memory. Never: needs to know the unit or the amplifier's gain.

use std::collections::VecDeque;

use super::RATE_HZ;
use super::filter::{Biquad, Ring};
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Hertz.
const PASS_BAND: (f64, f64) = (8.0, 20.0);
/// Samples of the mean square: 0.15 s.
const MEAN_SAMPLES: usize = 27;
/// Samples to either side that a maximum is the largest of: 0.15 s.
const SIDE_SAMPLES: usize = 27;
/// Seconds over which the long mean forgets.
const LONG_MEAN: f64 = 8.0;
/// Beyond any lead's voltage, in mV: a larger sample is taken for this.
const MOST: f64 = 1e6;
/// Samples by which the band-pass delays.
const FILTER_DELAY: u64 = 3;
/// Samples from a complex to when it is known as a maximum.
const DELAY: u64 = (MEAN_SAMPLES / 2 + SIDE_SAMPLES) as u64 + FILTER_DELAY;
/// Share of the usual height that a complex has.
const THRESHOLD: f32 = 0.5;
/// A maximum below this is nothing. The long mean is 1.
const LEAST_HEIGHT: f32 = 0.3;
/// A complex is at least this high: in noise alone the largest maxima are about 1.
const LEAST_COMPLEX: f32 = 1.2;
/// Two complexes cannot be nearer, in seconds.
const REFRACTORY: f64 = 0.22;
/// Seconds after a complex in which a T wave may follow, and the share of the height it does not reach.
const T_WAVE: (f64, f32) = (0.36, 0.6);
/// Intervals, in usual ones, after which a complex is overdue.
const OVERDUE: f64 = 1.5;
/// Share of the usual height of a complex that is searched for.
const SEARCH_BACK: f32 = 0.3;
/// Seconds that it keeps from its neighbours.
const SEARCH_APART: (f64, f64) = (0.4, 0.25);
/// Complexes that the usual height and interval are taken from.
const REMEMBERED: usize = 8;
/// Maxima that are kept for the search.
const MOST_PENDING: usize = 16;
/// The usual height is at most this at first: a lead that has just been connected looks higher.
const MOST_FIRST_HEIGHT: f32 = 6.0;
/// Samples without a complex after which the usual height shrinks by [`SHRINK`] at each maximum: 3 s. Something was too high.
const SILENT: u64 = 540;
const SHRINK: f32 = 0.9;
/// Samples that are listened to before anything is told: 2.5 s.
const LEARNING: u64 = 450;
/// The usual interval before any is known, in samples.
const FIRST_INTERVAL: f32 = 144.0;
/// An interval counts at most this much, in samples: 2 s.
const MOST_INTERVAL: u64 = 360;

/// One complex.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Complex {
    /// The sample at its middle, from 0 at the start of the unbroken signal.
    pub at: u64,
    /// Its height over the long mean of the envelope.
    pub height: f32,
}

/// A maximum of the envelope.
#[derive(Clone, Copy, Debug)]
struct Maximum {
    at: u64,
    height: f32,
}

/// The energy of one lead.
#[derive(Clone, Debug)]
struct Envelope {
    high_pass: Biquad,
    low_pass: Biquad,
    squares: Ring,
    long_mean: f64,
    seen: u32,
}

impl Envelope {
    fn new() -> Self {
        Self {
            high_pass: Biquad::high_pass(PASS_BAND.0, RATE_HZ),
            low_pass: Biquad::low_pass(PASS_BAND.1, RATE_HZ),
            squares: Ring::new(MEAN_SAMPLES),
            long_mean: 0.0,
            seen: 0,
        }
    }

    /// The energy over its own mean, which follows unless it is held; `None` where there has never been any, for the lead is not
    /// connected.
    fn push(&mut self, sample: f64, is_held: bool) -> Option<f64> {
        // One absurd sample must not leave an infinity in the filters and the means, which never end.
        let sample = sample.clamp(-MOST, MOST);
        let passed = self.low_pass.next(self.high_pass.next(sample));
        self.squares.push((passed * passed) as f32);
        let energy = (self.squares.sum() / MEAN_SAMPLES as f64).max(0.0).sqrt();
        if !is_held {
            self.seen = self.seen.saturating_add(1);
            self.long_mean += (energy - self.long_mean) * (1.0 / f64::from(self.seen)).max(1.0 / (LONG_MEAN * RATE_HZ));
        }
        (self.long_mean > 1e-9).then(|| energy / self.long_mean)
    }

    fn restart(&mut self) {
        *self = Self { long_mean: self.long_mean, seen: self.seen, ..Self::new() };
    }

    fn write(&self, writer: &mut Writer) {
        self.high_pass.write(writer);
        self.low_pass.write(writer);
        self.squares.write(writer);
        writer.f64(self.long_mean);
        writer.u32(self.seen);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut envelope = Self::new();
        envelope.high_pass.read(reader)?;
        envelope.low_pass.read(reader)?;
        envelope.squares.read(reader)?;
        (envelope.long_mean, envelope.seen) = (reader.f64()?, reader.u32()?);
        Ok(envelope)
    }
}

/// The detector for an unbroken signal.
#[derive(Clone, Debug)]
pub struct QrsDetector {
    leads: Vec<Envelope>,
    heights: Ring,
    pushed: u64,
    /// Maxima heard while it learns.
    young: Vec<Maximum>,
    last: Option<Maximum>,
    usual_heights: VecDeque<f32>,
    usual_intervals: VecDeque<f32>,
    pending: VecDeque<Maximum>,
    /// Told anew before each sample, so it is not part of a snapshot.
    is_held: bool,
}

impl QrsDetector {
    /// For this many leads, at least one.
    pub fn new(leads: usize) -> Self {
        Self {
            leads: vec![Envelope::new(); leads.max(1)],
            heights: Ring::new(2 * SIDE_SAMPLES + 1),
            pushed: 0,
            young: Vec::new(),
            last: None,
            usual_heights: VecDeque::new(),
            usual_intervals: VecDeque::new(),
            pending: VecDeque::new(),
            is_held: false,
        }
    }

    /// Says whether the signal is lost.
    pub const fn hold(&mut self, is_lost: bool) {
        self.is_held = is_lost;
    }

    /// Forgets the signal after a gap, but not what is usual.
    pub fn restart(&mut self) {
        let mut leads = std::mem::take(&mut self.leads);
        leads.iter_mut().for_each(Envelope::restart);
        let (usual_heights, usual_intervals) =
            (std::mem::take(&mut self.usual_heights), std::mem::take(&mut self.usual_intervals));
        *self = Self { usual_heights, usual_intervals, ..Self::new(leads.len()) };
        self.leads = leads;
    }

    /// Takes a sample of each lead at [`RATE_HZ`]; appends the complexes that are now known, in order of time.
    pub fn push(&mut self, samples: &[f64], found: &mut Vec<Complex>) {
        let is_held = self.is_held;
        let energies = self.leads.iter_mut().zip(samples).filter_map(|(lead, sample)| lead.push(*sample, is_held));
        let (sum, count) = energies.fold((0.0, 0.0_f64), |(sum, count), energy| (sum + energy, count + 1.0));
        self.heights.push((sum / count.max(1.0)) as f32);
        self.pushed += 1;
        if let Some(maximum) = self.maximum() {
            if self.usual_heights.is_empty() {
                self.young.push(maximum);
            } else {
                self.judge(maximum, found);
            }
        }
        if self.usual_heights.is_empty() && self.pushed > LEARNING {
            self.learn(found);
        }
    }

    /// The sample [`DELAY`] ago, if the envelope is largest there.
    fn maximum(&self) -> Option<Maximum> {
        let height = self.heights.newest(SIDE_SAMPLES);
        if height < LEAST_HEIGHT || self.pushed <= DELAY || !self.heights.is_full() {
            return None;
        }
        let before = (0..SIDE_SAMPLES).map(|back| self.heights.newest(2 * SIDE_SAMPLES - back));
        let after = (0..SIDE_SAMPLES).map(|back| self.heights.newest(back));
        let is_largest =
            before.into_iter().all(|other| other < height) && after.into_iter().all(|other| other <= height);
        is_largest.then(|| Maximum { at: self.pushed - 1 - DELAY, height })
    }

    /// The first seconds are over: the larger half of what was heard are complexes.
    fn learn(&mut self, found: &mut Vec<Complex>) {
        let mut heights: Vec<f32> = self.young.iter().map(|maximum| maximum.height).collect();
        heights.sort_by(f32::total_cmp);
        let usual = median(&heights[heights.len() / 2..]).unwrap_or(LEAST_COMPLEX).min(MOST_FIRST_HEIGHT);
        self.usual_heights.extend([usual; REMEMBERED]);
        self.usual_intervals.extend([FIRST_INTERVAL; REMEMBERED]);
        for maximum in std::mem::take(&mut self.young) {
            self.judge(maximum, found);
        }
    }

    fn judge(&mut self, maximum: Maximum, found: &mut Vec<Complex>) {
        if maximum.at - self.last.map_or(0, |last| last.at) > SILENT {
            self.usual_heights.iter_mut().for_each(|height| *height = (*height * SHRINK).max(LEAST_COMPLEX));
        }
        let usual = median(self.usual_heights.make_contiguous()).unwrap_or(LEAST_COMPLEX);
        self.search_back(maximum, usual, found);
        let since = self.last.map(|last| seconds(maximum.at - last.at));
        if since.is_some_and(|since| since < REFRACTORY) {
            return;
        }
        let mut least = THRESHOLD * usual;
        if let (Some(last), Some(since)) = (self.last, since)
            && since < T_WAVE.0
        {
            least = least.max(T_WAVE.1 * last.height.min(usual));
        }
        if maximum.height > least.max(LEAST_COMPLEX) {
            remember(&mut self.usual_heights, maximum.height.min(2.0 * usual));
            self.accept(maximum, found);
            self.pending.clear();
        } else {
            if self.pending.len() == MOST_PENDING {
                self.pending.pop_front();
            }
            self.pending.push_back(maximum);
        }
    }

    /// Where a complex is overdue at this maximum: takes the highest that was passed over.
    fn search_back(&mut self, now: Maximum, usual: f32, found: &mut Vec<Complex>) {
        let Some(last) = self.last else { return };
        let interval = f64::from(median(self.usual_intervals.make_contiguous()).unwrap_or(FIRST_INTERVAL));
        if (now.at - last.at) as f64 <= OVERDUE * interval {
            return;
        }
        let least = (SEARCH_BACK * usual).max(LEAST_COMPLEX / 2.0);
        let fits = |one: &&Maximum| {
            one.height > least
                && seconds(one.at - last.at) > SEARCH_APART.0
                && seconds(now.at.saturating_sub(one.at)) > SEARCH_APART.1
        };
        let best = self.pending.iter().filter(fits).max_by(|a, b| a.height.total_cmp(&b.height)).copied();
        if let Some(best) = best {
            self.accept(best, found);
            self.pending.retain(|one| one.at > best.at);
        }
    }

    fn accept(&mut self, maximum: Maximum, found: &mut Vec<Complex>) {
        if let Some(last) = self.last {
            remember(&mut self.usual_intervals, (maximum.at - last.at).min(MOST_INTERVAL) as f32);
        }
        self.last = Some(maximum);
        found.push(Complex { at: maximum.at, height: maximum.height });
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        self.leads.iter().for_each(|lead| lead.write(writer));
        self.heights.write(writer);
        writer.i64(self.pushed as i64);
        let last: Vec<Maximum> = self.last.into_iter().collect();
        let pending: Vec<Maximum> = self.pending.iter().copied().collect();
        for maxima in [&self.young, &last, &pending] {
            writer.u32(maxima.len() as u32);
            for maximum in maxima {
                writer.i64(maximum.at as i64);
                writer.f32(maximum.height);
            }
        }
        for usual in [&self.usual_heights, &self.usual_intervals] {
            writer.u32(usual.len() as u32);
            usual.iter().for_each(|value| writer.f32(*value));
        }
    }

    /// Reads itself back, for so many leads.
    pub(crate) fn read(reader: &mut Reader<'_>, leads: usize) -> Result<Self, ModelError> {
        let mut detector = Self::new(leads);
        detector.leads = (0..leads).map(|_| Envelope::read(reader)).collect::<Result<_, _>>()?;
        detector.heights.read(reader)?;
        detector.pushed = reader.index(u64::MAX)?;
        let (most, pushed) = (LEARNING as usize, detector.pushed);
        let maxima = |reader: &mut Reader<'_>| {
            let count = reader.count(most)?;
            let mut from = 0;
            (0..count)
                .map(|_| {
                    let maximum = Maximum { at: reader.index(pushed)?, height: reader.f32()? };
                    let is_later = maximum.at >= std::mem::replace(&mut from, maximum.at);
                    if is_later { Ok(maximum) } else { Err(reader.damaged("maxima are out of order")) }
                })
                .collect::<Result<Vec<_>, ModelError>>()
        };
        detector.young = maxima(reader)?;
        detector.last = maxima(reader)?.pop();
        detector.pending = maxima(reader)?.into();
        let usual = |reader: &mut Reader<'_>| {
            let count = reader.count(REMEMBERED)?;
            (0..count).map(|_| reader.f32()).collect::<Result<VecDeque<_>, ModelError>>()
        };
        (detector.usual_heights, detector.usual_intervals) = (usual(reader)?, usual(reader)?);
        if detector.last.is_some_and(|last| detector.pending.front().is_some_and(|one| one.at < last.at)) {
            return Err(reader.damaged("a maximum is older than the last complex"));
        }
        Ok(detector)
    }
}

fn seconds(samples: u64) -> f64 {
    samples as f64 / RATE_HZ
}

fn remember(values: &mut VecDeque<f32>, value: f32) {
    if values.len() == REMEMBERED {
        values.pop_front();
    }
    values.push_back(value);
}

/// The middle value; the mean of the two where there is none.
pub(crate) fn median(values: &[f32]) -> Option<f32> {
    let mut values = values.to_vec();
    values.sort_by(f32::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f32::midpoint(values[middle - 1], values[middle])),
    }
}
