//! The store as a file of redb: five tables, values encrypted with AES-256-GCM (NIST SP 800-38D).
//!
//! Each start takes the next epoch and a key of its own for it, committed before anything is written with it; within an epoch
//! the nonce is a counter. So no nonce is used twice with a key (promise I7), whatever was lost in a crash. A value is bound to
//! its place: moved elsewhere it does not decrypt.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use nearside_schemas::{KeyPurpose, KeySource, PacketId};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::bytes::{decode_message, decode_session, encode_message, encode_session};
use super::{Change, Saved, SavedMessage, SavedSession, Storage};
use crate::config::BrokerError;
use crate::message::Message;

/// Session number → encrypted record.
const SESSIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sessions-v1");
/// Session number and position → encrypted message; empty where only its release is owed.
const QUEUES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("queues-v1");
/// Session number and packet id of a QoS 2 message from the client that is taken.
const TAKEN: TableDefinition<'_, (u64, u16), ()> = TableDefinition::new("taken-v1");
/// Session number → below which number in the journal its QoS 2 messages are known.
const JOURNALLED: TableDefinition<'_, u64, u64> = TableDefinition::new("journalled-v1");
/// Number of a topic → encrypted retained message.
const RETAINED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("retained-v1");
/// `epoch`: how often the file was opened.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta-v1");
/// What redb keeps of the file in memory.
const CACHE_BYTES: usize = 16 << 20;

/// An open file.
pub(crate) struct Disk {
    path: PathBuf,
    /// `None` after a disk that was full: the database is not used again before it was opened anew, from what is on disk.
    database: Option<Database>,
    keys: Arc<dyn KeySource>,
    epoch: u64,
    cipher: Aes256Gcm,
    written: u64,
    /// Messages that were done before they were handed over to be kept: a subscriber may be faster than the publisher's own batch.
    done_early: HashSet<(u64, u64)>,
}

/// Most of those that are remembered.
const DONE_EARLY: usize = 65_536;

/// Where a value stands.
enum Place {
    Session(u64),
    Queue(u64, u64),
    Retained(u64),
}

impl Place {
    fn bytes(&self) -> [u8; 17] {
        let (table, a, b) = match *self {
            Self::Session(number) => (1, number, 0),
            Self::Queue(number, position) => (2, number, position),
            Self::Retained(number) => (3, number, 0),
        };
        let mut bytes = [table; 17];
        bytes[1..9].copy_from_slice(&a.to_le_bytes());
        bytes[9..].copy_from_slice(&b.to_le_bytes());
        bytes
    }
}

/// Opens or makes the file, with a bounded cache: by default it would be as large as what all sessions hold, up to 1 GiB (promise I4).
fn database(path: &Path) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path)
}

impl Disk {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// Where the file cannot be used.
    pub(crate) fn open(path: &Path, keys: Arc<dyn KeySource>) -> Result<Self, BrokerError> {
        let unusable = |error: redb::Error| BrokerError::store_file(path, &error);
        let database = database(path).map_err(|error| unusable(error.into()))?;
        let epoch = next_epoch(&database).map_err(unusable)?;
        let cipher = cipher(&*keys, epoch);
        Ok(Self {
            path: path.to_owned(),
            database: Some(database),
            keys,
            epoch,
            cipher,
            written: 0,
            done_early: HashSet::new(),
        })
    }

    /// Works on the database, which is opened anew where that is due.
    fn with<T>(&mut self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let database = match &mut self.database {
            Some(database) => database,
            // Nonces go on from where they were, so the epoch does too.
            closed => closed.insert(database(&self.path)?),
        };
        let done = work(database);
        if done.as_ref().is_err_and(is_disk_full) {
            self.database = None;
        }
        done
    }

    fn encrypt(&mut self, place: &Place, plain: &[u8]) -> Result<Vec<u8>, BrokerError> {
        self.written += 1;
        let nonce = nonce(self.written);
        let payload = Payload { msg: plain, aad: &place.bytes() };
        let encrypted = self.cipher.encrypt(&nonce, payload).map_err(|_| BrokerError::StoreDamaged)?;
        Ok([&self.epoch.to_le_bytes()[..], &self.written.to_le_bytes(), &encrypted].concat())
    }

    fn apply(&mut self, changes: &[Change]) -> Result<Result<(), redb::Error>, BrokerError> {
        let mut changes = Kept::of(changes);
        changes.queues.retain(|key, entry| !matches!(entry, Entry::Message(_)) || !self.done_early.remove(key));
        for (number, _) in changes.sessions.iter().filter(|(_, record)| record.is_none()) {
            self.done_early.retain(|(whose, _)| whose != number);
        }
        let mut done_early = Vec::new();
        let mut sessions = Vec::new();
        for (number, record) in &changes.sessions {
            if let Some(record) = record {
                sessions.push((*number, self.encrypt(&Place::Session(*number), &encode_session(record))?));
            }
        }
        let mut queued = Vec::new();
        for ((number, position), message) in &changes.queues {
            queued.push(match message {
                Entry::Message(message) => {
                    Some(self.encrypt(&Place::Queue(*number, *position), &encode_message(message))?)
                }
                Entry::Released => Some(Vec::new()),
                Entry::Gone => None,
            });
        }
        let mut retained = Vec::new();
        for (number, message) in &changes.retained {
            let stored = message.map(|message| self.encrypt(&Place::Retained(*number), &encode_message(message)));
            retained.push((*number, stored.transpose()?));
        }
        let applied = self.with(|database| {
            done_early.clear();
            let write = database.begin_write()?;
            {
                let mut table = write.open_table(SESSIONS)?;
                let mut queues = write.open_table(QUEUES)?;
                let mut taken = write.open_table(TAKEN)?;
                for (number, stored) in &sessions {
                    table.insert(number, stored.as_slice())?;
                }
                for (key, stored) in changes.queues.keys().zip(&queued) {
                    match stored {
                        // Its release is known already.
                        Some(stored) if !stored.is_empty() && queues.get(key)?.is_some() => {}
                        Some(stored) => drop(queues.insert(key, stored.as_slice())?),
                        None if queues.remove(key)?.is_none() => done_early.push(*key),
                        None => {}
                    }
                }
                for (key, is_taken) in &changes.taken {
                    if *is_taken {
                        taken.insert(key, ())?;
                    } else {
                        taken.remove(key)?;
                    }
                }
                let mut journalled = write.open_table(JOURNALLED)?;
                for (number, below) in &changes.journalled {
                    journalled.insert(number, below)?;
                }
                for (number, _) in changes.sessions.iter().filter(|(_, record)| record.is_none()) {
                    table.remove(number)?;
                    journalled.remove(number)?;
                    queues.retain_in((*number, 0)..=(*number, u64::MAX), |_, _| false)?;
                    taken.retain_in((*number, 0)..=(*number, u16::MAX), |_, ()| false)?;
                }
                let mut table = write.open_table(RETAINED)?;
                for (number, stored) in &retained {
                    match stored {
                        Some(stored) => drop(table.insert(number, stored.as_slice())?),
                        None => drop(table.remove(number)?),
                    }
                }
            }
            write.commit()?;
            Ok(())
        });
        if self.done_early.len() + done_early.len() > DONE_EARLY {
            self.done_early.clear();
        }
        self.done_early.extend(done_early);
        Ok(applied)
    }
}

impl Storage for Disk {
    fn load(&mut self) -> Result<Saved, BrokerError> {
        let mut reader = Reader { keys: self.keys.clone(), ciphers: HashMap::new(), unreadable: 0 };
        let saved = self.with(|database| read(database, &mut reader)).map_err(BrokerError::store)?;
        if reader.unreadable > 0 {
            let values = reader.unreadable;
            tracing::error!(values, "stored sessions or messages could not be read and are left out");
        } else {
            // With another key nothing would be known, and everything would go.
            let known: HashSet<u64> = saved.sessions.iter().map(|session| session.record.number).collect();
            self.with(|database| forget_the_rest(database, &known)).map_err(BrokerError::store)?;
        }
        Ok(saved)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), BrokerError> {
        self.apply(changes)?.map_err(BrokerError::store)
    }
}

/// What a transaction comes to: of several changes at one place the last one counts, and what came and went is not written.
struct Kept<'c> {
    sessions: BTreeMap<u64, Option<&'c super::SessionRecord>>,
    queues: BTreeMap<(u64, u64), Entry<'c>>,
    taken: BTreeMap<(u64, u16), bool>,
    journalled: BTreeMap<u64, u64>,
    retained: BTreeMap<u64, Option<&'c Message>>,
}

enum Entry<'c> {
    Message(&'c Message),
    Released,
    Gone,
}

impl<'c> Kept<'c> {
    fn of(changes: &'c [Change]) -> Self {
        let mut kept = Self {
            sessions: BTreeMap::new(),
            queues: BTreeMap::new(),
            taken: BTreeMap::new(),
            journalled: BTreeMap::new(),
            retained: BTreeMap::new(),
        };
        for change in changes {
            match change {
                Change::Session(record) => drop(kept.sessions.insert(record.number, Some(record))),
                Change::End(number) => {
                    kept.sessions.insert(*number, None);
                    kept.queues.retain(|(whose, _), _| whose != number);
                    kept.taken.retain(|(whose, _), _| whose != number);
                    kept.journalled.remove(number);
                }
                Change::Enqueue(number, position, message) => {
                    // Positions are used once, so what is known of this one came too early.
                    match kept.queues.get(&(*number, *position)) {
                        None => drop(kept.queues.insert((*number, *position), Entry::Message(message))),
                        Some(Entry::Gone) => drop(kept.queues.remove(&(*number, *position))),
                        Some(_) => {}
                    }
                }
                Change::Released(number, position) => {
                    kept.queues.insert((*number, *position), Entry::Released);
                }
                Change::Dequeue(number, position) => {
                    let key = (*number, *position);
                    // Came and went within this transaction.
                    if !matches!(kept.queues.remove(&key), Some(Entry::Message(_))) {
                        kept.queues.insert(key, Entry::Gone);
                    }
                }
                Change::Take(number, id) => drop(kept.taken.insert((*number, id.get()), true)),
                Change::Free(number, id) => drop(kept.taken.insert((*number, id.get()), false)),
                Change::Journalled(number, below) => drop(kept.journalled.insert(*number, *below)),
                Change::Retain(number, message) => drop(kept.retained.insert(*number, Some(message))),
                Change::Forget(number) => drop(kept.retained.insert(*number, None)),
            }
        }
        kept
    }
}

struct Reader {
    keys: Arc<dyn KeySource>,
    ciphers: HashMap<u64, Aes256Gcm>,
    unreadable: u64,
}

impl Reader {
    /// What stands there, decrypted and decoded; counted where that cannot be.
    fn read<T, E>(&mut self, place: &Place, stored: &[u8], decode: impl FnOnce(Vec<u8>) -> Result<T, E>) -> Option<T> {
        let value = self.decrypt(place, stored).and_then(|plain| decode(plain).ok());
        self.unreadable += u64::from(value.is_none());
        value
    }

    fn decrypt(&mut self, place: &Place, stored: &[u8]) -> Option<Vec<u8>> {
        let (epoch, rest) = stored.split_first_chunk::<8>()?;
        let (written, encrypted) = rest.split_first_chunk::<8>()?;
        let epoch = u64::from_le_bytes(*epoch);
        let cipher = self.ciphers.entry(epoch).or_insert_with(|| cipher(&*self.keys, epoch));
        let payload = Payload { msg: encrypted, aad: &place.bytes() };
        cipher.decrypt(&nonce(u64::from_le_bytes(*written)), payload).ok()
    }
}

fn read(database: &Database, reader: &mut Reader) -> Result<Saved, redb::Error> {
    let tables = database.begin_read()?;
    let mut sessions: BTreeMap<u64, SavedSession> = BTreeMap::new();
    for entry in tables.open_table(SESSIONS)?.iter()? {
        let (number, stored) = (entry.as_ref().map_or(0, |(number, _)| number.value()), entry?.1);
        if let Some(record) = reader.read(&Place::Session(number), stored.value(), decode_session) {
            sessions
                .insert(number, SavedSession { record, queue: Vec::new(), taken: Vec::new(), journalled: u64::MAX });
        }
    }
    for entry in tables.open_table(QUEUES)?.iter()? {
        let (key, stored) = entry?;
        let ((number, position), stored) = (key.value(), stored.value());
        let Some(session) = sessions.get_mut(&number) else { continue };
        if stored.is_empty() {
            session.queue.push(SavedMessage { position, message: None });
        } else if let Some(message) = reader.read(&Place::Queue(number, position), stored, decode_message) {
            session.queue.push(SavedMessage { position, message: Some(message) });
        }
    }
    for entry in tables.open_table(TAKEN)?.iter()? {
        let (number, id) = entry?.0.value();
        if let (Some(session), Some(id)) = (sessions.get_mut(&number), PacketId::new(id)) {
            session.taken.push(id);
        }
    }
    for entry in tables.open_table(JOURNALLED)?.iter()? {
        let (number, below) = entry?;
        if let Some(session) = sessions.get_mut(&number.value()) {
            session.journalled = below.value();
        }
    }
    let mut retained = Vec::new();
    for entry in tables.open_table(RETAINED)?.iter()? {
        let (number, stored) = entry?;
        let number = number.value();
        let message = reader.read(&Place::Retained(number), stored.value(), decode_message);
        retained.extend(message.map(|message| (number, message)));
    }
    Ok(Saved { sessions: sessions.into_values().collect(), retained })
}

/// Removes what belongs to no session: a message may have been on its way to one that ended.
fn forget_the_rest(database: &Database, known: &HashSet<u64>) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(QUEUES)?.retain(|(number, _), _| known.contains(&number))?;
    write.open_table(TAKEN)?.retain(|(number, _), ()| known.contains(&number))?;
    write.open_table(JOURNALLED)?.retain(|number, _| known.contains(&number))?;
    write.commit()?;
    Ok(())
}

/// What was synced before is on disk then, which after other failures is not known.
fn is_disk_full(error: &redb::Error) -> bool {
    let redb::Error::Io(source) = error else { return false };
    matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

fn next_epoch(database: &Database) -> Result<u64, redb::Error> {
    let write = database.begin_write()?;
    let epoch;
    {
        write.open_table(SESSIONS)?;
        write.open_table(QUEUES)?;
        write.open_table(TAKEN)?;
        write.open_table(JOURNALLED)?;
        write.open_table(RETAINED)?;
        let mut meta = write.open_table(META)?;
        epoch = meta.get("epoch")?.map_or(0, |value| value.value()) + 1;
        meta.insert("epoch", epoch)?;
    }
    write.commit()?;
    Ok(epoch)
}

fn cipher(keys: &dyn KeySource, epoch: u64) -> Aes256Gcm {
    Aes256Gcm::new(keys.derive(KeyPurpose::Sessions, &epoch.to_le_bytes()).as_bytes().into())
}

fn nonce(written: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&written.to_be_bytes());
    nonce.into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nearside_schemas::{QoS, SecretKey, Timestamp, Topic};

    use super::*;
    use crate::packet::Carried;
    use crate::store::SessionRecord;

    struct Keys;

    impl KeySource for Keys {
        fn derive(&self, _: KeyPurpose, _: &[u8]) -> SecretKey {
            SecretKey::new([7; 32])
        }
    }

    fn session() -> Change {
        Change::Session(Box::new(SessionRecord {
            number: 1,
            client: "c".to_owned(),
            owner: None,
            expiry_secs: u32::MAX,
            offline_since: None,
            will: None,
            subscriptions: Vec::new(),
            sent: None,
        }))
    }

    fn enqueue(position: u64) -> Change {
        let topic = Topic::new("a").unwrap();
        let at = Timestamp::from_micros(0);
        let message = Message::new(topic, Bytes::from_static(b"x"), QoS::ExactlyOnce, false, Carried::default(), at);
        Change::Enqueue(1, position, message)
    }

    /// A subscriber on another thread may acknowledge a message before its publisher has handed over what is to be kept of it.
    #[test]
    fn what_is_done_before_it_is_handed_over_is_not_kept() {
        let changes = || {
            [
                session(),
                Change::Dequeue(1, 5),
                Change::Released(1, 6),
                enqueue(5),
                enqueue(6),
                enqueue(7),
                enqueue(8),
                Change::Dequeue(1, 8),
            ]
        };
        for transactions in [1, 3, 8] {
            let folder = tempfile::tempdir().unwrap();
            let mut disk = Disk::open(&folder.path().join("sessions"), Arc::new(Keys)).unwrap();
            for part in changes().chunks(8_usize.div_ceil(transactions)) {
                disk.commit(part).unwrap();
            }
            let saved = disk.load().unwrap();
            let kept: Vec<(u64, bool)> =
                saved.sessions[0].queue.iter().map(|saved| (saved.position, saved.message.is_some())).collect();
            assert_eq!(kept, [(6, false), (7, true)], "in {transactions} transactions");
            assert!(disk.done_early.is_empty());
        }
    }
}
