//! QoS 2 from a client, while the message is on its way to the disk (section 4.3.3): answered once it is there, taken once.

use std::sync::{Arc, Mutex};

use nearside_schemas::{Answer, BoxFuture, Durability, Intake, RefusalReason};

use crate::support::*;

/// Keeps what comes until the test says what became of it.
#[derive(Default)]
struct Held(Mutex<Vec<(Vec<nearside_schemas::Publish>, Answer)>>);

impl Intake for Held {
    fn submit(&self, batch: Vec<nearside_schemas::Publish>, answer: Answer) -> BoxFuture<'_, ()> {
        self.0.lock().unwrap().push((batch, answer));
        Box::pin(std::future::ready(()))
    }
}

impl Held {
    /// The next batch, once it is there.
    async fn next(&self) -> (Vec<nearside_schemas::Publish>, Answer) {
        let next = async {
            loop {
                let first = {
                    let mut held = self.0.lock().unwrap();
                    if held.is_empty() { None } else { Some(held.remove(0)) }
                };
                if let Some(first) = first {
                    return first;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a batch in time")
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

async fn start() -> (Arc<Held>, Broker) {
    let intake = Arc::new(Held::default());
    (intake.clone(), Setup { intake, ..Setup::default() }.start().await)
}

async fn persistent(broker: &Broker, version: u8) -> Client {
    let mut client = broker.client().await;
    client.send(Connect::new(version, "c").persistent(60).bytes()).await;
    client.receive().await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_sent_again_is_not_answered_before_it_is_safe() {
    for version in [4, 5] {
        let (intake, broker) = start().await;
        let mut client = persistent(&broker, version).await;
        let message = Publish::new("a", "x", 2, 7);
        // What stands between them makes two batches of them.
        client.send([message.bytes(version), PINGREQ.to_vec(), message.clone().again().bytes(version)].concat()).await;
        client.expect(PINGRESP).await;
        let (batch, answer) = intake.next().await;
        assert_eq!(batch.len(), 1);
        answer(Durability::Durable);
        client.expect(ack(PUBREC, 7)).await;
        // Then it is, and still taken once.
        client.send(message.again().bytes(version)).await;
        client.expect(ack(PUBREC, 7)).await;
        client.send(ack(PUBREL, 7)).await;
        client.expect(ack(PUBCOMP, 7)).await;
        assert!(intake.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_refused_is_taken_when_it_comes_again() {
    let (intake, broker) = start().await;
    let mut client = persistent(&broker, 5).await;
    let message = Publish::new("a", "x", 2, 7);
    client.send(message.bytes(5)).await;
    intake.next().await.1(Durability::Refused(RefusalReason::QuotaExceeded));
    client.expect(packet(PUBREC, &[0, 7, 0x97])).await;
    client.send(message.bytes(5)).await;
    intake.next().await.1(Durability::Durable);
    client.expect(ack(PUBREC, 7)).await;
}

/// No answer at all: the intake went away with it. The client finds out, and its message is new when it comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_an_answer_is_taken_when_it_comes_again() {
    for version in [4, 5] {
        let (intake, broker) = start().await;
        let mut client = persistent(&broker, version).await;
        let message = Publish::new("a", "x", 2, 7);
        client.send(message.bytes(version)).await;
        drop(intake.next().await.1);
        client.expect_end().await;
        let mut client = persistent(&broker, version).await;
        client.send(message.again().bytes(version)).await;
        intake.next().await.1(Durability::Durable);
        client.expect(ack(PUBREC, 7)).await;
    }
}

/// Nothing was received yet that could be released.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_on_its_way_cannot_be_released() {
    let (intake, broker) = start().await;
    let mut client = persistent(&broker, 5).await;
    client.send([Publish::new("a", "x", 2, 7).bytes(5), ack(PUBREL, 7)].concat()).await;
    client.expect(packet(PUBCOMP, &[0, 7, 0x92])).await;
    intake.next().await.1(Durability::Durable);
    client.expect(ack(PUBREC, 7)).await;
    client.send(Publish::new("a", "x", 2, 7).again().bytes(5)).await;
    client.expect(ack(PUBREC, 7)).await;
    assert!(intake.is_empty());
}
