//! QoS 2 messages from a client by their packet ids, from PUBLISH to PUBREL (section 4.3.3).
//!
//! Promise: what counts towards receive maximum is what came on the client's present connection (section 4.9); there are never more ids
//! than packet ids, so at most 65,535.
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
pub(crate) struct Taken {
    /// With the connection of the session, counted from 1, that each came on last.
    ids: HashMap<PacketId, (u64, State)>,
    connection: u64,
    /// How many came on that one.
    here: usize,
}

impl Taken {
    /// The ids of messages that are safe.
    pub(crate) fn restored(ids: Vec<PacketId>) -> Self {
        Self { ids: ids.into_iter().map(|id| (id, (0, State::Safe))).collect(), ..Self::default() }
    }

    /// A connection begins.
    pub(crate) fn begin(&mut self) {
        self.connection += 1;
        self.here = 0;
    }

    pub(crate) fn take(&mut self, id: PacketId, asker: &Asker) -> Take {
        let connection = self.connection;
        let Some((came_on, state)) = self.ids.get_mut(&id) else {
            self.ids.insert(id, (connection, State::Pending(None)));
            self.here += 1;
            return Take::New;
        };
        self.here += usize::from(*came_on != connection);
        *came_on = connection;
        match state {
            State::Safe => Take::Again,
            State::Pending(again) => {
                *again = Some(asker.clone());
                Take::Pending
            }
        }
    }

    /// The message is safe. Gives back who sent it again while it was not.
    pub(crate) fn keep(&mut self, id: PacketId) -> Option<Asker> {
        // Where it is not known it is the journal that says so, and it came long ago.
        let (_, state) = self.ids.entry(id).or_insert((0, State::Safe));
        std::mem::replace(state, State::Safe).asker()
    }

    /// The message is not taken after all. Gives back who sent it again meanwhile.
    pub(crate) fn give_back(&mut self, id: PacketId) -> Option<Asker> {
        self.remove(id)?.asker()
    }

    /// The client releases the id. False where no safe message has it.
    pub(crate) fn release(&mut self, id: PacketId) -> bool {
        let safe = matches!(self.ids.get(&id), Some((_, State::Safe)));
        if safe {
            self.remove(id);
        }
        safe
    }

    fn remove(&mut self, id: PacketId) -> Option<State> {
        let (came_on, state) = self.ids.remove(&id)?;
        self.here -= usize::from(came_on == self.connection && came_on > 0);
        Some(state)
    }

    /// How many came on the client's present connection.
    pub(crate) const fn count(&self) -> usize {
        self.here
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
        taken.begin();
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

    #[test]
    fn what_came_on_a_connection_before_does_not_count() {
        let asker = Asker { outlet: Outlet::default(), version: Version::V5 };
        let ids: Vec<PacketId> = (1..=3).filter_map(PacketId::new).collect();
        let mut taken = Taken::restored(vec![ids[0]]);
        taken.begin();
        assert_eq!((taken.take(ids[1], &asker), taken.count()), (Take::New, 1));
        taken.keep(ids[1]);
        taken.begin();
        assert_eq!(taken.count(), 0);
        assert_eq!((taken.take(ids[1], &asker), taken.count()), (Take::Again, 1), "it came on this one, too");
        assert_eq!((taken.take(ids[2], &asker), taken.count()), (Take::New, 2));
        assert!(taken.release(ids[0]) && taken.release(ids[1]));
        assert_eq!(taken.count(), 1);
        assert!(taken.give_back(ids[2]).is_none());
        assert_eq!(taken.count(), 0);
    }
}
