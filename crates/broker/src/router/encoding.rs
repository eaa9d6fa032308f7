//! Messages and topics in the form that rumqttd bears. What the sessions need besides topic and payload (quality of service, retain,
//! who sent it) travels in front of the payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use nearside_schemas::{QoS, Timestamp, Topic};

use crate::message::{Delivery, Message};

/// In front of the payload: flags, the sender's session number, the message's number, when it expires in microseconds, and its
/// properties with their length.
pub(super) fn wrap(delivery: &Delivery, number: u64) -> Bytes {
    let Delivery { message, from, .. } = delivery;
    let mut wrapped = BytesMut::with_capacity(HEADER + message.properties.len() + message.payload.len());
    wrapped.put_u8(message.qos as u8 | (u8::from(message.retain) << 2) | (u8::from(message.at_once) << 3));
    wrapped.put_u64(*from);
    wrapped.put_u64(number);
    wrapped.put_i64(message.expires.unwrap_or(Timestamp::MAX).as_micros());
    // A packet, and so its properties, has at most 256 MiB.
    wrapped.put_u32(message.properties.len() as u32);
    wrapped.put_slice(&message.properties);
    wrapped.put_slice(&message.payload);
    wrapped.freeze()
}

const HEADER: usize = 1 + 8 + 8 + 8 + 4;

pub(super) fn unwrap(topic: Topic, wrapped: &Bytes) -> Option<(Delivery, u64)> {
    let mut rest = wrapped.clone();
    if rest.len() < HEADER {
        return None;
    }
    let flags = rest.get_u8();
    let (from, number) = (rest.get_u64(), rest.get_u64());
    let expires = Timestamp::from_micros(rest.get_i64());
    let length = rest.get_u32() as usize;
    if length > rest.len() {
        return None;
    }
    let properties = rest.split_to(length);
    let message = Message {
        topic,
        payload: rest,
        qos: QoS::try_from(flags & 3).ok()?,
        retain: flags & 4 != 0,
        properties,
        expires: (expires != Timestamp::MAX).then_some(expires),
        at_once: flags & 8 != 0,
        identifiers: Vec::new(),
        publisher: None,
        group: None,
    };
    Some((Delivery { message, from, is_compact: false }, number))
}

/// A level in letters that rumqttd bears: letters, digits, `-` and `.` stay, every other byte becomes `_` and two hexadecimal
/// digits. An empty level becomes a lone `_`, which no other level can be.
fn encode_level(level: &str, out: &mut String) {
    if level.is_empty() {
        out.push('_');
    }
    for byte in level.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.') {
            out.push(char::from(byte));
        } else {
            out.push('_');
            for digit in [byte >> 4, byte & 15] {
                out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
    }
}

fn encode_levels(topic: &str, wild: bool) -> String {
    let mut out = String::with_capacity(topic.len() + 8);
    for (n, level) in topic.split('/').enumerate() {
        if n > 0 {
            out.push('/');
        }
        if wild && matches!(level, "+" | "#") { out.push_str(level) } else { encode_level(level, &mut out) }
    }
    out
}

pub(super) fn encode_topic(topic: &str) -> String {
    encode_levels(topic, false)
}

pub(super) fn encode_filter(filter: &str) -> String {
    encode_levels(filter, true)
}

pub(super) fn decode_topic(encoded: &[u8]) -> Option<Topic> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'_' {
            out.push(byte);
        } else if bytes.peek().is_none_or(|next| *next == b'/') {
            // An empty level.
        } else {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push((high * 16 + low) as u8);
        }
    }
    Topic::new(std::str::from_utf8(&out).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn topics_come_back_and_stay_ascii(topic in "[^\0+#]{1,40}") {
            let encoded = encode_topic(&topic);
            prop_assert!(encoded.is_ascii() && !encoded.contains(['$', '+', '#']));
            prop_assert_eq!(encoded.matches('/').count(), topic.matches('/').count());
            let decoded = decode_topic(encoded.as_bytes()).unwrap();
            prop_assert_eq!(decoded.as_str(), topic);
        }
    }
}
