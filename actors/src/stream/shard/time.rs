//! Time that passes for the streams of a shard.
//!
//! Promise: a tick reaches a stream at the same place among its readings in every run (promise I5).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::prelude::*;
use nearside_journal::Lsn;
use nearside_schemas::Timestamp;
use nearside_window::CLOCK_SLACK;

use super::{ShardState, Wake};
use crate::stream::actor::{SentTick, Tick};
use crate::stream::messages::ShardTick;
use crate::stream::stream_ref::StreamRef;

impl ShardState {
    /// The streams that a tick goes to: those that asked for it, and those with work that they have not taken yet, for what they will
    /// ask for is not known. So a tick reaches a stream at the same place among its readings in every run (promise I5).
    fn due(&self, tick: &ShardTick) -> Vec<Arc<StreamRef>> {
        let mut wake = self.wake.borrow_mut();
        let mut due: Vec<Arc<StreamRef>> = Vec::new();
        let mut held = Vec::new();
        while wake.peek().is_some_and(|next| next.0.0 <= tick.now) {
            let Some(Reverse(Wake(at, stream))) = wake.pop() else { break };
            if stream.holds(tick.lsn) {
                held.push(Wake(at, stream));
                continue;
            }
            stream.was_woken(at);
            if due.last().is_none_or(|last| last.id != stream.id) {
                due.push(stream);
            }
        }
        // Their state is younger than this tick, which replay repeats: they hear of a later one.
        wake.extend(held.into_iter().map(Reverse));
        due.extend(self.left_behind(tick, &wake));
        // Who has taken everything is forgotten; the others may still have work at the next tick.
        self.touched.borrow_mut().retain(|stream| {
            let waits = stream.has_pending();
            stream.is_touched.store(waits, Ordering::Relaxed);
            waits
        });
        let mut touched = self.touched.borrow().clone();
        touched.sort_by_key(|stream| stream.id);
        due.extend(touched);
        due
    }

    /// Streams that wait from a time that is still to come, for the clock has gone back: they wait from this tick on. All of them hear of
    /// it now, so that they do so at the same record in every run (promise I5).
    fn left_behind(&self, tick: &ShardTick, wake: &BinaryHeap<Reverse<Wake>>) -> Vec<Arc<StreamRef>> {
        let latest = tick.now.plus(CLOCK_SLACK);
        if self.newest.get() <= latest {
            return Vec::new();
        }
        let ahead = wake.iter().map(|Reverse(Wake(_, stream))| stream).filter(|stream| stream.anchor() > latest);
        let (held, mut behind): (Vec<_>, Vec<_>) = ahead.cloned().partition(|stream| stream.holds(tick.lsn));
        self.newest.set(held.iter().map(|stream| stream.anchor()).fold(latest, Timestamp::max));
        behind.sort_by_key(|stream| stream.id);
        behind.dedup_by_key(|stream| stream.id);
        behind
    }

    pub(super) fn tick(self: &Rc<Self>, tick: &ShardTick) {
        self.hand_on();
        self.now.set(tick.now);
        for stream in self.due(tick) {
            let is_behind = stream.anchor() > tick.now.plus(CLOCK_SLACK);
            let rested = self.resting.borrow().get(&stream.id).map(|rested| rested.state.deadline);
            let is_due = |deadline: Option<Timestamp>| is_behind || deadline.is_some_and(|at| at <= tick.now);
            let rests = rested.is_some_and(is_due);
            if !rests {
                // Where it was looked at for an earlier deadline than it has now.
                self.wake_resting(&stream, rested.flatten());
            }
            let known = self.streams.borrow().get(&stream.id).cloned();
            let Some(address) = known.or_else(|| rests.then(|| self.address(&stream))) else { continue };
            self.dirty.borrow_mut().mark(&stream, tick.lsn, tick.now);
            // A stream whose mailbox is full hears of time at its next tick.
            let sent = Tick { now: tick.now, is_live: tick.is_live, awake_since: tick.awake_since };
            match address.try_send(SentTick { tick: sent, on_its_way: tick.on_its_way.clone() }) {
                Ok(()) => {}
                Err(SendError::Full(_)) => self.wake_at(tick.now, stream),
                Err(SendError::Closed(_)) => self.lost(&stream),
            }
        }
        if !self.has_lost.get() {
            self.given.set(self.given.get().max(Lsn(tick.lsn.0 + 1)));
        }
    }
}
