//! SUBSCRIBE, UNSUBSCRIBE, retained messages, groups, `$` topics.

use std::collections::HashSet;

use crate::support::*;

const BOTH: [u8; 2] = [4, 5];

fn short(publish: &Publish) -> (&str, &[u8], u8, bool) {
    (&publish.topic, &publish.payload, publish.qos, publish.retain)
}

/// [MQTT-3.8.4-8]: the lower of published and granted.
#[tokio::test(flavor = "multi_thread")]
async fn messages_come_at_the_lower_quality_of_service() {
    let broker = Broker::start().await;
    for version in BOTH {
        for persistent in [false, true] {
            let mut publisher = broker.connect(version, "p").await;
            for granted in 0..3 {
                let mut subscriber = broker.client().await;
                let connect = Connect::new(version, &format!("s{version}{persistent}{granted}"));
                subscriber.send(if persistent { connect.persistent(60) } else { connect }.bytes()).await;
                subscriber.receive().await;
                assert_eq!(subscriber.subscribe(version, &[("a/+", granted)]).await, [granted]);
                for published in 0..3 {
                    publisher.publish(version, &Publish::new("a/城", "x", published, 5)).await;
                    let got = subscriber.message(version).await;
                    assert_eq!(short(&got), ("a/城", &b"x"[..], published.min(granted), false));
                }
                subscriber.expect_nothing().await;
            }
        }
    }
}

/// [MQTT-3.8.4-3], [MQTT-3.10.4-1], [MQTT-3.11.3-2].
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_replaced_and_removed() {
    let broker = Broker::start().await;
    for version in BOTH {
        let mut client = broker.connect(version, "c").await;
        assert_eq!(client.subscribe(version, &[("a", 2), ("b", 1), ("a", 0)]).await, [2, 1, 0]);
        client.publish(version, &Publish::new("a", "1", 0, 0)).await;
        assert_eq!(client.message(version).await.qos, 0);
        client.send(unsubscribe(version, 7, &["a", "never"])).await;
        client.expect(if version == 5 { packet(0xB0, &[0, 7, 0, 0, 0x11]) } else { packet(0xB0, &[0, 7]) }).await;
        client.publish(version, &Publish::new("a", "2", 0, 0)).await;
        client.publish(version, &Publish::new("b", "3", 0, 0)).await;
        assert_eq!(client.message(version).await.payload, b"3");
    }
}

/// [MQTT-3.3.5-1]: once, at the highest, for sessions of either kind.
#[tokio::test(flavor = "multi_thread")]
async fn overlapping_filters_bring_a_message_once() {
    let broker = Broker::start().await;
    for version in BOTH {
        for connect in [Connect::new(version, "c"), Connect::new(version, &format!("d{version}")).persistent(60)] {
            let mut client = broker.client().await;
            client.send(connect.bytes()).await;
            client.receive().await;
            client.subscribe(version, &[("a/#", 1), ("a/+", 2), ("a/b", 0)]).await;
            let mut publisher = broker.connect(version, "p").await;
            for n in 0..50u8 {
                publisher.publish(version, &Publish::new("a/b", &n.to_string(), 2, 1)).await;
            }
            for n in 0..50u8 {
                let got = client.message(version).await;
                assert_eq!(short(&got), ("a/b", n.to_string().as_bytes(), 2, false));
            }
            client.expect_nothing().await;
        }
    }
}

/// [MQTT-4.7.2-1].
#[tokio::test(flavor = "multi_thread")]
async fn wildcards_do_not_match_dollar_topics() {
    let broker = Broker::start().await;
    let mut client = broker.connect(4, "c").await;
    client.subscribe(4, &[("#", 0), ("+/x", 0)]).await;
    client.publish(4, &Publish::new("$own/x", "hidden", 1, 1).retained()).await;
    client.publish(4, &Publish::new("a/x", "seen", 0, 0)).await;
    assert_eq!(client.message(4).await.payload, b"seen");
    client.subscribe(4, &[("$own/#", 0)]).await;
    assert_eq!(client.message(4).await.topic, "$own/x");
    client.publish(4, &Publish::new("$own/x", "named", 0, 0)).await;
    assert_eq!(client.message(4).await.payload, b"named");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_speaks_of_itself() {
    let broker = Broker::start().await;
    let mut client = broker.connect(5, "c").await;
    client.subscribe(5, &[("$SYS/broker/version", 0)]).await;
    let version = client.message(5).await;
    assert!(version.payload.starts_with(b"nearside "), "{version:?}");
    let figures = ["$SYS/broker/clients/connected", "$SYS/broker/uptime"];
    client.subscribe(5, &figures.map(|topic| (topic, 0))).await;
    // What it says may come anew at any time.
    let mut missing = HashSet::from(figures);
    while !missing.is_empty() {
        let figure = client.message(5).await;
        if missing.remove(figure.topic.as_str()) {
            assert!(std::str::from_utf8(&figure.payload).unwrap().parse::<u64>().is_ok(), "{figure:?}");
        }
    }
    // Nobody else does.
    client.send(Publish::new("$SYS/broker/version", "mine", 1, 3).bytes(5)).await;
    let refused = client.meanwhile(|packet| packet.kind() == 4).await;
    assert_eq!(refused.0, packet(PUBACK, &[0, 3, 0x87]));
    let mut old = broker.connect(4, "d").await;
    old.send(Publish::new("$SYS/broker/version", "mine", 1, 3).bytes(4)).await;
    old.expect_end().await;
}

/// Section 3.3.1.3.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_retained_message_is_kept() {
    let broker = Broker::start().await;
    for version in BOTH {
        let mut publisher = broker.connect(version, "p").await;
        let topic = format!("r{version}/x");
        publisher.publish(version, &Publish::new(&topic, "old", 1, 1).retained()).await;
        publisher.publish(version, &Publish::new(&topic, "new", 2, 1).retained()).await;
        publisher.publish(version, &Publish::new(&topic, "not retained", 1, 1)).await;
        let mut client = broker.connect(version, "c").await;
        client.subscribe(version, &[(&format!("r{version}/#"), 1)]).await;
        // [MQTT-3.3.1-6], [MQTT-3.3.1-8]: the last one, marked.
        assert_eq!(short(&client.message(version).await), (&*topic, &b"new"[..], 1, true));
        // [MQTT-3.3.1-9]: while subscribed, not marked.
        publisher.publish(version, &Publish::new(&topic, "live", 1, 1).retained()).await;
        assert_eq!(short(&client.message(version).await), (&*topic, &b"live"[..], 1, false));
        // [MQTT-3.3.1-10]: an empty one removes it, and is a message itself.
        publisher.publish(version, &Publish::new(&topic, "", 1, 1).retained()).await;
        assert_eq!(short(&client.message(version).await), (&*topic, &b""[..], 1, false));
        client.subscribe(version, &[(&format!("r{version}/#"), 1)]).await;
        client.expect_nothing().await;
    }
}

/// Section 3.8.3.1: retain handling, retain as published, no local.
#[tokio::test(flavor = "multi_thread")]
async fn v5_options_are_kept_to() {
    let broker = Broker::start().await;
    let mut publisher = broker.connect(5, "p").await;
    publisher.publish(5, &Publish::new("r", "kept", 1, 1).retained()).await;
    let mut client = broker.connect(5, "c").await;
    // Handling 2: none; 1: none where it is not new; 0: always.
    client.subscribe(5, &[("r", 0x20)]).await;
    client.subscribe(5, &[("r", 0x10)]).await;
    client.expect_nothing().await;
    client.subscribe(5, &[("r", 0x00)]).await;
    assert_eq!(client.message(5).await.payload, b"kept");
    client.send(unsubscribe(5, 1, &["r"])).await;
    client.receive().await;
    client.subscribe(5, &[("r", 0x10)]).await;
    assert_eq!(client.message(5).await.payload, b"kept");
    // As published.
    client.subscribe(5, &[("r", 0x28)]).await;
    publisher.publish(5, &Publish::new("r", "marked", 0, 0).retained()).await;
    publisher.publish(5, &Publish::new("r", "plain", 0, 0)).await;
    assert!(client.message(5).await.retain);
    assert!(!client.message(5).await.retain);
    // [MQTT-3.8.3-3]: not its own.
    client.subscribe(5, &[("n", 0x04), ("m", 0)]).await;
    client.publish(5, &Publish::new("n", "own", 0, 0)).await;
    client.publish(5, &Publish::new("m", "own", 0, 0)).await;
    publisher.publish(5, &Publish::new("n", "another's", 0, 0)).await;
    let mut got = [client.message(5).await, client.message(5).await];
    got.sort_by_key(|publish| publish.topic.clone());
    assert_eq!((short(&got[0]).1, short(&got[1]).1), (&b"own"[..], &b"another's"[..]));
}

/// [MQTT-3.8.3-3] speaks of the publisher's client id and of every application message: a retained one is one. Over a restart too.
#[tokio::test(flavor = "multi_thread")]
async fn no_local_holds_for_retained_messages() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Setup::stored_in(folder.path()).start().await;
    let mut own = broker.connect(5, "own").await;
    own.publish(5, &Publish::new("r/own", "mine", 1, 1).retained()).await;
    broker.connect(5, "another").await.publish(5, &Publish::new("r/another", "hers", 1, 1).retained()).await;
    // A will is a message of its client.
    let mut gone = broker.client().await;
    gone.send(Connect::new(5, "own-2").will("r/will", "gone", 1, true, &[]).bytes()).await;
    gone.receive().await;
    drop(gone);
    let mut watching = broker.connect(5, "watching").await;
    watching.subscribe(5, &[("r/will", 1)]).await;
    assert_eq!(watching.message(5).await.payload, b"gone");
    drop(watching);
    broker.stop().await;
    let broker = Setup::stored_in(folder.path()).start().await;
    for (id, missing) in [("own", Some("r/own")), ("own-2", Some("r/will")), ("fresh", None)] {
        let mut client = broker.connect(5, id).await;
        client.subscribe(5, &[("r/#", 0x04)]).await;
        let wanted: Vec<&str> =
            ["r/another", "r/own", "r/will"].into_iter().filter(|topic| Some(*topic) != missing).collect();
        let mut got = Vec::new();
        for _ in &wanted {
            got.push(client.message(5).await.topic);
        }
        got.sort();
        assert_eq!(got, wanted, "{id}");
        client.expect_nothing().await;
        // Without the option it gets its own.
        client.subscribe(5, &[("r/#", 0x00)]).await;
        for _ in 0..3 {
            client.message(5).await;
        }
    }
}

/// Section 3.3.4: all identifiers of the subscriptions that matched.
#[tokio::test(flavor = "multi_thread")]
async fn v5_identifiers_come_with_messages() {
    let broker = Broker::start().await;
    for connect in [Connect::new(5, "c"), Connect::new(5, "d").persistent(60)] {
        let mut client = broker.client().await;
        client.send(connect.bytes()).await;
        client.receive().await;
        client.send(subscribe(5, 1, &[0x0B, 7], &[("a/#", 0)])).await;
        client.receive().await;
        client.send(subscribe(5, 2, &[0x0B, 0x80, 0x02], &[("a/b", 0)])).await;
        client.receive().await;
        client.publish(5, &Publish::new("a/b", "x", 0, 0)).await;
        let properties = client.message(5).await.properties;
        let either = [vec![0x0B, 7, 0x0B, 0x80, 0x02], vec![0x0B, 0x80, 0x02, 0x0B, 7]];
        assert!(either.contains(&properties), "{properties:?}");
        client.publish(5, &Publish::new("a/c", "x", 0, 0)).await;
        assert_eq!(client.message(5).await.properties, [0x0B, 7]);
    }
}

/// Section 4.8.2.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_shares_messages() {
    let broker = Broker::start().await;
    for version in BOTH {
        let mut publisher = broker.connect(version, "p").await;
        publisher.publish(version, &Publish::new("jobs/0", "kept", 1, 1).retained()).await;
        let mut members = Vec::new();
        for n in 0..3 {
            let mut member = broker.connect(version, &format!("m{n}")).await;
            assert_eq!(member.subscribe(version, &[("$share/g/jobs/+", 1)]).await, [1]);
            members.push(member);
        }
        let mut alone = broker.connect(version, "alone").await;
        alone.subscribe(version, &[("$share/other/jobs/#", 0)]).await;
        for n in 0..30 {
            publisher.publish(version, &Publish::new("jobs/1", &n.to_string(), 1, 1)).await;
        }
        let mut seen = Vec::new();
        for member in &mut members {
            for _ in 0..10 {
                // No retained message comes first.
                seen.push(String::from_utf8(member.message(version).await.payload).unwrap().parse::<u32>().unwrap());
            }
            member.expect_nothing().await;
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..30).collect::<Vec<_>>());
        for n in 0..30 {
            assert_eq!(alone.message(version).await.payload, n.to_string().as_bytes());
        }
        // Who leaves gets no more.
        members.pop().unwrap().leave().await;
        for n in 0..4 {
            publisher.publish(version, &Publish::new("jobs/1", &n.to_string(), 1, 1)).await;
        }
        for member in &mut members {
            member.message(version).await;
            member.message(version).await;
        }
        publisher.publish(version, &Publish::new("jobs/0", "", 1, 1).retained()).await;
    }
}

/// Section 4.8.2: what a member did not acknowledge before its session ended goes to another, but not at QoS 2 [MQTT-4.8.2-5].
#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_leaves_goes_to_another() {
    let broker = Broker::start().await;
    for version in BOTH {
        let [group, own, topic] =
            ["$share/g/{}/+", "{}/own", "{}/job"].map(|text| text.replace("{}", &version.to_string()));
        let mut first = broker.connect(version, "first").await;
        // What its own subscription asked for too came twice, and only once by the group.
        first.subscribe(version, &[(&group, 2), (&own, 1)]).await;
        let mut publisher = broker.connect(version, "p").await;
        publisher.publish(version, &Publish::new(&topic, "done", 1, 1)).await;
        first.message(version).await;
        for (topic, payload, qos) in [(&topic, "a", 1), (&topic, "b", 2), (&topic, "c", 1), (&own, "d", 1)] {
            publisher.publish(version, &Publish::new(topic, payload, qos, 1)).await;
        }
        for _ in 0..5 {
            first.receive().await;
        }
        let mut second = broker.connect(version, "second").await;
        second.subscribe(version, &[(&group, 1)]).await;
        drop(first);
        for (topic, payload) in [(&topic, "a"), (&topic, "c"), (&own, "d")] {
            let got = second.message(version).await;
            assert_eq!(short(&got), (&**topic, payload.as_bytes(), 1, false));
            assert!(!got.dup);
        }
        second.expect_nothing().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_are_answered_and_the_connection_stays() {
    let setup = Setup::default().with(|config| {
        config.max_subscriptions = 2;
        config.max_topic_levels = 3;
        config.max_topic_bytes = 20;
    });
    let broker = setup.start().await;
    let long = "x".repeat(21);
    for (version, quota, form) in [(4, 0x80, 0x80), (5, 0x97, 0x8F)] {
        let mut client = broker.connect(version, "c").await;
        let codes =
            client.subscribe(version, &[("a/b/c/d", 0), (&long, 0), ("a", 0), ("b", 0), ("c", 0), ("a", 1)]).await;
        assert_eq!(codes, [form, form, 0, 0, quota, 1]);
        client.expect_nothing().await;
    }
    let mut client = broker.connect(5, "c").await;
    for (id, topic) in [(1, "a/b/c/d"), (2, &*long)] {
        client.send(Publish::new(topic, "x", 1, id).bytes(5)).await;
        client.expect(packet(PUBACK, &[0, id as u8, 0x90])).await;
    }
    client.publish(5, &Publish::new("a/b/c", "x", 1, 3)).await;
}
