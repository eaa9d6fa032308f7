//! Summaries: the only thing that may leave the site, once `privacy` has sealed it (promise I2).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::ids::{FieldName, ModelRef, SiteId, StreamName, WindowId};
use crate::personal::Personal;
use crate::reading::KeyValues;
use crate::set_aside::SetAsideCounts;
use crate::time::Timestamp;
use crate::window::CloseCause;

/// Quantiles of a field's values in a window, by linear interpolation between order statistics.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub struct Quantiles {
    /// 5%.
    pub p05: f64,
    /// 25%.
    pub p25: f64,
    /// 50%.
    pub p50: f64,
    /// 75%.
    pub p75: f64,
    /// 95%.
    pub p95: f64,
}

/// One numeric field over one window.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct FieldSummary {
    /// The field.
    pub name: FieldName,
    /// Its unit, as configured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unit: Option<String>,
    /// Rows that had a value.
    pub count: u64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the sample (n − 1); 0 for one value.
    pub std: f64,
    /// Quantiles.
    pub quantiles: Quantiles,
}

/// Whether every model that should have judged the window has done so.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Verdict {
    /// All of them did.
    Judged,
    /// At least one did not.
    Unjudged {
        /// Why, such as `forecaster missed its deadline of 2s`.
        reason: String,
    },
}

/// What is known of one closed window, before sealing. Not serialisable: only `privacy` makes bytes of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Summary {
    /// The site.
    pub site: SiteId,
    /// The stream definition.
    pub stream: StreamName,
    /// Its roll-up group.
    pub group: String,
    /// The key parts, personal until sealed by their policies.
    pub key: KeyValues,
    /// The window.
    pub window: WindowId,
    /// The window's revision; the cloud keeps the highest.
    pub revision: u32,
    /// The first instant after the window.
    pub end: Timestamp,
    /// Why it closed.
    pub cause: CloseCause,
    /// Rows in the window.
    pub rows: u64,
    /// Rows set aside since the definition last closed a window, by reason.
    pub set_aside: SetAsideCounts,
    /// The numeric fields; empty where the window has fewer rows than `min_rows`, for then a mean would be a raw value.
    pub fields: Vec<FieldSummary>,
    /// Likewise the numeric fields whose policy lets them leave as ciphertext alone.
    pub hidden_fields: Vec<(FieldName, Personal<FieldSummary>)>,
    /// Text values that a policy lets leave encrypted or as pseudonyms: field and values in row order.
    pub texts: Vec<(FieldName, Vec<Personal<std::sync::Arc<str>>>)>,
    /// What the models saw, in order of time, then label.
    pub findings: Vec<Finding>,
    /// Whether all models judged.
    pub verdict: Verdict,
    /// The models that judged.
    pub models: Vec<ModelRef>,
}

/// The identity of a roll-up: its group and its start.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct RollUpId {
    /// The group of streams.
    pub group: String,
    /// The field that was rolled up.
    pub field: FieldName,
    /// The first instant.
    pub start: Timestamp,
}

impl fmt::Display for RollUpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rollup:{}:{}:{}", self.group, self.field, self.start.as_micros())
    }
}

/// Closed windows of many streams of one group, put together: per site, group and field. Holds no key.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct RollUp {
    /// The site.
    pub site: SiteId,
    /// Group, field and start.
    #[serde(flatten)]
    pub id: RollUpId,
    /// The revision: a late window makes a new one.
    pub revision: u32,
    /// The first instant after it.
    pub end: Timestamp,
    /// Streams that have a window in it.
    pub streams: u64,
    /// Windows in it.
    pub windows: u64,
    /// Rows in those windows.
    pub rows: u64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Mean of all rows.
    pub mean: f64,
    /// Findings in those windows.
    pub findings: u64,
}
