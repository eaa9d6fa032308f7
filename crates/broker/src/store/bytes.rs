//! Records as bytes. The first byte is the version of the form; a field of variable length has its length in front. Older forms are
//! read for ever: a session of version 1 does not say what was sent, a message of version 1 not who published it, one of version 2 neither
//! that one's user nor the group that it came by.

use std::sync::Arc;

use bytes::Bytes;
use nearside_schemas::{ClientId, QoS, Timestamp, Topic};

use super::SessionRecord;
use crate::access::Holder;
use crate::message::{Message, Publisher};
use crate::packet::{Carried, Subscription, Will};

const MESSAGE: u8 = 3;
const SESSION: u8 = 2;

/// The bytes are not what was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

pub(super) fn encode_message(message: &Message) -> Vec<u8> {
    // Only retained messages say who published them, and only those of a group by which they came; the others stay as they were.
    let publisher = message.publisher.as_ref();
    let is_plain = publisher.is_none() && message.group.is_none() && !message.at_once;
    let mut out = Out(vec![if is_plain { 1 } else { MESSAGE }]);
    out.message(message);
    if is_plain {
        return out.0;
    }
    out.u8(u8::from(publisher.is_some()) | (u8::from(message.at_once) << 1));
    if let Some(publisher) = publisher {
        out.block(publisher.client.as_str().as_bytes());
        // Addresses are not kept: another may have it tomorrow. User names are never empty.
        out.block(publisher.holder.as_ref().and_then(Holder::user).unwrap_or_default().as_bytes());
    }
    // Nor are the filters of groups.
    out.block(message.group.as_deref().unwrap_or_default().as_bytes());
    out.0
}

pub(super) fn decode_message(bytes: Vec<u8>) -> Result<Message, Malformed> {
    let (mut fields, version) = In::new(bytes, MESSAGE)?;
    let message = fields.message()?;
    let message = match version {
        1 => message,
        2 => Message { publisher: Some(fields.publisher(false)?), ..message },
        _ => {
            let flags = fields.u8()?;
            let publisher = if flags & 1 != 0 { Some(fields.publisher(true)?) } else { None };
            let group = Some(fields.text()?).filter(|group| !group.is_empty()).map(Into::into);
            Message { publisher, at_once: flags & 2 != 0, group, ..message }
        }
    };
    fields.end(message)
}

pub(super) fn encode_session(record: &SessionRecord) -> Vec<u8> {
    let mut out = Out(vec![SESSION]);
    out.u64(record.number);
    out.block(record.client.as_bytes());
    // User names are never empty.
    out.block(record.owner.as_deref().unwrap_or_default().as_bytes());
    out.u32(record.expiry_secs);
    out.time(record.offline_since);
    out.u8(u8::from(record.will.is_some()));
    if let Some(will) = &record.will {
        out.will(will);
    }
    out.u32(record.subscriptions.len() as u32);
    for subscription in &record.subscriptions {
        out.block(subscription.filter.as_bytes());
        let (local, published) = (u8::from(subscription.no_local), u8::from(subscription.retain_as_published));
        out.u8(subscription.qos as u8 | (local << 2) | (published << 3) | (subscription.retain_handling << 4));
        out.u32(subscription.identifier.unwrap_or(0));
    }
    // No position is that high.
    out.u64(record.sent.unwrap_or(u64::MAX));
    out.0
}

pub(super) fn decode_session(bytes: Vec<u8>) -> Result<SessionRecord, Malformed> {
    let (mut fields, version) = In::new(bytes, SESSION)?;
    let (number, client, owner) = (fields.u64()?, fields.text()?, fields.text()?);
    let owner = (!owner.is_empty()).then_some(owner);
    let (expiry_secs, offline_since) = (fields.u32()?, fields.time()?);
    let will = if fields.u8()? == 1 { Some(fields.will()?) } else { None };
    let mut subscriptions = Vec::new();
    for _ in 0..fields.u32()? {
        let (filter, options) = (fields.text()?, fields.u8()?);
        let identifier = fields.u32()?;
        subscriptions.push(Subscription {
            filter,
            qos: QoS::try_from(options & 3).map_err(|_| Malformed)?,
            no_local: options & 4 != 0,
            retain_as_published: options & 8 != 0,
            retain_handling: options >> 4,
            identifier: (identifier > 0).then_some(identifier),
        });
    }
    let sent = if version >= 2 { Some(fields.u64()?).filter(|sent| *sent < u64::MAX) } else { None };
    fields.end(SessionRecord { number, client, owner, expiry_secs, offline_since, will, subscriptions, sent })
}

/// See [`crate::fuzz::stored`].
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(session) = decode_session(bytes.to_vec()) {
        assert!(decode_session(encode_session(&session)) == Ok(session), "a session comes back");
    }
    if let Ok(message) = decode_message(bytes.to_vec()) {
        assert!(decode_message(encode_message(&message)) == Ok(message), "a message comes back");
    }
}

struct Out(Vec<u8>);

impl Out {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn time(&mut self, time: Option<Timestamp>) {
        self.0.extend(time.unwrap_or(Timestamp::MAX).as_micros().to_le_bytes());
    }

    /// Fields of packets, so shorter than 256 MiB.
    fn block(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend(bytes);
    }

    fn message(&mut self, message: &Message) {
        self.u8(message.qos as u8 | (u8::from(message.retain) << 2));
        self.time(message.expires);
        self.block(message.topic.as_str().as_bytes());
        self.block(&message.payload);
        self.block(&message.properties);
        self.u32(message.identifiers.len() as u32);
        for identifier in &message.identifiers {
            self.u32(*identifier);
        }
    }

    fn will(&mut self, will: &Will) {
        self.u8(will.qos as u8 | (u8::from(will.retain) << 2) | (u8::from(will.carried.expiry_secs.is_some()) << 3));
        self.u32(will.delay_secs);
        self.u32(will.carried.expiry_secs.unwrap_or(0));
        self.block(will.topic.as_str().as_bytes());
        self.block(&will.payload);
        self.block(&will.carried.properties);
    }
}

struct In(Bytes);

impl In {
    /// The fields and the version of their form, which is at most `newest`.
    fn new(bytes: Vec<u8>, newest: u8) -> Result<(Self, u8), Malformed> {
        let mut fields = Self(bytes.into());
        let version = fields.u8()?;
        if (1..=newest).contains(&version) { Ok((fields, version)) } else { Err(Malformed) }
    }

    fn end<T>(self, value: T) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(value) } else { Err(Malformed) }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.0.len() { Err(Malformed) } else { Ok(self.0.split_to(length)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?[..].try_into().map_err(|_| Malformed)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Result<Option<Timestamp>, Malformed> {
        let time = Timestamp::from_micros(i64::from_le_bytes(self.array()?));
        Ok((time != Timestamp::MAX).then_some(time))
    }

    fn block(&mut self) -> Result<Bytes, Malformed> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.block()?.into()).map_err(|_| Malformed)
    }

    fn topic(&mut self) -> Result<Topic, Malformed> {
        Topic::new(&self.text()?).map_err(|_| Malformed)
    }

    fn publisher(&mut self, with_user: bool) -> Result<Arc<Publisher>, Malformed> {
        let client = ClientId::new(&self.text()?);
        let user = if with_user { Some(self.text()?).filter(|user| !user.is_empty()) } else { None };
        Ok(Arc::new(Publisher { client, holder: Holder::of(user.as_deref()) }))
    }

    fn message(&mut self) -> Result<Message, Malformed> {
        let flags = self.u8()?;
        let (expires, topic) = (self.time()?, self.topic()?);
        let (payload, properties) = (self.block()?, self.block()?);
        let mut identifiers = Vec::new();
        for _ in 0..self.u32()? {
            identifiers.push(self.u32()?);
        }
        let qos = QoS::try_from(flags & 3).map_err(|_| Malformed)?;
        let retain = flags & 4 != 0;
        let (at_once, publisher, group) = (false, None, None);
        Ok(Message { topic, payload, qos, retain, properties, expires, at_once, identifiers, publisher, group })
    }

    fn will(&mut self) -> Result<Will, Malformed> {
        let flags = self.u8()?;
        let (delay_secs, expiry) = (self.u32()?, self.u32()?);
        let (topic, payload, properties) = (self.topic()?, self.block()?, self.block()?);
        let qos = QoS::try_from(flags & 3).map_err(|_| Malformed)?;
        let carried = Carried { properties, expiry_secs: (flags & 8 != 0).then_some(expiry) };
        Ok(Will { topic, payload, qos, retain: flags & 4 != 0, delay_secs, carried })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> SessionRecord {
        let subscription = Subscription {
            filter: "$share/g/城市/+".to_owned(),
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: 2,
            identifier: Some(7),
        };
        let will = Will {
            topic: Topic::new("gone/护士").unwrap(),
            payload: Bytes::from_static(b"\0x"),
            qos: QoS::AtLeastOnce,
            retain: true,
            delay_secs: 9,
            carried: Carried { properties: Bytes::from_static(&[1, 1]), expiry_secs: Some(0) },
        };
        SessionRecord {
            number: u64::MAX,
            client: "ä/+#".to_owned(),
            owner: Some("ä".to_owned()),
            expiry_secs: 60,
            offline_since: Some(Timestamp::from_secs(5)),
            will: Some(will),
            subscriptions: vec![subscription.clone(), Subscription { identifier: None, ..subscription }],
            sent: Some(7),
        }
    }

    #[test]
    fn sessions_come_back() {
        let bare = SessionRecord {
            owner: None,
            will: None,
            offline_since: None,
            subscriptions: Vec::new(),
            sent: None,
            ..record()
        };
        for record in [record(), bare] {
            assert!(decode_session(encode_session(&record)) == Ok(record));
        }
    }

    #[test]
    fn sessions_of_the_first_form_come_back() {
        let mut bytes = encode_session(&record());
        bytes[0] = 1;
        bytes.truncate(bytes.len() - 8);
        assert!(decode_session(bytes) == Ok(SessionRecord { sent: None, ..record() }));
    }

    #[test]
    fn messages_of_the_second_form_come_back() {
        let carried = Carried { expiry_secs: Some(0), ..Carried::default() };
        let (topic, at) = (Topic::new("a").unwrap(), Timestamp::from_secs(5));
        let plain = Message::new(topic, "x".into(), QoS::AtLeastOnce, true, Carried::default(), at);
        let mut bytes = encode_message(&plain);
        assert_eq!(bytes[0], 1);
        bytes[0] = 2;
        bytes.extend([1, 0, 0, 0, b'c']);
        let publisher = Some(Arc::new(Publisher { client: ClientId::new("c"), holder: None }));
        assert!(decode_message(bytes) == Ok(Message { publisher, ..plain.clone() }));
        assert!(Message::new(plain.topic, "x".into(), QoS::AtLeastOnce, true, carried, at).at_once);
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_refused() {
        let whole = encode_session(&record());
        for length in 0..whole.len() {
            assert!(decode_session(whole[..length].to_vec()).is_err(), "{length}");
        }
        assert!(decode_session([whole, vec![0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn messages_come_back(
            topic in "[^\0+#]{1,20}", payload in prop::collection::vec(any::<u8>(), 0..40), qos in 0u8..3, retain: bool,
            expires in prop::option::of(any::<i32>()), identifiers in prop::collection::vec(1u32..1_000, 0..3),
            publisher in prop::option::of(("[a-z+#\u{e4}]{0,9}", prop::option::of("[a-z\u{e4}]{1,9}"))),
            group in prop::option::of("[a-z+#/]{1,9}"), at_once: bool,
        ) {
            let message = Message {
                topic: Topic::new(&topic).unwrap(),
                payload: payload.clone().into(),
                qos: QoS::try_from(qos).unwrap(),
                retain,
                properties: payload.into(),
                expires: expires.map(|secs| Timestamp::from_secs(i64::from(secs))),
                identifiers,
                at_once,
                publisher: publisher.map(|(client, user)| {
                    Arc::new(Publisher { client: ClientId::new(&client), holder: Holder::of(user.as_deref()) })
                }),
                group: group.map(Into::into),
            };
            prop_assert!(decode_message(encode_message(&message)) == Ok(message));
        }
    }
}
