//! `nearside simulate`: a fleet on somebody's broker, or plain load.

use std::time::Duration;

use clap::Args;
use nearside_schemas::{Clock, SystemClock};
use nearside_simulator::{Broker, Fleet, FleetConfig, LoadConfig, Pace, Profile, load, publish_fleet};
use nearside_uplink::CloudUrl;
use tokio::sync::watch;

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
    /// City and ward: simulated seconds in a real one. Load: messages a second in all, or `max`.
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
    /// Load: most unacknowledged messages of a connection.
    #[arg(long, default_value_t = 1000)]
    inflight: usize,
    /// How long, in seconds; without end where none is stated (load: 10).
    #[arg(long)]
    seconds: Option<u64>,
}

/// Runs the command.
pub fn run(args: &SimulateArgs) -> Result<(), StartError> {
    let url: CloudUrl = args.broker.parse()?;
    let broker = Broker { host: url.host, port: url.port };
    match args.profile.as_str() {
        "load" => super::block_on(run_load(args, broker)),
        profile => {
            let profile = profile.parse::<Profile>().map_err(|why| StartError::Usage(format!("{why}, or `load`")))?;
            super::block_on(run_fleet(args, broker, profile))
        }
    }
}

async fn run_load(args: &SimulateArgs, broker: Broker) -> Result<(), StartError> {
    let rate = match args.rate.as_str() {
        "max" => None,
        text => Some(positive(text)?),
    };
    let config = LoadConfig {
        broker,
        streams: args.streams,
        rate,
        connections: args.connections,
        inflight: args.inflight,
        duration: Duration::from_secs(args.seconds.unwrap_or(10)),
        start_millis: SystemClock.now().as_micros() / 1_000,
        seed: args.seed,
    };
    let report = load(&config).await.map_err(|error| StartError::Surroundings(error.to_string()))?;
    println!(
        "{{\"sent\":{},\"acknowledged\":{},\"seconds\":{:.3},\"per_second\":{:.0},\"p50_ms\":{:.2},\"p99_ms\":{:.2}}}",
        report.sent,
        report.acknowledged,
        report.seconds,
        report.acknowledged as f64 / report.seconds.max(1e-9),
        report.p50_millis,
        report.p99_millis,
    );
    Ok(())
}

async fn run_fleet(args: &SimulateArgs, broker: Broker, profile: Profile) -> Result<(), StartError> {
    let speed = positive(&args.rate)?;
    let start = SystemClock.now();
    let mut fleet = FleetConfig::new(profile, args.streams, args.seed, start);
    fleet.duration = args.seconds.map(|seconds| Duration::from_secs_f64(seconds as f64 * speed));
    let fleet = Fleet::new(fleet);
    for incident in fleet.incidents() {
        eprintln!("{}  {}", incident.from, incident.name);
    }
    let pace = Pace { speed, start, connections: args.connections, client_prefix: args.profile.clone() };
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        // Without a handler Ctrl-C ends the program anyway.
        let _ = tokio::signal::ctrl_c().await;
        stop.send_replace(true);
        std::future::pending::<()>().await;
    });
    let report = publish_fleet(fleet, &broker, &pace, stopped).await;
    println!(
        "{{\"sent\":{},\"acknowledged\":{},\"bytes\":{},\"disconnects\":{}}}",
        report.sent, report.acknowledged, report.bytes, report.disconnects
    );
    Ok(())
}

fn positive(text: &str) -> Result<f64, StartError> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| StartError::Usage(format!("--rate {text}: write a number above zero")))
}
