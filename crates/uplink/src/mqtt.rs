//! The cloud over MQTT 3.1.1.
//!
//! rumqttc forgets what it queued when a session is lost, so nothing is left to it: each connection is a new client, an item is in
//! flight from its publish to its PUBACK, and whatever was in flight when a connection ended is taken from the outbox again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use nearside_outbox::{Entry, OutboxHandle, Sequence};
use nearside_privacy::Class;
use nearside_schemas::SiteId;
use nearside_telemetry::{Counter, Gauge, Metric, Telemetry};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, Transport,
};
use tokio::sync::{mpsc, watch};

use crate::backoff::Backoff;
use crate::config::{CloudUrl, UplinkConfig, UplinkError};

/// How long a cloud may take to acknowledge before the connection counts as dead.
const STALLED: Duration = Duration::from_secs(30);
/// Most bytes taken from the outbox at once.
const BATCH_BYTES: usize = 8 << 20;

/// The way to the cloud.
pub struct Uplink {
    config: UplinkConfig,
    url: CloudUrl,
    site: SiteId,
    outbox: OutboxHandle,
    backoff: Backoff,
    telemetry: Telemetry,
    connected: Gauge,
    sent: Vec<Counter>,
    bytes: Counter,
}

/// One connection's items between publish and acknowledgement.
#[derive(Default)]
struct InFlight {
    /// Handed to the client, packet id not yet known; in the order the client will write them.
    queued: VecDeque<(Sequence, Class, usize)>,
    by_packet: HashMap<u16, (Sequence, Class, usize)>,
    held: HashSet<Sequence>,
}

impl Uplink {
    /// An uplink of a site; `seed` spreads the pauses between tries.
    ///
    /// # Errors
    /// Where the configuration is wrong.
    pub fn new(
        config: UplinkConfig,
        site: SiteId,
        outbox: OutboxHandle,
        seed: u64,
        telemetry: &Telemetry,
    ) -> Result<Self, UplinkError> {
        config.validate()?;
        let backoff = Backoff::new(config.backoff_min.get(), config.backoff_max.get(), seed);
        Ok(Self {
            url: config.url.parse()?,
            config,
            site,
            outbox,
            backoff,
            telemetry: telemetry.clone(),
            connected: telemetry.gauge(Metric::UplinkConnected, &[]),
            sent: Class::ALL.iter().map(|class| telemetry.counter(Metric::UplinkSent, &[class.label()])).collect(),
            bytes: telemetry.counter(Metric::UplinkBytes, &[]),
        })
    }

    /// Runs until `stop` turns true, then waits no longer than `grace` for what is in flight.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, grace: Duration) {
        let mut last = "";
        while !*stop.borrow() {
            let error = match self.session(&mut stop, grace).await {
                Ok(()) => return,
                Err(error) => error,
            };
            self.connected.set(0.0);
            self.telemetry.counter(Metric::UplinkErrors, &[error.label()]).inc();
            // Once for each change of state, not for each try.
            if last != error.label() {
                tracing::warn!(%error, "the uplink waits and tries again");
                last = error.label();
            }
            if !error.is_transient() {
                tracing::error!(%error, "the uplink is given up; summaries wait in the outbox");
                return;
            }
            let pause = match error {
                UplinkError::Refused(_) => self.config.backoff_max.get(),
                _ => self.backoff.next_pause(),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => {}
            }
        }
    }

    async fn session(&mut self, stop: &mut watch::Receiver<bool>, grace: Duration) -> Result<(), UplinkError> {
        let (client, mut events) = self.connect()?;
        let mut flight = InFlight::default();
        let mut online = false;
        let mut stop_at = None;
        let mut progress = tokio::time::Instant::now();
        loop {
            if online && stop_at.is_none() {
                self.fill(&client, &mut flight)?;
            }
            let idle = flight.held.is_empty();
            if idle {
                progress = tokio::time::Instant::now();
            }
            if stop_at.is_some() && idle {
                // The broker sees a clean end; if it is gone already, that is one too.
                let _ = client.try_disconnect();
                return Ok(());
            }
            tokio::select! {
                event = events.recv() => match event {
                    Some(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                        online = true;
                        self.backoff.reset();
                        self.connected.set(1.0);
                        tracing::info!("the cloud is connected");
                    }
                    Some(Ok(event)) => {
                        // Answers to pings are no progress.
                        if matches!(event, Event::Incoming(Packet::PubAck(_))) {
                            progress = tokio::time::Instant::now();
                        }
                        self.on_event(event, &mut flight).await;
                    }
                    Some(Err(error)) => return Err(classify(error)),
                    None => return Err(UplinkError::Away("the client ended".to_owned())),
                },
                () = self.outbox.arrival(), if online && stop_at.is_none() => {}
                () = tokio::time::sleep_until(progress + STALLED), if online && !idle && stop_at.is_none() => {
                    return Err(UplinkError::Away(format!("no acknowledgement for {STALLED:?}")));
                }
                () = sleep_until(stop_at), if stop_at.is_some() => return Ok(()),
                _ = stop.changed(), if stop_at.is_none() => stop_at = Some(tokio::time::Instant::now() + grace),
            }
        }
    }

    fn connect(&self) -> Result<(AsyncClient, mpsc::Receiver<Result<Event, ConnectionError>>), UplinkError> {
        let id = self.config.client_id.clone().unwrap_or_else(|| format!("nearside-{}", self.site));
        let mut options = MqttOptions::new(id, &self.url.host, self.url.port);
        let limit = self.config.max_item.bytes() as usize + 65_536;
        options.set_keep_alive(self.config.keep_alive.get()).set_max_packet_size(65_536, limit);
        options.set_inflight(self.config.inflight).set_clean_session(true);
        if self.url.tls {
            options.set_transport(Transport::tls_with_default_config());
        }
        if let Some(user) = &self.config.username {
            options.set_credentials(user, self.password()?);
        }
        let (client, event_loop) = AsyncClient::new(options, usize::from(self.config.inflight));
        let (sender, events) = mpsc::channel(64);
        // In a task of its own: polling must not be cancelled halfway through a connect or a write.
        tokio::spawn(poll(event_loop, sender));
        Ok((client, events))
    }

    fn password(&self) -> Result<String, UplinkError> {
        let Some(path) = &self.config.password_file else { return Ok(String::new()) };
        let text =
            std::fs::read_to_string(path).map_err(|source| UplinkError::PasswordFile { path: path.clone(), source })?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Publishes items until as many are in flight as may be.
    fn fill(&self, client: &AsyncClient, flight: &mut InFlight) -> Result<(), UplinkError> {
        let room = usize::from(self.config.inflight).saturating_sub(flight.held.len());
        // Refilled in larger steps: each look at the outbox passes over what is in flight.
        if room == 0 || (room < usize::from(self.config.inflight) / 4 && !flight.held.is_empty()) {
            return Ok(());
        }
        let batch = self.outbox.batch(room, BATCH_BYTES, &|sequence| flight.held.contains(sequence))?;
        for Entry { sequence, item } in batch {
            let class = item.class();
            let topic = self.config.topic.replace("{site}", self.site.as_str()).replace("{class}", class.label());
            if client.try_publish(topic, QoS::AtLeastOnce, false, item.bytes()).is_err() {
                return Ok(());
            }
            flight.held.insert(sequence);
            flight.queued.push_back((sequence, class, item.bytes().len()));
        }
        Ok(())
    }

    async fn on_event(&self, event: Event, flight: &mut InFlight) {
        match event {
            Event::Outgoing(Outgoing::Publish(packet)) => {
                nearside_schemas::failpoint("uplink-sent");
                if let Some(item) = flight.queued.pop_front() {
                    flight.by_packet.insert(packet, item);
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                if let Some((sequence, class, bytes)) = flight.by_packet.remove(&ack.pkid) {
                    self.sent[class as usize].inc();
                    self.bytes.inc_by(bytes as u64);
                    self.outbox.acknowledge(vec![sequence]).await;
                    flight.held.remove(&sequence);
                }
            }
            _ => {}
        }
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

async fn poll(mut event_loop: EventLoop, events: mpsc::Sender<Result<Event, ConnectionError>>) {
    loop {
        let event = event_loop.poll().await;
        let ended = event.is_err();
        if events.send(event).await.is_err() || ended {
            return;
        }
    }
}

fn classify(error: ConnectionError) -> UplinkError {
    match error {
        ConnectionError::ConnectionRefused(
            code @ (ConnectReturnCode::BadUserNamePassword
            | ConnectReturnCode::NotAuthorized
            | ConnectReturnCode::BadClientId),
        ) => UplinkError::Refused(format!("{code:?}")),
        error => UplinkError::Away(error.to_string()),
    }
}
