//! Roll-ups: closed windows of many streams put together per site, group and field, with Polars.
//!
//! Promises: each window counts once, with its highest revision; a window that comes after its roll-up closed makes a new
//! revision of it, or is counted as too late; the same windows in the same order of ticks give the same roll-ups (promise I5).
//! Where the clock goes back, what waits does so from that tick on.
//! Never: a roll-up holds a key, or a value of a window with fewer rows than `min_rows`.

mod aggregate;
mod component;
mod saved;

use std::sync::Arc;

use nearside_schemas::{Summary, Timestamp};

pub use aggregate::AggregateError;
pub use component::{HandedOut, RollUps};
pub use saved::{SAVED_PREFIX, SavedRollUps};

/// What the roll-up stage is told.
pub enum RollUpMessage {
    /// A window was summarised.
    Summary(Arc<Summary>),
    /// Time passes.
    Tick(Timestamp),
    /// Close everything.
    Drain,
    /// Another configuration from here on.
    Reload(crate::config::RollUpConfig),
    /// Replay is over.
    Restored,
    /// What was said last is on disk.
    Saved,
    /// Say what changed since what is on disk.
    Save(flume::Sender<SavedRollUps>),
}
