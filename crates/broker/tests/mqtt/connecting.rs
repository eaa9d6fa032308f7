//! CONNECT and its answer, takeover, keep-alive.

use std::time::Duration;

use nearside_schemas::HumanDuration;
use tokio::io::AsyncWriteExt;

use crate::support::*;

/// A v3.1.1 answer.
fn connack(present: bool, code: u8) -> Vec<u8> {
    vec![0x20, 2, u8::from(present), code]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_v3_1_1_is_answered() {
    let plain = Connect::new(4, "c").bytes();
    let changed = |at: usize, byte: u8| {
        let mut bytes = plain.clone();
        bytes[at] = byte;
        bytes
    };
    let nameless = Connect { clean: false, ..Connect::new(4, "") }.bytes();
    let password_alone = Connect { password: Some("p".into()), ..Connect::new(4, "c") }.bytes();
    let with_more = packet(0x10, &[&plain[2..], &[0]].concat());
    // (rule, CONNECT, answer; empty: closed without a word)
    let cases: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("let in", plain.clone(), connack(false, 0)),
        ("[MQTT-3.1.3-6] no client id", Connect::new(4, "").bytes(), connack(false, 0)),
        ("[MQTT-3.1.3-8] no client id and a session", nameless, connack(false, 2)),
        ("[MQTT-3.1.2-2] a version that there is not", changed(8, 9), connack(false, 1)),
        ("[MQTT-3.1.2-1] another protocol", changed(4, b'X'), connack(false, 1)),
        ("[MQTT-3.1.2-3] the reserved flag", changed(9, 3), vec![]),
        ("[MQTT-3.1.2-11] a will's QoS without a will", changed(9, 0x0A), vec![]),
        ("[MQTT-3.1.2-14] a will of QoS 3", changed(9, 0x1E), vec![]),
        ("[MQTT-3.1.2-22] a password without a user", password_alone, vec![]),
        ("[MQTT-3.1.0-1] a packet before CONNECT", PINGREQ.to_vec(), vec![]),
        ("flags of CONNECT", changed(0, 0x11), vec![]),
        ("more than a CONNECT has", with_more, vec![]),
        ("something else altogether", b"HELO there\r\n".to_vec(), vec![]),
    ];
    let broker = Broker::start().await;
    for (rule, bytes, answer) in cases {
        println!("{rule}");
        let mut client = broker.client().await;
        client.send(&bytes).await;
        if !answer.is_empty() {
            client.expect(&answer).await;
        }
        if answer.get(3) == Some(&0) {
            client.expect_nothing().await;
        } else {
            client.expect_end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_v5_is_refused() {
    let with = |property: &[u8]| Connect::new(5, "c").property(property).bytes();
    let cases: Vec<(&str, Vec<u8>, u8)> = vec![
        ("[MQTT-3.1.2.11.9] a method of authentication", with(&[0x15, 0, 1, b'x']), 0x8C),
        ("[MQTT-3.1.2.11.10] data without a method", with(&[0x16, 0, 1, b'x']), 0x82),
        ("[MQTT-3.1.2.11.3] receive maximum 0", with(&[0x21, 0, 0]), 0x82),
        ("[MQTT-3.1.2.11.4] maximum packet size 0", with(&[0x27, 0, 0, 0, 0]), 0x82),
        ("a property twice", with(&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1]), 0x82),
        ("section 2.2.2.2: a property of PUBLISH", with(&[0x23, 0, 1]), 0x81),
        ("a will topic with a wildcard", Connect::new(5, "c").will("a/#", "", 0, false, &[]).bytes(), 0x90),
        ("a will to the broker's own topics", Connect::new(5, "c").will("$SYS/x", "", 0, false, &[]).bytes(), 0x87),
    ];
    let broker = Broker::start().await;
    for (rule, bytes, reason) in cases {
        println!("{rule}");
        let mut client = broker.client().await;
        client.send(&bytes).await;
        assert_eq!(client.receive().await.connack().1, reason);
        client.expect_end().await;
    }
}

/// [MQTT-3.1.2-1]: whatever the name, a client that speaks version 5 is answered in it. So is one whose CONNECT is too long.
#[tokio::test(flavor = "multi_thread")]
async fn v5_is_refused_in_v5() {
    let broker = Broker::start().await;
    let connect = |name: &str| [&text(name)[..], &[5, 2, 0, 0, 0], &text("c")].concat();
    for name in ["", "MQTTX", "MQIsdp"] {
        let mut client = broker.client().await;
        client.send(packet(0x10, &connect(name))).await;
        assert_eq!(client.receive().await.connack().1, 0x84, "{name}");
        client.expect_end().await;
    }
    let mut client = broker.client().await;
    let long = [connect("MQTT"), vec![0; 2 << 20]].concat();
    client.send(&packet(0x10, &long)[..1_000]).await;
    assert_eq!(client.receive().await.connack().1, 0x95);
    client.expect_end().await;
    // A will as long as wills can be is none too long.
    let mut client = broker.client().await;
    client.send(Connect::new(5, "c").will("w", &"x".repeat(65_535), 0, false, &[]).bytes()).await;
    assert_eq!(client.receive().await.connack().1, 0);
}

/// What the broker can do and what it changed of the client's wishes (section 3.2.2.3).
#[tokio::test(flavor = "multi_thread")]
async fn v5_is_told_what_holds() {
    let setup = Setup::default().with(|config| {
        config.keep_alive_cap = HumanDuration::secs(30);
        config.session_expiry_cap = HumanDuration::secs(100);
        config.receive_maximum = 10;
    });
    let broker = setup.start().await;
    let mut client = broker.client().await;
    client.send(Connect { keep_alive: 0, ..Connect::new(5, "") }.persistent(u32::MAX).bytes()).await;
    let (present, code, properties) = client.receive().await.connack();
    assert_eq!((present, code), (false, 0));
    let id = format!("nearside-{}", 1);
    let expected = [
        &[0x11, 0, 0, 0, 100][..],
        &[0x21, 0, 10],
        &[0x22, 0, 32],
        &[0x27, 0, 0x10, 0, 0],
        &[&[0x12][..], &text(&id)].concat(),
        &[0x13, 0, 30],
    ];
    assert_eq!(properties, expected.concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_has_one_connection() {
    let broker = Broker::start().await;
    for version in [4, 5] {
        let mut first = broker.connect(version, "same").await;
        let mut second = broker.connect(version, "same").await;
        if version == 5 {
            first.expect(packet(0xE0, &[0x8E])).await;
        }
        // [MQTT-3.1.4-3]
        first.expect_end().await;
        second.expect_nothing().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_is_cut_off() {
    let broker = Broker::start().await;
    // [MQTT-3.1.2-22] of v5: after one and a half times the keep-alive.
    for version in [4, 5] {
        let mut client = broker.client().await;
        client.send(Connect { keep_alive: 1, ..Connect::new(version, "c") }.bytes()).await;
        client.receive().await;
        if version == 5 {
            client.expect(packet(0xE0, &[0x8D])).await;
        }
        client.expect_end().await;
    }
    let setup = Setup::default().with(|config| config.handshake_timeout = HumanDuration(Duration::from_millis(100)));
    let mut client = setup.start().await.client().await;
    client.send([0x10]).await;
    client.expect_end().await;
}

/// [MQTT-3.1.2-22]: a keep-alive is for packets, not for bytes; but one that comes slowly is on its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_packet_without_an_end_is_silence() {
    let broker = Broker::start().await;
    let packet_of = |bytes: usize| Publish::new("a", &"x".repeat(bytes), 1, 1).bytes(5);
    let connect = Connect { keep_alive: 1, ..Connect::new(5, "c") }.bytes();
    let mut drips = broker.client().await;
    drips.send(&connect).await;
    drips.receive().await;
    let start = tokio::time::Instant::now();
    let dripping = async {
        for byte in packet_of(10_000) {
            if drips.stream.write_all(&[byte]).await.is_err() || start.elapsed() > Duration::from_secs(6) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        start.elapsed()
    };
    let took = dripping.await;
    assert!(took < Duration::from_secs(4), "{took:?}");
    drips.expect(packet(0xE0, &[0x8D])).await;
    let mut slow = broker.client().await;
    slow.send(Connect { keep_alive: 1, ..Connect::new(5, "d") }.bytes()).await;
    slow.receive().await;
    for piece in packet_of(20_000).chunks(2_000) {
        slow.send(piece).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    slow.expect(ack(PUBACK, 1)).await;
}

/// Ids of any kind are taken, and stay apart.
#[tokio::test(flavor = "multi_thread")]
async fn odd_client_ids_are_ids() {
    let broker = Broker::start().await;
    let long = "x".repeat(1_024);
    let mut clients = Vec::new();
    for id in ["+", "#", "$SYS", "a/b", "城市", " ", "nearside-3", "%s", &long] {
        for _ in 0..2 {
            let mut client = broker.connect(4, id).await;
            client.subscribe(4, &[("a", 0)]).await;
            clients.push(client);
        }
    }
    let mut publisher = broker.connect(4, "p").await;
    publisher.publish(4, &Publish::new("a", "x", 0, 0)).await;
    for client in clients.iter_mut().skip(1).step_by(2) {
        assert_eq!(client.message(4).await.topic, "a");
    }
    let mut refused = broker.client().await;
    refused.send(Connect::new(4, &"x".repeat(1_025)).bytes()).await;
    refused.expect(connack(false, 2)).await;
}

/// A v5 client is told of our keep-alive where it asks for a longer one or none. A v3.1.1 client cannot be told: what it asked for
/// holds, and none is none (section 3.1.2.10).
#[tokio::test(flavor = "multi_thread")]
async fn keep_alives_are_capped_where_the_client_can_be_told() {
    let setup = Setup::default().with(|config| config.keep_alive_cap = HumanDuration::secs(1));
    let broker = setup.start().await;
    let mut old = broker.client().await;
    old.send(Connect { keep_alive: 0, ..Connect::new(4, "old") }.bytes()).await;
    old.receive().await;
    for asked in [0, 60] {
        let mut new = broker.client().await;
        new.send(Connect { keep_alive: asked, ..Connect::new(5, "new") }.bytes()).await;
        let (_, _, properties) = new.receive().await.connack();
        assert!(properties.windows(3).any(|window| window == [0x13, 0, 1]));
        new.expect(packet(0xE0, &[0x8D])).await;
        new.expect_end().await;
    }
    old.expect_nothing().await;
}
