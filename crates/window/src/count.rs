//! Count windows: `rows` rows in order of arrival, handed out in order of event time.
//!
//! A window starts at the time of its earliest row, or one microsecond after the start of the window before it where that is
//! later, so that no two windows of a stream have one id. There are no late rows and no revisions; a duplicate is seen while
//! its window is open.

use nearside_schemas::{CloseCause, ClosedWindow, Reading, Timestamp};

use crate::definition::{Around, Definition, MICRO, Placed};

impl Definition {
    pub(crate) fn place_count(&mut self, around: Around<'_>, reading: &Reading, out: &mut Vec<ClosedWindow>) -> Placed {
        if self.open.is_empty()
            && let Err(reason) = self.open_at(around, 0, reading.time, reading.time)
        {
            return Placed::no(reason);
        }
        let earliest = if self.floor == Timestamp::MIN { self.floor } else { self.floor.plus(MICRO) };
        let window = &mut self.open[0];
        if let Err(reason) = window.rows.insert(around.plan, reading, around.plan.guard.max_rows) {
            return Placed::no(reason);
        }
        window.start = window.rows.first().unwrap_or(reading.time).max(earliest);
        window.end = window.rows.last().unwrap_or(reading.time).plus(MICRO).max(window.start.plus(MICRO));
        if window.rows.len() >= around.planned.rows {
            self.close_count(around, CloseCause::Full, out);
        }
        Placed::YES
    }

    pub(crate) fn close_count(&mut self, around: Around<'_>, cause: CloseCause, out: &mut Vec<ClosedWindow>) {
        if let Some(window) = self.close_first(around, cause, out) {
            self.floor = window.start;
            self.remember_start(window.start);
        }
    }
}
