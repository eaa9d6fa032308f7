//! A message on its way to subscribers.

use std::sync::Arc;

use bytes::Bytes;
use nearside_schemas::{ClientId, QoS, Timestamp, Topic};

use crate::access::Holder;
use crate::packet::Carried;
use crate::router::SessionNumber;

/// Who published a retained message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Publisher {
    pub(crate) client: ClientId,
    /// To whose share of the retained messages it counts.
    pub(crate) holder: Option<Holder>,
}

/// A message, as it was published or as one subscriber gets it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: Topic,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// v5 properties that travel with it, encoded.
    pub(crate) properties: Bytes,
    /// After this it is not worth delivering (section 3.3.2.3.3).
    pub(crate) expires: Option<Timestamp>,
    /// It is for those alone who can have it at once: its publisher gave it no time to wait.
    pub(crate) at_once: bool,
    /// Of the subscriptions that asked for it; none until it is a subscriber's.
    pub(crate) identifiers: Vec<u32>,
    /// Who published it, where it is retained.
    pub(crate) publisher: Option<Arc<Publisher>>,
    /// The filter of the group that it came to a subscriber by, as that subscribed to it.
    pub(crate) group: Option<Arc<str>>,
}

impl Message {
    /// As published at `received`.
    pub(crate) fn new(
        topic: Topic,
        payload: Bytes,
        qos: QoS,
        retain: bool,
        carried: Carried,
        received: Timestamp,
    ) -> Self {
        let expires = carried.expiry_secs.map(|secs| received.plus(std::time::Duration::from_secs(u64::from(secs))));
        Self {
            topic,
            payload,
            qos,
            retain,
            properties: carried.properties,
            expires,
            at_once: carried.expiry_secs == Some(0),
            identifiers: Vec::new(),
            publisher: None,
            group: None,
        }
    }

    /// What it takes in memory and on disk, about.
    pub(crate) fn size(&self) -> usize {
        let publisher = self.publisher.as_ref().map_or(0, |publisher| publisher.client.as_str().len());
        64 + self.topic.as_str().len() + self.payload.len() + self.properties.len() + publisher
    }

    pub(crate) fn is_expired(&self, now: impl FnOnce() -> Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now())
    }

    /// A copy that does not hold on to the buffer that it was read into, which may be much larger.
    pub(crate) fn detached(&self) -> Self {
        let payload = Bytes::copy_from_slice(&self.payload);
        Self { payload, properties: Bytes::copy_from_slice(&self.properties), ..self.clone() }
    }
}

/// A message with who sent it.
#[derive(Clone)]
pub(crate) struct Delivery {
    pub(crate) message: Message,
    /// The publisher's session; 0 is the gateway itself.
    pub(crate) from: SessionNumber,
    /// Its payload holds on to no buffer that is much larger.
    pub(crate) is_compact: bool,
}
