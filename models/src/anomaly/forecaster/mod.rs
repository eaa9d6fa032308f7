//! forecaster wip

pub mod history;
pub mod network;

/// The name in the catalogue.
pub const NAME: &str = "forecaster";
/// The score from which on a row is flagged.
pub const THRESHOLD: f64 = 0.5;
