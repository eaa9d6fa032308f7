//! What a short report or note is about, and how soon someone should act.
//!
//! Promises: a text's scores depend on the text alone (promise I5); a word's contribution is exact, for the classifier is linear
//! in what it looks at (I6); a word of a field that may not leave in the clear stands in no sighting, contribution or error (I2).
//! Never: a text is kept after it was scored; a text longer than its bound is looked at to its end (I4).

pub mod classifier;
pub mod encoder;
pub mod features;
pub mod head;
#[cfg(test)]
mod held_out;
mod judge;
pub(crate) mod labels;
pub mod triage;

pub use encoder::{Encoder, Encoders};
pub use triage::TextTriage;
