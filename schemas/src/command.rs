//! A command to a device: what a rule publishes (promise I8).

use std::sync::Arc;

use crate::ids::CommandId;
use crate::publish::QoS;
use crate::time::Timestamp;
use crate::topic::Topic;

/// A message to a device. It is recorded before it is sent and sent at most once.
#[derive(Clone, PartialEq, Debug)]
pub struct Command {
    /// Rule, window, revision, label and which finding of that label. The same id is never sent twice.
    pub id: CommandId,
    /// Where it goes.
    pub topic: Topic,
    /// What it says.
    pub payload: Arc<[u8]>,
    /// How it is delivered.
    pub qos: QoS,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// When the rule fired.
    pub created: Timestamp,
    /// From when on it must not be sent any more.
    pub expires: Timestamp,
}
