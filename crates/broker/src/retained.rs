//! Retained messages: the last one of each topic (section 3.3.1.3 of MQTT 5). In memory, bounded.

use std::collections::HashMap;

use bytes::Bytes;
use nearside_schemas::{QoS, Topic};
use parking_lot::RwLock;

use crate::filter;

/// The retained messages.
pub(crate) struct Retained {
    most: usize,
    messages: RwLock<HashMap<Topic, (Bytes, QoS)>>,
}

impl Retained {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, messages: RwLock::default() }
    }

    /// Keeps the message, or forgets the topic's where the payload is empty. False where there is no room for another topic.
    pub(crate) fn keep(&self, topic: &Topic, payload: &Bytes, qos: QoS) -> bool {
        let mut messages = self.messages.write();
        if payload.is_empty() {
            messages.remove(topic);
            return true;
        }
        if messages.len() >= self.most && !messages.contains_key(topic) {
            return false;
        }
        // A copy: the payload may be a slice of a much larger read buffer.
        messages.insert(topic.clone(), (Bytes::copy_from_slice(payload), qos));
        true
    }

    /// The messages that a filter asks for.
    pub(crate) fn matching(&self, filter: &str) -> Vec<(Topic, Bytes, QoS)> {
        let messages = self.messages.read();
        let wanted = messages.iter().filter(|(topic, _)| filter::matches(filter, topic.as_str()));
        wanted.map(|(topic, (payload, qos))| (topic.clone(), payload.clone(), *qos)).collect()
    }
}
