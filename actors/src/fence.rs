//! The fence around code that meets outside data (promise I3).

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The fenced code panicked. Carries no text: a panic's message may quote a payload (promise I2); the panic hook logs
/// where it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Runs `work` and turns a panic into a value. The caller must throw away or rebuild whatever `work` may have left
/// half changed.
pub fn fenced<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked)
}

/// Counts panics and says when it is enough: more than `per_minute` of them within a minute.
#[derive(Debug, Clone)]
pub struct PanicBudget {
    per_minute: u32,
    recent: std::collections::VecDeque<nearside_schemas::Timestamp>,
}

impl PanicBudget {
    /// A budget of `per_minute`.
    pub const fn new(per_minute: u32) -> Self {
        Self { per_minute, recent: std::collections::VecDeque::new() }
    }

    /// How many there were in the last minute before the last.
    pub fn recent(&self) -> usize {
        self.recent.len()
    }

    /// Counts one more at `now`; true where the budget is spent.
    pub fn spend(&mut self, now: nearside_schemas::Timestamp) -> bool {
        let minute_ago = now.minus(std::time::Duration::from_secs(60));
        while self.recent.front().is_some_and(|at| *at < minute_ago) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.recent.len() > self.per_minute as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearside_schemas::Timestamp;

    #[test]
    fn a_panic_is_a_value() {
        assert_eq!(fenced(|| 1), Ok(1));
        assert_eq!(fenced(|| -> u8 { panic!("inside") }), Err(Panicked));
    }

    #[test]
    fn the_budget_is_a_minute_wide() {
        let mut budget = PanicBudget::new(2);
        assert!(!budget.spend(Timestamp::from_secs(0)));
        assert!(!budget.spend(Timestamp::from_secs(1)));
        assert!(!budget.spend(Timestamp::from_secs(61)), "the first one is older than a minute");
        assert!(budget.spend(Timestamp::from_secs(61)));
    }
}
