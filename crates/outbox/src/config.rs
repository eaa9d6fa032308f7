//! `[outbox]` and what can go wrong.

use std::path::PathBuf;

use nearside_schemas::{ByteSize, ConfigFault, Faults};
use serde::{Deserialize, Serialize};

/// `[outbox]`: what waits for the cloud.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxConfig {
    /// Most bytes that wait. When met, the oldest item of the least urgent class is shed and counted: roll-ups, then summaries, then
    /// alerts. So an alert always finds room while anything less urgent waits.
    pub quota: ByteSize,
    /// Most bytes of dead letters: items that the cloud refused for good or that were found damaged. When met, the oldest is shed and
    /// counted.
    pub dead_quota: ByteSize,
    /// Disk space that is set aside and given up when the disk is full, so that what is urgent can still be written; 0B: none.
    pub reserve: ByteSize,
    /// How many of the items that the cloud acknowledged last are remembered: put again after a crash, they are not sent again.
    pub remembered: usize,
    /// Most items that wait to be committed; when met, sealing waits.
    pub queue: usize,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            quota: ByteSize::mib(1024),
            dead_quota: ByteSize::mib(64),
            reserve: ByteSize::mib(8),
            remembered: 65_536,
            queue: 4_096,
        }
    }
}

impl OutboxConfig {
    /// Whatever is wrong with the bounds.
    pub fn faults(&self) -> Faults {
        let too_many = "must be at most 10000000: each takes about 50 bytes of memory";
        Faults::of("outbox")
            .check("quota", self.quota < ByteSize::mib(1), "must be at least 1MiB")
            .above_zero(&[("queue", self.queue == 0)])
            .check("remembered", self.remembered > 10_000_000, too_many)
    }

    /// Checks that the bounds make sense.
    pub fn validate(&self) -> Result<(), OutboxError> {
        Ok(self.faults().first()?)
    }
}

/// What can go wrong with the outbox.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The file cannot be opened.
    #[error("outbox {path}: {why}; check that the folder exists, is writable and has room")]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Another process has the file open.
    #[error(
        "outbox {path} is in use: a gateway runs on this data folder; stop it first, or read its figures on its console"
    )]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("there is no outbox {path} yet: the gateway has not run on this data folder")]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// The file has a format that this version does not know.
    #[error(
        "outbox {path} has format {found}, and this version knows formats up to {known}: run the version that wrote it, or move the file \
         away to begin anew"
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format that is known.
        known: u64,
    },
    /// The file is damaged.
    #[error(
        "outbox {path} is damaged ({why}); `nearside outbox repair SITE.toml` sets it aside and saves every item that is whole"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// A transaction failed. The database is not used again before it was opened anew.
    #[error("outbox: {0}")]
    Database(#[from] redb::Error),
    /// An earlier failure left it unknown what is on disk; nothing is written before a restart.
    #[error("the outbox failed to write to its disk and is not used before a restart")]
    Poisoned,
    /// The disk refused while the outbox was repaired.
    #[error("outbox {path}: {source}")]
    Storage {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread could not be started.
    #[error("the outbox's thread could not be started: {0}")]
    Thread(std::io::Error),
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigFault),
}

impl OutboxError {
    /// Whether the same call may succeed later without a restart.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Database(_) | Self::InUse { .. })
    }
}
