//! What can go wrong with a model.

/// A model could not be loaded, used or trained.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The configuration names a model that is not in the catalogue.
    #[error("no model is called `{name}`, nor is it a folder with a card; there are: {known}")]
    Unknown {
        /// The name as given.
        name: String,
        /// The names there are, comma-separated.
        known: String,
    },
    /// The stream does not have what the model needs.
    #[error("model `{model}` cannot be used like this: {why}")]
    Unfit {
        /// The model.
        model: String,
        /// What is missing and what to do.
        why: String,
    },
    /// The model's files are damaged or of another version.
    #[error("model `{model}` cannot be loaded: {why}")]
    Damaged {
        /// The model.
        model: String,
        /// What is wrong with the files.
        why: String,
    },
    /// The model may be whole, but it is not one that this site takes.
    #[error("model `{model}` is refused: {why}")]
    Untrusted {
        /// The model.
        model: String,
        /// Why, and what to do.
        why: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Data for training or evaluation is not what it should be.
    #[error("{path}: {why}")]
    Data {
        /// Which file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is not enough to learn from.
    #[error(
        "too little to learn from: {samples} samples to learn and {held_back} held back to tell when to stop; it takes {least} and one"
    )]
    TooLittle {
        /// Those to learn from.
        samples: usize,
        /// Those held back.
        held_back: usize,
        /// The least to learn from.
        least: usize,
    },
    /// The device that networks are to compute on is not there.
    #[error("networks cannot compute on `{device}`: {why}")]
    Device {
        /// The device as configured.
        device: String,
        /// Why, and what to do.
        why: String,
    },
    /// The tensor library failed: out of memory, or a device that went away.
    #[error("inference failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl ModelError {
    /// Whether the same call may succeed later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Tensor(_))
    }
}
