//! The key ring: one master key in a file that only its owner can read; every other key is derived from it.
//!
//! File, version 1: the line `nearside-key-v1`, then the 32 random bytes as 64 hexadecimal digits, then `id ` and the key's id. The id
//! is a checksum: a digit mistyped or damaged would otherwise be a key that opens nothing. It may be missing.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use nearside_schemas::{KeyPurpose, KeySource, SecretKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::PrivacyError;

const HEADER: &str = "nearside-key-v1";
/// More than any key file has.
const MAX_FILE: u64 = 4_096;

/// `[privacy]`: keys.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrivacyConfig {
    /// The file of the master key, below the data folder where the path is relative. Made on the first run with mode 0600. Who has
    /// it can open everything; without it nothing can be opened: back it up.
    pub key_file: PathBuf,
}

impl Default for PrivacyConfig {
    fn default() -> Self {
        Self { key_file: PathBuf::from("site.key") }
    }
}

/// The keys of a site.
pub struct KeyRing {
    master: SecretKey,
    id: String,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRing({})", self.id)
    }
}

impl KeyRing {
    /// Reads the key file, making it where it is missing.
    ///
    /// # Errors
    /// Where it cannot be read or made, is damaged, or others may read it.
    pub fn load_or_create(path: &Path) -> Result<Self, PrivacyError> {
        match Self::load(path) {
            Err(PrivacyError::KeyFile { source, .. }) if source.kind() == io::ErrorKind::NotFound => Self::create(path),
            loaded => loaded,
        }
    }

    /// Reads the key file.
    ///
    /// # Errors
    /// Where it cannot be read, is damaged, or others may read it.
    pub fn load(path: &Path) -> Result<Self, PrivacyError> {
        let file_error = |source| PrivacyError::KeyFile { path: path.to_owned(), source };
        // The open file is asked for its mode, so nobody can swap it between the question and the reading.
        let file = File::open(path).map_err(file_error)?;
        check_mode(path, &file)?;
        let mut text = Zeroizing::new(String::new());
        match file.take(MAX_FILE).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(not_a_key(path)),
            Err(error) => return Err(file_error(error)),
        }
        let (master, id) = parse(&text).ok_or_else(|| not_a_key(path))?;
        let ring = Self::from_master(master);
        if id.is_some_and(|id| id != ring.id) {
            return Err(not_a_key(path));
        }
        Ok(ring)
    }

    /// A key ring of this master key.
    pub fn from_master(master: SecretKey) -> Self {
        // The id tells keys apart and says nothing of the key.
        let digest = blake3::derive_key("nearside 2026 key id", master.as_bytes());
        let id = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { master, id }
    }

    /// The key's id, which stands in envelopes.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Makes the key file. It appears whole or not at all: a gateway that dies halfway leaves no half key behind, and of two that start
    /// at once one wins and the other reads the winner's key.
    fn create(path: &Path) -> Result<Self, PrivacyError> {
        let file_error = |source| PrivacyError::KeyFile { path: path.to_owned(), source };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder).map_err(file_error)?;
        let mut key = Zeroizing::new([0u8; 32]);
        getrandom::fill(key.as_mut()).map_err(|_| PrivacyError::Randomness)?;
        let ring = Self::from_master(SecretKey::new(*key));
        // The id of a key nobody else has makes a name nobody else uses.
        let draft = folder.join(format!(".key-{}.tmp", ring.id));
        let placed = write_new(&draft, &file_text(&key, &ring.id)).and_then(|()| fs::hard_link(&draft, path));
        // A draft that stays behind holds a key that was never used.
        let _ = fs::remove_file(&draft);
        match placed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Self::load(path),
            Err(error) => return Err(file_error(error)),
        }
        // Without it the name may be lost with the power, and everything written under the key with it.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(file_error)?;
        Ok(ring)
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Written in place: growing a string would leave copies of the key in memory that nobody wipes.
fn file_text(key: &[u8; 32], id: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(256));
    text.push_str(HEADER);
    text.push('\n');
    for byte in key {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text.push_str("\nid ");
    text.push_str(id);
    text.push('\n');
    text
}

fn not_a_key(path: &Path) -> PrivacyError {
    PrivacyError::KeyFormat { path: path.to_owned() }
}

impl KeySource for KeyRing {
    fn derive(&self, purpose: KeyPurpose, context: &[u8]) -> SecretKey {
        let label = match purpose {
            KeyPurpose::JournalSegment => "nearside 2026 journal segment",
            KeyPurpose::StreamIds => "nearside 2026 stream ids",
            KeyPurpose::Pseudonyms => "nearside 2026 pseudonyms",
            KeyPurpose::Envelopes => "nearside 2026 envelopes towards the cloud",
            KeyPurpose::OutboxSeal => "nearside 2026 outbox seal",
            KeyPurpose::Checkpoints => "nearside 2026 checkpoints",
            KeyPurpose::DeadLetters => "nearside 2026 dead letters",
            KeyPurpose::Sessions => "nearside 2026 sessions",
            KeyPurpose::Models => "nearside 2026 models",
        };
        let mut hasher = blake3::Hasher::new_derive_key(label);
        hasher.update(self.master.as_bytes());
        hasher.update(context);
        SecretKey::new(*hasher.finalize().as_bytes())
    }
}

/// The key and, where it stands there, its id.
fn parse(text: &str) -> Option<(SecretKey, Option<&str>)> {
    let mut lines = text.lines();
    let digits = (lines.next()? == HEADER).then(|| lines.next()).flatten()?.trim();
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = Zeroizing::new([0; 32]);
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    let id = match lines.next() {
        Some(line) => Some(line.strip_prefix("id ")?.trim()),
        None => None,
    };
    Some((SecretKey::new(*key), id))
}

#[cfg(unix)]
fn check_mode(path: &Path, file: &File) -> Result<(), PrivacyError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata().map_err(|source| PrivacyError::KeyFile { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(PrivacyError::KeyMode { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn check_mode(_path: &Path, _file: &File) -> Result<(), PrivacyError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_file_is_made_once_and_guarded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/site.key");
        let first = KeyRing::load_or_create(&path).unwrap();
        let second = KeyRing::load_or_create(&path).unwrap();
        assert_eq!(first.id(), second.id());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            assert!(matches!(KeyRing::load_or_create(&path), Err(PrivacyError::KeyMode { .. })));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let names = fs::read_dir(folder.path().join("data")).unwrap().count();
        assert_eq!(names, 1, "no draft stays behind");
        for damaged in ["nearside-key-v1\nabc\n", "", "nearside-key-v2\n"] {
            fs::write(&path, damaged).unwrap();
            assert!(matches!(KeyRing::load_or_create(&path), Err(PrivacyError::KeyFormat { .. })), "never overwritten");
        }
    }

    #[test]
    fn a_mistyped_digit_is_noticed_and_a_file_without_id_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.key");
        let ring = KeyRing::load_or_create(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let digit = text.as_bytes()[20];
        let mut mistyped = text.clone().into_bytes();
        mistyped[20] = if digit == b'0' { b'1' } else { b'0' };
        fs::write(&path, mistyped).unwrap();
        assert!(matches!(KeyRing::load(&path), Err(PrivacyError::KeyFormat { .. })));
        let without: Vec<&str> = text.lines().take(2).collect();
        fs::write(&path, without.join("\n")).unwrap();
        assert_eq!(KeyRing::load(&path).unwrap().id(), ring.id());
    }

    #[test]
    fn gateways_that_start_at_once_agree_on_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.key");
        let start = std::sync::Barrier::new(4);
        let ids: Vec<String> = std::thread::scope(|scope| {
            let starters: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        KeyRing::load_or_create(&path).unwrap().id().to_owned()
                    })
                })
                .collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect()
        });
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    }

    #[test]
    fn purposes_and_contexts_are_apart() {
        let keys = KeyRing::from_master(SecretKey::new([1; 32]));
        let a = keys.derive(KeyPurpose::Envelopes, b"a");
        assert_eq!(a.as_bytes(), keys.derive(KeyPurpose::Envelopes, b"a").as_bytes());
        assert_ne!(a.as_bytes(), keys.derive(KeyPurpose::Envelopes, b"b").as_bytes());
        assert_ne!(a.as_bytes(), keys.derive(KeyPurpose::JournalSegment, b"a").as_bytes());
    }
}
