//! What becomes of an item that the cloud refuses (MQTT 5 section 3.4.2.1, PUBACK reason codes of 0x80 and above).
//!
//! Policy. The payload is not what it should be (0x99): a dead letter. No right to the topic, or a topic it does not allow (0x87, 0x90): a
//! mistake of the configuration here or there that holds for the whole class, so the class waits for the longest pause and nothing is
//! thrown away. A quota (0x97): the class waits and is tried again. Anything else (0x80, 0x83, 0x91): this item waits and is tried again, and
//! becomes a dead letter after [`TRIES`] refusals, of which those do not count between which the cloud took nothing else either.

use std::collections::HashMap;
use std::time::Duration;

use nearside_outbox::Sequence;
use tokio::time::Instant;

/// Refusals of one item, with others taken in between, after which it is a dead letter.
const TRIES: u32 = 8;
/// Most items that wait by themselves; past it the whole class waits.
const MOST: usize = 256;

/// Why the cloud refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Refusal {
    Unspecified,
    Implementation,
    NotAuthorized,
    TopicName,
    PacketIdInUse,
    Quota,
    PayloadFormat,
}

impl Refusal {
    /// The metric label: the name of the reason code in MQTT 5 section 2.4.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified_error",
            Self::Implementation => "implementation_specific_error",
            Self::NotAuthorized => "not_authorized",
            Self::TopicName => "topic_name_invalid",
            Self::PacketIdInUse => "packet_identifier_in_use",
            Self::Quota => "quota_exceeded",
            Self::PayloadFormat => "payload_format_invalid",
        }
    }
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// This item waits.
    Defer,
    /// Its class waits; `long`: until a person mends something.
    Hold { long: bool },
    /// It becomes a dead letter.
    Dead,
}

struct Deferred {
    until: Instant,
    tries: u32,
    /// How many items the cloud had taken then.
    taken: u64,
}

/// The items that wait by themselves.
pub(crate) struct Refusals {
    deferred: HashMap<Sequence, Deferred>,
    taken: u64,
    base: Duration,
    max: Duration,
}

impl Refusals {
    /// Items wait `base`, doubled with each refusal, at most `max`.
    pub(crate) fn new(base: Duration, max: Duration) -> Self {
        Self { deferred: HashMap::new(), taken: 0, base, max }
    }

    pub(crate) fn refused(&mut self, sequence: Sequence, why: Refusal, now: Instant) -> Verdict {
        match why {
            Refusal::PayloadFormat => Verdict::Dead,
            Refusal::NotAuthorized | Refusal::TopicName => Verdict::Hold { long: true },
            Refusal::Quota => Verdict::Hold { long: false },
            Refusal::Unspecified | Refusal::Implementation | Refusal::PacketIdInUse => self.defer(sequence, now),
        }
    }

    fn defer(&mut self, sequence: Sequence, now: Instant) -> Verdict {
        if self.deferred.len() >= MOST && !self.deferred.contains_key(&sequence) {
            self.deferred.retain(|_, deferred| deferred.until > now);
            if self.deferred.len() >= MOST {
                return Verdict::Hold { long: false };
            }
        }
        let taken = self.taken;
        let deferred = self.deferred.entry(sequence).or_insert(Deferred { until: now, tries: 0, taken: u64::MAX });
        if deferred.taken != taken {
            deferred.tries += 1;
            deferred.taken = taken;
        }
        if deferred.tries >= TRIES {
            self.deferred.remove(&sequence);
            return Verdict::Dead;
        }
        deferred.until = now + self.base.saturating_mul(1 << deferred.tries).min(self.max);
        Verdict::Defer
    }

    /// The cloud took an item.
    pub(crate) fn accepted(&mut self, sequence: &Sequence) {
        self.taken += 1;
        self.deferred.remove(sequence);
    }

    /// Whether an item still waits.
    pub(crate) fn defers(&self, sequence: &Sequence, now: Instant) -> bool {
        self.deferred.get(sequence).is_some_and(|deferred| deferred.until > now)
    }

    /// When the next one may be tried again.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.deferred.values().map(|deferred| deferred.until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearside_privacy::Class;

    fn refusals() -> Refusals {
        Refusals::new(Duration::from_millis(500), Duration::from_secs(60))
    }

    const fn item(number: u64) -> Sequence {
        Sequence::new(Class::Summary, number)
    }

    #[test]
    fn an_item_that_is_refused_while_others_are_taken_dies_in_the_end() {
        let (mut refusals, mut now) = (refusals(), Instant::now());
        let start = now;
        let mut tries = 0;
        while refusals.refused(item(1), Refusal::Unspecified, now) == Verdict::Defer {
            tries += 1;
            assert!(refusals.defers(&item(1), now) && !refusals.defers(&item(2), now));
            refusals.accepted(&item(100 + tries));
            now = refusals.wake_at(now).unwrap();
            assert!(!refusals.defers(&item(1), now));
        }
        assert_eq!(tries, 7);
        assert!(now - start > Duration::from_secs(60), "given {:?}", now - start);
    }

    #[test]
    fn a_cloud_that_takes_nothing_kills_nothing() {
        let (mut refusals, mut now) = (refusals(), Instant::now());
        for _ in 0..1_000 {
            assert_eq!(refusals.refused(item(1), Refusal::Unspecified, now), Verdict::Defer);
            now += Duration::from_secs(60);
        }
        // The first one's time is over, so it makes place for another.
        for number in 2..=257 {
            assert_eq!(refusals.refused(item(number), Refusal::Implementation, now), Verdict::Defer);
        }
        let verdict = refusals.refused(item(300), Refusal::Implementation, now);
        assert_eq!(verdict, Verdict::Hold { long: false }, "what waits by itself is bounded");
    }

    #[test]
    fn what_only_a_person_can_mend_holds_the_class_and_throws_nothing_away() {
        let (mut refusals, now) = (refusals(), Instant::now());
        for _ in 0..100 {
            assert_eq!(refusals.refused(item(1), Refusal::NotAuthorized, now), Verdict::Hold { long: true });
            assert_eq!(refusals.refused(item(1), Refusal::Quota, now), Verdict::Hold { long: false });
            refusals.accepted(&item(2));
        }
        assert_eq!(refusals.refused(item(1), Refusal::PayloadFormat, now), Verdict::Dead);
    }
}
