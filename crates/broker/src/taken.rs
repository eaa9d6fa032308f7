//! QoS 2 messages from a client by their packet ids, from PUBLISH to PUBREL (section 4.3.3).
//!
//! Promise: an id whose message is not safe yet is never answered as received, however often the message is sent again (I1).

use std::collections::HashMap;

use nearside_schemas::PacketId;

use crate::answers::Asker;

enum State {
    /// The message is on its way to the disk; with the connection that sent it again last.
    Pending(Option<Asker>),
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

    pub(crate) fn take(&mut self, id: PacketId, asker: &Asker) -> Take {
        match self.0.get_mut(&id) {
            Some(State::Safe) => Take::Again,
            Some(State::Pending(again)) => {
                *again = Some(asker.clone());
                Take::Pending
            }
            None => {
                self.0.insert(id, State::Pending(None));
                Take::New
            }
        }
    }

    /// The message is safe. Gives back who sent it again while it was not.
    pub(crate) fn keep(&mut self, id: PacketId) -> Option<Asker> {
        self.0.insert(id, State::Safe)?.asker()
    }

    /// The message is not taken after all. Gives back who sent it again meanwhile.
    pub(crate) fn give_back(&mut self, id: PacketId) -> Option<Asker> {
        self.0.remove(&id)?.asker()
    }

    /// The client releases the id. False where no safe message has it.
    pub(crate) fn release(&mut self, id: PacketId) -> bool {
        let safe = matches!(self.0.get(&id), Some(State::Safe));
        if safe {
            self.0.remove(&id);
        }
        safe
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

impl State {
    fn asker(self) -> Option<Asker> {
        match self {
            Self::Pending(again) => again,
            Self::Safe => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Version;
    use crate::writer::Outlet;

    #[test]
    fn an_id_is_answered_again_only_once_its_message_is_safe() {
        let (mut taken, id) = (Taken::default(), PacketId::MIN);
        let asker = Asker { outlet: Outlet::default(), version: Version::V5 };
        assert_eq!(taken.take(id, &asker), Take::New);
        assert_eq!(taken.take(id, &asker), Take::Pending);
        assert!(!taken.release(id), "nothing was received yet");
        assert!(taken.keep(id).is_some_and(|again| again.outlet.is(&asker.outlet)));
        assert_eq!(taken.take(id, &asker), Take::Again);
        assert!(taken.keep(id).is_none(), "who asks for what is safe is answered at once");
        assert!(taken.release(id) && !taken.release(id));
        assert_eq!(taken.take(id, &asker), Take::New);
        assert!(taken.give_back(id).is_none(), "nobody sent it again");
        assert_eq!((taken.take(id, &asker), taken.count()), (Take::New, 1));
        assert_eq!(Taken::restored(vec![id]).take(id, &asker), Take::Again);
    }
}
