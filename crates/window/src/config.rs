//! What the configuration says of windows and guards, and whether it makes sense.

use std::time::Duration;

use nearside_schemas::{ConfigFault, Faults, HumanDuration, WindowDefinition};
use serde::{Deserialize, Serialize};

/// The kinds of windows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// Spans of `size`, one after the other.
    Tumbling,
    /// Spans of `size`, one every `step`.
    Hopping,
    /// Rows with less than `gap` between them.
    Session,
    /// `rows` rows in order of arrival.
    Count,
}

/// What happens to a row whose window has closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatePolicy {
    /// It is set aside as `late`.
    #[default]
    SetAside,
    /// Its window is closed again with the next revision, if it closed less than `revise_for` ago.
    Revise,
}

/// One entry of a stream's `windows`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowConfig {
    /// `tumbling`, `hopping`, `session` or `count`.
    pub kind: WindowKind,
    /// Tumbling and hopping: the span of a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<HumanDuration>,
    /// Hopping: the time between the starts of two windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<HumanDuration>,
    /// Session: the pause that ends a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<HumanDuration>,
    /// Session: rows this long or longer after a session's first begin another; 1 h, or `gap` where that is longer, where
    /// none is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_span: Option<HumanDuration>,
    /// Count: the rows of a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    /// How far behind the latest event time a row may be and still be in time.
    #[serde(default)]
    pub lateness: HumanDuration,
    /// What happens to later rows: `set_aside` or `revise`.
    #[serde(default)]
    pub late: LatePolicy,
    /// With `late = "revise"`: how long after a window's end, in event time, its rows are kept for a revision. Each late row
    /// makes one revision, so a device that sends a long backlog is better served by `lateness`.
    #[serde(default)]
    pub revise_for: HumanDuration,
    /// The definition's name, part of window ids; made from the kind and sizes where none is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<WindowDefinition>,
}

/// A stream's guards against clocks that are wrong and floods.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// A row whose time is further behind its receipt is set aside as `past`.
    pub past: HumanDuration,
    /// A row whose time is further ahead of its receipt is set aside as `future`.
    pub future: HumanDuration,
    /// A stream whose windows took no row for this long (by the time of receipt) closes them; a window is never closed so before
    /// its own span and lateness (session: gap) have passed without a row. Rows that were set aside do not
    /// count: a device with a wrong clock cannot keep windows open.
    pub idle: HumanDuration,
    /// Most rows of one window; further ones are set aside as `overflow`.
    pub max_rows: usize,
    /// Most open windows of one definition of a stream; rows that would open another are set aside as `overflow`.
    pub max_open: usize,
    /// Most rows of closed windows that one definition of a stream keeps for revisions; past it the oldest window is
    /// forgotten, and rows for it are set aside as `late`.
    pub max_kept: usize,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            past: HumanDuration::secs(7 * 86_400),
            future: HumanDuration::secs(300),
            idle: HumanDuration::secs(60),
            max_rows: 100_000,
            max_open: 64,
            max_kept: 100_000,
        }
    }
}

/// A window definition that makes no sense, or a snapshot that cannot be read. The fault of the configuration or of the
/// disk; trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// A key that the kind needs is missing, or one is there that it does not have.
    #[error("a {kind} window {what}")]
    Key {
        /// The kind.
        kind: &'static str,
        /// What is wrong and what to write.
        what: &'static str,
    },
    /// Rows that are in time would need more open windows than the guard allows.
    #[error(
        "window `{name}` has up to {needs} windows open at a time (`size` and `lateness` over `step`), above `max_open` = \
         {max_open}: raise `max_open` or shorten `lateness`"
    )]
    Open {
        /// The definition.
        name: String,
        /// How many it needs.
        needs: u128,
        /// How many it may have.
        max_open: usize,
    },
    /// Two definitions of a stream have one name.
    #[error("two windows of the stream are called `{0}`: give one of them another `name`")]
    SameName(String),
    /// A stream has no window.
    #[error("a stream needs at least one window")]
    None,
    /// A guard makes no sense.
    #[error(transparent)]
    Guard(#[from] ConfigFault),
    /// The snapshot is of another version or damaged.
    #[error("the kept state of a stream's windows cannot be read: {0}")]
    Snapshot(&'static str),
}

impl WindowError {
    /// Whether trying again could help: never.
    pub const fn is_transient(&self) -> bool {
        false
    }
}

impl WindowConfig {
    /// A tumbling window of `size`.
    pub const fn tumbling(size: HumanDuration) -> Self {
        Self {
            kind: WindowKind::Tumbling,
            size: Some(size),
            step: None,
            gap: None,
            max_span: None,
            rows: None,
            lateness: HumanDuration::secs(0),
            late: LatePolicy::SetAside,
            revise_for: HumanDuration::secs(0),
            name: None,
        }
    }

    /// Whatever of the keys does not fit the kind.
    pub fn faults(&self) -> Vec<WindowError> {
        let kind = self.kind.label();
        let positive = |duration: Option<HumanDuration>| duration.is_some_and(|d| d.get() > Duration::ZERO);
        let (timed, hops) = (self.kind.is_timed(), self.kind == WindowKind::Hopping);
        let (session, counts) = (self.kind == WindowKind::Session, self.kind == WindowKind::Count);
        let revises = self.late == LatePolicy::Revise;
        let bad_span = self.max_span.is_some() && !(positive(self.max_span) && self.max_span >= self.gap);
        let bad_step = !positive(self.step) || positive(self.size) && self.step > self.size;
        let many_copies = positive(self.step) && self.copies() > 1_000;
        [
            (timed && !positive(self.size), "needs a `size` above zero, such as `size = \"10s\"`"),
            (!timed && self.size.is_some(), "has no `size`"),
            (hops && bad_step, "needs a `step` above zero and not above `size`"),
            (hops && many_copies, "with a `step` below a thousandth of `size` would copy each row too often"),
            (!hops && self.step.is_some(), "has no `step`; that is for hopping windows"),
            (session && !positive(self.gap), "needs a `gap` above zero, such as `gap = \"30s\"`"),
            (
                !session && (self.gap.is_some() || self.max_span.is_some()),
                "has no `gap` and no `max_span`; those are for session windows",
            ),
            (session && bad_span, "needs a `max_span` that is not below `gap`"),
            (counts && self.rows.is_none_or(|rows| rows == 0), "needs `rows` above zero"),
            (!counts && self.rows.is_some(), "has no `rows`; that is for count windows"),
            (!timed && revises, "cannot be revised: its borders depend on its rows; leave `late` out"),
            (
                timed && revises && self.revise_for.get() == Duration::ZERO,
                "with `late = \"revise\"` needs `revise_for`, such as `revise_for = \"1h\"`",
            ),
            (!revises && self.revise_for.get() > Duration::ZERO, "has `revise_for` only with `late = \"revise\"`"),
        ]
        .into_iter()
        .filter_map(|(wrong, what)| wrong.then_some(WindowError::Key { kind, what }))
        .collect()
    }

    /// Checks that the keys fit the kind.
    pub fn validate(&self) -> Result<(), WindowError> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// In how many windows a row of a hopping definition is.
    fn copies(&self) -> u128 {
        let nanos = |d: Option<HumanDuration>| d.map_or(1, |d| d.get().as_nanos().max(1));
        nanos(self.size).div_ceil(nanos(self.step))
    }
}

impl WindowKind {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Tumbling => "tumbling",
            Self::Hopping => "hopping",
            Self::Session => "session",
            Self::Count => "count",
        }
    }

    pub(crate) const fn is_timed(self) -> bool {
        matches!(self, Self::Tumbling | Self::Hopping)
    }
}

impl GuardConfig {
    /// The bounds that are not above zero.
    pub fn faults(&self) -> Faults {
        let zero = Duration::ZERO;
        Faults::of("").above_zero(&[
            ("past", self.past.get() == zero),
            ("idle", self.idle.get() == zero),
            ("max_rows", self.max_rows == 0),
            ("max_open", self.max_open == 0),
            ("max_kept", self.max_kept == 0),
        ])
    }

    /// Checks that the bounds are above zero.
    pub fn validate(&self) -> Result<(), WindowError> {
        Ok(self.faults().first()?)
    }
}
