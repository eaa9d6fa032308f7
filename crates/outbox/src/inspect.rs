//! The outbox looked at and mended from outside, while no gateway uses it: `nearside outbox list|check|requeue`.

use std::path::Path;
use std::sync::Arc;

use nearside_privacy::{Class, KeyRing, SealedItem};
use nearside_schemas::Timestamp;
use redb::{ReadableDatabase, ReadableTable};
use serde::Serialize;

use crate::config::{OutboxConfig, OutboxError};
use crate::dead::{DeadLetter, DeadReason};
use crate::medium::FileMedium;
use crate::remembered::{Additions, Digest};
use crate::stats::class_of;
use crate::store::{FORMAT, Store};
use crate::tables::{DEAD, ITEMS, META, Placed, Waiting};

/// An item that waits, as it is listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WaitingItem {
    /// Its number.
    pub number: u64,
    /// Its class; `None` where the number in the file is none.
    pub class: Option<Class>,
    /// Its id; `None` where its head cannot be read.
    pub id: Option<String>,
    /// When it was put.
    pub since: Timestamp,
    /// Its size.
    pub bytes: usize,
    /// Whether it is what was sealed on this site.
    pub whole: bool,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    /// The format of the file.
    pub format: u64,
    /// Items that wait, by class, most urgent first.
    pub waiting: [u64; 3],
    /// Their bytes.
    pub bytes: u64,
    /// Dead letters.
    pub dead: u64,
    /// The numbers of the items that wait and are damaged. The gateway makes dead letters of them when it comes to them.
    pub damaged: Vec<u64>,
}

/// What a requeue did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Requeued {
    /// Items that wait again.
    pub requeued: u64,
    /// Dead letters dropped because the same or a higher revision waits or was acknowledged.
    pub superseded: u64,
    /// Dead letters that stay because they are damaged.
    pub damaged: u64,
    /// Numbers that are no dead letter's.
    pub unknown: u64,
}

/// An outbox that no gateway uses.
pub struct Inspector {
    store: Store,
    keys: Arc<KeyRing>,
}

impl Inspector {
    /// Opens an outbox that is there, checking every page of it.
    ///
    /// # Errors
    /// Where there is none, a gateway uses it, or it is damaged or of another format.
    pub fn open(path: &Path, config: &OutboxConfig, keys: Arc<KeyRing>) -> Result<Self, OutboxError> {
        if !path.exists() {
            return Err(OutboxError::Missing { path: path.to_owned() });
        }
        let medium = Arc::new(FileMedium::new(path, config.reserve.bytes()));
        Ok(Self { store: Store::open(medium, path, config)?, keys })
    }

    /// Shows every item that waits, in the order in which the cloud gets them.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn for_each_waiting(&self, mut show: impl FnMut(WaitingItem)) -> Result<(), OutboxError> {
        self.store.with_database(|database| {
            for entry in database.begin_read()?.open_table(ITEMS)?.iter()? {
                let (key, value) = entry?;
                let (class, number) = key.value();
                let (at, stored) = value.value();
                show(WaitingItem {
                    number,
                    class: class_of(class),
                    id: id_of(stored),
                    since: Timestamp::from_micros(at),
                    bytes: stored.len(),
                    whole: SealedItem::load(stored, &self.keys).is_ok(),
                });
            }
            Ok(())
        })
    }

    /// The dead letters, oldest first.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, OutboxError> {
        self.store.with_database(|database| {
            let mut letters = Vec::new();
            for entry in database.begin_read()?.open_table(DEAD)?.iter()? {
                let (number, value) = entry?;
                let (at, class, reason, detail, stored) = value.value();
                letters.push(DeadLetter {
                    number: number.value(),
                    id: id_of(stored),
                    class: class_of(class),
                    reason: DeadReason::from_label(reason).unwrap_or(DeadReason::Damaged),
                    detail: detail.to_owned(),
                    at: Timestamp::from_micros(at),
                    bytes: stored.len(),
                });
            }
            Ok(letters)
        })
    }

    /// Proves every item that waits.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn check(&self) -> Result<Report, OutboxError> {
        let stats = self.store.shared.state.lock().stats.clone();
        let mut report =
            Report { format: FORMAT, waiting: stats.items, bytes: stats.bytes, dead: stats.dead, damaged: Vec::new() };
        self.for_each_waiting(|item| {
            if !item.whole {
                report.damaged.push(item.number);
            }
        })?;
        Ok(report)
    }

    /// Puts dead letters back among the items that wait: those with these numbers, or all.
    ///
    /// # Errors
    /// Where the database cannot be written.
    pub fn requeue(&self, numbers: Option<&[u64]>) -> Result<Requeued, OutboxError> {
        self.store.with_database(|database| self.requeue_in(database, numbers))
    }

    fn requeue_in(&self, database: &redb::Database, numbers: Option<&[u64]>) -> Result<Requeued, redb::Error> {
        let mut done = Requeued::default();
        let (mut stats, mut next) = {
            let state = self.store.shared.state.lock();
            (state.stats.clone(), state.next)
        };
        let write = database.begin_write()?;
        {
            let mut dead = write.open_table(DEAD)?;
            let mut waiting = Waiting::open(&write)?;
            let chosen = match numbers {
                Some(numbers) => numbers.to_vec(),
                None => dead.iter()?.map(|row| row.map(|(number, _)| number.value())).collect::<Result<_, _>>()?,
            };
            for number in chosen {
                let Some(row) = dead.get(number)?.map(|row| (row.value().0, row.value().4.to_vec())) else {
                    done.unknown += 1;
                    continue;
                };
                let (at, stored) = row;
                let Ok(item) = SealedItem::load(&stored, &self.keys) else {
                    done.damaged += 1;
                    continue;
                };
                dead.remove(number)?;
                let sent =
                    self.store.remembered.holds(&Additions::default(), Digest::of(item.subject()), item.revision());
                if sent || waiting.place(&item, &stored, (next, at), &mut stats)? == Placed::Known {
                    done.superseded += 1;
                } else {
                    done.requeued += 1;
                    next += 1;
                }
            }
            write.open_table(META)?.insert("next", next)?;
        }
        write.commit()?;
        let mut state = self.store.shared.state.lock();
        state.next = next;
        Ok(done)
    }
}

fn id_of(stored: &[u8]) -> Option<String> {
    SealedItem::identity_of_stored(stored).map(|(subject, revision)| format!("{subject}:r{revision}"))
}
