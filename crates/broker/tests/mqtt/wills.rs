//! Wills (section 3.1.2.5).

use nearside_schemas::HumanDuration;

use crate::support::*;

async fn watcher(broker: &Broker) -> Client {
    let mut watcher = broker.connect(5, "watcher").await;
    watcher.subscribe(5, &[("will/#", 2)]).await;
    watcher
}

async fn with_will(broker: &Broker, connect: Connect) -> Client {
    let mut client = broker.client().await;
    client.send(connect.bytes()).await;
    assert_eq!(client.receive().await.body()[1], 0);
    client
}

/// [MQTT-3.1.2-8], [MQTT-3.1.2-10]: after anything but a goodbye.
#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    let broker = Broker::start().await;
    let mut watcher = watcher(&broker).await;
    for version in [4, 5] {
        for qos in 0..3 {
            let connect = || Connect::new(version, "c").will("will/a", "gone", qos, true, &[]);
            with_will(&broker, connect()).await.leave().await;
            watcher.expect_nothing().await;
            drop(with_will(&broker, connect()).await);
            let got = watcher.message(5).await;
            assert_eq!((got.payload, got.qos), (b"gone".to_vec(), qos));
            // It breaks the protocol, or another takes its place: gone as well.
            let mut breaking = with_will(&broker, connect()).await;
            breaking.send([0]).await;
            breaking.send([0]).await;
            assert_eq!(watcher.message(5).await.topic, "will/a");
            let _first = with_will(&broker, connect()).await;
            let second = with_will(&broker, connect()).await;
            assert_eq!(watcher.message(5).await.topic, "will/a");
            second.leave().await;
        }
    }
    // [MQTT-3.1.2-17]: retained.
    let mut late = broker.connect(4, "late").await;
    late.subscribe(4, &[("will/a", 0)]).await;
    assert!(late.message(4).await.retain);
    // [MQTT-3.14.4-3]: a DISCONNECT that asks for it.
    let mut asking = with_will(&broker, Connect::new(5, "c").will("will/b", "asked", 0, false, &[])).await;
    asking.send(packet(0xE0, &[0x04])).await;
    assert_eq!(watcher.message(5).await.payload, b"asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wills_properties_arrive() {
    let broker = Broker::start().await;
    let mut watcher = watcher(&broker).await;
    let user = [&[0x26][..], &text("k"), &text("v")].concat();
    let properties = [&[0x18, 0, 0, 0, 0][..], &user, &[0x01, 1]].concat();
    drop(with_will(&broker, Connect::new(5, "c").will("will/a", "gone", 0, false, &properties)).await);
    assert_eq!(watcher.message(5).await.properties, [&user[..], &[0x01, 1]].concat());
}

/// Section 3.1.3.2.2: after the delay or with the session's end, whichever is first; not where the client is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_v5_will_waits() {
    let broker = Broker::start().await;
    let mut watcher = watcher(&broker).await;
    let delayed = |secs: u8, id: &str, payload: &str| {
        Connect::new(5, id).will("will/a", payload, 0, false, &[0x18, 0, 0, 0, secs])
    };
    // The session ends with the connection.
    drop(with_will(&broker, delayed(60, "a", "no session")).await);
    assert_eq!(watcher.message(5).await.payload, b"no session");
    // The session ends first.
    drop(with_will(&broker, delayed(60, "b", "session over").persistent(1)).await);
    assert_eq!(watcher.message(5).await.payload, b"session over");
    // The delay is over first.
    drop(with_will(&broker, delayed(1, "c", "delay over").persistent(60)).await);
    assert_eq!(watcher.message(5).await.payload, b"delay over");
    // Back in time, and then a goodbye.
    drop(with_will(&broker, delayed(60, "d", "not published").persistent(60)).await);
    with_will(&broker, Connect::new(5, "d").persistent(60)).await.leave().await;
    watcher.expect_nothing().await;
    // Back, but with a fresh start: the session is over.
    drop(with_will(&broker, delayed(60, "e", "fresh start").persistent(60)).await);
    let _fresh = with_will(&broker, Connect::new(5, "e")).await;
    assert_eq!(watcher.message(5).await.payload, b"fresh start");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_falls_silent_leaves_a_will() {
    let setup = Setup::default().with(|config| config.keep_alive_cap = HumanDuration::secs(1));
    let broker = setup.start().await;
    let mut watcher = broker.connect(4, "watcher").await;
    watcher.subscribe(4, &[("will/#", 0)]).await;
    let _silent = with_will(&broker, Connect::new(5, "c").will("will/a", "silent", 0, false, &[])).await;
    assert_eq!(watcher.message(4).await.payload, b"silent");
}
