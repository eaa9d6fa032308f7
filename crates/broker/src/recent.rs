//! Which messages of the message router a session has: it shows one once for each filter, and again where it was replaced.

use std::collections::{HashSet, VecDeque};

/// The numbers of the last messages from the message router.
#[derive(Default)]
pub(crate) struct Recent {
    /// While there is one filter, messages come in the order of their numbers: the last one says it all.
    last: u64,
    /// Since there were several.
    known: Option<HashSet<u64>>,
    order: VecDeque<u64>,
}

impl Recent {
    /// More than the message router holds at a time.
    const MOST: usize = 8_192;

    /// Whether the session does not have message `number`, now that it has so many filters. From then on it has.
    pub(crate) fn is_new(&mut self, number: u64, filters: usize) -> bool {
        if number <= self.last {
            return false;
        }
        if filters > 1 {
            self.known.get_or_insert_default();
        }
        let Some(known) = &mut self.known else {
            self.last = number;
            return true;
        };
        if !known.insert(number) {
            return false;
        }
        self.order.push_back(number);
        if self.order.len() > Self::MOST
            && let Some(oldest) = self.order.pop_front()
        {
            known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_new_once() {
        let mut recent = Recent::default();
        assert!(recent.is_new(1, 1) && recent.is_new(3, 1));
        assert!(!recent.is_new(3, 1) && !recent.is_new(2, 1), "one filter's messages come in order");
        assert!(recent.is_new(7, 2) && recent.is_new(5, 2), "those of several do not");
        assert!(!recent.is_new(7, 2) && !recent.is_new(5, 1) && !recent.is_new(1, 2));
        assert!(recent.is_new(6, 1), "what came before one filter went may still come");
    }
}
