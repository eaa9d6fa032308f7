//! The router dies and is replaced while messages are on their way: every session gets each of its messages once.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nearside_schemas::{ClientId, QoS, SystemClock, Topic};
use nearside_telemetry::{Metric, Telemetry};
use tokio::time::timeout;

use super::*;
use crate::message::Message;
use crate::outgoing::{Common, DeliveryMetrics, SessionBounds};
use crate::packet::{self, Packet, Subscription, Version};
use crate::peer::PeerLimits;
use crate::queue::SharedBudget;

struct Bench {
    router: RouterHandle,
    telemetry: Telemetry,
    sessions: u64,
}

/// A session with what it got so far.
struct Subscriber(Arc<Session>, Vec<u32>);

impl Bench {
    fn new(replace_after: ReplaceAfter) -> Self {
        let telemetry = Telemetry::new();
        let router = start_with(replace_after, 64 << 20, &telemetry).unwrap();
        Self { router, telemetry, sessions: 0 }
    }

    async fn subscriber(&mut self, filters: &[&str]) -> Subscriber {
        self.sessions += 1;
        let budget = Arc::new(SharedBudget::new(usize::MAX, 0));
        let common = Arc::new(Common { metrics: DeliveryMetrics::new(&self.telemetry), budget });
        let bounds = SessionBounds { queue: 60_000, queue_bytes: usize::MAX, in_flight: 1 };
        let session = Arc::new(Session::new(self.sessions, ClientId::new("c"), false, bounds, common));
        session.attach(
            1,
            &PeerLimits { version: Version::V311, receive_maximum: 1, max_packet: u32::MAX, topic_alias_maximum: 0 },
            Arc::default(),
        );
        self.router.attach(session.clone()).await;
        for filter in filters {
            self.subscribe(&session, filter).await;
        }
        Subscriber(session, Vec::new())
    }

    async fn subscribe(&self, session: &Session, filter: &str) {
        let subscription = Subscription {
            filter: filter.to_owned(),
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            identifier: None,
        };
        session.subscribe(subscription, 10_000).unwrap();
        self.router.subscribe(session.number, filter.to_owned()).await;
    }

    fn publish(&self, topic: &str, n: u32) {
        let message = Message {
            topic: Topic::new(topic).unwrap(),
            payload: Bytes::copy_from_slice(&n.to_be_bytes()),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Bytes::new(),
            expires: None,
            at_once: false,
            identifiers: Vec::new(),
            publisher: None,
            group: None,
        };
        self.router.publish(Delivery { message, from: 0, is_compact: false });
    }

    async fn poison(&self) {
        self.router.send(Request::Poison).await;
    }

    fn restarts(&self) -> u64 {
        self.telemetry.counter(Metric::RouterRestarts, &[]).get()
    }
}

impl Subscriber {
    /// Reads until message `last` is there, and gives back all of them.
    async fn until(mut self, last: u32) -> Vec<u32> {
        let read = async {
            while self.1.last() != Some(&last) {
                self.read();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(60), read).await.unwrap_or_else(|_| panic!("{} messages came", self.1.len()));
        self.1
    }

    fn read(&mut self) {
        let mut out = Vec::new();
        self.0.write(1, &mut out, usize::MAX, &SystemClock, &mut Vec::new());
        let mut bytes = BytesMut::from(&out[..]);
        while let Ok(Some(frame)) = packet::frame(&mut bytes, usize::MAX) {
            let Ok(Packet::Publish(publish)) = packet::packet(frame, Version::V311) else { panic!("a PUBLISH") };
            self.1.push(u32::from_be_bytes(publish.payload[..].try_into().unwrap()));
        }
    }
}

const MANY: u32 = 12_000;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_misses_a_message_or_gets_one_twice_when_it_dies() {
    let mut bench = Bench::new(REPLACE_AFTER);
    let one = bench.subscriber(&["a/+"]).await;
    let several = bench.subscriber(&["a/#", "+/b", "#"]).await;
    for n in 0..MANY {
        bench.publish("a/b", n);
        if n % 1_500 == 700 {
            bench.poison().await;
        }
    }
    // Nothing comes after it but time.
    bench.poison().await;
    bench.publish("a/b", MANY);
    assert_eq!(one.until(MANY).await, (0..=MANY).collect::<Vec<_>>());
    let mut several = several.until(MANY).await;
    several.sort_unstable();
    assert_eq!(several, (0..=MANY).collect::<Vec<_>>());
    assert!(bench.restarts() >= 8, "{}", bench.restarts());
}

/// It dies with messages that nothing follows.
#[tokio::test(flavor = "multi_thread")]
async fn its_death_is_noticed_while_nothing_happens() {
    let mut bench = Bench::new(REPLACE_AFTER);
    let one = bench.subscriber(&["a"]).await;
    for n in 0..20 {
        bench.publish("a", n);
    }
    bench.poison().await;
    for n in 20..=40 {
        bench.publish("a", n);
    }
    assert_eq!(one.until(40).await, (0..=40).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_subscribes_later_does_not_get_what_came_before() {
    let mut bench = Bench::new(REPLACE_AFTER);
    let early = bench.subscriber(&["a"]).await;
    for round in 0..20 {
        bench.publish("a", round * 2);
        let late = bench.subscriber(&["a"]).await;
        bench.poison().await;
        bench.publish("a", round * 2 + 1);
        assert_eq!(late.until(round * 2 + 1).await, [round * 2 + 1]);
    }
    assert_eq!(early.until(39).await, (0..40).collect::<Vec<_>>());
}

/// It is replaced before what it never frees grows without end.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_replaced_past_a_bound_and_nobody_notices() {
    let mut bench = Bench::new(ReplaceAfter { topics: 500, ended: 20, dead_filters: 20 });
    let one = bench.subscriber(&["t/#"]).await;
    for n in 0..2_000 {
        bench.publish(&format!("t/{n}"), n);
    }
    for n in 2_000..2_050 {
        let other = bench.subscriber(&[&format!("other/{n}")]).await;
        bench.publish("t/x", n);
        if n % 2 == 0 {
            bench.router.detach(other.0.number).await;
        } else {
            bench.router.unsubscribe(other.0.number, format!("other/{n}")).await;
        }
    }
    bench.publish("t/end", 2_050);
    assert_eq!(one.until(2_050).await, (0..=2_050).collect::<Vec<_>>());
    assert!(bench.restarts() >= 5, "{}", bench.restarts());
}
