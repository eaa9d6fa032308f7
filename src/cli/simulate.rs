//! `nearside simulate`: a fleet on somebody's broker, or plain load.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use nearside_schemas::{Clock, SystemClock};
use nearside_simulator::{
    BrokerUrl, Fleet, FleetConfig, LoadConfig, LoadLimit, Pace, Profile, Progress, PublishOptions, SimulatorError,
    load, publish_fleet,
};

use serde_json::json;

use crate::error::StartError;

/// Publishes what a simulated city or ward would.
#[derive(Args, Debug)]
pub struct SimulateArgs {
    /// `city` or `ward`, paced in real time; or `load`: `{"ts":…,"value":…}` on `load/0` and on, at `--rate`.
    #[arg(long)]
    profile: String,
    /// How many devices.
    #[arg(long, default_value_t = 30)]
    streams: usize,
    /// City and ward: simulated seconds in a real one; `--rate 120 --seconds 60` plays the last two hours in a minute. Load: messages a second in all. `max`: as fast as the broker
    /// acknowledges; a city or ward then starts six days ago and ends when its time has caught up.
    #[arg(long, default_value = "1")]
    rate: String,
    /// The broker: mqtt://host:port.
    #[arg(long, default_value = "mqtt://127.0.0.1:1883")]
    broker: String,
    /// Seed of the devices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections that the devices share.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Load and `--rate max`: most unacknowledged messages of a connection.
    #[arg(long, default_value_t = 1000)]
    inflight: u16,
    /// How long, in seconds; without end where none is stated (load and `--rate max`: 10).
    #[arg(long)]
    seconds: Option<u64>,
}

/// How far back a fleet without a pace starts: within the week that a gateway takes where nothing else is configured.
const UNPACED_SPAN: Duration = Duration::from_secs(6 * 86_400);

/// Runs the command.
pub fn run(args: &SimulateArgs) -> Result<(), StartError> {
    let broker: BrokerUrl = args.broker.parse().map_err(failed)?;
    match args.profile.as_str() {
        "load" => super::block_on(run_load(args, broker)),
        profile => {
            let profile = profile.parse::<Profile>().map_err(|why| StartError::Usage(format!("{why}, or `load`")))?;
            super::block_on(run_fleet(args, broker, profile))
        }
    }
}

impl SimulateArgs {
    /// The rate; `None`: as fast as it goes.
    fn rate(&self) -> Result<Option<f64>, StartError> {
        if self.rate == "max" {
            return Ok(None);
        }
        let number = self.rate.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
        let wrong = || StartError::Usage(format!("--rate {}: write a number above zero, or `max`", self.rate));
        number.map(Some).ok_or_else(wrong)
    }

    /// How long load is generated.
    fn load_seconds(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(10))
    }
}

/// The program's error for the simulator's.
fn failed(error: SimulatorError) -> StartError {
    match error {
        SimulatorError::Address { .. } | SimulatorError::Setting { .. } => StartError::Usage(error.to_string()),
        error => StartError::Surroundings(error.to_string()),
    }
}

async fn run_load(args: &SimulateArgs, broker: BrokerUrl) -> Result<(), StartError> {
    let rate = args.rate()?;
    let config = LoadConfig {
        streams: args.streams,
        rate,
        connections: args.connections,
        inflight: args.inflight,
        limit: LoadLimit::Duration(args.load_seconds()),
        seed: args.seed,
        ..LoadConfig::new(broker)
    };
    let report = load(config, Arc::new(SystemClock), interrupt()).await.map_err(failed)?;
    for error in &report.errors {
        eprintln!("warning: {error}");
    }
    let millis = |latency: Duration| latency.as_secs_f64() * 1e3;
    let line = json!({
        "sent": report.sent,
        "acknowledged": report.acknowledged,
        "seconds": report.elapsed.as_secs_f64(),
        "per_second": report.per_second().round(),
        "p50_ms": millis(report.p50),
        "p99_ms": millis(report.p99),
        "max_ms": millis(report.max),
    });
    println!("{line}");
    Ok(())
}

/// How long the broker may take to accept the first connection.
const FIRST_CONNECTION: Duration = Duration::from_secs(5);
/// How long the last acknowledgements may take.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Whether anybody listens there: devices try again for ever, and whoever mistyped an address would wait as long.
async fn reach(broker: &BrokerUrl) -> Result<(), StartError> {
    let connecting = tokio::net::TcpStream::connect((broker.host.as_str(), broker.port));
    let why = match tokio::time::timeout(FIRST_CONNECTION, connecting).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer in {} s", FIRST_CONNECTION.as_secs()),
    };
    let (host, port) = (&broker.host, broker.port);
    Err(StartError::Surroundings(format!("the broker at {host}:{port} cannot be reached: {why}; is it running there?")))
}

/// Ctrl-C.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler Ctrl-C ends the program anyway.
        std::future::pending::<()>().await;
    }
}

async fn run_fleet(args: &SimulateArgs, broker: BrokerUrl, profile: Profile) -> Result<(), StartError> {
    let rate = args.rate()?;
    let duration = match rate {
        Some(speed) => args.seconds.map(|seconds| Duration::from_secs_f64(seconds as f64 * speed)),
        None => Some(UNPACED_SPAN),
    };
    let speed = rate.unwrap_or(f64::INFINITY);
    let start = match duration {
        // Faster than real time: it starts in the past and ends now, for a gateway sets the future aside.
        Some(duration) if speed > 1.0 => SystemClock.now().minus(duration),
        None if speed > 1.0 => {
            let why = "a fleet that runs faster than real time needs --seconds, so that it can start in the past";
            return Err(StartError::Usage(why.to_owned()));
        }
        _ => SystemClock.now(),
    };
    let mut fleet = FleetConfig::new(profile, args.streams, args.seed, start);
    fleet.duration = duration;
    let fleet = Fleet::new(fleet);
    for incident in fleet.incidents() {
        eprintln!("{}  {}", incident.from, incident.name);
    }
    if rate == Some(1.0) {
        eprintln!("in real time; to see more sooner: --rate 120 --seconds 60 plays the last two hours in a minute");
    }
    let mut options = PublishOptions {
        pace: Pace { speed, rate_max: None },
        connections: args.connections,
        client_prefix: format!("{}-{}", args.profile, args.seed),
        ..PublishOptions::default()
    };
    if rate.is_none() {
        options.inflight = args.inflight;
    }
    reach(&broker).await?;
    let most = match (rate, args.seconds) {
        (None, _) => Some(args.load_seconds()),
        // The fleet ends by itself; a broker that takes nothing must not hold it for ever.
        (Some(_), Some(seconds)) => Some(Duration::from_secs(seconds) + LAST_ANSWERS),
        (Some(_), None) => None,
    };
    let stop = async {
        match most {
            // Ctrl-C ends it sooner.
            Some(most) => drop(tokio::time::timeout(most, interrupt()).await),
            None => interrupt().await,
        }
    };
    let progress = Arc::new(Progress::default());
    let report = publish_fleet(fleet, &broker, options, &SystemClock, progress, stop).await.map_err(failed)?;
    let line = json!({
        "sent": report.sent,
        "acknowledged": report.acknowledged,
        "resent": report.resent,
        "bytes": report.bytes,
        "errors": report.errors,
    });
    println!("{line}");
    Ok(())
}
