//! The folder: one file a letter, named by a number that rises and a digest that tells one message from another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nearside_schemas::KeySource;

use crate::config::DeadLetterError;
use crate::letter::{DeadLetter, Digest};

const SUFFIX: &str = ".nsd";

/// The id of a letter: its number, as `list` shows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LetterId(pub(crate) u64);

impl std::fmt::Display for LetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for LetterId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A file of the folder.
pub(crate) struct Filed {
    pub(crate) id: LetterId,
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

/// The letters of a folder, oldest first. None where there is no folder.
///
/// # Errors
/// Where the folder cannot be read.
pub fn ids(folder: &Path) -> Result<Vec<LetterId>, DeadLetterError> {
    Ok(files(folder)?.into_iter().map(|file| file.id).collect())
}

/// Reads a letter.
///
/// # Errors
/// Where it is not there, does not open with this key, or has another format.
pub fn read(folder: &Path, id: LetterId, keys: &dyn KeySource) -> Result<DeadLetter, DeadLetterError> {
    let path = path_of(folder, id)?;
    let bytes = fs::read(&path).map_err(storage(&path))?;
    DeadLetter::open(&bytes, keys, &path)
}

/// Removes a letter; that it is gone already is no error. A gateway that runs on the folder may do the same.
///
/// # Errors
/// Where the disk refuses.
pub fn remove(folder: &Path, id: LetterId) -> Result<(), DeadLetterError> {
    let Ok(path) = path_of(folder, id) else { return Ok(()) };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(storage(&path)(error)),
        _ => Ok(()),
    }
}

fn path_of(folder: &Path, id: LetterId) -> Result<PathBuf, DeadLetterError> {
    let found = files(folder)?.into_iter().find(|file| file.id == id);
    found.map(|file| folder.join(name_of(file.id, &file.digest))).ok_or(DeadLetterError::Missing(id))
}

/// The letters of a folder with their sizes, oldest first; what is not named like a letter is left alone.
pub(crate) fn files(folder: &Path) -> Result<Vec<Filed>, DeadLetterError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(storage(folder))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(storage(folder))?;
        let Some((id, digest)) = entry.file_name().to_str().and_then(parse_name) else { continue };
        // One that is gone in between was removed by somebody else.
        let Ok(metadata) = entry.metadata() else { continue };
        found.push(Filed { id, digest, bytes: metadata.len() });
    }
    found.sort_by_key(|file| file.id);
    Ok(found)
}

pub(crate) fn name_of(id: LetterId, digest: &Digest) -> String {
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{:020}-{digits}{SUFFIX}", id.0)
}

fn parse_name(name: &str) -> Option<(LetterId, Digest)> {
    let (number, digits) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    if number.len() != 20 || digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = Digest::default();
    for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some((number.parse().ok()?, digest))
}

/// Writes a file so that it is there whole or not at all.
pub(crate) fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = folder.join(format!(".{name}.tmp"));
    let written = write_new(&draft, bytes)
        .and_then(|()| fs::rename(&draft, folder.join(name)))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        // A draft that stays behind is encrypted, but takes up room.
        let _ = fs::remove_file(&draft);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

pub(crate) fn storage(path: &Path) -> impl FnOnce(io::Error) -> DeadLetterError + '_ {
    move |source| DeadLetterError::Storage { path: path.to_owned(), source }
}
