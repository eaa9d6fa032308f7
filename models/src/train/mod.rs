//! Training: what makes the weights that ship.
//!
//! Promises: the same data and seed give the same weights on the same kind of machine; what a model is validated on it was not
//! trained on; progress is told by callback, never printed.

mod adamw;
mod anomaly;
mod checkpoint;
mod deterioration;
mod ecg;
mod ecg_member;
mod ecg_rhythms;
mod finetune;
mod fit;
mod glucose;
mod lesson;
mod motion;
mod multivariate;
pub mod online;
pub mod plant;
mod recorded;
pub mod reports;
mod samples;
pub mod simulate;
mod text;
mod text_fit;
mod text_head;

pub use anomaly::{TrainAnomaly, train_anomaly, train_network};
pub use checkpoint::Checkpoint;
pub use deterioration::{TrainDeterioration, train_deterioration};
pub use ecg::{Learner, TrainEcg, train_ecg, train_ecg_network};
pub use finetune::{FROZEN, FineTuned, fine_tune};
pub use fit::{Epoch, TrainReport};
pub use glucose::{train_glucose, train_glucose_network};
pub use lesson::Lesson;
pub use motion::{TrainMotion, train_activity, train_sleep};
pub use multivariate::{TrainMultivariate, train_multivariate};
#[cfg(test)]
pub(crate) use text::generated;
pub use text::{Fold, GENERATED_PART, TextTrained, TrainText, folds, test_generated, train_classifier, train_text};
pub use text_head::{answers, train_head};
