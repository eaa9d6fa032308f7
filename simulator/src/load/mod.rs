//! The load generator: how many QoS 1 messages a second does a broker acknowledge, and how fast?
//!
//! It speaks MQTT 3.1.1 by hand over plain TCP, copies prepared packets and changes three places in each, so that the
//! broker is measured and not the generator. Promises: counts only what was acknowledged; a broken or wrong answer ends
//! that connection and is reported; it keeps at most `inflight` messages a connection outstanding. Never: sends again
//! what was lost, for that would hide it.

mod connection;
mod histogram;
mod packets;
mod wire;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use nearside_schemas::Clock;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::address::BrokerUrl;
use crate::error::SimulatorError;
use connection::{Outcome, Plan};
use histogram::Histogram;

/// When a load ends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum LoadLimit {
    /// After this time.
    Duration(Duration),
    /// After this many messages.
    Messages(u64),
}

/// What load to make.
#[derive(Clone, PartialEq, Debug)]
pub struct LoadConfig {
    /// The broker; plain MQTT only.
    pub broker: BrokerUrl,
    /// Topics `load/0`, `load/1` …, 1 to 10,000,000. Each belongs to one connection, so that its order is kept.
    pub streams: usize,
    /// Messages a second over all connections; `None`: as many as the broker acknowledges.
    pub rate: Option<f64>,
    /// Connections, 1 to 10,000, and never more than streams.
    pub connections: usize,
    /// Messages of one connection that may wait for their acknowledgement, 1 to 65,000.
    pub inflight: u16,
    /// When it ends.
    pub limit: LoadLimit,
    /// Where the values start.
    pub seed: u64,
    /// Client ids are this and a number.
    pub client_prefix: String,
    /// How long to wait for the last acknowledgements.
    pub drain: Duration,
}

impl LoadConfig {
    /// As much as the broker takes for 10 s: 1,000 streams over 4 connections, 1,000 messages in flight on each.
    pub fn new(broker: BrokerUrl) -> Self {
        Self {
            broker,
            streams: 1_000,
            rate: None,
            connections: 4,
            inflight: 1_000,
            limit: LoadLimit::Duration(Duration::from_secs(10)),
            seed: 0,
            client_prefix: "load".to_owned(),
            drain: Duration::from_secs(10),
        }
    }

    /// Says which setting makes no sense.
    pub fn validate(&self) -> Result<(), SimulatorError> {
        let wrong = |setting, hint| Err(SimulatorError::Setting { setting, hint });
        if self.broker.tls {
            return wrong("broker", "has to be mqtt://: the load generator speaks no TLS");
        }
        if !(1..=10_000_000).contains(&self.streams) {
            return wrong("streams", "has to be from 1 to 10000000");
        }
        if !(1..=10_000).contains(&self.connections) {
            return wrong("connections", "has to be from 1 to 10000");
        }
        if !(1..=65_000).contains(&self.inflight) {
            return wrong("inflight", "has to be from 1 to 65000: packet ids have 16 bits");
        }
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return wrong("rate", "has to be above 0: messages a second; leave it out for as many as possible");
        }
        if self.client_prefix.is_empty() || self.client_prefix.len() > 100 {
            return wrong("client_prefix", "has to have 1 to 100 bytes");
        }
        Ok(())
    }
}

/// What a load came to.
#[derive(Debug)]
pub struct LoadReport {
    /// Messages sent.
    pub sent: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Bytes sent, headers included.
    pub bytes: u64,
    /// Acknowledgements that came in another order than their messages, which MQTT 3.1.1 section 4.6 forbids.
    pub out_of_order: u64,
    /// From the first message to the last acknowledgement.
    pub elapsed: Duration,
    /// Half of all were acknowledged within this time. It counts from when a message was handed to the socket, or with
    /// a `rate`, from when it was due, if it had to wait for that: a stalled broker cannot hide the messages it held up.
    pub p50: Duration,
    /// 99% were.
    pub p99: Duration,
    /// All were.
    pub max: Duration,
    /// Connections that ended early, and why.
    pub errors: Vec<SimulatorError>,
}

impl LoadReport {
    /// Acknowledged messages a second.
    pub fn per_second(&self) -> f64 {
        self.acknowledged as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Whether everything that was sent was acknowledged, and no connection failed.
    pub fn is_complete(&self) -> bool {
        self.errors.is_empty() && self.sent == self.acknowledged
    }
}

/// Makes load until its limit or until `stop` is ready, then waits for the last acknowledgements. Fails where the
/// configuration is wrong, or no connection could be made at all; other failures are in the report.
pub async fn load(
    config: LoadConfig,
    clock: Arc<dyn Clock>,
    stop: impl Future<Output = ()> + Send,
) -> Result<LoadReport, SimulatorError> {
    config.validate()?;
    let connections = config.connections.min(config.streams);
    let (stopping, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let plan = Plan::new(&config, number, connections);
        tasks.spawn(connection::run(plan, Arc::clone(&clock), stopped.clone()));
    }
    drop(stopped);
    let outcomes = collect(&mut tasks, config.limit, &stopping, stop).await?;
    report(outcomes)
}

async fn collect(
    tasks: &mut JoinSet<Outcome>,
    limit: LoadLimit,
    stopping: &watch::Sender<bool>,
    stop: impl Future<Output = ()> + Send,
) -> Result<Vec<Outcome>, SimulatorError> {
    let end = async {
        match limit {
            LoadLimit::Duration(duration) => time::sleep(duration).await,
            LoadLimit::Messages(_) => std::future::pending().await,
        }
    };
    let (mut stop, mut end) = (std::pin::pin!(stop), std::pin::pin!(end));
    let mut told = false;
    let mut outcomes = Vec::with_capacity(tasks.len());
    loop {
        tokio::select! {
            () = &mut stop, if !told => told = true,
            () = &mut end, if !told => told = true,
            ended = tasks.join_next() => match ended {
                Some(outcome) => outcomes.push(outcome.map_err(|_| SimulatorError::Task)?),
                None => return Ok(outcomes),
            },
        }
        if told {
            stopping.send_replace(true);
        }
    }
}

fn report(outcomes: Vec<Outcome>) -> Result<LoadReport, SimulatorError> {
    let mut latencies = Histogram::new();
    let mut report = LoadReport {
        sent: 0,
        acknowledged: 0,
        bytes: 0,
        out_of_order: 0,
        elapsed: Duration::ZERO,
        p50: Duration::ZERO,
        p99: Duration::ZERO,
        max: Duration::ZERO,
        errors: Vec::new(),
    };
    let mut span: Option<(Instant, Instant)> = None;
    for outcome in outcomes {
        report.sent += outcome.sent;
        report.acknowledged += outcome.acknowledged;
        report.bytes += outcome.bytes;
        report.out_of_order += outcome.out_of_order;
        latencies.merge(&outcome.latencies);
        if let Some((first, last)) = outcome.span {
            span = Some(span.map_or((first, last), |(from, to)| (from.min(first), to.max(last))));
        }
        report.errors.extend(outcome.error);
    }
    let Some((first, last)) = span else {
        // Nothing was ever sent: the reason is the result.
        return match report.errors.pop() {
            Some(error) => Err(error),
            None => Ok(report),
        };
    };
    report.elapsed = last.duration_since(first);
    report.p50 = latencies.quantile(0.5);
    report.p99 = latencies.quantile(0.99);
    report.max = latencies.max();
    Ok(report)
}
