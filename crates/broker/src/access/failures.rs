//! Who tries passwords: a name that was tried with wrong ones from an address waits before it is tried from there again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Wrong ones that cost nothing: people mistype.
const FREE: u32 = 5;
/// How long the next one waits, doubled with each, and at most.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// After so long without one, all is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// Most that are remembered (promise I4). While all are fresh, further ones are not.
const MOST: usize = 10_000;
/// What is remembered of a name: a long one is no user's.
const NAME_BYTES: usize = 512;

struct Failure {
    count: u32,
    last: Instant,
}

/// Wrong passwords by address and name.
#[derive(Default)]
pub(super) struct Failures(HashMap<(IpAddr, Box<str>), Failure>);

fn key(from: IpAddr, name: &str) -> (IpAddr, Box<str>) {
    let end = (0..=NAME_BYTES.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    (from, name[..end].into())
}

impl Failure {
    fn pause(&self) -> Duration {
        match self.count.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(beyond) => FIRST.saturating_mul(1 << beyond.min(16)).min(LONGEST),
        }
    }
}

impl Failures {
    /// Whether this is not to be tried now.
    pub(super) fn is_barred(&self, from: IpAddr, name: &str, now: Instant) -> bool {
        let failure = self.0.get(&key(from, name));
        failure.is_some_and(|failure| now.duration_since(failure.last) < failure.pause())
    }

    /// A password was checked.
    pub(super) fn note(&mut self, from: IpAddr, name: &str, right: bool, now: Instant) {
        let key = key(from, name);
        if right {
            self.0.remove(&key);
            return;
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, failure| now.duration_since(failure.last) < FORGOTTEN);
        }
        if self.0.len() < MOST || self.0.contains_key(&key) {
            let failure = self.0.entry(key).or_insert(Failure { count: 0, last: now });
            let is_old = now.duration_since(failure.last) >= FORGOTTEN;
            failure.count = if is_old { 1 } else { failure.count.saturating_add(1) };
            failure.last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_ones_wait_longer_and_longer_and_nobody_else_does() {
        let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let (mut failures, start) = (Failures::default(), Instant::now());
        for _ in 0..FREE {
            assert!(!failures.is_barred(here, "ann", start));
            failures.note(here, "ann", false, start);
        }
        assert!(failures.is_barred(here, "ann", start + FIRST / 2));
        assert!(!failures.is_barred(here, "ann", start + FIRST));
        assert!(!failures.is_barred(there, "ann", start) && !failures.is_barred(here, "eve", start));
        failures.note(here, "ann", false, start);
        assert!(failures.is_barred(here, "ann", start + FIRST));
        (0..100).for_each(|_| failures.note(here, "ann", false, start));
        assert!(failures.is_barred(here, "ann", start + LONGEST / 2));
        assert!(!failures.is_barred(here, "ann", start + LONGEST));
        failures.note(here, "ann", true, start);
        assert!(!failures.is_barred(here, "ann", start));
        (0..MOST + 20).for_each(|n| failures.note(here, &n.to_string(), false, start));
        assert_eq!(failures.0.len(), MOST);
        failures.note(there, "late", false, start + FORGOTTEN);
        assert_eq!(failures.0.len(), 1);
    }
}
