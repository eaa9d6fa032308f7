//! The shell of one stream: an actix actor with a mailbox around a [`StreamComponent`].
//!
//! It is made on the stream's first reading and stops when the stream rests; what it knows is kept by its shard.
//!
//! Promise: whatever panics while it handles a message, the stream goes on from what it holds, and the panic is counted (promise I3).

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use nearside_journal::Lsn;
use nearside_schemas::Timestamp;

use super::backlog::Gathered;
use super::component::StreamComponent;
use super::messages::{OnItsWay, ShardFeedback};
use super::outputs::{Answered, Outputs};
use super::shard::ShardState;
use super::state::StreamState;
use super::stream_ref::StreamRef;
use crate::credit::Admission;
use crate::feedback::FeedbackReply;
use crate::fence::fenced;

impl Message for Gathered {
    type Result = ();
}

/// What a network said of an earlier request.
pub struct Judged {
    /// The model's position in the plan.
    pub model: usize,
    /// The number of the request's first input among all that the stream had for the model.
    pub first: u64,
    /// How many inputs the request had.
    pub inputs: usize,
    /// The outputs, one after the other; `None` where the forward pass failed.
    pub outputs: Option<Vec<f32>>,
    /// The credit that the request held.
    pub admission: Option<Arc<Admission>>,
}

impl Message for Judged {
    type Result = ();
}

/// Time passes.
#[derive(Clone, Copy)]
pub(super) struct Tick {
    pub(super) now: Timestamp,
    /// Whether it is the time of day, not one that a journal remembers.
    pub(super) is_live: bool,
    /// Since when the gateway has listened.
    pub(super) awake_since: Timestamp,
}

/// A tick in the mailbox.
pub(super) struct SentTick {
    pub(super) tick: Tick,
    pub(super) on_its_way: OnItsWay,
}

impl Message for SentTick {
    type Result = ();
}

/// Say what is known, once every row taken so far is judged.
pub(super) struct TakeState {
    pub(super) now: Timestamp,
    pub(super) reply: StateReply,
}

/// Where a stream's state goes; `None` where a network does not answer. The number is the asker's own.
pub(super) type StateReply = (usize, tokio::sync::mpsc::UnboundedSender<(usize, Option<StreamState>)>);

impl Message for TakeState {
    type Result = ();
}

/// Close everything.
pub(super) struct DrainStream {
    pub(super) now: Timestamp,
    /// The record that says so; a stream whose state is younger has closed them already.
    pub(super) lsn: Lsn,
    /// Whether they are over for good.
    pub(super) for_good: bool,
    /// The definitions whose streams close theirs.
    pub(super) definitions: Arc<Vec<usize>>,
    /// Dropped when it is done; a message says that it could not be.
    pub(super) done: tokio::sync::mpsc::UnboundedSender<()>,
}

impl Message for DrainStream {
    type Result = ();
}

/// The actor of one stream.
pub struct StreamActor {
    component: StreamComponent,
    stream: Arc<StreamRef>,
    shard: Rc<ShardState>,
    /// The tick that the shard was asked for.
    asked_for: Option<Timestamp>,
    /// Who waits for the state, and since when. Until it is given, what comes is held, so that the state holds the rows before the
    /// question and none after.
    state_wanted: Option<TakeState>,
    /// Bounded by credit, as the mailbox is.
    held: VecDeque<Held>,
    /// Who hears what becomes of feedback, by its record. Bounded by the desk's slots.
    replies: Vec<(Lsn, FeedbackReply)>,
}

/// A message that waits for the state to be given.
enum Held {
    Readings(Gathered),
    Tick(Tick),
    Feedback(ShardFeedback),
}

impl StreamActor {
    pub(super) fn new(component: StreamComponent, stream: Arc<StreamRef>, shard: Rc<ShardState>) -> Self {
        Self {
            component,
            stream,
            shard,
            asked_for: None,
            state_wanted: None,
            held: VecDeque::new(),
            replies: Vec::new(),
        }
    }

    /// Does a part of the work behind a fence. After a panic that none inside met the stream goes on from what it holds (promise I3). False
    /// where there was one.
    fn guarded(&mut self, out: &mut Outputs, work: impl FnOnce(&mut Self, &mut Outputs)) -> bool {
        if fenced(|| work(self, out)).is_ok() {
            return true;
        }
        self.component.rebuild(out);
        // All feedback is heeded by now; what is not in there is lost, and whoever asked sees that nobody answers.
        self.answer_feedback(out);
        self.replies.clear();
        false
    }

    fn take_readings(&mut self, Gathered { readings, admission }: Gathered) {
        self.stream.taken();
        let mut out = self.shard.lend_outputs();
        for (lsn, reading) in readings {
            self.guarded(&mut out, |actor, out| {
                actor.component.on_reading_of(Some(lsn), reading, out);
                // What is handed on carries the record and the time of the reading that it came with, not of the last one (promise I5).
                if out.speaks() {
                    actor.publish(out);
                }
            });
        }
        self.flush(out, Some(admission));
    }

    fn take_tick(&mut self, tick: Tick) {
        if self.asked_for.is_some_and(|asked| asked <= tick.now) {
            self.asked_for = None;
        }
        let mut out = self.shard.lend_outputs();
        self.guarded(&mut out, |actor, out| {
            actor.component.awake_since(tick.awake_since);
            actor.component.on_tick(tick.now, tick.is_live, out);
        });
        self.flush(out, None);
    }

    fn take_feedback(&mut self, heard: ShardFeedback) {
        self.stream.taken();
        let ShardFeedback { lsn, feedback, reply, .. } = heard;
        self.replies.extend(reply.map(|reply| (lsn, reply)));
        let mut out = self.shard.lend_outputs();
        self.guarded(&mut out, |actor, out| actor.component.on_feedback(lsn, feedback, out));
        self.flush(out, None);
    }

    /// What is known, to be kept.
    fn keep(&mut self) -> StreamState {
        let mut out = self.shard.lend_outputs();
        let state = self.component.keep(&mut out);
        self.flush(out, None);
        state
    }

    /// Gives the state to who waits for it where everything is judged, then takes what was held.
    fn give_state(&mut self) {
        if self.state_wanted.is_some() && self.component.is_judged_through() {
            let state = self.keep();
            self.answer_state(Some(state));
        }
    }

    fn answer_state(&mut self, state: Option<StreamState>) {
        let Some(TakeState { reply: (number, reply), .. }) = self.state_wanted.take() else { return };
        // Whoever asked may not wait any more.
        let _ = reply.send((number, state));
        for held in std::mem::take(&mut self.held) {
            match held {
                Held::Readings(gathered) => self.take_readings(gathered),
                Held::Tick(tick) => self.take_tick(tick),
                Held::Feedback(heard) => self.take_feedback(heard),
            }
        }
    }

    /// When it gives up its actor, where nothing more comes.
    fn retires_at(&self) -> Timestamp {
        self.component.last_received().plus(self.shard.retire_after())
    }

    /// Hands on what the component gave back, and asks for the next tick.
    fn flush(&mut self, mut out: Outputs, admission: Option<Admission>) {
        let is_done = self.guarded(&mut out, |actor, out| actor.hand_on(out, admission))
            // What it gave back when it was built again.
            || self.guarded(&mut out, |actor, out| actor.hand_on(out, None));
        if is_done {
            self.shard.take_back(out);
        }
    }

    fn hand_on(&mut self, out: &mut Outputs, admission: Option<Admission>) {
        // Without a request the readings are judged: their credit is given back here.
        let admission = if out.requests.is_empty() { None } else { admission.map(Arc::new) };
        for request in out.requests.drain(..) {
            let plan = self.component.plan();
            let (queue, priority) = (plan.models[request.model].queue, plan.priority);
            // A queue that is gone: the gateway stops. The rows stay unjudged and are summarised so.
            self.shard.submit(queue, (&self.stream, priority), request, admission.clone());
        }
        self.answer_feedback(out);
        self.publish(out);
        self.stream.set_anchor(self.component.anchor());
        // Who rests wants no tick but the one at which it retires.
        let retires = self.component.is_at_rest().then(|| self.retires_at());
        if let Some(deadline) = [self.component.next_deadline(), retires].into_iter().flatten().min()
            && self.asked_for.is_none_or(|asked| deadline < asked)
        {
            self.asked_for = Some(deadline);
            self.shard.wake_at(deadline, self.stream.clone());
        }
    }

    /// Hands on summaries, findings and counts.
    fn publish(&mut self, out: &mut Outputs) {
        let panics = self.shard.publish(&self.component, out);
        if panics > 0 {
            self.component.blame(panics, out);
            // Counts alone.
            self.shard.publish(&self.component, out);
        }
    }

    fn answer_feedback(&mut self, out: &mut Outputs) {
        for (record, outcome) in out.heard.drain(..) {
            if let Some(at) = self.replies.iter().position(|(asked, _)| *asked == record) {
                let reply = self.replies.swap_remove(at).1;
                // It is no fault of the stream.
                if fenced(|| reply(Ok(outcome))).is_err() {
                    out.panics += 1;
                }
            }
        }
    }
}

impl Actor for StreamActor {
    type Context = Context<Self>;
}

impl Handler<Gathered> for StreamActor {
    type Result = ();

    fn handle(&mut self, gathered: Gathered, _: &mut Self::Context) {
        if self.state_wanted.is_some() {
            self.held.push_back(Held::Readings(gathered));
        } else {
            self.take_readings(gathered);
        }
    }
}

impl Handler<ShardFeedback> for StreamActor {
    type Result = ();

    fn handle(&mut self, heard: ShardFeedback, _: &mut Self::Context) {
        if self.state_wanted.is_some() {
            self.held.push_back(Held::Feedback(heard));
        } else {
            self.take_feedback(heard);
        }
    }
}

impl Handler<Judged> for StreamActor {
    type Result = ();

    fn handle(&mut self, judged: Judged, _: &mut Self::Context) {
        let Judged { model, first, inputs, ref outputs, .. } = judged;
        let mut out = self.shard.lend_outputs();
        let answered = Answered { model, first, inputs };
        self.guarded(&mut out, |actor, out| actor.component.on_outputs(answered, outputs.as_deref(), out));
        self.flush(out, None);
        drop(judged.admission);
        self.give_state();
    }
}

impl Handler<TakeState> for StreamActor {
    type Result = ();

    fn handle(&mut self, wanted: TakeState, _: &mut Self::Context) {
        self.answer_state(None);
        self.state_wanted = Some(wanted);
        self.give_state();
    }
}

impl Handler<SentTick> for StreamActor {
    type Result = ();

    fn handle(&mut self, SentTick { tick, on_its_way }: SentTick, ctx: &mut Self::Context) {
        // Taken, though a state that is wanted may hold it back: time must go on for that to end.
        drop(on_its_way);
        if let Some(wanted) = &mut self.state_wanted {
            let patience = self.component.plan().judge_deadline;
            // Where the clock has gone back, whoever asked waits from now on.
            wanted.now = wanted.now.min(tick.now);
            self.held.push_back(Held::Tick(tick));
            if tick.is_live && wanted.now.plus(patience) <= tick.now {
                // A network that does not answer must not hold the stream.
                self.answer_state(None);
            }
            return;
        }
        self.take_tick(tick);
        // Nothing may wait in the mailbox: a stopped actor's messages would be lost. Shard and stream share a thread,
        // so between this look and the stop nothing can be sent.
        let rests = self.component.is_at_rest() && !self.stream.has_pending();
        if rests && self.retires_at() <= tick.now {
            let state = self.keep();
            self.shard.retire(&self.stream, state);
            ctx.stop();
        }
    }
}

impl Handler<DrainStream> for StreamActor {
    type Result = ();

    fn handle(&mut self, drain: DrainStream, _: &mut Self::Context) {
        if drain.definitions.contains(&self.stream.definition) && !self.stream.holds(drain.lsn) {
            self.answer_state(None);
            let mut out = self.shard.lend_outputs();
            let closes =
                |actor: &mut Self, out: &mut Outputs| actor.component.close_windows(drain.now, drain.for_good, out);
            if !self.guarded(&mut out, closes) {
                // Whoever asked may not wait any more.
                let _ = drain.done.send(());
            }
            self.shard.changed(&self.stream, drain.lsn);
            self.flush(out, None);
        }
    }
}
