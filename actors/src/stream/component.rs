//! One sensor stream as a plain component: readings and ticks in, inference requests, findings and summaries out.
//!
//! Promises: rows are judged causally and in order; a window is summarised once every row it waits for was judged, or
//! past its deadline as `unjudged` with the reason; a panic in a model costs that model's state of this stream, a panic in
//! the windows the reading at hand, for they are built again from a snapshot of what they hold; either is counted, and the message that
//! did it named (promise I3).
//! Never: it knows of actors, threads or the time of day.

mod rebuild;
mod silent;
mod snapshot;

use std::collections::VecDeque;
use std::sync::Arc;

use nearside_journal::Lsn;
use nearside_models::row_model::Row;
use nearside_schemas::{
    CloseCause, ClosedWindow, Feedback, FeedbackOutcome, Finding, KeyValues, ModelRef, Nth, Reading, SetAsideReason,
    StreamId, Summary, Timestamp, Values, Verdict,
};
use nearside_window::{CLOCK_SLACK, StreamWindows};

use super::feedback::explain;
use super::findings::{FindingLog, Noted, field_of};
use super::judge::Judge;
use super::outputs::{Answered, InferenceRequest, Outputs, ScoredRow, note_placement, push_request};
use super::plan::{PlannedModel, StreamPlan};
use super::silence::Silence;
use crate::fence::{PanicBudget, Panicked, fenced};
use crate::skew::Skew;

/// Times of rows that a model skipped, kept to say why a window is unjudged.
const REMEMBERED_SKIPS: usize = 32;

struct Waiting {
    window: ClosedWindow,
    /// For each model, how many rows must be judged first.
    needs: Vec<u64>,
    closed_at: Timestamp,
}

/// One stream.
pub struct StreamComponent {
    plan: Arc<StreamPlan>,
    id: StreamId,
    key: KeyValues,
    windows: StreamWindows,
    judges: Vec<Judge>,
    waiting: VecDeque<Waiting>,
    findings: FindingLog,
    skipped: VecDeque<(Timestamp, usize)>,
    last_received: Timestamp,
    /// The latest time that a reading's receipt or a tick told.
    heard_at: Timestamp,
    silence: Silence,
    budget: PanicBudget,
    parked: bool,
    /// The record of the message that is being handled; `None` where time passes.
    at_hand: Option<Lsn>,
    /// The value whose row panics the windows.
    #[cfg(test)]
    pub(super) poison_of_windows: Option<f64>,
    closed: Vec<ClosedWindow>,
}

impl StreamComponent {
    /// A stream that has seen nothing.
    pub fn new(plan: Arc<StreamPlan>, id: StreamId, key: KeyValues) -> Self {
        let judges = plan.models.iter().map(|planned| Judge::new(planned.model.new_state(&plan.spec.fields))).collect();
        Self {
            windows: StreamWindows::new(plan.windows.clone(), id),
            id,
            key,
            judges,
            waiting: VecDeque::new(),
            findings: FindingLog::new(plan.finding_retention),
            skipped: VecDeque::new(),
            last_received: Timestamp::MIN,
            heard_at: Timestamp::MIN,
            silence: Silence::default(),
            budget: PanicBudget::new(plan.panics_per_minute),
            parked: false,
            at_hand: None,
            #[cfg(test)]
            poison_of_windows: None,
            closed: Vec::new(),
            plan,
        }
    }

    /// The stream's id.
    pub const fn id(&self) -> StreamId {
        self.id
    }

    /// The stream's key, for commands to its device.
    pub const fn key(&self) -> &KeyValues {
        &self.key
    }

    /// What the definition shares.
    pub const fn plan(&self) -> &Arc<StreamPlan> {
        &self.plan
    }

    /// Whether it was given up after too many panics.
    pub const fn is_parked(&self) -> bool {
        self.parked
    }

    /// The record of the message that was handled last.
    pub const fn at_hand(&self) -> Option<Lsn> {
        self.at_hand
    }

    /// Takes a reading that stands in no journal.
    pub fn on_reading(&mut self, reading: Reading, out: &mut Outputs) {
        self.on_reading_of(None, reading, out);
    }

    /// Takes a reading of the message in this record.
    pub fn on_reading_of(&mut self, record: Option<Lsn>, reading: Reading, out: &mut Outputs) {
        self.at_hand = record;
        if self.parked {
            out.set_aside.push(SetAsideReason::Panicked);
            return;
        }
        let (time, received) = (reading.time, reading.received);
        self.last_received = self.last_received.max(received);
        self.heard_at = self.heard_at.max(received);
        self.silence.ends(received);
        // Models see what the windows took: a row that was set aside everywhere is judged by none.
        let values = if self.judges.is_empty() { Values::new() } else { reading.values.clone() };
        let windows = &mut self.windows;
        let closed = &mut self.closed;
        #[cfg(test)]
        let poison = self.poison_of_windows;
        let push = || {
            #[cfg(test)]
            assert!(poison.is_none() || reading.values[0].number() != poison, "the poison");
            windows.push(reading, closed)
        };
        match fenced(push) {
            Ok(placement) => {
                // What the row's time closed does not hold the row; what it filled or revised does, and waits for its verdict too.
                let holds_row = |window: &ClosedWindow| matches!(window.cause, CloseCause::Full | CloseCause::Revision);
                let (with_row, before): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut self.closed).into_iter().partition(holds_row);
                self.take_closed(before, received, out);
                if note_placement(&placement, Skew { time, received }, out) {
                    self.show_to_models(time, &values, out);
                }
                self.take_closed(with_row, received, out);
            }
            Err(Panicked) => self.rebuild_windows(1, received, out),
        }
        self.release(out);
    }

    /// Takes the outputs of a request; `None` where the forward pass failed. Answers come in the order of the requests. A row whose answer
    /// never came is skipped; an answer whose row was given up is nobody's.
    pub fn on_outputs(&mut self, answered: Answered, outputs: Option<&[f32]>, out: &mut Outputs) {
        let Answered { model, first, inputs } = answered;
        let Some(judge) = self.judges.get_mut(model) else { return };
        let end = first + inputs as u64;
        judge.answered = judge.answered.max(end);
        let width = self.plan.models[model].model.output_width();
        // A row that panics gives up the rows behind it, so the next one is looked for anew each time.
        while let Some((at, inputs)) = self.judges[model].settled(end) {
            let own = at.checked_sub(first).map(|skipped| skipped as usize * width);
            let slice = outputs.zip(own).and_then(|(all, from)| all.get(from..from + inputs * width));
            self.judge_next(model, if inputs == 0 { Some(&[]) } else { slice }, out);
        }
        self.release(out);
    }

    /// Takes what an operator said of a finding. It acts on the rows that come after it.
    pub fn on_feedback(&mut self, record: Lsn, feedback: Feedback, out: &mut Outputs) {
        let model = |planned: &PlannedModel| planned.model.reference().name == feedback.finding.model;
        match self.plan.models.iter().position(model) {
            Some(model) => {
                let judge = &mut self.judges[model];
                judge.feedback.hear(judge.taken, record, feedback);
                self.settle_feedback(model, out);
            }
            None => out.heard.push((record, FeedbackOutcome::Unknown)),
        }
    }

    /// Heeds feedback whose rows in front of it are all judged.
    fn settle_feedback(&mut self, model: usize, out: &mut Outputs) {
        let Some(judge) = self.judges.get_mut(model).filter(|judge| judge.feedback.has_waiting()) else { return };
        let on_patients = self.plan.judges_patients();
        judge.feedback.settle(judge.judged, &self.plan.models[model], on_patients, out);
    }

    /// Lets time pass: closes idle windows and, where verdicts are asked for at the time of day, gives up on those that are too
    /// late. While a journal is replayed they are not: hours pass in it while a network computes.
    pub fn on_tick(&mut self, now: Timestamp, verdicts_expire: bool, out: &mut Outputs) {
        let has_gone_back = now.plus(CLOCK_SLACK) < self.heard_at;
        self.heard_at = if has_gone_back { now } else { self.heard_at.max(now) };
        self.at_hand = None;
        self.tell_silence(now, has_gone_back, out);
        let windows = &mut self.windows;
        let closed = &mut self.closed;
        match fenced(|| windows.tick(now, closed)) {
            Ok(()) => {
                let closed = std::mem::take(&mut self.closed);
                self.take_closed(closed, now, out);
            }
            Err(Panicked) => self.rebuild_windows(0, now, out),
        }
        self.release(out);
        if verdicts_expire {
            self.expire(now, out);
        }
    }

    /// Closes everything for good, judged or not.
    pub fn drain(&mut self, now: Timestamp, out: &mut Outputs) {
        self.close_windows(now, true, out);
    }

    /// Closes everything, judged or not: the stream's definition changes, or the gateway stops. Windows that are not over `for_good` may be
    /// revised by later rows, where the definition says so.
    pub fn close_windows(&mut self, now: Timestamp, for_good: bool, out: &mut Outputs) {
        self.at_hand = None;
        let windows = &mut self.windows;
        let closed = &mut self.closed;
        match fenced(|| if for_good { windows.drain(closed) } else { windows.close_open(closed) }) {
            Ok(()) => {
                let closed = std::mem::take(&mut self.closed);
                self.take_closed(closed, now, out);
            }
            Err(Panicked) => self.rebuild_windows(0, now, out),
        }
        self.release(out);
        while let Some(waiting) = self.waiting.pop_front() {
            let reason = "the gateway stopped before every row was judged".to_owned();
            self.summarise(waiting, Some(reason), out);
        }
    }

    /// When it next wants a tick.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let verdict = self.waiting.front().map(|waiting| waiting.closed_at.plus(self.plan.judge_deadline));
        [self.deadline_at_rest(), verdict].into_iter().flatten().min()
    }

    /// The latest time that something of it waits from: later than now where the clock has gone back.
    pub fn anchor(&self) -> Option<Timestamp> {
        self.anchor_at_rest().max(self.waiting.iter().map(|waiting| waiting.closed_at).max())
    }

    /// As [`StreamComponent::next_deadline`], where no window waits for its verdict.
    fn deadline_at_rest(&self) -> Option<Timestamp> {
        [self.windows.next_deadline(), self.silent_at()].into_iter().flatten().min()
    }

    /// As [`StreamComponent::anchor`], where no window waits for its verdict.
    fn anchor_at_rest(&self) -> Option<Timestamp> {
        self.windows.anchor().max(self.silent_at().map(|_| self.silence.since))
    }

    /// Whether it could rest: no open window, nothing unjudged, no answer on its way.
    pub fn is_at_rest(&self) -> bool {
        self.windows.is_empty() && self.waiting.is_empty() && self.judges.iter().all(Judge::is_at_rest)
    }

    /// The latest time of receipt.
    pub const fn last_received(&self) -> Timestamp {
        self.last_received
    }

    /// The latest time it heard of, by a reading's receipt or a tick: the time at which whatever it gave back last came about.
    pub const fn heard_at(&self) -> Timestamp {
        self.heard_at
    }

    /// Whether every row it took is judged: only then does [`StreamComponent::snapshot`] hold everything.
    pub fn is_judged_through(&self) -> bool {
        self.judges.iter().all(|judge| judge.pending.is_empty())
    }

    fn show_to_models(&mut self, time: Timestamp, values: &Values, out: &mut Outputs) {
        for model in 0..self.judges.len() {
            let mut data = Vec::new();
            if let Some(recent) = &self.plan.models[model].recent {
                recent.push(self.id, &self.plan.spec.fields, time, values);
            }
            let judge = &mut self.judges[model];
            let row = Row { time, values };
            let state = &mut judge.state;
            let width = self.plan.models[model].model.input_width();
            // Other inputs than it says are a fault of the model, as a panic is.
            let taken = fenced(|| state.take(&row, &mut data)).ok().filter(|inputs| inputs * width == data.len());
            let Some(inputs) = taken else {
                self.rebuild_judge(model, time, out);
                continue;
            };
            let first = judge.push(time, self.at_hand, inputs);
            if inputs > 0 {
                push_request(out, InferenceRequest { model, first, inputs, data });
            } else if judge.pending.len() == 1 {
                self.judge_next(model, Some(&[]), out);
            }
        }
    }

    /// Judges the oldest pending row of a model, or skips it where there are no outputs.
    fn judge_next(&mut self, model: usize, outputs: Option<&[f32]>, out: &mut Outputs) {
        self.settle_feedback(model, out);
        let Some(judge) = self.judges.get_mut(model) else { return };
        let Some(row) = judge.pending.pop_front() else { return };
        judge.judged += 1;
        self.at_hand = row.record;
        let state = &mut judge.state;
        let Some(outputs) = outputs else {
            if fenced(|| state.skip()).is_err() {
                self.rebuild_judge(model, row.time, out);
            }
            self.note_skip(row.time, model);
            return;
        };
        let raised = judge.feedback.steps_at(row.time);
        let verdict = fenced(|| {
            raised.iter().for_each(|(field, steps)| state.raise_threshold(field.as_ref(), *steps));
            state.judge(outputs)
        });
        let Ok(mut verdict) = verdict else {
            self.note_skip(row.time, model);
            self.rebuild_judge(model, row.time, out);
            return;
        };
        for sighting in std::mem::take(&mut verdict.sightings) {
            let mut finding = Finding {
                window: self.windows.primary_window(row.time),
                model: self.plan.models[model].model.reference().clone(),
                label: sighting.label.to_owned(),
                field: field_of(self.plan.models[model].model.judges_fields(), &sighting.contributions),
                nth: Nth::FIRST,
                severity: sighting.severity,
                since: row.time,
                at: row.time,
                rows: 1,
                score: sighting.score,
                threshold: verdict.threshold,
                contributions: sighting.contributions,
                text: sighting.text,
            };
            explain(&mut finding, &raised);
            if let Some(told) = self.raise(finding, sighting.begins, out) {
                self.judges[model].feedback.note(told);
            }
        }
        if out.keep_scores {
            out.scores.push(ScoredRow { model, time: row.time, verdict });
        }
    }

    /// Notes what was seen; gives it back where it is told.
    fn raise<'o>(&mut self, finding: Finding, begins: bool, out: &'o mut Outputs) -> Option<&'o Finding> {
        match self.findings.note(finding, begins) {
            Noted::Told(raised) => out.raised.push(*raised),
            Noted::Withheld => {
                out.withheld += 1;
                return None;
            }
            Noted::GoesOn => return None,
        }
        out.raised.last().map(|raised| &raised.finding)
    }

    fn take_closed(&mut self, closed: Vec<ClosedWindow>, now: Timestamp, out: &mut Outputs) {
        if closed.is_empty() {
            return;
        }
        let needs: Vec<u64> = self.judges.iter().map(|judge| judge.taken).collect();
        for window in closed {
            out.closed.push(window.cause);
            self.waiting.push_back(Waiting { window, needs: needs.clone(), closed_at: now });
        }
    }

    /// Summarises the windows whose rows are all judged.
    fn release(&mut self, out: &mut Outputs) {
        (0..self.judges.len()).for_each(|model| self.settle_feedback(model, out));
        while self.waiting.front().is_some_and(|waiting| self.is_judged(waiting)) {
            if let Some(waiting) = self.waiting.pop_front() {
                self.summarise(waiting, None, out);
            }
        }
        if self.waiting.is_empty() {
            // Room for windows would be a kilobyte of each stream.
            self.waiting = VecDeque::new();
        }
    }

    fn is_judged(&self, waiting: &Waiting) -> bool {
        self.judges.iter().zip(&waiting.needs).all(|(judge, need)| judge.judged >= *need)
    }

    fn expire(&mut self, now: Timestamp, out: &mut Outputs) {
        let deadline = self.plan.judge_deadline;
        // Where the clock has gone back, they wait from now on.
        self.waiting.iter_mut().for_each(|waiting| waiting.closed_at = waiting.closed_at.min(now));
        while self.waiting.front().is_some_and(|waiting| waiting.closed_at.plus(deadline) <= now) {
            let Some(waiting) = self.waiting.pop_front() else { return };
            let late = self.judges.iter().zip(&waiting.needs).position(|(judge, need)| judge.judged < *need);
            let reason = late.map(|model| format!("{} missed its deadline of {deadline:?}", self.model_name(model)));
            self.summarise(waiting, reason, out);
        }
    }

    fn model_name(&self, model: usize) -> &ModelRef {
        self.plan.models[model].model.reference()
    }

    fn summarise(&mut self, waiting: Waiting, unjudged: Option<String>, out: &mut Outputs) {
        let (rows, closed_at) = (waiting.window.rows.num_rows(), waiting.closed_at);
        match fenced(|| self.summary(waiting.window, unjudged)) {
            Ok(summary) => out.summaries.push(summary),
            Err(Panicked) => {
                self.note_panic("summary", out);
                out.set_aside.extend(std::iter::repeat_n(SetAsideReason::Panicked, rows));
                self.spend(closed_at, out);
            }
        }
    }

    fn summary(&self, window: ClosedWindow, unjudged: Option<String>) -> Summary {
        let span = window.id.start..window.end;
        let skip = self.skipped.iter().find(|(time, _)| span.contains(time));
        let reason = unjudged.or_else(|| skip.map(|(_, model)| format!("{} failed on a row", self.model_name(*model))));
        let spec = &self.plan.spec;
        let rows = window.rows.num_rows() as u64;
        Summary {
            site: self.plan.site.clone(),
            stream: spec.name.clone(),
            group: spec.group.clone(),
            key: self.key.clone(),
            revision: window.revision,
            end: window.end,
            cause: window.cause,
            rows,
            set_aside: window.set_aside.clone(),
            fields: nearside_schemas::summarise_fields(&window.rows, &spec.fields, self.plan.min_rows),
            hidden_fields: nearside_schemas::summarise_hidden_fields(&window.rows, &spec.fields, self.plan.min_rows),
            texts: nearside_schemas::collect_texts(&window.rows, &spec.fields),
            findings: self.findings.within(&window.id, window.end, self.plan.windows.primary_count()),
            verdict: reason.map_or(Verdict::Judged, |reason| Verdict::Unjudged { reason }),
            models: self.plan.models.iter().map(|planned| planned.model.reference().clone()).collect(),
            window: window.id,
        }
    }

    fn note_skip(&mut self, time: Timestamp, model: usize) {
        if self.skipped.len() == REMEMBERED_SKIPS {
            self.skipped.pop_front();
        }
        self.skipped.push_back((time, model));
    }
}
