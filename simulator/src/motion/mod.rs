//! People who move, as an accelerometer on the breastbone sees them.
//!
//! [`pose`] says what somebody does at an instant, [`patch`] turns it into samples, [`recording`] makes labelled recordings of people who
//! differ, to train and to test on. Everybody here is invented: the figures are plausible, not measured.

pub(crate) mod patch;
pub(crate) mod pose;
mod recording;

pub use pose::Posture;
pub use recording::{Crowd, MotionRecording, MotionTruth};
