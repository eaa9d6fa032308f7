//! The lock of a journal's folder: one program at a time writes there. The system gives it back when the program ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::config::JournalError;

/// Held while a program may write to the folder.
pub(crate) struct JournalLock {
    _file: File,
}

impl JournalLock {
    /// Takes the lock of `folder`, making the folder where it is missing.
    ///
    /// # Errors
    /// Where another program holds it, or the folder cannot be used.
    pub(crate) fn acquire(folder: &Path) -> Result<Self, JournalError> {
        let path = folder.join("lock");
        let storage = |source| JournalError::Storage { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(storage)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(storage)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(JournalError::InUse(folder.to_owned())),
            Err(TryLockError::Error(source)) => Err(storage(source)),
        }
    }
}
