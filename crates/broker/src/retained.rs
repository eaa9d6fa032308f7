//! Retained messages: the last one of each topic (section 3.3.1.3 of MQTT 5). Bounded; kept on disk by the session store.

use std::collections::HashMap;

use nearside_schemas::{Timestamp, Topic};
use parking_lot::RwLock;

use crate::message::Message;
use crate::store::Change;

/// The retained messages.
pub(crate) struct Retained {
    most: usize,
    most_bytes: usize,
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    /// With each message its number in the store.
    messages: HashMap<Topic, (u64, Message)>,
    bytes: usize,
    last_number: u64,
}

impl Retained {
    /// With what the store had.
    pub(crate) fn new(most: usize, most_bytes: usize, stored: Vec<(u64, Message)>) -> Self {
        let mut kept = Kept::default();
        for (number, message) in stored {
            kept.last_number = kept.last_number.max(number);
            kept.bytes += message.size();
            kept.messages.insert(message.topic.clone(), (number, message));
        }
        Self { most, most_bytes, kept: RwLock::new(kept) }
    }

    /// Keeps the message, or forgets the topic's where the payload is empty. Gives back what the store is told, or `None` where
    /// there is no room.
    pub(crate) fn keep(&self, message: &Message) -> Option<Option<Change>> {
        let mut kept = self.kept.write();
        if message.payload.is_empty() {
            return Some(kept.remove(&message.topic).map(Change::Forget));
        }
        let before = kept.messages.get(&message.topic).map(|(number, before)| (*number, before.size()));
        let bytes = kept.bytes - before.map_or(0, |(_, size)| size) + message.size();
        if bytes > self.most_bytes || (before.is_none() && kept.messages.len() >= self.most) {
            return None;
        }
        let number = before.map_or(kept.last_number + 1, |(number, _)| number);
        kept.last_number = kept.last_number.max(number);
        kept.bytes = bytes;
        let message = Message { retain: true, ..message.detached() };
        kept.messages.insert(message.topic.clone(), (number, message.clone()));
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
    fn remove(&mut self, topic: &Topic) -> Option<u64> {
        let (number, message) = self.messages.remove(topic)?;
        self.bytes -= message.size();
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Carried;
    use bytes::Bytes;
    use nearside_schemas::QoS;
    use std::time::Duration;

    #[test]
    fn what_is_shown_is_not_replaced_meanwhile() {
        let now = Timestamp::from_secs(1);
        let message = |payload: &'static str| {
            let topic = Topic::new("a").unwrap();
            Message::new(topic, payload.into(), QoS::AtMostOnce, true, Carried::default(), now)
        };
        let retained = Retained::new(10, 1_000, Vec::new());
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
}
