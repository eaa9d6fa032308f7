//! Training: what makes the weights that ship.
//!
//! Promises: the same data and seed give the same weights on the same kind of machine; what a model is validated on it was not
//! trained on; progress is told by callback, never printed.

mod anomaly;
mod ecg;
mod ecg_rhythms;
mod fit;
mod glucose;
mod multivariate;
pub mod plant;
mod samples;
pub mod simulate;

pub use anomaly::{TrainAnomaly, train_anomaly, train_network};
pub use ecg::{Learner, TrainEcg, train_ecg, train_ecg_network};
pub use fit::{Epoch, TrainReport};
pub use glucose::{train_glucose, train_glucose_network};
pub use multivariate::train_multivariate;
