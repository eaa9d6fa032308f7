//! QoS 2 from a client, while the message is on its way to the disk (section 4.3.3): answered once it is there, taken once.

use std::sync::Arc;

use nearside_broker::Recovery;
use nearside_schemas::{Answer, Durability, RefusalReason};

use crate::held::Held;
use crate::support::*;

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
        answer(Durability::Durable { below: 0 });
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
    intake.next().await.1(Durability::Durable { below: 0 });
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
        intake.next().await.1(Durability::Durable { below: 0 });
        client.expect(ack(PUBREC, 7)).await;
    }
}

/// The client's next connection sends it again while it is still on its way, and gets the answer: PUBREC, a refusal, or its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_on_its_way_over_a_takeover_is_answered_to_the_new_connection() {
    let durable = |answer: Answer| answer(Durability::Durable { below: 0 });
    let refused = |answer: Answer| answer(Durability::Refused(RefusalReason::QuotaExceeded));
    let lost = |answer: Answer| drop(answer);
    type Outcome = (u8, fn(Answer), Option<Vec<u8>>);
    let outcomes: [Outcome; 6] = [
        (4, durable, Some(ack(PUBREC, 7))),
        (5, durable, Some(ack(PUBREC, 7))),
        (4, refused, None),
        (5, refused, Some(packet(PUBREC, &[0, 7, 0x97]))),
        (4, lost, None),
        (5, lost, Some(packet(PUBREC, &[0, 7, 0x80]))),
    ];
    // Each takeover waits a while for what the old connection has not answered: all at once.
    let all = outcomes.map(|(version, outcome, expected)| {
        tokio::spawn(async move {
            let (intake, broker) = start().await;
            let message = Publish::new("a", "x", 2, 7);
            let mut before = persistent(&broker, version).await;
            before.send(message.bytes(version)).await;
            let (_, answer) = intake.next().await;
            let mut client = persistent(&broker, version).await;
            client.send([message.clone().again().bytes(version), PINGREQ.to_vec()].concat()).await;
            client.expect(PINGRESP).await;
            outcome(answer);
            match expected {
                Some(expected) => client.expect(expected).await,
                None => client.expect_end().await,
            }
            assert!(intake.is_empty(), "it is taken once");
        })
    });
    for one in all {
        one.await.unwrap();
    }
}

/// Nothing was received yet that could be released.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_on_its_way_cannot_be_released() {
    let (intake, broker) = start().await;
    let mut client = persistent(&broker, 5).await;
    client.send([Publish::new("a", "x", 2, 7).bytes(5), ack(PUBREL, 7)].concat()).await;
    client.expect(packet(PUBCOMP, &[0, 7, 0x92])).await;
    intake.next().await.1(Durability::Durable { below: 0 });
    client.expect(ack(PUBREC, 7)).await;
    client.send(Publish::new("a", "x", 2, 7).again().bytes(5)).await;
    client.expect(ack(PUBREC, 7)).await;
    assert!(intake.is_empty());
}

/// A crash between the journal's commit and the session store's: the message is in the one and not in the other. A copy of the store
/// from before the answer is what such a crash leaves.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_only_the_journal_knows_is_not_taken_again() {
    let [before, after, later] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let copy = |from: &tempfile::TempDir, to: &tempfile::TempDir| {
        std::fs::copy(from.path().join("sessions.redb"), to.path().join("sessions.redb")).unwrap();
    };
    let intake = Arc::new(Held::default());
    let broker = Setup { intake: intake.clone(), ..Setup::stored_in(before.path()) }.start().await;
    let mut client = persistent(&broker, 4).await;
    let message = |id| Publish::new("a", "x", 2, id);
    // This one the store knows, and that it was released.
    client.send(message(7).bytes(4)).await;
    let (known, answer) = intake.next().await;
    answer(Durability::Durable { below: 11 });
    client.expect(ack(PUBREC, 7)).await;
    client.send(ack(PUBREL, 7)).await;
    client.expect(ack(PUBCOMP, 7)).await;
    // This one it does not.
    client.send(message(8).bytes(4)).await;
    let (unknown, _answer) = intake.next().await;
    copy(&before, &after);

    let recovery = Recovery::expected(12);
    let intake = Arc::new(Held::default());
    let setup = Setup { intake: intake.clone(), recovery: recovery.clone(), ..Setup::stored_in(after.path()) };
    let broker = setup.start().await;
    let mut client = persistent(&broker, 4).await;
    client.send([message(8).again().bytes(4), message(7).bytes(4)].concat()).await;
    // Nothing is taken before the journal was heard.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(intake.is_empty());
    recovery.journalled(10, &known[0]);
    recovery.journalled(11, &unknown[0]);
    recovery.finish();
    client.expect(ack(PUBREC, 8)).await;
    let (batch, answer) = intake.next().await;
    assert_eq!(batch.iter().map(|publish| publish.packet_id).collect::<Vec<_>>(), [known[0].packet_id]);
    answer(Durability::Durable { below: 20 });
    client.expect(ack(PUBREC, 7)).await;
    client.send(ack(PUBREL, 8)).await;
    client.expect(ack(PUBCOMP, 8)).await;
    copy(&after, &later);

    // What was learnt is kept: the same journal tells nothing new after the next crash.
    let recovery = Recovery::expected(20);
    let intake = Arc::new(Held::default());
    let setup = Setup { intake: intake.clone(), recovery: recovery.clone(), ..Setup::stored_in(later.path()) };
    let broker = setup.start().await;
    recovery.journalled(11, &unknown[0]);
    recovery.finish();
    let mut client = persistent(&broker, 4).await;
    client.send(message(8).bytes(4)).await;
    assert_eq!(intake.next().await.0[0].packet_id, unknown[0].packet_id);
}

/// What a session before this one sent under the same client id is not this one's.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_knows_nothing_of_the_old_ones_messages() {
    let [before, after] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let intake = Arc::new(Held::default());
    let broker = Setup { intake: intake.clone(), ..Setup::stored_in(before.path()) }.start().await;
    let mut client = persistent(&broker, 5).await;
    client.send(Publish::new("a", "x", 2, 7).bytes(5)).await;
    let (old, answer) = intake.next().await;
    answer(Durability::Durable { below: 11 });
    client.expect(ack(PUBREC, 7)).await;
    client.leave().await;
    let mut client = broker.client().await;
    client.send(Connect { clean: true, ..Connect::new(5, "c").persistent(60) }.bytes()).await;
    assert_eq!(client.receive().await.body()[0], 0);
    client.subscribe(5, &[("behind", 1)]).await;
    std::fs::copy(before.path().join("sessions.redb"), after.path().join("sessions.redb")).unwrap();

    let recovery = Recovery::expected(11);
    let intake = Arc::new(Held::default());
    let setup = Setup { intake: intake.clone(), recovery: recovery.clone(), ..Setup::stored_in(after.path()) };
    let broker = setup.start().await;
    recovery.journalled(10, &old[0]);
    recovery.finish();
    let mut client = persistent(&broker, 5).await;
    client.send(Publish::new("a", "another", 2, 7).bytes(5)).await;
    assert_eq!(&intake.next().await.0[0].payload[..], b"another");
}
