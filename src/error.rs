//! What can go wrong in the program as a whole, and the exit codes that scripts see.

use std::path::PathBuf;

/// The program could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] nearside_config::ConfigError),
    /// A stream's windows are wrong.
    #[error("stream `{stream}`: {source}")]
    Window {
        /// The stream definition.
        stream: String,
        /// What is wrong.
        source: nearside_window::WindowError,
    },
    /// A model cannot be used.
    #[error(transparent)]
    Model(#[from] nearside_models::ModelError),
    /// The actors cannot be built.
    #[error(transparent)]
    Actors(#[from] nearside_actors::ActorError),
    /// The data folder cannot be used.
    #[error("data folder {path}: {source}; name another in [site] data_dir, or mend its permissions")]
    DataFolder {
        /// Which folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A configuration could not be put in force while the gateway runs; the one before still is.
    #[error("{0}; the configuration in force stays: try again")]
    Reload(&'static str),
    /// Keys cannot be used.
    #[error(transparent)]
    Privacy(#[from] nearside_privacy::PrivacyError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] nearside_journal::JournalError),
    /// The outbox cannot be opened.
    #[error(transparent)]
    Outbox(#[from] nearside_outbox::OutboxError),
    /// Dead letters cannot be read or kept.
    #[error(transparent)]
    DeadLetters(#[from] nearside_deadletters::DeadLetterError),
    /// The uplink's configuration is wrong.
    #[error(transparent)]
    Uplink(#[from] nearside_uplink::UplinkError),
    /// The front door cannot be opened.
    #[error(transparent)]
    Broker(#[from] nearside_broker::BrokerError),
    /// The console cannot be opened.
    #[error(transparent)]
    Console(#[from] nearside_console::ConsoleError),
    /// A thread could not be started.
    #[error("the system refused another thread: {0}")]
    Thread(std::io::Error),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Input is not what it should be.
    #[error("{path}: {why}")]
    Input {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// A check found damage.
    #[error("the {0} has damaged places")]
    Damaged(&'static str),
    /// A part of the gateway has ended by a fault of ours; everything acknowledged is in the journal.
    #[error(
        "{0} ended by a fault, so the gateway stops; what was acknowledged is in the journal: start again, and it goes on from there"
    )]
    Ended(String),
    /// Something outside does not answer.
    #[error("{0}")]
    Surroundings(String),
    /// The command line asks for something that is not there.
    #[error("{0}")]
    Usage(String),
}

impl From<std::io::Error> for StartError {
    fn from(error: std::io::Error) -> Self {
        Self::Thread(error)
    }
}

impl StartError {
    /// 3: a part has ended by a fault, and a start puts it together again; 2: what was given is wrong and giving it again will not help;
    /// 1: the surroundings are.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Window { .. } | Self::Model(_) | Self::Actors(_) | Self::Uplink(_) => 2,
            Self::Input { .. } | Self::Usage(_) => 2,
            Self::Broker(error) if !error.is_transient() => 2,
            Self::Ended(_) => 3,
            _ => 1,
        }
    }

    /// For `map_err` on file operations.
    pub fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File { path: path.to_owned(), source }
    }
}
