//! Publishes that wait for their answer, and the acknowledgements that they get.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nearside_schemas::{PacketId, RefusalReason};
use tokio::sync::Notify;

use crate::front_door::Shared;
use crate::packet::{self, AckKind, Reason, Version};
use crate::session::Session;
use crate::writer::Outlet;

/// Unanswered publishes of a connection; a batch that needs no acknowledgement counts as one.
#[derive(Default)]
pub(crate) struct Unanswered {
    pub(crate) count: AtomicUsize,
    /// Batches whose acknowledgement waits for the session store: later ones wait behind them, to keep the order.
    pub(crate) storing: AtomicUsize,
    fewer: Notify,
}

impl Unanswered {
    fn settle(&self, count: usize) {
        self.count.fetch_sub(count, Ordering::AcqRel);
        self.fewer.notify_one();
    }

    /// Waits until there are fewer than `bound`.
    pub(crate) async fn below(&self, bound: usize) {
        loop {
            let fewer = self.fewer.notified();
            if self.count.load(Ordering::Acquire) < bound {
                return;
            }
            fewer.await;
        }
    }
}

/// Publishes that wait for their answer; however the answer ends, even dropped uncalled, they wait no longer.
pub(crate) struct Settles(pub(crate) Arc<Unanswered>, pub(crate) usize);

impl Drop for Settles {
    fn drop(&mut self) {
        self.0.settle(self.1);
    }
}

/// The acknowledgements of one batch.
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
    /// All of it is safe.
    pub(crate) fn acknowledge(&self) {
        let mut out = Vec::with_capacity(self.acks.len() * 4);
        self.acks.iter().for_each(|(kind, id)| packet::ack(&mut out, *kind, *id));
        self.outlet.send_bytes(out);
        self.shared.metrics.acknowledged.inc_by(self.acks.len() as u64);
    }

    /// None of it is.
    pub(crate) fn refuse(&self, refusal: RefusalReason) {
        let reason = match refusal {
            RefusalReason::QuotaExceeded => Reason::QuotaExceeded,
            RefusalReason::StorageFailed | RefusalReason::Draining => Reason::Unspecified,
        };
        for id in &self.taken {
            self.session.free(*id);
        }
        if self.version == Version::V311 {
            // Not acknowledged: the client sends them again.
            if !self.acks.is_empty() {
                self.outlet.close();
            }
            return;
        }
        let mut out = Vec::with_capacity(self.acks.len() * 5);
        self.acks.iter().for_each(|(kind, id)| packet::refuse(&mut out, *kind, *id, reason));
        self.outlet.send_bytes(out);
    }
}
