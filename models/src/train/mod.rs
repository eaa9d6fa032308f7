//! Training: what makes the weights that ship.
//!
//! Promises: the same data and seed give the same weights on the same kind of machine; what a model is validated on it was not
//! trained on; progress is told by callback, never printed.

mod anomaly;
mod ecg;
mod samples;
pub mod simulate;

pub use anomaly::{Epoch, TrainAnomaly, TrainReport, train_anomaly, train_network};
pub use ecg::{TrainEcg, train_ecg, train_ecg_network};
