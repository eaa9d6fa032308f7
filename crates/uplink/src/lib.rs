//! The uplink: takes sealed items from the outbox to the cloud, at least once each.
//!
//! Promises: an item leaves the outbox only on the cloud's acknowledgement (promise I1); the most urgent class goes first;
//! a cloud that is away is tried again after exponentially growing pauses with jitter from the given seed (I5).
//! Never: anything but a sealed item can be handed to it (I2: [`nearside_privacy::SealedItem`] is made in `privacy` alone).

mod backoff;
mod config;
mod mqtt;

pub use backoff::Backoff;
pub use config::{CloudUrl, UplinkConfig, UplinkError};
pub use mqtt::Uplink;
