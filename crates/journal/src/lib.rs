//! The ingest log: what was taken from devices, on disk before it is acknowledged.
//!
//! Promises: a record whose append was answered `Durable` is read back after a crash, in order, or its loss is reported with
//! its place (promise I1); segments are encrypted, each with a key of its own, and a recovered log never appends to an old
//! segment (I7); queue and disk area are bounded (I4).
//! Never: a failed write or fsync is retried: the writer is poisoned and every append is answered `Failed`; a payload is
//! logged (I2); it reads a clock: times come in records.

mod checkpoint;
mod config;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod journal;
mod lock;
mod pace;
mod reader;
mod record;
mod repair;
mod storage;
mod writer;

pub use checkpoint::{Checkpoint, CheckpointRound, CheckpointStore, StoredStream};
pub use config::{JournalConfig, JournalError, WhenFull};
pub use journal::{CommitOutcome, Committed, Journal, JournalHandle, OpenReport};
pub use reader::{CheckReport, Damage, DamageKind, Item, Reader, check, read, read_from};
pub use record::{EpochKind, Lsn, Record};
pub use repair::{DamagedSegment, Repair};
pub use storage::{DirectoryStorage, SegmentFile, Storage};
