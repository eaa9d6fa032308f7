//! An encoder's folder in the Hugging Face layout: what is read, how much of it, and what must be true of it before anything is built.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use candle_transformers::models::bert::Config;
use sha2::{Digest, Sha256};

use crate::ModelError;
use crate::artefact::read_bounded;

/// The files.
pub(super) const CONFIG: &str = "config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
/// Each with the most bytes of it that are read: BERT large has 1.3 GB, which is not for the edge; BERT base has 440 MB.
const FILES: [(&str, u64); 3] = [(CONFIG, 64 << 10), (TOKENIZER, 32 << 20), (WEIGHTS, 512 << 20)];

/// A folder's files, read.
pub(super) struct Files {
    pub(super) config: Config,
    pub(super) tokenizer: Vec<u8>,
    pub(super) weights: Vec<u8>,
    /// SHA-256 over the files' SHA-256.
    pub(super) digest: String,
}

/// What tells files that were changed from those that were read: lengths and times of change.
pub(super) type Stamp = Vec<(u64, Option<SystemTime>)>;

pub(super) fn damaged(folder: &Path, why: &str) -> ModelError {
    ModelError::Damaged { model: format!("encoder {}", folder.display()), why: why.to_owned() }
}

/// The stamp of a folder; fails where a file is missing.
pub(super) fn stamp(folder: &Path) -> Result<Stamp, ModelError> {
    let of = |(name, _): &(&str, u64)| {
        let path: PathBuf = folder.join(name);
        let metadata = std::fs::metadata(&path).map_err(|error| {
            let layout = "the Hugging Face layout is config.json, tokenizer.json and model.safetensors in one folder";
            damaged(folder, &format!("{name}: {error}; {layout}"))
        })?;
        Ok((metadata.len(), metadata.modified().ok()))
    };
    FILES.iter().map(of).collect()
}

/// Reads a folder and checks its configuration.
pub(super) fn read(folder: &Path) -> Result<Files, ModelError> {
    let label = format!("encoder {}", folder.display());
    let mut digest = Sha256::new();
    let mut read = |(name, most): (&str, u64)| -> Result<Vec<u8>, ModelError> {
        let bytes = read_bounded(&label, &folder.join(name), most)?;
        digest.update(Sha256::digest(&bytes));
        Ok(bytes)
    };
    let [config, tokenizer, weights] = [read(FILES[0])?, read(FILES[1])?, read(FILES[2])?];
    let digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let config: Config = serde_json::from_slice(&config).map_err(|error| {
        damaged(folder, &format!("{CONFIG}: {error}; a BERT encoder with absolute positions is needed"))
    })?;
    check(&config).map_err(|why| damaged(folder, &format!("{CONFIG}: {why}")))?;
    Ok(Files { config, tokenizer, weights, digest })
}

/// Whether the network is one that an edge gateway can hold, and one that the code below can build without dividing by zero.
fn check(config: &Config) -> Result<(), String> {
    if let Some(other) = config.model_type.as_deref().filter(|kind| *kind != "bert") {
        let kind: String = other.chars().take(40).collect();
        return Err(format!("its model_type is {kind:?}; only \"bert\" can be loaded"));
    }
    for (name, value, from, to) in [
        ("vocab_size", config.vocab_size, 8, 1 << 20),
        ("hidden_size", config.hidden_size, 1, 2_048),
        ("num_hidden_layers", config.num_hidden_layers, 1, 48),
        ("num_attention_heads", config.num_attention_heads, 1, 64),
        ("intermediate_size", config.intermediate_size, 1, 8_192),
        ("max_position_embeddings", config.max_position_embeddings, 8, 8_192),
        ("type_vocab_size", config.type_vocab_size, 1, 16),
    ] {
        if !(from..=to).contains(&value) {
            return Err(format!("{name} is {value}; {from} to {to} can be loaded"));
        }
    }
    if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
        return Err(format!(
            "hidden_size {} is no multiple of num_attention_heads {}",
            config.hidden_size, config.num_attention_heads
        ));
    }
    if !(config.layer_norm_eps > 0.0 && config.layer_norm_eps < 1.0) {
        return Err(format!("layer_norm_eps is {}; it is above 0 and below 1", config.layer_norm_eps));
    }
    Ok(())
}
