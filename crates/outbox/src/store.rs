//! The database: opened and checked, changed in one durable transaction a round, read beside it.
//!
//! Promises: a round is on disk as a whole or not at all; what is in memory says what is committed, never what was tried.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nearside_privacy::{Class, KeyRing, SealedItem};
use parking_lot::{Mutex, RwLock};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableError};

use crate::config::{OutboxConfig, OutboxError};
use crate::dead::DeadReason;
use crate::medium::{Fault, Faults, Medium, Watched};
use crate::remembered::{Additions, Digest, Remembered};
use crate::stats::{Entry, Sequence, Stats, Take};
use crate::tables::{self, Burial, DEAD, ITEMS, META, Placed, SENT, Waiting};

/// The format that this version writes.
pub(crate) const FORMAT: u64 = 1;
/// Pages of the database kept in memory.
const CACHE_BYTES: usize = 16 << 20;

/// What the handles see.
pub(crate) struct Shared {
    /// `None` only while it is opened anew.
    database: RwLock<Option<Database>>,
    pub(crate) state: Mutex<State>,
}

/// What is known without asking the database.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) stats: Stats,
    /// The next number.
    pub(crate) next: u64,
    /// Acknowledged or refused, with the removal not yet committed: not handed out again.
    pub(crate) removing: HashSet<Sequence>,
    pub(crate) trouble: Option<Trouble>,
}

/// Why nothing can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The disk is full, the reserve is spent and shedding did not help: writing is tried again, sealing waits.
    DiskFull,
    /// A write or sync failed and nobody knows what is on disk: nothing is written before a restart.
    Poisoned,
}

/// An item with the bytes that are stored, and when it was put.
pub(crate) struct Put {
    pub(crate) item: SealedItem,
    pub(crate) stored: Vec<u8>,
    pub(crate) at: i64,
}

/// An item that becomes a dead letter.
pub(crate) struct Rejection {
    pub(crate) sequence: Sequence,
    pub(crate) reason: DeadReason,
    pub(crate) detail: String,
    pub(crate) at: i64,
}

/// What one transaction does.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) puts: Vec<Put>,
    pub(crate) acknowledged: Vec<Sequence>,
    pub(crate) rejected: Vec<Rejection>,
}

impl Round {
    pub(crate) fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.acknowledged.is_empty() && self.rejected.is_empty()
    }
}

/// What it did.
#[derive(Default)]
pub(crate) struct Changes {
    /// Items shed, by class.
    pub(crate) shed: [u64; 3],
    /// Lower revisions that made room for a higher one, by class.
    pub(crate) replaced: [u64; 3],
    /// Puts of what waits already.
    pub(crate) known: u64,
    /// Puts of what the cloud has already.
    pub(crate) sent: u64,
    /// Dead letters, in the order of [`DeadReason::ALL`].
    pub(crate) dead: [u64; 3],
    /// Dead letters shed.
    pub(crate) dead_shed: u64,
}

/// Bounds of one transaction.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) quota: u64,
    pub(crate) dead_quota: u64,
    /// Most items shed: each costs pages before it gives any back.
    pub(crate) most_shed: u64,
}

/// The writer's side of the database.
pub(crate) struct Store {
    medium: Arc<dyn Medium>,
    path: PathBuf,
    faults: Arc<Faults>,
    pub(crate) remembered: Remembered,
    pub(crate) shared: Arc<Shared>,
}

impl Store {
    /// Opens the database, making it where it is missing. `path` is for error texts.
    pub(crate) fn open(medium: Arc<dyn Medium>, path: &Path, config: &OutboxConfig) -> Result<Self, OutboxError> {
        let opened = match open_database(medium.as_ref(), path) {
            // Opening writes too.
            Err((_, Fault::Full)) if medium.release_reserve() => open_database(medium.as_ref(), path),
            opened => opened,
        };
        let (database, faults) = opened.map_err(|(error, _)| error)?;
        let (state, remembered) = guarded(path, || load(&database, path, config.remembered))?;
        let shared = Arc::new(Shared { database: RwLock::new(Some(database)), state: Mutex::new(state) });
        Ok(Self { medium, path: path.to_owned(), faults, remembered, shared })
    }

    /// Does a round in one durable transaction, then sheds what is over the quota.
    pub(crate) fn apply(&mut self, round: &Round, bounds: Bounds) -> Result<Changes, Fault> {
        let before = {
            let state = self.shared.state.lock();
            (state.stats.clone(), state.next)
        };
        let tried = {
            let guard = self.shared.database.read();
            let Some(database) = guard.as_ref() else { return Err(Fault::Unknown) };
            // The library asserts where a file is not as it left it; that must not end the thread.
            catch_unwind(AssertUnwindSafe(|| transact(database, &self.remembered, round, bounds, before)))
        };
        match tried {
            Ok(Ok(done)) => {
                self.remembered.merge(done.additions);
                let mut state = self.shared.state.lock();
                state.stats = done.stats;
                state.next = done.next;
                for sequence in round.acknowledged.iter().chain(round.rejected.iter().map(|r| &r.sequence)) {
                    state.removing.remove(sequence);
                }
                Ok(done.changes)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, items = round.puts.len(), "a commit of the outbox failed");
                Err(self.faults.worst())
            }
            Err(_) => Err(Fault::Unknown),
        }
    }

    /// Closes the database and opens it from what is on disk.
    ///
    /// # Errors
    /// Where it does not open, with what that means.
    pub(crate) fn reopen(&mut self) -> Result<(), (OutboxError, Fault)> {
        let shared = self.shared.clone();
        let mut slot = shared.database.write();
        *slot = None;
        let (database, faults) = open_database(self.medium.as_ref(), &self.path)?;
        self.faults = faults;
        *slot = Some(database);
        Ok(())
    }

    pub(crate) fn medium(&self) -> &dyn Medium {
        self.medium.as_ref()
    }

    /// For the commands, which work on a file that no gateway uses.
    pub(crate) fn with_database<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, OutboxError> {
        let guard = self.shared.database.read();
        let Some(database) = guard.as_ref() else { return Err(OutboxError::Poisoned) };
        guarded(&self.path, || work(database).map_err(OutboxError::Database))
    }
}

impl Shared {
    /// Items as asked for that `skip` does not name, and the positions of those that cannot be read.
    pub(crate) fn take(
        &self,
        keys: &KeyRing,
        take: &Take<'_>,
        skip: &dyn Fn(&Sequence) -> bool,
    ) -> Result<(Vec<Entry>, Vec<Sequence>), OutboxError> {
        // Taken before the database is looked at: what is removed in between is then still named here.
        let removing = {
            let state = self.state.lock();
            if state.trouble == Some(Trouble::Poisoned) {
                return Err(OutboxError::Poisoned);
            }
            state.removing.clone()
        };
        let guard = self.database.read();
        let Some(database) = guard.as_ref() else { return Ok((Vec::new(), Vec::new())) };
        read_items(database, keys, take, &|sequence| skip(sequence) || removing.contains(sequence))
            .map_err(OutboxError::Database)
    }
}

fn read_items(
    database: &Database,
    keys: &KeyRing,
    take: &Take<'_>,
    skip: &dyn Fn(&Sequence) -> bool,
) -> Result<(Vec<Entry>, Vec<Sequence>), redb::Error> {
    let (mut entries, mut damaged) = (Vec::new(), Vec::new());
    if take.from >= take.below {
        return Ok((entries, damaged));
    }
    let items = database.begin_read()?.open_table(ITEMS)?;
    let mut bytes = 0;
    for class in take.classes {
        let class = *class as u8;
        for entry in items.range((class, take.from)..(class, take.below))? {
            if entries.len() >= take.most || bytes >= take.max_bytes {
                return Ok((entries, damaged));
            }
            let (key, value) = entry?;
            let sequence = Sequence { class, number: key.value().1 };
            if skip(&sequence) {
                continue;
            }
            let stored = value.value().1;
            match SealedItem::load(stored, keys) {
                Ok(item) => {
                    bytes += stored.len();
                    entries.push(Entry { sequence, item });
                }
                Err(_) => damaged.push(sequence),
            }
        }
    }
    Ok((entries, damaged))
}

struct Done {
    stats: Stats,
    next: u64,
    changes: Changes,
    additions: Additions,
}

fn transact(
    database: &Database,
    remembered: &Remembered,
    round: &Round,
    bounds: Bounds,
    (mut stats, mut next): (Stats, u64),
) -> Result<Done, redb::Error> {
    let write = database.begin_write()?;
    let mut changes = Changes::default();
    let additions;
    {
        let mut waiting = Waiting::open(&write)?;
        let mut gone = Vec::with_capacity(round.acknowledged.len());
        for sequence in &round.acknowledged {
            let identity = waiting.remove(*sequence, &mut stats)?.and_then(|removed| removed.identity);
            gone.extend(identity.map(|(subject, revision)| (Digest::of(&subject), revision)));
        }
        additions = remembered.record(&write, gone.into_iter())?;
        reject(&write, &mut waiting, round, bounds.dead_quota, &mut stats, &mut changes)?;
        for put in &round.puts {
            if remembered.holds(&additions, Digest::of(put.item.subject()), put.item.revision()) {
                changes.sent += 1;
                continue;
            }
            match waiting.place(&put.item, &put.stored, (next, put.at), &mut stats)? {
                Placed::Known => changes.known += 1,
                placed => {
                    next += 1;
                    if let Placed::Replaced(class) = placed {
                        count(&mut changes.replaced, class);
                    }
                }
            }
        }
        for _ in 0..bounds.most_shed {
            if stats.bytes <= bounds.quota {
                break;
            }
            let Some(victim) = waiting.least_urgent()? else { break };
            waiting.remove(victim, &mut stats)?;
            count(&mut changes.shed, victim.class);
        }
        stats.oldest_micros = oldest(&waiting.items)?;
        write.open_table(META)?.insert("next", next)?;
    }
    write.commit()?;
    Ok(Done { stats, next, changes, additions })
}

fn reject(
    write: &redb::WriteTransaction,
    waiting: &mut Waiting<'_>,
    round: &Round,
    quota: u64,
    stats: &mut Stats,
    changes: &mut Changes,
) -> Result<(), redb::Error> {
    if round.rejected.is_empty() {
        return Ok(());
    }
    let mut dead = write.open_table(DEAD)?;
    for rejection in &round.rejected {
        let Some(removed) = waiting.remove(rejection.sequence, stats)? else { continue };
        let burial = Burial {
            at: rejection.at,
            class: rejection.sequence.class,
            reason: rejection.reason,
            detail: &rejection.detail,
            stored: &removed.stored,
        };
        changes.dead_shed += tables::bury(&mut dead, &burial, quota, stats)?;
        count(&mut changes.dead, rejection.reason as u8);
    }
    Ok(())
}

fn count(counts: &mut [u64; 3], index: u8) {
    if let Some(count) = counts.get_mut(usize::from(index)) {
        *count += 1;
    }
}

/// When the oldest item of all classes was put.
fn oldest(items: &impl ReadableTable<(u8, u64), (i64, &'static [u8])>) -> Result<Option<i64>, redb::Error> {
    let mut oldest: Option<i64> = None;
    for class in Class::ALL {
        let class = class as u8;
        if let Some(first) = items.range((class, 0)..=(class, u64::MAX))?.next() {
            let at = first?.1.value().0;
            oldest = Some(oldest.map_or(at, |known| known.min(at)));
        }
    }
    Ok(oldest)
}

/// Makes the tables where they are missing and reads the figures.
fn load(database: &Database, path: &Path, remembered: usize) -> Result<(State, Remembered), OutboxError> {
    check_format(database, path)?;
    let loaded = (|| -> Result<(State, Remembered), redb::Error> {
        let write = database.begin_write()?;
        let mut state = State::default();
        let memory;
        {
            let mut waiting = Waiting::open(&write)?;
            if waiting.mend_index()? {
                tracing::warn!("the outbox's index did not fit its items and was made anew");
            }
            for entry in waiting.items.iter()? {
                let (key, value) = entry?;
                let (at, bytes) = value.value();
                state.stats.add(key.value().0, bytes.len(), at);
                state.next = state.next.max(key.value().1 + 1);
            }
            let dead = write.open_table(DEAD)?;
            state.stats.dead = dead.len()?;
            for entry in dead.iter()? {
                state.stats.dead_bytes += entry?.1.value().4.len() as u64;
            }
            let mut meta = write.open_table(META)?;
            meta.insert("format", FORMAT)?;
            state.next = state.next.max(meta.get("next")?.map_or(0, |value| value.value()));
            memory = Remembered::load(&write.open_table(SENT)?, remembered)?;
        }
        write.commit()?;
        Ok((state, memory))
    })();
    loaded.map_err(|error| classify_error(path, error))
}

/// Refuses a file that a newer version wrote, before anything in it is changed.
fn check_format(database: &Database, path: &Path) -> Result<(), OutboxError> {
    let found = (|| -> Result<u64, redb::Error> {
        match database.begin_read()?.open_table(META) {
            Ok(meta) => Ok(meta.get("format")?.map_or(FORMAT, |value| value.value())),
            Err(TableError::TableDoesNotExist(_)) => Ok(FORMAT),
            Err(error) => Err(error.into()),
        }
    })();
    match found.map_err(|error| classify_error(path, error))? {
        FORMAT => Ok(()),
        found => Err(OutboxError::Version { path: path.to_owned(), found, known: FORMAT }),
    }
}

type Opened = Result<(Database, Arc<Faults>), (OutboxError, Fault)>;

fn open_database(medium: &dyn Medium, path: &Path) -> Opened {
    let refused = |error: std::io::Error| {
        let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let why = error.to_string();
        (OutboxError::Open { path: path.to_owned(), why }, if full { Fault::Full } else { Fault::Unknown })
    };
    let (watched, faults) = Watched::new(medium.open().map_err(refused)?);
    let database = guarded(path, || {
        Database::builder()
            .set_cache_size(CACHE_BYTES)
            // A file that was changed behind the library's back is then told of, not trusted.
            .set_check_integrity_on_open(true)
            .create_with_backend(watched)
            .map_err(|error| classify(path, error))
    });
    match database {
        Ok(database) => Ok((database, faults)),
        Err(error) => Err((error, faults.worst())),
    }
}

/// A panic of the library while it reads a file is damage of the file.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, OutboxError>) -> Result<T, OutboxError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(damaged(path, "the database library gave up on it")))
}

fn damaged(path: &Path, why: &str) -> OutboxError {
    OutboxError::Damaged { path: path.to_owned(), why: why.to_owned() }
}

fn classify(path: &Path, error: DatabaseError) -> OutboxError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OutboxError::InUse { path: path.to_owned() }
        }
        DatabaseError::UpgradeRequired(_) | DatabaseError::RepairAborted => damaged(path, &error.to_string()),
        error => classify_error(path, error.into()),
    }
}

fn classify_error(path: &Path, error: redb::Error) -> OutboxError {
    match &error {
        redb::Error::Io(source) if !matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            OutboxError::Open { path: path.to_owned(), why: source.to_string() }
        }
        redb::Error::Io(_) | redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. } => {
            damaged(path, &error.to_string())
        }
        _ => OutboxError::Database(error),
    }
}
