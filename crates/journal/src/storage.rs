//! The disk as a port, so that tests can make it fail.
//!
//! A segment is filled with zeros ahead of what is written: syncing bytes inside a file costs a small part of syncing a file that
//! grows, whose size and blocks must reach the file system's own log each time. What is left over is cut when the segment is
//! closed; after a crash the zeros stay and read as the end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A segment that is being written.
pub trait SegmentFile: Send {
    /// Writes all of `bytes` at the end.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns once everything appended is on disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Takes back everything behind the first `bytes`; that is on disk when this returns. Nothing is appended afterwards.
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
}

/// A folder of segments, named by increasing numbers.
pub trait Storage: Send + Sync + 'static {
    /// The names of the segments, in order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a new segment; its name is on disk when this returns.
    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>>;
    /// A segment's bytes.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// A segment's size in bytes.
    fn size(&self, name: &str) -> io::Result<u64>;
    /// Removes a segment.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A real folder. Files have mode 0600.
#[derive(Debug)]
pub struct DirectoryStorage {
    folder: PathBuf,
    fsync: bool,
}

const SUFFIX: &str = ".nsj";

impl DirectoryStorage {
    /// Opens the folder, making it where it is missing.
    pub fn open(folder: &Path, fsync: bool) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), fsync })
    }

    fn sync_folder(&self) -> io::Result<()> {
        if self.fsync { File::open(&self.folder)?.sync_all() } else { Ok(()) }
    }
}

/// Bytes that are filled with zeros at a time.
const AHEAD: usize = 1 << 20;

struct DirectoryFile {
    file: File,
    fsync: bool,
    /// Bytes written; the file's cursor is there.
    written: u64,
    /// Bytes of the file, zeros ahead of `written` among them.
    filled: u64,
}

impl DirectoryFile {
    fn fill(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.filled))?;
        self.file.write_all(&[0; AHEAD])?;
        self.filled += AHEAD as u64;
        self.file.seek(SeekFrom::Start(self.written)).map(drop)
    }
}

impl SegmentFile for DirectoryFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.written + bytes.len() as u64;
        while self.fsync && self.filled < end {
            self.fill()?;
        }
        self.file.write_all(bytes)?;
        self.written = end;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.fsync { self.file.sync_data() } else { Ok(()) }
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.written = bytes;
        self.file.set_len(bytes)?;
        if self.fsync { self.file.sync_all() } else { Ok(()) }
    }
}

impl Drop for DirectoryFile {
    fn drop(&mut self) {
        // Zeros that stay are only room; the next start reads them as the end.
        let _ = self.file.set_len(self.written);
    }
}

impl Storage for DirectoryStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name.ends_with(SUFFIX)
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(self.folder.join(name))?;
        self.sync_folder()?;
        Ok(Box::new(DirectoryFile { file, fsync: self.fsync, written: 0, filled: 0 }))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.folder.join(name))
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.folder.join(name))?.len())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))?;
        self.sync_folder()
    }
}

/// The number of the first record of the segment with this name.
pub(crate) fn segment_number(name: &str) -> Option<crate::Lsn> {
    name.strip_suffix(SUFFIX)?.parse().ok().map(crate::Lsn)
}

/// The name of the segment whose first record has this number.
pub(crate) fn segment_name(first: crate::Lsn) -> String {
    format!("{:020}{SUFFIX}", first.0)
}
