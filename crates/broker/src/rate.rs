//! How fast a client may publish: a bucket of one second's messages that fills evenly.

use std::time::Duration;

use tokio::time::Instant;

pub(crate) struct Rate {
    per_sec: f64,
    left: f64,
    at: Instant,
}

impl Rate {
    /// `per_sec` of 0: no bound.
    pub(crate) fn new(per_sec: u32, now: Instant) -> Self {
        Self { per_sec: f64::from(per_sec), left: f64::from(per_sec), at: now }
    }

    /// Counts messages that were taken. Gives back how long to wait before more are.
    pub(crate) fn spend(&mut self, messages: usize, now: Instant) -> Duration {
        if self.per_sec == 0.0 || messages == 0 {
            return Duration::ZERO;
        }
        let filled = now.duration_since(self.at).as_secs_f64() * self.per_sec;
        self.left = (self.left + filled).min(self.per_sec) - messages as f64;
        self.at = now;
        Duration::from_secs_f64((-self.left).max(0.0) / self.per_sec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_messages_is_free_and_the_rest_takes_its_time() {
        let start = Instant::now();
        let mut rate = Rate::new(10, start);
        assert_eq!(rate.spend(10, start), Duration::ZERO);
        assert_eq!(rate.spend(5, start), Duration::from_millis(500));
        assert_eq!(rate.spend(0, start), Duration::ZERO);
        assert_eq!(rate.spend(5, start + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(rate.spend(20, start + Duration::from_secs(60)), Duration::from_secs(1), "a rest is not saved up");
        assert_eq!(Rate::new(0, start).spend(1_000_000, start), Duration::ZERO);
    }
}
