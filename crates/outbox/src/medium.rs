//! The disk below the database as a port, so that tests can make it fail and lose what was not synced.
//!
//! What the database does to its file passes through [`Watched`], which remembers how it failed: after a failed sync nobody knows
//! what is on disk (the system may have dropped the pages and call them clean), after a disk that was full everybody does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Where the database lives.
pub trait Medium: Send + Sync + 'static {
    /// The storage with what is on it now. Asked again after a failure, when the storage given before is closed.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;
    /// Sets space aside for a full disk, where that was not done yet.
    fn set_reserve(&self) -> io::Result<()>;
    /// Gives the space that was set aside back to the disk. False where there was none.
    fn release_reserve(&self) -> bool;
}

/// A real file with mode 0600, and beside it one that only takes up space.
#[derive(Debug)]
pub struct FileMedium {
    path: PathBuf,
    reserve: PathBuf,
    reserve_bytes: u64,
}

impl FileMedium {
    /// The file at `path`, with `reserve_bytes` set aside.
    pub fn new(path: &Path, reserve_bytes: u64) -> Self {
        Self { path: path.to_owned(), reserve: path.with_extension("reserve"), reserve_bytes }
    }
}

impl Medium for FileMedium {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        let file = private().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        // Without it a new file's name may be lost with the power, and every commit with it.
        File::open(folder_of(&self.path))?.sync_all()?;
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    }

    fn set_reserve(&self) -> io::Result<()> {
        let there = fs::metadata(&self.reserve).map_or(0, |metadata| metadata.len());
        if there == self.reserve_bytes {
            return Ok(());
        }
        let filled = fill(&self.reserve, self.reserve_bytes);
        if filled.is_err() || self.reserve_bytes == 0 {
            // Half a reserve would only make a full disk fuller.
            let _ = fs::remove_file(&self.reserve);
        }
        filled
    }

    fn release_reserve(&self) -> bool {
        fs::remove_file(&self.reserve).is_ok()
    }
}

/// Written, not only lengthened: a hole takes up no space.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut file = private().write(true).create(true).truncate(true).open(path)?;
    let mut left = bytes;
    while left > 0 {
        let part = left.min(ZEROS.len() as u64);
        file.write_all(&ZEROS[..part as usize])?;
        left -= part;
    }
    file.sync_data()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// How a storage failed.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    sync: AtomicBool,
    full: AtomicBool,
    other: AtomicBool,
}

/// What a failure means for what is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Writes found no room; what was synced before is there.
    Full,
    /// It is not known what is on disk.
    Unknown,
}

impl Faults {
    /// The worst of what happened.
    pub(crate) fn worst(&self) -> Fault {
        let only_full = self.full.load(Ordering::Acquire)
            && !self.sync.load(Ordering::Acquire)
            && !self.other.load(Ordering::Acquire);
        if only_full { Fault::Full } else { Fault::Unknown }
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            (if full { &self.full } else { &self.other }).store(true, Ordering::Release);
        }
        result
    }
}

/// A storage whose failures are remembered.
#[derive(Debug)]
pub(crate) struct Watched {
    inner: Box<dyn StorageBackend>,
    faults: Arc<Faults>,
}

impl Watched {
    pub(crate) fn new(inner: Box<dyn StorageBackend>) -> (Self, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        (Self { inner, faults: faults.clone() }, faults)
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.faults.note(self.inner.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.faults.note(self.inner.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.note(self.inner.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.inner.sync_data();
        if synced.is_err() {
            self.faults.sync.store(true, Ordering::Release);
        }
        synced
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.note(self.inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
