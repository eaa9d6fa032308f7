//! The windows of one stream, over all its definitions.

use std::sync::Arc;

use nearside_schemas::{CloseCause, ClosedWindow, Reading, SetAsideReason, StreamId, Timestamp, WindowId};

use crate::config::{WindowError, WindowKind};
use crate::definition::{Around, Definition};
use crate::plan::WindowPlan;
use crate::snapshot;

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    placed: bool,
    set_aside: Vec<SetAsideReason>,
}

impl Placement {
    /// Whether at least one window took it.
    pub const fn is_placed(&self) -> bool {
        self.placed
    }

    /// Why it was set aside: once for each definition that did not take it into all its windows, once where a guard
    /// refused it for all.
    pub fn set_aside(&self) -> impl Iterator<Item = SetAsideReason> + '_ {
        self.set_aside.iter().copied()
    }
}

/// The windows of one stream.
#[derive(Debug, Clone)]
pub struct StreamWindows {
    pub(crate) plan: Arc<WindowPlan>,
    pub(crate) stream: StreamId,
    pub(crate) definitions: Vec<Definition>,
    /// The latest event time of an accepted row.
    pub(crate) latest: Timestamp,
    pub(crate) last_received: Timestamp,
}

impl StreamWindows {
    /// A stream without rows.
    pub fn new(plan: Arc<WindowPlan>, stream: StreamId) -> Self {
        Self {
            definitions: plan.windows.iter().map(|_| Definition::default()).collect(),
            plan,
            stream,
            latest: Timestamp::MIN,
            last_received: Timestamp::MIN,
        }
    }

    /// Takes a row in and closes the windows that its time completes.
    pub fn push(&mut self, reading: Reading, out: &mut Vec<ClosedWindow>) -> Placement {
        self.last_received = self.last_received.max(reading.received);
        if let Some(reason) = self.guard(&reading) {
            for definition in &mut self.definitions {
                definition.set_aside.add(reason, 1);
            }
            return Placement { placed: false, set_aside: vec![reason] };
        }
        let mut placement = Placement::default();
        for (index, definition) in self.definitions.iter_mut().enumerate() {
            let around = Around { plan: &self.plan, index, stream: self.stream };
            let (placed, reason) = definition.place(around, &reading, out);
            placement.placed |= placed;
            placement.set_aside.extend(reason);
        }
        if reading.time > self.latest {
            self.latest = reading.time;
            for (index, definition) in self.definitions.iter_mut().enumerate() {
                definition.advance(Around { plan: &self.plan, index, stream: self.stream }, self.latest, out);
            }
        }
        placement
    }

    /// Lets time pass: a stream that was idle for long enough closes its windows, and later forgets those kept for revision.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<ClosedWindow>) {
        let idle_at = self.last_received.plus(self.plan.guard.idle.get());
        if self.last_received == Timestamp::MIN || now < idle_at {
            return;
        }
        for (index, definition) in self.definitions.iter_mut().enumerate() {
            let around = Around { plan: &self.plan, index, stream: self.stream };
            definition.close_all(around, CloseCause::Idle, out);
            if now >= idle_at.plus(self.plan.windows[index].revise_for.unwrap_or_default()) {
                definition.forget_closed();
            }
        }
    }

    /// When [`StreamWindows::tick`] next has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let idle_at = self.last_received.plus(self.plan.guard.idle.get());
        let wanted = self.definitions.iter().zip(&self.plan.windows).filter_map(|(definition, planned)| {
            let (open, kept) = definition.holds();
            match (open, kept) {
                (true, _) => Some(idle_at),
                (false, true) => Some(idle_at.plus(planned.revise_for.unwrap_or_default())),
                (false, false) => None,
            }
        });
        wanted.min()
    }

    /// Closes everything and forgets what was kept for revision.
    pub fn drain(&mut self, out: &mut Vec<ClosedWindow>) {
        for (index, definition) in self.definitions.iter_mut().enumerate() {
            let around = Around { plan: &self.plan, index, stream: self.stream };
            definition.close_all(around, CloseCause::Drain, out);
            definition.forget_closed();
        }
    }

    /// The window of the first definition that holds `time`: the latest-starting one for hopping windows; for session and count
    /// windows the open one as it is known now, or one that starts at `time` where none is open.
    pub fn primary_window(&self, time: Timestamp) -> WindowId {
        let planned = &self.plan.windows[0];
        let held = &self.definitions[0].held;
        let start = match planned.kind {
            WindowKind::Tumbling | WindowKind::Hopping => time.floor(planned.step),
            WindowKind::Count => held.first().map_or(time, |window| window.start),
            WindowKind::Session => held.iter().rev().find(|window| window.start <= time).map_or(time, |w| w.start),
        };
        WindowId { stream: self.stream, definition: planned.name.clone(), start }
    }

    /// Whether nothing is open and nothing kept.
    pub fn is_empty(&self) -> bool {
        self.definitions.iter().all(|definition| definition.held.is_empty())
    }

    /// Rows held in all windows; a row in two windows counts twice.
    pub fn held_rows(&self) -> usize {
        self.definitions.iter().flat_map(|definition| &definition.held).map(|window| window.rows.len()).sum()
    }

    /// The state as bytes, versioned.
    pub fn snapshot(&self) -> Vec<u8> {
        snapshot::write(self)
    }

    /// The state that [`StreamWindows::snapshot`] wrote.
    ///
    /// # Errors
    /// Where the bytes are damaged, of another version, or of other window definitions.
    pub fn restore(plan: Arc<WindowPlan>, stream: StreamId, bytes: &[u8]) -> Result<Self, WindowError> {
        snapshot::read(plan, stream, bytes)
    }

    fn guard(&self, reading: &Reading) -> Option<SetAsideReason> {
        let guard = &self.plan.guard;
        if reading.time > reading.received.plus(guard.future.get()) {
            return Some(SetAsideReason::Future);
        }
        (reading.time < reading.received.minus(guard.past.get())).then_some(SetAsideReason::Past)
    }
}
