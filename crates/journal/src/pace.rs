//! How far apart commits start. What comes within an interval shares one fsync, and each commit costs what a hundred readings cost; but a
//! client that waits for each answer before it sends again loses whatever it waits.
//!
//! Which of the two it is shows when the interval changes: who sends by a clock sends as much in any case, who waits for answers sends
//! more at a shorter one. So now and then a quarter of it, or four times as much, is tried for a moment, and kept where that pays. Never is the
//! interval longer than the configuration says.

use std::time::{Duration, Instant};

/// Records a second from which on the whole interval is kept, where nobody waits.
const FULL_RATE: f64 = 2_000.0;

/// An interval is judged by what came in at least this time.
const PERIOD: Duration = Duration::from_millis(100);

/// Between two trials where the last changed nothing.
const REST: Duration = Duration::from_secs(2);

/// A quarter of the interval is kept where it brings this many times the records; a crowd that waits for answers brings up to four times as
/// many, a single client less, for the interval shrinks with the rate as well.
const WORTH: f64 = 1.2;

/// From one interval to the next that is tried.
const STEP: f64 = 4.0;

/// Four times the interval is kept where it brings at least this share of the records.
const NO_LOSS: f64 = 0.9;

/// The shortest interval, as a share of the whole one.
const LEAST: f64 = 1.0 / 256.0;

/// How long to wait between the starts of two commits.
pub(crate) struct Pace {
    interval: Duration,
    /// Records a second, lately.
    rate: f64,
    last: Option<Instant>,
    /// Of the interval, 1 down to [`LEAST`]: what the clients' waiting leaves of it.
    share: f64,
    phase: Phase,
    /// Since when the phase is measured, and the records since then.
    since: Option<Instant>,
    records: usize,
    /// Whether the next trial is of a shorter interval.
    shorter: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Until the next trial.
    Rest,
    /// What the present interval brings is counted.
    Present,
    /// Another is tried; what the present one brings is known.
    Trial { present_rate: f64 },
}

impl Pace {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, rate: 0.0, last: None, share: 1.0, phase: Phase::Rest, since: None, records: 0, shorter: true }
    }

    /// What is left of the wait at `now`.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let trial = match self.phase {
            Phase::Trial { .. } => self.tried(),
            Phase::Rest | Phase::Present => self.share,
        };
        // The fourth power: at half the full rate a sixteenth, for there a single client may be all there is.
        let interval = self.interval.mul_f64((self.rate / FULL_RATE).min(1.0).powi(4) * trial);
        interval.checked_sub(now.saturating_duration_since(self.last?))
    }

    /// A commit of this many records started at `now`.
    pub(crate) fn committed(&mut self, now: Instant, records: usize) {
        let Some(last) = self.last.replace(now) else { return };
        let since_last = now.saturating_duration_since(last);
        // Over about four commits: a burst is paced within milliseconds, a pause forgets it.
        self.rate += 0.25 * (records as f64 / since_last.as_secs_f64().max(1e-5) - self.rate);
        self.records += records;
        if since_last >= PERIOD {
            // A pause says nothing of the interval.
            return self.begin(now, Phase::Rest);
        }
        let took = now.saturating_duration_since(*self.since.get_or_insert(last));
        match self.phase {
            Phase::Rest if took >= REST => self.begin(now, Phase::Present),
            Phase::Present if took >= PERIOD => {
                let present_rate = self.records as f64 / took.as_secs_f64();
                self.begin(now, Phase::Trial { present_rate });
            }
            Phase::Trial { present_rate } if took >= PERIOD => {
                self.decide(now, self.records as f64 / took.as_secs_f64() / present_rate)
            }
            _ => {}
        }
    }

    fn begin(&mut self, now: Instant, phase: Phase) {
        (self.phase, self.since, self.records) = (phase, Some(now), 0);
    }

    fn tried(&self) -> f64 {
        if self.shorter { self.share / STEP } else { self.share * STEP }
    }

    /// The trial brought `times` the records. Where it is kept the next step is tried at once.
    fn decide(&mut self, now: Instant, times: f64) {
        let keep = times >= if self.shorter { WORTH } else { NO_LOSS };
        if keep {
            self.share = self.tried();
        } else {
            self.shorter = !self.shorter;
        }
        let ends = if self.shorter { self.share <= LEAST } else { self.share >= 1.0 };
        self.shorter ^= ends;
        self.begin(now, if keep && !ends { Phase::Present } else { Phase::Rest });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(15);
    const SYNC: Duration = Duration::from_micros(300);

    /// Runs `span` of commits; `arrivals` says how many records have come, given the time since the last commit started.
    fn run(
        pace: &mut Pace,
        now: &mut Instant,
        span: Duration,
        mut arrivals: impl FnMut(Duration) -> usize,
    ) -> (f64, f64) {
        let (start, mut records, mut commits) = (*now, 0, 0);
        while now.saturating_duration_since(start) < span {
            let begun = *now;
            *now += SYNC;
            *now += pace.wait(*now).unwrap_or_default();
            let mut came = arrivals(now.saturating_duration_since(begun));
            while came == 0 {
                *now += SYNC;
                came = arrivals(now.saturating_duration_since(begun));
            }
            pace.committed(*now, came);
            (records, commits) = (records + came, commits + 1);
        }
        let seconds = now.saturating_duration_since(start).as_secs_f64();
        (f64::from(u32::try_from(records).unwrap()) / seconds, seconds / f64::from(commits))
    }

    fn by_the_clock(rate: f64) -> impl FnMut(Duration) -> usize {
        let mut owed = 0.0;
        move |span| {
            owed += rate * span.as_secs_f64();
            let whole = owed as usize;
            owed -= whole as f64;
            whole
        }
    }

    #[test]
    fn who_sends_by_the_clock_shares_commits() {
        for rate in [2_500.0, 60_000.0] {
            let (mut pace, mut now) = (Pace::new(INTERVAL), Instant::now());
            run(&mut pace, &mut now, Duration::from_secs(1), by_the_clock(rate));
            let (_, apart) = run(&mut pace, &mut now, Duration::from_secs(20), by_the_clock(rate));
            assert!((0.0125..0.0155).contains(&apart), "{rate} records/s: {apart} s apart");
        }
    }

    #[test]
    fn few_records_hardly_wait() {
        let (mut pace, mut now) = (Pace::new(INTERVAL), Instant::now());
        let (_, apart) = run(&mut pace, &mut now, Duration::from_secs(5), by_the_clock(500.0));
        assert!(apart < 0.0025, "{apart} s apart");
    }

    #[test]
    fn who_waits_for_answers_is_not_kept_waiting() {
        for clients in [1, 20, 100] {
            let (mut pace, mut now) = (Pace::new(INTERVAL), Instant::now());
            run(&mut pace, &mut now, Duration::from_secs(5), |_| clients);
            let (rate, _) = run(&mut pace, &mut now, Duration::from_secs(10), |_| clients);
            // Each commit answers every client once.
            let most = clients as f64 / SYNC.as_secs_f64();
            assert!(rate > 0.6 * most, "{clients} clients: {rate} of {most} records/s");
        }
    }

    #[test]
    fn when_the_waiting_ones_are_gone_commits_are_shared_again() {
        let (mut pace, mut now) = (Pace::new(INTERVAL), Instant::now());
        run(&mut pace, &mut now, Duration::from_secs(5), |_| 100);
        run(&mut pace, &mut now, Duration::from_secs(10), by_the_clock(20_000.0));
        let (_, apart) = run(&mut pace, &mut now, Duration::from_secs(10), by_the_clock(20_000.0));
        assert!((0.0125..0.0155).contains(&apart), "{apart} s apart");
    }

    #[test]
    fn the_first_commit_and_one_after_a_pause_wait_for_nothing() {
        let (mut pace, now) = (Pace::new(INTERVAL), Instant::now());
        assert_eq!(pace.wait(now), None);
        pace.committed(now, 5_000);
        pace.committed(now + INTERVAL, 5_000);
        assert_eq!(pace.wait(now + 3 * INTERVAL), None);
    }
}
