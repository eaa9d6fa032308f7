//! `[broker]` and what can go wrong.

use std::net::SocketAddr;

use nearside_schemas::{ByteSize, HumanDuration};
use serde::{Deserialize, Serialize};

/// `[broker]`: where devices connect.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Address and port. There are no users and no TLS yet: keep it on loopback or behind something that has them.
    pub listen: SocketAddr,
    /// Most connections at a time; further ones are closed at once.
    pub max_connections: usize,
    /// The largest packet that is read; a client that sends a larger one is disconnected.
    pub max_packet: ByteSize,
    /// Most QoS 1 and 2 publishes of one connection that wait for the disk; when met, the connection is not read.
    pub receive_maximum: u16,
    /// The longest keep-alive that is granted; longer ones and none are shortened to it.
    pub keep_alive_cap: HumanDuration,
    /// How long a client may take from connecting to its CONNECT.
    pub handshake_timeout: HumanDuration,
    /// Most messages that wait for one subscriber. When met, the oldest is shed and counted.
    pub session_queue: usize,
    /// Most subscriptions of one client.
    pub max_subscriptions: usize,
    /// Most retained messages; when met, new topics are not retained, and counted.
    pub max_retained: usize,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            max_connections: 10_000,
            max_packet: ByteSize::mib(1),
            receive_maximum: 1_024,
            keep_alive_cap: HumanDuration::secs(600),
            handshake_timeout: HumanDuration::secs(10),
            session_queue: 10_000,
            max_subscriptions: 256,
            max_retained: 10_000,
        }
    }
}

/// What can go wrong with the front door.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The configuration makes no sense.
    #[error("broker.{key}: {why}")]
    Config {
        /// Which key.
        key: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// The port cannot be opened.
    #[error("the broker cannot listen on {address}: {source}{}", hint(source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The router's thread could not be started.
    #[error("the message router could not be started: {0}")]
    Router(std::io::Error),
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
        matches!(self, Self::Listen { .. } | Self::Router(_))
    }
}

impl BrokerConfig {
    /// Checks that the bounds make sense.
    pub fn validate(&self) -> Result<(), BrokerError> {
        for (key, wrong) in [
            ("max_connections", self.max_connections == 0),
            ("receive_maximum", self.receive_maximum == 0),
            ("session_queue", self.session_queue == 0),
            ("max_subscriptions", self.max_subscriptions == 0),
            ("keep_alive_cap", self.keep_alive_cap.get().as_secs() == 0),
            ("handshake_timeout", self.handshake_timeout.get().is_zero()),
        ] {
            if wrong {
                return Err(BrokerError::Config { key, why: "must be above zero" });
            }
        }
        if self.max_packet < ByteSize::kib(1) || self.max_packet > ByteSize::mib(256) {
            return Err(BrokerError::Config { key: "max_packet", why: "must be between 1KiB and 256MiB" });
        }
        Ok(())
    }
}
