//! Pauses between tries: exponential with full jitter (Brooker, "Exponential Backoff And Jitter", 2015), from a seed.
//!
//! Full jitter spreads a pause evenly between nothing and its ceiling, so that a thousand gateways that lost the cloud in one moment do
//! not come back in one moment.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The next pause after each failure.
#[derive(Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
    rng: StdRng,
}

impl Backoff {
    /// Pauses below `base`, doubled with each failure, and never above `max`.
    pub fn new(base: Duration, max: Duration, seed: u64) -> Self {
        Self { base, max: max.max(base), failures: 0, rng: StdRng::seed_from_u64(seed) }
    }

    /// The pause after one more failure: evenly spread up to `base` doubled with each failure so far.
    pub fn next_pause(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(self.rng.random::<f64>())
    }

    /// A pause spread evenly over the upper half below the longest: for what only a person can mend.
    pub fn long_pause(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.max.mul_f64(0.5 + self.rng.random::<f64>() / 2.0)
    }

    /// It worked: start small again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_their_bounds_and_come_from_the_seed() {
        let (base, max) = (Duration::from_millis(100), Duration::from_secs(30));
        let pauses = |seed| {
            let mut backoff = Backoff::new(base, max, seed);
            (0..40).map(|_| backoff.next_pause()).collect::<Vec<_>>()
        };
        let all = pauses(7);
        assert!(all.iter().all(|pause| *pause <= max));
        assert!(all[20..].iter().max() > all[..3].iter().max());
        assert_eq!(all, pauses(7));
        assert_ne!(all, pauses(8));
    }

    #[test]
    fn a_fleet_that_failed_together_comes_back_spread_out() {
        let (base, max) = (Duration::from_secs(1), Duration::from_secs(60));
        // The first pause of a thousand gateways, by tenth of its span.
        let mut tenths = [0u32; 10];
        for seed in 0..1_000 {
            let pause = Backoff::new(base, max, seed).next_pause();
            tenths[(pause.as_secs_f64() * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (50..=200).contains(count)), "{tenths:?}");
    }

    #[test]
    fn success_starts_small_again() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(10), 1);
        for _ in 0..15 {
            backoff.next_pause();
        }
        assert!(backoff.long_pause() >= Duration::from_secs(5));
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(10));
    }
}
