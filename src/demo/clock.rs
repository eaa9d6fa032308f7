//! A clock that runs faster than the machine's.

use std::time::Instant;

use nearside_schemas::{Clock, Timestamp};

/// Simulated time: `speed` seconds in each real one.
pub struct ScaledClock {
    start: Timestamp,
    began: Instant,
    speed: f64,
}

impl ScaledClock {
    /// A clock that says `start` now.
    pub fn new(start: Timestamp, speed: f64) -> Self {
        Self { start, began: Instant::now(), speed: speed.max(1e-6) }
    }
}

impl Clock for ScaledClock {
    fn now(&self) -> Timestamp {
        self.start.plus(self.began.elapsed().mul_f64(self.speed))
    }
}
