//! What judges: anomaly detectors, diagnosis support, and how they are trained and evaluated.
//!
//! Promises: a row is scored causally, from itself and earlier rows alone; a row's score is bit-identical in
//! whatever batch it travelled (promise I5); a sighting says why (promise I6); what is shown of a patient is
//! decision support and says "suggests".
//! Never: a model reads a clock, ambient randomness, the network, or more of the disk than the folder it is given; a
//! sighting's text repeats a value of the device (promise I2: values stand in contributions, where the field's policy holds).

pub mod anomaly;
pub mod artefact;
pub mod card;
pub mod catalog;
pub mod compress;
pub mod dense;
pub mod device;
pub mod diagnosis;
mod error;
pub mod eval;
pub mod mlp;
pub mod recent;
pub mod row_model;
mod snapshot;
mod spell;
pub mod text;
pub mod train;

pub use error::ModelError;
