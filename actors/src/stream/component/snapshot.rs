//! The state of a stream that outlives its actor, and a stream built from one.
//!
//! Promises: a part that panics when it is kept or read back costs that part and no more (promise I3).

use std::collections::BTreeMap;
use std::sync::Arc;

use nearside_schemas::{KeyValues, ModelName, StreamId};
use nearside_window::StreamWindows;

use super::StreamComponent;
use crate::fence::fenced;
use crate::stream::feedback::FeedbackLog;
use crate::stream::outputs::Outputs;
use crate::stream::plan::StreamPlan;
use crate::stream::state::{OwnPart, StreamState};

impl StreamComponent {
    /// The state that outlives the actor: the windows', the stream's own and each model's.
    pub fn snapshot(&self) -> StreamState {
        let models = self.judges.iter().map(|judge| judge.state.snapshot()).map(Some).collect();
        self.state_of(self.windows.snapshot(), models)
    }

    /// As [`StreamComponent::snapshot`], behind a fence: windows or a model that panic are built again as after any other panic.
    pub fn keep(&mut self, out: &mut Outputs) -> StreamState {
        if let Ok(state) = fenced(|| self.snapshot()) {
            return state;
        }
        // No message brought it about.
        self.at_hand = None;
        let now = self.heard_at;
        if fenced(|| self.windows.snapshot()).is_err() {
            self.rebuild_windows(0, now, out);
        }
        for model in 0..self.judges.len() {
            if fenced(|| self.judges[model].state.snapshot()).is_err() {
                self.rebuild_judge(model, now, out);
            }
        }
        // What panics even when it is new starts anew wherever this is read.
        let windows = fenced(|| self.windows.snapshot()).unwrap_or_default();
        let models = self.judges.iter().map(|judge| fenced(|| judge.state.snapshot()).ok()).collect();
        self.state_of(windows, models)
    }

    fn state_of(&self, windows: Vec<u8>, models: Vec<Option<Vec<u8>>>) -> StreamState {
        let (latest_finding, findings) = self.findings.parts();
        let own = OwnPart {
            heard_at: self.heard_at,
            last_received: self.last_received,
            parked: self.parked,
            skipped: self.skipped.clone(),
            latest_finding,
            findings: findings.clone(),
            silence: self.silence,
            feedback: self.feedback(),
        };
        // Numbers that are no JSON (a score that is not finite) cost the part, never the stream.
        let mut parts = vec![windows, serde_json::to_vec(&own).unwrap_or_default()];
        let models = models.iter().zip(&self.plan.models);
        parts.extend(
            models.filter_map(|(state, planned)| Some(named(&planned.model.reference().name, state.as_ref()?))),
        );
        let (deadline, anchor) = (self.deadline_at_rest(), self.anchor_at_rest());
        StreamState { deadline, anchor, parts, windows_closed: false, is_parked: self.parked }
    }

    /// A stream as it was when [`StreamComponent::snapshot`] was taken. A part that cannot be read starts anew; the
    /// second value says how many did.
    pub fn restore(plan: Arc<StreamPlan>, id: StreamId, key: KeyValues, state: &StreamState) -> (Self, u32) {
        let mut stream = Self::new(plan, id, key);
        stream.parked = state.is_parked;
        let mut lost = 0;
        let mut parts = state.parts.iter();
        if let Some(part) = parts.next() {
            let windows = stream.plan.windows.clone();
            let restored = fenced(|| match state.windows_closed {
                true => StreamWindows::resume_after(windows, id, part),
                false => StreamWindows::restore(windows, id, part),
            });
            match restored {
                Ok(Ok(windows)) => stream.windows = windows,
                _ => lost += 1,
            }
        }
        if let Some(part) = parts.next() {
            match serde_json::from_slice(part) {
                Ok(own) => stream.take_own(own),
                Err(_) => lost += 1,
            }
        }
        // By name: models may have come and gone since.
        for part in parts {
            let known = stream.plan.models.iter().zip(&mut stream.judges).find_map(|(planned, judge)| {
                let state = part.strip_prefix(named(&planned.model.reference().name, &[]).as_slice())?;
                Some((planned, judge, state))
            });
            let Some((planned, judge, state)) = known else { continue };
            match fenced(|| planned.model.restore(&stream.plan.spec.fields, state)) {
                Ok(Ok(state)) => judge.state = state,
                _ => lost += 1,
            }
        }
        (stream, lost)
    }

    fn feedback(&self) -> BTreeMap<ModelName, FeedbackLog> {
        let models = self.plan.models.iter().zip(&self.judges).filter(|(_, judge)| !judge.feedback.is_empty());
        models.map(|(planned, judge)| (planned.model.reference().name.clone(), judge.feedback.clone())).collect()
    }

    fn take_own(&mut self, own: OwnPart) {
        let OwnPart { heard_at, last_received, parked: _, skipped, latest_finding, findings, silence, mut feedback } =
            own;
        let on_patients = self.plan.judges_patients();
        for (planned, judge) in self.plan.models.iter().zip(&mut self.judges) {
            judge.feedback = feedback.remove(&planned.model.reference().name).unwrap_or_default();
            if on_patients {
                judge.feedback.take_back();
            }
        }
        (self.heard_at, self.last_received, self.silence) = (heard_at, last_received, silence.or_since(last_received));
        self.skipped = skipped.into_iter().filter(|(_, model)| *model < self.plan.models.len()).collect();
        self.findings.restore(latest_finding, findings);
    }
}

/// A model's state behind its name.
fn named(name: &ModelName, state: &[u8]) -> Vec<u8> {
    let name = name.as_str().as_bytes();
    // Names have at most 64 bytes.
    [&[name.len() as u8], name, state].concat()
}
