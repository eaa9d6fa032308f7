//! A model as a folder: `card.toml`, the weights (`model.safetensors`, or `model.gguf` where they are quantised), and `card.sig`
//! where somebody signed it. Encrypted weights have `.enc` after their name.
//!
//! Promises: what is handed out has the SHA-256 on its card and, where signing is required, a trusted signature; a model that is
//! refused is refused with the reason and what to do.
//! Never: a file is read past a bound; weights are written in the clear where they were encrypted.

mod cipher;
mod learnt;
mod library;
mod signature;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nearside_schemas::{Faults, KeySource};
use serde::{Deserialize, Serialize};

pub use self::cipher::SALT;
pub use self::library::{Library, Loaded, Origin, method_of, own_card, try_folder};
pub use self::signature::{PublicKey, SIGNATURE_FILE, SigningKey};
use crate::ModelError;
use crate::card::{CARD_FILE, Card};
use crate::device::DeviceChoice;
use crate::recent::OnlineConfig;

/// Weights larger than this are refused: an edge gateway's models are small, and a damaged length must not fill the memory.
const MAX_WEIGHTS: u64 = 64 << 20;
/// A card or signature larger than this is refused.
const MAX_CARD: u64 = 256 << 10;
/// What encrypted weights have after their name.
const ENCRYPTED: &str = ".enc";

/// `[models]`: models that a site brings itself, and whom it trusts. Each sub-folder with a card is a model, and streams name it by
/// the folder's name. A folder named like a model that ships takes its place. Any other name works where the card says `method`: the
/// shipped model whose weights these are. The folder is watched: a version that loads is put in force between two readings, without
/// a stop; one that does not is refused and the one before stays.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsConfig {
    /// The folder, relative to the configuration file.
    pub folder: Option<PathBuf>,
    /// Folders of sentence encoders in the Hugging Face layout (`config.json`, `tokenizer.json`, `model.safetensors`; BERT), relative to
    /// the configuration file. A text model that was trained with `nearside train text --encoder` finds its own among them by SHA-256.
    pub encoders: Vec<PathBuf>,
    /// Public keys, as `nearside models keygen` prints them: `ed25519:` and 64 hexadecimal digits.
    pub trusted_keys: Vec<PublicKey>,
    /// Whether a model of the folder needs the signature of a trusted key. Models that ship are part of the program and need none.
    pub require_signature: bool,
    /// Models that go on learning; see `[models.online]`.
    pub online: OnlineConfig,
    /// Where networks compute: `cpu`, `cuda` (the first NVIDIA GPU) or `cuda:N`. A GPU needs a program built with `--features cuda`. The
    /// small networks that ship are faster on `cpu`; a replay promises the same findings on `cpu` alone.
    pub device: DeviceChoice,
}

impl ModelsConfig {
    /// Whatever is wrong.
    pub fn faults(&self) -> Faults {
        let device = self.device.check().err();
        let is_unsigned = self.require_signature && self.trusted_keys.is_empty();
        let faults = Faults::of("models")
            .check("device", device.is_some(), device.map(|why| format!("cannot be had: {why}")).unwrap_or_default())
            .check("require_signature", is_unsigned, "needs at least one key in `trusted_keys`");
        self.online.faults(faults)
    }
}

/// Whose models are taken, and how encrypted ones are read.
#[derive(Clone, Default)]
pub struct Trust {
    /// Keys whose signature counts.
    pub keys: Vec<PublicKey>,
    /// Whether a model without such a signature is refused.
    pub is_required: bool,
    /// The site's keys; without them encrypted weights are refused.
    pub site: Option<Arc<dyn KeySource>>,
}

/// Who signed a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signer {
    /// Nobody.
    Nobody,
    /// A key that is not among the trusted ones.
    Unknown(PublicKey),
    /// A trusted key.
    Trusted(PublicKey),
}

impl std::fmt::Display for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nobody => write!(f, "not signed"),
            Self::Unknown(key) => write!(f, "signed by {key}, which is not trusted"),
            Self::Trusted(key) => write!(f, "signed by {key}, trusted"),
        }
    }
}

/// A model's folder, read and checked.
#[derive(Clone, Debug)]
pub struct Artefact {
    /// Its card.
    pub card: Card,
    /// Its weights as they stand in the file, decrypted; empty where the card states none.
    pub weights: Vec<u8>,
    /// SHA-256 of the card's file; with the weights' digest on the card it tells one model from another.
    pub digest: String,
    /// Who signed it.
    pub signer: Signer,
    /// Whether the weights are encrypted at rest.
    pub is_encrypted: bool,
}

/// Reads a model's folder and checks signature and digest.
pub fn read(folder: &Path, trust: &Trust) -> Result<Artefact, ModelError> {
    let label = folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into());
    let bytes = read_bounded(&label, &folder.join(CARD_FILE), MAX_CARD)?;
    let signer = signer(&label, folder, &bytes, trust)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| ModelError::Damaged { model: label.clone(), why: format!("{CARD_FILE} is not UTF-8") })?;
    let card = Card::read(&label, text)?;
    let (weights, is_encrypted) = match card.sha256 {
        Some(_) => read_weights(&card, folder, trust)?,
        None => {
            without_weights(&card, folder)?;
            (Vec::new(), false)
        }
    };
    card.check_weights(&weights)?;
    Ok(Artefact { card, weights, digest: crate::card::digest(&bytes), signer, is_encrypted })
}

fn signer(label: &str, folder: &Path, card: &[u8], trust: &Trust) -> Result<Signer, ModelError> {
    let refused = |why: String| Err(ModelError::Untrusted { model: label.to_owned(), why });
    let path = folder.join(SIGNATURE_FILE);
    let signer = if path.exists() {
        let text = read_bounded(label, &path, MAX_CARD)?;
        match signature::verify(card, &String::from_utf8_lossy(&text)) {
            Ok(key) if trust.keys.contains(&key) => Signer::Trusted(key),
            Ok(key) => Signer::Unknown(key),
            Err(why) => return refused(format!("{why}; fetch the folder again, or sign it: nearside models sign")),
        }
    } else {
        Signer::Nobody
    };
    match signer {
        Signer::Nobody if trust.is_required => refused(format!(
            "it is not signed and [models] require_signature is true; have it signed (nearside models sign {})",
            folder.display()
        )),
        Signer::Unknown(key) if trust.is_required => {
            refused(format!("{key} signed it, which is not in [models] trusted_keys; add the key if you trust it"))
        }
        signer => Ok(signer),
    }
}

fn read_weights(card: &Card, folder: &Path, trust: &Trust) -> Result<(Vec<u8>, bool), ModelError> {
    let model = card.name.to_string();
    let plain = folder.join(card.weights_file());
    let sealed = encrypted(&plain);
    match (plain.exists(), sealed.exists()) {
        (true, true) => {
            let why = format!("{} stands there encrypted and not; remove one", card.weights_file());
            Err(ModelError::Damaged { model, why })
        }
        (_, false) => Ok((read_bounded(&model, &plain, MAX_WEIGHTS)?, false)),
        (false, true) => {
            let file = read_bounded(&model, &sealed, MAX_WEIGHTS)?;
            let untrusted = |why: &str| ModelError::Untrusted { model: model.clone(), why: why.to_owned() };
            let keys = trust.site.as_deref().ok_or_else(|| {
                untrusted("its weights are encrypted and no site's key is at hand: a gateway has its own; whoever signs does so before `nearside models encrypt`")
            })?;
            let opened = cipher::decrypt(keys, &model, &file);
            let hint = "its weights do not open with this site's key: they are damaged or were encrypted for another site; \
                        encrypt the original again (nearside models encrypt)";
            Ok((opened.ok_or_else(|| untrusted(hint))?, true))
        }
    }
}

/// A card without a digest is that of a model without weights: where there are some, the digest is missing.
fn without_weights(card: &Card, folder: &Path) -> Result<(), ModelError> {
    let plain = crate::card::WEIGHTS_FILES.map(|name| folder.join(name));
    let Some(path) = plain.iter().find(|path| path.exists() || encrypted(path).exists()) else { return Ok(()) };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let why = format!(
        "{CARD_FILE} has no sha256 and {name} stands beside it; write the SHA-256 of the weights on the card, or train the model anew"
    );
    Err(ModelError::Damaged { model: card.name.to_string(), why })
}

fn encrypted(plain: &Path) -> PathBuf {
    let mut name = plain.as_os_str().to_owned();
    name.push(ENCRYPTED);
    PathBuf::from(name)
}

/// Writes a model's folder; the card is written last, so a folder with a card is complete. A signature of what stood there before
/// does not hold for it and goes, and so do its weights.
pub fn write(folder: &Path, card: &Card, weights: &[u8]) -> Result<(), ModelError> {
    let text = toml::to_string(card)
        .map_err(|error| ModelError::Damaged { model: card.name.to_string(), why: format!("{CARD_FILE}: {error}") })?;
    std::fs::create_dir_all(folder).map_err(file(folder))?;
    for stale in [CARD_FILE, SIGNATURE_FILE] {
        remove(&folder.join(stale))?;
    }
    for weights in crate::card::WEIGHTS_FILES.map(|name| folder.join(name)) {
        remove(&weights)?;
        remove(&encrypted(&weights))?;
    }
    if !weights.is_empty() {
        place(&folder.join(card.weights_file()), weights)?;
    }
    place(&folder.join(CARD_FILE), text.as_bytes())
}

/// Signs a model's folder as it stands, after checking that its weights are the card's; gives the key's public half.
pub fn sign(folder: &Path, key: &SigningKey) -> Result<PublicKey, ModelError> {
    // What stands there now may be an old signature; it is replaced whatever it is, but stays where the folder cannot be signed.
    let signature = folder.join(SIGNATURE_FILE);
    let old = std::fs::read(&signature).ok();
    remove(&signature)?;
    let artefact = match read(folder, &Trust::default()) {
        Ok(artefact) => artefact,
        Err(error) => {
            old.map_or(Ok(()), |old| place(&signature, &old))?;
            return Err(error);
        }
    };
    let card = read_bounded(artefact.card.name.as_str(), &folder.join(CARD_FILE), MAX_CARD)?;
    place(&folder.join(SIGNATURE_FILE), key.sign(&card).as_bytes())?;
    Ok(key.public())
}

/// Encrypts the weights of a model's folder for a site; `salt` must be fresh. The signature still holds.
pub fn encrypt(folder: &Path, keys: &dyn KeySource, salt: [u8; SALT]) -> Result<(), ModelError> {
    let artefact = read(folder, &Trust::default())?;
    let model = artefact.card.name.to_string();
    if artefact.card.sha256.is_none() {
        let why = String::from("it has no weights to encrypt");
        return Err(ModelError::Damaged { model, why });
    }
    let sealed = cipher::encrypt(keys, salt, &model, &artefact.weights)
        .ok_or_else(|| ModelError::Damaged { model, why: String::from("the cipher refuses its weights") })?;
    let plain = folder.join(artefact.card.weights_file());
    place(&encrypted(&plain), &sealed)?;
    remove(&plain)
}

/// Writes a file that is there whole or not at all.
fn place(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let written = std::fs::File::create(&draft).and_then(|mut file| {
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    });
    written.map_err(file(&draft))?;
    std::fs::rename(&draft, path).map_err(file(path))
}

fn remove(path: &Path) -> Result<(), ModelError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file(path)(error)),
        _ => Ok(()),
    }
}

pub(crate) fn read_bounded(model: &str, path: &Path, most: u64) -> Result<Vec<u8>, ModelError> {
    let damaged = |what: &str| {
        let why = format!("{} {what}; at most {most} bytes of a file are read", path.display());
        Err(ModelError::Damaged { model: model.to_owned(), why })
    };
    // A pipe would be waited for, and a device never ends.
    if !std::fs::metadata(path).map_err(file(path))?.is_file() {
        return damaged("is no file");
    }
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).map_err(file(path))?;
    std::io::Read::read_to_end(&mut std::io::Read::take(opened, most + 1), &mut bytes).map_err(file(path))?;
    if bytes.len() as u64 > most { damaged("is too large") } else { Ok(bytes) }
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> ModelError + use<> {
    let path = path.to_owned();
    move |source| ModelError::File { path, source }
}

#[cfg(test)]
mod learnt_tests;
#[cfg(test)]
mod tests;
