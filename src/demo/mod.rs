//! The demonstration: a gateway, a simulated city and ward on real MQTT connections, and a second broker as the cloud, in
//! one process and in simulated time.
//!
//! Simulated time runs `speed` times as fast as real time for all of them: the gateway's clock is one of the things it is
//! given, so its windows, guards and cooldowns live in the simulated city's time.

mod clock;
mod cloud;
mod report;
mod truth;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nearside_broker::{AcceptAll, BrokerConfig, FrontDoor};
use nearside_config::SiteConfig;
use nearside_schemas::{Clock, HumanDuration, SystemClock, Timestamp};
use nearside_simulator::{
    BrokerUrl, Fleet, FleetConfig, Incident, Pace, Profile, Progress, PublishOptions, publish_fleet,
};
use nearside_telemetry::{Metric, Telemetry};
use nearside_uplink::UplinkConfig;
use tokio::sync::watch;

use crate::error::StartError;
use crate::pipeline::{BOARD_BOUND, Gateway, Surroundings};
use clock::ScaledClock;
use cloud::Cloud;
pub use report::Report;

/// Devices report twice as often as they usually would: detectors see more of the short time there is.
const PERIOD_SCALE: f64 = 0.5;
/// Devices of each profile.
const CITY_STREAMS: usize = 40;
const WARD_STREAMS: usize = 30;

/// Findings that the closing report remembers for each simulated hour, many times what 70 devices usually raise; and the most
/// in all.
const FINDINGS_PER_HOUR: f64 = 1_000.0;
const MOST_FINDINGS: usize = 200_000;

/// What to demonstrate.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// Seed of the fleets.
    pub seed: u64,
    /// Simulated seconds in a real one.
    pub speed: f64,
    /// Real time.
    pub duration: Duration,
    /// Where the gateway keeps its data; a fresh temporary folder where none is named.
    pub data: Option<PathBuf>,
    /// Where the console listens.
    pub console: SocketAddr,
}

impl DemoConfig {
    /// How many findings the closing report looks at.
    fn findings_remembered(&self) -> usize {
        let hours = self.duration.as_secs_f64() * self.speed / 3_600.0;
        ((hours * FINDINGS_PER_HOUR) as usize).clamp(BOARD_BOUND, MOST_FINDINGS)
    }
}

/// A demonstration that is running.
pub struct Demo {
    gateway: Gateway,
    cloud: Arc<Cloud>,
    cloud_door: FrontDoor,
    clock: Arc<ScaledClock>,
    incidents: Vec<Incident>,
    rules: Vec<String>,
    fleets: Vec<tokio::task::JoinHandle<Published>>,
    stop: watch::Sender<bool>,
    folder: PathBuf,
    is_temporary: bool,
}

/// What the devices sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Messages.
    pub messages: u64,
    /// Of those, acknowledged.
    pub acknowledged: u64,
    /// Topic and payload bytes.
    pub bytes: u64,
}

/// Figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    /// Readings decoded.
    pub readings: u64,
    /// Bytes that devices sent.
    pub bytes_in: u64,
    /// Findings raised.
    pub findings: u64,
    /// Commands sent to devices.
    pub commands: u64,
    /// Events that the cloud has, each once.
    pub events_out: u64,
    /// Bytes of those.
    pub bytes_out: u64,
}

impl Figures {
    fn new(telemetry: &Telemetry, rules: &[String], cloud: &Cloud) -> Self {
        let (events_out, bytes_out) = cloud.received();
        Self {
            readings: telemetry.total(Metric::Readings),
            bytes_in: telemetry.total(Metric::BytesReceived),
            findings: telemetry.total(Metric::Findings),
            commands: rules.iter().map(|rule| telemetry.counter(Metric::Commands, &[rule, "sent"]).get()).sum(),
            events_out,
            bytes_out,
        }
    }
}

/// Both ready-made sites as one, listening on free ports.
fn site(config: &DemoConfig, folder: &Path, cloud: SocketAddr) -> Result<SiteConfig, StartError> {
    let city = nearside_config::parse(include_str!("../../config/smart-city.toml"), Path::new("smart-city.toml"))?;
    let ward = nearside_config::parse(include_str!("../../config/medical-ward.toml"), Path::new("medical-ward.toml"))?;
    let mut site = city;
    // Neither text says all of it.
    site.source = "".into();
    site.streams.extend(ward.streams);
    site.rules.extend(ward.rules);
    site.site.data_dir = folder.to_owned();
    site.broker.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    site.console.listen = config.console;
    // The deadline is real time; the gateway lives in simulated time.
    site.inference.deadline = HumanDuration(site.inference.deadline.get().mul_f64(config.speed.max(1.0)));
    // Nothing comes after a demonstration: what is open at its end is summarised.
    site.limits.on_stop = nearside_actors::OnStop::Close;
    site.uplink = Some(UplinkConfig::to(&format!("mqtt://{cloud}")));
    Ok(site)
}

impl Demo {
    /// Starts cloud, gateway and devices.
    ///
    /// # Errors
    /// Where a port or the data folder cannot be used.
    pub async fn start(config: &DemoConfig) -> Result<Self, StartError> {
        let start = SystemClock.now();
        let clock = Arc::new(ScaledClock::new(start, config.speed));
        let is_temporary = config.data.is_none();
        let folder = config.data.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("nearside-demo-{}-{}", std::process::id(), start.as_micros()))
        });
        let cloud = Arc::new(Cloud::default());
        let seen = cloud.clone();
        let listen = BrokerConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..BrokerConfig::default() };
        let intake = Arc::new(AcceptAll::watching(move |batch| seen.take(batch)));
        let cloud_door = FrontDoor::bind(listen, intake, clock.clone(), &Telemetry::new()).await?;
        let site = site(config, &folder, cloud_door.local_addr())?;
        let board = config.findings_remembered();
        let surroundings = Surroundings { clock: clock.clone(), seed: config.seed, base: folder.clone(), board };
        let gateway = Gateway::start(&site, surroundings).await?;
        let (stop, stopped) = watch::channel(false);
        let mut demo = Self {
            gateway,
            cloud,
            cloud_door,
            clock,
            incidents: Vec::new(),
            rules: site.rules.iter().map(|rule| rule.name.to_string()).collect(),
            fleets: Vec::new(),
            stop,
            folder,
            is_temporary,
        };
        for (profile, streams) in [(Profile::City, CITY_STREAMS), (Profile::Ward, WARD_STREAMS)] {
            demo.start_fleet(config, profile, streams, start, stopped.clone());
        }
        Ok(demo)
    }

    fn start_fleet(
        &mut self,
        config: &DemoConfig,
        profile: Profile,
        streams: usize,
        start: Timestamp,
        stopped: watch::Receiver<bool>,
    ) {
        let mut fleet = FleetConfig::new(profile, streams, config.seed, start);
        fleet.duration = Some(config.duration.mul_f64(config.speed));
        fleet.period_scale = PERIOD_SCALE;
        let fleet = Fleet::new(fleet);
        self.incidents.extend(fleet.incidents().iter().cloned());
        let address = self.gateway.broker_addr();
        let broker = BrokerUrl::plain(&address.ip().to_string(), address.port());
        let options = PublishOptions {
            pace: Pace { speed: config.speed, rate_max: None },
            connections: 2,
            client_prefix: format!("{profile:?}").to_lowercase(),
            drain: Duration::from_secs(10),
            ..PublishOptions::default()
        };
        self.fleets.push(tokio::spawn(async move {
            let mut stopped = stopped;
            let stop = async move {
                // A sender that is gone means the same.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            match publish_fleet(fleet, &broker, options, &SystemClock, Arc::new(Progress::default()), stop).await {
                Ok(report) => {
                    Published { messages: report.sent, acknowledged: report.acknowledged, bytes: report.bytes }
                }
                Err(error) => {
                    tracing::error!(%error, "the simulated devices gave up");
                    Published::default()
                }
            }
        }));
    }

    /// Where devices connect, where the console listens, and where the cloud's broker is.
    pub fn addresses(&self) -> (SocketAddr, SocketAddr, SocketAddr) {
        (self.gateway.broker_addr(), self.gateway.console_addr(), self.cloud_door.local_addr())
    }

    /// The simulated time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The figures now.
    pub fn figures(&self) -> Figures {
        Figures::new(self.gateway.telemetry(), &self.rules, &self.cloud)
    }

    /// Parts of the gateway that have ended by a fault.
    pub fn ended(&self) -> Vec<&'static str> {
        self.gateway.ended()
    }

    /// Whether every device has said its last word.
    pub fn is_over(&self) -> bool {
        self.fleets.iter().all(tokio::task::JoinHandle::is_finished)
    }

    /// Stops devices, then the gateway, then the cloud, and says what was found.
    pub async fn finish(self) -> Report {
        self.stop.send_replace(true);
        let mut published = Published::default();
        for fleet in self.fleets {
            let part = fleet.await.unwrap_or_default();
            published.messages += part.messages;
            published.acknowledged += part.acknowledged;
            published.bytes += part.bytes;
        }
        let (telemetry, board) = (self.gateway.telemetry().clone(), self.gateway.board().clone());
        let ingest = self.gateway.ingest().clone();
        let now = self.clock.now();
        self.gateway.stop(Duration::from_secs(10)).await;
        self.cloud_door.drain(Duration::from_secs(1)).await;
        let figures = Figures { bytes_in: published.bytes, ..Figures::new(&telemetry, &self.rules, &self.cloud) };
        let set_aside = telemetry.total(Metric::SetAside);
        let report = Report::new(&self.incidents, &board, &ingest, now, published, figures, set_aside);
        if self.is_temporary {
            // Left behind where it cannot be removed: a temporary folder is swept by the system.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_counted_and_long_runs_remember_more_findings() {
        let telemetry = Telemetry::new();
        let rules = ["a".to_owned(), "b".to_owned()];
        for (rule, outcome, count) in [("a", "sent", 5_000), ("b", "sent", 7), ("b", "expired", 9)] {
            telemetry.counter(Metric::Commands, &[rule, outcome]).inc_by(count);
        }
        assert_eq!(Figures::new(&telemetry, &rules, &Cloud::default()).commands, 5_007);
        let remembered = |seconds| {
            let console = SocketAddr::from(([127, 0, 0, 1], 0));
            let duration = Duration::from_secs(seconds);
            DemoConfig { seed: 1, speed: 120.0, duration, data: None, console }.findings_remembered()
        };
        assert_eq!([1, 120, 86_400].map(remembered), [1_000, 4_000, 200_000]);
    }
}
