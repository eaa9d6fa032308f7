//! `[broker]` and what can go wrong.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use nearside_schemas::{
    ByteSize, ConfigFault, Faults, HumanDuration, deserialize_address, deserialize_optional_address,
};
use serde::{Deserialize, Serialize};

/// Filters are kept as a tree that is walked recursively.
const MOST_TOPIC_LEVELS: usize = 1_000;

/// `[broker]`: where devices connect.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Address and port, for MQTT 3.1.1 and 5 and for MQTT over WebSocket at `/mqtt`.
    #[serde(deserialize_with = "deserialize_address")]
    pub listen: SocketAddr,
    /// The user file, relative to this one; see `nearside users`. Once there is one, what it does not grant is refused.
    pub users: Option<PathBuf>,
    /// Who may connect without a name: `never`, `loopback` (from this machine) or `always`.
    pub anonymous: Anonymous,
    /// Most connections at a time; further ones are told so and closed, unless one that nobody was let in on yet can make way.
    pub max_connections: usize,
    /// Most connections at a time from one address. Where it is not stated: half of `max_connections`, and from this machine all.
    pub max_connections_per_address: Option<usize>,
    /// How much of `max_sessions`, `max_retained` and `max_retained_bytes` one user may have, in percent, so that nobody keeps out all
    /// others. Clients without a name are told apart by their addresses, as far as they are known since the start.
    pub user_share_percent: u8,
    /// The largest packet that is read; a client that sends a larger one is disconnected. A CONNECT has at most 128 KiB.
    pub max_packet: ByteSize,
    /// Most QoS 1 and 2 publishes of one connection that wait for the disk; when met, the connection is not read.
    pub receive_maximum: u16,
    /// Most messages a second of one client, on average over a second; above it the connection is read more slowly. 0: no bound.
    pub publish_rate: u32,
    /// Most bytes of a topic or filter.
    pub max_topic_bytes: usize,
    /// Most levels of a topic or filter.
    pub max_topic_levels: usize,
    /// Most topic aliases that a v5 client may set.
    pub topic_alias_maximum: u16,
    /// The longest keep-alive that is granted: a v5 client that asks for a longer one or none is told so. A v3.1.1 client cannot be
    /// told, so what it asks for holds; one that asks for none is found gone by TCP.
    pub keep_alive_cap: HumanDuration,
    /// How long a client may take from connecting to its CONNECT, with TLS and WebSocket handshake.
    pub handshake_timeout: HumanDuration,
    /// How long a client may leave what it is sent unread before it is disconnected.
    pub write_timeout: HumanDuration,
    /// The longest that a session may outlive its connection; a v3.1.1 client that asks for a session gets this.
    pub session_expiry_cap: HumanDuration,
    /// Most sessions that outlive their connection, connected or not; when met, further ones are refused.
    pub max_sessions: usize,
    /// Most messages that wait for one subscriber. When met, the oldest of QoS 0 is shed and counted, or else the oldest.
    pub session_queue: usize,
    /// Most bytes that are held for one subscriber, on their way or waiting. When met, the oldest that waits is shed and counted, QoS 0
    /// first.
    pub session_queue_bytes: ByteSize,
    /// Most bytes that are held for all subscribers together. When met, whoever gets a message and holds more than its `session_share`
    /// loses its own oldest, counted.
    pub sessions_bytes: ByteSize,
    /// Bytes that each subscriber may hold however much all others hold, and beyond it one message where it is connected. So all hold at
    /// most `sessions_bytes`, a share for each session and a `max_packet` for each connection.
    pub session_share: ByteSize,
    /// Threads that serve connections; 0 is one for every two cores.
    pub threads: usize,
    /// How many subscribed clients, of those whose sessions end with their connection, get messages straight from whoever publishes.
    /// The message router serves those beyond, so that one publish is never a whole crowd's work for its connection.
    pub straight_subscribers: usize,
    /// Most bytes that wait for the router between subscribers. When met, further messages are shed and counted.
    pub router_queue_bytes: ByteSize,
    /// Most QoS 1 and 2 messages on their way to one subscriber, where it does not ask for fewer.
    pub inflight: u16,
    /// Most subscriptions of one client.
    pub max_subscriptions: usize,
    /// Most memory of the subscriptions of all clients together, about: each takes half a kilobyte and four times its filter's length. When
    /// met, further ones are refused.
    pub subscriptions_bytes: ByteSize,
    /// Most retained messages; when met, new topics are not retained, and counted.
    pub max_retained: usize,
    /// Most bytes of retained messages; when met, further ones are not retained, and counted.
    pub max_retained_bytes: ByteSize,
    /// How often the topics under `$SYS/broker/` are published.
    pub system_interval: HumanDuration,
    /// Whether MQTT over WebSocket is served, on the same ports.
    pub websocket: bool,
    /// Web pages of these origins, such as `https://console.example`, may connect too; else only those of the broker's own host.
    pub websocket_origins: Vec<String>,
    /// TLS; see `[broker.tls]`.
    pub tls: Option<TlsConfig>,
}

/// `[broker.tls]`: certificates. Changed files are taken over within seconds, without a restart.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Where TLS is served; without it `[broker] listen` serves TLS and nothing else.
    #[serde(default, deserialize_with = "deserialize_optional_address")]
    pub listen: Option<SocketAddr>,
    /// The broker's certificate and those between it and its authority, as PEM. Paths are relative to this file.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
    /// The authorities that clients' certificates must come from, as PEM. Without it clients show none.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether a client must show a certificate: `required`, or `optional`, where a name and password will do too.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// What of a client's certificate is the user's name: `cn`, the common name of its subject, or `san`, its first DNS name.
    #[serde(default)]
    pub identity: Identity,
    /// Lists of revoked certificates, as PEM. An authority without a list here vouches for nobody.
    #[serde(default)]
    pub revoked: Option<PathBuf>,
    /// The oldest version that is spoken: `1.2` or `1.3`.
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// It must.
    #[default]
    Required,
    /// It may.
    Optional,
}

/// What of a certificate is the user's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// The common name of the subject.
    #[default]
    Cn,
    /// The first DNS name among the alternative names.
    San,
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V1_3,
}

/// Who may connect without a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Nobody.
    Never,
    /// Whoever is on this machine.
    Loopback,
    /// Everybody who reaches the port.
    Always,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            users: None,
            anonymous: Anonymous::Loopback,
            max_connections: 10_000,
            max_connections_per_address: None,
            user_share_percent: 50,
            max_packet: ByteSize::mib(1),
            receive_maximum: 1_024,
            publish_rate: 0,
            max_topic_bytes: 4_096,
            max_topic_levels: 128,
            topic_alias_maximum: 32,
            keep_alive_cap: HumanDuration::secs(600),
            handshake_timeout: HumanDuration::secs(10),
            write_timeout: HumanDuration::secs(60),
            session_expiry_cap: HumanDuration::secs(604_800),
            max_sessions: 10_000,
            session_queue: 10_000,
            session_queue_bytes: ByteSize::mib(64),
            sessions_bytes: ByteSize::mib(1_024),
            session_share: ByteSize::kib(64),
            threads: 0,
            straight_subscribers: 1_000,
            router_queue_bytes: ByteSize::mib(64),
            inflight: 1_024,
            max_subscriptions: 1_000,
            subscriptions_bytes: ByteSize::mib(64),
            max_retained: 10_000,
            max_retained_bytes: ByteSize::mib(256),
            system_interval: HumanDuration::secs(10),
            websocket: true,
            websocket_origins: Vec::new(),
            tls: None,
        }
    }
}

/// What can go wrong with the front door.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigFault),
    /// The port cannot be opened.
    #[error("the broker cannot listen on {address}: {source}{}", hint(source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("a thread of the broker could not be started: {0}")]
    Thread(std::io::Error),
    /// Stored sessions cannot be read or written.
    #[error("the session store: {0}")]
    Store(Box<redb::Error>),
    /// The file of sessions cannot be used.
    #[error("sessions in {path}: {why}")]
    StoreFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// A stored value cannot be encrypted.
    #[error("the session store: a value cannot be encrypted")]
    StoreDamaged,
    /// The user file cannot be used.
    #[error("the user file {path}: {why}")]
    Users {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Certificates cannot be used.
    #[error("TLS, {path}: {why}")]
    Tls {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A password cannot be hashed.
    #[error("the password cannot be hashed: it is too long, or the system has no randomness")]
    Password,
    /// The front door is closing.
    #[error("the broker is stopping")]
    Stopping,
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "; another program uses the port: stop it or set [broker] listen to another",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need more rights: use 1883",
        _ => "",
    }
}

impl BrokerError {
    /// Whether the same call may succeed later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Listen { .. } | Self::Thread(_) | Self::Store(_) | Self::StoreFile { .. })
    }

    /// For a file that does not open.
    pub(crate) fn store_file(path: &std::path::Path, error: &redb::Error) -> Self {
        use std::io::ErrorKind;
        let why = match error {
            redb::Error::DatabaseAlreadyOpen => "a gateway runs on this data folder; stop it first".to_owned(),
            redb::Error::Io(source) if !matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
                format!("{error}; check that the folder is writable and has room")
            }
            _ => format!("the file is damaged ({error}); move it away: clients then begin new sessions"),
        };
        Self::StoreFile { path: path.to_owned(), why }
    }

    pub(crate) fn store(error: redb::Error) -> Self {
        Self::Store(Box::new(error))
    }
}

impl BrokerConfig {
    /// Whether a topic or filter is as short and as shallow as it must be.
    pub(crate) fn is_topic_in_bounds(&self, topic: &str) -> bool {
        topic.len() <= self.max_topic_bytes && topic.split('/').count() <= self.max_topic_levels
    }

    /// What one user may have of so many.
    pub(crate) fn share_of(&self, most: usize) -> usize {
        (most.saturating_mul(usize::from(self.user_share_percent)) / 100).max(1)
    }

    /// How many connections may come from an address.
    pub(crate) fn most_connections_of(&self, address: IpAddr) -> usize {
        let all = self.max_connections;
        let of_one = if address.is_loopback() { all } else { all.div_ceil(2) };
        self.max_connections_per_address.unwrap_or(of_one)
    }

    /// Whatever is wrong with the bounds.
    pub fn faults(&self) -> Faults {
        let certified = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let is_unreachable = self.anonymous != Anonymous::Always && self.users.is_none() && !certified;
        let nobody = "listens beyond this machine, but nobody there may connect: set `users` (see `nearside users`), \
                      or `anonymous = \"always\"` where the network is trusted";
        Faults::of("broker")
            .above_zero(&[
                ("max_connections", self.max_connections == 0),
                ("receive_maximum", self.receive_maximum == 0),
                ("session_queue", self.session_queue == 0),
                ("session_queue_bytes", self.session_queue_bytes.bytes() == 0),
                ("sessions_bytes", self.sessions_bytes.bytes() == 0),
                ("router_queue_bytes", self.router_queue_bytes.bytes() == 0),
                ("inflight", self.inflight == 0),
                ("max_connections_per_address", self.max_connections_per_address == Some(0)),
                ("max_topic_bytes", self.max_topic_bytes == 0),
                ("max_topic_levels", self.max_topic_levels == 0),
                ("write_timeout", self.write_timeout.get().is_zero()),
                ("session_expiry_cap", self.session_expiry_cap.get().as_secs() == 0),
                ("system_interval", self.system_interval.get().is_zero()),
                ("max_subscriptions", self.max_subscriptions == 0),
                ("subscriptions_bytes", self.subscriptions_bytes.bytes() == 0),
                ("keep_alive_cap", self.keep_alive_cap.get().as_secs() == 0),
                ("handshake_timeout", self.handshake_timeout.get().is_zero()),
            ])
            .check(
                "max_packet",
                self.max_packet < ByteSize::kib(1) || self.max_packet > ByteSize::mib(256),
                "must be between 1KiB and 256MiB",
            )
            .check(
                "user_share_percent",
                self.user_share_percent == 0 || self.user_share_percent > 100,
                "must be between 1 and 100",
            )
            .check("max_topic_levels", self.max_topic_levels > MOST_TOPIC_LEVELS, "must be at most 1000")
            // A packet id belongs to a place in the queue, and there are 65,535.
            .check("session_queue", self.session_queue > 60_000, "must be at most 60000")
            .check("listen", is_unreachable && !self.listen.ip().is_loopback(), nobody)
    }

    /// Checks that the bounds make sense.
    pub fn validate(&self) -> Result<(), BrokerError> {
        Ok(self.faults().first()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_have_all_but_this_machine() {
        let mut config = BrokerConfig { max_connections: 9, ..BrokerConfig::default() };
        let [here, there] = ["127.0.0.1", "192.0.2.1"].map(|address| address.parse::<IpAddr>().unwrap());
        assert_eq!([here, there].map(|address| config.most_connections_of(address)), [9, 5]);
        config.max_connections_per_address = Some(2);
        assert_eq!([here, there].map(|address| config.most_connections_of(address)), [2, 2]);
        assert_eq!([1, 2, 9, 10_000].map(|most| config.share_of(most)), [1, 1, 4, 5_000]);
        for percent in [0, 101] {
            assert!(BrokerConfig { user_share_percent: percent, ..BrokerConfig::default() }.validate().is_err());
        }
    }
}
