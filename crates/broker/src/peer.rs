//! The connection that a session has, and how messages are written for it.

use std::collections::HashMap;
use std::sync::Arc;

use nearside_schemas::{Clock, PacketId, Topic};

use crate::flush::Bell;
use crate::packet::{Outbound, Version, publish};
use crate::queue::Queued;

/// Most topics that are numbered for one connection, however many the client takes (promise I4).
const ALIASES: u16 = 256;

/// What the client of a new connection says it can take.
pub(crate) struct PeerLimits {
    pub(crate) version: Version,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: u32,
    pub(crate) topic_alias_maximum: u16,
}

/// The connection that a session has.
pub(crate) struct Peer {
    pub(crate) connection: u64,
    pub(crate) bell: Arc<Bell>,
    version: Version,
    pub(crate) receive_maximum: usize,
    max_packet: usize,
    aliases: HashMap<Topic, u16>,
    alias_maximum: u16,
}

impl Peer {
    /// With no more than `in_flight` messages on their way, whatever the client takes.
    pub(crate) fn new(connection: u64, limits: &PeerLimits, in_flight: usize, bell: Arc<Bell>) -> Self {
        Self {
            connection,
            bell,
            version: limits.version,
            receive_maximum: usize::from(limits.receive_maximum).min(in_flight),
            max_packet: limits.max_packet as usize,
            aliases: HashMap::new(),
            alias_maximum: limits.topic_alias_maximum.min(ALIASES),
        }
    }

    /// Appends the message, unless it is too large for the client. Gives back whether it did.
    pub(crate) fn encode(
        &mut self,
        out: &mut Vec<u8>,
        queued: &Queued,
        id: Option<PacketId>,
        clock: &dyn Clock,
    ) -> bool {
        let message = &queued.held.message;
        let mut topic = message.topic.as_str();
        let mut alias = self.aliases.get(&message.topic).copied();
        let mut new_alias = None;
        if alias.is_some() {
            topic = "";
        } else if self.aliases.len() < usize::from(self.alias_maximum) && self.version == Version::V5 {
            new_alias = u16::try_from(self.aliases.len() + 1).ok();
            alias = new_alias;
        }
        // The time that is left (section 3.3.2.3.3).
        let expiry_secs = message.expires.map(|expires| {
            let left = expires.since(clock.now());
            u32::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
        });
        let outbound = Outbound {
            version: self.version,
            topic,
            topic_alias: alias,
            payload: &message.payload,
            qos: message.qos,
            packet_id: id,
            duplicate: queued.duplicate,
            retain: message.retain,
            properties: &message.properties,
            expiry_secs,
            identifiers: &message.identifiers,
        };
        let written = publish(out, &outbound, self.max_packet);
        if let (true, Some(alias)) = (written, new_alias) {
            self.aliases.insert(message.topic.clone(), alias);
        }
        written
    }
}
