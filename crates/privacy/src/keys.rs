//! The key ring: one master key in a file that only its owner can read; every other key is derived from it.
//!
//! File, version 1: the line `nearside-key-v1`, then the 32 random bytes as 64 hexadecimal digits.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nearside_schemas::{KeyPurpose, KeySource, SecretKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::PrivacyError;

const HEADER: &str = "nearside-key-v1";

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
        check_mode(path).map_err(file_error)??;
        let text = Zeroizing::new(fs::read_to_string(path).map_err(file_error)?);
        let key = parse(&text).ok_or_else(|| PrivacyError::KeyFormat { path: path.to_owned() })?;
        Ok(Self::from_master(key))
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

    fn create(path: &Path) -> Result<Self, PrivacyError> {
        let file_error = |source| PrivacyError::KeyFile { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(file_error)?;
        }
        let mut key = Zeroizing::new([0u8; 32]);
        getrandom::fill(key.as_mut()).map_err(|_| PrivacyError::Randomness)?;
        let digits: Zeroizing<String> = Zeroizing::new(key.iter().map(|byte| format!("{byte:02x}")).collect());
        let mut options = fs::OpenOptions::new();
        // `create_new`: two gateways that start at once do not each write a key.
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(file_error)?;
        file.write_all(format!("{HEADER}\n{}\n", digits.as_str()).as_bytes()).map_err(file_error)?;
        file.sync_all().map_err(file_error)?;
        Ok(Self::from_master(SecretKey::new(*key)))
    }
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
        };
        let mut hasher = blake3::Hasher::new_derive_key(label);
        hasher.update(self.master.as_bytes());
        hasher.update(context);
        SecretKey::new(*hasher.finalize().as_bytes())
    }
}

fn parse(text: &str) -> Option<SecretKey> {
    let mut lines = text.lines();
    let digits = (lines.next()? == HEADER).then(|| lines.next()).flatten()?.trim();
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(SecretKey::new(key))
}

#[cfg(unix)]
fn check_mode(path: &Path) -> io::Result<Result<(), PrivacyError>> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    let others = mode & 0o077 != 0;
    Ok(if others { Err(PrivacyError::KeyMode { path: path.to_owned(), mode }) } else { Ok(()) })
}

#[cfg(not(unix))]
fn check_mode(path: &Path) -> io::Result<Result<(), PrivacyError>> {
    fs::metadata(path).map(|_| Ok(()))
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
        fs::write(&path, "nearside-key-v1\nabc\n").unwrap();
        assert!(matches!(KeyRing::load_or_create(&path), Err(PrivacyError::KeyFormat { .. })), "never overwritten");
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
