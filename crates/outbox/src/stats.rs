//! What waits, in figures.

use nearside_privacy::{Class, SealedItem};

/// The position of an item in its class, for acknowledging it. Numbers rise over all classes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Sequence {
    pub(crate) class: u8,
    pub(crate) number: u64,
}

impl Sequence {
    /// The position with this number in a class.
    pub const fn new(class: Class, number: u64) -> Self {
        Self { class: class as u8, number }
    }

    /// The number: an item put later has a higher one, whatever its class.
    pub const fn number(self) -> u64 {
        self.number
    }
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
    /// Dead letters.
    pub dead: u64,
    /// Bytes of dead letters.
    pub dead_bytes: u64,
}

impl Stats {
    /// Items of all classes.
    pub fn waiting(&self) -> u64 {
        self.items.iter().sum()
    }

    pub(crate) fn add(&mut self, class: u8, bytes: usize, at: i64) {
        if let Some(count) = self.items.get_mut(usize::from(class)) {
            *count += 1;
        }
        self.bytes += bytes as u64;
        self.oldest_micros = Some(self.oldest_micros.map_or(at, |oldest| oldest.min(at)));
    }

    pub(crate) fn remove(&mut self, class: u8, bytes: usize) {
        if let Some(count) = self.items.get_mut(usize::from(class)) {
            *count = count.saturating_sub(1);
        }
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
}

/// The class with this number.
pub(crate) fn class_of(number: u8) -> Option<Class> {
    Class::ALL.into_iter().find(|class| *class as u8 == number)
}

/// Which items are asked for.
#[derive(Clone, Copy)]
pub struct Take<'a> {
    /// Of which classes, in the order in which they are wanted.
    pub classes: &'a [Class],
    /// Only items with this number or a higher one.
    pub from: u64,
    /// Only items with a lower number.
    pub below: u64,
    /// Most items.
    pub most: usize,
    /// About as many bytes; the last item may go past it.
    pub max_bytes: usize,
}

impl Take<'_> {
    /// The oldest items of the most urgent classes.
    pub const fn first(most: usize, max_bytes: usize) -> Self {
        Self { classes: &Class::ALL, from: 0, below: u64::MAX, most, max_bytes }
    }
}
