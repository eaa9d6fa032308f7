//! The front door: an MQTT 3.1.1 and 5 server on our own socket, with rumqttd behind it as the router between subscribers.
//!
//! Promises: a QoS 1 or 2 publish is acknowledged only after the intake has answered that it is durable (promise I1); a
//! connection is not read while its messages have no credit (I4); a broken client loses its own connection and no other's (I3).
//! Never: a topic, a client id or a payload is logged (I2); anything but this crate names rumqttd.

mod accept_all;
mod access;
mod answers;
mod arrivals;
mod config;
mod connection;
mod filter;
mod flush;
mod front_door;
#[doc(hidden)]
pub mod fuzz;
mod handshake;
mod message;
mod outgoing;
mod packet;
mod peer;
mod queue;
mod rate;
mod recent;
mod recovery;
mod refusals;
mod retained;
mod router;
mod routes;
mod seldom;
mod session;
mod sessions;
mod share;
mod socket;
mod store;
mod subscribe;
mod system_topics;
mod taken;
mod threads;
mod tls;
mod transport;
mod waiting;
mod websocket;
mod will;
mod writer;

pub use accept_all::AcceptAll;
pub use access::{Credentials, User, Users, hash_password};
pub use config::{Anonymous, BrokerConfig, BrokerError, ClientCertificates, Identity, TlsConfig, TlsVersion};
pub use front_door::{FrontDoor, LocalPublisher, Ports};
pub use recovery::Recovery;
pub use store::SessionStore;
