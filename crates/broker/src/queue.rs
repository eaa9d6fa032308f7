//! Messages that wait for a subscriber, and the memory that they may take: of one session, and of all together (promise I4).
//!
//! Promises: a session may hold its share whatever others hold, so that nobody silences anybody else; all of them together hold no
//! more than the common bound and a share for each. A QoS 0 message never takes the place of one of QoS 1 or 2.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::message::Message;

/// Memory of all sessions' messages.
pub(crate) struct SharedBudget {
    used: AtomicUsize,
    most: usize,
    /// What each session may hold all the same.
    share: usize,
}

impl SharedBudget {
    pub(crate) const fn new(most: usize, share: usize) -> Self {
        Self { used: AtomicUsize::new(0), most, share }
    }

    /// Bytes that are held.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Memory of one session's messages, which is part of that of all.
pub(crate) struct Budget {
    used: AtomicUsize,
    most: usize,
    all: Arc<SharedBudget>,
}

impl Budget {
    pub(crate) const fn new(most: usize, all: Arc<SharedBudget>) -> Self {
        Self { used: AtomicUsize::new(0), most, all }
    }

    /// Whether more is held than may be, here or, beyond this session's share and `besides`, in all.
    pub(crate) fn is_exceeded(&self, besides: usize) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        used > self.most || (used > self.all.share.max(besides) && self.all.used() > self.all.most)
    }

    /// Holds a message, in the queue or on its way, until it is dropped.
    pub(crate) fn hold(self: &Arc<Self>, message: Message) -> Held {
        let size = message.size();
        self.used.fetch_add(size, Ordering::Relaxed);
        self.all.used.fetch_add(size, Ordering::Relaxed);
        Held { message, size, budget: self.clone() }
    }
}

/// A message that counts against a budget.
pub(crate) struct Held {
    pub(crate) message: Message,
    pub(crate) size: usize,
    budget: Arc<Budget>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.size, Ordering::Relaxed);
        self.budget.all.used.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// A message that waits.
pub(crate) struct Queued {
    /// 0 for QoS 0.
    pub(crate) position: u64,
    pub(crate) held: Held,
    /// It was sent before, or may have been.
    pub(crate) duplicate: bool,
}

/// What waits, in the order in which it came. QoS 0 messages stand apart, so that the first of them is found when one has to go.
#[derive(Default)]
pub(crate) struct Waiting {
    kept: VecDeque<Queued>,
    /// QoS 0, each with the position of the last other message before it.
    fleeting: VecDeque<(u64, Queued)>,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.kept.len() + self.fleeting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds one behind all others. `last_position` is the last that was given.
    pub(crate) fn push(&mut self, queued: Queued, last_position: u64) {
        if queued.position > 0 {
            self.kept.push_back(queued);
        } else {
            self.fleeting.push_back((last_position, queued));
        }
    }

    /// Adds one of QoS 1 or 2 again, in front of all others.
    pub(crate) fn push_again(&mut self, queued: Queued) {
        self.kept.push_front(queued);
    }

    fn is_fleeting_next(&self) -> bool {
        let next = self.kept.front();
        self.fleeting.front().is_some_and(|(behind, _)| next.is_none_or(|next| *behind < next.position))
    }

    pub(crate) fn front(&self) -> Option<&Queued> {
        if self.is_fleeting_next() { self.fleeting.front().map(|(_, queued)| queued) } else { self.kept.front() }
    }

    pub(crate) fn pop(&mut self) -> Option<Queued> {
        if self.is_fleeting_next() {
            self.fleeting.pop_front().map(|(_, queued)| queued)
        } else {
            self.kept.pop_front()
        }
    }

    /// Takes out what goes first where there is no room: the oldest of QoS 0, or else the oldest.
    pub(crate) fn shed(&mut self) -> Option<Queued> {
        self.fleeting.pop_front().map(|(_, queued)| queued).or_else(|| self.kept.pop_front())
    }

    /// Drops QoS 0 messages. Gives back how many there were.
    pub(crate) fn drop_fleeting(&mut self) -> usize {
        std::mem::take(&mut self.fleeting).len()
    }

    /// Takes out those for which `goes` holds.
    pub(crate) fn take_out(&mut self, mut goes: impl FnMut(&Message) -> bool) -> Vec<Queued> {
        let fleeting = std::mem::take(&mut self.fleeting).into_iter();
        let (mut gone, mut stay): (Vec<_>, VecDeque<_>) = (Vec::new(), VecDeque::new());
        for (behind, queued) in fleeting {
            if goes(&queued.held.message) { gone.push(queued) } else { stay.push_back((behind, queued)) }
        }
        self.fleeting = stay;
        let kept = std::mem::take(&mut self.kept).into_iter();
        let (more, kept): (VecDeque<_>, VecDeque<_>) = kept.partition(|queued| goes(&queued.held.message));
        self.kept = kept;
        gone.extend(more);
        gone
    }

    /// Takes out all, those of QoS 1 and 2 in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Held> {
        self.fleeting.clear();
        std::mem::take(&mut self.kept).into_iter().map(|queued| queued.held)
    }
}

#[cfg(test)]
mod tests {
    use nearside_schemas::{QoS, Timestamp, Topic};

    use super::*;
    use crate::packet::Carried;

    fn queued(position: u64, bytes: usize, budget: &Arc<Budget>) -> Queued {
        let (topic, payload) = (Topic::new("a").unwrap(), vec![0; bytes].into());
        let qos = if position > 0 { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let message = Message::new(topic, payload, qos, false, Carried::default(), Timestamp::from_secs(0));
        Queued { position, held: budget.hold(message), duplicate: false }
    }

    fn budgets(most: usize, share: usize) -> [Arc<Budget>; 2] {
        let all = Arc::new(SharedBudget::new(most, share));
        [(); 2].map(|()| Arc::new(Budget::new(usize::MAX, all.clone())))
    }

    #[test]
    fn what_waits_keeps_its_order_and_qos_0_goes_first() {
        let [budget, _] = budgets(usize::MAX, 0);
        let mut waiting = Waiting::default();
        for (position, last) in [(0, 0), (1, 1), (0, 1), (0, 1), (2, 2), (0, 2)] {
            waiting.push(queued(position, 1, &budget), last);
        }
        let position = |queued: Option<Queued>| queued.map(|queued| queued.position);
        assert_eq!(position(waiting.pop()), Some(0));
        // Sent without an answer: again, before all others.
        let Some(first) = waiting.pop() else { panic!("there are more") };
        assert_eq!(first.position, 1);
        waiting.push_again(first);
        assert_eq!((position(waiting.pop()), waiting.len()), (Some(1), 4));
        assert_eq!(position(waiting.shed()), Some(0));
        let rest: Vec<u64> = std::iter::from_fn(|| position(waiting.pop())).collect();
        assert_eq!(rest, [0, 2, 0]);
        waiting.push(queued(3, 1, &budget), 3);
        assert_eq!((position(waiting.shed()), waiting.is_empty()), (Some(3), true));
    }

    #[test]
    fn a_session_may_hold_its_share_whatever_others_hold() {
        let [hog, other] = budgets(10_000, 1_000);
        let _held = queued(1, 20_000, &hog);
        assert!(hog.is_exceeded(0));
        let small = queued(1, 800, &other);
        assert!(!other.is_exceeded(0));
        let large = queued(2, 5_000, &other);
        assert!(other.is_exceeded(0) && other.is_exceeded(large.held.size));
        drop(small);
        assert!(!other.is_exceeded(large.held.size), "one message may pass, however large");
    }
}
