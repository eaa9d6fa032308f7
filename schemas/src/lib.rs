//! What flows through Nearside: ids, topics, readings, windows, findings, summaries, commands,
//! and the codecs that turn a payload into readings.
//!
//! Promises: every type that crosses a room's border is here; an identifier is never a bare
//! string; a personal value cannot be printed or serialised by accident ([`Personal`]).
//! Never: this crate imports no other member of the workspace, reads no clock but through
//! [`Clock`], and does no input or output.

mod address;
pub mod arrow_schema;
pub mod codec;
mod command;
mod failpoint;
mod fault;
mod feedback;
mod finding;
mod ids;
mod nearest;
mod personal;
mod ports;
mod publish;
mod quantity;
mod reading;
mod role;
mod set_aside;
mod stream;
mod summarise;
mod summary;
mod time;
mod topic;
mod utf8;
mod window;

pub use address::{AddressError, deserialize_address, deserialize_optional_address, parse_address};
pub use command::Command;
pub use failpoint::failpoint;
pub use fault::{ConfigFault, Faults};
pub use feedback::{
    FEEDBACK_ANSWER_TOPIC, FEEDBACK_TOPIC, Feedback, FeedbackError, FeedbackOutcome, FindingTag, MAX_FEEDBACK_BYTES,
    Opinion,
};
pub use finding::{Contribution, Finding, FindingId, Severity};
pub use ids::{
    ClientId, CommandId, FieldName, Further, InvalidName, ModelName, ModelRef, Nth, RuleName, SiteId, StreamId,
    StreamIdHasher, StreamMap, StreamName, WindowDefinition, WindowId, digest,
};
pub use nearest::{nearest, unknown_name};
pub use personal::Personal;
pub use ports::{Answer, BoxFuture, Durability, Intake, KeyPurpose, KeySource, RefusalReason, SecretKey};
pub use publish::{PacketId, Publish, QoS};
pub use quantity::{ByteSize, HumanDuration, QuantityError};
pub use reading::{FieldValue, KeyValues, Reading, Values};
pub use role::Role;
pub use set_aside::{SetAsideCounts, SetAsideReason};
pub use stream::{FieldKind, FieldPolicy, FieldSpec, KeyPartSpec, StreamSpec};
pub use summarise::{collect_texts, summarise_fields, summarise_hidden_fields};
pub use summary::{FieldSummary, Quantiles, RollUp, RollUpId, Summary, Verdict};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
pub use topic::{Topic, TopicError, TopicTemplate};
pub use utf8::{NotUtf8, utf8};
pub use window::{CloseCause, ClosedWindow};
