//! Every limit is met, counted and told.

use nearside_schemas::ByteSize;

use crate::support::*;

async fn refusal(broker: &Broker, version: u8) -> u8 {
    let mut client = broker.client().await;
    client.send(Connect::new(version, "late").bytes()).await;
    let code = client.receive().await.body()[1];
    client.expect_end().await;
    code
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_in_all_and_by_address() {
    type Limit = fn(&mut nearside_broker::BrokerConfig);
    let limits: [(Limit, u8, &str); 2] = [
        (|config| config.max_connections = 2, 0x89, "server_busy"),
        (|config| config.max_connections_per_address = 2, 0x97, "quota_exceeded"),
    ];
    for (limit, reason, label) in limits {
        let broker = Setup::default().with(limit).start().await;
        let mut first = broker.connect(5, "a").await;
        let second = broker.connect(5, "b").await;
        assert_eq!(refusal(&broker, 5).await, reason);
        assert_eq!(refusal(&broker, 4).await, 3);
        let line = format!("nearside_broker_connections_refused_total{{reason=\"{label}\"}}");
        assert_eq!(broker.metric(&line), 2.0);
        // A place that is free again is given again.
        second.leave().await;
        tokio::time::timeout(PATIENCE, async {
            while broker.metric("nearside_broker_connections{}") > 1.0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        broker.connect(5, "c").await.expect_nothing().await;
        first.expect_nothing().await;
    }
}

/// Above the rate a client waits, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_too_fast_is_slowed_down() {
    let broker = Setup::default().with(|config| config.publish_rate = 20).start().await;
    let mut client = broker.connect(4, "c").await;
    client.subscribe(4, &[("a", 0)]).await;
    for burst in 0..3u8 {
        for n in 0..10u8 {
            client.send(Publish::new("a", &(burst * 10 + n).to_string(), 0, 0).bytes(4)).await;
        }
    }
    for n in 0..30u8 {
        assert_eq!(client.message(4).await.payload, n.to_string().into_bytes());
    }
    assert!(broker.metric("nearside_broker_throttled_total{}") >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_are_bounded() {
    let limits: [fn(&mut nearside_broker::BrokerConfig); 2] =
        [|config| config.max_retained = 5, |config| config.max_retained_bytes = ByteSize::kib(1)];
    for limit in limits {
        let broker = Setup::default().with(limit).start().await;
        let mut client = broker.connect(4, "c").await;
        for n in 0..30 {
            client.publish(4, &Publish::new(&format!("r/{n:02}"), "0123456789", 1, 1).retained()).await;
        }
        let dropped = broker.metric("nearside_broker_publishes_dropped_total{reason=\"retained_full\"}");
        assert!(dropped > 0.0);
        // One that is there can be replaced, and removed to make room.
        client.publish(4, &Publish::new("r/00", "9876543210", 1, 1).retained()).await;
        client.publish(4, &Publish::new("r/00", "", 1, 1).retained()).await;
        client.publish(4, &Publish::new("r/99", "0123456789", 1, 1).retained()).await;
        assert_eq!(broker.metric("nearside_broker_publishes_dropped_total{reason=\"retained_full\"}"), dropped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_bounded_in_bytes_too() {
    let broker = Setup::default().with(|config| config.session_queue_bytes = ByteSize::kib(4)).start().await;
    let mut client = broker.client().await;
    client.send(Connect::new(4, "c").persistent(0).bytes()).await;
    client.receive().await;
    client.subscribe(4, &[("a", 1)]).await;
    client.leave().await;
    let mut publisher = broker.connect(4, "p").await;
    for _ in 0..10 {
        publisher.publish(4, &Publish::new("a", &"x".repeat(1_000), 1, 1)).await;
    }
    assert!(broker.metric("nearside_broker_publishes_dropped_total{reason=\"slow_subscriber\"}") >= 6.0);
}
