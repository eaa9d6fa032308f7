//! What is in flight on one connection: from publish to the cloud's answer.
//!
//! An answer belongs to an item by packet id and nothing else. Where ids and items do not fit together the connection is given up,
//! and everything in flight is taken from the outbox again: twice is allowed, acknowledged for another is not.

use std::collections::{HashMap, HashSet, VecDeque};

use nearside_outbox::Sequence;
use nearside_privacy::Class;
use tokio::time::Instant;

/// An item between publish and answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flying {
    pub(crate) sequence: Sequence,
    pub(crate) class: Class,
    pub(crate) bytes: usize,
    pub(crate) since: Instant,
    /// Whether it waited when the cloud came back.
    pub(crate) backlog: bool,
}

/// The client's packet ids do not fit the items.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mismatch;

#[derive(Default)]
pub(crate) struct InFlight {
    /// Handed to the client, packet id not yet known; in the order in which the client writes them.
    queued: VecDeque<Flying>,
    by_packet: HashMap<u16, Flying>,
    held: HashSet<Sequence>,
    bytes: usize,
    backlog: usize,
}

impl InFlight {
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of them waited when the cloud came back.
    pub(crate) const fn backlog(&self) -> usize {
        self.backlog
    }

    pub(crate) fn holds(&self, sequence: &Sequence) -> bool {
        self.held.contains(sequence)
    }

    /// The client has taken it.
    pub(crate) fn queue(&mut self, item: Flying) {
        self.held.insert(item.sequence);
        self.bytes += item.bytes;
        self.backlog += usize::from(item.backlog);
        self.queued.push_back(item);
    }

    /// The client has written the next one, with this packet id.
    pub(crate) fn written(&mut self, packet: u16) -> Result<(), Mismatch> {
        let item = self.queued.pop_front().ok_or(Mismatch)?;
        match self.by_packet.insert(packet, item) {
            None => Ok(()),
            Some(_) => Err(Mismatch),
        }
    }

    /// The cloud has answered.
    pub(crate) fn answered(&mut self, packet: u16) -> Result<Flying, Mismatch> {
        let item = self.by_packet.remove(&packet).ok_or(Mismatch)?;
        self.held.remove(&item.sequence);
        self.bytes -= item.bytes;
        self.backlog -= usize::from(item.backlog);
        Ok(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: u64) -> Flying {
        let (sequence, since) = (Sequence::new(Class::Alert, number), Instant::now());
        Flying { sequence, class: Class::Alert, bytes: 10, since, backlog: number < 2 }
    }

    #[test]
    fn answers_in_any_order_find_their_items() {
        let mut flight = InFlight::default();
        let items: Vec<Flying> = (0..3).map(item).collect();
        items.iter().for_each(|item| flight.queue(*item));
        for packet in [7, 8, 9] {
            flight.written(packet).unwrap();
        }
        assert_eq!((flight.len(), flight.bytes(), flight.backlog()), (3, 30, 2));
        assert_eq!(flight.answered(9), Ok(items[2]));
        assert_eq!(flight.answered(7), Ok(items[0]));
        assert_eq!(flight.answered(7), Err(Mismatch), "once each");
        assert!(flight.holds(&items[1].sequence) && !flight.holds(&items[0].sequence));
        assert_eq!((flight.len(), flight.bytes(), flight.backlog()), (1, 10, 1));
    }

    #[test]
    fn ids_that_fit_no_item_are_noticed() {
        let mut flight = InFlight::default();
        assert_eq!(flight.written(1), Err(Mismatch), "nothing was queued");
        assert_eq!(flight.answered(1), Err(Mismatch), "nothing was written");
        flight.queue(item(1));
        flight.queue(item(2));
        flight.written(1).unwrap();
        assert_eq!(flight.written(1), Err(Mismatch), "an id is in use once");
    }
}
