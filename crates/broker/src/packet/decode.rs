//! From bytes to packets. Strict: what the texts call malformed is malformed here.

use bytes::{Buf, Bytes, BytesMut};
use nearside_schemas::{PacketId, QoS, Topic};

use super::reader::Fields;
use super::{Carried, Connect, Filters, Incoming, Packet, Reason, Subscription, Subscriptions, Version, Will};
use crate::filter;

/// A packet cut out of the stream: its first byte and its body.
pub(crate) struct Frame {
    pub(crate) first: u8,
    pub(crate) body: Bytes,
}

/// Cuts the next packet off the front of `buffer`; `None`: more bytes are needed.
pub(crate) fn frame(buffer: &mut BytesMut, max_packet: usize) -> Result<Option<Frame>, Reason> {
    let mut length = 0usize;
    for at in 0..4 {
        let Some(byte) = buffer.get(1 + at) else { return Ok(None) };
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            if *byte == 0 && at > 0 {
                return Err(Reason::Malformed);
            }
            let header = 2 + at;
            if header + length > max_packet {
                return Err(Reason::PacketTooLarge);
            }
            if buffer.len() < header + length {
                // No room is made for what is only announced.
                return Ok(None);
            }
            let first = buffer[0];
            let mut packet = buffer.split_to(header + length).freeze();
            let body = packet.split_off(header);
            return Ok(Some(Frame { first, body }));
        }
    }
    Err(Reason::Malformed)
}

/// Takes a PUBACK without reason or properties off the front of `buffer`, if one is there.
pub(crate) fn take_short_puback(buffer: &mut BytesMut) -> Option<PacketId> {
    let [0x40, 2, high, low, ..] = buffer[..] else { return None };
    let id = PacketId::new(u16::from_be_bytes([high, low]))?;
    buffer.advance(4);
    Some(id)
}

/// The version that a packet which begins as a CONNECT names behind its protocol's name, whatever name that is; `None`: more bytes are
/// needed to tell.
pub(crate) fn connect_version(buffer: &[u8]) -> Option<Version> {
    let length = buffer.get(1..)?.iter().take(4).position(|byte| byte & 0x80 == 0)?;
    let body = &buffer[length + 2..];
    let name = u16::from_be_bytes([*body.first()?, *body.get(1)?]);
    let version = *body.get(2 + usize::from(name))?;
    Some(if version == 5 { Version::V5 } else { Version::V311 })
}

/// Reads a CONNECT (section 3.1).
pub(crate) fn connect(frame: Frame) -> Result<Connect, Reason> {
    if frame.first != 0x10 {
        return Err(Reason::Protocol);
    }
    let mut fields = Fields(frame.body);
    if fields.text()? != "MQTT" {
        return Err(Reason::UnsupportedVersion);
    }
    let version = match fields.u8()? {
        4 => Version::V311,
        5 => Version::V5,
        _ => return Err(Reason::UnsupportedVersion),
    };
    let flags = fields.u8()?;
    let (clean, has_will) = (flags & 0x02 != 0, flags & 0x04 != 0);
    let will_qos = QoS::try_from((flags >> 3) & 3).map_err(|_| Reason::Malformed)?;
    let will_retain = flags & 0x20 != 0;
    let (password, user) = (flags & 0x40 != 0, flags & 0x80 != 0);
    let will_flags_without_will = !has_will && (flags & 0x38 != 0);
    if flags & 0x01 != 0 || will_flags_without_will || (version == Version::V311 && password && !user) {
        return Err(Reason::Malformed);
    }
    let keep_alive_secs = fields.u16()?;
    let properties = match version {
        Version::V5 => fields.properties(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27])?,
        Version::V311 => Default::default(),
    };
    if properties.authentication {
        // Extended authentication is not offered.
        return Err(Reason::AuthenticationMethod);
    }
    if properties.authentication_data {
        // Data without a method (section 3.1.2.11.10).
        return Err(Reason::Protocol);
    }
    let client = fields.text()?;
    let will = if has_will { Some(read_will(&mut fields, version, will_qos, will_retain)?) } else { None };
    let user = if user { Some(fields.text()?) } else { None };
    let password = if password { Some(fields.binary()?) } else { None };
    fields.end()?;
    if client.is_empty() && !clean && version == Version::V311 {
        return Err(Reason::ClientId);
    }
    Ok(Connect {
        version,
        client,
        clean,
        keep_alive_secs,
        session_expiry_secs: match version {
            Version::V5 => properties.session_expiry_secs.unwrap_or(0),
            Version::V311 if clean => 0,
            Version::V311 => u32::MAX,
        },
        will,
        user,
        password,
        receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
        max_packet: properties.max_packet.unwrap_or(u32::MAX),
        topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
    })
}

fn read_will(fields: &mut Fields, version: Version, qos: QoS, retain: bool) -> Result<Will, Reason> {
    let properties = match version {
        Version::V5 => fields.properties(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26])?,
        Version::V311 => Default::default(),
    };
    let topic = Topic::new(&fields.text()?).map_err(|_| Reason::TopicName)?;
    let carried = Carried { properties: properties.passed_on, expiry_secs: properties.message_expiry_secs };
    let delay_secs = properties.will_delay_secs.unwrap_or(0);
    Ok(Will { topic, payload: fields.binary()?, qos, retain, delay_secs, carried })
}

/// Reads any packet but CONNECT.
pub(crate) fn packet(frame: Frame, version: Version) -> Result<Packet, Reason> {
    let (kind, flags) = (frame.first >> 4, frame.first & 0x0F);
    if kind == 3 {
        return publish(flags, frame.body, version);
    }
    // Section 2.1.3: the flags of each kind are fixed.
    if flags != if matches!(kind, 6 | 8 | 10) { 2 } else { 0 } {
        return Err(Reason::Malformed);
    }
    let mut fields = Fields(frame.body);
    match kind {
        4 => acknowledgement(&mut fields, version, TAKEN_OR_NOT).map(|(id, _)| Packet::PubAck(id)),
        5 => acknowledgement(&mut fields, version, TAKEN_OR_NOT)
            .map(|(id, code)| Packet::PubRec { id, refused: code >= 0x80 }),
        6 => acknowledgement(&mut fields, version, FOUND_OR_NOT).map(|(id, _)| Packet::PubRel(id)),
        7 => acknowledgement(&mut fields, version, FOUND_OR_NOT).map(|(id, _)| Packet::PubComp(id)),
        8 => subscribe(&mut fields, version),
        10 => unsubscribe(&mut fields, version),
        12 => fields.end().map(|()| Packet::PingReq),
        14 => disconnect(&mut fields, version),
        _ => Err(Reason::Protocol),
    }
}

fn publish(flags: u8, body: Bytes, version: Version) -> Result<Packet, Reason> {
    let qos = QoS::try_from((flags >> 1) & 3).map_err(|_| Reason::Malformed)?;
    if qos == QoS::AtMostOnce && flags & 0x08 != 0 {
        return Err(Reason::Malformed);
    }
    let mut fields = Fields(body);
    let topic = fields.binary()?;
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(fields.packet_id()?) };
    let (mut topic_alias, mut carried) = (None, Carried::default());
    if version == Version::V5 && fields.0.first() == Some(&0) {
        // No properties, as from most devices.
        fields.u8()?;
    } else if version == Version::V5 {
        let properties = fields.properties(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26])?;
        topic_alias = properties.topic_alias;
        carried = Carried { properties: properties.passed_on, expiry_secs: properties.message_expiry_secs };
    }
    let payload = fields.0;
    Ok(Packet::Publish(Incoming { topic, topic_alias, payload, qos, packet_id, retain: flags & 1 != 0, carried }))
}

/// The codes of PUBACK and PUBREC (sections 3.4.2.1 and 3.5.2.1).
const TAKEN_OR_NOT: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// The codes of PUBREL and PUBCOMP (sections 3.6.2.1 and 3.7.2.1).
const FOUND_OR_NOT: &[u8] = &[0x00, 0x92];
/// The codes of a client's DISCONNECT (section 3.14.2.1).
const GOODBYES: &[u8] = &[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];

fn acknowledgement(fields: &mut Fields, version: Version, codes: &[u8]) -> Result<(PacketId, u8), Reason> {
    let packet_id = fields.packet_id()?;
    let mut code = 0;
    if version == Version::V5 && !fields.0.is_empty() {
        code = fields.u8()?;
        if !codes.contains(&code) {
            return Err(Reason::Protocol);
        }
        if !fields.0.is_empty() {
            fields.properties(&[0x1F, 0x26])?;
        }
    }
    fields.end()?;
    Ok((packet_id, code))
}

fn subscribe(fields: &mut Fields, version: Version) -> Result<Packet, Reason> {
    let packet_id = fields.packet_id()?;
    let identifier = match version {
        Version::V5 => fields.properties(&[0x0B, 0x26])?.identifier,
        Version::V311 => None,
    };
    let subscriptions = Subscriptions { fields: fields.clone(), version, identifier };
    if fields.0.is_empty() {
        return Err(Reason::Protocol);
    }
    while !fields.0.is_empty() {
        subscription(fields, version, identifier)?;
    }
    Ok(Packet::Subscribe(packet_id, subscriptions))
}

/// One filter with its options (section 3.8.3).
fn subscription(fields: &mut Fields, version: Version, identifier: Option<u32>) -> Result<Subscription, Reason> {
    let filter = filter_text(fields)?;
    let options = fields.u8()?;
    let qos = QoS::try_from(options & 3).map_err(|_| Reason::Malformed)?;
    let reserved = if version == Version::V5 { 0xC0 } else { 0xFC };
    if options & reserved != 0 || (options >> 4) & 3 == 3 {
        return Err(Reason::Malformed);
    }
    let no_local = options & 0x04 != 0;
    if no_local && filter::share(&filter).is_some() {
        // Section 3.8.3.1.
        return Err(Reason::Protocol);
    }
    Ok(Subscription {
        filter,
        qos,
        no_local,
        retain_as_published: options & 0x08 != 0,
        retain_handling: (options >> 4) & 3,
        identifier,
    })
}

fn filter_text(fields: &mut Fields) -> Result<String, Reason> {
    let filter = fields.text()?;
    if filter::is_valid(&filter) { Ok(filter) } else { Err(Reason::TopicFilter) }
}

// The packet was checked as a whole before: nothing here can fail, and an end is an end.
impl Iterator for Subscriptions {
    type Item = Subscription;

    fn next(&mut self) -> Option<Subscription> {
        subscription(&mut self.fields, self.version, self.identifier).ok()
    }
}

impl Iterator for Filters {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        filter_text(&mut self.0).ok()
    }
}

fn unsubscribe(fields: &mut Fields, version: Version) -> Result<Packet, Reason> {
    let packet_id = fields.packet_id()?;
    if version == Version::V5 {
        fields.properties(&[0x26])?;
    }
    let filters = Filters(fields.clone());
    if fields.0.is_empty() {
        return Err(Reason::Protocol);
    }
    while !fields.0.is_empty() {
        filter_text(fields)?;
    }
    Ok(Packet::Unsubscribe(packet_id, filters))
}

fn disconnect(fields: &mut Fields, version: Version) -> Result<Packet, Reason> {
    let (mut with_will, mut session_expiry_secs) = (false, None);
    if version == Version::V5 && !fields.0.is_empty() {
        let code = fields.u8()?;
        if !GOODBYES.contains(&code) {
            return Err(Reason::Protocol);
        }
        // Only a normal one takes the will along (section 3.14.4).
        with_will = code != 0;
        if !fields.0.is_empty() {
            session_expiry_secs = fields.properties(&[0x11, 0x1F, 0x26])?.session_expiry_secs;
        }
    }
    fields.end()?;
    Ok(Packet::Disconnect { with_will, session_expiry_secs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_is_made_for_what_is_only_announced() {
        let mut buffer = BytesMut::from(&[0x30, 0xFC, 0xFF, 0x3F, 0, 1, b'a'][..]);
        assert!(matches!(frame(&mut buffer, 1 << 20), Ok(None)));
        assert!(buffer.capacity() < 100, "{}", buffer.capacity());
    }

    #[test]
    fn the_version_is_told_whatever_the_name() {
        for (name, version) in [("MQTT", 4), ("MQTT", 5), ("", 5), ("MQIsdp", 3), ("MQIsdp", 5)] {
            let body = [&(name.len() as u16).to_be_bytes(), name.as_bytes(), &[version, 0]].concat();
            let packet = [&[0x10, body.len() as u8][..], &body].concat();
            let expected = if version == 5 { Version::V5 } else { Version::V311 };
            assert_eq!(connect_version(&packet), Some(expected), "{name}");
            assert_eq!(connect_version(&packet[..packet.len() - 2]), None, "{name}");
        }
        assert_eq!(connect_version(&[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 5]), None);
    }
}
