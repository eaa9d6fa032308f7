//! The outbox: sealed items on disk until the cloud has acknowledged them.
//!
//! Promises: an item whose put was answered is on disk (promise I1) and stays until it is acknowledged or, past the quota, is shed
//! and counted (I4); urgent classes are handed out first; one id is there once, and a later revision of the same replaces an
//! earlier one that was not sent.
//! Never: it holds anything that was not sealed on this site (I2); a damaged item blocks the queue.

mod outbox;
mod store;
mod writer;

pub use outbox::{Outbox, OutboxConfig, OutboxError, OutboxHandle};
pub use store::{Entry, Sequence, Stats};
