//! The windows of one definition of one stream: what all kinds share. The kinds' own rules are in `timed`, `session` and
//! `count`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use nearside_schemas::{
    CloseCause, ClosedWindow, Reading, SetAsideCounts, SetAsideReason, StreamId, Timestamp, WindowId,
};

use crate::config::WindowKind;
use crate::plan::{Planned, WindowPlan};
use crate::rows::Rows;

pub(crate) const MICRO: Duration = Duration::from_micros(1);

/// Session and count windows whose start is remembered after they closed, so that a verdict that comes later finds its window.
pub(crate) const REMEMBERED_STARTS: usize = 16;

/// Most rows that a new window makes room for at once.
const MOST_ROOM: usize = 128;

/// A window with its rows.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) start: Timestamp,
    /// The first instant after it. Moves with the rows of session and count windows.
    pub(crate) end: Timestamp,
    /// The revision that its next closing has.
    pub(crate) revision: u32,
    pub(crate) rows: Rows,
}

/// The state of one definition.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    /// Open windows in order of start.
    pub(crate) open: Vec<Held>,
    /// Closed windows that may be revised, in order of start.
    pub(crate) kept: VecDeque<Held>,
    /// Rows in `kept`.
    pub(crate) kept_rows: usize,
    /// What lies before it is late. Never falls.
    pub(crate) watermark: Timestamp,
    /// What is over for good. Timed windows that end at or before it are not revised any more; session rows before it belong
    /// to a closed session; count windows start after it. Never falls.
    pub(crate) floor: Timestamp,
    /// When the latest row that was placed was received.
    pub(crate) active: Timestamp,
    /// Starts of the last closed session or count windows, oldest first.
    pub(crate) starts: VecDeque<Timestamp>,
    pub(crate) set_aside: SetAsideCounts,
    /// Rows of the window that closed last: the room that the next one makes. Changes no outcome.
    pub(crate) room: usize,
}

impl Default for Definition {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            kept: VecDeque::new(),
            kept_rows: 0,
            watermark: Timestamp::MIN,
            floor: Timestamp::MIN,
            active: Timestamp::MIN,
            starts: VecDeque::new(),
            set_aside: SetAsideCounts::default(),
            room: 0,
        }
    }
}

/// What a definition's windows need to know of the stream around them.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) plan: &'a Arc<WindowPlan>,
    pub(crate) planned: &'a Planned,
    pub(crate) stream: StreamId,
}

/// What became of a row in one definition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Whether any window took it.
    pub(crate) placed: bool,
    /// Why at least one window did not: the most telling reason.
    pub(crate) reason: Option<SetAsideReason>,
}

impl Placed {
    pub(crate) const YES: Self = Self { placed: true, reason: None };

    pub(crate) const fn no(reason: SetAsideReason) -> Self {
        Self { placed: false, reason: Some(reason) }
    }

    /// Adds what another window of the definition made of the row. A duplicate is one whatever else happens to it.
    pub(crate) fn add(&mut self, result: Result<(), SetAsideReason>) {
        match result {
            Ok(()) => self.placed = true,
            Err(SetAsideReason::Duplicate) => self.reason = Some(SetAsideReason::Duplicate),
            Err(reason) => self.reason = self.reason.or(Some(reason)),
        }
    }
}

impl Definition {
    /// Puts a row into every window of this definition it belongs to, and counts it where one did not take it.
    pub(crate) fn place(&mut self, around: Around<'_>, reading: &Reading, out: &mut Vec<ClosedWindow>) -> Placed {
        let placed = match around.planned.kind {
            WindowKind::Tumbling | WindowKind::Hopping => self.place_timed(around, reading, out),
            WindowKind::Session => self.place_session(around, reading),
            WindowKind::Count => self.place_count(around, reading, out),
        };
        if placed.placed {
            self.active = self.active.max(reading.received);
        }
        if let Some(reason) = placed.reason {
            self.set_aside.add(reason, 1);
        }
        placed
    }

    /// Moves the watermark to `latest` minus lateness, closes what ends before it and forgets what can no longer be revised.
    pub(crate) fn advance(&mut self, around: Around<'_>, latest: Timestamp, out: &mut Vec<ClosedWindow>) {
        let watermark = latest.minus(around.planned.lateness);
        if watermark <= self.watermark {
            return;
        }
        self.watermark = watermark;
        match around.planned.kind {
            WindowKind::Tumbling | WindowKind::Hopping => self.advance_timed(around, out),
            WindowKind::Session => self.advance_session(around, out),
            WindowKind::Count => {}
        }
    }

    /// Closes everything that is open: nothing came for long enough, or nothing will come.
    pub(crate) fn close_all(&mut self, around: Around<'_>, cause: CloseCause, out: &mut Vec<ClosedWindow>) {
        match around.planned.kind {
            WindowKind::Tumbling | WindowKind::Hopping => self.close_all_timed(around, cause, out),
            WindowKind::Session => self.close_all_sessions(around, cause, out),
            WindowKind::Count => self.close_count(around, cause, out),
        }
    }

    /// Forgets all windows kept for revision.
    pub(crate) fn forget_kept(&mut self) {
        while self.forget_oldest() {}
    }

    /// Forgets the oldest window kept for revision; whether there was one.
    pub(crate) fn forget_oldest(&mut self) -> bool {
        let Some(oldest) = self.kept.pop_front() else { return false };
        self.kept_rows -= oldest.rows.len();
        self.floor = self.floor.max(oldest.end);
        true
    }

    /// Opens a window, unless too many are open; its position.
    pub(crate) fn open_at(
        &mut self,
        around: Around<'_>,
        at: usize,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<usize, SetAsideReason> {
        if self.open.len() >= around.plan.guard.max_open {
            return Err(SetAsideReason::Overflow);
        }
        // Most streams have one window open: room for just that, times 100,000 streams.
        if self.open.len() < 4 {
            self.open.reserve_exact(1);
        }
        let rows = Rows::with_capacity(around.plan, self.room.min(MOST_ROOM));
        self.open.insert(at, Held { start, end, revision: 0, rows });
        Ok(at)
    }

    /// Closes the oldest open window and hands it back as it now is.
    pub(crate) fn close_first(
        &mut self,
        around: Around<'_>,
        cause: CloseCause,
        out: &mut Vec<ClosedWindow>,
    ) -> Option<Held> {
        // Made first: were it to panic, the window would still be there.
        let batch = self.open.first()?.rows.to_batch(around.plan);
        let mut window = self.open.remove(0);
        self.room = window.rows.len();
        self.emit(around, &mut window, batch, cause, out);
        Some(window)
    }

    /// Hands out a window, its rows made a `batch`, as its next revision, with what was set aside since the definition last did so.
    pub(crate) fn emit(
        &mut self,
        around: Around<'_>,
        window: &mut Held,
        batch: RecordBatch,
        cause: CloseCause,
        out: &mut Vec<ClosedWindow>,
    ) {
        out.push(ClosedWindow {
            id: around.id(window.start),
            revision: window.revision,
            end: window.end,
            cause,
            rows: batch,
            set_aside: std::mem::take(&mut self.set_aside),
        });
        // A snapshot may hold any number, and one more than the largest there is would end the stream.
        window.revision = window.revision.saturating_add(1);
    }

    /// Remembers the start of a session or count window that closed.
    pub(crate) fn remember_start(&mut self, start: Timestamp) {
        if self.starts.len() == REMEMBERED_STARTS {
            self.starts.pop_front();
        }
        self.starts.push_back(start);
    }

    /// The start of the session or count window that a row of `time` is in: the latest-starting one, open or lately closed,
    /// that starts at or before `time`.
    pub(crate) fn start_for(&self, time: Timestamp) -> Timestamp {
        let open = self.open.iter().map(|window| window.start);
        open.chain(self.starts.iter().copied()).filter(|start| *start <= time).max().unwrap_or(time)
    }
}

impl Around<'_> {
    pub(crate) fn id(&self, start: Timestamp) -> WindowId {
        WindowId { stream: self.stream, definition: self.planned.name.clone(), start }
    }
}
