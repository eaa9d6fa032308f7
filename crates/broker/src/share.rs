//! Shared subscriptions: each message goes to one member of the group (section 4.8.2 of MQTT 5).

use std::sync::Arc;

use parking_lot::Mutex;

use crate::message::{Delivery, Message};
use crate::packet::Subscription;
use crate::router::SessionNumber;
use crate::session::Session;
use crate::store::Change;

/// The sessions that share one filter under one name.
pub(crate) struct Group {
    pub(crate) number: SessionNumber,
    /// As its members subscribed to it.
    filter: Arc<str>,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    list: Vec<(Arc<Session>, Subscription)>,
    /// Whose turn it is.
    next: usize,
}

impl Group {
    pub(crate) fn new(number: SessionNumber, filter: &str) -> Self {
        Self { number, filter: filter.into(), members: Mutex::default() }
    }

    /// Adds a member, or replaces its subscription.
    pub(crate) fn join(&self, session: &Arc<Session>, subscription: Subscription) {
        let mut members = self.members.lock();
        members.list.retain(|(member, _)| member.number != session.number);
        members.list.push((session.clone(), subscription));
    }

    /// Gives back whether nobody is left.
    pub(crate) fn leave(&self, session: SessionNumber) -> bool {
        let mut members = self.members.lock();
        members.list.retain(|(member, _)| member.number != session);
        members.list.is_empty()
    }

    /// Hands the message to the next member in turn that is connected; where none is, to one whose session waits for it.
    pub(crate) fn offer(&self, delivery: &Delivery, changes: &mut Vec<Change>) {
        let mut members = self.members.lock();
        let count = members.list.len();
        let turns = (0..count).map(|n| (members.next + n) % count);
        let chosen = turns.clone().find(|at| members.list[*at].0.is_connected());
        let Some(chosen) = chosen.or_else(|| turns.into_iter().next()) else { return };
        members.next = (chosen + 1) % count;
        let (session, subscription) = &members.list[chosen];
        // Whoever has it next knows by this who else may have it.
        let message = Message { group: Some(self.filter.clone()), ..delivery.message.clone() };
        session.offer_for(std::iter::once(subscription), &message, changes);
    }
}
