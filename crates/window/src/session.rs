//! Session windows: rows with less than `gap` between them.
//!
//! Sessions never overlap. A row joins a session whose first or last row is less than `gap` away, unless the session would then
//! span `max_span` or more; a row that lies between two sessions makes them one, which has the earlier start. So an open
//! session's id moves to an earlier start when an earlier row joins it; it is fixed when the session closes, and every later
//! session starts after it. A session closes when the watermark reaches its end: `gap` after its last row, or where another
//! session must begin. A row is late if it lies before the end of a closed session, or would be a session by itself that the
//! watermark has passed. There are no revisions, for a late row could change the borders of every session around it.

use nearside_schemas::{CloseCause, ClosedWindow, Reading, SetAsideReason, Timestamp};

use crate::definition::{Around, Definition, MICRO, Placed};

impl Definition {
    pub(crate) fn place_session(&mut self, around: Around<'_>, reading: &Reading) -> Placed {
        let time = reading.time;
        if time < self.floor {
            return Placed::no(SetAsideReason::Late);
        }
        let place = self.open.partition_point(|session| session.start <= time);
        let at = match (self.joins_before(around, place, time), self.joins_after(around, place, time)) {
            (true, true) if self.may_merge(around, place) => {
                let next = self.open.remove(place);
                self.open[place - 1].rows.absorb(next.rows);
                place - 1
            }
            (true, _) => place - 1,
            (false, true) => place,
            (false, false) if time.plus(around.planned.size) <= self.watermark => {
                return Placed::no(SetAsideReason::Late);
            }
            (false, false) => match self.open_at(around, place, time, time) {
                Ok(at) => at,
                Err(reason) => return Placed::no(reason),
            },
        };
        let session = &mut self.open[at];
        if let Err(reason) = session.rows.insert(around.plan, reading, around.plan.guard.max_rows) {
            return Placed::no(reason);
        }
        session.start = session.start.min(time);
        session.end = session.rows.last().unwrap_or(time).plus(around.planned.size);
        self.settle_ends(around, at);
        Placed::YES
    }

    /// Whether `time` continues the session before `place`.
    fn joins_before(&self, around: Around<'_>, place: usize, time: Timestamp) -> bool {
        let before = place.checked_sub(1).and_then(|before| self.open.get(before));
        before.is_some_and(|session| {
            let last = session.rows.last().unwrap_or(session.start);
            time < last.plus(around.planned.size) && time.since(session.start) < around.planned.max_span
        })
    }

    /// Whether `time` comes shortly before the session at `place`.
    fn joins_after(&self, around: Around<'_>, place: usize, time: Timestamp) -> bool {
        self.open.get(place).is_some_and(|session| {
            let last = session.rows.last().unwrap_or(session.start);
            session.start < time.plus(around.planned.size) && last.since(time) < around.planned.max_span
        })
    }

    /// Whether the sessions around `place` with a row between them are within the bounds of one.
    fn may_merge(&self, around: Around<'_>, place: usize) -> bool {
        let (before, after) = (&self.open[place - 1], &self.open[place]);
        let last = after.rows.last().unwrap_or(after.start);
        last.since(before.start) < around.planned.max_span
            && before.rows.len() + after.rows.len() < around.plan.guard.max_rows
    }

    /// Sets the end of the session at `at`, which changed, and of the one before it.
    fn settle_ends(&mut self, around: Around<'_>, at: usize) {
        for at in at.saturating_sub(1)..=at {
            let next = self.open.get(at + 1).map_or(Timestamp::MAX, |next| next.start);
            let session = &mut self.open[at];
            let silent = session.rows.last().unwrap_or(session.start).plus(around.planned.size);
            session.end = silent.min(session.start.plus(around.planned.max_span)).min(next);
        }
    }

    pub(crate) fn advance_session(&mut self, around: Around<'_>, out: &mut Vec<ClosedWindow>) {
        while self.open.first().is_some_and(|session| session.end <= self.watermark) {
            let Some(session) = self.close_first(around, CloseCause::Watermark, out) else { return };
            self.floor = self.floor.max(session.end);
            self.remember_start(session.start);
        }
    }

    /// Closes all sessions. Rows after the last one's last row begin another session, even within `gap`: a device that sends
    /// less often than `idle` loses nothing.
    pub(crate) fn close_all_sessions(&mut self, around: Around<'_>, cause: CloseCause, out: &mut Vec<ClosedWindow>) {
        while let Some(session) = self.close_first(around, cause, out) {
            self.floor = self.floor.max(session.rows.last().unwrap_or(session.start).plus(MICRO));
            self.remember_start(session.start);
        }
    }
}
