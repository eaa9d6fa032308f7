//! Simulated sensor series, so that the forecaster knows more worlds than one benchmark: rhythms of days and weeks, slow
//! wandering, bursts, steps, dead sensors, coarse digits, at intervals from a second to an hour.
//!
//! No anomalies are labelled: the network only learns what comes next.

use nearside_schemas::Timestamp;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Times and values of a series.
pub type SimulatedSeries = (Vec<Timestamp>, Vec<f64>);

/// Seconds between rows, as sensors have them.
const INTERVALS: [i64; 7] = [1, 10, 60, 300, 900, 1_800, 3_600];
/// 2020-01-06, a Monday.
const START: i64 = 1_578_268_800;
const DAY: f64 = 86_400.0;

/// `count` series of `rows` rows each. The same seed gives the same series.
pub fn simulate(count: usize, rows: usize, seed: u64) -> Vec<SimulatedSeries> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| series(&mut rng, rows)).collect()
}

fn series(rng: &mut ChaCha8Rng, rows: usize) -> SimulatedSeries {
    let world = World::draw(rng);
    let mut times = Vec::with_capacity(rows);
    let mut values = Vec::with_capacity(rows);
    let (mut wander, mut slow, mut step, mut burst) = (0.0, 0.0, 0.0, 0.0);
    let mut time = START + rng.random_range(0..7 * 86_400);
    for _ in 0..rows {
        wander = world.stickiness * wander + normal(rng) * (1.0 - world.stickiness * world.stickiness).sqrt();
        slow += normal(rng) * world.drift;
        if rng.random::<f64>() < world.steps {
            step += normal(rng) * 3.0;
        }
        burst = if rng.random::<f64>() < world.bursts { normal(rng).abs() * 8.0 } else { burst * world.burst_decay };
        let rhythm = world.rhythm(time as f64);
        // Where a signal is high it is often noisy too.
        let noise = world.noise * (1.0 + world.unevenness * rhythm.max(0.0));
        let mut value = world.amplitude * rhythm + noise * wander + slow + step + burst;
        if world.is_count {
            value = value.max(0.0).round();
        }
        if world.digit > 0.0 {
            value = (value / world.digit).round() * world.digit;
        }
        times.push(Timestamp::from_secs(time));
        values.push(world.offset + world.unit * value);
        let gap = if rng.random::<f64>() < world.gaps { rng.random_range(2..50) } else { 1 };
        time += world.interval * gap;
    }
    (times, values)
}

/// What a sensor's world is like; everything before unit and offset is of the order of 1.
struct World {
    interval: i64,
    gaps: f64,
    amplitude: f64,
    phase: f64,
    sharpness: f64,
    weekend: f64,
    noise: f64,
    unevenness: f64,
    stickiness: f64,
    drift: f64,
    steps: f64,
    bursts: f64,
    burst_decay: f64,
    is_count: bool,
    digit: f64,
    unit: f64,
    offset: f64,
}

impl World {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut often = |share: f64, value: f64| if rng.random::<f64>() < share { value } else { 0.0 };
        let (amplitude, weekend, unevenness) = (often(0.6, 2.0), often(0.5, 0.7), often(0.4, 1.5));
        let (drift, steps, bursts, gaps) = (often(0.3, 0.02), often(0.3, 0.001), often(0.5, 0.01), often(0.3, 0.005));
        let (digit, is_count) = (often(0.3, 0.5), often(0.2, 1.0) > 0.0);
        Self {
            interval: INTERVALS[rng.random_range(0..INTERVALS.len())],
            gaps,
            amplitude: amplitude * rng.random_range(0.3..2.0),
            phase: rng.random_range(0.0..DAY),
            sharpness: rng.random_range(0.0..3.0),
            weekend,
            noise: 10_f64.powf(rng.random_range(-2.5..0.3)),
            unevenness,
            stickiness: [0.0, 0.5, 0.9, 0.98][rng.random_range(0..4)],
            drift,
            steps,
            bursts,
            burst_decay: rng.random_range(0.0..0.95),
            is_count,
            digit,
            unit: 10_f64.powf(rng.random_range(-3.0..6.0)),
            offset: if rng.random::<bool>() { 10_f64.powf(rng.random_range(-2.0..5.0)) } else { 0.0 },
        }
    }

    /// The rhythm of day and week: a hump each day, flatter at the weekend.
    fn rhythm(&self, time: f64) -> f64 {
        let angle = std::f64::consts::TAU * (time - self.phase) / DAY;
        let hump = (self.sharpness * (angle.cos() - 1.0)).exp() + 0.3 * (2.0 * angle).sin();
        let is_weekend = (time - START as f64).rem_euclid(7.0 * DAY) >= 5.0 * DAY;
        if is_weekend { hump * (1.0 - self.weekend) } else { hump }
    }
}

/// A standard normal number, by Box and Muller.
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// Uniform in the logarithm.
pub(crate) fn log_uniform(rng: &mut ChaCha8Rng, least: f64, most: f64) -> f64 {
    rng.random_range(least.ln()..most.ln()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides() {
        assert_eq!(simulate(3, 200, 1), simulate(3, 200, 1));
        assert_ne!(simulate(3, 200, 1), simulate(3, 200, 2));
    }

    #[test]
    fn times_ascend_and_values_are_finite() {
        for (times, values) in simulate(40, 300, 5) {
            assert!(times.is_sorted_by(|a, b| a < b));
            assert!(values.iter().all(|value| value.is_finite()));
            assert_eq!((times.len(), values.len()), (300, 300));
        }
    }
}
