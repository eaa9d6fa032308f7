//! A sentence encoder: BERT (Devlin et al., *BERT: Pre-training of Deep Bidirectional Transformers*, NAACL 2019) with mean pooling
//! (Reimers & Gurevych, *Sentence-BERT*, EMNLP 2019), through candle-transformers, from a folder in the Hugging Face layout.
//!
//! ```text
//! ids [n]          word pieces of one text, [CLS] first and [SEP] last, at most 256
//! h   [n, hidden]  the last layer
//! e   [hidden]     mean of h over the pieces, of length 1
//! ```
//! Promises: one pass is one text at its own length, so nothing is padded and an embedding is bit-identical in whatever batch it
//! travelled (I5); of a text at most 4,096 characters and 256 pieces are looked at, and whoever asks is told that there were more (I4);
//! a folder that is not what it should be is an error that says what to do, never a panic, and never more memory than its files are large.
//! Never: anything is fetched from a network; the folder is written to.

mod folder;

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use tokenizers::{Tokenizer, TruncationParams};

use self::folder::{Files, Stamp};
use crate::ModelError;

/// Most word pieces of a text that are looked at, those that mark its ends among them.
pub const MOST_PIECES: usize = 256;
/// Most characters of a text that are shown to the tokenizer.
const MOST_CHARACTERS: usize = 4_096;

/// A text as word pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Their numbers in the vocabulary.
    pub ids: Vec<u32>,
    /// The text's words, lower case, each with the pieces it is made of.
    pub words: Vec<(String, Range<usize>)>,
    /// Whether the text went on beyond what is looked at.
    pub is_truncated: bool,
}

/// The encoder: weights and tokenizer, shared by all that use it.
pub struct Encoder {
    digest: String,
    tokenizer: Tokenizer,
    model: BertModel,
    hidden: usize,
    vocabulary: u32,
    most_pieces: usize,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encoder({})", self.digest)
    }
}

impl Encoder {
    /// Loads a folder with `config.json`, `tokenizer.json` and `model.safetensors`. One that is in use and has not changed is shared.
    pub fn load(folder: &Path) -> Result<Arc<Self>, ModelError> {
        type Known = HashMap<PathBuf, (Stamp, Weak<Encoder>)>;
        static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
        let stamp = folder::stamp(folder)?;
        // Held while it loads: two that ask at once would hold the weights twice.
        let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, encoder)) = known.get(folder)
            && *before == stamp
            && let Some(encoder) = encoder.upgrade()
        {
            return Ok(encoder);
        }
        known.retain(|_, (_, encoder)| encoder.strong_count() > 0);
        let encoder = Arc::new(Self::read(folder)?);
        known.insert(folder.to_owned(), (stamp, Arc::downgrade(&encoder)));
        Ok(encoder)
    }

    fn read(folder: &Path) -> Result<Self, ModelError> {
        let files = folder::read(folder)?;
        // The libraries below read bytes from outside; what they panic on is a damaged folder, not the end of the gateway.
        match catch_unwind(AssertUnwindSafe(|| Self::build(folder, files))) {
            Ok(built) => built,
            Err(_) => Err(folder::damaged(folder, "its files make the library panic; fetch the folder again")),
        }
    }

    fn build(folder: &Path, files: Files) -> Result<Self, ModelError> {
        let damaged = |why: String| folder::damaged(folder, &why);
        let Files { config, tokenizer, weights, digest } = files;
        let mut tokenizer = Tokenizer::from_bytes(&tokenizer)
            .map_err(|error| damaged(format!("{}: {error}; fetch the file again", folder::TOKENIZER)))?;
        if tokenizer.get_vocab_size(true) > config.vocab_size {
            return Err(damaged(format!(
                "{} has {} pieces and {} states {}; they are not of the same model",
                folder::TOKENIZER,
                tokenizer.get_vocab_size(true),
                folder::CONFIG,
                config.vocab_size
            )));
        }
        let most_pieces = MOST_PIECES.min(config.max_position_embeddings);
        let truncation = TruncationParams { max_length: most_pieces, ..TruncationParams::default() };
        tokenizer
            .with_padding(None)
            .with_truncation(Some(truncation))
            .map_err(|error| damaged(format!("{}: {error}", folder::TOKENIZER)))?;
        let model = bert(&config, weights).map_err(|error| {
            damaged(format!("{} does not hold what {} states: {error}", folder::WEIGHTS, folder::CONFIG))
        })?;
        let vocabulary = u32::try_from(config.vocab_size).unwrap_or(u32::MAX);
        let encoder = Self { digest, tokenizer, model, hidden: config.hidden_size, vocabulary, most_pieces };
        // A pass now: what cannot judge must not wait for the first text to say so.
        let tried = encoder.pieces("a text, ein Text, 一些字").and_then(|pieces| encoder.layer(&pieces.ids));
        match tried {
            Ok(layer) if !layer.is_empty() && layer.iter().all(|value| value.is_finite()) => Ok(encoder),
            Ok(_) => Err(damaged(String::from("it gave numbers that are not finite, or none, when it was tried"))),
            Err(error) => Err(damaged(format!("{error}, when it was tried"))),
        }
    }

    /// SHA-256 over the three files; a model that was trained on this encoder names it.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Width of an embedding.
    pub const fn hidden(&self) -> usize {
        self.hidden
    }

    /// Most pieces of a text that are looked at.
    pub const fn most_pieces(&self) -> usize {
        self.most_pieces
    }

    /// A text as pieces.
    ///
    /// # Errors
    /// Where the tokenizer gives none, or numbers that the weights do not have.
    pub fn pieces(&self, text: &str) -> Result<Pieces, ModelError> {
        let end = text.char_indices().nth(MOST_CHARACTERS).map_or(text.len(), |(at, _)| at);
        let seen = &text[..end];
        // What the library says of a text may hold pieces of it: it is not passed on (promise I2).
        let encoding = self.tokenizer.encode(seen, true).map_err(|_| self.unfit("its tokenizer refuses the text"))?;
        let ids = encoding.get_ids().to_vec();
        if ids.is_empty() || ids.len() > self.most_pieces || ids.iter().any(|id| *id >= self.vocabulary) {
            return Err(self.unfit("its tokenizer gives pieces that its weights do not have"));
        }
        let mut words: Vec<(String, Range<usize>)> = Vec::new();
        let mut last = None;
        for (at, (word, (from, to))) in encoding.get_word_ids().iter().zip(encoding.get_offsets()).enumerate() {
            if let (Some(_), Some(piece)) = (word, seen.get(*from..*to)) {
                match words.last_mut().filter(|_| *word == last) {
                    Some((text, pieces)) => {
                        text.push_str(&piece.to_lowercase());
                        pieces.end = at + 1;
                    }
                    None => words.push((piece.to_lowercase(), at..at + 1)),
                }
            }
            last = *word;
        }
        let is_truncated = end < text.len() || !encoding.get_overflowing().is_empty();
        Ok(Pieces { ids, words, is_truncated })
    }

    /// The last layer for pieces: `[n, hidden]`, row-major.
    pub fn layer(&self, ids: &[u32]) -> Result<Vec<f32>, ModelError> {
        if ids.is_empty() || ids.len() > self.most_pieces || ids.iter().any(|id| *id >= self.vocabulary) {
            return Err(self.unfit("it is asked about pieces that it does not have"));
        }
        let ids = Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu)?;
        let types = ids.zeros_like()?;
        Ok(self.model.forward(&ids, &types, None)?.flatten_all()?.to_vec1::<f32>()?)
    }

    /// The embedding of a last layer, and what each piece's row is divided by to sum to it.
    pub fn pooled(&self, layer: &[f32]) -> (Vec<f32>, f32) {
        let mut sum = vec![0.0_f32; self.hidden];
        for row in layer.chunks_exact(self.hidden) {
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        // The mean's direction is the sum's.
        let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        sum.iter_mut().for_each(|value| *value /= length);
        (sum, length)
    }

    /// The embedding of a text, of length 1, and whether the text was cut.
    pub fn embed(&self, text: &str) -> Result<(Vec<f32>, bool), ModelError> {
        let pieces = self.pieces(text)?;
        Ok((self.pooled(&self.layer(&pieces.ids)?).0, pieces.is_truncated))
    }

    fn unfit(&self, why: &str) -> ModelError {
        ModelError::Unfit { model: format!("encoder {}", &self.digest[..8]), why: why.to_owned() }
    }
}

fn bert(config: &Config, weights: Vec<u8>) -> candle_core::Result<BertModel> {
    let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
    BertModel::load(weights, config)
}

/// The folders of encoders that a site names; a model finds its own by digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoders(Vec<PathBuf>);

impl Encoders {
    /// These folders.
    pub const fn new(folders: Vec<PathBuf>) -> Self {
        Self(folders)
    }

    /// The encoder with this digest, for `model`.
    pub fn find(&self, model: &str, digest: &str) -> Result<Arc<Encoder>, ModelError> {
        let mut seen = Vec::new();
        let mut failed = None;
        for folder in &self.0 {
            match Encoder::load(folder) {
                Ok(encoder) if encoder.digest() == digest => return Ok(encoder),
                Ok(encoder) => seen.push(format!("{} has {}", folder.display(), &encoder.digest()[..8])),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let seen = if seen.is_empty() { String::from("none is named") } else { seen.join(", ") };
        let why = format!(
            "it was trained on the encoder {} and {seen}; name that encoder's folder in [models] encoders (or with --encoder)",
            digest.get(..8).unwrap_or(digest)
        );
        Err(ModelError::Unfit { model: model.to_owned(), why })
    }
}

#[cfg(test)]
pub(crate) mod tests;
