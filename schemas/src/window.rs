//! A closed window: what the window component hands to models, summaries and roll-ups.

use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::ids::WindowId;
use crate::set_aside::SetAsideCounts;
use crate::time::Timestamp;

/// Why a window closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum CloseCause {
    /// The watermark passed its end.
    Watermark,
    /// It has as many rows as its definition says.
    Full,
    /// Nothing came for the stream's `idle` time.
    Idle,
    /// The stream's definition changed, or the input ended.
    Drain,
    /// Late rows changed a window that was closed before.
    Revision,
}

/// One closed window of one stream.
#[derive(Clone, Debug)]
pub struct ClosedWindow {
    /// Which window.
    pub id: WindowId,
    /// 0 for the first time it closes; a later revision replaces an earlier one.
    pub revision: u32,
    /// The first instant after the window. For count and session windows, the time of the last row plus one microsecond
    /// (plus the gap, for a session).
    pub end: Timestamp,
    /// Why it closed.
    pub cause: CloseCause,
    /// The rows in event-time order, rows of equal time in order of arrival. Columns as in [`crate::arrow_schema`].
    pub rows: RecordBatch,
    /// What was set aside by the stream since the window's definition last closed a window.
    pub set_aside: SetAsideCounts,
}
