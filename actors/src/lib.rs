//! What moves: one actor a file, each a thin shell around a plain component.
//!
//! Promises: a reading that was acknowledged reaches its stream's windows or is counted as set aside (promise I1); a panic
//! stays in its stream (I3); every queue has a bound and a stated policy (I4).
//! Never: a component reads a clock or ambient randomness; a key or a text of a device is logged (I2).

pub mod awake;
pub mod board;
pub mod checkpoint;
mod config;
pub mod credit;
mod error;
pub mod feedback;
pub mod fence;
pub mod guardian;
pub mod handover;
pub mod inference;
pub mod ingest;
pub mod outlet;
mod read_ahead;
pub mod recall;
pub mod recovery;
pub mod rollup;
pub mod rules;
pub mod rules_stage;
pub mod seal;
pub mod skew;
pub mod stage;
pub mod stream;

pub use config::{InferenceConfig, OnStop, PublishConfig, RollUpConfig, RuleConfig, RuleSubject, StreamsConfig};
pub use error::ActorError;
pub use inference::Priority;
