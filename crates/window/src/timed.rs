//! Tumbling and hopping windows: `[start, start + size)` for every `start` that is a multiple of `step` since 1970.
//!
//! A window closes when the watermark reaches its end. With `revise`, it is kept for `revise_for` of event time; each late row
//! that it takes makes it come out again at once, whole, as its next revision. A late row whose window never had a row makes
//! that window, as revision 0. A window that was forgotten (its time is over, the stream is idle, `max_kept` was met) never
//! comes back, so no revision is given twice.

use nearside_schemas::{CloseCause, ClosedWindow, Reading, SetAsideReason, Timestamp};

use crate::definition::{Around, Definition, Held, Placed};
use crate::rows::Rows;

impl Definition {
    pub(crate) fn place_timed(&mut self, around: Around<'_>, reading: &Reading, out: &mut Vec<ClosedWindow>) -> Placed {
        let (planned, max_rows) = (around.planned, around.plan.guard.max_rows);
        if planned.step == planned.size
            && let Some(window) = self.open.last_mut()
            && (window.start..window.end).contains(&reading.time)
        {
            // Nearly every row: in the latest window of a tumbling definition.
            let mut placed = Placed::default();
            placed.add(window.rows.insert(around.plan, reading, max_rows));
            return placed;
        }
        let mut placed = Placed::default();
        let mut start = reading.time.floor(planned.step);
        while start.plus(planned.size) > reading.time {
            placed.add(self.place_at(around, start, reading, out));
            let before = start.minus(planned.step);
            if before == start {
                break;
            }
            start = before;
        }
        placed
    }

    fn place_at(
        &mut self,
        around: Around<'_>,
        start: Timestamp,
        reading: &Reading,
        out: &mut Vec<ClosedWindow>,
    ) -> Result<(), SetAsideReason> {
        let end = start.plus(around.planned.size);
        if end <= self.watermark {
            return self.revise(around, start, end, reading, out);
        }
        let at = match self.open.binary_search_by_key(&start, |window| window.start) {
            Ok(at) => at,
            Err(at) => self.open_at(around, at, start, end)?,
        };
        self.open[at].rows.insert(around.plan, reading, around.plan.guard.max_rows)
    }

    /// Puts a late row into its closed window, where that may be revised.
    fn revise(
        &mut self,
        around: Around<'_>,
        start: Timestamp,
        end: Timestamp,
        reading: &Reading,
        out: &mut Vec<ClosedWindow>,
    ) -> Result<(), SetAsideReason> {
        let may = |keep| end > self.floor && self.watermark < end.plus(keep);
        if !around.planned.revise_for.is_some_and(may) {
            return Err(SetAsideReason::Late);
        }
        let at = match self.kept.binary_search_by_key(&start, |window| window.start) {
            Ok(at) => at,
            Err(at) => {
                self.kept.insert(at, Held { start, end, revision: 0, rows: Rows::default() });
                at
            }
        };
        let taken = self.kept[at].rows.insert(around.plan, reading, around.plan.guard.max_rows);
        if taken.is_ok() {
            self.kept_rows += 1;
            let batch = self.kept[at].rows.to_batch(around.plan);
            // Taken out while it is handed out, which needs the definition whole.
            if let Some(mut window) = self.kept.remove(at) {
                self.emit(around, &mut window, batch, CloseCause::Revision, out);
                self.kept.insert(at, window);
            }
        }
        self.bound_kept(around);
        taken
    }

    /// Closes what the watermark has reached and forgets what can no longer be revised.
    pub(crate) fn advance_timed(&mut self, around: Around<'_>, out: &mut Vec<ClosedWindow>) {
        self.close_due(around, CloseCause::Watermark, out);
        let keep = around.planned.revise_for.unwrap_or_default();
        while self.kept.front().is_some_and(|oldest| oldest.end.plus(keep) <= self.watermark) {
            self.forget_oldest();
        }
    }

    /// Closes all windows; from here on their rows are late.
    pub(crate) fn close_all_timed(&mut self, around: Around<'_>, cause: CloseCause, out: &mut Vec<ClosedWindow>) {
        if let Some(last) = self.open.last() {
            self.watermark = self.watermark.max(last.end);
            self.close_due(around, cause, out);
        }
    }

    fn close_due(&mut self, around: Around<'_>, cause: CloseCause, out: &mut Vec<ClosedWindow>) {
        while self.open.first().is_some_and(|window| window.end <= self.watermark) {
            let Some(window) = self.close_first(around, cause, out) else { return };
            if around.planned.revise_for.is_some() {
                self.keep(window);
                self.bound_kept(around);
            }
        }
    }

    fn keep(&mut self, window: Held) {
        self.kept_rows += window.rows.len();
        // Windows close in order, but a late row may have made a kept window out of a later empty one.
        let at = self.kept.partition_point(|kept| kept.start < window.start);
        self.kept.insert(at, window);
    }

    fn bound_kept(&mut self, around: Around<'_>) {
        while self.kept_rows > around.plan.guard.max_kept {
            self.forget_oldest();
        }
    }
}
