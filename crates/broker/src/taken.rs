//! QoS 2 messages from a client by their packet ids, from PUBLISH to PUBREL (section 4.3.3).
//!
//! Promise: an id whose message is not safe yet is never answered as received, however often the message is sent again (I1).

use std::collections::HashMap;

use nearside_schemas::PacketId;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The message is on its way to the disk.
    Pending,
    /// It is safe.
    Safe,
}

/// What a PUBLISH with a packet id is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Take {
    /// A message of its own.
    New,
    /// A message again that is on its way to the disk: its answer comes when it is there.
    Pending,
    /// A message again that is safe.
    Again,
}

/// The ids in use.
#[derive(Default)]
pub(crate) struct Taken(HashMap<PacketId, State>);

impl Taken {
    /// The ids of messages that are safe.
    pub(crate) fn restored(ids: Vec<PacketId>) -> Self {
        Self(ids.into_iter().map(|id| (id, State::Safe)).collect())
    }

    pub(crate) fn take(&mut self, id: PacketId) -> Take {
        match self.0.get(&id) {
            Some(State::Safe) => Take::Again,
            Some(State::Pending) => Take::Pending,
            None => {
                self.0.insert(id, State::Pending);
                Take::New
            }
        }
    }

    /// The message is safe.
    pub(crate) fn keep(&mut self, id: PacketId) {
        self.0.insert(id, State::Safe);
    }

    /// The message is not taken after all.
    pub(crate) fn give_back(&mut self, id: PacketId) {
        self.0.remove(&id);
    }

    /// The client releases the id. False where no safe message has it.
    pub(crate) fn release(&mut self, id: PacketId) -> bool {
        let safe = self.0.get(&id) == Some(&State::Safe);
        if safe {
            self.0.remove(&id);
        }
        safe
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_answered_again_only_once_its_message_is_safe() {
        let (mut taken, id) = (Taken::default(), PacketId::MIN);
        assert_eq!(taken.take(id), Take::New);
        assert_eq!(taken.take(id), Take::Pending);
        assert!(!taken.release(id), "nothing was received yet");
        taken.keep(id);
        assert_eq!(taken.take(id), Take::Again);
        assert!(taken.release(id) && !taken.release(id));
        assert_eq!(taken.take(id), Take::New);
        taken.give_back(id);
        assert_eq!((taken.take(id), taken.count()), (Take::New, 1));
        assert_eq!(Taken::restored(vec![id]).take(id), Take::Again);
    }
}
