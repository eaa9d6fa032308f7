//! Packets that break the rules: MQTT 5 says why and closes, MQTT 3.1.1 closes; nobody else notices.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::support::*;

const MALFORMED: u8 = 0x81;
const PROTOCOL: u8 = 0x82;
const TOPIC_FILTER: u8 = 0x8F;
const TOPIC_NAME: u8 = 0x90;
const TOPIC_ALIAS: u8 = 0x94;
const TOO_LARGE: u8 = 0x95;

/// The rule, the packet, and the v5 reason of the end.
type Case = (&'static str, Vec<u8>, u8);

async fn breaks(version: u8, cases: Vec<Case>) {
    let broker = Broker::start().await;
    let mut bystander = broker.connect(version, "bystander").await;
    for (rule, bytes, reason) in cases {
        println!("{rule}");
        let mut client = broker.connect(version, "c").await;
        client.send(&bytes).await;
        if version == 5 {
            client.expect(packet(0xE0, &[reason])).await;
        }
        client.expect_end().await;
        bystander.expect_nothing().await;
    }
}

/// What is wrong in both versions.
fn in_both(version: u8) -> Vec<Case> {
    let none: &[u8] = if version == 5 { &[0] } else { &[] };
    let with_topic = |topic: &[u8]| {
        let length = (topic.len() as u16).to_be_bytes();
        packet(0x30, &[&length[..], topic, none, b"x"].concat())
    };
    let filter = |text: &str| subscribe(version, 1, &[], &[(text, 0)]);
    vec![
        ("[MQTT-3.1.0-2] a second CONNECT", Connect::new(version, "c").bytes(), PROTOCOL),
        ("[MQTT-2.1.3-1] flags of PUBREL", packet(0x60, &[0, 1]), MALFORMED),
        ("[MQTT-2.1.3-1] flags of PUBACK", packet(0x41, &[0, 1]), MALFORMED),
        ("[MQTT-2.1.3-1] flags of PINGREQ", packet(0xC1, &[]), MALFORMED),
        ("[MQTT-3.14.1-1] flags of DISCONNECT", packet(0xE8, &[]), MALFORMED),
        ("[MQTT-3.8.1-1] flags of SUBSCRIBE", [&[0x80], &filter("a")[1..]].concat(), MALFORMED),
        ("[MQTT-3.10.1-1] flags of UNSUBSCRIBE", [&[0xA0], &unsubscribe(version, 1, &["a"])[1..]].concat(), MALFORMED),
        ("[MQTT-3.3.1-4] QoS 3", packet(0x36, &[&text("a")[..], &[0, 1], none].concat()), MALFORMED),
        ("[MQTT-3.3.1-2] DUP with QoS 0", packet(0x38, &[&text("a")[..], none].concat()), MALFORMED),
        ("[MQTT-3.3.2-2] + in a topic", with_topic(b"a/+"), TOPIC_NAME),
        ("[MQTT-3.3.2-2] # in a topic", with_topic(b"#"), TOPIC_NAME),
        ("[MQTT-1.5.4-2] NUL in a topic", with_topic(b"a\0"), MALFORMED),
        ("[MQTT-1.5.4-1] an overlong form of a letter", with_topic(b"a\xC1\xA1"), MALFORMED),
        ("[MQTT-1.5.4-1] a topic that is not UTF-8", with_topic(b"a\xFF"), MALFORMED),
        ("[MQTT-1.5.4-1] a surrogate in a topic", with_topic(b"a\xED\xA0\x80"), MALFORMED),
        ("[MQTT-2.2.1-3] packet id 0", Publish::new("a", "", 1, 0).bytes(version), MALFORMED),
        ("[MQTT-2.2.1-3] packet id 0 in SUBSCRIBE", subscribe(version, 0, &[], &[("a", 0)]), MALFORMED),
        ("[MQTT-3.8.3-2] SUBSCRIBE without a filter", subscribe(version, 1, &[], &[]), PROTOCOL),
        ("[MQTT-3.10.3-2] UNSUBSCRIBE without a filter", unsubscribe(version, 1, &[]), PROTOCOL),
        ("[MQTT-3.8.3-5] QoS 3 in SUBSCRIBE", subscribe(version, 1, &[], &[("a", 3)]), MALFORMED),
        ("[MQTT-3.8.3-5] reserved bits in SUBSCRIBE", subscribe(version, 1, &[], &[("a", 0xC0)]), MALFORMED),
        ("[MQTT-4.7.1-1] # before the end", filter("a/#/b"), TOPIC_FILTER),
        ("[MQTT-4.7.1-1] # in a level", filter("a#"), TOPIC_FILTER),
        ("[MQTT-4.7.1-2] + in a level", filter("a/b+"), TOPIC_FILTER),
        ("[MQTT-4.7.3-1] an empty filter", filter(""), TOPIC_FILTER),
        ("[MQTT-4.8.2-1] a group without a name", filter("$share//a"), TOPIC_FILTER),
        ("[MQTT-4.8.2-2] a group's name with +", filter("$share/+/a"), TOPIC_FILTER),
        ("a group without a filter", filter("$share/g/"), TOPIC_FILTER),
        ("CONNACK from a client", packet(0x20, &[0, 0]), PROTOCOL),
        ("SUBACK from a client", packet(0x90, &[0, 1, 0]), PROTOCOL),
        ("UNSUBACK from a client", packet(0xB0, &[0, 1]), PROTOCOL),
        ("PINGRESP from a client", packet(0xD0, &[]), PROTOCOL),
        ("[MQTT-2.1.2] type 0", packet(0x00, &[]), PROTOCOL),
        ("AUTH without a method", packet(0xF0, &[]), PROTOCOL),
        ("[MQTT-1.5.5] a length of five bytes", vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], MALFORMED),
        ("[MQTT-1.5.5-1] a length longer than it need be", vec![0xC0, 0x80, 0x00], MALFORMED),
        ("a packet above our maximum", vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F], TOO_LARGE),
        ("PUBACK cut short", packet(0x40, &[0]), MALFORMED),
        ("PUBLISH cut short in its topic", packet(0x30, &[0, 9, b'a']), MALFORMED),
        ("SUBSCRIBE cut short in its options", packet(0x82, &[&[0, 1][..], none, &text("a")].concat()), MALFORMED),
        ("PINGREQ with a body", packet(0xC0, &[1]), MALFORMED),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn v3_1_1_closes() {
    let only_here = vec![
        ("[MQTT-4.7.3-1] an empty topic", Publish::new("", "x", 0, 0).bytes(4), 0),
        ("[MQTT-3.14.1-1] DISCONNECT with a body", packet(0xE0, &[0]), 0),
        ("options of v5", subscribe(4, 1, &[], &[("a", 4)]), 0),
    ];
    breaks(4, [in_both(4), only_here].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v5_says_why_and_closes() {
    let property = |bytes: &[u8]| Publish::new("a", "x", 0, 0).property(bytes).bytes(5);
    let with_topic = |topic: &str, bytes: &[u8]| Publish::new(topic, "x", 0, 0).property(bytes).bytes(5);
    let only_here = vec![
        ("[MQTT-3.3.2.1] neither topic nor alias", with_topic("", &[]), PROTOCOL),
        ("[MQTT-3.3.2-8] alias 0", property(&[0x23, 0, 0]), TOPIC_ALIAS),
        ("[MQTT-3.3.2-9] an alias above our maximum", property(&[0x23, 0, 33]), TOPIC_ALIAS),
        ("an alias that was not set", with_topic("", &[0x23, 0, 1]), PROTOCOL),
        ("[MQTT-3.3.4-6] a subscription identifier from a client", property(&[0x0B, 1]), PROTOCOL),
        ("[MQTT-3.3.2-14] a response topic with a wildcard", property(&[0x08, 0, 1, b'#']), PROTOCOL),
        ("[MQTT-3.3.2.3.2] a payload format of 2", property(&[0x01, 2]), PROTOCOL),
        ("a property twice", property(&[0x01, 1, 0x01, 1]), PROTOCOL),
        ("section 2.2.2.2: a property that PUBLISH has not", property(&[0x11, 0, 0, 0, 1]), MALFORMED),
        ("section 2.2.2.2: a property that there is not", property(&[0x7F, 0]), MALFORMED),
        ("a property cut short", property(&[0x02, 0]), MALFORMED),
        ("a user property that is not UTF-8", property(&[0x26, 0, 1, 0xFF, 0, 0]), MALFORMED),
        ("properties longer than the packet", packet(0x30, &[&text("a")[..], &[9]].concat()), MALFORMED),
        ("subscription identifier 0", subscribe(5, 1, &[0x0B, 0], &[("a", 0)]), PROTOCOL),
        ("[MQTT-3.8.3-4] no local with a group", subscribe(5, 1, &[], &[("$share/g/a", 4)]), PROTOCOL),
        ("[MQTT-3.8.3.1] retain handling 3", subscribe(5, 1, &[], &[("a", 0x30)]), MALFORMED),
        ("[MQTT-3.4.2-1] a PUBACK code that there is not", packet(0x40, &[0, 1, 0x42]), PROTOCOL),
        ("[MQTT-3.6.2-1] a PUBREL code that there is not", packet(0x62, &[0, 1, 0x87]), PROTOCOL),
        ("[MQTT-3.14.2-1] a DISCONNECT code of a server", packet(0xE0, &[0x8E]), PROTOCOL),
        ("[MQTT-3.14.2.2.2] a session that ended begins to last", packet(0xE0, &[0, 5, 0x11, 0, 0, 0, 9]), PROTOCOL),
    ];
    breaks(5, [in_both(5), only_here].concat()).await;
}

/// Section 4.3: each message has its kind of answer, in its order.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_another_kind_breaks_the_protocol() {
    let broker = Broker::start().await;
    let mut publisher = broker.connect(4, "p").await;
    for version in [4, 5] {
        for (qos, wrong) in [(1, PUBREC), (1, PUBCOMP), (2, PUBACK), (2, PUBCOMP)] {
            let mut client = broker.connect(version, "c").await;
            client.subscribe(version, &[("a", qos)]).await;
            publisher.publish(4, &Publish::new("a", "x", qos, 1)).await;
            let id = client.receive().await.publish(version).id;
            client.send(ack(wrong, id)).await;
            if version == 5 {
                client.expect(packet(0xE0, &[PROTOCOL])).await;
            }
            client.expect_end().await;
        }
        // One for nothing may be for what is settled.
        let mut client = broker.connect(version, "c").await;
        client.send([ack(PUBACK, 9), ack(PUBCOMP, 9)].concat()).await;
        client.expect_nothing().await;
    }
}

/// What came before the broken packet in the same read counts.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_right_before_the_break_is_acknowledged() {
    let broker = Broker::start().await;
    let mut client = broker.connect(5, "c").await;
    client.send([Publish::new("a", "x", 1, 7).bytes(5), packet(0xC1, &[])].concat()).await;
    client.expect(ack(PUBACK, 7)).await;
    client.expect(packet(0xE0, &[MALFORMED])).await;
    client.expect_end().await;
}

/// What a client still sends while it is told why its connection ends is read and left aside: a reset might overtake the reason.
#[tokio::test(flavor = "multi_thread")]
async fn the_reason_of_an_end_is_not_overtaken_by_a_reset() {
    let broker = Broker::start().await;
    let mut ended = broker.connect(5, "c").await;
    ended.send(packet(0xC1, &[])).await;
    ended.expect(packet(0xE0, &[MALFORMED])).await;
    let mut refused = broker.client().await;
    refused.send(Connect::new(5, "d").property(&[0x21, 0, 0]).bytes()).await;
    assert_eq!(refused.receive().await.connack().1, PROTOCOL);
    for client in [&mut ended, &mut refused] {
        client.expect_end().await;
        for _ in 0..3 {
            client.stream.write_all(&[0; 16 << 10]).await.expect("no reset");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // Who does not close is not waited for.
    tokio::time::timeout(PATIENCE, async {
        while broker.metric("nearside_broker_connections{}") > 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("both are closed");
}

/// Every type with every short body of a few shapes: the broker answers or closes, and lives.
#[tokio::test(flavor = "multi_thread")]
async fn any_type_and_length_is_survived() {
    let broker = Broker::start().await;
    let mut bystander = broker.connect(5, "bystander").await;
    for version in [4, 5] {
        for first in 0..=255u8 {
            for filler in [0x00, 0x01, 0xFF] {
                let mut client = broker.connect(version, "c").await;
                for length in [0, 1, 2, 3, 5, 12] {
                    client.send(packet(first, &vec![filler; length])).await;
                }
            }
        }
        bystander.expect_nothing().await;
    }
}
