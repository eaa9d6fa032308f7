//! MQTT packets as a server needs them: OASIS MQTT 3.1.1 and 5.0, chapters 2 and 3.

mod decode;
mod encode;
mod reader;

pub(crate) use decode::{connect, frame, packet};
pub(crate) use encode::{Accepted, ack, connack, disconnect, pingresp, publish, refuse, suback, unsuback};

use bytes::Bytes;
use nearside_schemas::{PacketId, QoS, Topic};

/// The protocol version of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    V311,
    V5,
}

/// Why a connection is ended: MQTT 5 reason codes, section 2.4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    Malformed = 0x81,
    Protocol = 0x82,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerShuttingDown = 0x8B,
    KeepAlive = 0x8D,
    TakenOver = 0x8E,
    TopicFilter = 0x8F,
    TopicName = 0x90,
    PacketTooLarge = 0x95,
    QuotaExceeded = 0x97,
    UnsupportedVersion = 0x84,
    ClientId = 0x85,
    TopicAlias = 0x94,
    Unspecified = 0x80,
}

impl Reason {
    /// The metric label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Protocol => "protocol",
            Self::NotAuthorized => "not_authorized",
            Self::ServerUnavailable => "server_unavailable",
            Self::ServerShuttingDown => "shutting_down",
            Self::KeepAlive => "keep_alive",
            Self::TakenOver => "taken_over",
            Self::TopicFilter => "topic_filter",
            Self::TopicName => "topic_name",
            Self::PacketTooLarge => "packet_too_large",
            Self::QuotaExceeded => "quota_exceeded",
            Self::UnsupportedVersion => "unsupported_version",
            Self::ClientId => "client_id",
            Self::TopicAlias => "topic_alias",
            Self::Unspecified => "unspecified",
        }
    }
}

/// A will: what is published when the client goes without a word.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Will {
    pub(crate) topic: Topic,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
}

/// CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive_secs: u16,
    pub(crate) will: Option<Will>,
    /// How many QoS 1 messages the client takes at a time.
    pub(crate) receive_maximum: u16,
    /// The largest packet the client takes.
    pub(crate) max_packet: u32,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) filter: String,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// 0 send retained messages, 1 only for a new subscription, 2 never.
    pub(crate) retain_handling: u8,
}

/// A PUBLISH from a client.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) retain: bool,
}

/// What a client may send after CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    Publish(Incoming),
    PubAck(PacketId),
    PubRel(PacketId),
    /// PUBREC and PUBCOMP, which answer messages we never send.
    Unasked,
    Subscribe(PacketId, Vec<Subscription>),
    Unsubscribe(PacketId, Vec<String>),
    PingReq,
    Disconnect {
        with_will: bool,
    },
}

/// The kinds of acknowledgements of two or more bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AckKind {
    /// PUBACK.
    Acknowledged = 0x40,
    /// PUBREC.
    Received = 0x50,
    /// PUBCOMP.
    Complete = 0x70,
}
