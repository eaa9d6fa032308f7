//! How fast a client may publish: a bucket of one second's messages that fills evenly.

use std::time::Duration;

use tokio::time::Instant;

/// Who is held up is let on with what it may send in so long.
const SOME: Duration = Duration::from_millis(50);

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

    /// How many messages may be taken now; `None`: as many as there are.
    pub(crate) fn room(&mut self, now: impl FnOnce() -> Instant) -> Option<usize> {
        if self.per_sec == 0.0 {
            return None;
        }
        self.fill(now());
        Some(self.left.max(0.0) as usize)
    }

    /// Counts messages that were taken.
    pub(crate) fn spend(&mut self, messages: usize) {
        self.left -= messages as f64;
    }

    /// How long to wait, where there is no room, before some of it is there: not for each message alone.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        self.fill(now);
        let some = (self.per_sec * SOME.as_secs_f64()).max(1.0);
        Duration::from_secs_f64((some - self.left).max(0.0) / self.per_sec)
    }

    fn fill(&mut self, now: Instant) {
        let filled = now.duration_since(self.at).as_secs_f64() * self.per_sec;
        self.left = (self.left + filled).min(self.per_sec);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_messages_is_free_and_the_rest_takes_its_time() {
        let start = Instant::now();
        let at = |millis| move || start + Duration::from_millis(millis);
        let mut rate = Rate::new(10, start);
        assert_eq!(rate.room(at(0)), Some(10));
        rate.spend(10);
        assert_eq!((rate.room(at(0)), rate.wait(start)), (Some(0), Duration::from_millis(100)));
        assert_eq!(rate.room(at(501)), Some(5));
        rate.spend(5);
        assert_eq!(rate.room(at(60_000)), Some(10), "a rest is not saved up");
        let mut fast = Rate::new(1_000, start);
        fast.spend(1_000);
        assert_eq!(fast.wait(start), SOME);
        assert_eq!(Rate::new(0, start).room(at(0)), None);
    }
}
