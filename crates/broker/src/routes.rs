//! Who gets a message.
//!
//! Sessions that outlive their connection, and groups, are served here and at once: their messages must be on disk before the
//! publisher is told that his is safe (promise I1), so who gets them must be known in the call that routes. So are the first of the
//! sessions that end with their connection, for each thread between publisher and subscriber costs both of them time. Those
//! beyond are the message router's, so that a crowd's messages are not one connection's work. A session stays on the way on
//! which it was first served, so that its messages keep their order.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nearside_telemetry::{Gauge, Metric, Telemetry};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::filter::{self, FilterTree};
use crate::message::{Delivery, Message};
use crate::packet::Subscription;
use crate::router::{RouterHandle, SessionNumber};
use crate::session::Session;
use crate::share::Group;
use crate::store::Change;

#[derive(Clone)]
enum Subscriber {
    /// With the filter of the subscription.
    Session(Arc<Session>, Arc<str>),
    Group(Arc<Group>),
}

impl Subscriber {
    fn number(&self) -> SessionNumber {
        match self {
            Self::Session(session, _) => session.number,
            Self::Group(group) => group.number,
        }
    }
}

impl Subscriber {
    fn filter(&self) -> Option<&str> {
        match self {
            Self::Session(_, filter) => Some(filter),
            Self::Group(_) => None,
        }
    }
}

impl PartialEq for Subscriber {
    fn eq(&self, other: &Self) -> bool {
        self.number() == other.number()
    }
}

/// What a message came to.
#[derive(Clone, Copy, Default)]
pub(crate) struct Routed {
    /// Whether anybody subscribed to it.
    pub(crate) is_heard: bool,
    /// How much work that was, in that of taking a small packet.
    pub(crate) work: usize,
}

/// Nodes of the tree that are looked at, and subscribers that are found, in the time that a small packet takes.
const LOOKS_PER_PACKET: usize = 16;
const FOUND_PER_PACKET: usize = 32;

/// All subscriptions.
pub(crate) struct Routes {
    router: RouterHandle,
    routed: RwLock<FilterTree<SessionNumber>>,
    direct: RwLock<FilterTree<Subscriber>>,
    /// How many sessions that end with their connection are served directly, and how many may be.
    straight: AtomicUsize,
    most_straight: usize,
    groups: Mutex<HashMap<String, Arc<Group>>>,
    /// What all of them take in memory, about, and may take.
    bytes: AtomicUsize,
    most_bytes: usize,
    subscriptions: Gauge,
}

/// What a subscription takes in memory, about: its filter stands in several places.
const fn size(filter: &str) -> usize {
    512 + 4 * filter.len()
}

impl Routes {
    pub(crate) fn new(router: RouterHandle, most_straight: usize, most_bytes: usize, telemetry: &Telemetry) -> Self {
        Self {
            router,
            routed: RwLock::default(),
            direct: RwLock::default(),
            straight: AtomicUsize::new(0),
            most_straight,
            groups: Mutex::default(),
            bytes: AtomicUsize::new(0),
            most_bytes,
            subscriptions: telemetry.gauge(Metric::Subscriptions, &[]),
        }
    }

    /// Whether nobody subscribed to anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.routed.read().is_empty() && self.direct.read().is_empty()
    }

    /// Whether some message may have to be stored for somebody.
    pub(crate) fn has_direct(&self) -> bool {
        !self.direct.read().is_empty()
    }

    /// Whether there is room for one more subscription of all clients.
    pub(crate) fn has_room_for(&self, filter: &str) -> bool {
        self.bytes.load(Ordering::Acquire) + size(filter) <= self.most_bytes
    }

    /// The session ends: forgets its subscriptions.
    pub(crate) async fn detach(&self, session: &Arc<Session>) {
        for filter in session.filters() {
            self.unsubscribe(session, &filter).await;
        }
        if session.straight.swap(false, Ordering::AcqRel) {
            self.straight.fetch_sub(1, Ordering::AcqRel);
        }
        if session.linked.load(Ordering::Acquire) {
            self.router.detach(session.number).await;
        }
    }

    /// Whether the session is served here. Decided when it first subscribes.
    fn serves(&self, session: &Session) -> bool {
        if session.durable || session.straight.load(Ordering::Acquire) {
            return true;
        }
        if session.linked.load(Ordering::Acquire) {
            return false;
        }
        let one_more = |count| (count < self.most_straight).then_some(count + 1);
        let straight = self.straight.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok();
        session.straight.store(straight, Ordering::Release);
        straight
    }

    /// Adds a subscription that the session already holds. `new` where the session did not have the filter before; `number` is
    /// for a group that is not there yet.
    pub(crate) async fn subscribe(
        &self,
        session: &Arc<Session>,
        subscription: &Subscription,
        new: bool,
        number: impl FnOnce() -> SessionNumber,
    ) {
        if let Some((_, filter)) = filter::share(&subscription.filter) {
            let mut groups = self.groups.lock();
            let group = groups.entry(subscription.filter.clone()).or_insert_with(|| {
                let group = Arc::new(Group::new(number(), &subscription.filter));
                self.direct.write().insert(filter, Subscriber::Group(group.clone()));
                group
            });
            group.join(session, subscription.clone());
        } else if new && self.serves(session) {
            let subscriber = Subscriber::Session(session.clone(), subscription.filter.as_str().into());
            self.direct.write().insert(&subscription.filter, subscriber);
        } else if new {
            // Most devices never subscribe, and a link is not small.
            if !session.linked.swap(true, Ordering::AcqRel) {
                self.router.attach(session.clone()).await;
            }
            self.routed.write().insert(&subscription.filter, session.number);
            self.router.subscribe(session.number, subscription.filter.clone()).await;
        }
        if new {
            self.bytes.fetch_add(size(&subscription.filter), Ordering::AcqRel);
            self.subscriptions.inc();
        }
    }

    /// Removes a subscription that the session held.
    pub(crate) async fn unsubscribe(&self, session: &Arc<Session>, filter: &str) {
        if let Some((_, inner)) = filter::share(filter) {
            let mut groups = self.groups.lock();
            if let Some(group) = groups.get(filter).filter(|group| group.leave(session.number)).cloned() {
                groups.remove(filter);
                self.direct.write().remove(inner, &Subscriber::Group(group));
            }
        } else if self.serves(session) {
            self.direct.write().remove(filter, &Subscriber::Session(session.clone(), filter.into()));
        } else {
            self.routed.write().remove(filter, &session.number);
            self.router.unsubscribe(session.number, filter.to_owned()).await;
        }
        self.bytes.fetch_sub(size(filter), Ordering::AcqRel);
        self.subscriptions.dec();
    }

    /// Hands a message to a group, where somebody is still in it.
    pub(crate) fn offer_to_group(&self, filter: &str, message: Message, changes: &mut Vec<Change>) {
        let group = self.groups.lock().get(filter).cloned();
        if let Some(group) = group {
            group.offer(&Delivery { message, from: 0, is_compact: false }, changes);
        }
    }

    /// Hands a message to whoever subscribed; what must be stored for it is added to `changes`.
    pub(crate) fn route(&self, delivery: &Delivery, changes: &mut Vec<Change>) -> Routed {
        let topic = delivery.message.topic.as_str();
        let routed = self.routed.read().matches_any(topic);
        if routed {
            self.router.publish(delivery.clone());
        }
        let mut found: SmallVec<[Subscriber; 2]> = SmallVec::new();
        let looks = self.direct.read().for_each_match(topic, |subscriber| found.push(subscriber.clone()));
        let work = looks / LOOKS_PER_PACKET + found.len() / FOUND_PER_PACKET;
        if found.is_empty() {
            return Routed { is_heard: routed, work };
        }
        // A session with overlapping filters gets the message once.
        found.sort_by_key(Subscriber::number);
        let detached;
        let delivery = if delivery.is_compact {
            delivery
        } else {
            detached = Delivery { message: delivery.message.detached(), from: delivery.from, is_compact: true };
            &detached
        };
        for matches in found.chunk_by(Subscriber::eq) {
            match &matches[0] {
                Subscriber::Session(session, _) => {
                    session.offer_matched(matches.iter().filter_map(Subscriber::filter), delivery, changes);
                }
                Subscriber::Group(group) => group.offer(delivery, changes),
            }
        }
        Routed { is_heard: true, work }
    }
}
