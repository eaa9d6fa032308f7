//! The window definitions of a stream definition, made ready and shared by all its streams.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use nearside_schemas::{
    FieldKind, FieldSpec, HumanDuration, StreamSpec, WindowDefinition, WindowId, arrow_schema::window_schema,
};

use crate::config::{GuardConfig, LatePolicy, WindowConfig, WindowError, WindowKind};

/// A session's longest span where none is stated.
const DEFAULT_MAX_SPAN: Duration = Duration::from_secs(3_600);

/// One definition made ready.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) name: WindowDefinition,
    /// Kind and sizes in words: a snapshot of another shape is not taken for this definition's, whatever its name.
    pub(crate) shape: String,
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
    /// Without rows for this long it closes: the stream's `idle`, but no less than a window's own span, or a sensor slower than
    /// `idle` would have each window closed under it and all but the first row late.
    pub(crate) idle: Duration,
}

/// All window definitions of a stream definition.
#[derive(Debug)]
pub struct WindowPlan {
    pub(crate) schema: SchemaRef,
    pub(crate) fields: Vec<FieldKind>,
    /// How many of the fields are numbers, and how many text.
    pub(crate) numbers: usize,
    pub(crate) texts: usize,
    /// Names and kinds of the fields in words, for the same reason as [`Planned::shape`].
    pub(crate) fields_shape: String,
    pub(crate) windows: Vec<Planned>,
    pub(crate) guard: GuardConfig,
    /// Whether rows of one time and the same values are the same row. Not where the time is that of receipt: rows that arrive
    /// together share it, and a message sent twice does not.
    pub(crate) same_values_are_same_row: bool,
}

impl WindowPlan {
    /// Makes the definitions of a stream ready.
    ///
    /// # Errors
    /// As [`WindowPlan::new`].
    pub fn of_stream(
        spec: &StreamSpec,
        windows: &[WindowConfig],
        guard: GuardConfig,
    ) -> Result<Arc<Self>, WindowError> {
        let plan =
            Self { same_values_are_same_row: spec.timestamp.is_some(), ..Self::make(&spec.fields, windows, guard)? };
        Ok(Arc::new(plan))
    }

    /// Makes definitions ready, for rows that carry their device's time.
    ///
    /// # Errors
    /// Where a definition makes no sense by itself or beside the guard's bounds, two have one name, or there is none.
    pub fn new(fields: &[FieldSpec], windows: &[WindowConfig], guard: GuardConfig) -> Result<Arc<Self>, WindowError> {
        Self::make(fields, windows, guard).map(Arc::new)
    }

    fn make(fields: &[FieldSpec], windows: &[WindowConfig], guard: GuardConfig) -> Result<Self, WindowError> {
        guard.validate()?;
        let mut planned: Vec<Planned> = Vec::new();
        for config in windows {
            let window = Planned::new(config, guard.idle.get())?;
            window.check_bounds(&guard)?;
            if planned.iter().any(|other| other.name == window.name) {
                return Err(WindowError::SameName(window.name.to_string()));
            }
            planned.push(window);
        }
        if planned.is_empty() {
            return Err(WindowError::None);
        }
        let shapes: Vec<String> = fields.iter().map(|field| format!("{}:{:?}", field.name, field.kind)).collect();
        let texts = fields.iter().filter(|field| field.kind == FieldKind::Text).count();
        Ok(Self {
            schema: window_schema(fields),
            fields: fields.iter().map(|field| field.kind).collect(),
            numbers: fields.len() - texts,
            texts,
            fields_shape: shapes.join(","),
            windows: planned,
            guard,
            same_values_are_same_row: true,
        })
    }

    /// The longest time, in event time, that a row's window may still be open or revised.
    pub fn retention(&self) -> Duration {
        let keep = |window: &Planned| {
            let span = if window.kind.is_timed() { window.size } else { window.max_span };
            span + window.lateness + window.revise_for.unwrap_or_default()
        };
        self.windows.iter().map(keep).max().unwrap_or_default() + self.guard.idle.get()
    }

    /// Whether this is one of the windows in which, taken together, each row stands once: what roll-ups add up. They are those of the
    /// shortest tumbling definition; without one, of the first session or count definition; of a stream that has
    /// hopping windows alone, those that start at multiples of their size.
    pub fn counts_once(&self, window: &WindowId) -> bool {
        let shortest = self.windows.iter().filter(|w| w.kind == WindowKind::Tumbling).min_by_key(|w| w.size);
        let chosen = shortest.or_else(|| self.windows.iter().find(|w| !w.kind.is_timed()));
        match chosen.or_else(|| self.windows.iter().min_by_key(|w| w.size)) {
            Some(w) if w.name == window.definition => {
                w.kind != WindowKind::Hopping || window.start.floor(w.size) == window.start
            }
            _ => false,
        }
    }

    /// The first definition, where its windows are counted by rows: then their spans may touch and a time does not tell the window.
    pub fn primary_count(&self) -> Option<&WindowDefinition> {
        let first = self.windows.first()?;
        (first.kind == WindowKind::Count).then_some(&first.name)
    }

    /// The name of the first definition, which findings belong to.
    pub fn primary(&self) -> &WindowDefinition {
        &self.windows[0].name
    }
}

impl Planned {
    fn new(config: &WindowConfig, idle: Duration) -> Result<Self, WindowError> {
        config.validate()?;
        let get = |duration: Option<HumanDuration>| duration.unwrap_or_default();
        let (size, step, gap) = (get(config.size), get(config.step), get(config.gap));
        let max_span = config.max_span.map_or(DEFAULT_MAX_SPAN.max(gap.get()), HumanDuration::get);
        let rows = config.rows.unwrap_or(0);
        let derived = match config.kind {
            WindowKind::Tumbling => size.to_string(),
            WindowKind::Hopping => format!("hopping-{size}-{step}"),
            WindowKind::Session => format!("session-{gap}"),
            WindowKind::Count => format!("count-{rows}"),
        };
        let name = match &config.name {
            Some(name) => name.clone(),
            None => WindowDefinition::new(&derived)
                .map_err(|_| WindowError::Key { kind: config.kind.label(), what: "needs a `name`" })?,
        };
        Ok(Self {
            name,
            shape: format!("{}-{derived}", config.kind.label()),
            kind: config.kind,
            size: if config.kind == WindowKind::Session { gap.get() } else { size.get() },
            step: if config.kind == WindowKind::Hopping { step.get() } else { size.get() },
            max_span,
            rows,
            lateness: config.lateness.get(),
            revise_for: (config.late == LatePolicy::Revise).then(|| config.revise_for.get()),
            idle: idle.max(size.get() + config.lateness.get()).max(gap.get()),
        })
    }

    /// A definition whose ordinary use breaks a guard's bound would set aside rows for ever: better said at the start.
    fn check_bounds(&self, guard: &GuardConfig) -> Result<(), WindowError> {
        if self.kind == WindowKind::Count && self.rows > guard.max_rows {
            return Err(WindowError::Key { kind: self.kind.label(), what: "has more `rows` than `max_rows` allows" });
        }
        let needs = self.most_open();
        if self.kind.is_timed() && needs > guard.max_open as u128 {
            return Err(WindowError::Open { name: self.name.to_string(), needs, max_open: guard.max_open });
        }
        Ok(())
    }

    /// Tumbling and hopping: how many windows can be open at a time. Their starts lie in the span of `size` and `lateness`
    /// that ends at the latest row.
    fn most_open(&self) -> u128 {
        (self.size + self.lateness).as_micros().div_ceil(self.step.as_micros().max(1))
    }
}
