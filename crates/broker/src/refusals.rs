//! Refusals in the log, for whoever looks why a device is not let in or not heard.
//!
//! Promises: a refusal is said at once, and then at most once a minute for an address and a kind of refusal, so that one kind hides no
//! other; how many were not said stands in the next line; what is remembered is bounded (promise I4).
//! Never: a password, a topic or a client id is logged, nor a name that the site does not know itself: people type passwords where names
//! belong (promise I2).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// An address is quiet of a kind of refusal for so long after a line.
const PAUSE: Duration = Duration::from_secs(60);
/// Most addresses and kinds that are told apart; while they are all quiet, further ones are.
const MOST: usize = 64;

/// Of whom what was said. The kinds are the program's own sentences, so there are few.
type Key = (Option<IpAddr>, &'static str);

/// When what was said of whom.
#[derive(Default)]
pub(crate) struct RefusalLog(Mutex<Said>);

#[derive(Default)]
struct Said {
    at: HashMap<Key, Instant>,
    unsaid: u64,
}

impl RefusalLog {
    /// Says that somebody from this address, where it is known, was refused something, unless that was said lately. `name` is one that the site knows.
    pub(crate) fn say(&self, address: impl Into<Option<IpAddr>>, name: Option<&str>, why: &'static str) {
        let address = address.into();
        if let Some(unsaid) = self.note((address, why), Instant::now()) {
            let user = name.unwrap_or("-");
            let address = address.map_or_else(|| "-".to_owned(), |address| address.to_string());
            tracing::warn!(user, %address, unsaid, "{why} (said at most once a minute for an address)");
        }
    }

    /// Whether it is said now, and how many were not since the last that was.
    fn note(&self, key: Key, now: Instant) -> Option<u64> {
        let mut said = self.0.lock();
        let is_quiet = |at: &Instant| now.duration_since(*at) < PAUSE;
        if said.at.len() >= MOST {
            said.at.retain(|_, at| is_quiet(at));
        }
        let is_known = said.at.get(&key);
        if is_known.is_some_and(is_quiet) || is_known.is_none() && said.at.len() >= MOST {
            said.unsaid += 1;
            return None;
        }
        said.at.insert(key, now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u16) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]))
    }

    #[test]
    fn an_address_is_said_once_a_minute_and_what_is_not_said_is_counted() {
        let (log, start) = (RefusalLog::default(), Instant::now());
        let key = |n: u16| (address(n), "its password is wrong");
        assert_eq!(log.note(key(0), start), Some(0));
        assert_eq!(log.note(key(0), start + Duration::from_secs(59)), None);
        assert_eq!(log.note(key(1), start + Duration::from_secs(59)), Some(1), "another one is not kept silent");
        assert_eq!(log.note(key(0), start + Duration::from_secs(60)), Some(0));
        let later = start + Duration::from_secs(200);
        let said = (0..1_000).filter(|n| log.note(key(*n), later).is_some()).count();
        assert_eq!(said, MOST, "a crowd fills no log");
        assert_eq!(log.0.lock().at.len(), MOST);
        assert_eq!(log.note(key(5_000), later + PAUSE), Some(1_000 - MOST as u64));
    }

    /// Behind one address there are many devices: one that may not subscribe does not keep silent that another's password is wrong.
    #[test]
    fn one_kind_of_refusal_hides_no_other() {
        let (log, now) = (RefusalLog::default(), Instant::now());
        assert_eq!(log.note((address(0), "it may not subscribe"), now), Some(0));
        assert_eq!(log.note((address(0), "its password is wrong"), now), Some(0));
        assert_eq!(log.note((address(0), "it may not subscribe"), now), None);
    }
}
