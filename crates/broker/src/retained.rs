//! Retained messages: the last one of each topic (section 3.3.1.3 of MQTT 5). Bounded; kept on disk by the session store.
//!
//! Promise: nobody takes all the room; what the gateway says of itself under `$SYS/` takes none of it and is always kept.

use std::collections::HashMap;

use nearside_schemas::{Timestamp, Topic};
use parking_lot::RwLock;

use crate::access::Holder;
use crate::filter;
use crate::message::Message;
use crate::store::Change;

/// What there is room for.
#[derive(Clone, Copy)]
pub(crate) struct RetainedBounds {
    pub(crate) all: Room,
    /// What one user, or one address without a name, may take of it.
    pub(crate) each: Room,
}

/// Messages and their bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Room {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Room {
    fn of(message: &Message) -> Self {
        Self { messages: 1, bytes: message.size() }
    }

    fn plus(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }

    fn minus(self, other: Self) -> Self {
        Self { messages: self.messages - other.messages, bytes: self.bytes - other.bytes }
    }

    const fn fits(self, most: Self) -> bool {
        self.messages <= most.messages && self.bytes <= most.bytes
    }
}

/// The retained messages.
pub(crate) struct Retained {
    bounds: RetainedBounds,
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    /// With each message its number in the store.
    messages: HashMap<Topic, (u64, Message)>,
    /// Without those of the gateway itself.
    taken: Room,
    of: HashMap<Holder, Room>,
    last_number: u64,
}

impl Retained {
    /// With what the store had.
    pub(crate) fn new(bounds: RetainedBounds, stored: Vec<(u64, Message)>) -> Self {
        let mut kept = Kept::default();
        for (number, message) in stored {
            kept.last_number = kept.last_number.max(number);
            kept.insert(number, message);
        }
        Self { bounds, kept: RwLock::new(kept) }
    }

    /// Keeps the message, or forgets the topic's where the payload is empty. Gives back what the store is told, or `None` where
    /// there is no room.
    pub(crate) fn keep(&self, message: &Message) -> Option<Option<Change>> {
        let mut kept = self.kept.write();
        if message.payload.is_empty() {
            return Some(kept.remove(&message.topic).map(Change::Forget));
        }
        if !kept.has_room(message, &self.bounds) {
            return None;
        }
        let number = kept.remove(&message.topic).unwrap_or(kept.last_number + 1);
        kept.last_number = kept.last_number.max(number);
        let message = Message { retain: true, ..message.detached() };
        kept.insert(number, message.clone());
        Some(Some(Change::Retain(number, message)))
    }

    /// The topics that have one.
    pub(crate) fn topics(&self) -> Vec<Topic> {
        self.kept.read().messages.keys().cloned().collect()
    }

    /// Shows the messages of these topics, but for those that have expired. None is replaced meanwhile: what is published then
    /// reaches a subscriber after what is shown here, not before.
    pub(crate) fn show(&self, topics: &[&Topic], now: Timestamp, mut found: impl FnMut(&Message)) {
        let kept = self.kept.read();
        let messages = topics.iter().filter_map(|topic| kept.messages.get(*topic)).map(|(_, message)| message);
        messages.filter(|message| !message.is_expired(|| now)).for_each(&mut found);
    }

    /// Forgets what has expired. Gives back what the store is told.
    pub(crate) fn forget_expired(&self, now: Timestamp) -> Vec<Change> {
        let mut kept = self.kept.write();
        let expired = kept.messages.values().filter(|(_, message)| message.is_expired(|| now));
        let expired: Vec<Topic> = expired.map(|(_, message)| message.topic.clone()).collect();
        expired.iter().filter_map(|topic| kept.remove(topic)).map(Change::Forget).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.kept.read().messages.len()
    }
}

impl Kept {
    /// Whether the message may take the place of its topic's.
    fn has_room(&self, message: &Message, bounds: &RetainedBounds) -> bool {
        if filter::is_ours(message.topic.as_str()) {
            return true;
        }
        let before = self.messages.get(&message.topic).map(|(_, before)| before);
        let left = |taken: Room, before: Option<&Message>| taken.minus(before.map(Room::of).unwrap_or_default());
        let all = left(self.taken, before).plus(Room::of(message));
        let its = holder(message).is_none_or(|holder| {
            let before = before.filter(|before| self::holder(before) == Some(holder));
            let taken = self.of.get(holder).copied().unwrap_or_default();
            left(taken, before).plus(Room::of(message)).fits(bounds.each)
        });
        its && all.fits(bounds.all)
    }

    fn insert(&mut self, number: u64, message: Message) {
        if !filter::is_ours(message.topic.as_str()) {
            self.taken = self.taken.plus(Room::of(&message));
            if let Some(holder) = holder(&message) {
                let taken = self.of.entry(holder.clone()).or_default();
                *taken = taken.plus(Room::of(&message));
            }
        }
        self.messages.insert(message.topic.clone(), (number, message));
    }

    fn remove(&mut self, topic: &Topic) -> Option<u64> {
        let (number, message) = self.messages.remove(topic)?;
        if !filter::is_ours(topic.as_str()) {
            self.taken = self.taken.minus(Room::of(&message));
            if let Some(holder) = holder(&message)
                && let Some(taken) = self.of.get_mut(holder)
            {
                *taken = taken.minus(Room::of(&message));
                if taken.messages == 0 {
                    self.of.remove(holder);
                }
            }
        }
        Some(number)
    }
}

fn holder(message: &Message) -> Option<&Holder> {
    message.publisher.as_ref().and_then(|publisher| publisher.holder.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Publisher;
    use crate::packet::Carried;
    use bytes::Bytes;
    use nearside_schemas::{ClientId, QoS};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn what_is_shown_is_not_replaced_meanwhile() {
        let now = Timestamp::from_secs(1);
        let message = |payload: &'static str| {
            let topic = Topic::new("a").unwrap();
            Message::new(topic, payload.into(), QoS::AtMostOnce, true, Carried::default(), now)
        };
        let room = Room { messages: 10, bytes: 1_000 };
        let retained = Retained::new(RetainedBounds { all: room, each: room }, Vec::new());
        retained.keep(&message("old"));
        let topic = Topic::new("a").unwrap();
        std::thread::scope(|scope| {
            let mut replacing = None;
            retained.show(&[&topic], now, |_| {
                let newer = replacing.insert(scope.spawn(|| retained.keep(&message("new")).is_some()));
                std::thread::sleep(Duration::from_millis(50));
                assert!(!newer.is_finished());
            });
            assert!(replacing.unwrap().join().unwrap());
        });
        let mut shown = Vec::new();
        retained.show(&[&topic], now, |message| shown.push(message.payload.clone()));
        assert_eq!((shown, retained.topics()), (vec![Bytes::from("new")], vec![topic]));
    }

    #[test]
    fn nobody_takes_all_the_room_and_what_is_ours_takes_none() {
        let now = Timestamp::from_secs(1);
        let message = |topic: &str, user: Option<&str>| {
            let topic = Topic::new(topic).unwrap();
            let mut message = Message::new(topic, "x".into(), QoS::AtMostOnce, true, Carried::default(), now);
            let publisher = |user| Arc::new(Publisher { client: ClientId::new("c"), holder: Holder::of(Some(user)) });
            message.publisher = user.map(publisher);
            message
        };
        let (all, each) = (Room { messages: 4, bytes: 1_000 }, Room { messages: 2, bytes: 500 });
        let retained = Retained::new(RetainedBounds { all, each }, Vec::new());
        let keep = |topic: &str, user| retained.keep(&message(topic, user)).is_some();
        assert!(keep("1", Some("hog")) && keep("2", Some("hog")) && !keep("3", Some("hog")));
        assert!(keep("2", Some("hog")), "one that is there is replaced");
        assert!(keep("3", Some("ann")) && keep("1", Some("ann")) && !keep("4", Some("ann")));
        assert!(keep("4", Some("hog")), "there is room again");
        assert!(!keep("5", Some("bob")) && !keep("5", None), "there is none for anybody");
        assert!(keep("$SYS/broker/uptime", None) && retained.count() == 5);
        let forget = Message { payload: bytes::Bytes::new(), ..message("1", Some("hog")) };
        assert!(retained.keep(&forget).is_some() && keep("5", Some("bob")));
    }
}
