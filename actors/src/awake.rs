//! Since when the gateway has listened: what comes from a device before that is nobody's silence.
//!
//! Promise: at a tick that a journal remembers it is what it was at that tick (promise I5): it follows from records alone, starts and ticks, and
//! goes with the checkpoint whose records they are.

use std::time::Duration;

use nearside_schemas::Timestamp;
use parking_lot::Mutex;

/// Where no tick came for so long it has not listened, or the clock was set.
const AWAY: Duration = Duration::from_secs(600);
/// Its name in the checkpoint.
pub const SAVED_NAME: &str = "awake";

/// Since when the gateway has listened.
#[derive(Default)]
pub struct Awake(Mutex<Listening>);

struct Listening {
    since: Timestamp,
    last_tick: Option<Timestamp>,
    /// A start was read back, and no tick since.
    has_started: bool,
    /// A tick of this run was.
    is_live: bool,
}

impl Default for Listening {
    fn default() -> Self {
        Self { since: Timestamp::MIN, last_tick: None, has_started: false, is_live: false }
    }
}

impl Awake {
    /// As a checkpoint remembers it, where it does.
    pub fn restored(saved: Option<&[u8]>) -> Self {
        let since = saved.and_then(|saved| saved.try_into().ok()).map(i64::from_le_bytes);
        let since = since.map_or(Timestamp::MIN, Timestamp::from_micros);
        Self(Mutex::new(Listening { since, ..Listening::default() }))
    }

    /// What a checkpoint is to keep.
    pub fn to_save(&self) -> Vec<u8> {
        self.0.lock().since.as_micros().to_le_bytes().to_vec()
    }

    /// The journal says that a gateway started.
    pub fn starts_again(&self) {
        self.0.lock().has_started = true;
    }

    /// Since when it has listened, at this tick: of this run, or one that is read back.
    pub(crate) fn at_tick(&self, now: Timestamp, is_live: bool) -> Timestamp {
        let mut listening = self.0.lock();
        let begins = if is_live {
            !std::mem::replace(&mut listening.is_live, true)
        } else {
            std::mem::take(&mut listening.has_started)
        };
        let was_away = listening.last_tick.replace(now).is_some_and(|last| now > last.plus(AWAY));
        if begins || was_away {
            listening.since = now;
        }
        // What is still to come is of a later run than this record's, or of a clock that has gone back since.
        if listening.since <= now { listening.since } else { Timestamp::MIN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    /// Two runs with a checkpoint in the second, and what is read back after it.
    #[test]
    fn a_run_that_is_read_back_gives_what_it_gave() {
        let live = Awake::default();
        assert_eq!(live.at_tick(at(100), true), at(100));
        assert_eq!(live.at_tick(at(101), true), at(100));
        let second = Awake::restored(Some(&live.to_save()));
        // Read back from a record before the first run's last tick.
        assert_eq!(second.at_tick(at(101), false), at(100));
        second.starts_again();
        let of_second = [160, 161].map(|secs| second.at_tick(at(secs), true));
        assert_eq!(of_second, [at(160); 2], "the time between was nobody's silence");
        let saved = second.to_save();
        let third = Awake::restored(Some(&saved));
        assert_eq!(third.at_tick(at(101), false), Timestamp::MIN, "of a later run");
        third.starts_again();
        assert_eq!([160, 161].map(|secs| third.at_tick(at(secs), false)), of_second);
        let from_the_second_on = Awake::restored(Some(&saved));
        assert_eq!(from_the_second_on.at_tick(at(161), false), at(160));
        assert_eq!(from_the_second_on.at_tick(at(200), true), at(200));
    }

    #[test]
    fn a_long_gap_counts_and_a_clock_that_goes_back_holds_nothing_up() {
        let awake = Awake::default();
        awake.at_tick(at(0), true);
        assert_eq!(awake.at_tick(at(600), true), at(0));
        assert_eq!(awake.at_tick(at(10_000), true), at(10_000));
        assert_eq!(awake.at_tick(at(50), true), Timestamp::MIN);
        assert_eq!(Awake::restored(Some(b"?")).at_tick(at(5), false), Timestamp::MIN);
    }
}
