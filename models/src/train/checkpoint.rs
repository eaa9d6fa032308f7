//! A training that goes on where it was stopped: weights, the optimiser's sums, the best weights so far, the passes and the
//! random generator after each pass, in one safetensors file. What comes out is what would have come out in one go, bit for bit.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::de::DeserializeOwned;
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
    passes: Vec<Epoch>,
    best: Option<(f32, usize)>,
    steps: usize,
    #[serde(flatten)]
    generator: Generator,
}

/// What the file's header says.
#[derive(Serialize, Deserialize)]
struct Header<S> {
    /// What the training is of: settings and samples.
    task: String,
    #[serde(flatten)]
    state: S,
}

/// Where a random generator stands.
#[derive(Serialize, Deserialize)]
pub(super) struct Generator {
    seed: [u8; 32],
    stream: u64,
    /// Wider than the numbers of JSON.
    word: String,
}

impl Generator {
    pub(super) fn of(rng: &ChaCha8Rng) -> Self {
        Self { seed: rng.get_seed(), stream: rng.get_stream(), word: rng.get_word_pos().to_string() }
    }

    /// The generator as it was; `None` where that is no place of one.
    pub(super) fn restored(&self) -> Option<ChaCha8Rng> {
        let mut rng = ChaCha8Rng::from_seed(self.seed);
        rng.set_stream(self.stream);
        rng.set_word_pos(self.word.parse().ok()?);
        Some(rng)
    }
}

/// What a training kept, by name.
pub(super) struct Kept(HashMap<String, Tensor>);

impl Kept {
    /// `None` where it is not there.
    pub(super) fn tensor(&self, name: &str) -> Option<Tensor> {
        self.0.get(name).cloned()
    }

    /// What [`numbered`] named.
    pub(super) fn group(&self, group: &str, count: usize) -> Option<Vec<Tensor>> {
        (0..count).map(|index| self.tensor(&format!("{group}.{index}"))).collect()
    }
}

/// Tensors under the name of their group.
pub(super) fn numbered(group: &str, tensors: Vec<Tensor>) -> impl Iterator<Item = (String, Tensor)> {
    tensors.into_iter().enumerate().map(move |(index, tensor)| (format!("{group}.{index}"), tensor))
}

impl Checkpoint {
    /// In a training's folder. With `resume` it goes on from what is there, if anything is; else that is written over.
    pub fn new(out: &Path, resume: bool) -> Self {
        Self { path: out.join(FILE), resume }
    }

    /// That of one part of a training that has several.
    pub(super) fn part(&self, name: &str) -> Self {
        Self { path: self.path.with_file_name(format!("training-{name}.safetensors")), resume: self.resume }
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
        let Some((state, kept)) = self.read::<State>(task)? else { return Ok(None) };
        let group = |group: &str| kept.group(group, optimizer.len()).ok_or_else(|| self.damaged());
        let [now, first, second, best] = GROUPS.map(group);
        optimizer.restore(state.steps, &now?, &first?, &second?).map_err(|_| self.damaged())?;
        *rng = state.generator.restored().ok_or_else(|| self.damaged())?;
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
        let groups = GROUPS.iter().zip([now, first, second, best]);
        let tensors = groups.flat_map(|(group, members)| numbered(group, members)).collect();
        let state = State {
            passes: between.passes.clone(),
            best: between.best.as_ref().map(|(loss, epoch, _)| (*loss, *epoch)),
            steps: optimizer.steps(),
            generator: Generator::of(rng),
        };
        self.write(task, state, tensors)
    }

    /// What is kept of this training; `None` where nothing is, or it does not go on from there.
    pub(super) fn read<S: DeserializeOwned>(&self, task: &str) -> Result<Option<(S, Kept)>, ModelError> {
        if !self.resume || !self.path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&self.path).map_err(|error| self.file(error))?;
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|_| self.damaged())?;
        let header = metadata.metadata().as_ref().and_then(|metadata| metadata.get(STATE));
        let header = header.and_then(|header| serde_json::from_str::<Header<S>>(header).ok());
        let Header { task: kept, state } = header.ok_or_else(|| self.damaged())?;
        if kept != task {
            let why = "it is of a training with other data or settings; give the same, or leave --resume out";
            return Err(self.wrong(why));
        }
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|_| self.damaged())?;
        Ok(Some((state, Kept(tensors))))
    }

    /// Keeps a state and its tensors, whole or not at all.
    pub(super) fn write<S: Serialize>(
        &self,
        task: &str,
        state: S,
        tensors: BTreeMap<String, Tensor>,
    ) -> Result<(), ModelError> {
        let header = Header { task: task.to_owned(), state };
        let header = serde_json::to_string(&header).map_err(|error| self.wrong(&error.to_string()))?;
        let metadata = HashMap::from([(STATE.to_owned(), header)]);
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| self.wrong(&error.to_string()))?;
        let draft = self.path.with_extension("new");
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&draft, bytes));
        written.and_then(|()| std::fs::rename(&draft, &self.path)).map_err(|error| self.file(error))
    }

    fn file(&self, source: std::io::Error) -> ModelError {
        ModelError::File { path: self.path.clone(), source }
    }

    /// What is kept cannot be gone on from.
    pub(super) fn damaged(&self) -> ModelError {
        self.wrong("it is damaged; remove it to begin anew")
    }

    fn wrong(&self, why: &str) -> ModelError {
        ModelError::Data { path: self.path.clone(), why: why.to_owned() }
    }
}
