//! The models that a site's streams name, loaded and tried.
//!
//! Promises: a version that cannot be used leaves the one before in force, is logged and counted; only where there is none before does
//! it keep the gateway from starting.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use nearside_config::SiteConfig;
use nearside_models::ModelError;
use nearside_models::artefact::{Library, Loaded, Origin};
use nearside_privacy::KeyRing;
use nearside_schemas::{KeySource, ModelName};
use nearside_telemetry::{Metric, Telemetry};

/// What stands in the counter of changes.
pub const LOADED: &str = "loaded";
/// See [`LOADED`].
pub const IN_FORCE: &str = "in_force";
/// See [`LOADED`].
pub const REFUSED: &str = "refused";
/// See [`LOADED`].
pub const ROLLED_BACK: &str = "rolled_back";

/// The models of a site, by the names that its streams use.
#[derive(Clone, Default)]
pub struct ModelSet(BTreeMap<ModelName, Loaded>);

/// A version that is not used, and why.
#[derive(Debug)]
pub struct Refusal {
    /// The model.
    pub name: ModelName,
    /// The version that is used instead.
    pub instead: String,
    /// What is wrong.
    pub error: ModelError,
}

/// What a start goes on with.
pub struct Resumed {
    /// The models that judge.
    pub models: ModelSet,
    /// What was in force before those of them that are still on trial.
    pub tried: ModelSet,
    /// Whether the folder holds other versions, which wait to be put in force.
    pub is_renewable: bool,
    /// What cannot be used.
    pub refusals: Vec<Refusal>,
}

/// The models of a site's folder; `base` is where the site's relative paths begin.
pub fn library(config: &SiteConfig, base: &Path, keys: Option<Arc<KeyRing>>) -> Library {
    let kept = nearside_config::kept_models(&base.join(&config.site.data_dir));
    Library::new(&config.models, base, kept, keys.map(|keys| keys as Arc<dyn KeySource>))
}

impl ModelSet {
    /// Loads what the streams name. What cannot be used, or is among `avoided` (by digest), gives way to what `in_force` has, else to
    /// the copy of what was in force in an earlier run.
    ///
    /// # Errors
    /// Where a model cannot be used and there is none to take its place.
    pub fn load(
        config: &SiteConfig,
        library: &Library,
        in_force: &Self,
        avoided: &BTreeSet<String>,
    ) -> Result<(Self, Vec<Refusal>), ModelError> {
        let (mut models, mut refusals) = (BTreeMap::new(), Vec::new());
        let names: BTreeSet<&ModelName> = config.streams.iter().flat_map(|stream| &stream.models).collect();
        for name in names {
            let before = in_force.0.get(name);
            let found = library.load(name.as_str()).and_then(|loaded| successor(loaded, before, avoided));
            let loaded = match found {
                Ok(loaded) => loaded,
                Err(error) => {
                    let instead = before
                        .cloned()
                        .map(Ok)
                        .or_else(|| library.load_kept(name.as_str()))
                        .or_else(|| library.load_shipped(name.as_str()));
                    let Some(Ok(instead)) = instead else { return Err(error) };
                    let version = instead.model.reference().to_string();
                    refusals.push(Refusal { name: name.clone(), instead: version, error });
                    instead
                }
            };
            if let Some(error) = library.fault_of_learnt(name.as_str()) {
                let version = loaded.model.reference().to_string();
                refusals.push(Refusal { name: name.clone(), instead: version, error });
            }
            models.insert(name.clone(), loaded);
        }
        Ok((Self(models), refusals))
    }

    /// What a start goes on with: of each model the version that was in force when the gateway ended, where it is still at hand, so that
    /// the journal is taken in again by those that judged it (promise I5). What the folder holds beyond is put in force, on trial, by the
    /// first look at it.
    ///
    /// # Errors
    /// As [`ModelSet::load`].
    pub fn resume(config: &SiteConfig, library: &Library, avoided: &BTreeSet<String>) -> Result<Resumed, ModelError> {
        let was = library.in_force();
        let (mut before, mut gone) = (Self::default(), BTreeMap::new());
        for name in config.streams.iter().flat_map(|stream| &stream.models) {
            let found = match was.get(name.as_str()) {
                Some(digest) => library.load_again(name.as_str(), digest),
                // A data folder of a version that did not note it.
                None => library.load_kept(name.as_str()).and_then(Result::ok),
            };
            if let (None, Some(digest)) = (&found, was.get(name.as_str())) {
                gone.insert(name.clone(), digest);
            }
            before.0.extend(found.map(|found| (name.clone(), found)));
        }
        let (found, mut refusals) = Self::load(config, library, &before, avoided)?;
        // Another judges what the journal holds than did before: that is said.
        refusals.extend(gone.into_iter().filter_map(|(name, digest)| {
            let loaded = found.0.get(&name).filter(|loaded| loaded.digest != *digest)?;
            let why =
                format!("the version that was in force when the gateway ended ({digest:.12}) is not at hand any more");
            let error = ModelError::Damaged { model: name.to_string(), why };
            Some(Refusal { instead: loaded.model.reference().to_string(), name, error })
        }));
        let waiting: Vec<ModelName> = found.differing(&before).map(|(name, _)| name.clone()).collect();
        let models = found.with(&waiting, &before);
        let is_renewable = found.differing(&models).next().is_some();
        // In force already when the gateway ended, and its trial not over.
        let mut tried = Self::default();
        for (name, loaded) in &models.0 {
            let before = match loaded.origin {
                Origin::Learnt => library.before_learnt(loaded),
                _ => library.load_kept(name.as_str()).and_then(Result::ok),
            };
            tried.0.extend(before.filter(|before| before.digest != loaded.digest).map(|before| (name.clone(), before)));
        }
        Ok(Resumed { models, tried, is_renewable, refusals })
    }

    /// A model by the name that streams use.
    ///
    /// # Errors
    /// Where no stream named it when the set was loaded.
    pub fn get(&self, name: &ModelName) -> Result<&Loaded, ModelError> {
        self.0.get(name).ok_or_else(|| nearside_models::catalog::unknown(name.as_str()))
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &ModelName> {
        self.0.keys()
    }

    /// The models that differ from those of another set, or that it does not have.
    pub fn differing<'a>(&'a self, from: &'a Self) -> impl Iterator<Item = (&'a ModelName, &'a Loaded)> {
        let same =
            |name: &ModelName, loaded: &Loaded| from.0.get(name).is_some_and(|other| other.digest == loaded.digest);
        self.0.iter().filter(move |(name, loaded)| !same(name, loaded))
    }

    /// What tells this set from another, for the journal.
    pub fn digests(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, loaded)| (name.as_str(), loaded.digest.as_str())).collect()
    }

    /// This set, with the models of these names as another has them.
    pub fn with<'a>(&self, names: impl IntoIterator<Item = &'a ModelName>, other: &Self) -> Self {
        let mut models = self.0.clone();
        models.extend(
            names.into_iter().filter_map(|name| other.0.get(name).map(|loaded| (name.clone(), loaded.clone()))),
        );
        Self(models)
    }

    /// Says in metrics and log which version judges.
    pub fn came_in_force(&self, before: &Self, telemetry: &Telemetry) {
        for (name, loaded) in before.differing(self) {
            telemetry.gauge(Metric::ModelInForce, &[name.as_str(), &loaded.model.reference().version]).set(0.0);
        }
        for (name, loaded) in self.differing(before) {
            let reference = loaded.model.reference();
            telemetry.gauge(Metric::ModelInForce, &[name.as_str(), &reference.version]).set(1.0);
            let (from, signer) = (loaded.origin.as_str(), &loaded.signer);
            tracing::info!(model = %reference, from, %signer, "the model is in force");
        }
    }

    /// Notes for the next start which versions are in force.
    pub fn note(&self, library: &Library) {
        if let Err(error) = library.note_in_force(self.digests().into_iter()) {
            tracing::warn!(%error, "the next start does not know which versions of models are in force");
        }
    }

    /// Keeps copies of the folder's models, for a start that finds them damaged, but for those that `tried` has another version of.
    pub fn keep(&self, library: &Library, tried: &Self) {
        for (name, loaded) in self.0.iter().filter(|(name, _)| tried.get(name).is_err()) {
            if let Err(error) = library.keep(name.as_str(), loaded) {
                tracing::warn!(model = %name, %error, "no copy of the model could be kept for the next start");
            }
        }
    }
}

/// The version as it may follow the one before: not one that failed, and not another under the same version.
fn successor(loaded: Loaded, before: Option<&Loaded>, avoided: &BTreeSet<String>) -> Result<Loaded, ModelError> {
    let reference = loaded.model.reference().clone();
    let refused = |why: &str| Err(ModelError::Untrusted { model: reference.to_string(), why: why.to_owned() });
    if avoided.contains(&loaded.digest) {
        return refused("it failed when it was in force; put another version into its folder");
    }
    match before {
        Some(before) if before.digest == loaded.digest => Ok(Loaded { model: before.model.clone(), ..loaded }),
        // A finding names the version: two models must not share one (promise I6).
        Some(before) if *before.model.reference() == reference => refused(
            "its card or weights differ from those in force under the same version; give its card another `version`",
        ),
        _ => Ok(loaded),
    }
}

/// Logs and counts versions that are not used.
pub fn report(refusals: &[Refusal], telemetry: &Telemetry) {
    for Refusal { name, instead, error } in refusals {
        telemetry.counter(Metric::ModelChanges, &[name.as_str(), REFUSED]).inc();
        tracing::error!(%error, in_force = %instead, "a model of the folder is not used");
    }
}
