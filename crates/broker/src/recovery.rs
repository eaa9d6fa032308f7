//! What the journal says, while the gateway takes it in again, of QoS 2 messages that sessions sent.
//!
//! Promise: a message that is in the journal is not taken again when its client sends it again after a crash (section 4.3.3). The
//! journal has it first and the session store learns it then; what a crash between the two leaves unknown, the store learns here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use nearside_schemas::{Publish, QoS};
use tokio::sync::watch;

use crate::front_door::Shared;
use crate::store::Change;

/// Shared by the front door and whoever reads the journal.
#[derive(Clone)]
pub struct Recovery(Arc<State>);

struct State {
    shared: OnceLock<Weak<Shared>>,
    over: watch::Sender<bool>,
    /// The journal holds nothing yet that has this number or a higher one, but for what is not answered.
    reached: AtomicU64,
}

impl Recovery {
    /// The journal will be read: QoS 2 messages from clients wait for [`Recovery::finish`]. The first message of this run gets the
    /// number `begins_at` or a higher one.
    pub fn expected(begins_at: u64) -> Self {
        Self::new(false, begins_at)
    }

    /// There is no journal to read.
    pub fn none() -> Self {
        Self::new(true, 0)
    }

    fn new(over: bool, begins_at: u64) -> Self {
        let over = watch::channel(over).0;
        Self(Arc::new(State { shared: OnceLock::new(), over, reached: AtomicU64::new(begins_at) }))
    }

    /// A message stands in the journal under this number.
    pub fn journalled(&self, number: u64, publish: &Publish) {
        let (QoS::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id) else { return };
        let Some(shared) = self.0.shared.get().and_then(Weak::upgrade) else { return };
        let Some(session) = shared.sessions.find(&publish.client) else { return };
        if session.learns(number) {
            // Nothing is on its way yet that could have come again.
            let _ = session.keep(&[id]);
            let changes = vec![Change::Take(session.number, id), Change::Journalled(session.number, number + 1)];
            shared.store.send(changes, None);
        }
    }

    /// The journal is read.
    pub fn finish(&self) {
        self.0.over.send_replace(true);
    }

    /// What a session that begins now has to know of nothing below: it is its predecessors'.
    pub(crate) fn reached(&self) -> u64 {
        self.0.reached.load(Ordering::Acquire)
    }

    /// The journal has come so far.
    pub(crate) fn reach(&self, below: u64) {
        self.0.reached.fetch_max(below, Ordering::AcqRel);
    }

    pub(crate) fn begin(&self, shared: &Arc<Shared>) {
        // A second front door would have sessions of its own.
        let _ = self.0.shared.set(Arc::downgrade(shared));
    }

    /// Waits until the journal is read.
    pub(crate) async fn over(&self) {
        let mut over = self.0.over.subscribe();
        // The sender lives as long as this.
        let _ = over.wait_for(|over| *over).await;
    }
}
