//! What subscribers get before a message is on disk, and by which way.

use std::sync::Arc;

use nearside_schemas::{Durability, RefusalReason};

use crate::held::Held;
use crate::support::*;

async fn start() -> (Arc<Held>, Broker) {
    let intake = Arc::new(Held::default());
    (intake.clone(), Setup { intake, ..Setup::default() }.start().await)
}

/// Their publisher is told when it is, as ever.
#[tokio::test(flavor = "multi_thread")]
async fn qos_1_does_not_wait_for_the_disk() {
    let (intake, broker) = start().await;
    let mut subscriber = broker.connect(5, "s").await;
    subscriber.subscribe(5, &[("a", 1)]).await;
    let mut publisher = broker.connect(5, "p").await;
    for id in 1..=3 {
        // The last is not answered yet, and this one is read all the same.
        publisher.send(Publish::new("a", &id.to_string(), 1, id).bytes(5)).await;
        assert_eq!(subscriber.message(5).await.payload, id.to_string().as_bytes());
        publisher.expect_nothing().await;
    }
    for id in 1..=3 {
        intake.next().await.1(Durability::Durable { below: 0 });
        publisher.expect(ack(PUBACK, id)).await;
    }
}

/// [MQTT-4.6.0-2]: acknowledgements come in the order of their messages, also where nothing of a later one has to be kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_keeps_is_answered_at_once_but_not_before_its_turn() {
    let (intake, broker) = start().await;
    let mut publisher = broker.connect(5, "p").await;
    let mut subscriber = broker.connect(5, "s").await;
    subscriber.subscribe(5, &[("free", 1)]).await;
    publisher.send(Publish::new("free", "1", 1, 1).bytes(5)).await;
    publisher.expect(ack(PUBACK, 1)).await;
    assert!(intake.is_empty());
    assert_eq!(subscriber.message(5).await.payload, b"1");
    // The packet id of QoS 2 is kept.
    publisher.send(Publish::new("free", "2", 2, 2).bytes(5)).await;
    intake.next().await.1(Durability::Durable { below: 0 });
    publisher.expect(ack(PUBREC, 2)).await;
    assert_eq!(subscriber.message(5).await.payload, b"2");
    // Beside one that is kept, and behind it.
    let together = [Publish::new("kept", "3", 1, 3), Publish::new("free", "4", 1, 4)].map(|publish| publish.bytes(5));
    publisher.send(together.concat()).await;
    assert_eq!(subscriber.message(5).await.payload, b"4");
    publisher.send(Publish::new("free", "5", 1, 5).bytes(5)).await;
    assert_eq!(subscriber.message(5).await.payload, b"5");
    publisher.expect_nothing().await;
    for ids in [3..=4, 5..=5] {
        intake.next().await.1(Durability::Durable { below: 0 });
        for id in ids {
            publisher.expect(ack(PUBACK, id)).await;
        }
    }
    publisher.send(Publish::new("free", "6", 1, 6).bytes(5)).await;
    publisher.expect(ack(PUBACK, 6)).await;
    assert!(intake.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn qos_2_does() {
    let (intake, broker) = start().await;
    let mut subscriber = broker.connect(5, "s").await;
    subscriber.subscribe(5, &[("a", 2)]).await;
    let mut publisher = broker.connect(5, "p").await;
    publisher.send(Publish::new("a", "x", 2, 1).bytes(5)).await;
    let (_, answer) = intake.next().await;
    subscriber.expect_nothing().await;
    answer(Durability::Durable { below: 0 });
    assert_eq!(subscriber.message(5).await.payload, b"x");
}

/// [MQTT-3.3.1-5]: the retained message that came last is the one that is kept, and an empty one leaves none, whatever waits for the
/// disk: behind one of QoS 2 everything waits.
#[tokio::test(flavor = "multi_thread")]
async fn the_retained_message_that_came_last_is_kept() {
    let (intake, broker) = start().await;
    for version in [4, 5] {
        for (qos, payload) in [(0, "new"), (1, "new"), (2, "new"), (0, ""), (1, "")] {
            let topic = format!("r/{version}/{qos}/{payload}");
            let retained = |payload, qos, id| Publish::new(&topic, payload, qos, id).retained().bytes(version);
            let heard = |payload| Publish::new("heard", payload, 0, 0).bytes(version);
            let mut listener = broker.connect(version, "listener").await;
            listener.subscribe(version, &[("heard", 0)]).await;
            let mut publisher = broker.connect(version, "p").await;
            // In one read, and in one after it, which does not wait for the first, for somebody hears the client.
            publisher.send([heard("1"), retained("oldest", 2, 1), retained("old", qos, 2), heard("2")].concat()).await;
            let first = intake.next().await;
            publisher.send([retained(payload, qos, 3), heard("3")].concat()).await;
            let second = intake.next().await;
            for (_, answer) in [first, second] {
                answer(Durability::Durable { below: 0 });
            }
            for n in ["1", "2", "3"] {
                assert_eq!(listener.message(version).await.payload, n.as_bytes());
            }
            let mut late = broker.connect(version, "late").await;
            late.subscribe(version, &[(&topic, 0)]).await;
            if payload.is_empty() {
                late.expect_nothing().await;
            } else {
                assert_eq!(late.message(version).await.payload, b"new");
            }
        }
    }
}

/// Where nothing can be kept, a message that its publisher sends again and again does not reach everybody again and again.
#[tokio::test(flavor = "multi_thread")]
async fn qos_1_waits_while_the_intake_refuses() {
    let (intake, broker) = start().await;
    let mut subscriber = broker.connect(5, "s").await;
    subscriber.subscribe(5, &[("a", 1)]).await;
    let mut publisher = broker.connect(5, "p").await;
    let message = |id: u16| Publish::new("a", &id.to_string(), 1, id).bytes(5);
    publisher.send(message(1)).await;
    subscriber.message(5).await;
    intake.next().await.1(Durability::Refused(RefusalReason::QuotaExceeded));
    publisher.expect(packet(PUBACK, &[0, 1, 0x97])).await;
    for id in 2..=3 {
        publisher.send(message(id)).await;
        intake.next().await.1(Durability::Refused(RefusalReason::QuotaExceeded));
        publisher.expect(packet(PUBACK, &[0, id as u8, 0x97])).await;
        subscriber.expect_nothing().await;
    }
    publisher.send(message(4)).await;
    intake.next().await.1(Durability::Durable { below: 0 });
    assert_eq!(subscriber.message(5).await.payload, b"4");
    publisher.expect(ack(PUBACK, 4)).await;
    publisher.send(message(5)).await;
    assert_eq!(subscriber.message(5).await.payload, b"5");
}

async fn durable(broker: &Broker, id: &str) -> Client {
    let mut client = broker.client().await;
    client.send(Connect::new(4, id).persistent(0).bytes()).await;
    client.receive().await;
    client
}

/// A durable subscriber's copy is stored at once; the acknowledgement waits for it and for the journal.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_copy_does_not_stand_for_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let intake = Arc::new(Held::default());
    let broker = Setup { intake: intake.clone(), ..Setup::stored_in(folder.path()) }.start().await;
    let [mut subscriber, mut other] = [durable(&broker, "s").await, durable(&broker, "o").await];
    subscriber.subscribe(4, &[("a", 1)]).await;
    let mut publisher = broker.connect(4, "p").await;
    publisher.send(Publish::new("a", "x", 1, 1).bytes(4)).await;
    assert_eq!(subscriber.message(4).await.payload, b"x");
    let (_, answer) = intake.next().await;
    // What is answered after it is stored was handed to the store after the copy.
    other.subscribe(4, &[("b", 1)]).await;
    publisher.expect_nothing().await;
    answer(Durability::Durable { below: 0 });
    publisher.expect(ack(PUBACK, 1)).await;
}

/// Those beyond the bound get theirs through the router; each session stays on its way.
#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_served_in_order_on_either_way() {
    let broker = Setup::default().with(|config| config.straight_subscribers = 2).start().await;
    let mut subscribers = Vec::new();
    for n in 0..4 {
        let mut subscriber = broker.connect(4, &format!("s{n}")).await;
        subscriber.subscribe(4, &[("a/#", 1), ("a/b", 0)]).await;
        subscribers.push(subscriber);
    }
    // One who leaves makes room for another.
    subscribers.remove(0).leave().await;
    let mut late = broker.connect(4, "late").await;
    late.subscribe(4, &[("a/b", 1)]).await;
    subscribers.push(late);
    let mut publisher = broker.connect(4, "p").await;
    for id in 1..=50 {
        publisher.publish(4, &Publish::new("a/b", &id.to_string(), 1, id)).await;
    }
    for subscriber in &mut subscribers {
        for id in 1..=50 {
            assert_eq!(subscriber.message(4).await.payload, id.to_string().as_bytes());
        }
        subscriber.send(unsubscribe(4, 1, &["a/#", "a/b"])).await;
        subscriber.expect(ack(0xB0, 1)).await;
    }
    publisher.publish(4, &Publish::new("a/b", "nobody's", 1, 51)).await;
    for subscriber in &mut subscribers {
        subscriber.expect_nothing().await;
    }
}

/// A publisher's turn writes what a subscriber's socket takes at once; the rest is its writer's and goes out behind it.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_late_gets_everything_whole_and_in_order() {
    let broker = Broker::start().await;
    let mut subscriber = broker.connect(4, "s").await;
    subscriber.subscribe(4, &[("a", 1)]).await;
    let mut publisher = broker.connect(4, "p").await;
    // More than sockets hold.
    let payload = |id: u16| format!("{id} {}", "x".repeat(16 << 10));
    for id in 1..=800 {
        publisher.publish(4, &Publish::new("a", &payload(id), 1, id)).await;
    }
    for id in 1..=800 {
        assert!(subscriber.message(4).await.payload == payload(id).as_bytes(), "{id}");
    }
}
