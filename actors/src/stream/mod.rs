//! Streams: one actor for each, spread over shards.

mod actor;
mod backlog;
mod component;
#[cfg(test)]
mod component_tests;
mod dirty;
mod feedback;
mod findings;
mod judge;
mod messages;
mod outputs;
mod plan;
mod shard;
mod silence;
mod state;
mod stream_ref;

pub use actor::{Judged, StreamActor};
pub use backlog::Gathered;
pub use component::StreamComponent;
pub use feedback::{HALF_LIFE, MOST_STEPS};
pub use messages::{
    AdoptStreams, BeginAt, CollectStates, CollectedState, CollectedStates, DrainShard, OnItsWay, RedirtyStreams,
    ShardBatch, ShardFeedback, ShardJudged, ShardTick,
};
pub use outputs::{Answered, InferenceRequest, Outputs, Raised, ScoredRow};
pub use plan::{PlannedModel, StreamPlan};
pub use shard::{Shard, ShardSetup};
pub use silence::SILENT;
pub use state::StreamState;
pub use stream_ref::{Draft, StreamRef, Work};
