//! Pauses between tries: exponential with full jitter (Brooker, 2015), from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The next pause after each failure.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    rng: StdRng,
}

impl Backoff {
    /// Pauses between `min` and `max`.
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max: max.max(min), failures: 0, rng: StdRng::seed_from_u64(seed) }
    }

    /// The pause after one more failure: at least `min`, at most `max`, evenly spread up to `min` doubled with each failure.
    pub fn next_pause(&mut self) -> Duration {
        let ceiling = self.min.saturating_mul(1 << self.failures.min(20)).clamp(self.min, self.max);
        self.failures = self.failures.saturating_add(1);
        self.min + (ceiling - self.min).mul_f64(self.rng.random::<f64>())
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
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(30));
        let pauses = |seed| {
            let mut backoff = Backoff::new(min, max, seed);
            (0..40).map(|_| backoff.next_pause()).collect::<Vec<_>>()
        };
        let all = pauses(7);
        assert!(all.iter().all(|pause| (min..=max).contains(pause)));
        assert!(all[20..].iter().max() > all[..3].iter().max());
        assert_eq!(all, pauses(7));
        assert_ne!(all, pauses(8));
    }
}
