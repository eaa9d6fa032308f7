//! The machine's clock, and one that a test may set forward and back while the gateway runs, as an operator or a time server would.
//!
//! Only builds with debug assertions have the second; a release build knows the machine's clock alone.

use std::sync::Arc;

use nearside_schemas::{Clock, SystemClock};

/// The clock that a gateway runs by. Where the environment says `NEARSIDE_CLOCK_SHIFT=FILE`, it differs from the machine's by the seconds
/// that stand in that file.
#[cfg(debug_assertions)]
pub fn wall_clock() -> Arc<dyn Clock> {
    match std::env::var_os("NEARSIDE_CLOCK_SHIFT") {
        Some(file) => Arc::new(shifted::ShiftedClock::new(file.into())),
        None => Arc::new(SystemClock),
    }
}

/// The clock that a gateway runs by.
#[cfg(not(debug_assertions))]
pub fn wall_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

#[cfg(debug_assertions)]
mod shifted {
    use std::path::PathBuf;
    use std::time::Duration;

    use nearside_schemas::{Clock, SystemClock, Timestamp};

    /// Differs from the machine's clock by the seconds in a file, which is read each time.
    pub(super) struct ShiftedClock {
        file: PathBuf,
    }

    impl ShiftedClock {
        pub(super) const fn new(file: PathBuf) -> Self {
            Self { file }
        }
    }

    impl Clock for ShiftedClock {
        fn now(&self) -> Timestamp {
            let now = SystemClock.now();
            let text = std::fs::read_to_string(&self.file).unwrap_or_default();
            let seconds: i64 = text.trim().parse().unwrap_or(0);
            let shift = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { now.minus(shift) } else { now.plus(shift) }
        }
    }
}
