//! What v5 adds to a message on its way: properties, expiry, aliases, receive maximum, maximum packet size.

use std::sync::Arc;

use nearside_schemas::{Clock, ManualClock, Timestamp};

use crate::support::*;

/// Every property that is passed on: payload format, content type, response topic, correlation data, two user properties.
fn passed_on() -> Vec<u8> {
    let user = |value: &str| [&[0x26][..], &text("k"), &text(value)].concat();
    let parts = [
        vec![0x01, 1],
        [&[0x03][..], &text("text/plain")].concat(),
        [&[0x08][..], &text("answers/城")].concat(),
        vec![0x09, 0, 2, 0xFF, 0x00],
        user("first"),
        user("second"),
    ];
    parts.concat()
}

/// [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]: unaltered and in order, to sessions of
/// either kind, live and retained, whatever stood between them.
#[tokio::test(flavor = "multi_thread")]
async fn properties_arrive_as_they_were_sent() {
    let broker = Broker::start().await;
    let mut publisher = broker.connect(5, "p").await;
    let mut clients = Vec::new();
    for connect in [Connect::new(5, "c"), Connect::new(5, "d").persistent(60)] {
        let mut client = broker.client().await;
        client.send(connect.bytes()).await;
        client.receive().await;
        client.subscribe(5, &[("a", 2)]).await;
        clients.push(client);
    }
    let mut old = broker.connect(4, "old").await;
    old.subscribe(4, &[("a", 0)]).await;
    for qos in 0..3 {
        let with_alias = [&passed_on()[..2], &[0x23, 0, 3], &passed_on()[2..]].concat();
        let message = Publish::new("a", "x", qos, 1).property(&with_alias).retained();
        publisher.publish(5, &message).await;
        for client in &mut clients {
            assert_eq!(client.message(5).await.properties, passed_on());
        }
        assert_eq!(old.message(4).await.payload, b"x");
    }
    let mut late = broker.connect(5, "late").await;
    late.subscribe(5, &[("a", 0)]).await;
    assert_eq!(late.message(5).await.properties, passed_on());
}

/// Section 3.3.2.3.3: counted down, and dropped when over.
#[tokio::test(flavor = "multi_thread")]
async fn messages_expire() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
    let broker = Setup { clock: clock.clone(), ..Setup::default() }.start().await;
    let mut client = broker.client().await;
    client.send(Connect::new(5, "c").persistent(3_600).bytes()).await;
    client.receive().await;
    client.subscribe(5, &[("a/+", 1)]).await;
    client.leave().await;
    let mut publisher = broker.connect(5, "p").await;
    let expiring = |topic: &str, secs: u32| {
        Publish::new(topic, "x", 1, 1).property(&[&[0x02][..], &secs.to_be_bytes()].concat()).retained()
    };
    publisher.publish(5, &expiring("a/short", 10)).await;
    publisher.publish(5, &expiring("a/long", 60)).await;
    clock.set(Timestamp::from_secs(1_012));
    assert_eq!(clock.now(), Timestamp::from_secs(1_012));
    let mut client = broker.client().await;
    client.send(Connect::new(5, "c").persistent(3_600).bytes()).await;
    client.receive().await;
    let got = client.message(5).await;
    assert_eq!((got.topic.as_str(), got.properties), ("a/long", vec![0x02, 0, 0, 0, 48]));
    client.expect_nothing().await;
    assert_eq!(broker.metric("nearside_broker_publishes_dropped_total{reason=\"expired\"}"), 1.0);
    // The retained ones too.
    let mut late = broker.connect(5, "late").await;
    late.subscribe(5, &[("a/+", 0)]).await;
    let got = late.message(5).await;
    assert_eq!((got.topic.as_str(), got.properties), ("a/long", vec![0x02, 0, 0, 0, 48]));
    late.expect_nothing().await;
}

/// Section 3.3.2.3.3: one that may not wait is for who is there, by whichever way, and for nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_may_not_wait_is_for_who_is_there() {
    for straight in [0, 10] {
        let broker = Setup::default().with(|config| config.straight_subscribers = straight).start().await;
        let persistent = Connect::new(5, "away").persistent(3_600);
        let mut away = broker.client().await;
        away.send(persistent.bytes()).await;
        away.receive().await;
        away.subscribe(5, &[("a", 1)]).await;
        away.leave().await;
        let mut client = broker.connect(5, "c").await;
        client.subscribe(5, &[("a", 1)]).await;
        let mut publisher = broker.connect(5, "p").await;
        for qos in [0, 1] {
            publisher.publish(5, &Publish::new("a", "now", qos, 1).property(&[0x02, 0, 0, 0, 0])).await;
            let got = client.message(5).await;
            assert_eq!((&got.payload[..], got.properties), (&b"now"[..], vec![0x02, 0, 0, 0, 0]));
        }
        let mut away = broker.client().await;
        away.send(persistent.bytes()).await;
        away.receive().await;
        away.expect_nothing().await;
    }
}

/// Section 3.3.2.3.4, from the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_number_its_topics() {
    let broker = Broker::start().await;
    let mut client = broker.connect(5, "c").await;
    client.subscribe(5, &[("#", 0)]).await;
    let publish = |topic: &str, alias: u8| Publish::new(topic, "x", 0, 0).property(&[0x23, 0, alias]).bytes(5);
    client.send([publish("a", 1), publish("b", 32), publish("", 1), publish("c", 1), publish("", 1)].concat()).await;
    for topic in ["a", "b", "a", "c", "c"] {
        let got = client.message(5).await;
        // [MQTT-3.3.2-7]: the client asked for none from us.
        assert_eq!((got.topic.as_str(), got.properties.len()), (topic, 0));
    }
    // [MQTT-3.3.2-7]: they end with the connection.
    let mut again = broker.connect(5, "c").await;
    again.send(publish("", 1)).await;
    again.expect(packet(0xE0, &[0x82])).await;
}

/// An alias whose last topic was refused does not stand for the one before.
#[tokio::test(flavor = "multi_thread")]
async fn an_alias_of_a_refused_topic_stands_for_no_other() {
    let broker = Setup::default().with(|config| config.max_topic_levels = 3).start().await;
    let mut watcher = broker.connect(5, "watcher").await;
    watcher.subscribe(5, &[("#", 0)]).await;
    let mut client = broker.connect(5, "c").await;
    let publish = |topic: &str, id: u16| Publish::new(topic, "x", 1, id).property(&[0x23, 0, 1]).bytes(5);
    client
        .send([publish("good", 1), publish("a/b/c/d", 2), publish("", 3), publish("new", 4), publish("", 5)].concat())
        .await;
    for (id, code) in [(1, None), (2, Some(0x90)), (3, Some(0x90)), (4, None), (5, None)] {
        let answer = [&[0, id][..], code.as_slice()].concat();
        client.expect(packet(PUBACK, &answer)).await;
    }
    for topic in ["good", "new", "new"] {
        assert_eq!(watcher.message(5).await.topic, topic);
    }
    watcher.expect_nothing().await;
}

/// [MQTT-4.7.3-1]: a topic has a character, one for answers too.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_response_topic_is_none() {
    let broker = Broker::start().await;
    let mut client = broker.connect(5, "c").await;
    client.send(Publish::new("a", "x", 0, 0).property(&[0x08, 0, 0]).bytes(5)).await;
    client.expect(packet(0xE0, &[0x82])).await;
    client.expect_end().await;
}

/// Section 3.3.2.3.4, from us: as many as the client takes.
#[tokio::test(flavor = "multi_thread")]
async fn topics_are_numbered_where_the_client_takes_it() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    client.send(Connect::new(5, "c").property(&[0x22, 0, 1]).bytes()).await;
    client.receive().await;
    client.subscribe(5, &[("#", 0)]).await;
    for topic in ["a", "a", "b", "a"] {
        client.publish(5, &Publish::new(topic, "x", 0, 0)).await;
    }
    for (topic, alias) in [("a", 1), ("", 1), ("b", 0), ("", 1)] {
        let got = client.message(5).await;
        let expected = if alias > 0 { vec![0x23, 0, alias] } else { vec![] };
        assert_eq!((got.topic.as_str(), got.properties), (topic, expected));
    }
}

/// What is remembered for a connection has a bound of ours.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_topics_are_numbered_than_we_remember() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    client.send(Connect::new(5, "c").property(&[0x22, 0xFF, 0xFF]).bytes()).await;
    client.receive().await;
    client.subscribe(5, &[("#", 0)]).await;
    let messages: Vec<u8> = (0..300).flat_map(|n| Publish::new(&n.to_string(), "x", 0, 0).bytes(5)).collect();
    client.send(messages).await;
    for n in 0..300 {
        let got = client.message(5).await;
        assert_eq!((got.topic, got.properties.is_empty()), (n.to_string(), n >= 256));
    }
}

/// [MQTT-3.3.4-9]: no more than the client's receive maximum on the way to it, whatever it acknowledges first.
#[tokio::test(flavor = "multi_thread")]
async fn the_clients_receive_maximum_is_kept_to() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    client.send(Connect::new(5, "c").property(&[0x21, 0, 2]).bytes()).await;
    client.receive().await;
    client.subscribe(5, &[("a", 2)]).await;
    let mut publisher = broker.connect(5, "p").await;
    for n in 0..4u8 {
        publisher.publish(5, &Publish::new("a", &n.to_string(), 1 + n % 2, 1)).await;
    }
    let first = client.receive().await.publish(5);
    let second = client.receive().await.publish(5);
    client.expect_nothing().await;
    assert_eq!((first.qos, second.qos), (1, 2));
    client.send(ack(PUBREC, second.id)).await;
    client.expect(ack(PUBREL, second.id)).await;
    client.expect_nothing().await;
    client.send(ack(PUBCOMP, second.id)).await;
    assert_eq!(client.message(5).await.payload, b"2");
    assert_eq!(client.receive().await.publish(5).payload, b"3");
    // QoS 0 is not counted.
    client.send(ack(PUBACK, first.id)).await;
    client.expect_nothing().await;
}

/// [MQTT-3.3.4-7], [MQTT-3.3.4-8]: ours, which a v5 client must keep to.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_our_receive_maximum_is_an_error() {
    let broker = Setup::default().with(|config| config.receive_maximum = 3).start().await;
    let mut client = broker.connect(5, "c").await;
    for id in 1..=3 {
        client.send(Publish::new("a", "x", 2, id).bytes(5)).await;
        client.expect(ack(PUBREC, id)).await;
    }
    client.send(Publish::new("a", "x", 2, 4).bytes(5)).await;
    client.expect(packet(0xE0, &[0x93])).await;
    client.expect_end().await;
    let mut client = broker.connect(5, "d").await;
    let burst: Vec<u8> = (1..=4).flat_map(|id| Publish::new("a", "x", 1, id).bytes(5)).collect();
    client.send(burst).await;
    // The first three may have been answered by then.
    loop {
        let got = client.receive().await;
        if got.kind() == 14 {
            assert_eq!(got, Received(packet(0xE0, &[0x93])));
            break;
        }
        assert_eq!(got.kind(), 4);
    }
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25]: what is too large for a client it does not get, as if it had been sent.
#[tokio::test(flavor = "multi_thread")]
async fn the_clients_maximum_packet_size_is_kept_to() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    client.send(Connect::new(5, "c").persistent(60).property(&[0x27, 0, 0, 0, 20]).bytes()).await;
    client.receive().await;
    client.subscribe(5, &[("a", 1)]).await;
    let mut publisher = broker.connect(5, "p").await;
    // 2 of head, 3 of topic, 2 of id, 1 of properties: 12 of payload fit.
    publisher.publish(5, &Publish::new("a", "0123456789abc", 1, 1)).await;
    publisher.publish(5, &Publish::new("a", "0123456789ab", 1, 1)).await;
    assert_eq!(client.message(5).await.payload.len(), 12);
    client.expect_nothing().await;
    assert_eq!(broker.metric("nearside_broker_publishes_dropped_total{reason=\"too_large\"}"), 1.0);
}

/// [MQTT-3.1.2-24]: not even an answer is larger than the client takes.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_too_large_for_the_client() {
    let broker = Broker::start().await;
    let connect =
        |most: u8| Connect::new(5, "c").will("will", "x", 0, false, &[]).property(&[0x27, 0, 0, 0, most]).bytes();
    let mut watcher = broker.connect(5, "watcher").await;
    watcher.subscribe(5, &[("will", 0)]).await;
    let mut client = broker.client().await;
    client.send(connect(4)).await;
    // [MQTT-3.14.0-1]: no DISCONNECT where there is no room for a CONNACK.
    client.expect_end().await;
    watcher.expect_nothing().await;
    let mut client = broker.client().await;
    client.send(connect(20)).await;
    client.receive().await;
    client.send(subscribe(5, 1, &[], &[("a", 0); 40])).await;
    client.expect(packet(0xE0, &[0x95])).await;
    client.expect_end().await;
}
