//! The windows of one definition of one stream.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::record_batch::RecordBatch;
use nearside_schemas::{
    CloseCause, ClosedWindow, FieldKind, FieldValue, Reading, SetAsideCounts, SetAsideReason, StreamId, Timestamp,
    WindowId,
};

use crate::config::WindowKind;
use crate::plan::{Planned, WindowPlan};

const MICRO: Duration = Duration::from_micros(1);

/// A window with its rows, sorted by time; rows of equal time in order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) start: Timestamp,
    pub(crate) rows: Vec<Reading>,
    /// The revision that its next closing has.
    pub(crate) revision: u32,
    /// Whether it was closed and is kept for a revision.
    pub(crate) closed: bool,
}

/// The state of one definition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definition {
    /// In order of start.
    pub(crate) held: Vec<Held>,
    /// Timed windows that end at or before this are closed. For sessions: rows before it are late. For count windows: the
    /// start of the last closed one.
    pub(crate) watermark: Timestamp,
    pub(crate) set_aside: SetAsideCounts,
}

impl Default for Definition {
    fn default() -> Self {
        Self { held: Vec::new(), watermark: Timestamp::MIN, set_aside: SetAsideCounts::default() }
    }
}

/// What a definition's windows need to know of the stream around them.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) plan: &'a Arc<WindowPlan>,
    pub(crate) index: usize,
    pub(crate) stream: StreamId,
}

impl Around<'_> {
    fn planned(&self) -> &Planned {
        &self.plan.windows[self.index]
    }
}

impl Held {
    pub(crate) const fn new(start: Timestamp) -> Self {
        Self { start, rows: Vec::new(), revision: 0, closed: false }
    }

    fn last(&self) -> Timestamp {
        self.rows.last().map_or(self.start, |row| row.time)
    }

    /// Puts a row at its place.
    fn insert(&mut self, reading: Reading, max_rows: usize) -> Result<(), SetAsideReason> {
        let in_order = self.rows.last().is_none_or(|last| last.time < reading.time);
        if in_order {
            if self.rows.len() >= max_rows {
                return Err(SetAsideReason::Overflow);
            }
            self.rows.push(reading);
            return Ok(());
        }
        let end = self.rows.partition_point(|row| row.time <= reading.time);
        let same_time = self.rows[..end].iter().rev().take_while(|row| row.time == reading.time);
        if same_time.into_iter().any(|row| is_duplicate(row, &reading)) {
            return Err(SetAsideReason::Duplicate);
        }
        if self.rows.len() >= max_rows {
            return Err(SetAsideReason::Overflow);
        }
        self.rows.insert(end, reading);
        Ok(())
    }
}

/// Same time is given. With sequence numbers they tell; without, the values do: two true readings may share a time.
fn is_duplicate(a: &Reading, b: &Reading) -> bool {
    match (a.sequence, b.sequence) {
        (Some(a), Some(b)) => a == b,
        (None, None) => a.values == b.values,
        _ => false,
    }
}

impl Definition {
    /// Puts a row into every window of this definition it belongs to. An error says why at least one did not take it; the
    /// flag whether any did.
    pub(crate) fn place(
        &mut self,
        around: Around<'_>,
        reading: &Reading,
        out: &mut Vec<ClosedWindow>,
    ) -> (bool, Option<SetAsideReason>) {
        let (placed, reason) = match around.planned().kind {
            WindowKind::Tumbling | WindowKind::Hopping => self.place_timed(around, reading, out),
            WindowKind::Session => self.place_session(around, reading, out),
            WindowKind::Count => self.place_count(around, reading, out),
        };
        if let Some(reason) = reason {
            self.set_aside.add(reason, 1);
        }
        (placed, reason)
    }

    fn place_timed(
        &mut self,
        around: Around<'_>,
        reading: &Reading,
        out: &mut Vec<ClosedWindow>,
    ) -> (bool, Option<SetAsideReason>) {
        let planned = around.planned();
        let (mut placed, mut reason) = (false, None);
        let mut start = reading.time.floor(planned.step);
        while start.plus(planned.size) > reading.time {
            match self.place_at(around, start, reading, out) {
                Ok(()) => placed = true,
                Err(why) => reason = Some(why),
            }
            let before = start.minus(planned.step);
            if before == start {
                break;
            }
            start = before;
        }
        (placed, reason)
    }

    fn place_at(
        &mut self,
        around: Around<'_>,
        start: Timestamp,
        reading: &Reading,
        out: &mut Vec<ClosedWindow>,
    ) -> Result<(), SetAsideReason> {
        let (planned, guard) = (around.planned(), &around.plan.guard);
        let end = start.plus(planned.size);
        let late = end <= self.watermark;
        if late && !planned.revise_for.is_some_and(|keep| self.watermark < end.plus(keep)) {
            return Err(SetAsideReason::Late);
        }
        let at = match self.held.binary_search_by_key(&start, |window| window.start) {
            Ok(at) => at,
            Err(at) => {
                if self.held.len() >= guard.max_open {
                    return Err(SetAsideReason::Overflow);
                }
                self.held.insert(at, Held::new(start));
                at
            }
        };
        self.held[at].insert(reading.clone(), guard.max_rows)?;
        if late {
            self.emit(around, at, end, CloseCause::Revision, out);
        }
        Ok(())
    }

    fn place_session(
        &mut self,
        around: Around<'_>,
        reading: &Reading,
        out: &mut Vec<ClosedWindow>,
    ) -> (bool, Option<SetAsideReason>) {
        let (planned, guard) = (around.planned(), &around.plan.guard);
        let gap = planned.size;
        if reading.time < self.watermark {
            return (false, Some(SetAsideReason::Late));
        }
        let joins = |window: &Held| {
            window.start <= reading.time.plus(gap) && reading.time < window.last().plus(gap)
                || (reading.time < window.start && window.start < reading.time.plus(gap))
        };
        let mut at = self.held.iter().position(joins);
        if let Some(first) = at {
            // A row between two sessions makes them one, which has the earlier start.
            while first + 1 < self.held.len() && joins(&self.held[first + 1]) {
                let next = self.held.remove(first + 1);
                let kept = &mut self.held[first].rows;
                kept.extend(next.rows);
                kept.sort_by_key(|row| row.time);
            }
        } else if self.held.len() < guard.max_open {
            let place = self.held.partition_point(|window| window.start < reading.time);
            self.held.insert(place, Held::new(reading.time));
            at = Some(place);
        }
        let Some(at) = at else { return (false, Some(SetAsideReason::Overflow)) };
        if let Err(reason) = self.held[at].insert(reading.clone(), guard.max_rows) {
            return (false, Some(reason));
        }
        let window = &mut self.held[at];
        window.start = window.start.min(reading.time);
        if window.last().since(window.start) >= planned.max_span {
            // The rest of the session begins after what is closed here.
            let floor = window.last().plus(MICRO);
            self.close_at(around, at, CloseCause::Full, out);
            self.watermark = self.watermark.max(floor);
        }
        (true, None)
    }

    fn place_count(
        &mut self,
        around: Around<'_>,
        reading: &Reading,
        out: &mut Vec<ClosedWindow>,
    ) -> (bool, Option<SetAsideReason>) {
        let (planned, guard) = (around.planned(), &around.plan.guard);
        if self.held.is_empty() {
            self.held.push(Held::new(reading.time));
        }
        if let Err(reason) = self.held[0].insert(reading.clone(), guard.max_rows.max(planned.rows)) {
            return (false, Some(reason));
        }
        self.held[0].start = self.count_start();
        if self.held[0].rows.len() >= planned.rows {
            self.watermark = self.held[0].start;
            self.close_at(around, 0, CloseCause::Full, out);
        }
        (true, None)
    }

    /// A count window starts at its first row, or one microsecond after the start of the window before it where that is
    /// later: two windows of one stream never have one id.
    fn count_start(&self) -> Timestamp {
        let first = self.held.first().and_then(|window| window.rows.first()).map_or(Timestamp::MIN, |row| row.time);
        if self.watermark == Timestamp::MIN { first } else { first.max(self.watermark.plus(MICRO)) }
    }

    /// Moves the watermark to `latest` minus lateness; closes what ends before it and forgets what can no longer be revised.
    pub(crate) fn advance(&mut self, around: Around<'_>, latest: Timestamp, out: &mut Vec<ClosedWindow>) {
        let planned = around.planned();
        let watermark = latest.minus(planned.lateness);
        match planned.kind {
            WindowKind::Count => {}
            WindowKind::Session => {
                while let Some(first) = self.held.first()
                    && first.last().plus(planned.size) <= watermark
                {
                    self.watermark = self.watermark.max(first.last().plus(planned.size));
                    self.close_at(around, 0, CloseCause::Watermark, out);
                }
            }
            WindowKind::Tumbling | WindowKind::Hopping => {
                if watermark <= self.watermark {
                    return;
                }
                self.watermark = watermark;
                self.close_due(around, CloseCause::Watermark, out);
                self.forget(planned);
            }
        }
    }

    /// Closes every open timed window that ends at or before the watermark.
    fn close_due(&mut self, around: Around<'_>, cause: CloseCause, out: &mut Vec<ClosedWindow>) {
        let planned = around.planned();
        let mut at = 0;
        while at < self.held.len() {
            let end = self.held[at].start.plus(planned.size);
            if end > self.watermark {
                break;
            }
            if self.held[at].closed {
                at += 1;
                continue;
            }
            self.emit(around, at, end, cause, out);
            if planned.revise_for.is_some() {
                at += 1;
            } else {
                self.held.remove(at);
            }
        }
    }

    fn forget(&mut self, planned: &Planned) {
        let keep = planned.revise_for.unwrap_or_default();
        let watermark = self.watermark;
        self.held.retain(|window| !window.closed || watermark < window.start.plus(planned.size).plus(keep));
    }

    /// Closes everything that is open. Where nothing more can come for them (`cause` is idle or drain), timed windows
    /// count as closed from here on.
    pub(crate) fn close_all(&mut self, around: Around<'_>, cause: CloseCause, out: &mut Vec<ClosedWindow>) {
        let planned = around.planned();
        if planned.kind.is_timed() {
            if let Some(last) = self.held.iter().rev().find(|window| !window.closed) {
                self.watermark = self.watermark.max(last.start.plus(planned.size));
            }
            self.close_due(around, cause, out);
            self.forget(planned);
            return;
        }
        while let Some(first) = self.held.first() {
            let floor = match planned.kind {
                WindowKind::Session => first.last().plus(MICRO),
                _ => first.start,
            };
            self.watermark = self.watermark.max(floor);
            self.close_at(around, 0, cause, out);
        }
    }

    /// Forgets all windows kept for revision.
    pub(crate) fn forget_closed(&mut self) {
        self.held.retain(|window| !window.closed);
    }

    /// Whether a window is open, and whether one is kept for revision.
    pub(crate) fn holds(&self) -> (bool, bool) {
        (self.held.iter().any(|window| !window.closed), self.held.iter().any(|window| window.closed))
    }

    /// Closes and removes a session or count window.
    fn close_at(&mut self, around: Around<'_>, at: usize, cause: CloseCause, out: &mut Vec<ClosedWindow>) {
        let planned = around.planned();
        let after = if planned.kind == WindowKind::Session { planned.size } else { MICRO };
        let end = self.held[at].last().plus(after);
        self.emit(around, at, end, cause, out);
        self.held.remove(at);
    }

    fn emit(&mut self, around: Around<'_>, at: usize, end: Timestamp, cause: CloseCause, out: &mut Vec<ClosedWindow>) {
        let window = &mut self.held[at];
        out.push(ClosedWindow {
            id: WindowId { stream: around.stream, definition: around.planned().name.clone(), start: window.start },
            revision: window.revision,
            end,
            cause,
            rows: record_batch(around.plan, &window.rows),
            set_aside: std::mem::take(&mut self.set_aside),
        });
        window.closed = true;
        window.revision += 1;
    }
}

/// The rows as Arrow columns, each of exactly the size it needs.
fn record_batch(plan: &WindowPlan, rows: &[Reading]) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.time.as_micros()));
    let received = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.received.as_micros()));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(times.with_timezone("UTC")),
        Arc::new(received.with_timezone("UTC")),
        Arc::new(rows.iter().map(|row| row.sequence).collect::<UInt64Array>()),
    ];
    for (index, field) in plan.fields.iter().enumerate() {
        columns.push(match field.kind {
            FieldKind::Number => Arc::new(rows.iter().map(|row| row.number(index)).collect::<Float64Array>()),
            FieldKind::Text => Arc::new(rows.iter().map(|row| text(row, index)).collect::<StringArray>()),
        });
    }
    // Columns and schema are made from the same fields; an empty batch stands in if that were ever untrue.
    RecordBatch::try_new(plan.schema.clone(), columns).unwrap_or_else(|_| RecordBatch::new_empty(plan.schema.clone()))
}

fn text(row: &Reading, index: usize) -> Option<&str> {
    match row.values.get(index) {
        Some(FieldValue::Text(text)) => Some(text.expose()),
        _ => None,
    }
}
