//! Why a message or a reading was set aside instead of entering a window. Each reason is counted (promises I1 and I4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The reasons. The text of each is its metric label and stands in summaries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum SetAsideReason {
    /// The payload is not what the stream's format says.
    Malformed,
    /// A number is NaN or infinite.
    NotFinite,
    /// The payload nests deeper or is larger than the codec's bound.
    TooLarge,
    /// A key part is missing, empty or too long.
    BadKey,
    /// The timestamp cannot be read.
    BadTimestamp,
    /// The timestamp is further ahead of the time of receipt than `future` allows.
    Future,
    /// The timestamp is further behind the time of receipt than `past` allows.
    Past,
    /// The row came after its window closed and the definition does not revise.
    Late,
    /// The same row came before.
    Duplicate,
    /// A bound of the stream was met: open windows, rows a window, streams.
    Overflow,
    /// The code that handled it panicked.
    Panicked,
    /// No stream claims the topic.
    NoStream,
}

impl SetAsideReason {
    /// All reasons, in a fixed order.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::NotFinite,
        Self::TooLarge,
        Self::BadKey,
        Self::BadTimestamp,
        Self::Future,
        Self::Past,
        Self::Late,
        Self::Duplicate,
        Self::Overflow,
        Self::Panicked,
        Self::NoStream,
    ];

    /// The label, such as `bad_key`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotFinite => "not_finite",
            Self::TooLarge => "too_large",
            Self::BadKey => "bad_key",
            Self::BadTimestamp => "bad_timestamp",
            Self::Future => "future",
            Self::Past => "past",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
            Self::Overflow => "overflow",
            Self::Panicked => "panicked",
            Self::NoStream => "no_stream",
        }
    }
}

/// How many readings were set aside, by reason.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct SetAsideCounts(BTreeMap<SetAsideReason, u64>);

impl SetAsideCounts {
    /// Counts `by` more for `reason`.
    pub fn add(&mut self, reason: SetAsideReason, by: u64) {
        if by > 0 {
            *self.0.entry(reason).or_default() += by;
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (reason, count) in other.iter() {
            self.add(reason, count);
        }
    }

    /// The count for `reason`.
    pub fn get(&self, reason: SetAsideReason) -> u64 {
        self.0.get(&reason).copied().unwrap_or(0)
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The reasons with a count above zero.
    pub fn iter(&self) -> impl Iterator<Item = (SetAsideReason, u64)> + '_ {
        self.0.iter().map(|(reason, count)| (*reason, *count))
    }

    /// Whether nothing was set aside.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_serialised_names() {
        for reason in SetAsideReason::ALL {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.label()));
        }
    }
}
