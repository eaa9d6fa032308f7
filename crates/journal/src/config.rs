//! `[journal]` and what can go wrong.

use std::path::PathBuf;

use nearside_schemas::{ByteSize, ConfigFault, Faults, HumanDuration};
use serde::{Deserialize, Serialize};

/// What happens when the journal's disk area is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The oldest segment is removed and counted.
    #[default]
    ShedOldest,
    /// New messages are not acknowledged until there is room.
    Refuse,
}

/// `[journal]`: the log that makes an acknowledgement safe.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// A segment this large is closed and a new one begun.
    pub segment: ByteSize,
    /// Most bytes of segments on disk.
    pub quota: ByteSize,
    /// What happens when the quota is met: `shed_oldest` or `refuse`.
    pub when_full: WhenFull,
    /// Most bytes that wait to be written; when met, connections wait.
    pub queue: ByteSize,
    /// The most time between the starts of two commits, kept from 2,000 records a second on; below, and where clients wait for their
    /// answers before they send again, it is less. What comes within it shares one fsync, which costs far less than many. 0s: the next commit
    /// starts when the last ends.
    pub commit_interval: HumanDuration,
    /// Whether a commit waits for the disk. Without it an acknowledgement survives a crash of the gateway but not of the
    /// machine.
    pub fsync: bool,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            segment: ByteSize::mib(64),
            quota: ByteSize::mib(2_048),
            when_full: WhenFull::ShedOldest,
            queue: ByteSize::mib(16),
            commit_interval: HumanDuration::millis(15),
            fsync: true,
        }
    }
}

impl JournalConfig {
    /// Whatever is wrong with the sizes, alone and together.
    pub fn faults(&self) -> Faults {
        Faults::of("journal")
            .check("segment", self.segment < ByteSize::kib(64), "must be at least 64KiB")
            .check("quota", self.quota.bytes() / 2 < self.segment.bytes(), "must hold at least two segments")
            .check("queue", self.queue < ByteSize::kib(64), "must be at least 64KiB")
    }

    /// Checks that the sizes make sense together.
    pub fn validate(&self) -> Result<(), JournalError> {
        Ok(self.faults().first()?)
    }
}

/// The journal could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigFault),
    /// The disk refused. Trying again may help once the cause is gone.
    #[error("journal {path}: {source}; check that the folder exists, is writable and has room")]
    Storage {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of checkpoints cannot be used. Trying again may help once the cause is gone.
    #[error("checkpoints in {path}: {why}")]
    Checkpoint {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// Another program writes to the folder.
    #[error("journal {0} is in use: a gateway runs on it; stop it first")]
    InUse(PathBuf),
    /// A thread could not be started.
    #[error("the journal's thread could not be started: {0}")]
    Thread(std::io::Error),
}

impl JournalError {
    /// Whether the same call may succeed later.
    pub const fn is_transient(&self) -> bool {
        !matches!(self, Self::Config(_))
    }
}
