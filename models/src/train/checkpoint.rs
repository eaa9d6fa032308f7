//! A training that goes on where it was stopped: weights, the optimiser's moments, the best weights so far, the passes and the
//! random generator after each pass, in one safetensors file. What comes out is what would have come out in one go, bit for bit.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::adamw::AdamW;
use super::fit::Epoch;
use crate::ModelError;

/// The file's name in the folder that a training writes to.
const FILE: &str = "training.safetensors";
const STATE: &str = "state";
/// The groups of tensors: weights, moments, best weights.
const GROUPS: [&str; 4] = ["now", "first", "second", "best"];

/// Where a training keeps its state, and whether it goes on from there.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    resume: bool,
}

/// A training between two passes.
pub(super) struct Between {
    pub(super) best: Option<(f32, usize, Vec<Tensor>)>,
    pub(super) passes: Vec<Epoch>,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// What the training is of: settings and samples.
    task: String,
    passes: Vec<Epoch>,
    best: Option<(f32, usize)>,
    steps: usize,
    seed: [u8; 32],
    stream: u64,
    word: String,
}

impl Checkpoint {
    /// In a training's folder. With `resume` it goes on from what is there, if anything is; else that is written over.
    pub fn new(out: &Path, resume: bool) -> Self {
        Self { path: out.join(FILE), resume }
    }

    /// The training is over.
    pub fn remove(&self) -> Result<(), ModelError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.file(error)),
            _ => Ok(()),
        }
    }

    /// Puts optimiser and generator where they were; `None` where nothing is kept.
    pub(super) fn load(
        &self,
        task: &str,
        optimizer: &mut AdamW,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Between>, ModelError> {
        if !self.resume || !self.path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&self.path).map_err(|error| self.file(error))?;
        let damaged = || self.wrong("it is damaged; remove it to begin anew");
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|_| damaged())?;
        let state = metadata.metadata().as_ref().and_then(|metadata| metadata.get(STATE));
        let state: State = state.and_then(|state| serde_json::from_str(state).ok()).ok_or_else(damaged)?;
        if state.task != task {
            let why = "it is of a training with other data or settings; give the same, or leave --resume out";
            return Err(self.wrong(why));
        }
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|_| damaged())?;
        let group = |group: &str| -> Result<Vec<Tensor>, ModelError> {
            let name = |index: usize| format!("{group}.{index}");
            (0..optimizer.len()).map(|index| tensors.get(&name(index)).cloned().ok_or_else(damaged)).collect()
        };
        let [now, first, second, best] = GROUPS.map(group);
        optimizer.restore(state.steps, &now?, &first?, &second?).map_err(|_| damaged())?;
        *rng = ChaCha8Rng::from_seed(state.seed);
        rng.set_stream(state.stream);
        rng.set_word_pos(state.word.parse().map_err(|_| damaged())?);
        let best = match state.best {
            Some((loss, epoch)) => Some((loss, epoch, best?)),
            None => None,
        };
        Ok(Some(Between { best, passes: state.passes }))
    }

    /// Keeps the state after a pass, whole or not at all.
    pub(super) fn save(
        &self,
        task: &str,
        optimizer: &AdamW,
        rng: &ChaCha8Rng,
        between: &Between,
    ) -> Result<(), ModelError> {
        let (now, first, second) = optimizer.parts();
        let best = between.best.as_ref().map(|(.., best)| best.clone()).unwrap_or_default();
        let mut tensors = BTreeMap::new();
        for (group, members) in GROUPS.iter().zip([now, first, second, best]) {
            tensors.extend(members.into_iter().enumerate().map(|(index, tensor)| (format!("{group}.{index}"), tensor)));
        }
        let state = State {
            task: task.to_owned(),
            passes: between.passes.clone(),
            best: between.best.as_ref().map(|(loss, epoch, _)| (*loss, *epoch)),
            steps: optimizer.steps(),
            seed: rng.get_seed(),
            stream: rng.get_stream(),
            word: rng.get_word_pos().to_string(),
        };
        let state = serde_json::to_string(&state).map_err(|error| self.wrong(&error.to_string()))?;
        let metadata = HashMap::from([(STATE.to_owned(), state)]);
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| self.wrong(&error.to_string()))?;
        let draft = self.path.with_extension("new");
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&draft, bytes));
        written.and_then(|()| std::fs::rename(&draft, &self.path)).map_err(|error| self.file(error))
    }

    fn file(&self, source: std::io::Error) -> ModelError {
        ModelError::File { path: self.path.clone(), source }
    }

    fn wrong(&self, why: &str) -> ModelError {
        ModelError::Data { path: self.path.clone(), why: why.to_owned() }
    }
}
