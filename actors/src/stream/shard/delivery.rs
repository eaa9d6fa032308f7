//! Readings and feedback on their way from a shard to its streams.
//!
//! Promises: readings of a stream come in the journal's order, and feedback behind what stands in front of it; what meets an actor that is
//! gone with what it held ends the shard, so that the journal makes the stream whole (promise I1).

use std::rc::Rc;
use std::sync::atomic::Ordering;

use actix::prelude::*;
use nearside_journal::Lsn;
use nearside_schemas::{FeedbackOutcome, SetAsideReason};
use tokio::time::Instant;

use super::ShardState;
use crate::fence::fenced;
use crate::stream::backlog::Gathered;
use crate::stream::messages::ShardFeedback;
use crate::stream::stream_ref::{StreamRef, Work};

impl ShardState {
    /// Takes readings in; they come from record `lsn` or later ones.
    pub(super) fn gather(&self, work: Work, lsn: Lsn) {
        let stream = work.admission.stream().clone();
        if let Some(reading) = work.readings.last() {
            self.newest.set(self.newest.get().max(reading.received));
        }
        if self.backlog.borrow_mut().push(work) {
            self.dirty.borrow_mut().mark(&stream, lsn, self.now.get());
            stream.given();
            if !stream.is_touched.load(Ordering::Relaxed) {
                stream.is_touched.store(true, Ordering::Relaxed);
                self.touched.borrow_mut().push(stream);
            }
        }
    }

    /// Hands every stream what waits for it.
    pub(super) fn hand_on(self: &Rc<Self>) {
        let gathered = self.backlog.borrow_mut().take(Instant::now());
        gathered.into_iter().for_each(|gathered| self.deliver(gathered));
    }

    fn deliver(self: &Rc<Self>, gathered: Gathered) {
        // The usual case, without a copy of the address: sending does not come back here, so the borrow holds.
        let streams = self.streams.borrow();
        let sent = match streams.get(&gathered.admission.stream().id) {
            Some(address) => address.try_send(gathered),
            None => {
                drop(streams);
                self.address(gathered.admission.stream()).try_send(gathered)
            }
        };
        match sent {
            Ok(()) => {}
            Err(SendError::Closed(gathered)) => self.lost(gathered.admission.stream()),
            Err(SendError::Full(gathered)) => {
                // Credit keeps mailboxes below their bound, so this is a fault of ours: counted, never silent.
                let stream = gathered.admission.stream();
                stream.taken();
                self.setup.outlet.set_aside(
                    stream.definition,
                    SetAsideReason::Overflow,
                    gathered.readings.len() as u64,
                );
                tracing::error!(stream = %stream.id, "a stream's mailbox was full in spite of credit");
            }
        }
    }

    /// Hands feedback on behind the readings that stand in front of it in the journal.
    pub(super) fn hear(self: &Rc<Self>, heard: ShardFeedback) {
        self.hand_on();
        let lsn = heard.lsn;
        if !heard.stream.holds(lsn) {
            self.hand_on_feedback(heard);
        }
        if !self.has_lost.get() {
            self.given.set(self.given.get().max(Lsn(lsn.0 + 1)));
        }
    }

    fn hand_on_feedback(self: &Rc<Self>, mut heard: ShardFeedback) {
        let stream = heard.stream.clone();
        let knows = |stream: &StreamRef| {
            self.streams.borrow().contains_key(&stream.id) || self.resting.borrow().contains_key(&stream.id)
        };
        if !knows(&stream) {
            if let Some(reply) = heard.reply.take() {
                // Whoever hears it is no fault of the shard.
                let _ = fenced(|| reply(Ok(FeedbackOutcome::Unknown)));
            }
            return;
        }
        self.dirty.borrow_mut().mark(&stream, heard.lsn, self.now.get());
        stream.given();
        // An address has room for one message at least.
        if self.address(&stream).try_send(heard).is_err() {
            self.lost(&stream);
        }
    }
}
