//! A load generator: MQTT 3.1.1 QoS 1 publishes by hand over plain TCP, so that it costs little beside what it measures.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::publish::Broker;

/// What to send.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// Where.
    pub broker: Broker,
    /// Different topics, `load/0` and on.
    pub streams: usize,
    /// Messages a second in all; `None`: as fast as they are acknowledged.
    pub rate: Option<f64>,
    /// Connections.
    pub connections: usize,
    /// Most unacknowledged messages of a connection.
    pub inflight: usize,
    /// For how long.
    pub duration: Duration,
    /// Milliseconds since 1970 that the payloads begin with, advancing in real time.
    pub start_millis: i64,
    /// Seed of the values.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// Messages sent.
    pub sent: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Seconds from the first message to the last acknowledgement.
    pub seconds: f64,
    /// Half of the messages were acknowledged within this, in milliseconds.
    pub p50_millis: f64,
    /// 99 of 100 messages were acknowledged within this, in milliseconds.
    pub p99_millis: f64,
}

/// The broker could not be reached or broke the protocol.
#[derive(Debug, thiserror::Error)]
#[error("{what}; is a broker listening there?")]
pub struct LoadError {
    /// What failed.
    pub what: String,
}

fn failed(what: &str, error: impl std::fmt::Display) -> LoadError {
    LoadError { what: format!("{what}: {error}") }
}

/// Sends load and waits until all is acknowledged.
///
/// # Errors
/// Where the broker cannot be reached, refuses, or stops acknowledging.
pub async fn load(config: &LoadConfig) -> Result<LoadReport, LoadError> {
    let connections = config.connections.max(1);
    let mut tasks = Vec::new();
    for n in 0..connections {
        let config = config.clone();
        tasks.push(tokio::spawn(async move { Connection::open(&config, n).await?.run(&config).await }));
    }
    let mut report = LoadReport::default();
    let mut latencies: Vec<u32> = Vec::new();
    for task in tasks {
        let part = task.await.map_err(|error| failed("a connection's task failed", error))??;
        report.sent += part.sent;
        report.acknowledged += part.acknowledged;
        report.seconds = report.seconds.max(part.seconds);
        latencies.extend(part.latencies_micros);
    }
    latencies.sort_unstable();
    let at =
        |q: f64| latencies.get((q * latencies.len() as f64) as usize).map_or(0.0, |micros| f64::from(*micros) / 1e3);
    (report.p50_millis, report.p99_millis) = (at(0.5), at(0.99));
    Ok(report)
}

struct Connection {
    stream: TcpStream,
    topics: Vec<String>,
    rate: Option<f64>,
    state: u64,
    next_id: u16,
    in_flight: VecDeque<Instant>,
    part: Part,
}

#[derive(Default)]
struct Part {
    sent: u64,
    acknowledged: u64,
    seconds: f64,
    latencies_micros: Vec<u32>,
}

/// Latencies kept a connection; later ones only count.
const LATENCIES: usize = 2_000_000;

impl Connection {
    async fn open(config: &LoadConfig, n: usize) -> Result<Self, LoadError> {
        let address = (config.broker.host.as_str(), config.broker.port);
        let mut stream = TcpStream::connect(address).await.map_err(|error| failed("connecting", error))?;
        stream.set_nodelay(true).map_err(|error| failed("connecting", error))?;
        let id = format!("load-{}-{n}", config.seed);
        let mut connect = vec![0x10, (12 + id.len()) as u8, 0, 4];
        connect.extend(b"MQTT\x04\x02\x00\x00\x00");
        connect.push(id.len() as u8);
        connect.extend(id.as_bytes());
        stream.write_all(&connect).await.map_err(|error| failed("connecting", error))?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.map_err(|error| failed("waiting for CONNACK", error))?;
        if answer != [0x20, 2, 0, 0] {
            return Err(failed("CONNACK", "the broker refused"));
        }
        let connections = config.connections.max(1);
        let topics = (0..config.streams.max(1)).filter(|stream| stream % connections == n);
        let mut topics: Vec<String> = topics.map(|stream| format!("load/{stream}")).collect();
        if topics.is_empty() {
            topics.push("load/0".to_owned());
        }
        Ok(Self {
            stream,
            topics,
            rate: config.rate.map(|rate| rate / connections as f64),
            state: config.seed ^ (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            next_id: 0,
            in_flight: VecDeque::new(),
            part: Part::default(),
        })
    }

    async fn run(mut self, config: &LoadConfig) -> Result<Part, LoadError> {
        let began = Instant::now();
        let end = began + config.duration;
        let mut out = Vec::with_capacity(64 << 10);
        let mut input = vec![0; 64 << 10];
        // Bytes of an acknowledgement that came in two reads.
        let mut left = 0;
        loop {
            let now = Instant::now();
            let sending = now < end;
            let due = self.rate.map_or(usize::MAX, |rate| {
                ((now - began).as_secs_f64() * rate) as usize
                    - (self.part.sent as usize).min(((now - began).as_secs_f64() * rate) as usize)
            });
            let room = config.inflight.max(1) - self.in_flight.len();
            let burst = if sending { due.min(room).min(512) } else { 0 };
            for _ in 0..burst {
                self.encode(&mut out, config, began);
            }
            if !out.is_empty() {
                let sent_at = Instant::now();
                self.in_flight.extend(std::iter::repeat_n(sent_at, burst));
                self.stream.write_all(&out).await.map_err(|error| failed("publishing", error))?;
                out.clear();
            }
            if !sending && self.in_flight.is_empty() {
                self.part.seconds = began.elapsed().as_secs_f64();
                return Ok(self.part);
            }
            // Acknowledgements, or the next time to send.
            let patience = if burst > 0 || (sending && self.rate.is_some()) {
                Duration::from_millis(1)
            } else {
                Duration::from_secs(20)
            };
            match timeout(patience, self.stream.read(&mut input[left..])).await {
                Ok(Ok(n)) if n > 0 => left = self.take(&mut input, left + n)?,
                Ok(Ok(_)) => return Err(failed("the broker", "closed the connection")),
                Ok(Err(error)) => return Err(failed("reading acknowledgements", error)),
                Err(_) if patience > Duration::from_secs(1) => {
                    return Err(failed("the broker", "stopped acknowledging"));
                }
                Err(_) => {}
            }
        }
    }

    /// Counts whole acknowledgements and gives back how many bytes of the next one are at the front of `input`.
    fn take(&mut self, input: &mut [u8], length: usize) -> Result<usize, LoadError> {
        let whole = length / 4 * 4;
        let now = Instant::now();
        for ack in input[..whole].chunks_exact(4) {
            if ack[0] != 0x40 || ack[1] != 2 {
                return Err(failed("the broker", "answered with something else than PUBACK"));
            }
            self.part.acknowledged += 1;
            if let Some(sent) = self.in_flight.pop_front()
                && self.part.latencies_micros.len() < LATENCIES
            {
                self.part.latencies_micros.push((now - sent).as_micros().min(u128::from(u32::MAX)) as u32);
            }
        }
        input.copy_within(whole..length, 0);
        Ok(length - whole)
    }

    /// One PUBLISH of `{"ts":…,"value":…}` to the next topic.
    fn encode(&mut self, out: &mut Vec<u8>, config: &LoadConfig, began: Instant) {
        let topic = &self.topics[self.part.sent as usize % self.topics.len()];
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        // Xorshift (Marsaglia, 2003): values need to differ, no more.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let value = 20.0 + (self.state % 1_000) as f64 / 500.0;
        let ts = config.start_millis + began.elapsed().as_millis() as i64;
        let payload = format!("{{\"ts\":{ts},\"value\":{value}}}");
        let mut length = 2 + topic.len() + 2 + payload.len();
        out.push(0x32);
        while length >= 128 {
            out.push((length % 128) as u8 | 0x80);
            length /= 128;
        }
        out.push(length as u8);
        out.extend((topic.len() as u16).to_be_bytes());
        out.extend(topic.as_bytes());
        out.extend(self.next_id.to_be_bytes());
        out.extend(payload.as_bytes());
        self.part.sent += 1;
    }
}
