//! A real gateway process on free ports in a temporary folder, ended when the test ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "a test that cannot go on fails; not every test uses all of it"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nearside_broker::{AcceptAll, BrokerConfig, FrontDoor};
use nearside_schemas::SystemClock;
use nearside_telemetry::Telemetry;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};

/// Nothing in a test takes longer than this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A stream of numbers, in windows of three.
pub const PLAIN_STREAM: &str = r#"
[[stream]]
name = "plain"
topic = "plain/{room}"
format = "number"
fields = { value = "$" }
windows = [{ kind = "count", rows = 3 }]
"#;

/// Runs the program to its end.
pub fn nearside(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nearside")).args(arguments).output().unwrap()
}

/// A gateway process.
pub struct Gateway {
    child: Child,
    pub folder: tempfile::TempDir,
    pub broker: SocketAddr,
    /// Where TLS has a port of its own.
    pub broker_tls: Option<SocketAddr>,
    pub console: SocketAddr,
}

/// Writes a site file: `streams` and the like after a head that listens on free ports.
pub fn write_site(folder: &Path, rest: &str) -> PathBuf {
    let path = folder.join("site.toml");
    let head = "[site]\nid = \"test-site\"\n[broker]\nlisten = \"127.0.0.1:0\"\n[console]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&path, format!("{head}{rest}")).unwrap();
    path
}

/// Adds a user with the password `word`.
pub fn add_user(users: &Path, name: &str, role: &str) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nearside"))
        .args(["users", "add", name, "--role", role, "--file", users.to_str().unwrap()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"word\n").unwrap();
    assert!(child.wait().unwrap().success());
}

impl Gateway {
    pub fn start(rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_site(folder.path(), rest);
        Self::start_in(folder, &[]).expect("the gateway runs")
    }

    /// Starts on a folder that has a site file already, with these environment variables; `None` where it ends before it runs.
    pub fn start_in(folder: tempfile::TempDir, environment: &[(&str, &str)]) -> Result<Self, tempfile::TempDir> {
        Self::start_with(folder, environment, &[])
    }

    /// As [`Gateway::start_in`], with these arguments.
    pub fn start_with(
        folder: tempfile::TempDir,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Result<Self, tempfile::TempDir> {
        let said = std::fs::File::create(folder.path().join("stderr.txt")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_nearside"))
            .arg("run")
            .arg(folder.path().join("site.toml"))
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(said)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut broker_tls = None;
        let mut address = |scheme: &str| -> Option<SocketAddr> {
            loop {
                let line = lines.next()?.ok()?;
                if let Some((_, address)) = line.split_once("mqtts://") {
                    broker_tls = address.trim().parse().ok();
                }
                if let Some((_, address)) = line.split_once(scheme) {
                    return address.trim().parse().ok();
                }
            }
        };
        let Some((broker, console)) = address("mqtt://").zip(address("http://")) else {
            child.wait().unwrap();
            return Err(folder);
        };
        Ok(Self { child, folder, broker, broker_tls, console })
    }

    /// `kill -9`; gives back the folder.
    pub fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has ended by itself; gives back the exit code.
    pub fn wait_for_end(mut self) -> (Option<i32>, tempfile::TempDir) {
        let end = Instant::now() + PATIENCE;
        while self.is_running() {
            assert!(Instant::now() < end, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        let code = self.child.wait().unwrap().code();
        (code, std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap()))
    }

    pub fn site(&self) -> PathBuf {
        self.folder.path().join("site.toml")
    }

    /// What it has said on standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr.txt")).unwrap()
    }

    /// Waits until it has said this on standard error.
    pub fn wait_until_said(&self, what: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.said().contains(what) {
            assert!(Instant::now() < end, "{what} is not said: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("data/site.key")
    }

    /// One page of the console.
    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.console).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Sends JSON to the console, as this user (`name:password`) where one is given; gives back status and body.
    pub fn post(&self, path: &str, body: &str, user: Option<&str>) -> (u16, String) {
        let mut stream = TcpStream::connect(self.console).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let user = user.map(|user| {
            let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, user);
            format!("Authorization: Basic {encoded}\r\n")
        });
        let (host, user, length) = (self.console, user.unwrap_or_default(), body.len());
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n");
        write!(stream, "{head}{user}Content-Length: {length}\r\n\r\n{body}").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(&text);
        (status, text.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
    }

    /// The state as the console gives it.
    pub fn state(&self) -> serde_json::Value {
        let text = self.get("/api/v1/state");
        serde_json::from_str(text.split_once("\r\n\r\n").expect(&text).1).unwrap()
    }

    /// A metric's value, 0 where the line is not there.
    pub fn metric(&self, line: &str) -> f64 {
        let text = self.get("/metrics");
        let found = text.lines().find_map(|candidate| candidate.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or(0.0)
    }

    /// Waits until a metric is at least `least`.
    pub fn wait_for(&self, line: &str, least: f64) {
        let end = Instant::now() + PATIENCE;
        while self.metric(line) < least {
            assert!(Instant::now() < end, "{line} stays at {}\n{}", self.metric(line), self.get("/metrics"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGTERM; gives back the exit code.
    pub fn terminate(mut self) -> (Option<i32>, tempfile::TempDir) {
        self.signal("TERM");
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
                return (status.code(), folder);
            }
            if Instant::now() >= end {
                // Where each thread is, for whoever looks into it.
                let said = std::fs::read_to_string(self.folder.path().join("stderr.txt")).unwrap_or_default();
                panic!("the gateway does not stop: {said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Topics and payloads in order of arrival.
type Received = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A broker that stands for the cloud and keeps what it gets.
pub struct Cloud {
    pub address: SocketAddr,
    received: Received,
    telemetry: Telemetry,
    _door: FrontDoor,
}

impl Cloud {
    pub async fn start() -> Self {
        let received = Received::default();
        let kept = received.clone();
        let intake = AcceptAll::watching(move |batch| {
            let mut kept = kept.lock().unwrap();
            kept.extend(batch.iter().map(|publish| (publish.topic.as_str().to_owned(), publish.payload.to_vec())));
        });
        let config = BrokerConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..BrokerConfig::default() };
        let telemetry = Telemetry::new();
        let door = FrontDoor::bind(config, Arc::new(intake), Arc::new(SystemClock), &telemetry).await.unwrap();
        Self { address: door.local_addr(), received, telemetry, _door: door }
    }

    /// Waits until there are this many subscriptions.
    pub async fn wait_for_subscribers(&self, count: usize) {
        let line = format!("nearside_broker_subscriptions{{}} {count}");
        let end = Instant::now() + PATIENCE;
        while !self.telemetry.render().contains(&line) {
            assert!(Instant::now() < end, "nobody subscribes\n{}", self.telemetry.render());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Topics and events so far.
    pub fn events(&self) -> Vec<(String, serde_json::Value)> {
        let received = self.received.lock().unwrap();
        received.iter().map(|(topic, bytes)| (topic.clone(), serde_json::from_slice(bytes).unwrap())).collect()
    }

    /// Waits until an event satisfies the condition.
    pub async fn wait_for(&self, what: impl Fn(&str, &serde_json::Value) -> bool) -> serde_json::Value {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some((_, event)) = self.events().into_iter().find(|(topic, event)| what(topic, event)) {
                return event;
            }
            assert!(Instant::now() < end, "the event does not come; there are: {:?}", self.events());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

/// An MQTT 3.1.1 client.
pub fn client(id: &str, broker: SocketAddr) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, broker.ip().to_string(), broker.port());
    options.set_keep_alive(Duration::from_secs(20)).set_max_packet_size(16 << 20, 16 << 20);
    AsyncClient::new(options, 1_000)
}

/// Publishes with QoS 1 and returns once all are acknowledged.
pub async fn publish_all(id: &str, broker: SocketAddr, messages: Vec<(String, Vec<u8>)>) {
    let (client, mut events) = client(id, broker);
    let count = messages.len();
    let sending = tokio::spawn(async move {
        for (topic, payload) in messages {
            client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
        }
        client
    });
    let mut acknowledged = 0;
    tokio::time::timeout(PATIENCE, async {
        while acknowledged < count {
            if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.expect("the connection holds") {
                acknowledged += 1;
            }
        }
    })
    .await
    .expect("every message is acknowledged in time");
    sending.await.unwrap();
}
