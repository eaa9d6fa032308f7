//! What is sent next: live alerts overtake what piled up, and what piled up is sent at a pace.
//!
//! An item is backlog where it waited when the cloud came back, live otherwise. Three lanes, in this order: live alerts; backlog, most
//! urgent class first and oldest first, within its share of the window and its rate; everything live. So after an outage an alert waits
//! for what is in flight at most, never for what piled up, and the cloud does not get all of it at once.
//!
//! A class that the cloud refuses for now is held for a while; the other classes go on.

use std::time::Duration;

use nearside_outbox::Take;
use nearside_privacy::Class;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::flight::InFlight;

/// Most bytes that are sent and not yet acknowledged, where more than one item is.
const WINDOW_BYTES: usize = 8 << 20;
/// A bucket holds what its rate gives in this time.
const BURST: Duration = Duration::from_millis(100);

/// A lane, in the order in which they are asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lane {
    LiveAlerts,
    Backlog,
    Live,
}

impl Lane {
    pub(crate) const ALL: [Self; 3] = [Self::LiveAlerts, Self::Backlog, Self::Live];
}

/// The pace of the backlog.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Its share of the window, above 0 and at most 1.
    pub(crate) share: f64,
    /// Items a second; 0: no limit.
    pub(crate) per_second: u32,
}

pub(crate) struct Pacer {
    window: usize,
    pace: Pace,
    tokens: f64,
    counted_at: Option<Instant>,
    /// The rate, and nothing else, kept the backlog back when it was last asked.
    starved: bool,
    /// Items with a lower number waited when the cloud came back.
    backlog_below: u64,
    held: [Option<Instant>; 3],
    holding: [Backoff; 3],
}

impl Pacer {
    pub(crate) const fn new(window: usize, pace: Pace, holding: [Backoff; 3]) -> Self {
        Self { window, pace, tokens: 0.0, counted_at: None, starved: false, backlog_below: 0, held: [None; 3], holding }
    }

    /// The cloud is there, and takes `window` items at a time. What has a number below `next` waited.
    pub(crate) fn connected(&mut self, next: u64, window: usize) {
        self.window = window.max(1);
        self.backlog_below = next;
    }

    pub(crate) const fn is_backlog(&self, number: u64) -> bool {
        number < self.backlog_below
    }

    /// The classes that are not held, most urgent first.
    pub(crate) fn open_classes(&self, now: Instant) -> Vec<Class> {
        let open = |class: &Class| self.held[*class as usize].is_none_or(|until| until <= now);
        Class::ALL.into_iter().filter(open).collect()
    }

    /// What to take for a lane; `None` where nothing may be. `classes` are those that are not held.
    ///
    /// Each look at the outbox passes over what is in flight, so all but alerts are asked for in larger steps.
    pub(crate) fn ask<'a>(
        &mut self,
        lane: Lane,
        classes: &'a [Class],
        now: Instant,
        flight: &InFlight,
    ) -> Option<Take<'a>> {
        let free = self.window.saturating_sub(flight.len());
        let max_bytes = WINDOW_BYTES.saturating_sub(flight.bytes());
        let (classes, from, below, most) = match lane {
            Lane::LiveAlerts if classes.first() == Some(&Class::Alert) => {
                (&classes[..1], self.backlog_below, u64::MAX, free)
            }
            Lane::LiveAlerts => return None,
            Lane::Backlog => (classes, 0, self.backlog_below, self.backlog_room(free, now, flight)),
            Lane::Live if free < self.window.div_ceil(4) && !flight.is_empty() => return None,
            Lane::Live => (classes, self.backlog_below, u64::MAX, free),
        };
        let may = most > 0 && max_bytes > 0 && !classes.is_empty();
        may.then_some(Take { classes, from, below, most, max_bytes })
    }

    fn backlog_room(&mut self, free: usize, now: Instant, flight: &InFlight) -> usize {
        let share = (self.window as f64 * self.pace.share).ceil() as usize;
        let room = free.min(share.saturating_sub(flight.backlog()));
        if room < share.div_ceil(4) && flight.backlog() > 0 {
            return 0;
        }
        if self.pace.per_second == 0 {
            return room;
        }
        let rate = f64::from(self.pace.per_second);
        let most = (rate * BURST.as_secs_f64()).max(1.0);
        self.tokens = match self.counted_at {
            Some(at) => (self.tokens + rate * now.duration_since(at).as_secs_f64()).min(most),
            None => most,
        };
        self.counted_at = Some(now);
        self.starved = (self.tokens as usize) < room;
        room.min(self.tokens as usize)
    }

    /// A lane gave so many items.
    pub(crate) fn took(&mut self, lane: Lane, take: &Take<'_>, got: usize) {
        if lane == Lane::Backlog {
            self.tokens -= got as f64;
            // All there was: the rate keeps nothing back.
            self.starved &= got == take.most;
        }
    }

    /// When to look again though nothing happened: the rate allows more, or a class is held no longer.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let rate = self.starved.then(|| now + BURST / 4);
        self.held.iter().flatten().copied().filter(|until| *until > now).chain(rate).min()
    }

    /// The cloud refuses a class for now; `long`: until a person mends something.
    pub(crate) fn hold(&mut self, class: Class, long: bool, now: Instant) {
        // Refusals of what was in flight together are one.
        if self.held[class as usize].is_some_and(|until| until > now) {
            return;
        }
        let backoff = &mut self.holding[class as usize];
        let pause = if long { backoff.long_pause() } else { backoff.next_pause() };
        self.held[class as usize] = Some(now + pause);
    }

    /// The cloud took one of a class.
    pub(crate) fn accepted(&mut self, class: Class, now: Instant) {
        // What was in flight when the hold began says nothing of its end.
        if self.held[class as usize].is_none_or(|until| until <= now) {
            self.holding[class as usize].reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight::Flying;
    use nearside_outbox::Sequence;
    use std::collections::{BTreeSet, VecDeque};

    /// An outbox, a cloud that acknowledges each item `delay` after it was sent, and a pacer between, in virtual time.
    struct World {
        pacer: Pacer,
        flight: InFlight,
        waiting: BTreeSet<(usize, u64)>,
        acks: VecDeque<(Instant, u16)>,
        now: Instant,
        delay: Duration,
        packet: u16,
        sent: Vec<(Duration, Class, u64)>,
        start: Instant,
    }

    impl World {
        fn new(window: usize, pace: Pace, delay: Duration) -> Self {
            let holding = [1, 2, 3].map(|seed| Backoff::new(Duration::from_millis(500), Duration::from_secs(60), seed));
            let now = Instant::now();
            Self {
                pacer: Pacer::new(window, pace, holding),
                flight: InFlight::default(),
                waiting: BTreeSet::new(),
                acks: VecDeque::new(),
                now,
                delay,
                packet: 0,
                sent: Vec::new(),
                start: now,
            }
        }

        fn put(&mut self, class: Class, number: u64) {
            self.waiting.insert((class as usize, number));
        }

        /// Lets a millisecond pass.
        fn step(&mut self) {
            self.now += Duration::from_millis(1);
            while self.acks.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, packet) = self.acks.pop_front().unwrap();
                let item = self.flight.answered(packet).unwrap();
                self.pacer.accepted(item.class, self.now);
            }
            let classes = self.pacer.open_classes(self.now);
            for lane in Lane::ALL {
                let Some(take) = self.pacer.ask(lane, &classes, self.now, &self.flight) else { continue };
                let of =
                    |class: &Class| self.waiting.range((*class as usize, take.from)..(*class as usize, take.below));
                let got: Vec<_> = take.classes.iter().flat_map(of).take(take.most).copied().collect();
                self.pacer.took(lane, &take, got.len());
                for (class, number) in got {
                    self.send(Class::ALL[class], number);
                }
            }
        }

        fn send(&mut self, class: Class, number: u64) {
            self.waiting.remove(&(class as usize, number));
            self.packet = self.packet % 60_000 + 1;
            let backlog = self.pacer.is_backlog(number);
            let sequence = Sequence::new(class, number);
            self.flight.queue(Flying { sequence, class, bytes: 1_000, since: self.now, backlog });
            self.flight.written(self.packet).unwrap();
            self.acks.push_back((self.now + self.delay, self.packet));
            self.sent.push((self.now - self.start, class, number));
        }
    }

    /// 600,000 items wait after ten minutes at 1,000 a second; the cloud takes a window of 256 in 20 ms.
    #[test]
    fn a_backlog_is_drained_at_its_pace_while_live_alerts_overtake_it() {
        let pace = Pace { share: 0.75, per_second: 4_000 };
        let mut world = World::new(256, pace, Duration::from_millis(20));
        for number in 0..20_000 {
            world.put(if number % 50 == 0 { Class::Alert } else { Class::Summary }, number);
        }
        world.pacer.connected(20_000, 256);
        let (mut next, mut put_at) = (20_000, std::collections::HashMap::new());
        for ms in 0..8_000u64 {
            // 1,000 summaries and one alert a second are new.
            world.put(if ms % 1_000 == 500 { Class::Alert } else { Class::Summary }, next);
            put_at.insert(next, Duration::from_millis(ms));
            next += 1;
            world.step();
        }
        let backlog: Vec<Duration> = world.sent.iter().filter(|item| item.2 < 20_000).map(|item| item.0).collect();
        assert_eq!(backlog.len(), 20_000, "all of it went");
        for second in 0..4u64 {
            let within = |at: &&Duration| at.as_secs() == second;
            let count = backlog.iter().filter(within).count();
            assert!((3_500..=4_500).contains(&count), "{count} of the backlog in second {second}");
        }
        for (at, class, number) in world.sent.iter().filter(|item| item.2 >= 20_000) {
            let waited = *at - put_at[number];
            let most = if *class == Class::Alert { 21 } else { 200 };
            assert!(waited <= Duration::from_millis(most), "{class:?} {number} waited {waited:?}");
        }
    }

    #[test]
    fn without_a_rate_the_backlog_takes_its_share_of_the_window_and_no_more() {
        let mut world = World::new(100, Pace { share: 0.5, per_second: 0 }, Duration::from_millis(50));
        (0..1_000).for_each(|number| world.put(Class::Summary, number));
        world.pacer.connected(1_000, 100);
        world.step();
        assert_eq!((world.flight.len(), world.flight.backlog()), (50, 50));
        (1_000..1_200).for_each(|number| world.put(Class::RollUp, number));
        world.step();
        assert_eq!((world.flight.len(), world.flight.backlog()), (100, 50), "what is new has the rest");
    }

    #[test]
    fn a_class_that_is_refused_waits_alone_and_longer_each_time() {
        let mut world = World::new(10, Pace { share: 1.0, per_second: 0 }, Duration::from_millis(1));
        world.pacer.connected(0, 10);
        let now = world.now;
        world.pacer.hold(Class::Summary, true, now);
        assert_eq!(world.pacer.open_classes(now), [Class::Alert, Class::RollUp]);
        let until = world.pacer.wake_at(now).unwrap();
        assert!(until - now >= Duration::from_secs(30) && until - now <= Duration::from_secs(60));
        world.pacer.accepted(Class::Summary, now);
        assert_eq!(world.pacer.open_classes(now).len(), 2, "one that was in flight does not end the hold");
        assert_eq!(world.pacer.open_classes(until).len(), 3);
    }
}
