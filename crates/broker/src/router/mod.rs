//! rumqttd as the router between subscribers, on a thread of its own behind a bounded queue.
//!
//! It is kept at arm's length. Its matcher panics on topics that are not ASCII and never matches `$` topics, so levels are
//! encoded on the way in and decoded on the way out, here and nowhere else. It forgets what a reader has not read once its log is
//! full, never frees topics, filters or connections, and it can die; so it can be replaced at any moment, and what it had not handed
//! over by then is handed over here.
//!
//! Promise: a message in the queue reaches every session that subscribed before it, once, whatever becomes of the router. For that the
//! last messages are kept until every link has given back what it was given; no more is given to the router than its logs hold.

mod encoding;
mod link;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flume::{Receiver, RecvTimeoutError, Sender, TrySendError};
use nearside_schemas::Topic;
use nearside_telemetry::{Counter, Metric, Telemetry};
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::{Router, RouterConfig};

use self::encoding::{encode_filter, encode_topic, unwrap, wrap};
use self::link::{Link, Progress};
use crate::filter::FilterTree;
use crate::message::Delivery;
use crate::session::Session;

/// A session in the router.
pub(crate) type SessionNumber = u64;

/// Messages that may wait for the router.
const QUEUE: usize = 65_536;
/// When the router is replaced, for it never frees what it once had.
const REPLACE_AFTER: ReplaceAfter = ReplaceAfter { topics: 100_000, ended: 100_000, dead_filters: 10_000 };
/// Messages, and bytes of them, that the router may hold before all links are waited for.
const WINDOW: usize = 1_024;
const WINDOW_BYTES: usize = 1 << 20;
/// Segments of a filter's log: more than a window fills.
const SEGMENT_BYTES: usize = 128 << 10;
const SEGMENTS: usize = 2 * WINDOW_BYTES / SEGMENT_BYTES;
/// How long the router may take to hand a window over, before it counts as dead.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked at while it holds something and nothing else happens.
const GLANCE: Duration = Duration::from_millis(50);
/// How long after a router that could not be started another one is tried.
const PAUSE: Duration = Duration::from_millis(200);

/// How much a router may gather.
#[derive(Clone, Copy)]
struct ReplaceAfter {
    topics: usize,
    /// Links.
    ended: usize,
    /// Filters that nobody has any more: each keeps a log.
    dead_filters: usize,
}

enum Request {
    Attach(Arc<Session>),
    Detach(SessionNumber),
    Subscribe(SessionNumber, String),
    Unsubscribe(SessionNumber, String),
    Publish(Delivery),
    /// A topic that kills rumqttd's thread.
    #[cfg(test)]
    Poison,
}

/// The way to the router's thread.
#[derive(Clone)]
pub(crate) struct RouterHandle {
    requests: Sender<Request>,
    /// Bytes of messages in the queue.
    waiting: Arc<AtomicUsize>,
    most_bytes: usize,
    dropped: Counter,
}

/// Starts the router's thread, for which messages of about `most_bytes` may wait. It ends when all handles are gone.
pub(crate) fn start(most_bytes: usize, telemetry: &Telemetry) -> std::io::Result<RouterHandle> {
    start_with(REPLACE_AFTER, most_bytes, telemetry)
}

fn start_with(replace_after: ReplaceAfter, most_bytes: usize, telemetry: &Telemetry) -> std::io::Result<RouterHandle> {
    let (requests, queue) = flume::bounded(QUEUE);
    let waiting = Arc::<AtomicUsize>::default();
    let thread = RouterThread {
        queue,
        waiting: waiting.clone(),
        replace_after,
        restarts: telemetry.counter(Metric::RouterRestarts, &[]),
        runtime: tokio::runtime::Handle::current(),
        wanted: HashMap::new(),
        window: Window::default(),
        published: 0,
    };
    std::thread::Builder::new().name("router".to_owned()).spawn(move || thread.run())?;
    let dropped = telemetry.counter(Metric::PublishesDropped, &["router_full"]);
    Ok(RouterHandle { requests, waiting, most_bytes, dropped })
}

impl RouterHandle {
    pub(crate) async fn attach(&self, session: Arc<Session>) {
        self.send(Request::Attach(session)).await;
    }

    pub(crate) async fn detach(&self, session: SessionNumber) {
        self.send(Request::Detach(session)).await;
    }

    pub(crate) async fn subscribe(&self, session: SessionNumber, filter: String) {
        self.send(Request::Subscribe(session, filter)).await;
    }

    pub(crate) async fn unsubscribe(&self, session: SessionNumber, filter: String) {
        self.send(Request::Unsubscribe(session, filter)).await;
    }

    /// Hands over a copy of a message. Never waits, for it is called from the journal's thread too: where the router is behind
    /// by more than its queue, the message is shed and counted.
    pub(crate) fn publish(&self, delivery: Delivery) {
        let size = delivery.message.size();
        if self.waiting.fetch_add(size, Ordering::Relaxed) > self.most_bytes {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            self.dropped.inc();
        } else if let Err(TrySendError::Full(_)) = self.requests.try_send(Request::Publish(delivery)) {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            self.dropped.inc();
        }
    }

    async fn send(&self, request: Request) {
        // The thread ends only when the gateway does.
        let _ = self.requests.send_async(request).await;
    }
}

/// What a session is to have of any router.
struct Wanted {
    session: Arc<Session>,
    /// With each filter the number of the last message before it was subscribed to.
    filters: HashMap<String, u64>,
}

/// The last messages, until all links have given them back.
#[derive(Default)]
struct Window {
    messages: VecDeque<(u64, Topic, Bytes)>,
    bytes: usize,
}

impl Window {
    fn push(&mut self, number: u64, topic: Topic, wrapped: Bytes) {
        self.bytes += wrapped.len() + topic.as_str().len();
        self.messages.push_back((number, topic, wrapped));
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= WINDOW || self.bytes >= WINDOW_BYTES
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }
}

struct RouterThread {
    queue: Receiver<Request>,
    waiting: Arc<AtomicUsize>,
    replace_after: ReplaceAfter,
    restarts: Counter,
    runtime: tokio::runtime::Handle,
    wanted: HashMap<SessionNumber, Wanted>,
    window: Window,
    /// Numbers the messages: a link gets one once for each of its filters, and must know it again.
    published: u64,
}

/// Whose messages a filter's are.
struct Target(SessionNumber, Arc<Progress>);

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

/// The router that is running.
struct Running<F> {
    link: F,
    publisher: LinkTx,
    links: HashMap<SessionNumber, Link>,
    /// What it will hand over: its filters as it has them.
    targets: FilterTree<Target>,
    topics: HashSet<u64>,
    filters: HashMap<String, usize>,
    dead_filters: usize,
    ended: usize,
}

/// Why a router is not used any further.
enum End {
    /// The front door is gone.
    Stop,
    /// It is dead, or holds too much.
    Replace,
    /// It did not start.
    Retry,
}

impl RouterThread {
    fn run(mut self) {
        loop {
            let end = catch_unwind(AssertUnwindSafe(|| self.with_a_router())).unwrap_or_else(|_| {
                tracing::error!("a panic in the message router's thread was caught");
                End::Retry
            });
            match end {
                End::Stop => return,
                End::Replace => {}
                End::Retry if self.queue.is_disconnected() => return,
                End::Retry => std::thread::sleep(PAUSE),
            }
            self.restarts.inc();
        }
    }

    fn with_a_router(&mut self) -> End {
        // Its event type cannot be named, so everything that holds a sender of it lives in this scope.
        let sender = Router::new(0, router_config()).spawn();
        let link = |id: &str| LinkBuilder::new(id, sender.clone()).clean_session(true).build().ok();
        let Some((publisher, _receiver, _)) = link("publisher") else {
            tracing::error!("the message router did not start");
            return End::Retry;
        };
        let mut running = Running::new(|id: &str| link(id).map(|(tx, rx, _)| (tx, rx)), publisher);
        for wanted in self.wanted.values() {
            if !running.attach(&wanted.session, &self.runtime) {
                return End::Retry;
            }
            for filter in wanted.filters.keys() {
                running.subscribe(wanted.session.number, filter);
            }
        }
        if !wait_for(|| running.all_through()) {
            return End::Retry;
        }
        self.hand_over();
        self.serve(&mut running)
    }

    /// Hands over what the last router held; the sessions know what they have already.
    fn hand_over(&mut self) {
        if self.window.messages.is_empty() {
            return;
        }
        let mut subscribed = FilterTree::default();
        for wanted in self.wanted.values() {
            for (filter, since) in &wanted.filters {
                subscribed.insert(&encode_filter(filter), (wanted.session.number, *since));
            }
        }
        for (number, topic, wrapped) in &self.window.messages {
            let Some((delivery, _)) = unwrap(topic.clone(), wrapped) else { continue };
            subscribed.for_each_match(&encode_topic(topic.as_str()), |(session, since)| {
                if let Some(wanted) = self.wanted.get(session).filter(|_| since < number) {
                    wanted.session.offer_routed(&delivery, *number);
                }
            });
        }
        self.window.clear();
    }

    fn serve<F: Fn(&str) -> Option<(LinkTx, LinkRx)>>(&mut self, running: &mut Running<F>) -> End {
        loop {
            let request = if self.window.messages.is_empty() {
                self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.queue.recv_timeout(GLANCE)
            };
            let alive = match request {
                Ok(request) => self.take(request, running),
                Err(RecvTimeoutError::Timeout) => self.settle(running),
                Err(RecvTimeoutError::Disconnected) => return End::Stop,
            };
            if !alive || running.holds_more_than(self.replace_after) {
                return End::Replace;
            }
        }
    }

    /// Does what is asked. False where the router is dead.
    fn take<F: Fn(&str) -> Option<(LinkTx, LinkRx)>>(&mut self, request: Request, running: &mut Running<F>) -> bool {
        match request {
            Request::Attach(session) => {
                self.wanted.insert(session.number, Wanted { session: session.clone(), filters: HashMap::new() });
                running.attach(&session, &self.runtime)
            }
            Request::Detach(number) => {
                let filters = self.wanted.remove(&number).map(|wanted| wanted.filters).unwrap_or_default();
                running.detach(number, filters.keys())
            }
            Request::Subscribe(number, filter) => {
                let Some(wanted) = self.wanted.get_mut(&number) else { return true };
                let newly = running.subscribe(number, &filter);
                wanted.filters.insert(filter, self.published);
                // A publish that overtook it in the router would not be seen by the new subscription, so all wait.
                newly && wait_for(|| running.is_through(number))
            }
            Request::Unsubscribe(number, filter) => {
                let Some(wanted) = self.wanted.get_mut(&number) else { return true };
                wanted.filters.remove(&filter);
                // What was published before is still to come.
                wait_for(|| running.is_through(number))
                    && running.unsubscribe(number, &filter)
                    && wait_for(|| running.is_through(number))
            }
            Request::Publish(delivery) => {
                self.waiting.fetch_sub(delivery.message.size(), Ordering::Relaxed);
                self.published += 1;
                let wrapped = wrap(&delivery, self.published);
                self.window.push(self.published, delivery.message.topic.clone(), wrapped.clone());
                running.publish(&delivery.message.topic, wrapped) && (!self.window.is_full() || self.settle(running))
            }
            #[cfg(test)]
            Request::Poison => running.publisher.publish("城市/交通", "").is_ok(),
        }
    }

    /// Waits until the router has handed over what it was given. False where it does not.
    fn settle<F: Fn(&str) -> Option<(LinkTx, LinkRx)>>(&mut self, running: &Running<F>) -> bool {
        let through = wait_for(|| running.all_through());
        if through {
            self.window.clear();
        }
        through
    }
}

/// What a look at a link showed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    Through,
    NotYet,
    Never,
}

impl Waited {
    fn of(link: &Link) -> Self {
        match (link.is_through(), link.is_dead()) {
            (true, _) => Self::Through,
            (false, true) => Self::Never,
            (false, false) => Self::NotYet,
        }
    }
}

/// Looks until what is waited for is there. False where it will not be.
fn wait_for(look: impl Fn() -> Waited) -> bool {
    let start = Instant::now();
    loop {
        match look() {
            Waited::Through => return true,
            Waited::Never => return false,
            Waited::NotYet if start.elapsed() > PATIENCE => return false,
            Waited::NotYet => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}

impl<F: Fn(&str) -> Option<(LinkTx, LinkRx)>> Running<F> {
    fn new(link: F, publisher: LinkTx) -> Self {
        Self {
            link,
            publisher,
            links: HashMap::new(),
            targets: FilterTree::default(),
            topics: HashSet::new(),
            filters: HashMap::new(),
            dead_filters: 0,
            ended: 0,
        }
    }

    fn attach(&mut self, session: &Arc<Session>, runtime: &tokio::runtime::Handle) -> bool {
        let Some(ends) = (self.link)(&format!("s{}", session.number)) else { return false };
        self.links.insert(session.number, Link::start(ends, session.clone(), runtime));
        true
    }

    fn detach<'f>(&mut self, number: SessionNumber, filters: impl Iterator<Item = &'f String>) -> bool {
        let Some(link) = self.links.remove(&number) else { return true };
        for filter in filters {
            self.forget(number, filter, link.progress.clone());
        }
        self.ended += 1;
        link.end()
    }

    fn subscribe(&mut self, number: SessionNumber, filter: &str) -> bool {
        let Some(link) = self.links.get_mut(&number) else { return true };
        let encoded = encode_filter(filter);
        self.targets.insert(&encoded, Target(number, link.progress.clone()));
        let users = self.filters.entry(encoded).or_insert_with(|| {
            // It counts as dead until the next line.
            self.dead_filters += 1;
            0
        });
        self.dead_filters -= usize::from(*users == 0);
        *users += 1;
        link.subscribe(filter)
    }

    fn unsubscribe(&mut self, number: SessionNumber, filter: &str) -> bool {
        let Some(link) = self.links.get_mut(&number) else { return true };
        let (alive, progress) = (link.unsubscribe(filter), link.progress.clone());
        self.forget(number, filter, progress);
        alive
    }

    fn forget(&mut self, number: SessionNumber, filter: &str, progress: Arc<Progress>) {
        let encoded = encode_filter(filter);
        if let Some(users) = self.filters.get_mut(&encoded) {
            *users -= 1;
            self.dead_filters += usize::from(*users == 0);
        }
        self.targets.remove(&encoded, &Target(number, progress));
    }

    fn publish(&mut self, topic: &Topic, wrapped: Bytes) -> bool {
        let encoded = encode_topic(topic.as_str());
        self.targets.for_each_match(&encoded, |target| target.1.expect_message());
        self.topics.insert(hash(topic));
        self.publisher.publish(encoded, wrapped).is_ok()
    }

    fn is_through(&self, number: SessionNumber) -> Waited {
        self.links.get(&number).map_or(Waited::Through, Waited::of)
    }

    fn all_through(&self) -> Waited {
        self.links.values().map(Waited::of).find(|link| *link != Waited::Through).unwrap_or(Waited::Through)
    }

    fn holds_more_than(&self, bounds: ReplaceAfter) -> bool {
        self.topics.len() > bounds.topics || self.ended > bounds.ended || self.dead_filters > bounds.dead_filters
    }
}

fn router_config() -> RouterConfig {
    RouterConfig {
        max_connections: 2 * REPLACE_AFTER.ended,
        max_outgoing_packet_count: 1_024,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        custom_segment: None,
        initialized_filters: None,
        shared_subscriptions_strategy: rumqttd::Strategy::RoundRobin,
    }
}

fn hash(topic: &Topic) -> u64 {
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    hasher.finish()
}
