//! What is acknowledged survives a crash. A copy of the store's file, taken at a moment at which everything was answered, is what
//! a crash at that moment leaves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nearside_broker::AcceptAll;
use nearside_schemas::{Answer, BoxFuture, Intake, ManualClock, Timestamp};

use crate::support::*;

async fn start(folder: &Path) -> Broker {
    Setup::stored_in(folder).start().await
}

/// The broker as it comes back after a crash now.
async fn crash(folder: &Path, next: &Path) -> Broker {
    std::fs::copy(folder.join("sessions.redb"), next.join("sessions.redb")).unwrap();
    start(next).await
}

async fn resume(broker: &Broker, connect: &Connect) -> (Client, bool) {
    let mut client = broker.client().await;
    client.send(connect.bytes()).await;
    let present = client.receive().await.body()[0] == 1;
    (client, present)
}

fn folders() -> [tempfile::TempDir; 2] {
    [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_what_waits_survive() {
    for version in [4, 5] {
        let [before, after] = folders();
        let connect = Connect::new(version, "c").persistent(3_600);
        let broker = start(before.path()).await;
        let (mut client, present) = resume(&broker, &connect).await;
        assert!(!present);
        client.subscribe(version, &[("a/#", 2), ("never", 1)]).await;
        client.send(unsubscribe(version, 3, &["never"])).await;
        client.receive().await;
        client.leave().await;
        let mut publisher = broker.connect(version, "p").await;
        for n in 0..50u8 {
            publisher.publish(version, &Publish::new("a/城", &n.to_string(), 1 + n % 2, 1)).await;
        }
        let broker = crash(before.path(), after.path()).await;
        let (mut client, present) = resume(&broker, &connect).await;
        assert!(present);
        for n in 0..50u8 {
            let got = client.message(version).await;
            // [MQTT-3.3.1-1]: the client was away, so none of it was sent before.
            assert_eq!((got.payload, got.qos, got.dup), (n.to_string().into_bytes(), 1 + n % 2, false));
        }
        // The subscriptions hold.
        client.publish(version, &Publish::new("never", "x", 0, 0)).await;
        client.publish(version, &Publish::new("a", "new", 1, 9)).await;
        assert_eq!(client.message(version).await.payload, b"new");
        client.leave().await;
        // What was delivered is gone, now and after the next crash.
        broker.stop().await;
        let broker = start(after.path()).await;
        let (mut client, _) = resume(&broker, &connect).await;
        client.expect_nothing().await;
    }
}

/// Exactly once: received before the crash is only released after it; sent before is sent under the same id.
#[tokio::test(flavor = "multi_thread")]
async fn qos_2_to_a_subscriber_survives() {
    let [before, after] = folders();
    let connect = Connect::new(5, "c").persistent(3_600);
    let broker = start(before.path()).await;
    let (mut client, _) = resume(&broker, &connect).await;
    client.subscribe(5, &[("a", 2)]).await;
    let mut publisher = broker.connect(5, "p").await;
    let mut sent = Vec::new();
    for n in 0..3u8 {
        publisher.publish(5, &Publish::new("a", &n.to_string(), 2, 1)).await;
        sent.push(client.receive().await.publish(5));
    }
    client.send(ack(PUBREC, sent[1].id)).await;
    client.expect(ack(PUBREL, sent[1].id)).await;
    let broker = crash(before.path(), after.path()).await;
    let (mut client, _) = resume(&broker, &connect).await;
    client.expect(ack(PUBREL, sent[1].id)).await;
    for n in [0, 2] {
        assert_eq!(client.receive().await.publish(5), Publish { dup: true, ..sent[n].clone() });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn qos_2_from_a_client_survives() {
    let [before, after] = folders();
    let connect = Connect::new(4, "c").persistent(3_600);
    let broker = start(before.path()).await;
    let (mut client, _) = resume(&broker, &connect).await;
    for id in [7, 8] {
        client.send(Publish::new("a", "x", 2, id).bytes(4)).await;
        client.expect(ack(PUBREC, id)).await;
    }
    client.send(ack(PUBREL, 8)).await;
    client.expect(ack(PUBCOMP, 8)).await;
    std::fs::copy(before.path().join("sessions.redb"), after.path().join("sessions.redb")).unwrap();
    let taken = Arc::<AtomicUsize>::default();
    let seen = taken.clone();
    let intake = AcceptAll::watching(move |batch| {
        seen.fetch_add(batch.len(), Ordering::SeqCst);
    });
    let broker = Setup { intake: Arc::new(intake), ..Setup::stored_in(after.path()) }.start().await;
    let (mut client, _) = resume(&broker, &connect).await;
    for (id, count) in [(7, 0), (8, 1)] {
        client.send(Publish::new("a", "x", 2, id).again().bytes(4)).await;
        client.expect(ack(PUBREC, id)).await;
        assert_eq!(
            taken.load(Ordering::SeqCst),
            count,
            "the first was taken before the crash, the second was released"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_survive() {
    let [before, after] = folders();
    let broker = start(before.path()).await;
    let mut publisher = broker.connect(5, "p").await;
    publisher.publish(5, &Publish::new("r/kept", "old", 1, 1).retained()).await;
    publisher.publish(5, &Publish::new("r/gone", "x", 1, 1).retained()).await;
    publisher.publish(5, &Publish::new("r/gone", "", 1, 1).retained()).await;
    publisher.publish(5, &Publish::new("r/kept", "new", 2, 1).retained().property(&[0x01, 1])).await;
    let broker = crash(before.path(), after.path()).await;
    let mut client = broker.connect(5, "c").await;
    client.subscribe(5, &[("r/#", 2)]).await;
    let got = client.message(5).await;
    assert_eq!(
        (got.topic.as_str(), &got.payload[..], got.qos, &got.properties[..]),
        ("r/kept", &b"new"[..], 2, &[1, 1][..])
    );
    client.expect_nothing().await;
    // Its place is known: replaced, not doubled.
    client.publish(5, &Publish::new("r/kept", "", 1, 1).retained()).await;
    let mut late = broker.connect(5, "late").await;
    late.subscribe(5, &[("r/#", 2)]).await;
    late.expect_nothing().await;
}

/// What was sent before the client went is sent again as such; what came after is new, and over where its time is (section
/// 3.3.2.3.3).
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_through_a_crash_is_not_sent_again_and_can_expire() {
    let [before, after] = folders();
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
    let connect = Connect::new(5, "c").persistent(3_600);
    let broker = Setup { clock: clock.clone(), ..Setup::stored_in(before.path()) }.start().await;
    let (mut client, _) = resume(&broker, &connect).await;
    client.subscribe(5, &[("a", 2)]).await;
    let mut publisher = broker.connect(5, "p").await;
    let expiring = |payload: &str, qos, secs| Publish::new("a", payload, qos, 1).property(&[0x02, 0, 0, 0, secs]);
    publisher.publish(5, &expiring("sent", 1, 5)).await;
    assert_eq!(client.receive().await.publish(5).payload, b"sent");
    client.leave().await;
    for (payload, secs) in [("over", 5), ("not over", 60)] {
        publisher.publish(5, &expiring(payload, 1, secs)).await;
        publisher.publish(5, &expiring(payload, 2, secs)).await;
    }
    drop(publisher);
    broker.stop().await;
    std::fs::copy(before.path().join("sessions.redb"), after.path().join("sessions.redb")).unwrap();
    clock.set(Timestamp::from_secs(1_010));
    let broker = Setup { clock, ..Setup::stored_in(after.path()) }.start().await;
    let (mut client, _) = resume(&broker, &connect).await;
    for (payload, qos, dup) in [("sent", 1, true), ("not over", 1, false), ("not over", 2, false)] {
        let got = client.message(5).await;
        assert_eq!((&got.payload[..], got.qos, got.dup), (payload.as_bytes(), qos, dup));
    }
    client.expect_nothing().await;
}

/// Also of a client whose session ends with its connection, and published once.
#[tokio::test(flavor = "multi_thread")]
async fn wills_of_clients_without_a_session_survive() {
    for version in [4, 5] {
        let [before, after] = folders();
        let watching = Connect::new(5, "watcher").persistent(3_600);
        let broker = start(before.path()).await;
        let (mut watcher, _) = resume(&broker, &watching).await;
        watcher.subscribe(5, &[("will", 1)]).await;
        let dying = Connect::new(version, "dying").will("will", "gone", 1, false, &[]);
        let (mut client, _) = resume(&broker, &dying).await;
        client.expect_nothing().await;
        watcher.subscribe(5, &[("other", 1)]).await;
        let broker = crash(before.path(), after.path()).await;
        let (mut watcher, _) = resume(&broker, &watching).await;
        assert_eq!(watcher.message(5).await.payload, b"gone");
        watcher.subscribe(5, &[("behind", 1)]).await;
        broker.stop().await;
        let broker = start(after.path()).await;
        let (mut watcher, _) = resume(&broker, &watching).await;
        watcher.expect_nothing().await;
    }
}

/// Takes nothing and answers nothing, like a gateway that has not recovered.
struct Closed;

impl Intake for Closed {
    fn submit(&self, _: Vec<nearside_schemas::Publish>, _: Answer) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// The door opens before the intake takes anything; a will that is due then waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_will_that_is_due_at_the_start_keeps_nobody_out() {
    let [before, after] = folders();
    let broker = start(before.path()).await;
    let (mut client, _) = resume(&broker, &Connect::new(4, "dying").will("will", "gone", 1, false, &[])).await;
    client.expect_nothing().await;
    // Something that waits for the store behind it.
    resume(&broker, &Connect::new(4, "other").persistent(0)).await.0.subscribe(4, &[("a", 1)]).await;
    std::fs::copy(before.path().join("sessions.redb"), after.path().join("sessions.redb")).unwrap();
    let setup = Setup { intake: Arc::new(Closed), ..Setup::stored_in(after.path()) };
    let broker = tokio::time::timeout(PATIENCE, setup.start()).await.expect("the door opens");
    broker.connect(5, "new").await.expect_nothing().await;
}

/// A crash of ours is a broken connection to the client: its will is due.
#[tokio::test(flavor = "multi_thread")]
async fn wills_survive() {
    let [before, after] = folders();
    let broker = start(before.path()).await;
    let connect = Connect::new(5, "watcher").persistent(3_600);
    let (mut watcher, _) = resume(&broker, &connect).await;
    watcher.subscribe(5, &[("will", 1)]).await;
    let dying = Connect::new(5, "dying").persistent(3_600).will("will", "gone", 1, false, &[0x18, 0, 0, 0, 1]);
    let (_client, _) = resume(&broker, &dying).await;
    let polite = Connect::new(5, "polite").persistent(3_600).will("will", "not published", 1, false, &[]);
    resume(&broker, &polite).await.0.leave().await;
    // Something that waits for the store behind them.
    watcher.subscribe(5, &[("other", 1)]).await;
    let broker = crash(before.path(), after.path()).await;
    let (mut watcher, _) = resume(&broker, &connect).await;
    assert_eq!(watcher.message(5).await.payload, b"gone");
    watcher.expect_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_can_end_while_the_broker_is_down() {
    let [before, after] = folders();
    let broker = start(before.path()).await;
    let (client, _) = resume(&broker, &Connect::new(5, "c").persistent(1)).await;
    client.leave().await;
    broker.stop().await;
    std::fs::copy(before.path().join("sessions.redb"), after.path().join("sessions.redb")).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let broker = start(after.path()).await;
    assert!(!resume(&broker, &Connect::new(5, "c").persistent(1)).await.1);
}

/// What waited for it goes to another of its group.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_while_the_broker_is_down_leaves_its_groups_what_it_had() {
    let [before, after] = folders();
    let broker = start(before.path()).await;
    let (short, long) = (Connect::new(5, "short").persistent(1), Connect::new(5, "long").persistent(600));
    let (mut first, _) = resume(&broker, &short).await;
    first.subscribe(5, &[("$share/g/a", 1)]).await;
    first.leave().await;
    let mut publisher = broker.connect(5, "p").await;
    publisher.publish(5, &Publish::new("a", "x", 1, 1)).await;
    let (mut second, _) = resume(&broker, &long).await;
    second.subscribe(5, &[("$share/g/a", 1)]).await;
    second.leave().await;
    broker.stop().await;
    std::fs::copy(before.path().join("sessions.redb"), after.path().join("sessions.redb")).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let broker = start(after.path()).await;
    let (mut second, present) = resume(&broker, &long).await;
    assert!(present);
    assert_eq!(second.message(5).await.payload, b"x");
}

/// Promise I2: neither payloads nor topics nor client ids nor filters.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_on_disk_in_the_clear() {
    let [folder, _] = folders();
    let broker = start(folder.path()).await;
    let (mut client, _) = resume(&broker, &Connect::new(4, "CLIENT-ID").persistent(60)).await;
    client.subscribe(4, &[("TOPIC-NAME", 1)]).await;
    client.leave().await;
    broker.connect(4, "p").await.publish(4, &Publish::new("TOPIC-NAME", "PAYLOAD-TEXT", 1, 1).retained()).await;
    let bytes = std::fs::read(folder.path().join("sessions.redb")).unwrap();
    for word in ["CLIENT-ID", "TOPIC-NAME", "PAYLOAD-TEXT"] {
        assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
    }
}
