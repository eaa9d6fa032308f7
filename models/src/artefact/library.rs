//! The models that a site may use: those of its folder before those that ship.
//!
//! Promises: a model is handed out only after a forward pass that gave finite numbers of the right shape; a version that was in
//! force stays at hand, so a folder that is damaged later does not keep the gateway from starting; a copy is replaced so that being cut
//! off at any moment leaves the old one or the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use candle_core::Device;

use super::learnt::{Found, Learnt, clear, sync};
use super::{Artefact, MAX_CARD, ModelsConfig, SALT, SIGNATURE_FILE, Signer, Trust, file, place, read, read_bounded};
use crate::ModelError;
use crate::card::{CARD_FILE, Card};
use crate::catalog;
use crate::compress;
use crate::device::DeviceChoice;
use crate::row_model::RowModel;
use crate::text::Encoders;
use crate::train::online::Version;

/// Rows of the pass that a model is tried with.
const WARM_UP_ROWS: usize = 64;

/// The file of digests of models that failed, beside the copies that are kept.
const FAILED: &str = "failed";

/// The file of names and digests of the models in force, beside the copies that are kept.
const IN_FORCE: &str = "in_force";

/// The folder of what was learnt online, beside the copies that are kept.
const LEARNT: &str = ".online";

/// Where a model came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The program.
    Shipped,
    /// The site's folder.
    Folder,
    /// The copy of what was in force before.
    Kept,
    /// What this site has learnt online.
    Learnt,
}

impl Origin {
    /// A word for people and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shipped => "shipped",
            Self::Folder => "folder",
            Self::Kept => "kept copy",
            Self::Learnt => "learnt online",
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
    /// Versions that were learnt online.
    learnt: Option<Learnt>,
    trust: Trust,
    device: DeviceChoice,
    /// The device, once a model needed it: all share it.
    opened: Arc<OnceLock<Device>>,
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
        let learns = !config.online.models.is_empty();
        Self {
            folder: config.folder.as_ref().map(|folder| base.join(folder)),
            learnt: learns.then(|| Learnt::new(kept.join(LEARNT), site.clone())),
            kept: (learns || config.folder.is_some()).then_some(kept),
            trust: Trust { keys: config.trusted_keys.clone(), is_required: config.require_signature, site },
            device: config.device,
            opened: Arc::default(),
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

    /// The model as it is now: what was learnt online last from the one of the folder or that ships and did not fail, else that one.
    pub fn load(&self, name: &str) -> Result<Loaded, ModelError> {
        let base = self.base(name)?;
        let learnt = self.not_failed(name).into_iter().rev().take_while(|digest| *digest != base.digest);
        let mut usable = learnt.filter_map(|digest| self.load_learnt(name, &digest).ok());
        Ok(usable.find(|(of, _)| *of == base.digest).map_or(base, |(_, loaded)| loaded))
    }

    /// Why what was learnt online last from the model as it is now cannot be used, where it cannot.
    pub fn fault_of_learnt(&self, name: &str) -> Option<ModelError> {
        let Some(last) = self.not_failed(name).pop() else { return self.learnt.as_ref()?.unnumbered(name) };
        let base = self.base(name).ok()?;
        if last == base.digest {
            return None;
        }
        self.load_learnt(name, &last).err()
    }

    /// The digests of the order in which something was learnt, without those that failed.
    fn not_failed(&self, name: &str) -> Vec<String> {
        let mut order = self.learnt.as_ref().map(|learnt| learnt.order(name)).unwrap_or_default();
        if !order.is_empty() {
            let failed = self.failed();
            order.retain(|digest| !failed.contains(digest));
        }
        order
    }

    /// A version that was learnt online, and the digest of the model that it was learnt from.
    fn load_learnt(&self, name: &str, digest: &str) -> Result<(String, Loaded), ModelError> {
        let Some(learnt) = &self.learnt else { return Err(catalog::unknown(name)) };
        let Found { of, artefact } = learnt.find(name, digest)?;
        Ok((of, Loaded { origin: Origin::Learnt, ..try_artefact(&artefact, &self.encoders, self.device()?)? }))
    }

    /// Puts a version that was learnt online in the place of the one that it was learnt from, which stays at hand; `salt` must be fresh.
    /// It is encrypted.
    pub fn put_learnt(&self, name: &str, version: &Version, salt: [u8; SALT]) -> Result<(), ModelError> {
        let of = self.base(name)?.digest;
        self.learnt.as_ref().map_or(Ok(()), |learnt| learnt.put(name, version, &of, salt))
    }

    /// Goes back to the version with this digest, of those that were learnt online or the one that they were learnt from; from any other
    /// digest on nothing learnt counts.
    pub fn go_back_to(&self, name: &str, digest: &str) -> Result<(), ModelError> {
        self.learnt.as_ref().map_or(Ok(()), |learnt| learnt.go_back_to(name, digest).map(drop))
    }

    /// Goes back to a version that was learnt online and is still at hand. Gives back whether there was such a one.
    pub fn go_back_to_version(&self, name: &str, version: &str) -> Result<bool, ModelError> {
        let Some(learnt) = &self.learnt else { return Ok(false) };
        let has = |digest: &String| learnt.find(name, digest).is_ok_and(|found| found.artefact.card.version == version);
        learnt.order(name).into_iter().rev().find(has).map_or(Ok(false), |digest| learnt.go_back_to(name, &digest))
    }

    /// What was in force before a version that was learnt online and has not proved itself yet.
    pub fn before_learnt(&self, loaded: &Loaded) -> Option<Loaded> {
        let name = loaded.model.reference().name.as_str();
        let order = self.learnt.as_ref()?.order(name);
        let before = &order[order.iter().position(|digest| *digest == loaded.digest)?.checked_sub(1)?];
        let base = || self.base(name).ok().filter(|base| base.digest == *before);
        self.load_learnt(name, before).ok().map(|(_, loaded)| loaded).or_else(base)
    }

    /// Card and weights (32-bit floats) of the model with this digest, wherever it is.
    pub fn version(&self, name: &str, digest: &str) -> Option<Version> {
        let trust = Trust { site: self.trust.site.clone(), ..Trust::default() };
        let folders = [&self.folder, &self.kept].into_iter().flatten().map(|root| root.join(name));
        let found = folders.filter_map(|folder| read(&folder, &trust).ok()).find(|found| found.digest == digest);
        let learnt = || Some(self.learnt.as_ref()?.find(name, digest).ok()?.artefact);
        let found = found.or_else(learnt);
        if let Some(Artefact { card, weights, .. }) = found {
            let weights = compress::decode(name, &weights).ok()?.into_owned();
            return Some(Version { card: Card { weights: None, ..card }, weights });
        }
        let ships = catalog::digest(name).is_ok_and(|shipped| shipped == digest);
        let (card, weights) = ships.then(|| catalog::parts(name, None).ok()).flatten()?;
        Some(Version { card, weights: weights.into_owned() })
    }

    /// The model without what was learnt: of the folder where it holds one of that name, else the one that ships.
    pub fn base(&self, name: &str) -> Result<Loaded, ModelError> {
        let Some(root) = &self.folder else { return self.shipped(name) };
        // A folder that went away, such as a disk that is not mounted, says nothing of the models in it.
        std::fs::metadata(root).map_err(file(root))?;
        let folder = root.join(name);
        if folder.join(CARD_FILE).exists() { self.load_from(name, &folder, Origin::Folder) } else { self.shipped(name) }
    }

    /// The copy of what was in force under that name. Where a copy was being replaced when the gateway was cut off, the one before.
    pub fn load_kept(&self, name: &str) -> Option<Result<Loaded, ModelError>> {
        let kept = self.kept.as_ref()?;
        let copies = [kept.join(name), replaced(kept, name)].into_iter().filter(|copy| copy.join(CARD_FILE).exists());
        copies
            .map(|copy| self.load_from(name, &copy, Origin::Kept))
            .reduce(|one, other| if one.is_ok() { one } else { other })
    }

    /// The model with this digest under that name: the copy that is kept, one that was learnt online, or the one that ships.
    pub fn load_again(&self, name: &str, digest: &str) -> Option<Loaded> {
        let kept = self.load_kept(name).and_then(Result::ok).filter(|kept| kept.digest == digest);
        let learnt = || self.load_learnt(name, digest).ok().map(|(_, loaded)| loaded);
        let ships = || catalog::digest(name).is_ok_and(|shipped| shipped == digest);
        kept.or_else(learnt).or_else(|| ships().then(|| self.shipped(name).ok()).flatten())
    }

    /// The model that ships under that name, where the folder cannot be looked into: nobody knows of another.
    pub fn load_shipped(&self, name: &str) -> Option<Result<Loaded, ModelError>> {
        let is_gone = self.folder.as_ref().is_some_and(|root| std::fs::metadata(root).is_err());
        (is_gone && catalog::names().any(|known| known == name)).then(|| self.shipped(name))
    }

    /// Keeps a copy of a model of the folder that has come in force, files as they are; forgets it where the shipped one has.
    pub fn keep(&self, name: &str, loaded: &Loaded) -> Result<(), ModelError> {
        if let (Origin::Learnt, Some(learnt)) = (loaded.origin, &self.learnt) {
            return learnt.settle_on(name, &loaded.digest);
        }
        let (Some(root), Some(kept)) = (&self.folder, &self.kept) else { return Ok(()) };
        let target = kept.join(name);
        match loaded.origin {
            // What was learnt stays where it is, beside the copy of what it was learnt from.
            Origin::Kept | Origin::Learnt => Ok(()),
            Origin::Shipped => clear(&target).and_then(|()| clear(&replaced(kept, name))),
            Origin::Folder => {
                let draft = kept.join(format!(".{name}.new"));
                clear(&draft)?;
                copy(&root.join(name), &draft)?;
                // What was copied must be what was loaded: the folder may have changed since.
                if self.load_from(name, &draft, Origin::Kept)?.digest != loaded.digest {
                    return clear(&draft);
                }
                swap(&draft, &target, &replaced(kept, name))
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

    /// Names and digests of the models that were in force when it was last noted.
    pub fn in_force(&self) -> BTreeMap<String, String> {
        let text = self.kept.as_ref().and_then(|kept| std::fs::read_to_string(kept.join(IN_FORCE)).ok());
        let pair = |line: &str| line.split_once(' ').map(|(name, digest)| (name.to_owned(), digest.to_owned()));
        text.unwrap_or_default().lines().filter_map(pair).collect()
    }

    /// Remembers which models are in force, for the next start: it takes the journal in again with those that judged it.
    pub fn note_in_force<'a>(&self, models: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), ModelError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let models: Vec<(&str, &str)> = models.collect();
        let lines: String = models.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect();
        std::fs::create_dir_all(kept).map_err(file(kept))?;
        place(&kept.join(IN_FORCE), lines.as_bytes())?;
        self.learnt.iter().for_each(|learnt| learnt.delete_all_but(models.iter().copied()));
        Ok(())
    }

    fn load_from(&self, name: &str, folder: &Path, origin: Origin) -> Result<Loaded, ModelError> {
        let artefact = read(folder, &self.trust)?;
        let card = &artefact.card;
        if card.name.as_str() != name {
            let why = format!("{CARD_FILE} is the card of `{}`; name the folder so, or the card `{name}`", card.name);
            return Err(ModelError::Damaged { model: name.to_owned(), why });
        }
        Ok(Loaded { origin, ..try_artefact(&artefact, &self.encoders, self.device()?)? })
    }

    fn shipped(&self, name: &str) -> Result<Loaded, ModelError> {
        let model = warm(placed(catalog::load(name, None)?, self.device()?)?)?;
        let digest = catalog::digest(name)?;
        Ok(Loaded { model, digest, origin: Origin::Shipped, signer: Signer::Nobody })
    }

    fn device(&self) -> Result<&Device, ModelError> {
        if let Some(device) = self.opened.get() {
            return Ok(device);
        }
        let device = self.device.open()?;
        Ok(self.opened.get_or_init(|| device))
    }
}

/// A model with its network on a device.
fn placed(model: Arc<dyn RowModel>, device: &Device) -> Result<Arc<dyn RowModel>, ModelError> {
    if device.is_cpu() { Ok(model) } else { Ok(model.on_device(device)?.unwrap_or(model)) }
}

/// Reads a model's folder, checks it and tries the model; `encoders` are those that it may refer to.
pub fn try_folder(folder: &Path, trust: &Trust, encoders: &Encoders) -> Result<(Loaded, Card), ModelError> {
    let artefact = read(folder, trust)?;
    Ok((try_artefact(&artefact, encoders, &Device::Cpu)?, artefact.card))
}

fn try_artefact(artefact: &Artefact, encoders: &Encoders, device: &Device) -> Result<Loaded, ModelError> {
    let Artefact { card, weights, digest, signer, .. } = artefact;
    let model = warm(placed(catalog::build_on(card.clone(), weights, encoders)?, device)?)?;
    Ok(Loaded { model, digest: digest.clone(), origin: Origin::Folder, signer: *signer })
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

/// The card of a model of the site's own, from the first of `folders` that holds one of that name that can be read; also of one that takes
/// the place of a model that ships. Of the folder only the card is read.
pub fn own_card(name: &str, folders: &[PathBuf]) -> Option<Card> {
    if Path::new(name).components().count() != 1 || name.starts_with('.') {
        return None;
    }
    let read = |path: PathBuf| {
        let bytes = read_bounded(name, &path, MAX_CARD).ok()?;
        Card::parse(name, &String::from_utf8_lossy(&bytes)).ok()
    };
    folders.iter().find_map(|folder| read(folder.join(name).join(CARD_FILE)))
}

/// Where the copy that is being replaced stands until the new one is in its place.
fn replaced(kept: &Path, name: &str) -> PathBuf {
    kept.join(format!(".{name}.old"))
}

/// Puts a draft that is on disk in its place. Whenever this is cut off, a whole copy stands in the place or at `old`.
fn swap(draft: &Path, target: &Path, old: &Path) -> Result<(), ModelError> {
    if target.join(CARD_FILE).exists() {
        clear(old)?;
        std::fs::rename(target, old).map_err(file(target))?;
    } else {
        clear(target)?;
    }
    std::fs::rename(draft, target).map_err(file(target))?;
    if let Some(parent) = target.parent() {
        sync(parent)?;
    }
    clear(old)
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
            let copied = to.join(entry.file_name());
            std::fs::copy(&path, &copied).map_err(file(&path))?;
            sync(&copied)?;
        }
    }
    sync(to)
}
