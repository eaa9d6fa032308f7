//! What roll-ups in the making look like in a checkpoint: one part for each window, one for each span.

use std::collections::BTreeMap;

use nearside_schemas::{RollUpId, Timestamp, WindowId};
use serde::{Deserialize, Serialize};

use super::component::{Contribution, Span};

/// The front of the names of all parts.
pub const SAVED_PREFIX: &str = "rollup/";

/// Changes since roll-ups were last saved.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SavedRollUps {
    /// Parts by name; each replaces the last.
    pub put: Vec<(String, Vec<u8>)>,
    /// Parts that are no more.
    pub remove: Vec<String>,
}

/// A part.
#[derive(Serialize, Deserialize)]
pub(super) enum Part {
    Window(WindowId, Contribution),
    Span { closed: bool, changed: bool, revisions: Vec<(RollUpId, u32)> },
}

pub(super) fn window_name(start: Timestamp, window: &WindowId) -> String {
    format!("{SAVED_PREFIX}{}/{window}", start.as_micros())
}

pub(super) fn span_name(start: Timestamp) -> String {
    format!("{SAVED_PREFIX}{}", start.as_micros())
}

impl Part {
    pub(super) fn of_span(span: &Span) -> Self {
        let revisions = span.revisions.iter().map(|(id, revision)| (id.clone(), *revision)).collect();
        Self::Span { closed: span.closed, changed: span.changed, revisions }
    }

    /// JSON; a part that has none (a mean that is no number) is left out, as it is in what goes to the cloud.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok()
    }
}

/// Spans from parts; the second value says how many parts could not be read.
pub(super) fn load(parts: &[(String, Vec<u8>)]) -> (BTreeMap<Timestamp, Span>, u64) {
    let mut spans: BTreeMap<Timestamp, Span> = BTreeMap::new();
    let mut damaged = 0;
    for (name, bytes) in parts {
        let start = name.strip_prefix(SAVED_PREFIX).and_then(|rest| rest.split('/').next()?.parse().ok());
        match (start, serde_json::from_slice(bytes)) {
            (Some(start), Ok(Part::Window(id, contribution))) => {
                let span = spans.entry(Timestamp::from_micros(start)).or_default();
                span.windows.insert(id, contribution);
            }
            (Some(start), Ok(Part::Span { closed, changed, revisions })) => {
                let span = spans.entry(Timestamp::from_micros(start)).or_default();
                (span.closed, span.revisions) = (closed, revisions.into_iter().collect());
                span.changed = changed;
            }
            _ => damaged += 1,
        }
    }
    (spans, damaged)
}
