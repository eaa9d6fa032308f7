//! The front door: an MQTT 3.1.1 and 5 server on our own socket, with rumqttd behind it as the router between subscribers.
//!
//! Promises: a QoS 1 or 2 publish is acknowledged only after the intake has answered that it is durable (promise I1); a
//! connection is not read while its messages have no credit (I4); a broken client loses its own connection and no other's (I3).
//! Never: a topic, a client id or a payload is logged (I2); anything but this crate names rumqttd.

mod accept_all;
mod config;
mod connection;
mod filter;
mod front_door;
mod packet;
mod retained;
mod router;
mod session;
mod socket;

pub use accept_all::AcceptAll;
pub use config::{BrokerConfig, BrokerError};
pub use front_door::{FrontDoor, LocalPublisher};
