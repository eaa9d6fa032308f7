//! From packets to bytes, appended to a buffer.

use nearside_schemas::{PacketId, QoS};

use super::{AckKind, Reason, Version};

/// CONNACK properties that are not the same for all.
pub(crate) struct Accepted<'a> {
    pub(crate) assigned_client: Option<&'a str>,
    pub(crate) keep_alive_secs: Option<u16>,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: u32,
}

/// CONNACK that accepts, or refuses with a reason (section 3.2).
pub(crate) fn connack(out: &mut Vec<u8>, version: Version, answer: Result<&Accepted<'_>, Reason>) {
    let mut body = vec![0];
    match (version, answer) {
        (Version::V311, Ok(_)) => body.push(0),
        (Version::V311, Err(reason)) => body.push(match reason {
            Reason::UnsupportedVersion => 1,
            Reason::ClientId => 2,
            Reason::NotAuthorized => 5,
            _ => 3,
        }),
        (Version::V5, Err(reason)) => body.extend([reason as u8, 0]),
        (Version::V5, Ok(accepted)) => {
            body.push(0);
            let mut properties = Vec::new();
            // Sessions end with their connection.
            properties.push(0x11);
            properties.extend(0u32.to_be_bytes());
            properties.push(0x21);
            properties.extend(accepted.receive_maximum.to_be_bytes());
            properties.push(0x27);
            properties.extend(accepted.max_packet.to_be_bytes());
            // Neither subscription identifiers nor shared subscriptions yet.
            properties.extend([0x29, 0, 0x2A, 0]);
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

/// PUBACK, PUBREC or PUBCOMP; the reason code of success is left out, as section 3.4.2 allows.
pub(crate) fn ack(out: &mut Vec<u8>, kind: AckKind, packet_id: PacketId) {
    let id = packet_id.get().to_be_bytes();
    out.extend([kind as u8, 2, id[0], id[1]]);
}

/// A v5 acknowledgement that refuses.
pub(crate) fn refuse(out: &mut Vec<u8>, kind: AckKind, packet_id: PacketId, reason: Reason) {
    let id = packet_id.get().to_be_bytes();
    out.extend([kind as u8, 3, id[0], id[1], reason as u8]);
}

/// A PUBLISH to a subscriber (section 3.3).
pub(crate) fn publish(
    out: &mut Vec<u8>,
    version: Version,
    topic: &str,
    payload: &[u8],
    qos: QoS,
    packet_id: Option<PacketId>,
    retain: bool,
) {
    out.push(0x30 | ((qos as u8) << 1) | u8::from(retain));
    let properties = usize::from(version == Version::V5);
    variable(out, 2 + topic.len() + packet_id.map_or(0, |_| 2) + properties + payload.len());
    text(out, topic);
    if let Some(packet_id) = packet_id {
        out.extend(packet_id.get().to_be_bytes());
    }
    if version == Version::V5 {
        out.push(0);
    }
    out.extend(payload);
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
