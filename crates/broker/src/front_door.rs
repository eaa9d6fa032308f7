//! The listener, what all connections share, and the way for the gateway itself to publish.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nearside_schemas::{ClientId, Clock, Intake, QoS, Topic};
use nearside_telemetry::{Counter, Gauge, Metric, Telemetry};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::access::{Access, Credentials, Holder, Principal};
use crate::config::{BrokerConfig, BrokerError};
use crate::message::{Delivery, Message};
use crate::outgoing::{Common, DeliveryMetrics, SessionBounds};
use crate::packet::{Carried, Reason};
use crate::queue::SharedBudget;
use crate::recovery::Recovery;
use crate::refusals::RefusalLog;
use crate::retained::{Retained, RetainedBounds, Room};
use crate::router;
use crate::routes::{Routed, Routes};
use crate::session::Session;
use crate::sessions::Sessions;
use crate::store::{Change, Disk, Saved, SessionStore, Storage, StoreHandle};
use crate::threads::Threads;
use crate::tls::Tls;
use crate::waiting::{Patience, Waiting};
use crate::{handshake, system_topics, transport};

/// How many connections above the limit are told why they are refused; further ones are just closed.
const TOLD: usize = 64;
/// How many connections that have made way may still be ending.
const ENDING: usize = 64;
/// Connections that the system takes before they are accepted here, if it takes so many. Past that a client has to wait for a second and try again,
/// and after a power cut all devices of a site come at once.
const BACKLOG: u32 = 4_096;
/// How often the files that the broker reads are looked at.
const RELOAD: Duration = Duration::from_secs(2);

/// What a front door is given beside its configuration.
pub struct Ports {
    /// Who takes messages in.
    pub intake: Arc<dyn Intake>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where sessions and retained messages are kept.
    pub store: SessionStore,
    /// What the journal says of messages that clients sent before the last crash.
    pub recovery: Recovery,
    /// Where relative paths of the configuration begin.
    pub base: PathBuf,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: BrokerConfig,
    pub(crate) intake: Arc<dyn Intake>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) access: Arc<Access>,
    tls: Option<Arc<Tls>>,
    pub(crate) routes: Routes,
    pub(crate) retained: Retained,
    pub(crate) sessions: Sessions,
    pub(crate) store: StoreHandle,
    pub(crate) recovery: Recovery,
    /// The intake's last answer was a refusal.
    pub(crate) refusing: AtomicBool,
    pub(crate) refusals: RefusalLog,
    pub(crate) open: AtomicUsize,
    pub(crate) addresses: Mutex<HashMap<IpAddr, usize>>,
    waiting: Arc<Waiting>,
    told: Arc<Semaphore>,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) telemetry: Telemetry,
    pub(crate) metrics: Metrics,
    pub(crate) for_sessions: Arc<Common>,
}

pub(crate) struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) session_bytes: Gauge,
    pub(crate) bytes: Counter,
    pub(crate) publishes: [Counter; 3],
    pub(crate) acknowledged: Counter,
    pub(crate) not_retained: Counter,
    pub(crate) throttled: Counter,
    pub(crate) refused: RefusedMetrics,
}

/// What clients were refused while their connection stayed.
pub(crate) struct RefusedMetrics {
    pub(crate) publish: Counter,
    pub(crate) subscribe: Counter,
    pub(crate) will: Counter,
}

impl Metrics {
    fn new(telemetry: &Telemetry) -> Self {
        let publishes = |qos| telemetry.counter(Metric::PublishesReceived, &[qos]);
        let refused = |what| telemetry.counter(Metric::AccessDenied, &[what]);
        Self {
            connections: telemetry.gauge(Metric::Connections, &[]),
            session_bytes: telemetry.gauge(Metric::SessionBytes, &[]),
            bytes: telemetry.counter(Metric::BytesReceived, &[]),
            publishes: [publishes("0"), publishes("1"), publishes("2")],
            acknowledged: telemetry.counter(Metric::PublishesAcknowledged, &[]),
            not_retained: telemetry.counter(Metric::PublishesDropped, &["retained_full"]),
            throttled: telemetry.counter(Metric::ConnectionsThrottled, &[]),
            refused: RefusedMetrics {
                publish: refused("publish"),
                subscribe: refused("subscribe"),
                will: refused("will"),
            },
        }
    }
}

impl Shared {
    /// Hands a message to whoever subscribed, and keeps it where it is retained. What must be stored for it is added to
    /// `changes`.
    pub(crate) fn route(&self, delivery: &Delivery, changes: &mut Vec<Change>) -> Routed {
        if delivery.message.retain {
            match self.retained.keep(&delivery.message) {
                Some(change) => changes.extend(change),
                None => self.say_not_retained(&delivery.message),
            }
        }
        self.routes.route(delivery, changes)
    }

    fn say_not_retained(&self, message: &Message) {
        self.metrics.not_retained.inc();
        let holder = message.publisher.as_ref().and_then(|publisher| publisher.holder.as_ref());
        let (address, user) = match holder {
            Some(Holder::Address(address)) => (Some(*address), None),
            Some(Holder::User(user)) => (None, Some(&**user)),
            None => (None, None),
        };
        let why = "a message was not retained: there is no room (max_retained, max_retained_bytes), or its user has its share of it";
        self.refusals.say(address, self.access.known(user).as_deref(), why);
    }

    /// Whether the certificate that somebody was let in by, if it was by one, would be taken now.
    pub(crate) fn trusts(&self, principal: &Principal) -> bool {
        let (Some(shown), Some(tls)) = (&principal.certificate, &self.tls) else { return true };
        tls.trusts(shown)
    }

    /// Counts a connection that was refused.
    pub(crate) fn refuse(&self, reason: Reason) {
        self.telemetry.counter(Metric::ConnectionsRefused, &[reason.label()]).inc();
    }

    pub(crate) fn new_session(&self, number: u64, client: ClientId, durable: bool) -> Arc<Session> {
        let bounds = SessionBounds {
            queue: self.config.session_queue,
            queue_bytes: self.config.session_queue_bytes.bytes() as usize,
            in_flight: usize::from(self.config.inflight),
        };
        Arc::new(Session::new(number, client, durable, bounds, self.for_sessions.clone()))
    }
}

/// The MQTT server.
pub struct FrontDoor {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// Connections end with it.
    _threads: Arc<Threads>,
}

impl FrontDoor {
    /// Opens the port; sessions and retained messages end with the process.
    ///
    /// # Errors
    /// Where the configuration makes no sense or the port cannot be opened.
    pub async fn bind(
        config: BrokerConfig,
        intake: Arc<dyn Intake>,
        clock: Arc<dyn Clock>,
        telemetry: &Telemetry,
    ) -> Result<Self, BrokerError> {
        let ports =
            Ports { intake, clock, store: SessionStore::Memory, recovery: Recovery::none(), base: PathBuf::new() };
        Self::open(config, ports, telemetry).await
    }

    /// Puts back what was stored and opens the port.
    ///
    /// # Errors
    /// Where the configuration makes no sense, a file cannot be used or the port cannot be opened.
    pub async fn open(config: BrokerConfig, ports: Ports, telemetry: &Telemetry) -> Result<Self, BrokerError> {
        config.validate()?;
        let users = config.users.as_ref().map(|path| ports.base.join(path));
        let access = Arc::new(Access::new(config.anonymous, users)?);
        let tls = config.tls.as_ref().map(|tls| Tls::load(tls, &ports.base)).transpose()?.map(Arc::new);
        let (listener, address) = listen(config.listen)?;
        let beside = match config.tls.as_ref().and_then(|tls| tls.listen) {
            Some(address) => Some(listen(address)?),
            None => None,
        };
        let router_bytes = config.router_queue_bytes.bytes() as usize;
        let router = router::start(router_bytes, telemetry).map_err(BrokerError::Thread)?;
        let share = config.session_share.bytes() as usize;
        let budget = Arc::new(SharedBudget::new(config.sessions_bytes.bytes() as usize, share));
        let (store, saved) = open_store(ports.store, telemetry)?;
        let (stop, stopping) = watch::channel(false);
        let (straight, most) = (config.straight_subscribers, config.subscriptions_bytes.bytes() as usize);
        let shared = Arc::new(Shared {
            retained: Retained::new(retained_bounds(&config), saved.retained),
            config,
            intake: ports.intake,
            clock: ports.clock,
            access,
            tls: tls.clone(),
            routes: Routes::new(router, straight, most, telemetry),
            sessions: Sessions::new(telemetry),
            store,
            recovery: ports.recovery,
            refusing: AtomicBool::new(false),
            refusals: RefusalLog::default(),
            open: AtomicUsize::new(0),
            addresses: Mutex::default(),
            waiting: Arc::default(),
            told: Arc::new(Semaphore::new(TOLD)),
            stopping,
            telemetry: telemetry.clone(),
            metrics: Metrics::new(telemetry),
            for_sessions: Arc::new(Common { metrics: DeliveryMetrics::new(telemetry), budget }),
        });
        Sessions::restore(&shared, saved.sessions).await;
        shared.recovery.begin(&shared);
        let every = shared.config.system_interval.get();
        let threads = Arc::new(Threads::start(shared.config.threads).map_err(BrokerError::Thread)?);
        let mut tasks = vec![
            tokio::spawn(system_topics::publish(Arc::downgrade(&shared), every)),
            tokio::spawn(reload(Arc::downgrade(&shared), tls.clone())),
        ];
        let (plain, tls_address) = match beside {
            Some((listener, address)) => {
                tasks.push(tokio::spawn(accept(listener, tls, shared.clone(), threads.clone())));
                (None, Some(address))
            }
            None => (tls.clone(), tls.map(|_| address)),
        };
        tasks.push(tokio::spawn(accept(listener, plain, shared.clone(), threads.clone())));
        Ok(Self { address, tls_address, shared, stop, tasks, _threads: threads })
    }

    /// Where it serves TLS, if it does; the same as [`FrontDoor::local_addr`] where it serves nothing else.
    pub const fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// Checks names and passwords, for the console.
    pub fn credentials(&self) -> Credentials {
        Credentials(self.shared.access.clone())
    }

    /// Where it listens; tells the port where 0 was asked for.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A way to publish from inside the gateway.
    pub fn publisher(&self) -> LocalPublisher {
        LocalPublisher { shared: self.shared.clone() }
    }

    /// Stops accepting and reading, sends the acknowledgements that are still due, says goodbye, closes, and waits for the
    /// session store; no longer than `deadline`.
    pub async fn drain(self, deadline: Duration) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.stop.send_replace(true);
        let until = tokio::time::Instant::now() + deadline;
        while self.shared.open.load(Ordering::Acquire) > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // What is not stored by then is lost like in a crash.
        let _ = tokio::time::timeout_at(until, self.shared.store.commit(Vec::new())).await;
    }
}

impl Drop for FrontDoor {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn retained_bounds(config: &BrokerConfig) -> RetainedBounds {
    let all = Room { messages: config.max_retained, bytes: config.max_retained_bytes.bytes() as usize };
    let each = Room { messages: config.share_of(all.messages), bytes: config.share_of(all.bytes) };
    RetainedBounds { all, each }
}

fn open_store(store: SessionStore, telemetry: &Telemetry) -> Result<(StoreHandle, Saved), BrokerError> {
    let SessionStore::File { path, keys } = store else { return Ok(Default::default()) };
    let mut disk = Disk::open(&path, keys)?;
    let saved = disk.load()?;
    Ok((StoreHandle::start(disk, telemetry).map_err(BrokerError::Thread)?, saved))
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BrokerError> {
    let refused = |source| BrokerError::Listen { address, source };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(refused)?;
    socket.set_reuseaddr(true).map_err(refused)?;
    socket.bind(address).map_err(refused)?;
    let listener = socket.listen(BACKLOG).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Looks at the files that may change, and takes them over where they did.
async fn reload(shared: std::sync::Weak<Shared>, tls: Option<Arc<Tls>>) {
    let mut seen = None;
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
        let users = shared.access.file().map(changed);
        let certificates: Vec<_> = tls.iter().flat_map(|tls| tls.files()).map(changed).collect();
        let now = (users, certificates);
        if let Some(before) = seen.replace(now.clone())
            && before != now
        {
            let certified = before.1 != now.1;
            let users = if before.0 == now.0 { Ok(()) } else { shared.access.reload() };
            let certificates = tls.as_ref().filter(|_| certified).map_or(Ok(()), |tls| tls.reload());
            for error in [users, certificates].into_iter().filter_map(Result::err) {
                tracing::error!(%error, "a changed file is not taken over");
            }
            shared.sessions.recheck(|who| shared.access.still_holds(who) && shared.trusts(who));
            if before.0 != now.0 {
                Sessions::enforce_rights(&shared).await;
            }
        }
        drop(shared);
        tokio::time::sleep(RELOAD).await;
    }
}

/// Publishes from inside the gateway: commands to devices.
#[derive(Clone)]
pub struct LocalPublisher {
    shared: Arc<Shared>,
}

impl LocalPublisher {
    /// Hands a message to whoever subscribed to its topic. Does not wait: the router's queue sheds and counts past its bound.
    ///
    /// # Errors
    /// Where the front door is closing.
    pub fn publish(&self, topic: &Topic, payload: Bytes, qos: QoS, retain: bool) -> Result<(), BrokerError> {
        if *self.shared.stopping.borrow() {
            return Err(BrokerError::Stopping);
        }
        let message = Message::new(topic.clone(), payload, qos, retain, Carried::default(), self.shared.clock.now());
        let mut changes = Vec::new();
        self.shared.route(&Delivery { message, from: 0, is_compact: false }, &mut changes);
        self.shared.store.send(changes, None);
        Ok(())
    }
}

/// Counts a connection for as long as it lives.
struct OpenConnection(Arc<Shared>, IpAddr);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.connections.dec();
        let mut addresses = self.0.addresses.lock();
        if let Some(count) = addresses.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.1);
            }
        }
    }
}

async fn accept(listener: TcpListener, tls: Option<Arc<Tls>>, shared: Arc<Shared>, threads: Arc<Threads>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => admit(stream, from, tls.clone(), &shared, &threads),
            Err(error) => {
                // Out of file descriptors, usually: taking a breath lets some be closed.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn admit(stream: TcpStream, from: SocketAddr, tls: Option<Arc<Tls>>, shared: &Arc<Shared>, threads: &Threads) {
    if let Err(error) = set_up(&stream) {
        tracing::debug!(%error, "a socket could not be set up");
    }
    let address = from.ip().to_canonical();
    let reason = match count(shared, address) {
        Ok((open, patience)) => {
            let shared = shared.clone();
            // Its socket is the serving thread's to watch.
            let stream = match stream.into_std() {
                Ok(stream) => stream,
                Err(error) => return tracing::warn!(%error, "a connection could not be taken over"),
            };
            threads.spawn(async move {
                transport::serve(stream, address, tls, patience, shared).await;
                drop(open);
            });
            return;
        }
        Err(reason) => reason,
    };
    shared.refuse(reason);
    if tls.is_some() {
        // A handshake is what there is no room for.
        return;
    }
    let Ok(turn) = shared.told.clone().try_acquire_owned() else { return };
    tokio::spawn(async move {
        handshake::turn_away(stream, reason).await;
        drop(turn);
    });
}

/// Counts a connection, or says which limit it meets. At a limit one that nobody was let in on yet makes way: until it has ended, in a
/// moment, there is one more than the limit, and never [`ENDING`] more.
fn count(shared: &Arc<Shared>, address: IpAddr) -> Result<(OpenConnection, Patience), Reason> {
    let mut addresses = shared.addresses.lock();
    let (open, most) = (shared.open.load(Ordering::Acquire), shared.config.max_connections);
    let of_address = addresses.get(&address).copied().unwrap_or_default();
    let most_of_address = shared.config.most_connections_of(address);
    let (is_full, has_its_share) = (open >= most, of_address >= most_of_address);
    let many_are_ending = open >= most.saturating_add(ENDING) || of_address >= most_of_address.saturating_add(ENDING);
    let makes_way = || !many_are_ending && shared.waiting.make_way(has_its_share.then_some(address));
    if (is_full || has_its_share) && !makes_way() {
        return Err(if is_full { Reason::ServerBusy } else { Reason::QuotaExceeded });
    }
    *addresses.entry(address).or_default() += 1;
    shared.open.fetch_add(1, Ordering::AcqRel);
    shared.metrics.connections.inc();
    let patience = shared.waiting.enter(address, shared.config.handshake_timeout.get());
    Ok((OpenConnection(shared.clone(), address), patience))
}

/// Acknowledgements are small and awaited; a client that is gone without a word is found even where it asked for no keep-alive.
fn set_up(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let idle = socket2::TcpKeepalive::new().with_time(Duration::from_secs(300));
    socket2::SockRef::from(stream).set_tcp_keepalive(&idle)
}
