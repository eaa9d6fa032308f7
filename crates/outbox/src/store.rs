//! The tables in redb and what is done to them in one transaction.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use nearside_privacy::{Class, KeyRing, SealedItem};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use crate::outbox::OutboxError;

/// Class and sequence → when it was put (microseconds), stored item.
const ITEMS: TableDefinition<'_, (u8, u64), (i64, &[u8])> = TableDefinition::new("items-v1");
/// What an item is → class, sequence, revision of the one that waits.
const SUBJECTS: TableDefinition<'_, &str, (u8, u64, u32)> = TableDefinition::new("subjects-v1");
/// Items that could not be read: class and sequence → stored bytes.
const DEAD: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("dead-v1");
/// `next`: the next sequence.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta-v1");

/// Most dead items that are kept; past it the oldest goes.
const KEPT_DEAD: u64 = 1_000;

/// The position of an item in its class, for acknowledging it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Sequence {
    pub(crate) class: u8,
    pub(crate) number: u64,
}

/// An item that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its position.
    pub sequence: Sequence,
    /// The item.
    pub item: SealedItem,
}

/// What waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Items by class.
    pub items: [u64; 3],
    /// Bytes of all of them.
    pub bytes: u64,
    /// When the oldest was put, in microseconds since 1970.
    pub oldest_micros: Option<i64>,
    /// Items that could not be read.
    pub dead: u64,
}

pub(crate) struct Store {
    database: Database,
    pub(crate) stats: Stats,
    next: u64,
    /// Acknowledged, with the removal not yet committed: not handed out again.
    pub(crate) removing: HashSet<Sequence>,
}

/// What a round of changes did.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) shed: HashMap<u8, u64>,
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self, OutboxError> {
        let database = Database::create(path).map_err(|error| OutboxError::open(path, error))?;
        let opened = (|| -> Result<(Stats, u64), redb::Error> {
            let write = database.begin_write()?;
            let mut stats = Stats::default();
            let next;
            {
                let items = write.open_table(ITEMS)?;
                write.open_table(SUBJECTS)?;
                let dead = write.open_table(DEAD)?;
                next = write.open_table(META)?.get("next")?.map_or(0, |value| value.value());
                for entry in items.iter()? {
                    let (key, value) = entry?;
                    let (at, bytes) = value.value();
                    stats.add(key.value().0, bytes.len(), at);
                }
                stats.dead = dead.len()?;
            }
            write.commit()?;
            Ok((stats, next))
        })();
        let (stats, next) = opened.map_err(OutboxError::Database)?;
        Ok(Self { database, stats, next, removing: HashSet::new() })
    }

    /// Puts and removes in one durable transaction, then sheds what is over the quota.
    pub(crate) fn apply(
        &mut self,
        puts: &[(SealedItem, Vec<u8>, i64)],
        remove: &[Sequence],
        quota_bytes: u64,
    ) -> Result<Changes, OutboxError> {
        let mut stats = self.stats.clone();
        let mut next = self.next;
        let changes = (|| -> Result<Changes, redb::Error> {
            let write = self.database.begin_write()?;
            let mut changes = Changes::default();
            {
                let mut items = write.open_table(ITEMS)?;
                let mut subjects = write.open_table(SUBJECTS)?;
                for sequence in remove {
                    remove_item(&mut items, &mut subjects, *sequence, &mut stats)?;
                }
                for (item, stored, at) in puts {
                    let known = subjects.get(item.subject())?.map(|value| value.value());
                    if let Some((class, number, revision)) = known {
                        if revision >= item.revision() {
                            continue;
                        }
                        remove_item(&mut items, &mut subjects, Sequence { class, number }, &mut stats)?;
                    }
                    let class = item.class() as u8;
                    items.insert((class, next), (*at, stored.as_slice()))?;
                    subjects.insert(item.subject(), (class, next, item.revision()))?;
                    stats.add(class, stored.len(), *at);
                    next += 1;
                }
                while stats.bytes > quota_bytes {
                    // The least urgent class first, its oldest first.
                    let Some(victim) = least_urgent(&items)? else { break };
                    remove_item(&mut items, &mut subjects, victim, &mut stats)?;
                    *changes.shed.entry(victim.class).or_default() += 1;
                }
                write.open_table(META)?.insert("next", next)?;
            }
            write.commit()?;
            Ok(changes)
        })();
        let changes = changes.map_err(OutboxError::Database)?;
        self.stats = stats;
        self.next = next;
        for sequence in remove {
            self.removing.remove(sequence);
        }
        self.refresh_oldest();
        Ok(changes)
    }

    /// The oldest items of the most urgent classes, at most `most` and about `max_bytes`, skipping those in flight.
    pub(crate) fn batch(
        &mut self,
        keys: &KeyRing,
        most: usize,
        max_bytes: usize,
        skip: &dyn Fn(&Sequence) -> bool,
    ) -> Result<Vec<Entry>, OutboxError> {
        let mut batch = Vec::new();
        let mut dead = Vec::new();
        (|| -> Result<(), redb::Error> {
            let read = self.database.begin_read()?;
            let items = read.open_table(ITEMS)?;
            let mut bytes = 0;
            for entry in items.iter()? {
                let (key, value) = entry?;
                let (class, number) = key.value();
                let sequence = Sequence { class, number };
                if skip(&sequence) || self.removing.contains(&sequence) {
                    continue;
                }
                let stored = value.value().1;
                match SealedItem::load(stored, keys) {
                    Ok(item) => {
                        bytes += stored.len();
                        batch.push(Entry { sequence, item });
                    }
                    Err(_) => dead.push((sequence, stored.to_vec())),
                }
                if batch.len() >= most || bytes >= max_bytes {
                    break;
                }
            }
            Ok(())
        })()
        .map_err(OutboxError::Database)?;
        if !dead.is_empty() {
            self.bury(&dead)?;
        }
        Ok(batch)
    }

    /// Moves items that cannot be read out of the way.
    fn bury(&mut self, found: &[(Sequence, Vec<u8>)]) -> Result<(), OutboxError> {
        let mut stats = self.stats.clone();
        (|| -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            {
                let mut items = write.open_table(ITEMS)?;
                let mut dead = write.open_table(DEAD)?;
                for (sequence, stored) in found {
                    let key = (sequence.class, sequence.number);
                    dead.insert(key, stored.as_slice())?;
                    if let Some(removed) = items.remove(key)? {
                        stats.remove(sequence.class, removed.value().1.len());
                    }
                }
                while dead.len()? > KEPT_DEAD {
                    dead.pop_first()?;
                }
                stats.dead = dead.len()?;
            }
            write.commit()?;
            Ok(())
        })()
        .map_err(OutboxError::Database)?;
        tracing::error!(items = found.len(), "items of the outbox could not be read and were set aside");
        self.stats = stats;
        Ok(())
    }

    fn refresh_oldest(&mut self) {
        self.stats.oldest_micros = (|| -> Result<Option<i64>, redb::Error> {
            let items = self.database.begin_read()?.open_table(ITEMS)?;
            let mut oldest = None;
            for class in Class::ALL {
                let class = class as u8;
                if let Some(first) = items.range((class, 0)..=(class, u64::MAX))?.next() {
                    let at = first?.1.value().0;
                    oldest = Some(oldest.map_or(at, |known: i64| known.min(at)));
                }
            }
            Ok(oldest)
        })()
        .unwrap_or_default();
    }
}

impl Stats {
    fn add(&mut self, class: u8, bytes: usize, at: i64) {
        if let Some(count) = self.items.get_mut(usize::from(class)) {
            *count += 1;
        }
        self.bytes += bytes as u64;
        self.oldest_micros = Some(self.oldest_micros.map_or(at, |oldest| oldest.min(at)));
    }

    fn remove(&mut self, class: u8, bytes: usize) {
        if let Some(count) = self.items.get_mut(usize::from(class)) {
            *count = count.saturating_sub(1);
        }
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
}

type Items<'t> = redb::Table<'t, (u8, u64), (i64, &'static [u8])>;
type Subjects<'t> = redb::Table<'t, &'static str, (u8, u64, u32)>;

fn remove_item(
    items: &mut Items<'_>,
    subjects: &mut Subjects<'_>,
    sequence: Sequence,
    stats: &mut Stats,
) -> Result<(), redb::Error> {
    let Some(removed) = items.remove((sequence.class, sequence.number))? else { return Ok(()) };
    let stored = removed.value().1.to_vec();
    drop(removed);
    stats.remove(sequence.class, stored.len());
    if let Some(subject) = SealedItem::subject_of_stored(&stored) {
        let current = subjects.get(subject.as_str())?.map(|value| value.value());
        if current.is_some_and(|(class, number, _)| (class, number) == (sequence.class, sequence.number)) {
            subjects.remove(subject.as_str())?;
        }
    }
    Ok(())
}

fn least_urgent(items: &Items<'_>) -> Result<Option<Sequence>, redb::Error> {
    for class in Class::ALL.into_iter().rev() {
        let class = class as u8;
        if let Some(first) = items.range((class, 0)..=(class, u64::MAX))?.next() {
            let number = first?.0.value().1;
            return Ok(Some(Sequence { class, number }));
        }
    }
    Ok(None)
}
