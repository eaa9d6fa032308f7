//! The tables of the file, format 1, and the steps that transactions are made of.
//!
//! Every step takes the tables it changes and the figures it changes with them; nothing here commits.

use nearside_privacy::{Class, SealedItem};
use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};

use crate::dead::DeadReason;
use crate::stats::{Sequence, Stats};

/// Class and sequence → when it was put (microseconds), stored item.
pub(crate) const ITEMS: TableDefinition<'_, (u8, u64), (i64, &[u8])> = TableDefinition::new("items-v1");
/// What an item is → class, sequence, revision of the one that waits.
pub(crate) const SUBJECTS: TableDefinition<'_, &str, (u8, u64, u32)> = TableDefinition::new("subjects-v1");
/// Number → when it was set aside (microseconds), class, reason, what was said, stored item.
pub(crate) const DEAD: TableDefinition<'_, u64, (i64, u8, &str, &str, &[u8])> = TableDefinition::new("dead-letters-v1");
/// Number → digest of what was acknowledged, in two halves, and its revision.
pub(crate) const SENT: TableDefinition<'_, u64, (u64, u64, u32)> = TableDefinition::new("sent-v1");
/// `format`, and `next`: the next sequence.
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta-v1");

pub(crate) type Items<'t> = Table<'t, (u8, u64), (i64, &'static [u8])>;
pub(crate) type Subjects<'t> = Table<'t, &'static str, (u8, u64, u32)>;
pub(crate) type DeadTable<'t> = Table<'t, u64, (i64, u8, &'static str, &'static str, &'static [u8])>;

/// The tables of items that wait, open in one transaction.
pub(crate) struct Waiting<'t> {
    pub(crate) items: Items<'t>,
    subjects: Subjects<'t>,
}

/// An item as it was before it was removed.
pub(crate) struct Removed {
    /// What it was; `None` where its head cannot be read.
    pub(crate) identity: Option<(String, u32)>,
    pub(crate) stored: Vec<u8>,
}

/// What a put did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Placed {
    New,
    /// It took the place of a lower revision that waited, of this class.
    Replaced(u8),
    /// The same or a higher revision waits already.
    Known,
}

impl<'t> Waiting<'t> {
    pub(crate) fn open(write: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self { items: write.open_table(ITEMS)?, subjects: write.open_table(SUBJECTS)? })
    }

    /// Puts an item at `number`, unless the same or a higher revision of it waits.
    pub(crate) fn place(
        &mut self,
        item: &SealedItem,
        stored: &[u8],
        (number, at): (u64, i64),
        stats: &mut Stats,
    ) -> Result<Placed, redb::Error> {
        let mut placed = Placed::New;
        let known = self.subjects.get(item.subject())?.map(|value| value.value());
        if let Some((class, old, revision)) = known
            // An index that names what is not there must not keep an item out.
            && self.items.get((class, old))?.is_some()
        {
            if revision >= item.revision() {
                return Ok(Placed::Known);
            }
            self.remove(Sequence { class, number: old }, stats)?;
            placed = Placed::Replaced(class);
        }
        let class = item.class() as u8;
        self.items.insert((class, number), (at, stored))?;
        self.subjects.insert(item.subject(), (class, number, item.revision()))?;
        stats.add(class, stored.len(), at);
        Ok(placed)
    }

    /// Removes an item and its place in the index. `None` where it is not there.
    pub(crate) fn remove(&mut self, sequence: Sequence, stats: &mut Stats) -> Result<Option<Removed>, redb::Error> {
        let Some(removed) = self.items.remove((sequence.class, sequence.number))? else { return Ok(None) };
        let stored = removed.value().1.to_vec();
        drop(removed);
        stats.remove(sequence.class, stored.len());
        let identity = SealedItem::identity_of_stored(&stored);
        if let Some((subject, _)) = &identity {
            let current = self.subjects.get(subject.as_str())?.map(|value| value.value());
            if current.is_some_and(|(class, number, _)| (class, number) == (sequence.class, sequence.number)) {
                self.subjects.remove(subject.as_str())?;
            }
        }
        Ok(Some(Removed { identity, stored }))
    }

    /// The oldest item of the least urgent class.
    pub(crate) fn least_urgent(&self) -> Result<Option<Sequence>, redb::Error> {
        for class in Class::ALL.into_iter().rev() {
            let class = class as u8;
            if let Some(first) = self.items.range((class, 0)..=(class, u64::MAX))?.next() {
                let number = first?.0.value().1;
                return Ok(Some(Sequence { class, number }));
            }
        }
        Ok(None)
    }

    /// Makes the index anew where it does not have one place for each item.
    pub(crate) fn mend_index(&mut self) -> Result<bool, redb::Error> {
        if self.items.len()? == self.subjects.len()? {
            return Ok(false);
        }
        self.subjects.retain(|_, _| false)?;
        for entry in self.items.iter()? {
            let (key, value) = entry?;
            let (class, number) = key.value();
            if let Some((subject, revision)) = SealedItem::identity_of_stored(value.value().1) {
                self.subjects.insert(subject.as_str(), (class, number, revision))?;
            }
        }
        Ok(true)
    }
}

/// A dead letter on its way into the table.
pub(crate) struct Burial<'a> {
    pub(crate) at: i64,
    pub(crate) class: u8,
    pub(crate) reason: DeadReason,
    pub(crate) detail: &'a str,
    pub(crate) stored: &'a [u8],
}

/// Adds a dead letter; past the quota the oldest go. Gives back how many.
pub(crate) fn bury(
    dead: &mut DeadTable<'_>,
    burial: &Burial<'_>,
    quota: u64,
    stats: &mut Stats,
) -> Result<u64, redb::Error> {
    let next = dead.last()?.map_or(0, |(key, _)| key.value() + 1);
    let Burial { at, class, reason, detail, stored } = *burial;
    dead.insert(next, (at, class, reason.label(), detail, stored))?;
    stats.dead += 1;
    stats.dead_bytes += stored.len() as u64;
    let mut shed = 0;
    while stats.dead_bytes > quota {
        let Some((_, oldest)) = dead.pop_first()? else { break };
        stats.dead -= 1;
        stats.dead_bytes = stats.dead_bytes.saturating_sub(oldest.value().4.len() as u64);
        shed += 1;
    }
    Ok(shed)
}
