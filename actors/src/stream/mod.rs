//! Streams: one actor for each, spread over shards.

mod actor;
mod component;
#[cfg(test)]
mod component_tests;
mod findings;
mod plan;
mod shard;

pub use actor::{Judged, StreamActor, Work};
pub use component::{InferenceRequest, Outputs, ScoredRow, StreamComponent};
pub use plan::{PlannedModel, StreamPlan};
pub use shard::{DrainShard, Shard, ShardBatch, ShardJudged, ShardSetup, ShardTick, StreamRef};
