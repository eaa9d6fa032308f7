//! What all streams of one definition share.

use std::sync::Arc;
use std::time::Duration;

use nearside_models::recent::RecentRows;
use nearside_models::row_model::RowModel;
use nearside_schemas::{SiteId, StreamSpec};
use nearside_window::WindowPlan;

use crate::inference::Priority;

/// A stream definition made ready: windows planned, models loaded.
pub struct StreamPlan {
    /// The site.
    pub site: SiteId,
    /// Position of the definition in the configuration.
    pub index: usize,
    /// Topic, key, fields.
    pub spec: Arc<StreamSpec>,
    /// Windows and guards.
    pub windows: Arc<WindowPlan>,
    /// The models that judge each row, in the order of the configuration.
    pub models: Vec<PlannedModel>,
    /// Who goes first where streams wait for the same model.
    pub priority: Priority,
    /// A window with fewer rows carries counts only (promise I2: its mean would be a raw value).
    pub min_rows: u64,
    /// After how long without a reading a stream is told as silent.
    pub silent_after: Option<Duration>,
    /// A window whose rows are not judged this long after it closed is summarised as unjudged.
    pub judge_deadline: Duration,
    /// Panics a minute after which a stream is parked.
    pub panics_per_minute: u32,
    /// How long findings are kept for windows that may still close or be revised.
    pub finding_retention: Duration,
}

impl StreamPlan {
    /// Whether a model for patients judges the stream.
    pub fn judges_patients(&self) -> bool {
        self.models.iter().any(|planned| planned.model.judges_patients())
    }
}

/// A model of a definition.
pub struct PlannedModel {
    /// The model.
    pub model: Arc<dyn RowModel>,
    /// The index of its inference queue; `None` where it has no network and judges at once.
    pub queue: Option<usize>,
    /// Where its rows are kept, where it learns online.
    pub recent: Option<Arc<RecentRows>>,
}
