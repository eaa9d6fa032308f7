//! The models that a site may use: those of its folder before those that ship.
//!
//! Promises: a model is handed out only after a forward pass that gave finite numbers of the right shape; a version that was in
//! force stays at hand, so a folder that is damaged later does not keep the gateway from starting.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Artefact, MAX_CARD, ModelsConfig, SIGNATURE_FILE, Signer, Trust, file, place, read, read_bounded};
use crate::ModelError;
use crate::card::{CARD_FILE, Card};
use crate::catalog;
use crate::row_model::RowModel;
use crate::text::Encoders;

/// Rows of the pass that a model is tried with.
const WARM_UP_ROWS: usize = 64;

/// The file of digests of models that failed, beside the copies that are kept.
const FAILED: &str = "failed";

/// Where a model came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The program.
    Shipped,
    /// The site's folder.
    Folder,
    /// The copy of what was in force before.
    Kept,
}

impl Origin {
    /// A word for people and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shipped => "shipped",
            Self::Folder => "folder",
            Self::Kept => "kept copy",
        }
    }
}

/// A model that was loaded and tried.
#[derive(Clone)]
pub struct Loaded {
    /// The model.
    pub model: Arc<dyn RowModel>,
    /// SHA-256 of its card, which holds that of its weights.
    pub digest: String,
    /// Where it came from.
    pub origin: Origin,
    /// Who signed it.
    pub signer: Signer,
}

/// The models of a site.
#[derive(Clone, Default)]
pub struct Library {
    folder: Option<PathBuf>,
    kept: Option<PathBuf>,
    trust: Trust,
    encoders: Encoders,
}

impl Library {
    /// Of a site whose relative paths begin at `base`; what was in force is kept in `kept`.
    pub fn new(
        config: &ModelsConfig,
        base: &Path,
        kept: PathBuf,
        site: Option<Arc<dyn nearside_schemas::KeySource>>,
    ) -> Self {
        Self {
            folder: config.folder.as_ref().map(|folder| base.join(folder)),
            kept: config.folder.is_some().then_some(kept),
            trust: Trust { keys: config.trusted_keys.clone(), is_required: config.require_signature, site },
            encoders: Encoders::new(config.encoders.iter().map(|folder| base.join(folder)).collect()),
        }
    }

    /// The site's folder.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The names of the folder's models, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = self.folder.iter().flat_map(std::fs::read_dir).flatten().flatten();
        let models = entries.filter(|entry| entry.path().join(CARD_FILE).is_file());
        let mut names: Vec<String> = models.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The model as it is now: of the folder where it holds one of that name, else the one that ships.
    pub fn load(&self, name: &str) -> Result<Loaded, ModelError> {
        let Some(root) = &self.folder else { return shipped(name) };
        // A folder that went away, such as a disk that is not mounted, says nothing of the models in it.
        std::fs::metadata(root).map_err(file(root))?;
        let folder = root.join(name);
        if folder.join(CARD_FILE).exists() { self.load_from(name, &folder, Origin::Folder) } else { shipped(name) }
    }

    /// The copy of what was in force under that name.
    pub fn load_kept(&self, name: &str) -> Option<Result<Loaded, ModelError>> {
        let folder = self.kept.as_ref()?.join(name);
        folder.join(CARD_FILE).exists().then(|| self.load_from(name, &folder, Origin::Kept))
    }

    /// The model that ships under that name, where the folder cannot be looked into: nobody knows of another.
    pub fn load_shipped(&self, name: &str) -> Option<Result<Loaded, ModelError>> {
        let is_gone = self.folder.as_ref().is_some_and(|root| std::fs::metadata(root).is_err());
        (is_gone && catalog::names().any(|known| known == name)).then(|| shipped(name))
    }

    /// Keeps a copy of a model of the folder that has come in force, files as they are; forgets it where the shipped one has.
    pub fn keep(&self, name: &str, loaded: &Loaded) -> Result<(), ModelError> {
        let (Some(root), Some(kept)) = (&self.folder, &self.kept) else { return Ok(()) };
        let target = kept.join(name);
        match loaded.origin {
            Origin::Kept => Ok(()),
            Origin::Shipped => clear(&target),
            Origin::Folder => {
                let draft = kept.join(format!(".{name}.new"));
                clear(&draft)?;
                copy(&root.join(name), &draft)?;
                // What was copied must be what was loaded: the folder may have changed since.
                if self.load_from(name, &draft, Origin::Kept)?.digest != loaded.digest {
                    return clear(&draft);
                }
                clear(&target)?;
                std::fs::rename(&draft, &target).map_err(file(&target))
            }
        }
    }

    /// Digests of models that failed when they were in force.
    pub fn failed(&self) -> BTreeSet<String> {
        let text = self.kept.as_ref().and_then(|kept| std::fs::read_to_string(kept.join(FAILED)).ok());
        text.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Remembers that a model failed, for the next start.
    pub fn note_failure(&self, digest: &str) -> Result<(), ModelError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let mut failed = self.failed();
        failed.insert(digest.to_owned());
        let lines: String = failed.iter().map(|digest| format!("{digest}\n")).collect();
        std::fs::create_dir_all(kept).map_err(file(kept))?;
        place(&kept.join(FAILED), lines.as_bytes())
    }

    fn load_from(&self, name: &str, folder: &Path, origin: Origin) -> Result<Loaded, ModelError> {
        let artefact = read(folder, &self.trust)?;
        let card = &artefact.card;
        if card.name.as_str() != name {
            let why = format!("{CARD_FILE} is the card of `{}`; name the folder so, or the card `{name}`", card.name);
            return Err(ModelError::Damaged { model: name.to_owned(), why });
        }
        Ok(Loaded { origin, ..try_artefact(&artefact, &self.encoders)? })
    }
}

/// Reads a model's folder, checks it and tries the model; `encoders` are those that it may refer to.
pub fn try_folder(folder: &Path, trust: &Trust, encoders: &Encoders) -> Result<(Loaded, Card), ModelError> {
    let artefact = read(folder, trust)?;
    Ok((try_artefact(&artefact, encoders)?, artefact.card))
}

fn try_artefact(artefact: &Artefact, encoders: &Encoders) -> Result<Loaded, ModelError> {
    let Artefact { card, weights, digest, signer, .. } = artefact;
    let model = warm(catalog::build_on(card.clone(), weights, encoders)?)?;
    Ok(Loaded { model, digest: digest.clone(), origin: Origin::Folder, signer: *signer })
}

fn shipped(name: &str) -> Result<Loaded, ModelError> {
    let model = warm(catalog::load(name, None)?)?;
    let digest = catalog::digest(name)?;
    Ok(Loaded { model, digest, origin: Origin::Shipped, signer: Signer::Nobody })
}

/// Tries a model with one forward pass: a panic, an error, another shape or a number that is not finite refuses it.
fn warm(model: Arc<dyn RowModel>) -> Result<Arc<dyn RowModel>, ModelError> {
    let (from, to) = (model.input_width(), model.output_width());
    let inputs: Vec<f32> =
        (0..WARM_UP_ROWS * from).map(|index| if index < from { 0.0 } else { (index as f32 * 0.37).sin() }).collect();
    let mut outputs = Vec::new();
    let passed = catch_unwind(AssertUnwindSafe(|| model.forward(&inputs, WARM_UP_ROWS, &mut outputs)));
    let wrong = |why: &str| ModelError::Damaged {
        model: model.reference().to_string(),
        why: format!("{why} when it was tried; train it again, or use another version"),
    };
    match passed {
        Err(_) => Err(wrong("it panicked")),
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) if outputs.len() != WARM_UP_ROWS * to => Err(wrong("it gave outputs of another shape")),
        Ok(Ok(())) if outputs.iter().any(|output| !output.is_finite()) => {
            Err(wrong("it gave numbers that are not finite"))
        }
        Ok(Ok(())) => Ok(model),
    }
}

/// The model that ships whose weights a model of that name has: itself where it ships, else what the card in one of `folders` says.
/// Of the card's folder only the card is read.
pub fn method_of(name: &str, folders: &[PathBuf]) -> Result<&'static str, ModelError> {
    if let Some(shipped) = catalog::names().find(|known| *known == name) {
        return Ok(shipped);
    }
    let unknown = || catalog::unknown(name);
    // A name is one folder, never a path out of it.
    if Path::new(name).components().count() != 1 || name.starts_with('.') {
        return Err(unknown());
    }
    let method = |path: &PathBuf| {
        let card = Card::parse(name, &String::from_utf8_lossy(&read_bounded(name, path, MAX_CARD)?))?;
        catalog::names().find(|known| *known == card.method()).ok_or_else(|| catalog::unknown(card.method()))
    };
    let cards = folders.iter().map(|folder| folder.join(name).join(CARD_FILE)).filter(|path| path.exists());
    // A card that cannot be read gives way to the copy of what was in force.
    let mut found: Vec<_> = cards.map(|path| method(&path)).collect();
    match found.iter().position(Result::is_ok) {
        Some(good) => found.swap_remove(good),
        None => found.into_iter().next().unwrap_or_else(|| Err(unknown())),
    }
}

fn clear(folder: &Path) -> Result<(), ModelError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file(folder)(error)),
        _ => Ok(()),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), ModelError> {
    std::fs::create_dir_all(to).map_err(file(to))?;
    for entry in std::fs::read_dir(from).map_err(file(from))?.flatten() {
        let path = entry.path();
        // What a model is made of and nothing that lies beside it.
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_part = [CARD_FILE, SIGNATURE_FILE].contains(&name.as_ref()) || name.starts_with("model.");
        if is_part && path.is_file() {
            std::fs::copy(&path, to.join(entry.file_name())).map_err(file(&path))?;
        }
    }
    Ok(())
}
