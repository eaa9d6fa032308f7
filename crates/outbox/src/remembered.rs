//! The items that the cloud acknowledged last, so that what is put again after a crash is not sent again.
//!
//! The memory is a mercy to the network, not a promise: it is bounded, and the cloud deduplicates by id in any case. It can keep out
//! only what the cloud would drop too, an id at or below one that it has.

use std::collections::HashMap;

use redb::ReadableTable;

use crate::tables::SENT;

/// A digest of an item's subject. 128 bits: no two subjects of one site ever share one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Digest(u64, u64);

impl Digest {
    pub(crate) fn of(subject: &str) -> Self {
        let hash = blake3::hash(subject.as_bytes());
        let half = |at: usize| hash.as_bytes()[at..at + 8].iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        Self(half(0), half(8))
    }
}

/// The memory, as far as it is committed.
#[derive(Default)]
pub(crate) struct Remembered {
    /// Digest → revision and the number of its row.
    known: HashMap<Digest, (u32, u64)>,
    most: usize,
}

/// What a transaction adds, kept apart until it is committed.
#[derive(Default)]
pub(crate) struct Additions {
    added: HashMap<Digest, (u32, u64)>,
    forgotten: Vec<(Digest, u64)>,
}

impl Remembered {
    pub(crate) fn load(
        table: &impl ReadableTable<u64, (u64, u64, u32)>,
        most: usize,
    ) -> Result<Self, redb::StorageError> {
        let mut known = HashMap::new();
        for row in table.iter()? {
            let (number, value) = row?;
            let (high, low, revision) = value.value();
            known.insert(Digest(high, low), (revision, number.value()));
        }
        Ok(Self { known, most })
    }

    /// Whether this revision of it or a higher one was acknowledged.
    pub(crate) fn holds(&self, additions: &Additions, digest: Digest, revision: u32) -> bool {
        let known = additions.added.get(&digest).or_else(|| self.known.get(&digest));
        known.is_some_and(|(acknowledged, _)| *acknowledged >= revision)
    }

    /// Writes acknowledged items into the table, forgetting the oldest past the bound.
    pub(crate) fn record(
        &self,
        write: &redb::WriteTransaction,
        acknowledged: impl Iterator<Item = (Digest, u32)>,
    ) -> Result<Additions, redb::Error> {
        let mut additions = Additions::default();
        if self.most == 0 {
            return Ok(additions);
        }
        let mut table = write.open_table(SENT)?;
        let first = table.last()?.map_or(0, |(number, _)| number.value() + 1);
        let mut rows = redb::ReadableTableMetadata::len(&table)?;
        for (number, (digest, revision)) in (first..).zip(acknowledged) {
            let before = additions.added.get(&digest).or_else(|| self.known.get(&digest));
            let revision = before.map_or(revision, |(before, _)| revision.max(*before));
            table.insert(number, (digest.0, digest.1, revision))?;
            additions.added.insert(digest, (revision, number));
            rows += 1;
        }
        while rows > self.most as u64 {
            let Some((number, value)) = table.pop_first()? else { break };
            let (high, low, _) = value.value();
            additions.forgotten.push((Digest(high, low), number.value()));
            rows -= 1;
        }
        Ok(additions)
    }

    /// The transaction is committed.
    pub(crate) fn merge(&mut self, additions: Additions) {
        self.known.extend(additions.added);
        for (digest, number) in additions.forgotten {
            // A later acknowledgement of the same has a row of its own.
            if self.known.get(&digest).is_some_and(|(_, row)| *row == number) {
                self.known.remove(&digest);
            }
        }
    }
}
