//! From packets to bytes, appended to a buffer.

use nearside_schemas::{PacketId, QoS};

use super::{AckKind, Reason, Version};

/// CONNACK fields that are not the same for all.
#[derive(Default)]
pub(crate) struct Accepted<'a> {
    pub(crate) session_present: bool,
    /// Where it is not what the client asked for.
    pub(crate) session_expiry_secs: Option<u32>,
    pub(crate) assigned_client: Option<&'a str>,
    pub(crate) keep_alive_secs: Option<u16>,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: u32,
    pub(crate) topic_alias_maximum: u16,
}

/// CONNACK that accepts, or refuses with a reason (section 3.2).
pub(crate) fn connack(out: &mut Vec<u8>, version: Version, answer: Result<&Accepted<'_>, Reason>) {
    let mut body = vec![u8::from(answer.is_ok_and(|accepted| accepted.session_present))];
    match (version, answer) {
        (Version::V311, Ok(_)) => body.push(0),
        (Version::V311, Err(reason)) => body.push(match reason {
            Reason::UnsupportedVersion => 1,
            Reason::ClientId => 2,
            Reason::Credentials => 4,
            Reason::NotAuthorized => 5,
            _ => 3,
        }),
        (Version::V5, Err(reason)) => body.extend([reason as u8, 0]),
        (Version::V5, Ok(accepted)) => {
            body.push(0);
            let mut properties = Vec::new();
            if let Some(secs) = accepted.session_expiry_secs {
                properties.push(0x11);
                properties.extend(secs.to_be_bytes());
            }
            properties.push(0x21);
            properties.extend(accepted.receive_maximum.to_be_bytes());
            properties.push(0x22);
            properties.extend(accepted.topic_alias_maximum.to_be_bytes());
            properties.push(0x27);
            properties.extend(accepted.max_packet.to_be_bytes());
            if let Some(client) = accepted.assigned_client {
                properties.push(0x12);
                text(&mut properties, client);
            }
            if let Some(secs) = accepted.keep_alive_secs {
                properties.push(0x13);
                properties.extend(secs.to_be_bytes());
            }
            variable(&mut body, properties.len());
            body.extend(properties);
        }
    }
    packet(out, 0x20, &body);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP; the reason code of success is left out, as section 3.4.2 allows.
pub(crate) fn ack(out: &mut Vec<u8>, kind: AckKind, packet_id: PacketId) {
    let id = packet_id.get().to_be_bytes();
    out.extend([kind as u8, 2, id[0], id[1]]);
}

/// A v5 acknowledgement that refuses.
pub(crate) fn refuse(out: &mut Vec<u8>, kind: AckKind, packet_id: PacketId, reason: Reason) {
    let id = packet_id.get().to_be_bytes();
    out.extend([kind as u8, 3, id[0], id[1], reason as u8]);
}

/// A v5 PUBREL or PUBCOMP for a packet id that is not in use.
pub(crate) fn not_found(out: &mut Vec<u8>, kind: AckKind, packet_id: PacketId) {
    let id = packet_id.get().to_be_bytes();
    out.extend([kind as u8, 3, id[0], id[1], 0x92]);
}

/// A PUBLISH to a subscriber (section 3.3).
pub(crate) struct Outbound<'a> {
    pub(crate) version: Version,
    /// Empty where the alias says it.
    pub(crate) topic: &'a str,
    pub(crate) topic_alias: Option<u16>,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) duplicate: bool,
    pub(crate) retain: bool,
    /// Encoded as they came.
    pub(crate) properties: &'a [u8],
    pub(crate) expiry_secs: Option<u32>,
    /// Of the subscriptions that it matched.
    pub(crate) identifiers: &'a [u32],
}

/// Appends it, unless it would be longer than `max_packet`. Gives back whether it did.
pub(crate) fn publish(out: &mut Vec<u8>, message: &Outbound<'_>, max_packet: usize) -> bool {
    let mut own = Vec::new();
    let mut properties = 0;
    if message.version == Version::V5 {
        if let Some(secs) = message.expiry_secs {
            own.push(0x02);
            own.extend(secs.to_be_bytes());
        }
        if let Some(alias) = message.topic_alias {
            own.push(0x23);
            own.extend(alias.to_be_bytes());
        }
        for identifier in message.identifiers {
            own.push(0x0B);
            variable(&mut own, *identifier as usize);
        }
        properties = own.len() + message.properties.len();
    }
    let before = match message.version {
        Version::V311 => 0,
        Version::V5 => variable_length(properties),
    };
    let id = message.packet_id.map_or(0, |_| 2);
    let length = 2 + message.topic.len() + id + before + properties + message.payload.len();
    if 1 + variable_length(length) + length > max_packet {
        return false;
    }
    out.push(0x30 | (u8::from(message.duplicate) << 3) | ((message.qos as u8) << 1) | u8::from(message.retain));
    variable(out, length);
    text(out, message.topic);
    if let Some(packet_id) = message.packet_id {
        out.extend(packet_id.get().to_be_bytes());
    }
    if message.version == Version::V5 {
        variable(out, properties);
        out.extend(own);
        out.extend(message.properties);
    }
    out.extend(message.payload);
    true
}

/// SUBACK with a reason code for each filter (section 3.9).
pub(crate) fn suback(out: &mut Vec<u8>, version: Version, packet_id: PacketId, codes: &[u8]) {
    coded(out, 0x90, version, packet_id, codes);
}

/// UNSUBACK (section 3.11): v3.1.1 has no codes.
pub(crate) fn unsuback(out: &mut Vec<u8>, version: Version, packet_id: PacketId, codes: &[u8]) {
    coded(out, 0xB0, version, packet_id, if version == Version::V5 { codes } else { &[] });
}

fn coded(out: &mut Vec<u8>, first: u8, version: Version, packet_id: PacketId, codes: &[u8]) {
    let mut body = packet_id.get().to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(codes);
    packet(out, first, &body);
}

/// PINGRESP.
pub(crate) fn pingresp(out: &mut Vec<u8>) {
    out.extend([0xD0, 0]);
}

/// DISCONNECT from the server, which only v5 has.
pub(crate) fn disconnect(out: &mut Vec<u8>, version: Version, reason: Reason) {
    if version == Version::V5 {
        out.extend([0xE0, 1, reason as u8]);
    }
}

fn packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    variable(out, body.len());
    out.extend(body);
}

/// How many bytes [`variable`] takes.
const fn variable_length(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn variable(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        out.push(if value > 0 { byte | 0x80 } else { byte });
        if value == 0 {
            return;
        }
    }
}

/// Topics and client ids are at most 65,535 bytes long, which their types check.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}
