//! A line through averages: that they move one way for longer than a few of them, by little from one to the next.
//!
//! The last [`POINTS`] averages have a straight line through them. It is a drift where the line rises or falls by much more than it usually
//! does, explains nearly all of their differences, and clearly better than a step between two levels does.

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Averages that the line goes through.
pub const POINTS: usize = 18;
/// Averages before a drift is told.
const WARM_UP: u32 = 3 * POINTS as u32;
/// Rate at which the usual rise is learnt, and the largest that is learnt from, in such rises.
const RATE: f32 = 1.0 / 256.0;
const CUT: f32 = 3.0;
/// A drift rises by so many usual rises.
const RISE: f32 = 6.0;
/// What share of the differences the line leaves unexplained, and of what a step does.
const UNEXPLAINED: f32 = 0.15;
const CLEARLY: f32 = 0.5;

/// Averages of one field.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    /// The newest last.
    points: [f32; POINTS],
    count: u32,
    /// The size of a usual rise.
    usual: f32,
}

impl Trend {
    /// Takes an average in; whether the last ones drift.
    pub fn take(&mut self, point: f32) -> bool {
        self.points.copy_within(1.., 0);
        self.points[POINTS - 1] = point;
        self.count = self.count.saturating_add(1);
        if self.count < POINTS as u32 {
            return false;
        }
        let mean = mean(&self.points);
        let rise = self.rise(mean);
        let is_drift = self.count >= WARM_UP && rise.abs() > RISE * self.usual && self.is_line(mean, rise);
        self.learn(rise.abs());
        is_drift
    }

    /// By how much the line of least squares rises from the first to the last.
    fn rise(&self, mean: f32) -> f32 {
        let (mut both, mut squares) = (0.0, 0.0);
        for (at, point) in self.points.iter().enumerate() {
            let place = place(at);
            both += place * (point - mean);
            squares += place * place;
        }
        (POINTS - 1) as f32 * both / squares
    }

    fn is_line(&self, mean: f32, rise: f32) -> bool {
        let per_point = rise / (POINTS - 1) as f32;
        let off = |at: usize, point: f32| (point - mean - per_point * place(at)).powi(2);
        let left: f32 = self.points.iter().enumerate().map(|(at, point)| off(at, *point)).sum();
        let by_step = (1..POINTS).map(|at| {
            let (before, after) = self.points.split_at(at);
            squares(before) + squares(after)
        });
        left < UNEXPLAINED * squares(&self.points) && left < CLEARLY * by_step.fold(f32::MAX, f32::min)
    }

    fn learn(&mut self, rise: f32) {
        let known = self.count + 1 - POINTS as u32;
        let rise = if known > POINTS as u32 { rise.min(CUT * self.usual) } else { rise };
        self.usual += RATE.max(1.0 / known as f32) * (rise - self.usual);
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        self.points.into_iter().for_each(|point| writer.f32(point));
        writer.u32(self.count);
        writer.f32(self.usual);
    }

    /// Reads itself back.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut trend = Self::default();
        for point in &mut trend.points {
            *point = reader.f32()?;
        }
        (trend.count, trend.usual) = (reader.u32()?, reader.f32()?.max(0.0));
        Ok(trend)
    }
}

fn mean(points: &[f32]) -> f32 {
    points.iter().sum::<f32>() / points.len() as f32
}

/// Of the differences to the mean.
fn squares(points: &[f32]) -> f32 {
    let mean = mean(points);
    points.iter().map(|point| (point - mean).powi(2)).sum()
}

/// Of a point on the line, from the middle.
fn place(at: usize) -> f32 {
    at as f32 - 0.5 * (POINTS - 1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not random, and without a rhythm: -1 to 1.
    fn noise(row: usize) -> f32 {
        let mixed = (row as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Points from 100 on at which there is a drift, of 200.
    fn drifts(seed: usize, change: impl Fn(f32) -> f32) -> Vec<usize> {
        let mut trend = Trend::default();
        let mut take = |row: usize| trend.take(noise(seed * 1_000 + row) + change((row as f32 - 100.0).max(0.0)));
        (0..200).filter(|row| take(*row)).map(|row| row - 100).collect()
    }

    #[test]
    fn a_slow_rise_is_a_drift_before_it_has_gone_on_for_all_points() {
        for seed in 0..20 {
            let found = drifts(seed, |since| 0.6 * since);
            assert!(found.first().is_some_and(|row| *row <= POINTS), "{seed}: {found:?}");
        }
    }

    #[test]
    fn noise_a_step_and_a_wave_are_none() {
        for seed in 0..20 {
            assert!(drifts(seed, |_| 0.0).is_empty(), "{seed}: noise");
            let step = |since: f32| if since > 0.0 { 30.0 } else { 0.0 };
            assert!(drifts(seed, step).is_empty(), "{seed}: a step");
            let wave = |since: f32| 10.0 * (std::f32::consts::TAU * since / POINTS as f32).sin();
            assert!(drifts(seed, wave).is_empty(), "{seed}: a wave");
        }
    }
}
