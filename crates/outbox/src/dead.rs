//! Dead letters: items that will not reach the cloud by themselves, kept with the reason until somebody looks.

use nearside_privacy::Class;
use nearside_schemas::Timestamp;
use serde::Serialize;

/// Why an item is dead.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// It is larger than `uplink.max_item` or than the cloud takes.
    TooLarge,
    /// The cloud refused it for good, or again and again.
    Refused,
    /// It could not be read back from the disk, or was not sealed with this site's key.
    Damaged,
}

impl DeadReason {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::TooLarge, Self::Refused, Self::Damaged];

    /// The metric label, which also stands in the file.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::Damaged => "damaged",
        }
    }

    pub(crate) fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.label() == label)
    }
}

/// A dead letter as it is listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DeadLetter {
    /// Its number, for `requeue`.
    pub number: u64,
    /// The id of the item; `None` where its head cannot be read.
    pub id: Option<String>,
    /// Its class; `None` where the number in the file is none.
    pub class: Option<Class>,
    /// Why it is here.
    pub reason: DeadReason,
    /// What the cloud or the reader said.
    pub detail: String,
    /// Since when.
    pub at: Timestamp,
    /// Its size.
    pub bytes: usize,
}
