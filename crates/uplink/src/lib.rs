//! The uplink: takes sealed items from the outbox to the cloud, at least once each.
//!
//! Promises: an item leaves the outbox only on the cloud's acknowledgement of its own packet (promise I1), or as a dead letter where the cloud
//! will never take it; the most urgent class goes first, and after an outage what is new and urgent overtakes what piled up; a cloud
//! that is away is tried again after exponentially growing pauses with full jitter from the given seed (I5), then at its next address; an item
//! that is sent again has the same id.
//! Never: anything but a sealed item can be handed to it (I2: [`nearside_privacy::SealedItem`] is made in `privacy` alone); one item or one class
//! that the cloud refuses keeps the others from going.

mod backoff;
mod config;
mod endpoints;
mod flight;
mod link;
mod pacing;
mod refusals;
mod session;
mod uplink;

pub use backoff::Backoff;
pub use config::{CloudUrl, Protocol, UplinkConfig, UplinkError};
pub use uplink::Uplink;
