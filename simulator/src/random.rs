//! Seeded randomness: the distributions the fleet is made of.
//!
//! Promises: the same seed and stream give the same numbers on every machine with the same floating point library.
//! Never: reads the system's entropy.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One independent source of random numbers.
pub(crate) struct Random {
    rng: ChaCha8Rng,
    /// The polar method yields two normal numbers at a time; the second waits here.
    spare: Option<f64>,
}

impl Random {
    /// The source with number `stream` under `seed`. Sources of different numbers are independent, so that one device
    /// more in the fleet changes nothing for the others.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self { rng, spare: None }
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.rng.random::<f64>()
    }

    /// Uniform in `[low, high)`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in `0..n`; 0 where `n` is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { self.rng.random_range(0..n) }
    }

    /// One of `items`, which a caller writes as a non-empty list.
    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, items: &[T; N]) -> T {
        const { assert!(N > 0) };
        items[self.below(N)]
    }

    /// True with probability `p`.
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Normal with mean 0 and variance 1, by Marsaglia's polar method.
    pub(crate) fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (u, v) = (self.between(-1.0, 1.0), self.between(-1.0, 1.0));
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                let factor = (-2.0 * s.ln() / s).sqrt();
                self.spare = Some(v * factor);
                return u * factor;
            }
        }
    }

    /// Exponential with this mean.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }

    /// Poisson with this mean: Knuth's product for small means, the rounded normal above 30, where they hardly differ.
    pub(crate) fn poisson(&mut self, mean: f64) -> u32 {
        if mean > 30.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u32;
        }
        let limit = (-mean.max(0.0)).exp();
        let (mut count, mut product) = (0, self.uniform());
        while product > limit {
            count += 1;
            product *= self.uniform();
        }
        count
    }
}

/// An Ornstein-Uhlenbeck process with mean 0 and variance 1: noise that remembers for about `tau` seconds.
/// Stepped by its exact transition, so that any step width gives the same process.
pub(crate) struct SlowNoise {
    value: f64,
    tau: f64,
}

impl SlowNoise {
    /// A process in its stationary state.
    pub(crate) fn new(tau: f64, random: &mut Random) -> Self {
        Self { value: random.normal(), tau }
    }

    /// Moves on by `dt` seconds.
    pub(crate) fn step(&mut self, dt: f64, random: &mut Random) -> f64 {
        let keep = (-dt.max(0.0) / self.tau).exp();
        self.value = keep * self.value + (1.0 - keep * keep).sqrt() * random.normal();
        // Three deviations are weather, more would be an incident that nobody placed.
        self.value = self.value.clamp(-3.0, 3.0);
        self.value
    }

    /// Where it is.
    pub(crate) fn value(&self) -> f64 {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let n = 20_000;
        let values: Vec<f64> = (0..n).map(|_| draw()).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64)
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut random = Random::new(1, 2);
        let (mean, variance) = moments(|| random.normal());
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        for expected in [0.4, 7.0, 80.0] {
            let (mean, variance) = moments(|| f64::from(random.poisson(expected)));
            assert!((mean / expected - 1.0).abs() < 0.05, "{mean} for {expected}");
            assert!((variance / expected - 1.0).abs() < 0.1, "{variance} for {expected}");
        }
        let (mean, _) = moments(|| random.exponential(5.0));
        assert!((mean - 5.0).abs() < 0.2, "{mean}");
    }

    #[test]
    fn slow_noise_is_correlated_over_its_tau_and_not_beyond() {
        let mut random = Random::new(3, 0);
        let mut noise = SlowNoise::new(100.0, &mut random);
        let values: Vec<f64> = (0..50_000).map(|_| noise.step(10.0, &mut random)).collect();
        let correlation =
            |lag: usize| values.iter().zip(&values[lag..]).map(|(a, b)| a * b).sum::<f64>() / values.len() as f64;
        assert!((correlation(10) - (-1.0f64).exp()).abs() < 0.1, "{}", correlation(10));
        assert!(correlation(100).abs() < 0.1, "{}", correlation(100));
    }

    #[test]
    fn streams_of_one_seed_differ() {
        let draw = |seed, stream| Random::new(seed, stream).uniform();
        assert_eq!(draw(1, 1), draw(1, 1));
        assert_ne!(draw(1, 1), draw(1, 2));
        assert_ne!(draw(1, 1), draw(2, 1));
    }
}
