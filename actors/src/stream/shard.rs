//! A shard: one thread's worth of stream actors, and the registry of their addresses.
//!
//! Promises: a message for a stream without an actor makes one, from its kept state where there is some; a message that meets
//! a stopped actor is sent again to a new one; the number of streams with state is bounded (promise I4).

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use actix::WeakAddr;
use actix::prelude::*;
use nearside_schemas::{KeyValues, SetAsideReason, StreamId, StreamMap, Timestamp};

use super::actor::{DrainStream, Judged, StreamActor, Tick, Work};
use super::component::{InferenceRequest, Outputs, StreamComponent};
use super::plan::StreamPlan;
use crate::credit::{Admission, ShardCredit};
use crate::inference::{InferenceQueues, Job};
use crate::outlet::Outlet;

/// One stream as the ingest side knows it.
#[derive(Debug)]
pub struct StreamRef {
    /// Its id.
    pub id: StreamId,
    /// The position of its definition.
    pub definition: usize,
    /// Its shard.
    pub shard: usize,
    /// Its key.
    pub key: KeyValues,
    /// Messages sent to its actor and not yet taken.
    pending: AtomicU32,
}

impl StreamRef {
    /// A stream of definition `definition`.
    pub const fn new(id: StreamId, definition: usize, shard: usize, key: KeyValues) -> Self {
        Self { id, definition, shard, key, pending: AtomicU32::new(0) }
    }

    pub(super) fn taken(&self) {
        self.pending.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn has_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) > 0
    }
}

/// Committed work for a shard, in journal order.
pub struct ShardBatch(pub Vec<Work>);

impl Message for ShardBatch {
    type Result = ();
}

/// What a network said of rows of this shard's streams, for each stream in the order of its requests.
pub struct ShardJudged(pub Vec<(StreamId, Judged)>);

impl Message for ShardJudged {
    type Result = ();
}

/// Time passes, as the journal recorded it.
pub struct ShardTick(pub Timestamp);

impl Message for ShardTick {
    type Result = ();
}

/// Close the windows of every stream and answer when all summaries are handed on.
pub struct DrainShard(pub Timestamp);

impl Message for DrainShard {
    type Result = ();
}

/// What a shard is built from.
#[derive(Clone)]
pub struct ShardSetup {
    /// Its number.
    pub index: usize,
    /// The stream definitions.
    pub plans: Vec<Arc<StreamPlan>>,
    /// The inference queues.
    pub queues: InferenceQueues,
    /// Where summaries and findings go.
    pub outlet: Arc<Outlet>,
    /// The shard's credit, for its metric.
    pub credit: Arc<ShardCredit>,
    /// Most messages in one stream's mailbox.
    pub mailbox_bound: usize,
    /// How long a stream without readings keeps its actor.
    pub retire_after: Duration,
}

/// What the shard and its streams share; all on one thread.
pub(super) struct ShardState {
    setup: ShardSetup,
    /// Where networks answer to; known once the shard has started.
    address: RefCell<Option<WeakAddr<Shard>>>,
    streams: RefCell<StreamMap<Addr<StreamActor>>>,
    resting: RefCell<StreamMap<Vec<Vec<u8>>>>,
    wake: RefCell<BinaryHeap<Reverse<Wake>>>,
}

/// A stream that wants a tick. Ordered by time, then id, so that ticks go out in the same order in every run (I5).
struct Wake(Timestamp, Arc<StreamRef>);

impl PartialEq for Wake {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1.id) == (other.0, other.1.id)
    }
}
impl Eq for Wake {}
impl PartialOrd for Wake {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Wake {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1.id).cmp(&(other.0, other.1.id))
    }
}

impl ShardState {
    pub(super) const fn mailbox_bound(&self) -> usize {
        self.setup.mailbox_bound
    }

    pub(super) const fn retire_after(&self) -> Duration {
        self.setup.retire_after
    }

    /// Hands rows to the model's queue; false where there is none any more.
    pub(super) fn submit(
        &self,
        queue: Option<usize>,
        stream: &StreamRef,
        request: InferenceRequest,
        admission: Option<Arc<Admission>>,
    ) -> bool {
        let address = self.address.borrow().as_ref().and_then(WeakAddr::upgrade);
        let (Some(queue), Some(reply)) = (queue, address) else { return false };
        let InferenceRequest { model, inputs, data } = request;
        let job = Job { stream: stream.id, model, inputs, data, admission, reply, shard: stream.shard };
        self.setup.queues.submit(queue, job).is_none()
    }

    /// Hands on what a stream gave back.
    pub(super) fn publish(&self, component: &StreamComponent, outputs: &mut Outputs) {
        self.setup.outlet.publish(component, outputs);
    }

    pub(super) fn wake_at(&self, at: Timestamp, stream: Arc<StreamRef>) {
        self.wake.borrow_mut().push(Reverse(Wake(at, stream)));
    }

    pub(super) fn retire(&self, stream: &Arc<StreamRef>, component: &StreamComponent) {
        self.streams.borrow_mut().remove(&stream.id);
        self.resting.borrow_mut().insert(stream.id, component.snapshot());
        self.setup.outlet.stream_retired(stream.definition);
    }

    fn address(self: &Rc<Self>, stream: &Arc<StreamRef>) -> Addr<StreamActor> {
        if let Some(address) = self.streams.borrow().get(&stream.id) {
            return address.clone();
        }
        let plan = self.setup.plans[stream.definition].clone();
        let kept = self.resting.borrow_mut().remove(&stream.id);
        let component = match kept {
            Some(parts) => {
                let (component, lost) = StreamComponent::restore(plan, stream.id, stream.key.clone(), &parts);
                self.setup.outlet.state_lost(lost);
                component
            }
            None => StreamComponent::new(plan, stream.id, stream.key.clone()),
        };
        let address = StreamActor::new(component, stream.clone(), self.clone()).start();
        self.streams.borrow_mut().insert(stream.id, address.clone());
        self.setup.outlet.stream_started(stream.definition);
        address
    }

    fn deliver(self: &Rc<Self>, work: Work) {
        work.stream.pending.fetch_add(1, Ordering::AcqRel);
        // The usual case, without a copy of the address: sending does not come back here, so the borrow holds.
        let mut unsent = match self.streams.borrow().get(&work.stream.id) {
            Some(address) => match address.try_send(work) {
                Ok(()) => return,
                Err(unsent) => unsent,
            },
            None => SendError::Closed(work),
        };
        let (SendError::Full(work) | SendError::Closed(work)) = &unsent;
        let stream = work.stream.clone();
        if let SendError::Closed(work) = unsent {
            self.streams.borrow_mut().remove(&stream.id);
            unsent = match self.address(&stream).try_send(work) {
                Ok(()) => return,
                Err(unsent) => unsent,
            };
        }
        // Credit keeps mailboxes below their bound, so this is a fault of ours: counted, never silent.
        let (SendError::Full(work) | SendError::Closed(work)) = unsent;
        stream.taken();
        self.setup.outlet.set_aside(stream.definition, SetAsideReason::Overflow, work.readings.len() as u64);
        tracing::error!(stream = %stream.id, "a stream's mailbox was full in spite of credit");
    }

    fn due(&self, now: Timestamp) -> Vec<Arc<StreamRef>> {
        let mut wake = self.wake.borrow_mut();
        let mut due: Vec<Arc<StreamRef>> = Vec::new();
        while wake.peek().is_some_and(|next| next.0.0 <= now) {
            if let Some(Reverse(Wake(_, stream))) = wake.pop()
                && due.last().is_none_or(|last| last.id != stream.id)
            {
                due.push(stream);
            }
        }
        due
    }
}

/// The actor that owns a shard.
pub struct Shard {
    state: Rc<ShardState>,
}

impl Shard {
    /// Builds the shard on the arbiter it is to live on.
    pub fn new(setup: ShardSetup) -> Self {
        let state = ShardState {
            setup,
            address: RefCell::default(),
            streams: RefCell::default(),
            resting: RefCell::default(),
            wake: RefCell::default(),
        };
        Self { state: Rc::new(state) }
    }
}

impl Actor for Shard {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.state.mailbox_bound());
        self.state.address.replace(Some(ctx.address().downgrade()));
    }
}

impl Handler<ShardBatch> for Shard {
    type Result = ();

    fn handle(&mut self, batch: ShardBatch, _: &mut Self::Context) {
        for work in batch.0 {
            self.state.deliver(work);
        }
    }
}

impl Handler<ShardJudged> for Shard {
    type Result = ();

    fn handle(&mut self, answers: ShardJudged, _: &mut Self::Context) {
        let streams = self.state.streams.borrow();
        for (stream, judged) in answers.0 {
            // A stream with unjudged rows never retires, and credit keeps its mailbox below the bound.
            let sent = streams.get(&stream).is_some_and(|address| address.try_send(judged).is_ok());
            if !sent {
                tracing::error!(%stream, "a stream did not take its answers; their rows stay unjudged");
            }
        }
    }
}

impl Handler<ShardTick> for Shard {
    type Result = ();

    fn handle(&mut self, tick: ShardTick, _: &mut Self::Context) {
        for stream in self.state.due(tick.0) {
            let address = self.state.streams.borrow().get(&stream.id).cloned();
            if let Some(address) = address {
                // A stream whose mailbox is full hears of time at its next tick.
                if address.try_send(Tick(tick.0)).is_err() {
                    self.state.wake_at(tick.0, stream);
                }
            }
        }
        self.state.setup.credit.observe();
    }
}

impl Handler<DrainShard> for Shard {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, drain: DrainShard, _: &mut Self::Context) -> Self::Result {
        let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
        let mut streams: Vec<_> = self.state.streams.borrow().iter().map(|(id, addr)| (*id, addr.clone())).collect();
        streams.sort_by_key(|(id, _)| *id);
        Box::pin(async move {
            let mut waiting = 0;
            for (_, address) in streams {
                let message = DrainStream { now: drain.0, done: done.clone() };
                if address.try_send(message).is_ok() {
                    waiting += 1;
                }
            }
            drop(done);
            while waiting > 0 && finished.recv().await.is_some() {
                waiting -= 1;
            }
        })
    }
}
