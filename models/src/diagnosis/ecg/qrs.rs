//! QRS complexes in one lead of raw ECG, sample by sample.
//!
//! After M. Elgendi, "Fast QRS detection with an optimized knowledge-based method", PLoS ONE 8(9), 2013: band-pass 8 to
//! 20 Hz, square, and compare a mean over a QRS complex (97 ms) with a mean over a beat (611 ms) plus 8 % of the long
//! mean; where it is above for at least 97 ms there is a complex. The means are centred, so a complex is reported about 0.4 s
//! after it. Here the long mean forgets over [`LONG_MEAN`] seconds instead of being taken over a whole recording.
//!
//! Promises: constant memory, about 1.6 s of samples. Never: needs to know the unit or the amplifier's gain.

use super::filter::{Biquad, Ring};
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Hertz.
const PASS_BAND: (f64, f64) = (8.0, 20.0);
const QRS_SECONDS: f64 = 0.097;
const BEAT_SECONDS: f64 = 0.611;
const OFFSET: f64 = 0.08;
/// Seconds over which the long mean forgets.
const LONG_MEAN: f64 = 8.0;
/// Two complexes cannot be nearer.
const REFRACTORY_SECONDS: f64 = 0.25;
/// A complex is no longer: what goes on is noise, and is cut.
const MOST_SECONDS: f64 = 0.3;
/// Raw samples that are kept.
const RAW_SECONDS: f64 = 1.1;
/// By how much the band-pass delays.
const FILTER_DELAY_SECONDS: f64 = 0.02;
/// Half the window that a complex's width is measured in.
const AROUND_SECONDS: f64 = 0.12;

/// One complex.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Complex {
    /// Seconds from the first sample pushed to its peak.
    pub at: f64,
    /// How far the peak lies from the base line around it, in the unit of the samples.
    pub amplitude: f64,
    /// Area under the complex over its amplitude, in seconds: narrow about 0.035, broad above 0.06.
    pub width: f64,
}

/// A stretch in which the short mean is above the long one.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    from: u64,
    peak: u64,
    height: f32,
}

/// The detector for an unbroken signal.
#[derive(Clone, Debug)]
pub struct QrsDetector {
    rate_hz: f64,
    high_pass: Biquad,
    low_pass: Biquad,
    raw: Ring,
    squares: Ring,
    /// The mean of the squares over a long time.
    long_mean: f64,
    pushed: u64,
    block: Option<Block>,
    last: Option<u64>,
}

impl QrsDetector {
    /// For samples at this rate, 100 to 1,000 Hz.
    pub fn new(rate_hz: f64) -> Self {
        let samples = |seconds: f64| (seconds * rate_hz).round() as usize;
        Self {
            rate_hz,
            high_pass: Biquad::high_pass(PASS_BAND.0, rate_hz),
            low_pass: Biquad::low_pass(PASS_BAND.1, rate_hz),
            raw: Ring::new(samples(RAW_SECONDS)),
            squares: Ring::new(samples(BEAT_SECONDS) | 1),
            long_mean: 0.0,
            pushed: 0,
            block: None,
            last: None,
        }
    }

    /// Samples a second.
    pub const fn rate_hz(&self) -> f64 {
        self.rate_hz
    }

    /// Forgets the signal after a gap, but not how large it is.
    pub fn restart(&mut self) {
        *self = Self { long_mean: self.long_mean, ..Self::new(self.rate_hz) };
    }

    /// Takes a sample; gives a complex where one is now known to be over.
    pub fn push(&mut self, sample: f64) -> Option<Complex> {
        self.raw.push(sample as f32);
        // Starting from the first value instead of 0 keeps an electrode's offset from ringing.
        let passed = self.low_pass.next(self.high_pass.next(sample));
        let square = (passed * passed) as f32;
        self.squares.push(square);
        self.pushed += 1;
        let rate = (1.0 / (LONG_MEAN * self.rate_hz)).max(1.0 / self.pushed as f64);
        let is_young = self.long_mean == 0.0 || (self.pushed as f64) < self.rate_hz;
        self.long_mean += if is_young { 0.02_f64.max(rate) } else { rate } * (f64::from(square) - self.long_mean);
        if !self.squares.is_full() {
            return None;
        }
        self.step()
    }

    /// Judges the sample in the middle of the long window.
    fn step(&mut self) -> Option<Complex> {
        let half = self.squares.len() / 2;
        let centre = self.pushed - 1 - half as u64;
        let side = (QRS_SECONDS * self.rate_hz / 2.0).round() as usize;
        let short = self.squares.sum_around(half, side) / (2 * side + 1) as f64;
        let long = self.squares.sum() / self.squares.len() as f64;
        let height = self.squares.newest(half);
        let is_above = short > long + OFFSET * self.long_mean;
        let most = (MOST_SECONDS * self.rate_hz) as u64;
        match (&mut self.block, is_above) {
            (None, true) => {
                self.block = Some(Block { from: centre, peak: centre, height });
                None
            }
            (Some(block), true) if centre - block.from < most => {
                if height > block.height {
                    (block.peak, block.height) = (centre, height);
                }
                None
            }
            (Some(_), _) => self.block.take().and_then(|block| self.end(block, centre)),
            (None, false) => None,
        }
    }

    fn end(&mut self, block: Block, centre: u64) -> Option<Complex> {
        let seconds = |samples: u64| samples as f64 / self.rate_hz;
        let is_long = seconds(centre - block.from) >= QRS_SECONDS;
        let is_apart = self.last.is_none_or(|last| seconds(block.peak - last) >= REFRACTORY_SECONDS);
        if !(is_long && is_apart) {
            return None;
        }
        self.last = Some(block.peak);
        let delay = (FILTER_DELAY_SECONDS * self.rate_hz) as u64;
        let peak = block.peak.saturating_sub(delay);
        let (amplitude, width) = self.shape(peak);
        Some(Complex { at: seconds(peak), amplitude, width })
    }

    /// Amplitude and width of the complex around a sample.
    fn shape(&self, peak: u64) -> (f64, f64) {
        let back = (self.pushed - 1 - peak) as usize;
        let around = (AROUND_SECONDS * self.rate_hz) as usize;
        let newest = back.saturating_sub(around);
        let oldest = (back + around).min(self.raw.len().saturating_sub(1));
        let mut values: Vec<f32> = (newest..=oldest).map(|back| self.raw.newest(back)).collect();
        let samples = values.clone();
        values.sort_by(f32::total_cmp);
        let base = f64::from(values.get(values.len() / 2).copied().unwrap_or(0.0));
        let off = samples.iter().map(|value| (f64::from(*value) - base).abs());
        let amplitude = off.clone().fold(0.0, f64::max);
        let area: f64 = off.sum::<f64>() / self.rate_hz;
        (amplitude, if amplitude > 0.0 { area / amplitude } else { 0.0 })
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64(self.rate_hz);
        self.high_pass.write(writer);
        self.low_pass.write(writer);
        self.raw.write(writer);
        self.squares.write(writer);
        writer.f64(self.long_mean);
        writer.i64(self.pushed as i64);
        let block = self.block.unwrap_or_default();
        writer.u8(u8::from(self.block.is_some()));
        writer.i64(block.from as i64);
        writer.i64(block.peak as i64);
        writer.f32(block.height);
        writer.u8(u8::from(self.last.is_some()));
        writer.i64(self.last.unwrap_or(0) as i64);
    }

    /// Reads itself back.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let rate_hz = reader.f64()?;
        if !super::RATES_HZ.contains(&rate_hz) {
            return Err(reader.damaged("a rate is out of range"));
        }
        let mut detector = Self::new(rate_hz);
        detector.high_pass.read(reader)?;
        detector.low_pass.read(reader)?;
        detector.raw.read(reader)?;
        detector.squares.read(reader)?;
        detector.long_mean = reader.f64()?;
        let index =
            |reader: &mut Reader<'_>| u64::try_from(reader.i64()?).map_err(|_| reader.damaged("an index is negative"));
        detector.pushed = index(reader)?;
        let has_block = reader.u8()? == 1;
        let block = Block { from: index(reader)?, peak: index(reader)?, height: reader.f32()? };
        detector.block = has_block.then_some(block);
        let has_last = reader.u8()? == 1;
        let last = index(reader)?;
        detector.last = has_last.then_some(last);
        let pushed = detector.pushed;
        if block.from > pushed || block.peak > pushed || last > pushed || block.from > block.peak {
            return Err(reader.damaged("an index is out of range"));
        }
        Ok(detector)
    }
}
