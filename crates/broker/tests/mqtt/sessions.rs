//! Sessions that outlive their connection, QoS 2 in both directions, what waits for a client that is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nearside_broker::AcceptAll;
use nearside_schemas::QoS;

use crate::support::*;

/// Connects with a session; gives back whether it was there.
async fn resume(broker: &Broker, version: u8, id: &str) -> (Client, bool) {
    let mut client = broker.client().await;
    client.send(Connect::new(version, id).persistent(3_600).bytes()).await;
    let present = client.receive().await.body()[0] == 1;
    (client, present)
}

/// [MQTT-3.1.2-4] to [MQTT-3.1.2-6], [MQTT-3.2.2-2], [MQTT-3.2.2-3].
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_kept_as_asked() {
    let broker = Broker::start().await;
    for version in [4, 5] {
        let (mut client, present) = resume(&broker, version, "c").await;
        assert!(!present);
        client.subscribe(version, &[("a", 1)]).await;
        client.leave().await;
        let (client, present) = resume(&broker, version, "c").await;
        assert!(present);
        // The connection may just break, too.
        drop(client);
        let (client, present) = resume(&broker, version, "c").await;
        assert!(present);
        client.leave().await;
        // A fresh start ends it.
        broker.connect(version, "c").await.leave().await;
        let (mut client, present) = resume(&broker, version, "c").await;
        assert!(!present);
        client.publish(version, &Publish::new("a", "x", 0, 0)).await;
        client.expect_nothing().await;
        client.leave().await;
        broker.connect(version, "c").await.leave().await;
    }
}

/// Section 3.1.2.11.2, [MQTT-3.1.2-23]: the time counts from the end of the connection, and DISCONNECT may change it.
#[tokio::test(flavor = "multi_thread")]
async fn a_v5_session_ends_when_its_time_is_over() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    client.send(Connect::new(5, "c").persistent(1).bytes()).await;
    client.receive().await;
    client.leave().await;
    broker.wait_for("nearside_broker_sessions{}", 1.0).await;
    tokio::time::timeout(PATIENCE, async {
        while broker.metric("nearside_broker_sessions{}") > 0.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    let (mut client, present) = resume(&broker, 5, "c").await;
    assert!(!present);
    client.send(packet(0xE0, &[0, 5, 0x11, 0, 0, 0, 0])).await;
    client.expect_end().await;
    assert!(!resume(&broker, 5, "c").await.1);
}

/// Messages of QoS 1 and 2 wait, in order; QoS 0 does not.
#[tokio::test(flavor = "multi_thread")]
async fn messages_wait_for_who_is_away() {
    let broker = Broker::start().await;
    for version in [4, 5] {
        let (mut client, _) = resume(&broker, version, "c").await;
        client.subscribe(version, &[("a/#", 2)]).await;
        client.leave().await;
        let mut publisher = broker.connect(version, "p").await;
        for n in 0..30u8 {
            publisher.publish(version, &Publish::new("a/b", &n.to_string(), n % 3, 1)).await;
        }
        let (mut client, _) = resume(&broker, version, "c").await;
        for n in (0..30u8).filter(|n| n % 3 > 0) {
            let got = client.message(version).await;
            assert_eq!((got.payload, got.qos, got.dup), (n.to_string().into_bytes(), n % 3, false));
        }
        client.expect_nothing().await;
        client.leave().await;
    }
}

/// [MQTT-4.4.0-1], [MQTT-3.3.1-1]: again, marked, under the same ids, in order; and releases where the client has the message.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_answered_is_sent_again() {
    let broker = Broker::start().await;
    for version in [4, 5] {
        let (mut client, _) = resume(&broker, version, "c").await;
        client.subscribe(version, &[("a", 2)]).await;
        let mut publisher = broker.connect(version, "p").await;
        for (n, qos) in [1, 2, 2, 1].into_iter().enumerate() {
            publisher.publish(version, &Publish::new("a", &n.to_string(), qos, 1)).await;
        }
        let mut sent = Vec::new();
        for _ in 0..4 {
            sent.push(client.receive().await.publish(version));
        }
        // The second is received, but not complete; the fourth is through.
        client.send(ack(PUBREC, sent[1].id)).await;
        client.expect(ack(PUBREL, sent[1].id)).await;
        client.send(ack(PUBACK, sent[3].id)).await;
        client.expect_nothing().await;
        drop(client);
        let (mut client, present) = resume(&broker, version, "c").await;
        assert!(present);
        client.expect(ack(PUBREL, sent[1].id)).await;
        for n in [0, 2] {
            assert_eq!(client.receive().await.publish(version), Publish { dup: true, ..sent[n].clone() });
        }
        client.expect_nothing().await;
        client.send(ack(PUBCOMP, sent[1].id)).await;
        client.send(ack(PUBACK, sent[0].id)).await;
        client.send(ack(PUBREC, sent[2].id)).await;
        client.expect(ack(PUBREL, sent[2].id)).await;
        client.send(ack(PUBCOMP, sent[2].id)).await;
        client.leave().await;
        let (mut client, _) = resume(&broker, version, "c").await;
        client.expect_nothing().await;
        client.leave().await;
    }
}

/// Counts what is taken in.
fn counting() -> (Setup, Arc<AtomicUsize>) {
    let count = Arc::<AtomicUsize>::default();
    let seen = count.clone();
    let intake = AcceptAll::watching(move |batch| {
        seen.fetch_add(batch.iter().filter(|publish| publish.qos == QoS::ExactlyOnce).count(), Ordering::SeqCst);
    });
    (Setup { intake: Arc::new(intake), ..Setup::default() }, count)
}

/// [MQTT-4.3.3-8] to [MQTT-4.3.3-12]: taken once however often it is sent before its release, also on another connection.
#[tokio::test(flavor = "multi_thread")]
async fn qos_2_is_taken_once() {
    let (setup, taken) = counting();
    let broker = setup.start().await;
    for (version, before) in [(4, 0), (5, 2)] {
        let (mut client, _) = resume(&broker, version, "c").await;
        client.send(Publish::new("a", "x", 2, 7).bytes(version)).await;
        client.expect(ack(PUBREC, 7)).await;
        client.send(Publish::new("a", "x", 2, 7).again().bytes(version)).await;
        client.expect(ack(PUBREC, 7)).await;
        drop(client);
        let (mut client, _) = resume(&broker, version, "c").await;
        client.send(Publish::new("a", "x", 2, 7).again().bytes(version)).await;
        client.expect(ack(PUBREC, 7)).await;
        assert_eq!(taken.load(Ordering::SeqCst), before + 1);
        client.send(ack(PUBREL, 7)).await;
        client.expect(ack(PUBCOMP, 7)).await;
        // Released: the id is another message's now.
        client.send(Publish::new("a", "y", 2, 7).bytes(version)).await;
        client.expect(ack(PUBREC, 7)).await;
        assert_eq!(taken.load(Ordering::SeqCst), before + 2);
        client.send(ack(PUBREL, 7)).await;
        client.expect(ack(PUBCOMP, 7)).await;
        // [MQTT-4.3.3-11]: a release of nothing is answered, in v5 with the reason.
        client.send(ack(PUBREL, 7)).await;
        client.expect(if version == 5 { packet(PUBCOMP, &[0, 7, 0x92]) } else { ack(PUBCOMP, 7) }).await;
        client.leave().await;
    }
}

/// Section 4.9: what may be on its way is counted anew on each connection, whatever waits for its release.
#[tokio::test(flavor = "multi_thread")]
async fn receive_maximum_counts_for_one_connection() {
    let broker = Setup::default().with(|config| config.receive_maximum = 2).start().await;
    let (mut client, _) = resume(&broker, 5, "c").await;
    let publish = |id| Publish::new("a", "x", 2, id).bytes(5);
    for id in [1, 2] {
        client.send(publish(id)).await;
        client.expect(ack(PUBREC, id)).await;
    }
    drop(client);
    let (mut client, _) = resume(&broker, 5, "c").await;
    for id in [3, 4] {
        client.send(publish(id)).await;
        client.expect(ack(PUBREC, id)).await;
    }
    // Those from before are known all the same.
    client.send(ack(PUBREL, 1)).await;
    client.expect(ack(PUBCOMP, 1)).await;
    client.send(publish(5)).await;
    client.expect(packet(0xE0, &[0x93])).await;
}

/// [MQTT-4.3.3-4]: each PUBREC is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_received_again_is_released_again() {
    let broker = Broker::start().await;
    for version in [4, 5] {
        for id in ["ends", "stays"] {
            let mut client = broker.connect(version, id).await;
            if id == "stays" {
                client = resume(&broker, version, id).await.0;
            }
            client.subscribe(version, &[("a", 2)]).await;
            let mut publisher = broker.connect(version, "p").await;
            publisher.publish(version, &Publish::new("a", "x", 2, 1)).await;
            let message = client.receive().await.publish(version);
            for _ in 0..3 {
                client.send(ack(PUBREC, message.id)).await;
                client.expect(ack(PUBREL, message.id)).await;
            }
            client.send(ack(PUBCOMP, message.id)).await;
            client.expect_nothing().await;
            client.leave().await;
        }
    }
}

/// Section 4.3.3: a PUBREC with an error ends the message; one for nothing is told so.
#[tokio::test(flavor = "multi_thread")]
async fn a_v5_client_may_refuse_a_message() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    client.send(Connect::new(5, "c").property(&[0x21, 0, 1]).bytes()).await;
    client.receive().await;
    client.subscribe(5, &[("a", 2)]).await;
    client.publish(5, &Publish::new("a", "1", 0, 0)).await;
    assert_eq!(client.message(5).await.payload, b"1");
    let mut publisher = broker.connect(5, "p").await;
    publisher.publish(5, &Publish::new("a", "2", 2, 1)).await;
    publisher.publish(5, &Publish::new("a", "3", 2, 1)).await;
    let refused = client.receive().await.publish(5);
    client.send(packet(PUBREC, &[0, refused.id as u8, 0x97])).await;
    assert_eq!(client.message(5).await.payload, b"3");
    client.send(ack(PUBREC, 999)).await;
    client.expect(packet(PUBREL, &[0x03, 0xE7, 0x92])).await;
}

/// Past the bound the oldest is shed, and counted.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_bounded() {
    let broker = Setup::default().with(|config| config.session_queue = 3).start().await;
    let (mut client, _) = resume(&broker, 4, "c").await;
    client.subscribe(4, &[("a", 1)]).await;
    client.leave().await;
    let mut publisher = broker.connect(4, "p").await;
    for n in 0..5u8 {
        publisher.publish(4, &Publish::new("a", &n.to_string(), 1, 1)).await;
    }
    assert_eq!(broker.metric("nearside_broker_publishes_dropped_total{reason=\"slow_subscriber\"}"), 2.0);
    let (mut client, _) = resume(&broker, 4, "c").await;
    for n in 2..5u8 {
        assert_eq!(client.message(4).await.payload, n.to_string().into_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_bounded() {
    let broker = Setup::default().with(|config| config.max_sessions = 1).start().await;
    let (client, _) = resume(&broker, 5, "one").await;
    client.leave().await;
    let mut refused = broker.client().await;
    refused.send(Connect::new(5, "two").persistent(60).bytes()).await;
    assert_eq!(refused.receive().await.connack().1, 0x97);
    assert!(resume(&broker, 5, "one").await.1);
    broker.connect(5, "three").await.expect_nothing().await;
}

/// A group's message waits for a member that is away only where no member is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_prefers_who_is_there() {
    let broker = Broker::start().await;
    let (mut away, _) = resume(&broker, 5, "away").await;
    away.subscribe(5, &[("$share/g/a", 1)]).await;
    away.leave().await;
    let mut here = broker.connect(5, "here").await;
    here.subscribe(5, &[("$share/g/a", 1)]).await;
    let mut publisher = broker.connect(5, "p").await;
    for n in 0..3u8 {
        publisher.publish(5, &Publish::new("a", &n.to_string(), 1, 1)).await;
        assert_eq!(here.message(5).await.payload, n.to_string().into_bytes());
    }
    here.leave().await;
    publisher.publish(5, &Publish::new("a", "waits", 1, 1)).await;
    let (mut away, _) = resume(&broker, 5, "away").await;
    assert_eq!(away.message(5).await.payload, b"waits");
}
