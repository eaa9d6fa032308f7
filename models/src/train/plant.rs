//! Simulated plants, so that the multivariate detector learns what a fault looks like beside ordinary wandering: devices of several
//! sensors with noise, drift, cycles and common causes, in which some sensors are at fault for some rows.
//!
//! Labels are exact because the faults are ours: a field is at fault in a row or it is not. Faults: steps, ramps with and
//! without a return, slow approaches, lost or added scatter, added oscillation.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::simulate::{log_uniform, normal};

/// A simulated device.
pub struct Plant {
    /// Number of fields.
    pub fields: usize,
    /// Values, row-major.
    pub values: Vec<f64>,
    /// Whether a field is at fault in a row, in the order of `values`.
    pub faulty: Vec<bool>,
}

/// Rows between the end of a fault and the next.
const PAUSE: std::ops::Range<usize> = 60..400;
/// How long a fault lasts, in rows.
const LENGTH: (f64, f64) = (15.0, 500.0);
/// How large a fault is, in units of the field.
const SIZE: (f64, f64) = (1.0, 15.0);
/// The chance of another fault.
const AGAIN: f64 = 0.85;

/// A device of `fields` sensors over `rows` rows, without faults in the first `normal_rows`.
pub fn simulate_plant(fields: usize, rows: usize, normal_rows: usize, rng: &mut ChaCha8Rng) -> Plant {
    let mut sensors: Vec<Sensor> = (0..fields).map(|_| Sensor::draw(rng)).collect();
    let common_size = log_uniform(rng, 0.05, 1.0);
    let mut common = 0.0;
    let mut columns = vec![Vec::with_capacity(rows); fields];
    for row in 0..rows {
        common = 0.995 * common + 0.1 * normal(rng);
        for (sensor, column) in sensors.iter_mut().zip(&mut columns) {
            column.push(sensor.next(row as f64, common * common_size, rng));
        }
    }
    let mut plant = Plant { fields, values: vec![0.0; rows * fields], faulty: vec![false; rows * fields] };
    add_faults(&mut columns, normal_rows, &mut plant.faulty, rng);
    for (index, (sensor, column)) in sensors.iter().zip(&columns).enumerate() {
        for (row, value) in column.iter().enumerate() {
            plant.values[row * fields + index] = sensor.shown(*value);
        }
    }
    plant
}

/// A sensor's world; everything before unit and offset is of the order of 1.
struct Sensor {
    white: f64,
    /// Whether the noise now and then is much larger.
    is_heavy: bool,
    sticky: f64,
    stickiness: f64,
    wander: f64,
    drift: f64,
    cycle: f64,
    period: f64,
    phase: f64,
    is_sawtooth: bool,
    loading: f64,
    digit: f64,
    unit: f64,
    offset: f64,
    now_sticky: f64,
    now_wander: f64,
}

impl Sensor {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut often = |share: f64, least: f64, most: f64| {
            let value = log_uniform(rng, least, most);
            if rng.random::<f64>() < share { value } else { 0.0 }
        };
        let (white, sticky, wander) = (often(0.95, 0.05, 1.0), often(0.5, 0.1, 1.0), often(0.5, 0.05, 3.0));
        let (drift, cycle, digit) = (often(0.2, 0.2, 4.0), often(0.3, 0.1, 2.0), often(0.2, 0.01, 0.5));
        let loading = if rng.random::<bool>() { normal(rng) } else { 0.0 };
        let sign = if rng.random::<bool>() { 1.0 } else { -1.0 };
        Self {
            white,
            is_heavy: rng.random::<f64>() < 0.3,
            sticky,
            stickiness: (-1.0 / log_uniform(rng, 2.0, 60.0)).exp(),
            // Over 400 rows it wanders that far.
            wander: wander / 20.0,
            drift: sign * drift / 400.0,
            cycle,
            period: log_uniform(rng, 6.0, 500.0),
            phase: rng.random_range(0.0..1.0),
            is_sawtooth: rng.random::<f64>() < 0.4,
            loading,
            digit,
            unit: log_uniform(rng, 1e-3, 1e3),
            offset: 100.0 * normal(rng),
            now_sticky: 0.0,
            now_wander: 0.0,
        }
    }

    fn next(&mut self, row: f64, common: f64, rng: &mut ChaCha8Rng) -> f64 {
        let heavy = if self.is_heavy { (0.7 * normal(rng)).exp() } else { 1.0 };
        let fresh = (1.0 - self.stickiness * self.stickiness).sqrt();
        self.now_sticky = self.stickiness * self.now_sticky + fresh * normal(rng);
        self.now_wander += self.wander * normal(rng);
        let turn = row / self.period + self.phase;
        let cycle =
            if self.is_sawtooth { 2.0 * turn.rem_euclid(1.0) - 1.0 } else { (std::f64::consts::TAU * turn).sin() };
        let noise = self.white * heavy * normal(rng) + self.sticky * self.now_sticky;
        noise + self.now_wander + self.drift * row + self.cycle * cycle + self.loading * common
    }

    fn shown(&self, value: f64) -> f64 {
        let value = if self.digit > 0.0 { (value / self.digit).round() * self.digit } else { value };
        self.offset + self.unit * value
    }
}

/// Puts faults upon columns after `normal_rows`, and notes in `faulty`, row-major, where.
pub(super) fn add_faults(columns: &mut [Vec<f64>], normal_rows: usize, faulty: &mut [bool], rng: &mut ChaCha8Rng) {
    let (fields, rows) = (columns.len(), columns[0].len());
    let sizes: Vec<f64> = columns.iter().map(|column| typical_size(&column[..normal_rows])).collect();
    let mut start = normal_rows + rng.random_range(0..300);
    while start + 3 < rows && rng.random::<f64>() < AGAIN {
        let end = rows.min(start + 3 + log_uniform(rng, LENGTH.0, LENGTH.1) as usize);
        let count = if rng.random::<bool>() { 1 } else { rng.random_range(1..=fields) };
        let first = rng.random_range(0..fields);
        for field in (first..first + count).map(|field| field % fields) {
            let size = log_uniform(rng, SIZE.0, SIZE.1) * sizes[field];
            distort(&mut columns[field][start..end], size, rng);
            (start..end).for_each(|row| faulty[row * fields + field] = true);
        }
        start = end + rng.random_range(PAUSE);
    }
}

/// Between how much a field jumps from row to row and how much it varies at all.
fn typical_size(values: &[f64]) -> f64 {
    let count = values.len().max(2) as f64;
    let jumps = values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).sum::<f64>() / count;
    let mean = values.iter().sum::<f64>() / count;
    let spread = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    ((jumps / 1.128 + 1e-3) * spread.max(1e-3)).sqrt()
}

/// Puts a fault of this size on some rows of a field.
fn distort(values: &mut [f64], size: f64, rng: &mut ChaCha8Rng) {
    let count = values.len() as f64;
    let level = if rng.random::<bool>() { size } else { -size };
    let (rise, fall) = (rng.random_range(0.02..0.5), rng.random_range(0.02..0.3));
    let pace = rng.random_range(2.0..10.0);
    let period = log_uniform(rng, 4.0, 60.0);
    let scatter = if rng.random::<f64>() < 0.4 { rng.random_range(0.0..0.3) } else { rng.random_range(2.0..6.0) };
    let added = if rng.random::<bool>() { 0.5 * size } else { 0.0 };
    let kind = rng.random_range(0..8);
    let mean = values.iter().sum::<f64>() / count;
    for (row, value) in values.iter_mut().enumerate() {
        let done = row as f64 / count;
        *value = match kind {
            0 | 1 => *value + level,
            2 | 3 => *value + level * (done / rise).min((1.0 - done) / fall).min(1.0),
            4 => *value + level * (1.0 - (-done * pace).exp()),
            5 => mean + scatter * (*value - mean) + added * normal(rng),
            6 => *value + size * (std::f64::consts::TAU * row as f64 / period).sin(),
            _ => *value + level * done,
        };
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn faults_come_after_the_normal_rows_and_the_seed_decides() {
        let plant = |seed| simulate_plant(5, 900, 300, &mut ChaCha8Rng::seed_from_u64(seed));
        let mut share = 0.0;
        for seed in 0..20 {
            let (one, same) = (plant(seed), plant(seed));
            assert!(one.values == same.values && one.values.iter().all(|value| value.is_finite()));
            assert!(one.faulty[..300 * 5].iter().all(|faulty| !faulty));
            share += one.faulty.iter().filter(|faulty| **faulty).count() as f64 / (20.0 * 600.0 * 5.0);
        }
        assert!((0.05..0.5).contains(&share), "{share}");
        assert_ne!(plant(1).values, plant(2).values);
    }
}
