//! Every limit is met, counted and told.

use std::time::Duration;

use nearside_schemas::{ByteSize, HumanDuration};

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
        (|config| config.max_connections_per_address = Some(2), 0x97, "quota_exceeded"),
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

/// One read may bring a minute's messages: a second's are taken, and the others as their time comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_taken_no_faster_than_the_rate() {
    let broker = Setup::default().with(|config| config.publish_rate = 10).start().await;
    let mut client = broker.connect(4, "c").await;
    let start = tokio::time::Instant::now();
    client.send([Publish::new("a", "x", 0, 0).bytes(4).repeat(25), PINGREQ.to_vec()].concat()).await;
    client.expect(PINGRESP).await;
    let took = start.elapsed();
    assert!((Duration::from_millis(1_300)..Duration::from_secs(4)).contains(&took), "{took:?}");
    client.expect_nothing().await;
}

/// Of all clients together, so that a crowd takes no more memory than was planned for.
#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_bounded_in_all() {
    let broker = Setup::default().with(|config| config.subscriptions_bytes = ByteSize::kib(2)).start().await;
    let mut first = broker.connect(5, "first").await;
    assert_eq!(first.subscribe(5, &[("a", 0), ("b", 0), ("$share/g/c", 0), ("d", 0)]).await, [0, 0, 0, 0x97]);
    let mut second = broker.connect(4, "second").await;
    assert_eq!(second.subscribe(4, &[("a", 0)]).await, [0x80]);
    // What is there can be changed, and what is given up is free for others.
    assert_eq!(first.subscribe(5, &[("a", 1)]).await, [1]);
    first.send(unsubscribe(5, 2, &["a", "$share/g/c"])).await;
    assert_eq!(first.receive().await.kind(), 11);
    assert_eq!(second.subscribe(4, &[("a", 0)]).await, [0]);
    first.leave().await;
    assert_eq!(second.subscribe(4, &[("b", 0), ("c", 0)]).await, [0, 0]);
    assert!(broker.metric("nearside_broker_access_denied_total{what=\"subscribe\"}") >= 2.0);
}

/// It hears that its session is somebody else's, however long it has to wait.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_slowed_down_for_long_does_not_keep_its_session_from_the_next() {
    let broker = Setup::default().with(|config| config.publish_rate = 20).start().await;
    let mut first = broker.connect(5, "c").await;
    let burst: Vec<u8> = (0..2_000).flat_map(|_| Publish::new("a", "x", 0, 0).bytes(5)).collect();
    first.send(burst).await;
    broker.wait_for("nearside_broker_throttled_total{}", 1.0).await;
    broker.connect(5, "c").await;
    assert_eq!(first.receive().await.body()[0], 0x8E, "taken over");
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

/// One subscriber's queue does not take the room of all: whoever gets a message past it loses its own oldest.
#[tokio::test(flavor = "multi_thread")]
async fn queues_are_bounded_in_all() {
    let setup = Setup::default().with(|config| {
        config.sessions_bytes = ByteSize::kib(8);
        config.session_share = ByteSize::kib(1);
        config.system_interval = HumanDuration(Duration::from_millis(10));
    });
    let broker = setup.start().await;
    for id in ["a", "b", "c", "d"] {
        let mut client = broker.client().await;
        client.send(Connect::new(4, id).persistent(0).bytes()).await;
        client.receive().await;
        client.subscribe(4, &[("a", 1)]).await;
        client.leave().await;
    }
    let mut publisher = broker.connect(4, "p").await;
    for _ in 0..4 {
        publisher.publish(4, &Publish::new("a", &"x".repeat(1_000), 1, 1)).await;
    }
    broker.wait_for("nearside_broker_session_bytes{}", 4_000.0).await;
    assert!(broker.metric("nearside_broker_session_bytes{}") <= 8_192.0);
    assert!(broker.metric("nearside_broker_publishes_dropped_total{reason=\"slow_subscriber\"}") >= 8.0);
}

/// Sessions whose clients are away have filled the memory of all: who is there gets everything, who is away its share.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_away_silence_nobody() {
    let setup = Setup::default().with(|config| {
        config.sessions_bytes = ByteSize::kib(64);
        config.session_share = ByteSize::kib(8);
        config.system_interval = HumanDuration(Duration::from_millis(10));
    });
    let broker = setup.start().await;
    let away = async |id: &str, filter: &str| {
        let mut client = broker.client().await;
        client.send(Connect::new(5, id).persistent(3_600).bytes()).await;
        client.receive().await;
        client.subscribe(5, &[(filter, 1)]).await;
        client.leave().await;
    };
    for id in ["a", "b", "c", "d"] {
        away(id, "mine/#").await;
    }
    let mut publisher = broker.connect(5, "p").await;
    for _ in 0..30 {
        publisher.publish(5, &Publish::new("mine/x", &"x".repeat(4_000), 1, 1)).await;
    }
    away("late", "ward/#").await;
    for version in [4, 5] {
        let mut live = broker.connect(version, "live").await;
        live.subscribe(version, &[("ward/#", 1)]).await;
        // The last is larger than a share.
        for (n, size) in [3_000; 20].into_iter().chain([20_000]).enumerate() {
            // What came before is answered.
            live.expect_nothing().await;
            let payload = format!("{n:02}{}", "x".repeat(size));
            publisher.publish(5, &Publish::new("ward/1", &payload, n as u8 % 2, 1)).await;
            assert_eq!(live.message(version).await.payload, payload.as_bytes());
        }
        // Commands take the same way.
        let topic = nearside_schemas::Topic::new("ward/command").unwrap();
        broker.door.publisher().publish(&topic, "now".into(), nearside_schemas::QoS::AtLeastOnce, false).unwrap();
        assert_eq!(live.message(version).await.payload, b"now");
        live.leave().await;
    }
    let mut client = broker.client().await;
    for n in 0..5 {
        publisher.publish(5, &Publish::new("ward/1", &format!("{n}{}", "x".repeat(3_000)), 1, 1)).await;
    }
    client.send(Connect::new(5, "late").persistent(3_600).bytes()).await;
    client.receive().await;
    for n in 3..5 {
        assert_eq!(client.message(5).await.payload[0], b'0' + n);
    }
    client.expect_nothing().await;
    assert!(broker.metric("nearside_broker_session_bytes{}") <= f64::from((64 + 6 * 8) << 10));
}

/// QoS 1 messages were told to be safe; what waits at QoS 0 goes first.
#[tokio::test(flavor = "multi_thread")]
async fn qos_0_takes_no_other_messages_place() {
    let broker = Setup::default().with(|config| config.session_queue = 10).start().await;
    let mut slow = broker.client().await;
    slow.send(Connect::new(5, "slow").property(&[0x21, 0, 1]).bytes()).await;
    slow.receive().await;
    slow.subscribe(5, &[("x", 1)]).await;
    let mut publisher = broker.connect(5, "p").await;
    for n in 0..5 {
        publisher.publish(5, &Publish::new("x", &n.to_string(), 1, 1)).await;
    }
    for n in 0..30 {
        publisher.publish(5, &Publish::new("x", &n.to_string(), 0, 0)).await;
    }
    publisher.expect_nothing().await;
    for n in 0..5 {
        let got = slow.message(5).await;
        assert_eq!((got.qos, got.payload), (1, n.to_string().into_bytes()));
    }
    // Of the others those that came last, in their order.
    for n in 24..30 {
        let got = slow.message(5).await;
        assert_eq!((got.qos, got.payload), (0, n.to_string().into_bytes()));
    }
    slow.expect_nothing().await;
}

/// What is on its way counts too: a client that takes everything and acknowledges nothing holds no more than one that is away.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_is_bounded_in_bytes() {
    let setup = Setup::default().with(|config| {
        config.session_queue_bytes = ByteSize::kib(8);
        config.system_interval = HumanDuration(Duration::from_millis(10));
    });
    let broker = setup.start().await;
    let mut client = broker.connect(4, "c").await;
    client.subscribe(4, &[("a", 1)]).await;
    let mut publisher = broker.connect(4, "p").await;
    for _ in 0..20 {
        publisher.publish(4, &Publish::new("a", &"x".repeat(1_000), 1, 1)).await;
    }
    broker.wait_for("nearside_broker_publishes_dropped_total{reason=\"slow_subscriber\"}", 12.0).await;
    broker.wait_for("nearside_broker_session_bytes{}", 4_000.0).await;
    assert!(broker.metric("nearside_broker_session_bytes{}") <= 8_192.0);
}

/// A filter as deep as a packet allows, in everything that takes one.
#[tokio::test(flavor = "multi_thread")]
async fn depth_overflows_no_stack() {
    let deep = |levels: usize| vec!["a"; levels].join("/");
    let setup = Setup::default().with(|config| {
        config.max_topic_levels = 1_000;
        config.max_topic_bytes = 65_535;
    });
    let broker = setup.start().await;
    for version in [4, 5] {
        let mut client = broker.connect(version, "c").await;
        let refused = if version == 5 { 0x8F } else { 0x80 };
        let (most, beyond) = (deep(1_000), deep(32_768));
        let wild = format!("{}/#", deep(32_766));
        let any = vec!["+"; 1_000].join("/");
        let codes = client.subscribe(version, &[(&beyond, 0), (&wild, 0), (&most, 0), (&any, 0)]).await;
        assert_eq!(codes, [refused, refused, 0, 0]);
        client.send(unsubscribe(version, 2, &[&beyond, &wild])).await;
        assert_eq!(client.receive().await.kind(), 11);
        client.publish(version, &Publish::new(&most, "x", 0, 0).retained()).await;
        assert_eq!(client.message(version).await.topic, most);
        client.publish(version, &Publish::new(&most, "", 0, 0).retained()).await;
        client.message(version).await;
    }
}

/// Thousands of filters in one packet, again and again the same: each is answered, its retained messages come once.
#[tokio::test(flavor = "multi_thread")]
async fn a_packet_full_of_filters_costs_what_its_filters_cost() {
    let broker = Setup::default().with(|config| config.max_subscriptions = 2).start().await;
    let mut publisher = broker.connect(4, "p").await;
    for n in 0..50 {
        publisher.publish(4, &Publish::new(&format!("r/{n}"), "x", 1, 1).retained()).await;
    }
    let mut client = broker.connect(5, "c").await;
    let many: Vec<(&str, u8)> =
        ["r/#", "never", "too/many"].iter().map(|filter| (*filter, 1)).cycle().take(60_000).collect();
    let codes = client.subscribe(5, &many).await;
    assert_eq!(codes, [1, 1, 0x97].repeat(20_000));
    for _ in 0..50 {
        client.message(5).await;
    }
    client.expect_nothing().await;
}
