//! MQTT packets as a server needs them: OASIS MQTT 3.1.1 and 5.0, chapters 2 and 3.

mod decode;
mod encode;
mod reader;

pub(crate) use decode::{connect, connect_version, frame, packet, take_short_puback};
pub(crate) use encode::{
    Accepted, Outbound, ack, connack, disconnect, not_found, pingresp, publish, refuse, suback, unsuback,
};

use bytes::Bytes;
use nearside_schemas::{PacketId, QoS, Topic};

use self::reader::Fields;

/// The protocol version of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    V311,
    V5,
}

/// Why something is refused or a connection is ended: MQTT 5 reason codes, section 2.4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    Unspecified = 0x80,
    Malformed = 0x81,
    Protocol = 0x82,
    UnsupportedVersion = 0x84,
    ClientId = 0x85,
    Credentials = 0x86,
    NotAuthorized = 0x87,
    ServerBusy = 0x89,
    ServerShuttingDown = 0x8B,
    AuthenticationMethod = 0x8C,
    KeepAlive = 0x8D,
    TakenOver = 0x8E,
    TopicFilter = 0x8F,
    TopicName = 0x90,
    ReceiveMaximum = 0x93,
    TopicAlias = 0x94,
    PacketTooLarge = 0x95,
    QuotaExceeded = 0x97,
    Administrative = 0x98,
    /// Never said: who has not come to an end with CONNECT has no version to say it in.
    ConnectTime = 0xA0,
    /// Never said, for the same reason: the place was needed for a newer connection.
    MadeWay = 0xA1,
}

impl Reason {
    /// The metric label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Protocol => "protocol",
            Self::Credentials => "credentials",
            Self::NotAuthorized => "not_authorized",
            Self::ServerBusy => "server_busy",
            Self::AuthenticationMethod => "authentication_method",
            Self::ReceiveMaximum => "receive_maximum",
            Self::Administrative => "administrative",
            Self::ServerShuttingDown => "shutting_down",
            Self::KeepAlive => "keep_alive",
            Self::ConnectTime => "handshake_timeout",
            Self::MadeWay => "made_way",
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
    /// How long after the connection it is published, unless the client is back by then.
    pub(crate) delay_secs: u32,
    pub(crate) carried: Carried,
}

/// The v5 properties of a message that its subscribers get to see.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Payload format, content type, response topic, correlation data and user properties, encoded as they came.
    pub(crate) properties: Bytes,
    /// For how long the message is worth delivering.
    pub(crate) expiry_secs: Option<u32>,
}

impl Carried {
    pub(crate) fn is_empty(&self) -> bool {
        self.properties.is_empty() && self.expiry_secs.is_none()
    }
}

/// CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive_secs: u16,
    /// For how long the session outlives the connection; `u32::MAX`: for ever. v3.1.1 has only no time and for ever.
    pub(crate) session_expiry_secs: u32,
    pub(crate) will: Option<Will>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Bytes>,
    /// How many QoS 1 and 2 messages the client takes at a time.
    pub(crate) receive_maximum: u16,
    /// The largest packet the client takes.
    pub(crate) max_packet: u32,
    /// How many topic aliases the client takes.
    pub(crate) topic_alias_maximum: u16,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Subscription {
    /// As the client wrote it, with `$share/NAME/` in front where it is shared.
    pub(crate) filter: String,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// 0 send retained messages, 1 only for a new subscription, 2 never.
    pub(crate) retain_handling: u8,
    pub(crate) identifier: Option<u32>,
}

/// The filters of a SUBSCRIBE, read one at a time: a packet of a megabyte holds hundreds of thousands.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Subscriptions {
    fields: Fields,
    version: Version,
    identifier: Option<u32>,
}

/// The filters of an UNSUBSCRIBE, likewise.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Filters(Fields);

/// A PUBLISH from a client.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) topic: Bytes,
    pub(crate) topic_alias: Option<u16>,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) retain: bool,
    pub(crate) carried: Carried,
}

/// What a client may send after CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    Publish(Incoming),
    PubAck(PacketId),
    PubRec {
        id: PacketId,
        /// The client does not take the message.
        refused: bool,
    },
    PubRel(PacketId),
    PubComp(PacketId),
    Subscribe(PacketId, Subscriptions),
    Unsubscribe(PacketId, Filters),
    PingReq,
    Disconnect {
        with_will: bool,
        session_expiry_secs: Option<u32>,
    },
}

/// The kinds of acknowledgements of two or more bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AckKind {
    /// PUBACK.
    Acknowledged = 0x40,
    /// PUBREC.
    Received = 0x50,
    /// PUBREL.
    Release = 0x62,
    /// PUBCOMP.
    Complete = 0x70,
}
