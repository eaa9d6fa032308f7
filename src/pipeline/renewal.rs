//! Models change while the gateway runs: a new version is loaded and tried beside the old, put in force between two readings, and
//! taken back where its forward passes fail.
//!
//! A version that is found at the start waits until the journal is taken in by the version that judged it, and is put in force like
//! any other.
//!
//! Promises: no window is lost and no connection ends (the middle is replaced as by a reload); each step is logged and counted.

use std::time::Duration;

use nearside_journal::EpochKind;
use nearside_models::artefact::Loaded;
use nearside_schemas::{ModelName, Timestamp};
use nearside_telemetry::Metric;
use tokio::sync::watch;

use super::Gateway;
use super::online::Learning;
use crate::error::StartError;
use crate::model_set::{self, IN_FORCE, LOADED, ModelSet, ROLLED_BACK};

/// How long a version must judge without a failed pass before the one before is let go.
const ON_TRIAL: Duration = Duration::from_secs(60);

/// A version that was loaded.
#[derive(Clone)]
struct Version {
    name: ModelName,
    digest: String,
    /// Failed passes of its name before it judged.
    failed_before: u64,
}

/// Versions that came in force a short while ago.
pub(super) struct Trial {
    before: ModelSet,
    versions: Vec<Version>,
    ends: Timestamp,
}

impl Gateway {
    /// Looks at the folder of models and puts in force what is new there. Gives back how many models changed.
    ///
    /// # Errors
    /// Where nothing can be put in force at the moment; everything is as before then and another try may succeed.
    pub async fn renew_models(&mut self, stopping: &watch::Receiver<bool>) -> Result<usize, StartError> {
        let (models, refusals) = ModelSet::load(&self.config, &self.library, &self.models, &self.avoided)?;
        model_set::report(&refusals, self.telemetry());
        let renewed = self.versions(&models, &self.models);
        if renewed.is_empty() {
            return Ok(0);
        }
        self.count(&renewed, LOADED);
        self.go_on_under(&self.config.clone(), models, EpochKind::Models, stopping).await?;
        self.count(&renewed, IN_FORCE);
        Ok(renewed.len())
    }

    /// Puts in force what waits: versions that were found at the start, and what was learnt online or is to be taken back. Gives back
    /// how many models changed.
    ///
    /// # Errors
    /// As [`Gateway::renew_models`]; it may be asked again.
    pub async fn renew_waiting(&mut self, stopping: &watch::Receiver<bool>) -> Result<usize, StartError> {
        let has_learnt = self.learning.as_ref().is_some_and(Learning::has_changed);
        if !self.progress.is_done() || !(has_learnt || self.has_waiting_models) {
            return Ok(0);
        }
        let changed = self.renew_models(stopping).await?;
        self.has_waiting_models = false;
        self.learning.iter().filter(|_| has_learnt).for_each(Learning::is_in_force);
        Ok(changed)
    }

    /// Versions that differ from those `before` have come in force: they are on trial, with those that still were.
    pub(super) fn begin_trial(&mut self, before: &ModelSet) {
        let mut versions = self.versions(&self.models, before);
        versions.retain(|version| before.get(&version.name).is_ok());
        if versions.is_empty() {
            return;
        }
        let mut before = before.clone();
        if let Some(earlier) = self.trial.take() {
            // What was on trial goes back to what was before its own.
            before = before.with(earlier.versions.iter().map(|version| &version.name), &earlier.before);
            let is_known = |name: &ModelName| versions.iter().any(|version| version.name == *name);
            let others: Vec<Version> = earlier.versions.into_iter().filter(|other| !is_known(&other.name)).collect();
            versions.extend(others);
        }
        self.trial = Some(Trial { before, versions, ends: self.clock.now().plus(ON_TRIAL) });
    }

    /// The models of a set that another has otherwise or not at all.
    fn versions(&self, of: &ModelSet, from: &ModelSet) -> Vec<Version> {
        let version = |(name, loaded): (&ModelName, &Loaded)| Version {
            name: name.clone(),
            digest: loaded.digest.clone(),
            failed_before: self.failed_passes(name),
        };
        of.differing(from).map(version).collect()
    }

    /// Takes back versions on trial whose forward passes failed. Gives back whether it did.
    ///
    /// # Errors
    /// Where that cannot be done at the moment.
    pub async fn end_trial(&mut self, stopping: &watch::Receiver<bool>) -> Result<bool, StartError> {
        let Some(trial) = &self.trial else { return Ok(false) };
        let has_failed = |version: &&Version| self.failed_passes(&version.name) > version.failed_before;
        let failed: Vec<Version> = trial.versions.iter().filter(has_failed).cloned().collect();
        if failed.is_empty() {
            if self.clock.now() >= trial.ends {
                self.trial = None;
                self.models.keep(&self.library, &ModelSet::default());
            }
            return Ok(false);
        }
        for Version { name, digest, .. } in &failed {
            if self.avoided.insert(digest.clone())
                && let Err(error) = self.library.note_failure(digest)
            {
                tracing::warn!(model = %name, %error, "the next start does not know that it failed");
            }
        }
        let before = self.models.with(failed.iter().map(|version| &version.name), &trial.before);
        self.go_on_under(&self.config.clone(), before, EpochKind::Models, stopping).await?;
        self.trial = None;
        self.count(&failed, ROLLED_BACK);
        for Version { name, .. } in &failed {
            tracing::error!(model = %name, "its forward passes failed; the version before is in force again");
        }
        Ok(true)
    }

    fn failed_passes(&self, model: &ModelName) -> u64 {
        self.telemetry().counter(Metric::InferenceErrors, &[model.as_str()]).get()
    }

    fn count(&self, versions: &[Version], outcome: &str) {
        for Version { name, .. } in versions {
            self.telemetry().counter(Metric::ModelChanges, &[name.as_str(), outcome]).inc();
        }
    }
}
