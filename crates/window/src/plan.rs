//! The window definitions of a stream definition, made ready and shared by all its streams.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use nearside_schemas::{FieldSpec, WindowDefinition, arrow_schema::window_schema};

use crate::config::{GuardConfig, LatePolicy, WindowConfig, WindowError, WindowKind};

/// One definition made ready.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) name: WindowDefinition,
    pub(crate) kind: WindowKind,
    /// Tumbling and hopping: the span. Session: the gap.
    pub(crate) size: Duration,
    /// Tumbling: the span too.
    pub(crate) step: Duration,
    pub(crate) max_span: Duration,
    pub(crate) rows: usize,
    pub(crate) lateness: Duration,
    /// How long closed windows are kept; `None` where late rows are set aside.
    pub(crate) revise_for: Option<Duration>,
}

/// All window definitions of a stream definition.
#[derive(Debug)]
pub struct WindowPlan {
    pub(crate) schema: SchemaRef,
    pub(crate) fields: Vec<FieldSpec>,
    pub(crate) windows: Vec<Planned>,
    pub(crate) guard: GuardConfig,
}

impl WindowPlan {
    /// Makes definitions ready.
    ///
    /// # Errors
    /// Where a definition makes no sense, two have one name, or there is none.
    pub fn new(fields: &[FieldSpec], windows: &[WindowConfig], guard: GuardConfig) -> Result<Arc<Self>, WindowError> {
        guard.validate()?;
        let mut planned: Vec<Planned> = Vec::new();
        for config in windows {
            let window = Planned::new(config)?;
            if planned.iter().any(|other| other.name == window.name) {
                return Err(WindowError::SameName(window.name.to_string()));
            }
            planned.push(window);
        }
        if planned.is_empty() {
            return Err(WindowError::None);
        }
        Ok(Arc::new(Self { schema: window_schema(fields), fields: fields.to_vec(), windows: planned, guard }))
    }

    /// The longest time, in event time, that a row's window may still be open or revised.
    pub fn retention(&self) -> Duration {
        let keep = |window: &Planned| {
            let span = if window.kind.is_timed() { window.size } else { window.max_span };
            span + window.lateness + window.revise_for.unwrap_or_default()
        };
        self.windows.iter().map(keep).max().unwrap_or_default() + self.guard.idle.get()
    }

    /// The name of the first definition, which findings belong to.
    pub fn primary(&self) -> &WindowDefinition {
        &self.windows[0].name
    }
}

impl Planned {
    fn new(config: &WindowConfig) -> Result<Self, WindowError> {
        config.validate()?;
        let get = |duration: Option<nearside_schemas::HumanDuration>| duration.unwrap_or_default();
        let (size, step, gap) = (get(config.size), get(config.step), get(config.gap));
        let rows = config.rows.unwrap_or(0);
        let name = match config.kind {
            WindowKind::Tumbling => size.to_string(),
            WindowKind::Hopping => format!("hopping-{size}-{step}"),
            WindowKind::Session => format!("session-{gap}"),
            WindowKind::Count => format!("count-{rows}"),
        };
        let name = match &config.name {
            Some(name) => name.clone(),
            None => WindowDefinition::new(&name)
                .map_err(|_| WindowError::Key { kind: config.kind.label(), what: "needs a `name`" })?,
        };
        let hour = Duration::from_secs(3_600);
        Ok(Self {
            name,
            kind: config.kind,
            size: if config.kind == WindowKind::Session { gap.get() } else { size.get() },
            step: if config.kind == WindowKind::Hopping { step.get() } else { size.get() },
            max_span: config.max_span.map_or(hour, |span| span.get()),
            rows,
            lateness: config.lateness.get(),
            revise_for: (config.late == LatePolicy::Revise).then(|| config.revise_for.get()),
        })
    }
}
