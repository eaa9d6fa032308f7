//! Readings gathered for a shard's streams: under load a stream is woken for several messages at once, for waking it costs more
//! than judging a reading.
//!
//! Promises: a stream's readings stay in their order; nothing waits while there is little to do, and nothing longer than the
//! [`pace`] of the busiest.
//! Never: it decides what is full; credit bounds what is gathered (promise I4).

use std::ops::RangeInclusive;
use std::time::Duration;

use nearside_journal::Lsn;
use nearside_schemas::Reading;
use tokio::time::Instant;

use super::stream_ref::Work;
use crate::credit::Admission;

/// Streams are woken at most this often where little comes, and where as much comes as a core can bear: short against what a device or a
/// nurse notices, and long enough for several readings of each of a thousand busy streams.
const PACE: RangeInclusive<Duration> = Duration::from_millis(25)..=Duration::from_millis(100);
/// Readings a second at which the pace is slowest.
const BUSY_RATE: f64 = 20_000.0;
/// A stream with more readings than this does not wait.
const MOST_READINGS: usize = 64;

/// Readings of one stream that its actor gets together.
pub struct Gathered {
    /// The readings, each with the record that it came in, in the journal's order.
    pub readings: Vec<(Lsn, Reading)>,
    /// Whose they are; given back when they are judged.
    pub admission: Admission,
}

/// What waits to be handed to streams.
pub(super) struct Backlog {
    gathered: Vec<Gathered>,
    /// Readings in it.
    readings: usize,
    is_full: bool,
    handed_on: Option<Instant>,
    pace: Duration,
}

/// How long the next readings are gathered, where so many came in this time.
fn pace(readings: usize, within: Duration) -> Duration {
    let rate = readings as f64 / within.max(*PACE.start()).as_secs_f64();
    *PACE.start() + (*PACE.end() - *PACE.start()).mul_f64((rate / BUSY_RATE).min(1.0))
}

/// When what waits is to be handed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    Now,
    In(Duration),
}

impl Backlog {
    pub(super) const fn new() -> Self {
        Self { gathered: Vec::new(), readings: 0, is_full: false, handed_on: None, pace: *PACE.start() }
    }

    /// Takes readings in; whether they are the first of their stream.
    pub(super) fn push(&mut self, work: Work) -> bool {
        let Work { readings, lsn, admission } = work;
        self.readings += readings.len();
        let readings = readings.into_iter().map(|reading| (lsn, reading));
        let place = admission.stream().place_in_backlog();
        // The place is only a hint that is checked: that of another time may still stand in the stream.
        let known =
            self.gathered.get_mut(place).filter(|one| std::ptr::eq(&**one.admission.stream(), &**admission.stream()));
        let (is_first, waiting) = match known {
            Some(known) => {
                known.readings.extend(readings);
                known.admission.join(admission);
                (false, known.readings.len())
            }
            None => {
                admission.stream().set_place_in_backlog(self.gathered.len());
                let readings: Vec<_> = readings.collect();
                let waiting = readings.len();
                self.gathered.push(Gathered { readings, admission });
                (true, waiting)
            }
        };
        self.is_full |= waiting > MOST_READINGS;
        is_first
    }

    /// When what waits is due.
    pub(super) fn due(&self, now: Instant) -> Due {
        let waited = self.handed_on.map_or(self.pace, |last| now.duration_since(last));
        if self.is_full || waited >= self.pace { Due::Now } else { Due::In(self.pace - waited) }
    }

    /// Everything that waits, in the order in which the streams got their first reading.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Gathered> {
        let readings = std::mem::take(&mut self.readings);
        let within = self.handed_on.replace(now).map_or(*PACE.end(), |last| now.duration_since(last));
        self.pace = pace(readings, within);
        self.is_full = false;
        let streams = self.gathered.len();
        std::mem::replace(&mut self.gathered, Vec::with_capacity(streams))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nearside_schemas::{KeyValues, StreamId, Timestamp, Values};
    use nearside_telemetry::Gauge;

    use super::*;
    use crate::credit::{ShardCredit, try_admit};
    use crate::stream::{Draft, StreamRef};

    fn works(rows: &[(usize, i64)]) -> (Arc<ShardCredit>, Vec<Work>) {
        let credit = ShardCredit::new(1_000, 1_000, Gauge::default());
        let id = |n: u8| StreamId::from_bytes([n; 16]);
        let streams: Vec<_> =
            (0..3).map(|n| Arc::new(StreamRef::new(id(n), 0, 0, KeyValues::new(), credit.stream()))).collect();
        let draft = |&(stream, at): &(usize, i64)| {
            let time = Timestamp::from_micros(at);
            let reading = Reading { time, received: time, sequence: None, values: Values::new() };
            Draft { stream: streams[stream].clone(), readings: [reading].into_iter().collect(), lsn: Lsn(at as u64) }
        };
        let mut works = Vec::new();
        assert!(try_admit(&mut rows.iter().map(draft).collect(), &mut works).is_ok());
        (credit, works)
    }

    fn seen(gathered: &[Gathered]) -> Vec<(u8, Vec<i64>)> {
        let times = |one: &Gathered| one.readings.iter().map(|(_, reading)| reading.time.as_micros()).collect();
        gathered.iter().map(|one| (one.admission.stream().id.as_bytes()[0], times(one))).collect()
    }

    #[test]
    fn readings_of_a_stream_come_together_in_their_order() {
        let (credit, works) = works(&[(1, 5), (0, 7), (1, 3), (2, 1), (0, 8), (1, 4)]);
        let mut backlog = Backlog::new();
        let first: Vec<bool> = works.into_iter().map(|work| backlog.push(work)).collect();
        assert_eq!(first, [true, true, false, true, false, false]);
        let gathered = backlog.take(Instant::now());
        assert_eq!(seen(&gathered), [(1, vec![5, 3, 4]), (0, vec![7, 8]), (2, vec![1])]);
        assert_eq!(credit.used(), 6);
        drop(gathered);
        assert_eq!(credit.used(), 0, "each gave back what it gathered");
    }

    #[test]
    fn a_place_of_an_earlier_time_is_not_taken_for_one_of_this() {
        let (_, mut works) = works(&[(0, 1), (1, 2), (1, 3), (0, 4)]);
        let later = works.split_off(2);
        let mut backlog = Backlog::new();
        works.into_iter().for_each(|work| assert!(backlog.push(work)));
        backlog.take(Instant::now());
        let first: Vec<bool> = later.into_iter().map(|work| backlog.push(work)).collect();
        assert_eq!(first, [true, true]);
        assert_eq!(seen(&backlog.take(Instant::now())), [(1, vec![3]), (0, vec![4])]);
    }

    #[test]
    fn the_first_does_not_wait_and_the_next_waits_for_its_time() {
        let start = Instant::now();
        let mut backlog = Backlog::new();
        assert_eq!(backlog.due(start), Due::Now);
        backlog.take(start);
        let pace = *PACE.start();
        assert_eq!(backlog.due(start + pace / 5), Due::In(pace * 4 / 5));
        assert_eq!(backlog.due(start + pace), Due::Now);
        let (_, works) = works(&[(0, 1); MOST_READINGS + 1]);
        works.into_iter().for_each(|work| {
            backlog.push(work);
        });
        assert_eq!(backlog.due(start), Due::Now, "a stream with much to do does not wait");
    }

    #[test]
    fn the_busier_it_is_the_longer_it_gathers() {
        let second = Duration::from_secs(1);
        let paces: Vec<Duration> = [0, 2_000, 10_000, 20_000, 60_000].map(|rate| pace(rate, second)).to_vec();
        assert!(paces.is_sorted());
        assert_eq!((paces[0], paces[3], paces[4]), (*PACE.start(), *PACE.end(), *PACE.end()));
        // Handed on twice at once, for a tick came: a burst of nothing.
        assert!(pace(10, Duration::ZERO) < *PACE.start() * 2);
    }
}
