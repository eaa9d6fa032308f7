//! What a stream keeps to tell that nothing comes from it any more.

use nearside_schemas::Timestamp;
use serde::{Deserialize, Serialize};

/// The label of a stream from which nothing comes.
pub const SILENT: &str = "silent";

/// Since when nothing has come from a stream.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Silence {
    /// The last receipt, or later: while the gateway was away nothing could come. The earliest time of all: nothing ever came.
    pub(super) since: Timestamp,
    /// It was told.
    pub(super) is_told: bool,
}

impl Default for Silence {
    fn default() -> Self {
        Self { since: Timestamp::MIN, is_told: false }
    }
}

impl Silence {
    /// What a state of before silence was told did not say: since when.
    #[must_use]
    pub(super) fn or_since(self, last_received: Timestamp) -> Self {
        if self.since > Timestamp::MIN { self } else { Self { since: last_received, ..self } }
    }

    /// Something came.
    pub(super) fn ends(&mut self, received: Timestamp) {
        *self = Self { since: self.since.max(received), is_told: false };
    }

    /// Whatever came before, silence counts from then on.
    pub(super) fn counts_from(&mut self, awake_since: Timestamp) {
        if self.since > Timestamp::MIN {
            self.since = self.since.max(awake_since);
        }
    }
}
