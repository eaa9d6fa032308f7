//! A PUBLISH as the front door takes it in and the journal keeps it.

use std::num::NonZeroU16;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::ClientId;
use crate::time::Timestamp;
use crate::topic::Topic;

/// MQTT's quality of service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(try_from = "u8", into = "u8")]
pub enum QoS {
    /// Fire and forget.
    AtMostOnce = 0,
    /// Acknowledged delivery.
    AtLeastOnce = 1,
    /// Assured delivery.
    ExactlyOnce = 2,
}

impl From<QoS> for u8 {
    fn from(qos: QoS) -> u8 {
        qos as u8
    }
}

impl TryFrom<u8> for QoS {
    type Error = String;
    fn try_from(level: u8) -> Result<Self, String> {
        match level {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            _ => Err(format!("a quality of service is 0, 1 or 2, not {level}")),
        }
    }
}

/// A packet identifier, never 0 (MQTT 5 section 2.2.1).
pub type PacketId = NonZeroU16;

/// One message as a client published it. Personal by default: `Debug` shows sizes only.
#[derive(Clone, PartialEq, Eq)]
pub struct Publish {
    /// Who sent it.
    pub client: ClientId,
    /// To which topic.
    pub topic: Topic,
    /// With which payload.
    pub payload: Bytes,
    /// With which quality of service.
    pub qos: QoS,
    /// The packet id, for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Whether it is to be retained.
    pub retain: bool,
    /// When the front door read it.
    pub received: Timestamp,
}

impl std::fmt::Debug for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publish({:?}, {} bytes, qos {})", self.topic, self.payload.len(), self.qos as u8)
    }
}
