//! The listener, what all connections share, and the way for the gateway itself to publish.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nearside_schemas::{ClientId, Clock, Intake, QoS, Topic};
use nearside_telemetry::{Counter, Gauge, Metric, Telemetry};
use parking_lot::{Mutex, RwLock};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::config::{BrokerConfig, BrokerError};
use crate::connection;
use crate::filter::FilterIndex;
use crate::packet::Reason;
use crate::retained::Retained;
use crate::router::{self, RouterHandle, SessionNumber};
use crate::socket::Socket;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: BrokerConfig,
    pub(crate) intake: Arc<dyn Intake>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) router: RouterHandle,
    pub(crate) index: RwLock<FilterIndex>,
    pub(crate) retained: Retained,
    pub(crate) clients: Mutex<HashMap<ClientId, (SessionNumber, Arc<Notify>)>>,
    pub(crate) next_session: AtomicU64,
    pub(crate) open: AtomicUsize,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) telemetry: Telemetry,
    pub(crate) metrics: Metrics,
}

pub(crate) struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) subscriptions: Gauge,
    pub(crate) bytes: Counter,
    pub(crate) publishes: [Counter; 3],
    pub(crate) acknowledged: Counter,
    pub(crate) not_retained: Counter,
}

impl Shared {
    /// Hands a message to whoever subscribed, and keeps it where it is retained.
    pub(crate) fn route(&self, topic: &Topic, payload: &Bytes, qos: QoS, retain: bool, from: SessionNumber) {
        if retain && !self.retained.keep(topic, payload, qos) {
            self.metrics.not_retained.inc();
        }
        let wanted = self.index.read().matches_any(topic.as_str());
        if wanted {
            self.router.publish(topic.clone(), payload.clone(), qos, retain, from);
        }
    }

    pub(crate) fn refuse(&self, reason: Reason) {
        self.telemetry.counter(Metric::ConnectionsRefused, &[reason.label()]).inc();
    }
}

/// The MQTT server.
pub struct FrontDoor {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl FrontDoor {
    /// Opens the port.
    ///
    /// # Errors
    /// Where the configuration makes no sense or the port cannot be opened.
    pub async fn bind(
        config: BrokerConfig,
        intake: Arc<dyn Intake>,
        clock: Arc<dyn Clock>,
        telemetry: &Telemetry,
    ) -> Result<Self, BrokerError> {
        config.validate()?;
        let refused = |source| BrokerError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let router = router::start(telemetry).map_err(BrokerError::Router)?;
        let (stop, stopping) = watch::channel(false);
        let publishes = |qos| telemetry.counter(Metric::PublishesReceived, &[qos]);
        let metrics = Metrics {
            connections: telemetry.gauge(Metric::Connections, &[]),
            subscriptions: telemetry.gauge(Metric::Subscriptions, &[]),
            bytes: telemetry.counter(Metric::BytesReceived, &[]),
            publishes: [publishes("0"), publishes("1"), publishes("2")],
            acknowledged: telemetry.counter(Metric::PublishesAcknowledged, &[]),
            not_retained: telemetry.counter(Metric::PublishesDropped, &["retained_full"]),
        };
        let shared = Arc::new(Shared {
            retained: Retained::new(config.max_retained),
            config,
            intake,
            clock,
            router,
            index: RwLock::default(),
            clients: Mutex::default(),
            next_session: AtomicU64::new(1),
            open: AtomicUsize::new(0),
            stopping,
            telemetry: telemetry.clone(),
            metrics,
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, stop, accepting })
    }

    /// Where it listens; tells the port where 0 was asked for.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A way to publish from inside the gateway.
    pub fn publisher(&self) -> LocalPublisher {
        LocalPublisher { shared: self.shared.clone() }
    }

    /// Stops accepting and reading, sends the acknowledgements that are still due, says goodbye and closes; no longer than
    /// `deadline`.
    pub async fn drain(self, deadline: Duration) {
        self.accepting.abort();
        self.stop.send_replace(true);
        let until = tokio::time::Instant::now() + deadline;
        while self.shared.open.load(Ordering::Acquire) > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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
        self.shared.route(topic, &payload, qos, retain, 0);
        Ok(())
    }
}

/// Counts a connection for as long as it lives.
pub(crate) struct OpenConnection(Arc<Shared>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.connections.dec();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => admit(stream, &shared),
            Err(error) => {
                // Out of file descriptors, usually: taking a breath lets some be closed.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn admit(stream: TcpStream, shared: &Arc<Shared>) {
    if shared.open.load(Ordering::Acquire) >= shared.config.max_connections {
        shared.refuse(Reason::ServerUnavailable);
        return;
    }
    shared.open.fetch_add(1, Ordering::AcqRel);
    shared.metrics.connections.inc();
    let open = OpenConnection(shared.clone());
    // Acknowledgements are small and awaited.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no delay could not be set");
    }
    let socket = match Socket::new(stream) {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(%error, "a connection could not be taken over"),
    };
    let shared = shared.clone();
    tokio::spawn(async move {
        connection::serve(socket, shared).await;
        drop(open);
    });
}
