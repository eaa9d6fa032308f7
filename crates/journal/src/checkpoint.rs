//! Checkpoints: what streams, roll-ups and rules know, on disk, so that a start replays the end of the journal and not all of it.
//!
//! A checkpoint is taken a few streams at a time. Each stream's state carries the number of the first record that it does not
//! hold; replay begins at the lowest of them and leaves out what a stream holds already.
//!
//! Promises: a round is on disk as a whole or not at all; states are encrypted, each with a key of its own (promise I7: 128 random
//! bits name the key, so a nonce is used once); a state that cannot be read is reported and costs no other (I3).
//! Never: it looks inside a state; it names a stream by anything but its id (I2).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use nearside_schemas::{KeyPurpose, KeySource, StreamId, failpoint};
use parking_lot::Mutex;
use redb::{Database, Durability, ReadableTable, TableDefinition};

use crate::config::JournalError;
use crate::record::Lsn;

/// Stream id → the first record it does not hold, sealed state.
const STREAMS: TableDefinition<'_, &[u8], (u64, &[u8])> = TableDefinition::new("streams-v1");
/// Name → sealed bytes.
const PARTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("parts-v1");
/// `covers`: where replay begins. `starts`: how often the gateway started. `format`: the version of all this.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The version of the file.
const FORMAT: u64 = 1;
/// Memory for pages. States are written once and read at the start: a cache would only hold what nobody asks for.
const CACHE_BYTES: usize = 16 << 20;
const SALT: usize = 16;

/// The state of one stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredStream {
    /// Whose it is.
    pub id: StreamId,
    /// The first record that it does not hold.
    pub covers: Lsn,
    /// The state, opaque here.
    pub state: Vec<u8>,
}

/// What is written at once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckpointRound {
    /// Everything before this record is held by some state: replay begins here.
    pub covers: Lsn,
    /// States of streams; each replaces the stream's last.
    pub streams: Vec<StoredStream>,
    /// Streams that are no more.
    pub forget: Vec<StreamId>,
    /// Other parts by name; each replaces the last.
    pub put: Vec<(String, Vec<u8>)>,
    /// Parts that are no more.
    pub remove: Vec<String>,
}

/// What a start finds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// Where replay begins.
    pub covers: Lsn,
    /// How often the gateway started with this file, this start included.
    pub starts: u64,
    /// Streams, in the order of their ids.
    pub streams: Vec<StoredStream>,
    /// Other parts, in the order of their names.
    pub parts: Vec<(String, Vec<u8>)>,
    /// States and parts that could not be read.
    pub damaged: u64,
}

impl Checkpoint {
    /// Records below this number were given out: some state holds the one before it, or replay begins at it.
    pub fn reached(&self) -> Lsn {
        self.streams.iter().map(|stream| stream.covers).fold(self.covers, Lsn::max)
    }

    /// The other part with this name.
    pub fn part(&self, name: &str) -> Option<&[u8]> {
        self.parts.iter().find(|(known, _)| known == name).map(|(_, part)| part.as_slice())
    }
}

fn unknown_format(format: u64) -> redb::Error {
    let why = format!(
        "it has format {format}, this version reads {FORMAT}; use the version that wrote it, or move the file away: windows are then \
         rebuilt as far as the journal reaches"
    );
    redb::Error::Io(io::Error::new(io::ErrorKind::Unsupported, why))
}

fn damaged(error: &redb::Error) -> String {
    format!("the file is damaged ({error}); move it away: windows are then rebuilt as far as the journal reaches")
}

/// What is wrong with the file and what to do.
fn remedy(error: &redb::Error) -> String {
    match error {
        redb::Error::DatabaseAlreadyOpen => "a gateway runs on this data folder; stop it first".to_owned(),
        redb::Error::Io(source) if source.kind() == io::ErrorKind::Unsupported => source.to_string(),
        redb::Error::Io(source)
            if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            damaged(error)
        }
        redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => damaged(error),
        _ => format!("{error}; check that the folder is writable and has room"),
    }
}

/// The file of checkpoints.
pub struct CheckpointStore {
    path: PathBuf,
    /// `None` after a disk that was full: the database is not used again before it was opened anew, from what is on disk.
    database: Mutex<Option<Database>>,
    keys: Arc<dyn KeySource>,
}

fn open_database(path: &Path) -> Result<Database, redb::Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    Ok(builder.create(path)?)
}

/// What was synced before is on disk then, which after other failures is not known.
fn is_disk_full(error: &redb::Error) -> bool {
    let redb::Error::Io(source) = error else { return false };
    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl CheckpointStore {
    /// Opens the file, making it where it is missing, and counts a start.
    ///
    /// # Errors
    /// Where it cannot be opened, is in use, or is of another version.
    pub fn open(path: &Path, keys: Arc<dyn KeySource>) -> Result<(Self, Checkpoint), JournalError> {
        let failed = |error: redb::Error| JournalError::Checkpoint { path: path.to_owned(), why: remedy(&error) };
        let database = open_database(path).map_err(failed)?;
        restrict(path);
        let store = Self { path: path.to_owned(), database: Mutex::new(Some(database)), keys };
        let found = store.with(|database| store.read(database, true)).map_err(failed)?;
        Ok((store, found))
    }

    /// Works on the database, which is opened anew where that is due.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let mut slot = self.database.lock();
        if slot.is_none() {
            *slot = Some(open_database(&self.path)?);
        }
        let Some(database) = slot.as_ref() else { return Err(redb::Error::PreviousIo) };
        let done = work(database);
        if done.as_ref().is_err_and(is_disk_full) {
            *slot = None;
        }
        done
    }

    /// What the last rounds left, for streams that go on under another configuration.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn load(&self) -> Result<Checkpoint, JournalError> {
        let failed = |error: redb::Error| JournalError::Checkpoint { path: "checkpoint".into(), why: remedy(&error) };
        self.with(|database| self.read(database, false)).map_err(failed)
    }

    fn read(&self, database: &Database, is_start: bool) -> Result<Checkpoint, redb::Error> {
        let write = database.begin_write()?;
        let mut found = Checkpoint::default();
        {
            let mut meta = write.open_table(META)?;
            let format = meta.get("format")?.map_or(FORMAT, |value| value.value());
            if format != FORMAT {
                return Err(unknown_format(format));
            }
            found.covers = Lsn(meta.get("covers")?.map_or(0, |value| value.value()));
            found.starts = meta.get("starts")?.map_or(0, |value| value.value()) + u64::from(is_start);
            meta.insert("format", FORMAT)?;
            meta.insert("starts", found.starts)?;
            for entry in write.open_table(STREAMS)?.iter()? {
                let (key, value) = entry?;
                let (covers, sealed) = value.value();
                let id = <[u8; 16]>::try_from(key.value()).map(StreamId::from_bytes).ok();
                match id.and_then(|id| Some((id, self.open_sealed(key.value(), covers, sealed)?))) {
                    Some((id, state)) => found.streams.push(StoredStream { id, covers: Lsn(covers), state }),
                    None => found.damaged += 1,
                }
            }
            for entry in write.open_table(PARTS)?.iter()? {
                let (key, value) = entry?;
                match self.open_sealed(key.value().as_bytes(), 0, value.value()) {
                    Some(part) => found.parts.push((key.value().to_owned(), part)),
                    None => found.damaged += 1,
                }
            }
        }
        write.commit()?;
        Ok(found)
    }

    /// Writes one part by name, in the place of the last of that name; it is on disk when this returns.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn put(&self, name: &str, part: &[u8]) -> Result<(), JournalError> {
        self.with(|database| self.try_put(database, name, part))
            .map_err(|error| JournalError::Checkpoint { path: "checkpoint".into(), why: error.to_string() })
    }

    fn try_put(&self, database: &Database, name: &str, part: &[u8]) -> Result<(), redb::Error> {
        let mut write = database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        write.open_table(PARTS)?.insert(name, self.seal(name.as_bytes(), 0, part)?.as_slice())?;
        write.commit()?;
        Ok(())
    }

    /// Writes a round; it is on disk when this returns.
    ///
    /// # Errors
    /// Where the disk refuses; nothing of the round counts then, and the next round may succeed.
    pub fn commit(&self, round: &CheckpointRound) -> Result<(), JournalError> {
        self.with(|database| self.try_commit(database, round))
            .map_err(|error| JournalError::Checkpoint { path: "checkpoint".into(), why: error.to_string() })
    }

    fn try_commit(&self, database: &Database, round: &CheckpointRound) -> Result<(), redb::Error> {
        let mut write = database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        {
            let mut streams = write.open_table(STREAMS)?;
            for stream in &round.streams {
                let id: &[u8] = stream.id.as_bytes();
                let sealed = self.seal(id, stream.covers.0, &stream.state)?;
                streams.insert(id, (stream.covers.0, sealed.as_slice()))?;
            }
            for id in &round.forget {
                let id: &[u8] = id.as_bytes();
                streams.remove(id)?;
            }
            let mut parts = write.open_table(PARTS)?;
            for (name, part) in &round.put {
                parts.insert(name.as_str(), self.seal(name.as_bytes(), 0, part)?.as_slice())?;
            }
            for name in &round.remove {
                parts.remove(name.as_str())?;
            }
            write.open_table(META)?.insert("covers", round.covers.0)?;
        }
        failpoint("checkpoint-committing");
        write.commit()?;
        Ok(())
    }

    /// Random salt, then the bytes sealed with the key that the salt names, bound to where they stand.
    fn seal(&self, name: &[u8], covers: u64, plain: &[u8]) -> Result<Vec<u8>, redb::Error> {
        let mut out = vec![0; SALT];
        getrandom::fill(&mut out).map_err(|error| redb::Error::Io(std::io::Error::other(error.to_string())))?;
        let bound = bound_to(name, covers);
        let sealed = self
            .cipher(&out)
            .encrypt(&Nonce::default(), Payload { msg: plain, aad: &bound })
            .map_err(|_| redb::Error::Io(std::io::Error::other("a state is too large to be encrypted")))?;
        out.extend(sealed);
        Ok(out)
    }

    fn open_sealed(&self, name: &[u8], covers: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        let (salt, sealed) = sealed.split_at_checked(SALT)?;
        let bound = bound_to(name, covers);
        self.cipher(salt).decrypt(&Nonce::default(), Payload { msg: sealed, aad: &bound }).ok()
    }

    fn cipher(&self, salt: &[u8]) -> Aes256Gcm {
        let key = self.keys.derive(KeyPurpose::Checkpoints, salt);
        Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key.as_bytes()))
    }
}

fn bound_to(name: &[u8], covers: u64) -> Vec<u8> {
    [name, covers.to_le_bytes().as_slice()].concat()
}

/// Only the owner may read it. Where that cannot be had, the contents are encrypted all the same.
fn restrict(path: &Path) {
    #[cfg(unix)]
    let _ = std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;
    use nearside_schemas::SecretKey;

    struct FixedKeys(u8);

    impl KeySource for FixedKeys {
        fn derive(&self, _: KeyPurpose, context: &[u8]) -> SecretKey {
            let mut key = [self.0; 32];
            key.iter_mut().zip(context).for_each(|(byte, context)| *byte ^= context);
            SecretKey::new(key)
        }
    }

    fn stream(n: u8, covers: u64) -> StoredStream {
        StoredStream { id: StreamId::from_bytes([n; 16]), covers: Lsn(covers), state: vec![n; 100] }
    }

    #[test]
    fn a_start_finds_the_last_state_of_each_stream_and_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.redb");
        let (store, found) = CheckpointStore::open(&path, Arc::new(FixedKeys(1))).unwrap();
        assert_eq!(found, Checkpoint { starts: 1, ..Checkpoint::default() });
        let round = CheckpointRound {
            covers: Lsn(5),
            streams: vec![stream(1, 5), stream(2, 7)],
            put: vec![("a".into(), vec![1]), ("b".into(), vec![2])],
            ..CheckpointRound::default()
        };
        store.commit(&round).unwrap();
        let round = CheckpointRound {
            covers: Lsn(9),
            streams: vec![stream(2, 9)],
            forget: vec![StreamId::from_bytes([1; 16])],
            remove: vec!["a".into()],
            ..CheckpointRound::default()
        };
        store.commit(&round).unwrap();
        drop(store);
        let (_, found) = CheckpointStore::open(&path, Arc::new(FixedKeys(1))).unwrap();
        let parts = vec![("b".to_owned(), vec![2])];
        assert_eq!(found, Checkpoint { covers: Lsn(9), starts: 2, streams: vec![stream(2, 9)], parts, damaged: 0 });
    }

    #[test]
    fn what_another_key_wrote_is_counted_and_not_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.redb");
        let (store, _) = CheckpointStore::open(&path, Arc::new(FixedKeys(1))).unwrap();
        let put = vec![("a".to_owned(), vec![1])];
        let streams = vec![stream(1, 5)];
        store.commit(&CheckpointRound { streams, put, ..CheckpointRound::default() }).unwrap();
        drop(store);
        let (_, found) = CheckpointStore::open(&path, Arc::new(FixedKeys(2))).unwrap();
        assert_eq!((found.damaged, found.streams, found.parts), (2, Vec::new(), Vec::new()));
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(50).any(|window| window == [1; 50]), "states are encrypted");
    }
}
