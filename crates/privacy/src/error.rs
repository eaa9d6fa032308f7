//! What can go wrong with keys and envelopes. No variant holds a value or key material.

use std::path::PathBuf;

/// A key, an envelope or a sealed item is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum PrivacyError {
    /// The key file cannot be read or made.
    #[error("key file {path}: {source}; check the folder's permissions")]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key file is not one.
    #[error("key file {path} is damaged or not a key file of version 1; restore it from its backup")]
    KeyFormat {
        /// Which file.
        path: PathBuf,
    },
    /// Others may read the key file.
    #[error("key file {path} can be read by others (mode {mode:o}); run: chmod 600 {path}")]
    KeyMode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The folder holds data that was sealed with a key that is not there.
    #[error(
        "{data} holds data that was sealed with the key {id}, and key file {path} is missing; restore it from your backup, or name a \
         new [site] data_dir"
    )]
    KeyMissing {
        /// The key file.
        path: PathBuf,
        /// The data folder.
        data: PathBuf,
        /// The id of its key.
        id: String,
    },
    /// The folder holds data that was sealed with another key.
    #[error(
        "{data} holds data that was sealed with the key {id}, and key file {path} holds the key {found}; restore the right key, or name \
         a new [site] data_dir"
    )]
    KeyOther {
        /// The key file.
        path: PathBuf,
        /// The data folder.
        data: PathBuf,
        /// The id of its key.
        id: String,
        /// The id of the key in the file.
        found: String,
    },
    /// What says which key a folder is sealed with cannot be read.
    #[error("{path} does not say which key the folder is sealed with; if you are sure of the key file, remove {path}")]
    KeyMark {
        /// Which file.
        path: PathBuf,
    },
    /// The system has no randomness to give.
    #[error("the system's source of randomness failed")]
    Randomness,
    /// An envelope does not open with this key in this context.
    #[error("`{place}` does not open with this key: another site's key, or the event was changed on its way")]
    Sealed {
        /// The place in the event's data, as a JSON pointer.
        place: String,
    },
    /// The text is no event of Nearside's.
    #[error("not an event of Nearside: {what}")]
    Event {
        /// What is missing.
        what: &'static str,
    },
    /// Stored bytes were not sealed here.
    #[error("the stored item is damaged or was not sealed on this site")]
    NotSealedHere,
    /// An item could not be written as JSON or Arrow.
    #[error("an item could not be written as {format}")]
    Encode {
        /// The format.
        format: &'static str,
    },
}

impl PrivacyError {
    /// Whether the same call may succeed later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::KeyFile { .. } | Self::Randomness)
    }
}
