//! The way to the cloud: connections come and go, items leave the outbox on acknowledgement alone.

use std::time::Duration;

use nearside_outbox::OutboxHandle;
use nearside_privacy::Class;
use nearside_schemas::SiteId;
use nearside_telemetry::{Counter, Gauge, Histogram, Metric, Telemetry};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::config::{UplinkConfig, UplinkError};
use crate::endpoints::Endpoints;
use crate::link::{Link, LinkOptions};
use crate::pacing::{Pace, Pacer};
use crate::refusals::Refusals;
use crate::session::Session;

/// A connection that lasted so long counts as one that works, though nothing was there to send.
const STEADY: Duration = Duration::from_secs(30);
/// What a PUBLISH adds to topic and payload at most: header, lengths, packet id and properties.
pub(crate) const PACKET_OVERHEAD: usize = 256;

/// The way to the cloud.
pub struct Uplink {
    pub(crate) config: UplinkConfig,
    pub(crate) site: SiteId,
    pub(crate) outbox: OutboxHandle,
    pub(crate) endpoints: Endpoints,
    pub(crate) pacer: Pacer,
    pub(crate) refusals: Refusals,
    backoff: Backoff,
    telemetry: Telemetry,
    pub(crate) metrics: UplinkMetrics,
}

pub(crate) struct UplinkMetrics {
    pub(crate) connected: Gauge,
    pub(crate) in_flight: Gauge,
    pub(crate) sent: Vec<Counter>,
    pub(crate) acknowledge: Vec<Histogram>,
    pub(crate) bytes: Counter,
    endpoint: Gauge,
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
        let pace = Pace { share: config.backlog_share, per_second: config.backlog_rate };
        let holding = [1, 2, 3].map(|class| config.backoff(seed.wrapping_add(class)));
        Ok(Self {
            endpoints: Endpoints::new(config.urls()?, config.failover_after),
            pacer: Pacer::new(config.inflight.into(), pace, holding),
            refusals: Refusals::new(config.backoff_min.get(), config.backoff_max.get()),
            backoff: config.backoff(seed),
            metrics: UplinkMetrics::new(telemetry),
            telemetry: telemetry.clone(),
            config,
            site,
            outbox,
        })
    }

    /// Runs until `stop` turns true, then waits no longer than `grace` for what is in flight. What the cloud has not acknowledged by then
    /// stays in the outbox.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, grace: Duration) {
        let mut last = "";
        while !*stop.borrow() {
            let started = Instant::now();
            let (ended, progress) = self.connect_once(&mut stop, grace).await;
            self.metrics.connected.set(0.0);
            self.metrics.in_flight.set(0.0);
            let Err(error) = ended else { return };
            if matches!(error, UplinkError::FirstIsBack) {
                tracing::info!("the first address of the cloud can be reached again and is used");
                self.endpoints.try_first();
                continue;
            }
            self.telemetry.counter(Metric::UplinkErrors, &[error.label()]).inc();
            // Once for each change of state, not for each try.
            if last != error.label() || progress {
                tracing::warn!(%error, "the uplink waits and tries again");
                last = error.label();
            }
            if !error.is_transient() {
                tracing::error!(%error, "the uplink is given up; summaries wait in the outbox");
                return;
            }
            let pause = self.pause_after(&error, progress || started.elapsed() >= STEADY);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => {}
            }
        }
    }

    /// One connection from its start to its end, and whether the cloud acknowledged anything on it.
    async fn connect_once(
        &mut self,
        stop: &mut watch::Receiver<bool>,
        grace: Duration,
    ) -> (Result<(), UplinkError>, bool) {
        let link = match self.connect() {
            Ok(link) => link,
            Err(error) => return (Err(error), false),
        };
        let mut session = Session::new(self, link);
        let ended = session.run(stop, grace).await;
        (ended, session.has_progress())
    }

    fn pause_after(&mut self, error: &UplinkError, worked: bool) -> Duration {
        if matches!(error, UplinkError::Outbox(_)) {
            // No fault of the cloud's.
        } else if worked {
            self.endpoints.works();
            self.backoff.reset();
        } else if self.endpoints.failed() {
            let (index, url) = self.endpoints.current();
            tracing::warn!(host = %url.host, "the uplink goes on with another address");
            self.metrics.endpoint.set(index as f64);
        }
        match error {
            // A person has to mend it, but perhaps on the other side, and nobody tells us.
            UplinkError::Refused(_) if !self.endpoints.has_others() => self.backoff.long_pause(),
            _ => self.backoff.next_pause(),
        }
    }

    fn connect(&self) -> Result<Link, UplinkError> {
        let (index, url) = self.endpoints.current();
        self.metrics.endpoint.set(index as f64);
        let client_id = self.config.client_id.clone().unwrap_or_else(|| format!("nearside-{}", self.site));
        let credentials = match &self.config.username {
            Some(user) => Some((user.clone(), self.password()?)),
            None => None,
        };
        Ok(Link::connect(&LinkOptions {
            url,
            protocol: self.config.protocol,
            client_id: &client_id,
            credentials,
            keep_alive: self.config.keep_alive.get(),
            inflight: self.config.inflight,
            max_packet: self.config.max_item.bytes() as usize + PACKET_OVERHEAD + self.topic(Class::Summary).len(),
        }))
    }

    /// The connection was accepted.
    pub(crate) fn count_connect(&self) {
        let endpoint = self.endpoints.current().0.to_string();
        self.telemetry.counter(Metric::UplinkConnects, &[&endpoint]).inc();
        self.metrics.connected.set(1.0);
    }

    pub(crate) fn count_refused(&self, class: Class, reason: &str) {
        self.telemetry.counter(Metric::UplinkRefused, &[class.label(), reason]).inc();
    }

    /// The topic of a class.
    pub(crate) fn topic(&self, class: Class) -> String {
        self.config.topic.replace("{site}", self.site.as_str()).replace("{class}", class.label())
    }

    fn password(&self) -> Result<String, UplinkError> {
        let Some(path) = &self.config.password_file else { return Ok(String::new()) };
        let text =
            std::fs::read_to_string(path).map_err(|source| UplinkError::PasswordFile { path: path.clone(), source })?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

impl UplinkMetrics {
    fn new(telemetry: &Telemetry) -> Self {
        Self {
            connected: telemetry.gauge(Metric::UplinkConnected, &[]),
            in_flight: telemetry.gauge(Metric::UplinkInFlight, &[]),
            sent: Class::ALL.iter().map(|class| telemetry.counter(Metric::UplinkSent, &[class.label()])).collect(),
            acknowledge: Class::ALL
                .iter()
                .map(|class| telemetry.histogram(Metric::UplinkAcknowledge, &[class.label()]))
                .collect(),
            bytes: telemetry.counter(Metric::UplinkBytes, &[]),
            endpoint: telemetry.gauge(Metric::UplinkEndpoint, &[]),
        }
    }
}
