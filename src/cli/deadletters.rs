//! `nearside deadletters list|show|replay`: messages that could not be handled. They hold what devices sent: keep them to yourself.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use nearside_deadletters::{DeadLetter, LetterId, ids, read, remove};
use nearside_privacy::KeyRing;
use nearside_schemas::{TopicTemplate, parse_address};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use rumqttc::v5::{AsyncClient, Event, EventLoop, Incoming, MqttOptions};
use serde_json::json;

use super::{counted, open_site};
use crate::error::StartError;

/// Looks at messages that could not be handled, and sends them again. Works whether the gateway runs or not.
#[derive(Args, Debug)]
pub struct DeadlettersArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Lists the letters, oldest first.
    List {
        /// The site's TOML file.
        site: PathBuf,
        /// One JSON object a line instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Shows one letter as JSON, with its payload.
    Show {
        /// The site's TOML file.
        site: PathBuf,
        /// Its number.
        number: LetterId,
    },
    /// Publishes letters again to the gateway, which must run, and removes each that it acknowledged. The time of receipt is then that of the
    /// replay; what still cannot be handled comes back as a new letter. Letters on topics that still no stream claims stay as they are. The
    /// messages are not retained again.
    Replay {
        /// The site's TOML file.
        site: PathBuf,
        /// Their numbers; all where none is given.
        numbers: Vec<LetterId>,
        /// Where the broker listens, where that is not what the file says.
        #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
        broker: Option<SocketAddr>,
    },
}

/// How long the broker may take to acknowledge one.
const PATIENCE: Duration = Duration::from_secs(30);

struct Letters {
    folder: PathBuf,
    keys: KeyRing,
    broker: SocketAddr,
    /// The topics of the site's streams.
    claimed: Vec<TopicTemplate>,
}

/// Runs the command.
pub fn run(args: &DeadlettersArgs) -> Result<(), StartError> {
    match &args.what {
        What::List { site, json } => Letters::of(site)?.list(*json),
        What::Show { site, number } => {
            let letters = Letters::of(site)?;
            let letter = read(&letters.folder, *number, &letters.keys)?;
            let mut line = line(*number, &letter);
            line["payload"] = String::from_utf8_lossy(&letter.payload).into();
            println!("{line}");
            Ok(())
        }
        What::Replay { site, numbers, broker } => {
            let letters = Letters::of(site)?;
            super::block_on(async { letters.replay(numbers, broker.unwrap_or(letters.broker)).await })
        }
    }
}

fn line(number: LetterId, letter: &DeadLetter) -> serde_json::Value {
    json!({
        "number": number.to_string().parse::<u64>().ok(), "reason": letter.reason, "detail": letter.detail, "stage": letter.stage,
        "stream": letter.stream, "received": letter.received, "topic": letter.topic, "bytes": letter.payload.len(),
    })
}

impl Letters {
    fn of(site: &Path) -> Result<Self, StartError> {
        let (config, data, keys) = open_site(site)?;
        let mut broker = config.broker.listen;
        if broker.ip().is_unspecified() {
            broker.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let claimed = config.streams.into_iter().map(|stream| stream.spec.topic).collect();
        Ok(Self { folder: data.join("deadletters"), keys, broker, claimed })
    }

    fn list(&self, json: bool) -> Result<(), StartError> {
        let mut out = std::io::stdout().lock();
        let stdout = || StartError::file(Path::new("standard output"));
        let mut unreadable = 0;
        if !json {
            writeln!(
                out,
                "{:>10}  {:<13}  {:<10}  {:<16}  {:<27}  {:>9}  topic: why",
                "number", "reason", "stage", "stream", "received", "bytes"
            )
            .map_err(stdout())?;
        }
        for number in ids(&self.folder)? {
            let letter = match read(&self.folder, number, &self.keys) {
                Ok(letter) => letter,
                Err(error) => {
                    eprintln!("error: {error}");
                    unreadable += 1;
                    continue;
                }
            };
            let written = if json {
                writeln!(out, "{}", line(number, &letter))
            } else {
                let why = if letter.detail.is_empty() { String::new() } else { format!(": {}", letter.detail) };
                let (stream, received) = (letter.stream.as_deref().unwrap_or("-"), letter.received.to_string());
                writeln!(
                    out,
                    "{:>10}  {:<13}  {:<10}  {stream:<16}  {received:<27}  {:>9}  {}{why}",
                    number.to_string(),
                    letter.reason,
                    letter.stage,
                    letter.payload.len(),
                    letter.topic
                )
            };
            written.map_err(stdout())?;
        }
        if unreadable == 0 { Ok(()) } else { Err(StartError::Damaged("folder of dead letters")) }
    }

    async fn replay(&self, numbers: &[LetterId], broker: SocketAddr) -> Result<(), StartError> {
        let chosen = if numbers.is_empty() { ids(&self.folder)? } else { numbers.to_vec() };
        let mut options = MqttOptions::new("nearside-replay", broker.ip().to_string(), broker.port());
        options.set_keep_alive(PATIENCE);
        let (client, mut events) = AsyncClient::new(options, 1);
        let (mut sent, mut unclaimed, mut unreadable) = (0u64, 0u64, 0u64);
        for number in chosen {
            let letter = match read(&self.folder, number, &self.keys) {
                Ok(letter) => letter,
                Err(error) => {
                    eprintln!("error: {error}");
                    unreadable += 1;
                    continue;
                }
            };
            // The gateway keeps one of each such topic alone, so another would be lost.
            if !self.claimed.iter().any(|topic| topic.matches(&letter.topic).is_some()) {
                unclaimed += 1;
                continue;
            }
            let taken = publish(&client, &mut events, &letter).await;
            taken.map_err(|why| {
                StartError::Surroundings(format!(
                    "the broker at {broker} {why}; {} sent, the others stay",
                    counted(sent, "letter")
                ))
            })?;
            remove(&self.folder, number)?;
            sent += 1;
        }
        println!("{} sent again", counted(sent, "letter"));
        if unclaimed > 0 {
            println!("{} left: no stream claims the topic", counted(unclaimed, "letter"));
        }
        if unreadable > 0 {
            return Err(StartError::Surroundings(format!("{} could not be read", counted(unreadable, "letter"))));
        }
        Ok(())
    }
}

/// Publishes one message and waits until it is acknowledged. What a device cannot send, such as a topic with a wildcard, cannot be in a letter.
async fn publish(client: &AsyncClient, events: &mut EventLoop, letter: &DeadLetter) -> Result<(), String> {
    let queued = client.try_publish(&letter.topic, QoS::AtLeastOnce, false, letter.payload.clone());
    queued.map_err(|_| "does not take it".to_owned())?;
    let acknowledged = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Incoming::PubAck(ack))) => {
                    return match ack.reason {
                        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                        reason => Err(format!("refuses it ({reason:?})")),
                    };
                }
                Ok(_) => {}
                Err(error) => return Err(format!("cannot be reached ({error})")),
            }
        }
    };
    tokio::time::timeout(PATIENCE, acknowledged).await.unwrap_or_else(|_| Err("does not answer".to_owned()))
}
