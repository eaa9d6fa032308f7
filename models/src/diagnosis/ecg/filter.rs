//! Second-order filters and a ring of samples with its running sum.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// A second-order Butterworth section in transposed direct form II; coefficients by the bilinear transform
/// (R. Bristow-Johnson, "Audio EQ Cookbook").
#[derive(Clone, Debug)]
pub(super) struct Biquad {
    b: [f64; 3],
    a: [f64; 2],
    state: [f64; 2],
    /// Before the first sample: the state is then set as if that value had stood for ever.
    is_new: bool,
}

impl Biquad {
    /// Lets through what is above `corner_hz`.
    pub(super) fn high_pass(corner_hz: f64, rate_hz: f64) -> Self {
        Self::new(corner_hz, rate_hz, |cos| {
            let outer = f64::midpoint(1.0, cos);
            [outer, -2.0 * outer, outer]
        })
    }

    /// Lets through what is below `corner_hz`.
    pub(super) fn low_pass(corner_hz: f64, rate_hz: f64) -> Self {
        Self::new(corner_hz, rate_hz, |cos| {
            let outer = (1.0 - cos) / 2.0;
            [outer, 2.0 * outer, outer]
        })
    }

    fn new(corner_hz: f64, rate_hz: f64, b: impl Fn(f64) -> [f64; 3]) -> Self {
        let (sin, cos) = (TAU * corner_hz / rate_hz).sin_cos();
        // A Butterworth section has Q = 1/√2.
        let alpha = sin / (2.0 * FRAC_1_SQRT_2);
        let a0 = 1.0 + alpha;
        Self {
            b: b(cos).map(|coefficient| coefficient / a0),
            a: [-2.0 * cos / a0, (1.0 - alpha) / a0],
            state: [0.0; 2],
            is_new: true,
        }
    }

    /// The output for the next sample.
    pub(super) fn next(&mut self, x: f64) -> f64 {
        if self.is_new {
            self.is_new = false;
            let gain: f64 = self.b.iter().sum::<f64>() / (1.0 + self.a.iter().sum::<f64>());
            let y = gain * x;
            self.state = [y - self.b[0] * x, self.b[2] * x - self.a[1] * y];
        }
        let y = self.b[0] * x + self.state[0];
        self.state = [self.b[1] * x - self.a[0] * y + self.state[1], self.b[2] * x - self.a[1] * y];
        y
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u8(u8::from(self.is_new));
        self.state.iter().for_each(|value| writer.f64(*value));
    }

    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        self.is_new = reader.u8()? == 1;
        self.state = [reader.f64()?, reader.f64()?];
        Ok(())
    }
}

/// Brings samples of any rate to [`RATE_HZ`](super::RATE_HZ): a low-pass at [`Resampler::CORNER_HZ`], then a straight line between samples.
#[derive(Clone, Debug)]
pub(super) struct Resampler {
    low_pass: Biquad,
    /// Samples taken for one given.
    step: f64,
    last: f64,
    /// Where the next one to give lies after the last taken, in samples.
    next: f64,
    is_new: bool,
}

impl Resampler {
    /// What is above is of no use to tell beats apart.
    const CORNER_HZ: f64 = 40.0;

    /// From this rate, above twice the corner.
    pub(super) fn new(rate_hz: f64) -> Self {
        let low_pass = Biquad::low_pass(Self::CORNER_HZ, rate_hz);
        Self { low_pass, step: rate_hz / super::RATE_HZ, last: 0.0, next: 0.0, is_new: true }
    }

    /// The rate of what it takes.
    pub(super) const fn rate_hz(&self) -> f64 {
        self.step * super::RATE_HZ
    }

    /// Takes a sample and appends those that lie up to it.
    pub(super) fn push(&mut self, sample: f64, given: &mut Vec<f64>) {
        let sample = self.low_pass.next(sample);
        if std::mem::take(&mut self.is_new) {
            given.push(sample);
            self.next = self.step;
        } else {
            while self.next <= 1.0 {
                given.push(self.last + self.next * (sample - self.last));
                self.next += self.step;
            }
            self.next -= 1.0;
        }
        self.last = sample;
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.f64(self.rate_hz());
        self.low_pass.write(writer);
        writer.f64(self.last);
        writer.f64(self.next);
        writer.u8(u8::from(self.is_new));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let rate_hz = reader.f64()?;
        if !super::RATES_HZ.contains(&rate_hz) {
            return Err(reader.damaged("a rate is out of range"));
        }
        let mut resampler = Self::new(rate_hz);
        resampler.low_pass.read(reader)?;
        (resampler.last, resampler.next) = (reader.f64()?, reader.f64()?);
        resampler.is_new = reader.u8()? == 1;
        // One far in the past would make one push give without end.
        if !(0.0..=resampler.step).contains(&resampler.next) {
            return Err(reader.damaged("a place between samples is out of range"));
        }
        Ok(resampler)
    }
}

/// The last samples, and the sum of them.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    samples: Vec<f32>,
    next: usize,
    filled: usize,
    sum: f64,
}

impl Ring {
    pub(super) fn new(len: usize) -> Self {
        Self { samples: vec![0.0; len.max(1)], next: 0, filled: 0, sum: 0.0 }
    }

    pub(super) fn push(&mut self, sample: f32) {
        self.sum += f64::from(sample) - f64::from(self.samples[self.next]);
        self.samples[self.next] = sample;
        self.next += 1;
        self.filled = (self.filled + 1).min(self.samples.len());
        if self.next == self.samples.len() {
            self.next = 0;
            // What adding and subtracting has rounded away does not pile up.
            self.sum = self.samples.iter().map(|sample| f64::from(*sample)).sum();
        }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.filled == self.samples.len()
    }

    pub(super) const fn sum(&self) -> f64 {
        self.sum
    }

    /// The sample `back` pushes before the newest; 0 before the first.
    pub(super) fn newest(&self, back: usize) -> f32 {
        let len = self.samples.len();
        self.samples[(self.next + 2 * len - 1 - back.min(len - 1)) % len]
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.filled as u32);
        (0..self.filled).rev().for_each(|back| writer.f32(self.newest(back)));
        writer.u32(self.next as u32);
        writer.f64(self.sum);
    }

    /// Reads the samples of a ring of the same length back.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        let filled = reader.count(self.samples.len())?;
        let samples = (0..filled).map(|_| reader.f32()).collect::<Result<Vec<_>, _>>()?;
        let next = reader.count(self.samples.len() - 1)?;
        let len = self.samples.len();
        for (index, sample) in samples.iter().enumerate() {
            self.samples[(next + len - filled + index) % len] = *sample;
        }
        (self.filled, self.next, self.sum) = (filled, next, reader.f64()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest output for a sine of this frequency, after it has settled.
    fn gain(filter: &mut Biquad, frequency_hz: f64) -> f64 {
        let outputs = (0..2_000).map(|i| filter.next((TAU * frequency_hz * f64::from(i) / 250.0).sin()));
        outputs.skip(1_000).fold(0.0, |most, y| most.max(y.abs()))
    }

    #[test]
    fn corners_are_where_they_should_be() {
        assert!((gain(&mut Biquad::high_pass(8.0, 250.0), 8.0) - FRAC_1_SQRT_2).abs() < 0.02);
        assert!((gain(&mut Biquad::low_pass(20.0, 250.0), 20.0) - FRAC_1_SQRT_2).abs() < 0.02);
        assert!(gain(&mut Biquad::high_pass(8.0, 250.0), 1.0) < 0.03);
        assert!(gain(&mut Biquad::low_pass(20.0, 250.0), 80.0) < 0.06);
    }

    #[test]
    fn a_constant_does_not_ring() {
        let mut filter = Biquad::high_pass(8.0, 250.0);
        assert!((0..100).all(|_| filter.next(1_000.0).abs() < 1e-6));
        let mut filter = Biquad::low_pass(8.0, 250.0);
        assert!((0..100).all(|_| (filter.next(1_000.0) - 1_000.0).abs() < 1e-6));
    }

    #[test]
    fn a_ring_knows_its_last_samples() {
        let mut ring = Ring::new(5);
        (0..13_u8).for_each(|value| ring.push(f32::from(value)));
        assert_eq!((0..5).map(|back| ring.newest(back)).collect::<Vec<_>>(), [12.0, 11.0, 10.0, 9.0, 8.0]);
        assert_eq!((ring.sum(), ring.is_full()), (50.0, true));
        let mut writer = Writer::new(1);
        ring.write(&mut writer);
        let bytes = writer.finish();
        let mut read = Ring::new(5);
        read.read(&mut Reader::new("m", 1, &bytes).unwrap()).unwrap();
        assert_eq!((read.samples, read.next, read.sum), (ring.samples, ring.next, ring.sum));
    }
}
