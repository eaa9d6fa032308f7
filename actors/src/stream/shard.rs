//! A shard: one thread's worth of stream actors, and the registry of their addresses.
//!
//! Promises: a message for a stream without an actor makes one, from its kept state where there is some; the number of streams with state is
//! bounded (promise I4); no state that it gives covers a record that the stream was not told of, and where one cannot be told, or an actor
//! is gone with what it held, the shard ends (promise I1).

mod delivery;
#[cfg(test)]
mod tests;
mod time;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::WeakAddr;
use actix::prelude::*;
use nearside_journal::Lsn;
use nearside_schemas::{StreamMap, Timestamp, failpoint};
use tokio::time::Instant;

use super::actor::{DrainStream, StreamActor, TakeState};
use super::backlog::{Backlog, Due};
use super::component::StreamComponent;
use super::dirty::{Dirty, DirtyStreams};
use super::messages::{
    AdoptStreams, BeginAt, CollectStates, CollectedState, CollectedStates, DrainShard, RedirtyStreams, ShardBatch,
    ShardFeedback, ShardJudged, ShardTick,
};
use super::outputs::{InferenceRequest, Outputs};
use super::plan::StreamPlan;
use super::state::StreamState;
use super::stream_ref::StreamRef;
use crate::credit::{Admission, ShardCredit};
use crate::inference::{InferenceQueues, Job, Priority};
use crate::outlet::Outlet;

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
    /// How long after it changed a stream's state is collected for a checkpoint; longer where the state is large.
    pub checkpoint_after: Duration,
    /// The first record that replay does not give.
    pub begins_at: Lsn,
}

/// What the shard and its streams share; all on one thread.
pub(super) struct ShardState {
    setup: ShardSetup,
    /// Where networks answer to; known once the shard has started.
    address: RefCell<Option<WeakAddr<Shard>>>,
    streams: RefCell<StreamMap<Addr<StreamActor>>>,
    resting: RefCell<StreamMap<Rested>>,
    wake: RefCell<BinaryHeap<Reverse<Wake>>>,
    /// Readings not yet handed to their streams. Empty whenever a tick or a question goes out, so that these stand among the readings
    /// where the journal has them (promise I5).
    backlog: RefCell<Backlog>,
    /// Whether a timer will hand the backlog on.
    is_backlog_timed: Cell<bool>,
    /// Streams that have changed since their state was last collected.
    dirty: RefCell<DirtyStreams>,
    /// Streams that got work since the last tick and may not have taken it yet.
    touched: RefCell<Vec<Arc<StreamRef>>>,
    /// Every record before this one has been given to its stream.
    given: Cell<Lsn>,
    /// The last tick.
    now: Cell<Timestamp>,
    /// No stream waits from a later time.
    newest: Cell<Timestamp>,
    /// Whether a stream's actor has ended with what it held.
    has_lost: Cell<bool>,
    /// Lent to the stream that handles a message: of a hundred thousand streams each would hold the room of its own last outputs.
    outputs: Cell<Outputs>,
}

/// What is kept of a stream without an actor.
struct Rested {
    stream: Arc<StreamRef>,
    state: StreamState,
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
        (stream, priority): (&StreamRef, Priority),
        request: InferenceRequest,
        admission: Option<Arc<Admission>>,
    ) -> bool {
        let address = self.address.borrow().as_ref().and_then(WeakAddr::upgrade);
        let (Some(queue), Some(reply)) = (queue, address) else { return false };
        let InferenceRequest { model, first, inputs, data } = request;
        let job =
            Job { stream: stream.id, model, first, inputs, data, priority, admission, reply, shard: stream.shard };
        self.setup.queues.submit(queue, job).is_none()
    }

    /// Outputs to be filled, empty; see [`ShardState::take_back`].
    pub(super) fn lend_outputs(&self) -> Outputs {
        self.outputs.take()
    }

    /// Takes back what was lent, once it is handed on.
    pub(super) fn take_back(&self, outputs: Outputs) {
        self.outputs.set(outputs);
    }

    /// Hands on what a stream gave back; how much of it panicked.
    pub(super) fn publish(&self, component: &StreamComponent, outputs: &mut Outputs) -> u32 {
        self.setup.outlet.publish(component, outputs)
    }

    /// The stream has changed by this record.
    pub(super) fn changed(&self, stream: &Arc<StreamRef>, lsn: Lsn) {
        self.dirty.borrow_mut().mark(stream, lsn, self.now.get());
    }

    pub(super) fn wake_at(&self, at: Timestamp, stream: Arc<StreamRef>) {
        self.newest.set(self.newest.get().max(stream.anchor()));
        self.wake.borrow_mut().push(Reverse(Wake(at, stream)));
    }

    /// A stream that rests wants a tick at its state's deadline. It is asked for once, however often the stream goes to rest.
    fn wake_resting(&self, stream: &Arc<StreamRef>, deadline: Option<Timestamp>) {
        if let Some(deadline) = deadline.filter(|deadline| stream.asks_to_be_woken(*deadline)) {
            self.wake_at(deadline, stream.clone());
        }
    }

    pub(super) fn retire(&self, stream: &Arc<StreamRef>, state: StreamState) {
        self.wake_resting(stream, state.deadline);
        self.streams.borrow_mut().remove(&stream.id);
        let rested = Rested { stream: stream.clone(), state };
        self.resting.borrow_mut().insert(stream.id, rested);
        self.setup.outlet.stream_retired(stream.definition);
    }

    fn address(self: &Rc<Self>, stream: &Arc<StreamRef>) -> Addr<StreamActor> {
        if let Some(address) = self.streams.borrow().get(&stream.id) {
            return address.clone();
        }
        let plan = self.setup.plans[stream.definition].clone();
        let kept = self.resting.borrow_mut().remove(&stream.id);
        let component = match kept {
            Some(Rested { state, .. }) => {
                let (component, lost) = StreamComponent::restore(plan, stream.id, stream.key.clone(), &state);
                self.setup.outlet.state_lost(lost);
                component
            }
            None => StreamComponent::new(plan, stream.id, stream.key.clone()),
        };
        // The bound is set before the first message: until it runs an actor's mailbox has room for 16.
        let address = StreamActor::create(|ctx| {
            ctx.set_mailbox_capacity(self.mailbox_bound());
            StreamActor::new(component, stream.clone(), self.clone())
        });
        self.streams.borrow_mut().insert(stream.id, address.clone());
        self.setup.outlet.stream_started(stream.definition);
        address
    }

    fn adopt(&self, stream: Arc<StreamRef>, covers: Lsn, state: StreamState) {
        stream.starts_from(covers);
        stream.set_anchor(state.anchor);
        stream.state_bytes.store(state.size(), Ordering::Relaxed);
        self.wake_resting(&stream, state.deadline);
        if state.is_parked {
            self.setup.outlet.stream_parked(stream.definition);
        }
        self.resting.borrow_mut().insert(stream.id, Rested { stream, state });
    }

    /// The actor of a stream is gone, though nobody told it to go: its windows went with it, and what was in its mailbox.
    fn lost(&self, stream: &StreamRef) {
        self.has_lost.set(true);
        tracing::error!(stream = %stream.id, "a stream's actor has ended with what it held");
    }

    /// Closes the windows of all streams of some definitions, those that rest with open windows since the start among them. False where
    /// a stream could not be told.
    fn drain(self: &Rc<Self>, drain: &DrainShard) -> bool {
        let waits =
            |rested: &&Rested| rested.state.deadline.is_some() && drain.definitions.contains(&rested.stream.definition);
        let waiting: Vec<_> = self.resting.borrow().values().filter(waits).map(|r| r.stream.clone()).collect();
        for stream in &waiting {
            self.address(stream);
        }
        let mut streams: Vec<_> = self.streams.borrow().iter().map(|(id, addr)| (*id, addr.clone())).collect();
        streams.sort_by_key(|(id, _)| *id);
        let mut are_told = true;
        for (id, address) in streams {
            // `given` stays before the record until the stream has marked itself as changed by it.
            let (definitions, done) = (drain.definitions.clone(), drain.done.clone());
            let DrainShard { now, lsn, for_good, .. } = *drain;
            let message = DrainStream { now, lsn, for_good, definitions, done };
            if address.try_send(message).is_err() {
                // It has died, with its windows.
                are_told = false;
                tracing::error!(stream = %id, "a stream did not close its windows; the next start closes them");
            }
        }
        are_told
    }
}

/// The actor that owns a shard.
pub struct Shard {
    state: Rc<ShardState>,
}

impl Shard {
    /// Builds the shard on the arbiter it is to live on.
    pub fn new(setup: ShardSetup, ctx: &mut Context<Self>) -> Self {
        // Before the first message: until it runs an actor's mailbox has room for 16.
        ctx.set_mailbox_capacity(setup.mailbox_bound);
        let state = ShardState {
            given: Cell::new(setup.begins_at),
            address: RefCell::default(),
            streams: RefCell::default(),
            resting: RefCell::default(),
            wake: RefCell::default(),
            backlog: RefCell::new(Backlog::new()),
            is_backlog_timed: Cell::new(false),
            dirty: RefCell::new(DirtyStreams::new(setup.checkpoint_after)),
            setup,
            touched: RefCell::default(),
            now: Cell::new(Timestamp::MIN),
            newest: Cell::new(Timestamp::MIN),
            has_lost: Cell::new(false),
            outputs: Cell::default(),
        };
        Self { state: Rc::new(state) }
    }
}

impl Actor for Shard {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.state.address.replace(Some(ctx.address().downgrade()));
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        // Shard and streams hold each other. What waits holds credit, and whoever waits for that would wait for ever.
        let waiting = self.state.backlog.try_borrow_mut().map(|mut backlog| backlog.take(Instant::now()));
        let streams = self.state.streams.try_borrow_mut().map(|mut streams| std::mem::take(&mut *streams));
        drop((waiting, streams));
    }
}

/// Ends a shard of which a stream missed a record: were it to give states any more, a later one would cover that record. So the journal
/// keeps it, health names the shard, and the next start takes everything in.
fn end(ctx: &mut Context<Shard>) {
    tracing::error!("a shard ends because a stream missed a record; the next start takes in what it held");
    ctx.stop();
}

impl Shard {
    fn hand_on(&self, ctx: &mut Context<Self>) {
        self.state.hand_on();
        self.end_where_lost(ctx);
    }

    fn end_where_lost(&self, ctx: &mut Context<Self>) {
        if self.state.has_lost.get() {
            end(ctx);
        }
    }
}

impl Handler<ShardBatch> for Shard {
    type Result = ();

    fn handle(&mut self, batch: ShardBatch, ctx: &mut Self::Context) {
        failpoint("shard-batch");
        let state = &self.state;
        for work in batch.works {
            state.gather(work, batch.first);
        }
        state.given.set(state.given.get().max(batch.next));
        let due = state.backlog.borrow().due(Instant::now());
        match due {
            Due::Now => self.hand_on(ctx),
            Due::In(wait) if !state.is_backlog_timed.replace(true) => {
                ctx.run_later(wait, |shard, ctx| {
                    shard.state.is_backlog_timed.set(false);
                    shard.hand_on(ctx);
                });
            }
            Due::In(_) => {}
        }
    }
}

impl Handler<ShardJudged> for Shard {
    type Result = ();

    fn handle(&mut self, answers: ShardJudged, ctx: &mut Self::Context) {
        let streams = self.state.streams.borrow();
        for (stream, judged) in answers.0 {
            // A stream with unjudged rows never retires, and credit keeps its mailbox below the bound.
            let sent = streams.get(&stream).map(|address| address.try_send(judged));
            if !matches!(sent, Some(Ok(()))) {
                tracing::error!(%stream, "a stream did not take its answers; their rows stay unjudged");
            }
            if matches!(sent, Some(Err(SendError::Closed(_)))) {
                self.state.has_lost.set(true);
            }
        }
        self.end_where_lost(ctx);
    }
}

impl Handler<ShardFeedback> for Shard {
    type Result = ();

    fn handle(&mut self, heard: ShardFeedback, ctx: &mut Self::Context) {
        self.state.hear(heard);
        self.end_where_lost(ctx);
    }
}

impl Handler<ShardTick> for Shard {
    type Result = ();

    fn handle(&mut self, tick: ShardTick, ctx: &mut Self::Context) {
        self.state.tick(&tick);
        self.state.setup.credit.observe();
        self.end_where_lost(ctx);
    }
}

impl Handler<BeginAt> for Shard {
    type Result = ();

    fn handle(&mut self, begin: BeginAt, _: &mut Self::Context) {
        self.state.given.set(begin.0);
    }
}

impl Handler<AdoptStreams> for Shard {
    type Result = ();

    fn handle(&mut self, adopted: AdoptStreams, _: &mut Self::Context) {
        for (stream, covers, state) in adopted.0 {
            self.state.adopt(stream, covers, state);
        }
    }
}

impl Handler<RedirtyStreams> for Shard {
    type Result = ();

    fn handle(&mut self, streams: RedirtyStreams, _: &mut Self::Context) {
        for (stream, since) in streams.0 {
            self.state.dirty.borrow_mut().put_back(stream, since, self.state.now.get());
        }
    }
}

impl Handler<CollectStates> for Shard {
    type Result = ResponseFuture<CollectedStates>;

    fn handle(&mut self, wanted: CollectStates, ctx: &mut Self::Context) -> Self::Result {
        let state = self.state.clone();
        state.hand_on();
        // Streams have been given every record before this one and none after, so their mailboxes hold the question between the two.
        let given = state.given.get();
        let due = state.dirty.borrow_mut().take_due(state.now.get(), wanted.most, wanted.all);
        let (reply, mut replies) = tokio::sync::mpsc::unbounded_channel();
        for (number, Dirty { stream, .. }) in due.iter().enumerate() {
            let asked = match state.streams.borrow().get(&stream.id) {
                Some(address) => {
                    let question = TakeState { now: state.now.get(), reply: (number, reply.clone()) };
                    address.try_send(question).map_err(|unsent| {
                        if matches!(unsent, SendError::Closed(_)) {
                            state.lost(stream);
                        }
                        None
                    })
                }
                None => Err(state.resting.borrow().get(&stream.id).map(|rested| rested.state.clone())),
            };
            if let Err(known) = asked {
                // It cannot fail: the receiver is in this function.
                let _ = reply.send((number, known));
            }
        }
        drop(reply);
        self.end_where_lost(ctx);
        Box::pin(async move {
            let mut found: Vec<Option<StreamState>> = due.iter().map(|_| None).collect();
            while let Some((number, known)) = replies.recv().await {
                found[number] = known;
            }
            let mut states = Vec::new();
            for (Dirty { stream, since, .. }, known) in due.into_iter().zip(found) {
                match known {
                    Some(known) => {
                        stream.state_bytes.store(known.size(), Ordering::Relaxed);
                        states.push(CollectedState { stream, covers: given, since, state: known });
                    }
                    None => state.dirty.borrow_mut().put_back(stream, since, state.now.get()),
                }
            }
            let oldest = state.dirty.borrow().oldest();
            CollectedStates {
                states,
                covers: oldest.map_or(given, |oldest| oldest.min(given)),
                is_more: oldest.is_some(),
            }
        })
    }
}

impl Handler<DrainShard> for Shard {
    type Result = ();

    fn handle(&mut self, drain: DrainShard, ctx: &mut Self::Context) {
        failpoint("shard-closing");
        self.state.hand_on();
        if !self.state.drain(&drain) {
            // Whoever asked may not wait any more.
            let _ = drain.done.send(());
            end(ctx);
        }
    }
}
