//! Refusals in the log, for whoever looks why a device is not let in or not heard.
//!
//! Promises: a refusal is said at once, and then at most once a minute for an address; how many were not said stands in the next line;
//! what is remembered is bounded (promise I4).
//! Never: a password, a topic or a client id is logged, nor a name that the site does not know itself: people type passwords where names
//! belong (promise I2).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// An address is quiet for so long after a line.
const PAUSE: Duration = Duration::from_secs(60);
/// Most addresses that are told apart; while they are all quiet, further ones are.
const ADDRESSES: usize = 64;

/// When what was said of whom.
#[derive(Default)]
pub(crate) struct RefusalLog(Mutex<Said>);

#[derive(Default)]
struct Said {
    at: HashMap<IpAddr, Instant>,
    unsaid: u64,
}

impl RefusalLog {
    /// Says that somebody from this address was refused something, unless that was said lately. `name` is one that the site knows.
    pub(crate) fn say(&self, address: IpAddr, name: Option<&str>, why: &str) {
        if let Some(unsaid) = self.note(address, Instant::now()) {
            let user = name.unwrap_or("-");
            tracing::warn!(user, %address, unsaid, "{why} (said at most once a minute for an address)");
        }
    }

    /// Whether it is said now, and how many were not since the last that was.
    fn note(&self, address: IpAddr, now: Instant) -> Option<u64> {
        let mut said = self.0.lock();
        let is_quiet = |at: &Instant| now.duration_since(*at) < PAUSE;
        if said.at.len() >= ADDRESSES {
            said.at.retain(|_, at| is_quiet(at));
        }
        let is_known = said.at.get(&address);
        if is_known.is_some_and(is_quiet) || is_known.is_none() && said.at.len() >= ADDRESSES {
            said.unsaid += 1;
            return None;
        }
        said.at.insert(address, now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_said_once_a_minute_and_what_is_not_said_is_counted() {
        let (log, start) = (RefusalLog::default(), Instant::now());
        let address = |n: u16| IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
        assert_eq!(log.note(address(0), start), Some(0));
        assert_eq!(log.note(address(0), start + Duration::from_secs(59)), None);
        assert_eq!(log.note(address(1), start + Duration::from_secs(59)), Some(1), "another one is not kept silent");
        assert_eq!(log.note(address(0), start + Duration::from_secs(60)), Some(0));
        let later = start + Duration::from_secs(200);
        let said = (0..1_000).filter(|n| log.note(address(*n), later).is_some()).count();
        assert_eq!(said, ADDRESSES, "a crowd fills no log");
        assert_eq!(log.0.lock().at.len(), ADDRESSES);
        assert_eq!(log.note(address(5_000), later + PAUSE), Some(1_000 - ADDRESSES as u64));
    }
}
