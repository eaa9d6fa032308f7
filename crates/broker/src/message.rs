//! A message on its way to subscribers.

use bytes::Bytes;
use nearside_schemas::{ClientId, QoS, Timestamp, Topic};

use crate::packet::Carried;
use crate::router::SessionNumber;

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
    /// Of the subscriptions that asked for it; none until it is a subscriber's.
    pub(crate) identifiers: Vec<u32>,
    /// Who published it, where it is retained.
    pub(crate) publisher: Option<ClientId>,
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
        let properties = carried.properties;
        Self { topic, payload, qos, retain, properties, expires, identifiers: Vec::new(), publisher: None }
    }

    /// What it takes in memory and on disk, about.
    pub(crate) fn size(&self) -> usize {
        let publisher = self.publisher.as_ref().map_or(0, |client| client.as_str().len());
        64 + self.topic.as_str().len() + self.payload.len() + self.properties.len() + publisher
    }

    pub(crate) fn is_expired(&self, now: impl FnOnce() -> Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now())
    }

    /// A copy that does not hold on to the buffer that it was read into, which may be much larger.
    pub(crate) fn detached(&self) -> Self {
        let Self { topic, payload, qos, retain, properties, expires, identifiers, publisher } = self;
        Self {
            topic: topic.clone(),
            payload: Bytes::copy_from_slice(payload),
            qos: *qos,
            retain: *retain,
            properties: Bytes::copy_from_slice(properties),
            expires: *expires,
            identifiers: identifiers.clone(),
            publisher: publisher.clone(),
        }
    }
}

/// A message with who sent it.
#[derive(Clone)]
pub(crate) struct Delivery {
    pub(crate) message: Message,
    /// The publisher's session; 0 is the gateway itself.
    pub(crate) from: SessionNumber,
}
