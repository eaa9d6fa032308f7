//! Which of the cloud's addresses is used.
//!
//! Policy: the first as long as it works. After `failover_after` tries in a row without a single acknowledgement the next in the list, from
//! the last back to the first. Away from the first, it is looked at every `failback_every`; once it can be reached, what is in flight is
//! let finish and the first is tried, and if it fails its trial the address before it is used again at once.

use crate::config::CloudUrl;

/// The addresses and which one is in use.
#[derive(Debug)]
pub(crate) struct Endpoints {
    urls: Vec<CloudUrl>,
    current: usize,
    failures: u32,
    failover_after: u32,
    /// The address to go back to if the first fails its trial.
    on_trial_from: Option<usize>,
}

impl Endpoints {
    /// `urls` is not empty.
    pub(crate) const fn new(urls: Vec<CloudUrl>, failover_after: u32) -> Self {
        Self { urls, current: 0, failures: 0, failover_after, on_trial_from: None }
    }

    pub(crate) fn current(&self) -> (usize, &CloudUrl) {
        (self.current, &self.urls[self.current])
    }

    pub(crate) fn first(&self) -> &CloudUrl {
        &self.urls[0]
    }

    pub(crate) const fn is_fallback(&self) -> bool {
        self.current > 0
    }

    pub(crate) fn has_others(&self) -> bool {
        self.urls.len() > 1
    }

    /// A try ended without anything acknowledged. True where another address is next.
    pub(crate) fn failed(&mut self) -> bool {
        if let Some(before) = self.on_trial_from.take() {
            self.current = before;
            self.failures = 0;
            return true;
        }
        self.failures += 1;
        if self.failures < self.failover_after || self.urls.len() == 1 {
            return false;
        }
        self.current = (self.current + 1) % self.urls.len();
        self.failures = 0;
        true
    }

    /// The address in use works.
    pub(crate) const fn works(&mut self) {
        self.failures = 0;
        self.on_trial_from = None;
    }

    /// The first can be reached again: try it.
    pub(crate) const fn try_first(&mut self) {
        if self.current > 0 {
            self.on_trial_from = Some(self.current);
            self.current = 0;
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: usize) -> Endpoints {
        let urls = (0..count).map(|n| format!("mqtt://cloud-{n}").parse().unwrap()).collect();
        Endpoints::new(urls, 3)
    }

    #[test]
    fn three_failures_in_a_row_move_on_and_around() {
        let mut all = endpoints(2);
        let mut seen = Vec::new();
        for _ in 0..9 {
            seen.push(all.current().0);
            all.failed();
        }
        assert_eq!(seen, [0, 0, 0, 1, 1, 1, 0, 0, 0]);
        let mut all = endpoints(2);
        all.failed();
        all.failed();
        all.works();
        assert!(!all.failed(), "one that worked in between has three tries again");
        let mut one = endpoints(1);
        assert!((0..10).all(|_| !one.failed()), "there is nowhere to go");
    }

    #[test]
    fn a_first_that_fails_its_trial_is_left_at_once() {
        let mut all = endpoints(3);
        for _ in 0..6 {
            all.failed();
        }
        assert_eq!(all.current().0, 2);
        all.try_first();
        assert_eq!(all.current().0, 0);
        assert!(all.failed());
        assert_eq!(all.current().0, 2, "back where it was");
        all.try_first();
        all.works();
        assert!(!all.failed(), "the trial is over");
        assert_eq!(all.current().0, 0);
    }
}
