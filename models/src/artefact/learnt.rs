//! What a site has learnt online: versions of its models, each in a folder of its own, named by its digest and encrypted with the
//! site's key, and an order of digests: the last is the one that counts. The first may be that of the model that it was all learnt from.
//!
//! Promises: whenever it is cut off the order names what it named before or what it names now; a version that is noted as in force, or
//! stands in the order, is not deleted; what is damaged or gone gives way to the one before, and in the end to the model that it was all
//! learnt from.
//! Never: a version counts that is not encrypted with the site's own key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nearside_schemas::KeySource;
use parking_lot::{Mutex, MutexGuard};

use super::{Artefact, SALT, Trust, encrypt, file, place, read, write};
use crate::ModelError;
use crate::card::CARD_FILE;
use crate::train::online::Version;

/// The file with the digests of versions, in the order in which they came.
const ORDER: &str = "order";

/// The file that says by its digest from which model something was learnt.
const LEARNT_FROM: &str = "learnt_from";

/// A version that was learnt.
pub(super) struct Found {
    /// The digest of the model that all of it was learnt from.
    pub(super) of: String,
    pub(super) artefact: Artefact,
}

/// The versions of a site.
#[derive(Clone)]
pub(super) struct Learnt {
    root: PathBuf,
    site: Option<Arc<dyn KeySource>>,
    /// One at a time writes or deletes: learning is a thread of its own.
    turn: Arc<Mutex<()>>,
}

impl Learnt {
    pub(super) fn new(root: PathBuf, site: Option<Arc<dyn KeySource>>) -> Self {
        Self { root, site, turn: Arc::default() }
    }

    /// The digests of a model's versions, oldest first.
    pub(super) fn order(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.root.join(name).join(ORDER)).unwrap_or_default();
        text.lines().filter(|line| is_digest(line)).map(str::to_owned).collect()
    }

    /// The version of a model with this digest.
    ///
    /// # Errors
    /// Where it is gone, damaged, or not the site's own.
    pub(super) fn find(&self, name: &str, digest: &str) -> Result<Found, ModelError> {
        let damaged = |why: String| ModelError::Damaged { model: name.to_owned(), why };
        let folder = self.root.join(name).join(digest);
        if !is_digest(digest) || !folder.join(CARD_FILE).is_file() {
            return Err(damaged(format!("the version {digest:.12} that was learnt online is gone")));
        }
        let artefact = read(&folder, &Trust { site: self.site.clone(), ..Trust::default() })?;
        if !artefact.is_encrypted {
            return Err(ModelError::Untrusted { model: name.to_owned(), why: "it is not this site's".to_owned() });
        }
        if artefact.digest != digest || artefact.card.name.as_str() != name {
            return Err(damaged(format!("the folder {digest:.12} of what was learnt online holds another version")));
        }
        let of = std::fs::read_to_string(folder.join(LEARNT_FROM)).map_err(file(&folder))?;
        Ok(Found { of, artefact })
    }

    /// What stands there as an unreleased build wrote it, one version without a folder of its own, which counts no more: what to do about it.
    pub(super) fn unnumbered(&self, name: &str) -> Option<ModelError> {
        let root = self.root.join(name);
        root.join(CARD_FILE).is_file().then(|| ModelError::Damaged {
            model: name.to_owned(),
            why: format!(
                "what was learnt online stands in {} as builds before the 28th of November 2026 kept it, and is not used; it learns anew. Delete the files there; or, to \
                 go on with that version, move them into a folder beside `{ORDER}` that is named by the SHA-256 of {CARD_FILE}, and write into `{ORDER}` the line in \
                 `{LEARNT_FROM}` and below it that SHA-256",
                root.display()
            ),
        })
    }

    /// Adds a version that was learnt from the model with the digest `of`, as the last of the order. `salt` must be fresh.
    pub(super) fn put(&self, name: &str, version: &Version, of: &str, salt: [u8; SALT]) -> Result<(), ModelError> {
        let none = || ModelError::Untrusted { model: name.to_owned(), why: "no site's key is at hand".to_owned() };
        let keys = self.site.as_deref().ok_or_else(none)?;
        let _turn = self.turn();
        let root = self.root.join(name);
        let draft = root.join(".new");
        clear(&draft)?;
        write(&draft, &version.card, &version.weights)?;
        encrypt(&draft, keys, salt)?;
        place(&draft.join(LEARNT_FROM), of.as_bytes())?;
        sync(&draft)?;
        let digest = read(&draft, &Trust { site: self.site.clone(), ..Trust::default() })?.digest;
        let target = root.join(&digest);
        clear(&target)?;
        std::fs::rename(&draft, &target).map_err(file(&target))?;
        sync(&root)?;
        // What was learnt from another model counts no more.
        let mut order = self.order(name);
        order.retain(|other| *other != digest && (other == of || self.find(name, other).is_ok_and(|one| one.of == of)));
        if order.is_empty() {
            order.push(of.to_owned());
        }
        order.push(digest);
        self.set_order(name, &order)
    }

    /// Makes the version with this digest the last of the order; where it is none of the order, nothing learnt counts any more. Gives back
    /// whether it was.
    pub(super) fn go_back_to(&self, name: &str, digest: &str) -> Result<bool, ModelError> {
        let _turn = self.turn();
        let mut order = self.order(name);
        let at = order.iter().position(|other| other == digest);
        order.truncate(at.map_or(0, |at| at + 1));
        if self.root.join(name).exists() {
            self.set_order(name, &order)?;
        }
        Ok(at.is_some())
    }

    /// Takes those before the version with this digest out of the order: it has proved itself.
    pub(super) fn settle_on(&self, name: &str, digest: &str) -> Result<(), ModelError> {
        let _turn = self.turn();
        let mut order = self.order(name);
        match order.iter().position(|other| other == digest) {
            None | Some(0) => Ok(()),
            Some(at) => {
                order.drain(..at);
                self.set_order(name, &order)
            }
        }
    }

    /// Deletes what is neither of the order nor in force; what cannot be deleted stays for the next time.
    pub(super) fn delete_all_but<'a>(&self, in_force: impl Iterator<Item = (&'a str, &'a str)>) {
        let _turn = self.turn();
        let in_force: Vec<(&str, &str)> = in_force.collect();
        for folder in folders(&self.root) {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let order = self.order(&name);
            for version in folders(&folder) {
                let digest = version.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let is_kept = order.contains(&digest) || in_force.contains(&(name.as_str(), digest.as_str()));
                if !is_kept {
                    let _ = clear(&version);
                }
            }
        }
    }

    fn set_order(&self, name: &str, order: &[String]) -> Result<(), ModelError> {
        let lines: String = order.iter().map(|digest| format!("{digest}\n")).collect();
        place(&self.root.join(name).join(ORDER), lines.as_bytes())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }
}

/// Whether it is a SHA-256 in hexadecimal: never a path to elsewhere.
fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

pub(super) fn clear(folder: &Path) -> Result<(), ModelError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file(folder)(error)),
        _ => Ok(()),
    }
}

pub(super) fn sync(path: &Path) -> Result<(), ModelError> {
    std::fs::File::open(path).and_then(|opened| opened.sync_all()).map_err(file(path))
}
