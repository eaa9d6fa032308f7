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
    /// A thread could not be started.
    #[error("the system refused another thread: {0}")]
    Thread(#[from] std::io::Error),
}
