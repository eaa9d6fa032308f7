//! What is on its way to a session's client: sent and not settled, or waiting; with what bounds and counts it.

use std::collections::VecDeque;
use std::sync::Arc;

use nearside_schemas::{PacketId, QoS};
use nearside_telemetry::{Counter, Metric, Telemetry};

use crate::message::Message;
use crate::peer::Peer;
use crate::queue::{Held, SharedBudget, Waiting};

/// What bounds a session.
#[derive(Clone, Copy)]
pub(crate) struct SessionBounds {
    pub(crate) queue: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) in_flight: usize,
}

/// What all sessions share.
pub(crate) struct Common {
    pub(crate) metrics: DeliveryMetrics,
    pub(crate) budget: Arc<SharedBudget>,
}

/// Counters of all sessions.
pub(crate) struct DeliveryMetrics {
    pub(crate) delivered: Counter,
    pub(crate) slow: Counter,
    pub(crate) too_large: Counter,
    pub(crate) expired: Counter,
    pub(crate) refused: Counter,
    pub(crate) offline: Counter,
    pub(crate) forbidden: Counter,
}

impl DeliveryMetrics {
    pub(crate) fn new(telemetry: &Telemetry) -> Self {
        let dropped = |reason| telemetry.counter(Metric::PublishesDropped, &[reason]);
        Self {
            delivered: telemetry.counter(Metric::PublishesDelivered, &[]),
            slow: dropped("slow_subscriber"),
            too_large: dropped("too_large"),
            expired: dropped("expired"),
            refused: dropped("refused_by_subscriber"),
            offline: dropped("offline_qos0"),
            forbidden: dropped("no_longer_allowed"),
        }
    }
}

/// Where a message that was sent stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for PUBACK or PUBREC.
    Sent,
    /// PUBREC came, but that is not on disk yet.
    Received,
    /// Waits for PUBCOMP.
    Released,
}

pub(crate) struct InFlight {
    pub(crate) position: u64,
    pub(crate) id: PacketId,
    pub(crate) stage: Stage,
    /// Gone once PUBREC came.
    pub(crate) held: Option<Held>,
    /// Its PUBREL is to be written.
    pub(crate) due: bool,
}

impl InFlight {
    pub(crate) fn waits_for_puback(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.message.qos == QoS::AtLeastOnce)
    }
}

#[derive(Default)]
pub(crate) struct Outgoing {
    pub(crate) peer: Option<Peer>,
    pub(crate) queue: Waiting,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) last_position: u64,
    /// The highest position that was written to a connection.
    pub(crate) sent: u64,
    /// How many in flight are due.
    pub(crate) due: usize,
}

impl Outgoing {
    /// There is something to write, if anybody is there to write it.
    pub(crate) fn wake(&self) {
        if let Some(peer) = &self.peer {
            peer.bell.ring();
        }
    }

    /// Whether a message of this quality of service could be written now.
    pub(crate) fn is_free_for(&self, qos: QoS) -> bool {
        let is_free = |peer: &Peer| qos == QoS::AtMostOnce || self.in_flight.len() < peer.receive_maximum;
        self.queue.is_empty() && self.peer.as_ref().is_some_and(is_free)
    }

    /// The PUBREL of the message in flight at this place is to be written, or to be written again.
    pub(crate) fn release(&mut self, at: usize) {
        if let Some(sent) = self.in_flight.get_mut(at).filter(|sent| !sent.due) {
            sent.due = true;
            self.due += 1;
        }
        self.wake();
    }

    /// Takes out what waits, and what is on its way to nobody, for which `goes` holds. Gives them back with their positions.
    pub(crate) fn take_out(&mut self, mut goes: impl FnMut(&Message) -> bool) -> Vec<(u64, Held)> {
        let mut gone = Vec::new();
        if self.peer.is_none() {
            let mut stays = VecDeque::new();
            for mut sent in std::mem::take(&mut self.in_flight) {
                match sent.held.take_if(|held| goes(&held.message)) {
                    Some(held) => gone.push((sent.position, held)),
                    None => stays.push_back(sent),
                }
            }
            self.in_flight = stays;
        }
        gone.extend(self.queue.take_out(goes).into_iter().map(|queued| (queued.position, queued.held)));
        gone
    }
}
