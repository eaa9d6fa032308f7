//! The windows of one stream, over all its definitions.

use std::sync::Arc;
use std::time::Duration;

use nearside_schemas::{CloseCause, ClosedWindow, Reading, SetAsideReason, StreamId, Timestamp, WindowId};

use crate::config::{WindowError, WindowKind};
use crate::definition::{Around, Definition};
use crate::plan::WindowPlan;
use crate::snapshot;

/// Rows are stamped by several threads, so one may come before a tick and be stamped a moment after it. A clock that goes back by more
/// is seen; by less it does not matter.
pub const CLOCK_SLACK: Duration = Duration::from_secs(1);

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

/// The windows of one stream. Small, for 100,000 of them live at once: 72 bytes, about 400 for each definition with a window
/// open, and the rows.
#[derive(Debug, Clone)]
pub struct StreamWindows {
    pub(crate) plan: Arc<WindowPlan>,
    pub(crate) stream: StreamId,
    pub(crate) definitions: Vec<Definition>,
    /// The latest event time of a row that the guards let through.
    pub(crate) latest: Timestamp,
}

impl StreamWindows {
    /// A stream without rows.
    pub fn new(plan: Arc<WindowPlan>, stream: StreamId) -> Self {
        Self {
            definitions: plan.windows.iter().map(|_| Definition::default()).collect(),
            plan,
            stream,
            latest: Timestamp::MIN,
        }
    }

    /// Takes a row in and closes the windows that its time completes, in order of definition, then start.
    ///
    /// The row's time of receipt is the clock that the guards go by.
    pub fn push(&mut self, reading: Reading, out: &mut Vec<ClosedWindow>) -> Placement {
        let mut placement = Placement::default();
        if let Some(reason) = self.guard(&reading) {
            for definition in &mut self.definitions {
                definition.set_aside.add(reason, 1);
            }
            placement.set_aside.push(reason);
            return placement;
        }
        let is_latest = reading.time > self.latest;
        self.latest = self.latest.max(reading.time);
        for (definition, planned) in self.definitions.iter_mut().zip(&self.plan.windows) {
            let around = Around { plan: &self.plan, planned, stream: self.stream };
            if is_latest {
                // Before the row is placed: what its own time closes must not count against the windows it may open.
                definition.advance(around, self.latest, out);
            }
            let placed = definition.place(around, &reading, out);
            placement.placed |= placed.placed;
            placement.set_aside.extend(placed.reason);
        }
        placement
    }

    /// Lets time pass: a definition that took no row for long enough closes its windows, and later forgets those kept for
    /// revision. Where the clock has gone back, it is long enough from now on: windows do not wait until the clock has caught up.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<ClosedWindow>) {
        if self.anchor().is_some_and(|anchor| anchor > now.plus(CLOCK_SLACK)) {
            self.definitions.iter_mut().for_each(|definition| definition.active = definition.active.min(now));
        }
        for (definition, planned) in self.definitions.iter_mut().zip(&self.plan.windows) {
            let idle_at = definition.active.plus(planned.idle);
            if now < idle_at {
                continue;
            }
            let around = Around { plan: &self.plan, planned, stream: self.stream };
            definition.close_all(around, CloseCause::Idle, out);
            if now >= idle_at.plus(planned.revise_for.unwrap_or_default()) {
                definition.forget_kept();
            }
        }
    }

    /// When [`StreamWindows::tick`] next has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let wanted = self.definitions.iter().zip(&self.plan.windows).filter_map(|(definition, planned)| {
            let idle_at = definition.active.plus(planned.idle);
            if !definition.open.is_empty() {
                return Some(idle_at);
            }
            (!definition.kept.is_empty()).then(|| idle_at.plus(planned.revise_for.unwrap_or_default()))
        });
        wanted.min()
    }

    /// The latest time of receipt that an open or kept window waits from. Later than now by more than [`CLOCK_SLACK`] where the clock has
    /// gone back: then [`StreamWindows::tick`] has something to do.
    pub fn anchor(&self) -> Option<Timestamp> {
        let waits = self.definitions.iter().filter(|own| !own.open.is_empty() || !own.kept.is_empty());
        waits.map(|definition| definition.active).max()
    }

    /// Closes everything and forgets what was kept for revision.
    pub fn drain(&mut self, out: &mut Vec<ClosedWindow>) {
        self.close_open(out);
        self.definitions.iter_mut().for_each(Definition::forget_kept);
    }

    /// Closes everything; what may be revised is kept, so that later rows make further revisions.
    pub fn close_open(&mut self, out: &mut Vec<ClosedWindow>) {
        for (definition, planned) in self.definitions.iter_mut().zip(&self.plan.windows) {
            let around = Around { plan: &self.plan, planned, stream: self.stream };
            definition.close_all(around, CloseCause::Drain, out);
        }
    }

    /// The window of the first definition that holds `time`, for a row that was placed: the latest-starting one that holds it
    /// for tumbling and hopping windows. For session and count windows, whose borders depend on their rows, the latest-starting
    /// one that starts at or before `time`, among the open and the last 16 closed ones, as it is known now; an open session's start
    /// may still move.
    pub fn primary_window(&self, time: Timestamp) -> WindowId {
        let planned = &self.plan.windows[0];
        let start = match planned.kind {
            WindowKind::Tumbling | WindowKind::Hopping => time.floor(planned.step),
            WindowKind::Session | WindowKind::Count => self.definitions[0].start_for(time),
        };
        Around { plan: &self.plan, planned, stream: self.stream }.id(start)
    }

    /// Whether nothing is open and nothing kept.
    pub fn is_empty(&self) -> bool {
        self.definitions.iter().all(|definition| definition.open.is_empty() && definition.kept.is_empty())
    }

    /// Rows held in all windows; a row in two windows counts twice.
    pub fn held_rows(&self) -> usize {
        self.definitions
            .iter()
            .map(|own| own.open.iter().map(|window| window.rows.len()).sum::<usize>() + own.kept_rows)
            .sum()
    }

    /// The state as bytes, versioned. Holds personal text: whoever stores it encrypts it (promise I2).
    pub fn snapshot(&self) -> Vec<u8> {
        snapshot::write(self)
    }

    /// The state that [`StreamWindows::snapshot`] wrote.
    ///
    /// # Errors
    /// Where the bytes are damaged, of another version, or of other fields or window definitions.
    pub fn restore(plan: Arc<WindowPlan>, stream: StreamId, bytes: &[u8]) -> Result<Self, WindowError> {
        snapshot::read(plan, stream, bytes)
    }

    /// A stream whose definition has changed since this snapshot, all of whose windows were closed before. Rows of windows that were
    /// handed out are late, so that no window is handed out again with other rows.
    ///
    /// # Errors
    /// Where the bytes are damaged or hold windows that are not closed.
    pub fn resume_after(plan: Arc<WindowPlan>, stream: StreamId, bytes: &[u8]) -> Result<Self, WindowError> {
        let marks = snapshot::read_marks(bytes)?;
        let mut windows = Self::new(plan, stream);
        for (definition, planned) in windows.definitions.iter_mut().zip(&windows.plan.windows) {
            if let Some((_, watermark, floor)) = marks.iter().find(|(name, ..)| name == planned.name.as_str()) {
                definition.watermark = *watermark;
                definition.floor = if planned.kind.is_timed() { *watermark.max(floor) } else { *floor };
            }
        }
        Ok(windows)
    }

    fn guard(&self, reading: &Reading) -> Option<SetAsideReason> {
        let guard = &self.plan.guard;
        if reading.time > reading.received.plus(guard.future.get()) {
            return Some(SetAsideReason::Future);
        }
        (reading.time < reading.received.minus(guard.past.get())).then_some(SetAsideReason::Past)
    }
}
