//! How good the models are: public benchmarks, scored by their own protocols.
//!
//! Promise: what of a folder cannot be used is set aside, named and said; it never ends the judging of the rest.

use std::fmt;

use serde::Serialize;

pub mod anomaly;
pub mod cgm;
pub mod deterioration;
pub mod ecg;
pub mod ecg_data;
pub mod motion;
pub mod multivariate;
pub mod nab;
pub mod nab_data;
pub mod plant;
pub mod skab;
pub mod table;
pub mod text;
pub mod text_data;
pub mod wfdb;

/// What of a folder was not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetAside {
    /// The file or record, as it is called below the folder.
    pub name: String,
    /// Why.
    pub why: String,
}

impl SetAside {
    /// For a reason.
    pub fn new(name: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self { name: name.to_string(), why: why.to_string() }
    }
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set aside: {}: {}", self.name, self.why)
    }
}
