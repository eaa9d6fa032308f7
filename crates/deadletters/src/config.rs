//! `[deadletters]` and what can go wrong.

use std::path::PathBuf;

use nearside_schemas::{ByteSize, ConfigFault, Faults};
use serde::{Deserialize, Serialize};

use crate::area::LetterId;

/// `[deadletters]`: messages set aside for inspection, below the data folder.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersConfig {
    /// Most bytes on disk. When met, the oldest letter is removed and counted.
    pub quota: ByteSize,
    /// Most letters on disk. When met, the oldest letter is removed and counted.
    pub most: usize,
    /// Most letters that wait to be written. When met, new ones are not kept, and counted: a flood of bad messages must not slow good ones.
    pub queue: usize,
}

impl Default for DeadLettersConfig {
    fn default() -> Self {
        Self { quota: ByteSize::mib(64), most: 10_000, queue: 256 }
    }
}

impl DeadLettersConfig {
    /// Whatever is wrong with the bounds.
    pub fn faults(&self) -> Faults {
        Faults::of("deadletters").above_zero(&[("most", self.most == 0), ("queue", self.queue == 0)])
    }

    /// Checks that the bounds make sense.
    pub fn validate(&self) -> Result<(), DeadLetterError> {
        Ok(self.faults().first()?)
    }
}

/// What can go wrong with dead letters. No variant holds anything of a message.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The disk refused.
    #[error("dead letters {path}: {source}; check that the folder is writable and has room")]
    Storage {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no such letter.
    #[error("there is no letter {0}")]
    Missing(LetterId),
    /// A file is no letter, or of a format that this version does not know.
    #[error("dead letter {path} has format {found:?}, and this version knows only 1: run the version that wrote it")]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its format; `None` where it is no letter at all.
        found: Option<u8>,
    },
    /// A letter does not open.
    #[error("dead letter {path} does not open: it is damaged or was written with another site's key")]
    Sealed {
        /// Which file.
        path: PathBuf,
    },
    /// The system has no randomness to give.
    #[error("the system's source of randomness failed")]
    Randomness,
    /// The thread could not be started.
    #[error("the thread of the dead letters could not be started: {0}")]
    Thread(std::io::Error),
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigFault),
}

impl DeadLetterError {
    /// Whether the same call may succeed later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Storage { .. } | Self::Randomness)
    }
}
