//! Publishes that wait for their answer, and the acknowledgements that they get.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nearside_schemas::{PacketId, QoS, RefusalReason};
use tokio::sync::Notify;

use crate::front_door::Shared;
use crate::message::{Delivery, Message};
use crate::packet::{self, AckKind, Reason, Version};
use crate::session::Session;
use crate::store::Change;
use crate::writer::Outlet;

/// Unanswered publishes of a connection; a batch that needs no acknowledgement counts as one.
#[derive(Default)]
pub(crate) struct Unanswered {
    pub(crate) count: AtomicUsize,
    /// Those of them that the intake has not answered yet.
    pub(crate) at_intake: AtomicUsize,
    /// Batches whose acknowledgement waits for the session store: later ones wait behind them, to keep the order.
    pub(crate) storing: AtomicUsize,
    /// Batches whose QoS 1 messages go to subscribers only when they are safe.
    pub(crate) deferred: AtomicUsize,
    /// Batches behind which everything waits: with a retained message that does, or with QoS 0 messages that wait behind one.
    pub(crate) barring: AtomicUsize,
    fewer: Notify,
}

impl Unanswered {
    fn settle(&self, count: usize) {
        self.count.fetch_sub(count, Ordering::AcqRel);
        self.fewer.notify_one();
    }

    /// Whether there are fewer than `bound`.
    pub(crate) fn is_below(&self, bound: usize) -> bool {
        self.count.load(Ordering::Acquire) < bound
    }

    /// Waits until there are.
    pub(crate) async fn below(&self, bound: usize) {
        // Who settles before this waits leaves word: it is told at once.
        while !self.is_below(bound) {
            self.fewer.notified().await;
        }
    }
}

/// Publishes that wait for their answer; however the answer ends, even dropped uncalled, they wait no longer.
pub(crate) struct Settles(Arc<Unanswered>, usize);

impl Settles {
    pub(crate) fn new(of: &Arc<Unanswered>, count: usize) -> Self {
        of.count.fetch_add(count, Ordering::AcqRel);
        Self(of.clone(), count)
    }
}

impl Drop for Settles {
    fn drop(&mut self) {
        self.0.settle(self.1);
    }
}

/// Publishes that the intake has not answered; dropped, they are, or never will be.
pub(crate) struct AtIntake(Arc<Unanswered>, usize);

impl AtIntake {
    pub(crate) fn new(of: Arc<Unanswered>, count: usize) -> Self {
        of.at_intake.fetch_add(count, Ordering::AcqRel);
        Self(of, count)
    }
}

impl Drop for AtIntake {
    fn drop(&mut self) {
        self.0.at_intake.fetch_sub(self.1, Ordering::AcqRel);
    }
}

/// The connection that a QoS 2 message came on.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) outlet: Outlet,
    pub(crate) version: Version,
}

impl Asker {
    /// Its message is not taken. v3.1.1 cannot say so: the connection ends, and the client sends it again.
    fn refuse(&self, id: PacketId, reason: Reason) {
        match self.version {
            Version::V5 => self.outlet.send(|out| packet::refuse(out, AckKind::Received, id, reason)),
            Version::V311 => self.outlet.close(),
        }
    }
}

/// Messages of a batch that subscribers do not have yet, and what waits behind them meanwhile.
pub(crate) struct Deferred {
    of: Arc<Unanswered>,
    defers: usize,
    bars: usize,
}

impl Deferred {
    pub(crate) fn new(of: Arc<Unanswered>, later: &[Delivery]) -> Self {
        let has = |is: fn(&Message) -> bool| usize::from(later.iter().any(|delivery| is(&delivery.message)));
        let defers = has(|message| message.qos == QoS::AtLeastOnce);
        let bars = has(|message| message.retain || message.qos == QoS::AtMostOnce);
        of.deferred.fetch_add(defers, Ordering::AcqRel);
        of.barring.fetch_add(bars, Ordering::AcqRel);
        Self { of, defers, bars }
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        self.of.deferred.fetch_sub(self.defers, Ordering::AcqRel);
        self.of.barring.fetch_sub(self.bars, Ordering::AcqRel);
    }
}

/// The acknowledgements of one batch. Dropped uncalled, they end the connection: the client sends the batch again.
pub(crate) struct Answers {
    pub(crate) outlet: Outlet,
    pub(crate) version: Version,
    pub(crate) acks: Vec<(AckKind, PacketId)>,
    /// QoS 2 packet ids that are taken with this batch.
    pub(crate) taken: Vec<PacketId>,
    pub(crate) session: Arc<Session>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) _settles: Settles,
}

impl Answers {
    /// All of it is safe once these changes are on disk, and what the store got of it before: `storing` is true then.
    pub(crate) fn acknowledge_once_stored(
        self,
        unanswered: &Arc<Unanswered>,
        changes: Vec<Change>,
        storing: Option<Arc<AtomicBool>>,
    ) {
        if changes.is_empty() && storing.is_none() && unanswered.storing.load(Ordering::Acquire) == 0 {
            return self.acknowledge();
        }
        unanswered.storing.fetch_add(1, Ordering::AcqRel);
        let (shared, unanswered) = (self.shared.clone(), unanswered.clone());
        let stored = move |durable| {
            if durable && storing.is_none_or(|stored| stored.load(Ordering::Acquire)) {
                self.acknowledge();
            } else {
                self.refuse(RefusalReason::StorageFailed);
            }
            unanswered.storing.fetch_sub(1, Ordering::AcqRel);
        };
        shared.store.send(changes, Some(Box::new(stored)));
    }

    /// All of it is safe.
    fn acknowledge(mut self) {
        let again = self.session.keep(&std::mem::take(&mut self.taken));
        let acks = std::mem::take(&mut self.acks);
        self.outlet.send(|out| acks.iter().for_each(|(kind, id)| packet::ack(out, *kind, *id)));
        for (id, asker) in self.elsewhere(again) {
            asker.outlet.send(|out| packet::ack(out, AckKind::Received, id));
        }
        self.shared.metrics.acknowledged.inc_by(acks.len() as u64);
    }

    /// None of it is. v3.1.1 has no way to say so: it is not acknowledged.
    pub(crate) fn refuse(mut self, refusal: RefusalReason) {
        if self.version == Version::V311 {
            return;
        }
        let reason = match refusal {
            RefusalReason::QuotaExceeded => Reason::QuotaExceeded,
            RefusalReason::StorageFailed | RefusalReason::Draining => Reason::Unspecified,
        };
        let acks = std::mem::take(&mut self.acks);
        // First, for the client may use the ids again at once.
        let again = self.session.give_back(&std::mem::take(&mut self.taken));
        self.outlet.send(|out| acks.iter().for_each(|(kind, id)| packet::refuse(out, *kind, *id, reason)));
        self.elsewhere(again).for_each(|(id, asker)| asker.refuse(id, reason));
    }

    /// Messages that came again on another connection than the batch's: the session was taken over while they were on their way. The
    /// batch's own connection is answered with the batch.
    fn elsewhere(&self, again: Vec<(PacketId, Asker)>) -> impl Iterator<Item = (PacketId, Asker)> {
        let own = self.outlet.clone();
        again.into_iter().filter(move |(_, asker)| !asker.outlet.is(&own))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let again = self.session.give_back(&self.taken);
        self.elsewhere(again).for_each(|(id, asker)| asker.refuse(id, Reason::Unspecified));
        if !self.acks.is_empty() {
            self.outlet.close();
        }
    }
}
