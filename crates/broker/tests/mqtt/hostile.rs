//! Clients that wish no good, or are just broken: everybody else is served throughout.

use std::time::Duration;

use nearside_schemas::HumanDuration;
use tokio::io::AsyncWriteExt;

use crate::support::*;

/// Two clients that go on talking to each other.
struct Bystanders {
    publisher: Client,
    subscriber: Client,
    n: u32,
}

impl Bystanders {
    async fn new(broker: &Broker) -> Self {
        let mut subscriber = broker.connect(5, "bystander-s").await;
        subscriber.subscribe(5, &[("bystanders/+/室", 1)]).await;
        Self { publisher: broker.connect(4, "bystander-p").await, subscriber, n: 0 }
    }

    async fn are_served(&mut self) {
        self.n += 1;
        let topic = format!("bystanders/{}/室", self.n);
        self.publisher.publish(4, &Publish::new(&topic, "x", 1, 1)).await;
        assert_eq!(self.subscriber.message(5).await.topic, topic);
    }
}

fn short(duration: &mut HumanDuration) {
    *duration = HumanDuration(Duration::from_millis(300));
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_handshakes_hold_nobody_up() {
    let broker = Setup::default().with(|config| short(&mut config.handshake_timeout)).start().await;
    let mut bystanders = Bystanders::new(&broker).await;
    let whole = Connect::new(5, "never").bytes();
    let mut stalled = Vec::new();
    for n in 0..100 {
        let mut client = broker.client().await;
        client.send(&whole[..n % whole.len()]).await;
        stalled.push(client);
        if n % 10 == 0 {
            bystanders.are_served().await;
        }
    }
    for mut client in stalled {
        client.expect_end().await;
    }
    broker.wait_for("nearside_broker_connections_refused_total{reason=\"handshake_timeout\"}", 100.0).await;
    bystanders.are_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coming_and_going_at_the_limit_poisons_nothing() {
    let broker = Setup::default().with(|config| config.max_connections = 12).start().await;
    let mut bystanders = Bystanders::new(&broker).await;
    let mut full = Vec::new();
    for n in 0..10 {
        full.push(broker.connect(4, &format!("+${n}")).await);
    }
    for n in 0..200 {
        let mut client = broker.client().await;
        client.send(Connect::new(4, "#/+").bytes()).await;
        if n % 2 == 0 {
            client.expect([0x20, 2, 0, 3]).await;
        }
        if n % 20 == 0 {
            bystanders.are_served().await;
        }
    }
    drop(full);
    tokio::time::timeout(PATIENCE, async {
        while broker.metric("nearside_broker_connections{}") > 2.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    broker.connect(4, "#/+").await.expect_nothing().await;
    bystanders.are_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_never_reads_is_cut_off() {
    let setup = Setup::default().with(|config| {
        config.session_queue = 100;
        short(&mut config.write_timeout);
    });
    let broker = setup.start().await;
    let mut bystanders = Bystanders::new(&broker).await;
    let mut deaf = Vec::new();
    for connect in [Connect::new(4, "deaf"), Connect::new(5, "deaf too").persistent(60)] {
        let mut client = broker.client().await;
        client.send(connect.bytes()).await;
        client.receive().await;
        client.subscribe(connect.version, &[("flood", 1)]).await;
        deaf.push(client);
    }
    let mut publisher = broker.connect(4, "p").await;
    let payload = "x".repeat(32 << 10);
    for n in 0..1_000 {
        publisher.publish(4, &Publish::new("flood", &payload, 1, 1)).await;
        if n % 100 == 0 {
            bystanders.are_served().await;
        }
    }
    // Three are left: the two bystanders and the publisher.
    tokio::time::timeout(PATIENCE, async {
        while broker.metric("nearside_broker_connections{}") > 3.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("they are cut off");
    assert!(broker.metric("nearside_broker_publishes_dropped_total{reason=\"slow_subscriber\"}") > 0.0);
    bystanders.are_served().await;
}

/// Whoever sends without reading the answers is not read either, and cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_never_reads_is_cut_off() {
    let broker = Setup::default().with(|config| short(&mut config.write_timeout)).start().await;
    let mut bystanders = Bystanders::new(&broker).await;
    let mut publisher = broker.connect(4, "p").await;
    let large = "x".repeat(900 << 10);
    for n in 0..20 {
        publisher.publish(4, &Publish::new(&format!("large/{n}"), &large, 1, 1).retained()).await;
    }
    let mut deaf = broker.connect(4, "deaf").await;
    deaf.send(subscribe(4, 1, &[], &[("large/+", 0)])).await;
    let pings = PINGREQ.repeat(1 << 10);
    let flood = async { while deaf.stream.write_all(&pings).await.is_ok() {} };
    let others = async {
        for _ in 0..50 {
            bystanders.are_served().await;
        }
    };
    let (ended, ()) = tokio::join!(tokio::time::timeout(PATIENCE, flood), others);
    ended.expect("it is cut off");
    bystanders.are_served().await;
}

/// Its client may come back meanwhile: the old connection is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_stuck_can_be_taken_over() {
    let broker = Broker::start().await;
    let mut stuck = broker.connect(5, "c").await;
    let pings = PINGREQ.repeat(64 << 10);
    let flood = async { while stuck.stream.write_all(&pings).await.is_ok() {} };
    let stalled = tokio::time::timeout(Duration::from_secs(2), flood).await;
    assert!(stalled.is_err(), "it is not read any more");
    let mut again = broker.client().await;
    again.send(Connect::new(5, "c").bytes()).await;
    assert_eq!(again.receive().await.connack().1, 0);
    again.expect_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_leaves_room_for_others() {
    let broker = Broker::start().await;
    let mut bystanders = Bystanders::new(&broker).await;
    let mut floods = Vec::new();
    for n in 0..4 {
        let mut client = broker.connect(4, &format!("flood-{n}")).await;
        client.subscribe(4, &[("#", 0)]).await;
        let messages: Vec<u8> =
            (0..500).flat_map(|m| Publish::new(&format!("f/{n}/{m}/城"), "x", 0, 0).bytes(4)).collect();
        floods.push(tokio::spawn(async move {
            for _ in 0..20 {
                client.send(&messages).await;
            }
            client
        }));
    }
    for _ in 0..20 {
        bystanders.are_served().await;
    }
    for flood in floods {
        flood.await.unwrap();
    }
    bystanders.are_served().await;
}

/// A connection that breaks in the middle of a packet, over and over.
#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_leave_nothing_behind() {
    let broker = Broker::start().await;
    let mut bystanders = Bystanders::new(&broker).await;
    let large = Publish::new("a", &"x".repeat(10_000), 2, 1).bytes(5);
    for n in 0..100 {
        let mut client = broker.connect(5, &format!("{n}")).await;
        client.subscribe(5, &[("#", 2)]).await;
        client.send(&large[..n * 100]).await;
    }
    bystanders.are_served().await;
    tokio::time::timeout(PATIENCE, async {
        while broker.metric("nearside_broker_connections{}") > 2.0 || broker.metric("nearside_broker_sessions{}") > 2.0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(broker.metric("nearside_broker_subscriptions{}"), 1.0);
}

/// Thousands of filters as deep as filters may be, all of which a topic matches but for its end: each message costs its publisher's turn.
#[tokio::test(flavor = "multi_thread")]
async fn deep_wildcards_leave_room_for_others() {
    let broker = Broker::start().await;
    let mut bystanders = Bystanders::new(&broker).await;
    let level = |n: usize, depth: usize| if ((n * 2_654_435_761) >> (depth % 24)) & 1 == 0 { "a" } else { "+" };
    let filter = |n: usize| (0..127).map(|depth| level(n, depth)).chain(["z"]).collect::<Vec<_>>().join("/");
    let mut owners = Vec::new();
    for owner in 0..4 {
        let mut client = broker.connect(5, &format!("deep-{owner}")).await;
        let filters: Vec<String> = (0..1_000).map(|n| filter(owner * 1_000 + n)).collect();
        let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (&**filter, 0)).collect();
        assert!(client.subscribe(5, &filters).await.iter().all(|code| *code == 0));
        owners.push(client);
    }
    let mut publisher = broker.connect(5, "p").await;
    let topic = vec!["a"; 128].join("/");
    let start = tokio::time::Instant::now();
    publisher.send(Publish::new(&topic, "x", 0, 0).bytes(5).repeat(30)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    bystanders.are_served().await;
    let served = start.elapsed();
    publisher.expect_nothing().await;
    let all = start.elapsed();
    assert!(served < all / 4, "{served:?} of {all:?}");
}

/// A search of many retained messages for many filters ends with its connection, and others are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_of_retained_messages_keeps_nobody_out() {
    let broker = Broker::start().await;
    let mut bystanders = Bystanders::new(&broker).await;
    let mut publisher = broker.connect(4, "p").await;
    let front = vec!["a"; 100].join("/");
    for n in 0..2_000 {
        publisher.send(Publish::new(&format!("{front}/{n}"), "x", 0, 0).retained().bytes(4)).await;
    }
    publisher.publish(4, &Publish::new("last", "x", 1, 1)).await;
    let filters: Vec<String> = (0..1_000).map(|n| format!("{}/a{n}/b", vec!["+"; 99].join("/"))).collect();
    let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (&**filter, 0)).collect();
    let mut searches = broker.connect(5, "searches").await;
    assert_eq!(searches.subscribe(5, &filters).await, vec![0; 1_000]);
    for _ in 0..5 {
        bystanders.are_served().await;
    }
    let start = tokio::time::Instant::now();
    broker.connect(5, "searches").await.expect_nothing().await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// Whoever only connects takes no place from somebody who has something to say, and ends nobody who was let in.
#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_keeps_nobody_out() {
    type Limit = fn(&mut nearside_broker::BrokerConfig);
    let limits: [Limit; 2] =
        [|config| config.max_connections = 40, |config| config.max_connections_per_address = Some(40)];
    for limit in limits {
        let broker = Setup::default().with(limit).start().await;
        let mut bystanders = Bystanders::new(&broker).await;
        let whole = Connect::new(5, "never").bytes();
        let made_way = "nearside_broker_connections_refused_total{reason=\"made_way\"}";
        let mut silent = Vec::new();
        for n in 0..200 {
            let mut client = broker.client().await;
            client.send(&whole[..n % whole.len()]).await;
            silent.push(client);
            // No more make way at a time than can be still ending.
            broker.wait_for(made_way, (n + 1).saturating_sub(38) as f64).await;
        }
        // As many as there are places are let in, each for one that waits.
        let mut let_in = Vec::new();
        for n in 0..38 {
            let_in.push(broker.connect(5, &format!("honest-{n}")).await);
        }
        bystanders.are_served().await;
        for client in &mut silent {
            client.expect_end().await;
        }
        for client in &mut let_in {
            client.expect_nothing().await;
        }
        assert_eq!(broker.metric("nearside_broker_connections{}"), 40.0);
        bystanders.are_served().await;
    }
}
