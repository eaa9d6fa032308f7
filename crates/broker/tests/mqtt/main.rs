//! The broker from outside, byte by byte: the rules of OASIS MQTT 3.1.1 and 5.0 by the number of their statement, who may do
//! what, what is kept, and what clients that wish no good can do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod access;
mod connecting;
mod exactly_once;
mod held;
mod hostile;
mod limits;
mod packets;
mod properties;
mod rights;
mod sessions;
mod stored;
mod straight;
mod subscriptions;
mod support;
mod transports;
mod wills;
