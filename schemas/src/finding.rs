//! A finding: something a model saw, with its reasons (promise I6).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{FieldName, ModelRef, Nth, WindowId};
use crate::time::Timestamp;

/// How much a finding matters to whoever is called.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth recording.
    Notice,
    /// Someone should look.
    Warning,
    /// Someone must look now.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// How much one field contributed to a finding.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Contribution {
    /// The field.
    pub field: FieldName,
    /// What was seen.
    pub seen: f64,
    /// What was expected, where the model expects something.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected: Option<f64>,
    /// The band that counts as ordinary, where the model has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub band: Option<(f64, f64)>,
    /// Its share of the score: points for NEWS2, a fraction of 1 for detectors.
    pub share: f64,
    /// In words, where numbers alone would not say it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

/// The identity of a finding: window, model, label, field and which of its kind in the window. What lasts is one finding of its window;
/// what comes again once it was over is another.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FindingId {
    /// The window.
    pub window: WindowId,
    /// The model that judged.
    pub model: ModelRef,
    /// What it saw.
    pub label: String,
    /// On which field; `None` where the model judges the row as a whole.
    pub field: Option<FieldName>,
    /// Which of these in the window.
    pub nth: Nth,
}

/// Something a model saw in a window, with everything needed to understand it.
///
/// A finding holds numbers of its fields and no key. A word of a text stands in it only where the text's policy is `clear`, and then
/// only in a contribution's note.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Finding {
    /// The window that holds the row. For a stream with several window definitions, the first one's.
    pub window: WindowId,
    /// The model and version.
    pub model: ModelRef,
    /// What was seen, such as `spike`, `flat_line`, `news2_high`.
    pub label: String,
    /// The field that it was seen on, where the model judges each field by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub field: Option<FieldName>,
    /// Which it is of those that the window has of this model, label and field: each is an episode of its own.
    #[serde(skip_serializing_if = "Nth::is_first", default)]
    pub nth: Nth,
    /// How much it matters.
    pub severity: Severity,
    /// Event time of the first row that raised it.
    pub since: Timestamp,
    /// Event time of the row with the highest score, which the other parts describe.
    pub at: Timestamp,
    /// Rows of the window that raised it.
    pub rows: u64,
    /// 0 (ordinary) to 1; the highest of its rows.
    pub score: f64,
    /// The score from which on the model flags.
    pub threshold: f64,
    /// What contributed, most first.
    pub contributions: Vec<Contribution>,
    /// One sentence for people.
    pub text: String,
}

impl Finding {
    /// Its identity.
    pub fn id(&self) -> FindingId {
        FindingId {
            window: self.window.clone(),
            model: self.model.clone(),
            label: self.label.clone(),
            field: self.field.clone(),
            nth: self.nth,
        }
    }

    /// Takes in another sighting of the same finding: counts its rows, keeps the earliest start and the higher peak.
    pub fn absorb(&mut self, other: Self) {
        let rows = self.rows + other.rows;
        let since = self.since.min(other.since);
        let severity = self.severity.max(other.severity);
        let nth = self.nth;
        if other.score > self.score {
            *self = other;
        }
        self.nth = nth;
        self.rows = rows;
        self.since = since;
        self.severity = severity;
    }
}
