//! What can go wrong when the actors are set up.

/// The gateway's moving parts could not be built or started.
#[derive(Debug, thiserror::Error)]
pub enum ActorError {
    /// A rule is wrong.
    #[error(transparent)]
    Rule(#[from] crate::rules::RuleError),
    /// A stream's codec is wrong.
    #[error("stream `{stream}`: {source}")]
    Codec {
        /// The stream definition.
        stream: String,
        /// What is wrong.
        source: nearside_schemas::codec::CodecError,
    },
    /// A model is wrong or does not fit.
    #[error("stream `{stream}`: {source}")]
    Model {
        /// The stream definition.
        stream: String,
        /// What is wrong.
        source: nearside_models::ModelError,
    },
    /// The journal could not be read to its end. Nothing of it is freed.
    #[error(
        "the journal could not be read: {0}; nothing of it is freed, so another start may go on from it. A segment that can never be read \
         again goes out of the folder by hand, and what it held is then counted as lost"
    )]
    Unread(String),
    /// A thread could not be started.
    #[error("the system refused another thread: {0}")]
    Thread(#[from] std::io::Error),
}
