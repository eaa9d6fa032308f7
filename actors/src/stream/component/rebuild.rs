//! After a panic: what a stream holds is built again from a snapshot of it, and the panic is counted.
//!
//! Promises: a panic in a model costs that model's state of this stream, one in the windows the reading at hand, and one outside either a
//! verdict on rows that wait for one; the message that did it is named (promise I3).

use nearside_schemas::{SetAsideReason, Timestamp};
use nearside_window::StreamWindows;

use super::StreamComponent;
use crate::fence::fenced;
use crate::stream::outputs::Outputs;

impl StreamComponent {
    /// After a panic that no fence inside met: windows and models may be half changed, so each is built again as after one of its own. Rows
    /// that wait for a verdict count as skipped.
    pub(in crate::stream) fn rebuild(&mut self, out: &mut Outputs) {
        let now = self.heard_at;
        self.note_panic("stream", out);
        self.spend(now, out);
        self.renew_windows(0, now, out);
        (0..self.judges.len()).for_each(|model| self.renew_judge(model));
        if fenced(|| self.release(out)).is_err() {
            // What cannot be handed on is counted, not tried again with every message.
            let rows: usize = self.waiting.drain(..).map(|waiting| waiting.window.rows.num_rows()).sum();
            out.set_aside.extend(std::iter::repeat_n(SetAsideReason::Panicked, rows));
        }
    }

    /// So much of what it gave back panicked whoever it was handed to.
    pub(in crate::stream) fn blame(&mut self, panics: u32, out: &mut Outputs) {
        for _ in 0..panics {
            self.note_panic("outlet", out);
            self.spend(self.heard_at, out);
        }
    }

    /// After a panic in a model.
    pub(super) fn rebuild_judge(&mut self, model: usize, now: Timestamp, out: &mut Outputs) {
        self.note_panic("model", out);
        self.spend(now, out);
        self.renew_judge(model);
    }

    /// A model's state on this stream is built again from a snapshot of it, or starts anew where that does not hold or the stream panicked
    /// lately; its pending rows count as skipped.
    fn renew_judge(&mut self, model: usize) {
        let planned = &self.plan.models[model];
        let fields = &self.plan.spec.fields;
        let judge = &mut self.judges[model];
        let lost: Vec<Timestamp> = judge.pending.drain(..).map(|row| row.time).collect();
        let state = &judge.state;
        let saved = match self.budget.recent() {
            1 => fenced(|| planned.model.restore(fields, &state.snapshot()).ok()).ok().flatten(),
            _ => None,
        };
        judge.state = saved.unwrap_or_else(|| planned.model.new_state(fields));
        judge.judged = judge.taken;
        for time in lost {
            self.note_skip(time, model);
        }
    }

    /// After a panic in the windows; `readings` were at hand.
    pub(super) fn rebuild_windows(&mut self, readings: usize, now: Timestamp, out: &mut Outputs) {
        self.note_panic("window", out);
        self.spend(now, out);
        self.renew_windows(readings, now, out);
    }

    /// The windows are built again from a snapshot of what they hold, which is checked as one from disk is. Where it does not hold, or the
    /// stream is parked for it, what they held is counted as set aside and they start anew.
    fn renew_windows(&mut self, readings: usize, now: Timestamp, out: &mut Outputs) {
        let (plan, id) = (self.plan.windows.clone(), self.id);
        let windows = &self.windows;
        let held = fenced(|| windows.held_rows()).unwrap_or(0);
        let saved = fenced(|| StreamWindows::restore(plan.clone(), id, &windows.snapshot()));
        let lost = match saved {
            Ok(Ok(windows)) if !self.parked => {
                self.windows = windows;
                readings
            }
            _ => {
                self.windows = StreamWindows::new(plan, id);
                held + readings
            }
        };
        out.set_aside.extend(std::iter::repeat_n(SetAsideReason::Panicked, lost));
        // Those that were closed before the panic are whole.
        let closed = std::mem::take(&mut self.closed);
        self.take_closed(closed, now, out);
    }

    /// Counts a panic; past the budget the stream is parked.
    pub(super) fn spend(&mut self, now: Timestamp, out: &mut Outputs) {
        if self.budget.spend(now) && !self.parked {
            self.parked = true;
            out.parked = true;
        }
    }

    pub(super) fn note_panic(&self, part: &'static str, out: &mut Outputs) {
        out.panics += 1;
        out.poison.extend(self.at_hand.map(|record| (record, part)));
    }
}
