//! The outbox: sealed items on disk until the cloud has acknowledged them.
//!
//! Promises: an item whose put was answered is on disk (promise I1) and stays until it is acknowledged or, past the quota, is shed
//! and counted (I4); urgent classes are handed out first; one id is there once, and a later revision of the same replaces an
//! earlier one that waits (the cloud keeps the highest anyway), counted; what the cloud refuses for good, and what is damaged, is kept as
//! a dead letter with the reason, and the rest goes on.
//! Never: it holds anything that was not sealed on this site (I2); a damaged item blocks the queue; a failed commit is answered as done.

mod config;
mod dead;
mod inspect;
mod medium;
mod outbox;
mod remembered;
mod salvage;
mod stats;
mod store;
mod tables;
mod writer;

pub use config::{OutboxConfig, OutboxError};
pub use dead::{DeadLetter, DeadReason};
pub use inspect::{Inspector, Report, Requeued, WaitingItem};
pub use medium::{FileMedium, Medium};
pub use outbox::{Outbox, OutboxHandle};
pub use salvage::{Salvage, repair};
pub use stats::{Entry, Sequence, Stats, Take};
pub use store::Trouble;
