//! The shell of one stream: an actix actor with a mailbox around a [`StreamComponent`].
//!
//! It is made on the stream's first reading and stops when the stream rests; what it knows is kept by its shard.

use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use nearside_schemas::{Reading, Timestamp};
use smallvec::SmallVec;

use super::component::{Outputs, StreamComponent};
use super::shard::{ShardState, StreamRef};
use crate::credit::Admission;

/// Readings of one message for one stream, with the credit they hold.
pub struct Work {
    /// Whose they are.
    pub stream: Arc<StreamRef>,
    /// The readings, in payload order.
    pub readings: SmallVec<[Reading; 1]>,
    /// Given back when the readings are judged.
    pub admission: Option<Admission>,
}

impl Message for Work {
    type Result = ();
}

/// What a network said of an earlier request.
pub struct Judged {
    /// The model's position in the plan.
    pub model: usize,
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
pub(super) struct Tick(pub(super) Timestamp);

impl Message for Tick {
    type Result = ();
}

/// Close everything.
pub(super) struct DrainStream {
    pub(super) now: Timestamp,
    /// Counted down by each stream that is done.
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
    outputs: Outputs,
    /// The tick that the shard was asked for.
    asked_for: Option<Timestamp>,
}

impl StreamActor {
    pub(super) fn new(component: StreamComponent, stream: Arc<StreamRef>, shard: Rc<ShardState>) -> Self {
        Self { component, stream, shard, outputs: Outputs::default(), asked_for: None }
    }

    /// Hands on what the component gave back, and asks for the next tick.
    fn flush(&mut self, admission: Option<Admission>) {
        // Without a request the readings are judged: their credit is given back here.
        let admission = if self.outputs.requests.is_empty() { None } else { admission.map(Arc::new) };
        for request in self.outputs.requests.drain(..) {
            let queue = self.component.plan().models[request.model].queue;
            // A queue that is gone: the gateway stops. The rows stay unjudged and are summarised so.
            self.shard.submit(queue, &self.stream, request, admission.clone());
        }
        self.shard.publish(&self.component, &mut self.outputs);
        if let Some(deadline) = self.component.next_deadline()
            && self.asked_for.is_none_or(|asked| deadline < asked)
        {
            self.asked_for = Some(deadline);
            self.shard.wake_at(deadline, self.stream.clone());
        }
    }
}

impl Actor for StreamActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Credit bounds what can be in the mailbox; the bound here is the sum of what credit lets through.
        ctx.set_mailbox_capacity(self.shard.mailbox_bound());
    }
}

impl Handler<Work> for StreamActor {
    type Result = ();

    fn handle(&mut self, work: Work, _: &mut Self::Context) {
        self.stream.taken();
        for reading in work.readings {
            self.component.on_reading(reading, &mut self.outputs);
        }
        self.flush(work.admission);
    }
}

impl Handler<Judged> for StreamActor {
    type Result = ();

    fn handle(&mut self, judged: Judged, _: &mut Self::Context) {
        self.component.on_outputs(judged.model, judged.inputs, judged.outputs.as_deref(), &mut self.outputs);
        self.flush(None);
        drop(judged.admission);
    }
}

impl Handler<Tick> for StreamActor {
    type Result = ();

    fn handle(&mut self, tick: Tick, ctx: &mut Self::Context) {
        if self.asked_for.is_some_and(|asked| asked <= tick.0) {
            self.asked_for = None;
        }
        self.component.on_tick(tick.0, &mut self.outputs);
        self.flush(None);
        // Nothing may wait in the mailbox: a stopped actor's messages would be lost. Shard and stream share a thread,
        // so between this look and the stop nothing can be sent.
        let rests = self.component.is_at_rest() && !self.stream.has_pending();
        let retire_at = self.component.last_received().plus(self.shard.retire_after());
        if rests && retire_at <= tick.0 {
            self.shard.retire(&self.stream, &self.component);
            ctx.stop();
        } else if rests {
            self.shard.wake_at(retire_at, self.stream.clone());
        }
    }
}

impl Handler<DrainStream> for StreamActor {
    type Result = ();

    fn handle(&mut self, drain: DrainStream, _: &mut Self::Context) {
        self.component.drain(drain.now, &mut self.outputs);
        self.flush(None);
        // The receiver counts; if it is gone nobody waits any more.
        let _ = drain.done.send(());
    }
}
