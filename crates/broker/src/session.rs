//! A session: what one connected client subscribed to, and the messages on their way to it.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use nearside_schemas::{PacketId, QoS, Topic};
use nearside_telemetry::{Counter, Metric, Telemetry};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::filter;
use crate::packet::{Subscription, Version, publish};
use crate::router::SessionNumber;

/// A message for a subscriber, as it was published.
pub(crate) struct Delivery {
    pub(crate) topic: Topic,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) from: SessionNumber,
}

struct Queued {
    topic: Topic,
    payload: Bytes,
    qos: QoS,
    retain: bool,
}

#[derive(Default)]
struct Outgoing {
    queue: VecDeque<Queued>,
    in_flight: HashMap<PacketId, ()>,
    last_id: u16,
}

/// One client's session. It lives as long as its connection.
pub(crate) struct Session {
    pub(crate) number: SessionNumber,
    pub(crate) version: Version,
    most_queued: usize,
    receive_maximum: usize,
    max_packet: usize,
    subscriptions: Mutex<HashMap<String, Subscription>>,
    outgoing: Mutex<Outgoing>,
    /// Told when there is something to write.
    pub(crate) ready: Notify,
    delivered: Counter,
    shed: Counter,
    too_large: Counter,
}

impl Session {
    pub(crate) fn new(
        number: SessionNumber,
        version: Version,
        most_queued: usize,
        receive_maximum: u16,
        max_packet: u32,
        telemetry: &Telemetry,
    ) -> Self {
        Self {
            number,
            version,
            most_queued,
            receive_maximum: usize::from(receive_maximum),
            max_packet: max_packet as usize,
            subscriptions: Mutex::default(),
            outgoing: Mutex::default(),
            ready: Notify::new(),
            delivered: telemetry.counter(Metric::PublishesDelivered, &[]),
            shed: telemetry.counter(Metric::PublishesDropped, &["slow_subscriber"]),
            too_large: telemetry.counter(Metric::PublishesDropped, &["too_large"]),
        }
    }

    /// Adds or replaces a subscription. Gives back whether it is new; `None` where there are as many as there may be.
    pub(crate) fn subscribe(&self, subscription: Subscription, most: usize) -> Option<bool> {
        let mut subscriptions = self.subscriptions.lock();
        let known = subscriptions.contains_key(&subscription.filter);
        if !known && subscriptions.len() >= most {
            return None;
        }
        subscriptions.insert(subscription.filter.clone(), subscription);
        Some(!known)
    }

    pub(crate) fn unsubscribe(&self, filter: &str) -> bool {
        self.subscriptions.lock().remove(filter).is_some()
    }

    pub(crate) fn filters(&self) -> Vec<String> {
        self.subscriptions.lock().keys().cloned().collect()
    }

    /// Takes a message from the router: kept where a subscription of this session wants it, at the lower of the published and
    /// granted quality of service (section 3.8.4). Where several want it, it goes out once, at the highest.
    pub(crate) fn offer(&self, delivery: Delivery) {
        let mut granted = None;
        let mut as_published = false;
        for subscription in self.subscriptions.lock().values() {
            let own = subscription.no_local && delivery.from == self.number;
            if !own && filter::matches(&subscription.filter, delivery.topic.as_str()) {
                granted = granted.max(Some(subscription.qos));
                as_published |= subscription.retain_as_published;
            }
        }
        let Some(granted) = granted else { return };
        let Delivery { topic, payload, qos, retain, .. } = delivery;
        self.push(Queued { topic, payload, qos: qos.min(granted), retain: retain && as_published });
    }

    /// Queues a retained message for a new subscription.
    pub(crate) fn offer_retained(&self, topic: Topic, payload: Bytes, qos: QoS) {
        self.push(Queued { topic, payload, qos, retain: true });
    }

    fn push(&self, queued: Queued) {
        let mut outgoing = self.outgoing.lock();
        if outgoing.queue.len() >= self.most_queued {
            outgoing.queue.pop_front();
            self.shed.inc();
        }
        outgoing.queue.push_back(queued);
        drop(outgoing);
        self.ready.notify_one();
    }

    /// A QoS 1 message has arrived.
    pub(crate) fn acknowledged(&self, packet_id: PacketId) {
        self.outgoing.lock().in_flight.remove(&packet_id);
        self.ready.notify_one();
    }

    /// Writes what may go out, about `most_bytes` at a time.
    pub(crate) fn write(&self, out: &mut Vec<u8>, most_bytes: usize) {
        let mut outgoing = self.outgoing.lock();
        while out.len() < most_bytes {
            let Some(next) = outgoing.queue.front() else { return };
            let mut packet_id = None;
            if next.qos > QoS::AtMostOnce {
                if outgoing.in_flight.len() >= self.receive_maximum {
                    return;
                }
                packet_id = outgoing.free_id();
                if packet_id.is_none() {
                    return;
                }
            }
            let Some(next) = outgoing.queue.pop_front() else { return };
            let size = 12 + next.topic.as_str().len() + next.payload.len();
            if size > self.max_packet {
                // Section 3.1.2.11.4: as if it had been sent.
                self.too_large.inc();
                continue;
            }
            if let Some(id) = packet_id {
                outgoing.in_flight.insert(id, ());
            }
            publish(out, self.version, next.topic.as_str(), &next.payload, next.qos, packet_id, next.retain);
            self.delivered.inc();
        }
        // There is more: come again once this is written.
        if !outgoing.queue.is_empty() {
            self.ready.notify_one();
        }
    }
}

impl Outgoing {
    fn free_id(&mut self) -> Option<PacketId> {
        for _ in 0..u16::MAX {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = PacketId::new(self.last_id)?;
            if !self.in_flight.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }
}
