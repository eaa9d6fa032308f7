//! `nearside demo`: watch a city and a ward being judged.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nearside_console::ConsoleError;
use nearside_schemas::{Timestamp, parse_address};
use serde::Serialize;

use super::say;
use crate::demo::{Demo, DemoConfig, Figures};
use crate::error::StartError;

/// Shows a city and a ward being judged.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// How long, in real seconds; Ctrl-C ends it earlier.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Seed of the simulated devices and their incidents.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Simulated seconds in a real one.
    #[arg(long, default_value_t = 120.0)]
    speed: f64,
    /// Where the gateway keeps its data; a temporary folder, removed at the end, where none is named.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where the console listens; a free port where it is 0.
    #[arg(long, default_value = "127.0.0.1:0", value_parser = parse_address)]
    console: SocketAddr,
    /// Prints a JSON object a second and the closing report as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &DemoArgs) -> Result<(), StartError> {
    if args.seconds == 0 || !(args.speed.is_finite() && args.speed > 0.0) {
        return Err(StartError::Usage("--seconds and --speed must be above zero".to_owned()));
    }
    let config = DemoConfig {
        seed: args.seed,
        speed: args.speed,
        duration: Duration::from_secs(args.seconds),
        data: args.data.clone(),
        console: args.console,
    };
    super::block_on(async {
        let demo = Demo::start(&config).await.map_err(name_the_option)?;
        if args.json {
            // For who reads along; what programs read is on standard output.
            addresses(&demo).lines().for_each(|line| eprintln!("{line}"));
        } else {
            introduce(&demo, &config)?;
        }
        let watched = watch(&demo, args).await;
        let report = demo.finish().await;
        watched?;
        if args.json { say(serde_json::to_string(&report).unwrap_or_default()) } else { say(format!("\n{report}")) }
    })
}

/// A demonstration has no file: where its console listens is said on the command line.
fn name_the_option(error: StartError) -> StartError {
    match error {
        StartError::Console(ConsoleError { address, source }) => StartError::Surroundings(format!(
            "the console cannot listen on {address}: {source}; name a free port with `--console`"
        )),
        other => other,
    }
}

fn addresses(demo: &Demo) -> String {
    let (devices, console, cloud) = demo.addresses();
    format!(
        "  devices publish to  mqtt://{devices}\n                      \
         try: mosquitto_sub -p {} -t '#' -v\n  \
         the console is at   http://{console}\n  \
         the cloud is at     mqtt://{cloud}\n                      \
         try: mosquitto_sub -p {} -t 'nearside/#' -v",
        devices.port(),
        cloud.port()
    )
}

fn introduce(demo: &Demo, config: &DemoConfig) -> Result<(), StartError> {
    let DemoConfig { speed, seed, .. } = config;
    say(format!("A city and a hospital ward, simulated {speed}x as fast as real time, seed {seed}."))?;
    say(addresses(demo))?;
    say("  Ctrl-C ends it.\n")?;
    say(format!(
        "{:<19}{:>10}{:>8}{:>10}{:>10}{:>11}{:>11}",
        "simulated time", "readings", "events", "findings", "commands", "bytes in", "bytes out"
    ))
}

/// A line a second until the time is over, the devices are done, or Ctrl-C.
async fn watch(demo: &Demo, args: &DemoArgs) -> Result<(), StartError> {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    let end = tokio::time::sleep(Duration::from_secs(args.seconds));
    tokio::pin!(end);
    loop {
        tokio::select! {
            _ = seconds.tick() => {}
            () = &mut end => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
        let figures = demo.figures();
        if args.json {
            let line = FiguresAt { at: demo.now(), figures };
            say(serde_json::to_string(&line).unwrap_or_default())?;
        } else {
            say(line(&demo.now().to_string(), &figures))?;
        }
        let ended = demo.ended();
        if !ended.is_empty() {
            return Err(StartError::Ended(ended.join(", ")));
        }
        if demo.is_over() {
            return Ok(());
        }
    }
}

/// The figures with the simulated time.
#[derive(Serialize)]
struct FiguresAt {
    at: Timestamp,
    #[serde(flatten)]
    figures: Figures,
}

fn line(now: &str, figures: &Figures) -> String {
    let now: String = now.chars().take(19).collect();
    let Figures { readings, events_out, findings, commands, bytes_in, bytes_out } = figures;
    format!("{now:<19}{readings:>10}{events_out:>8}{findings:>10}{commands:>10}{bytes_in:>11}{bytes_out:>11}")
}
