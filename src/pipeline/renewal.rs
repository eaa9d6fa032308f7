//! Models change while the gateway runs: a new version is loaded and tried beside the old, put in force between two readings, and
//! taken back where its forward passes fail.
//!
//! Promises: no window is lost and no connection ends (the middle is replaced as by a reload); each step is logged and counted.

use std::time::Duration;

use nearside_journal::EpochKind;
use nearside_schemas::{ModelName, Timestamp};
use nearside_telemetry::Metric;
use tokio::sync::watch;

use super::Gateway;
use crate::error::StartError;
use crate::model_set::{self, IN_FORCE, LOADED, ModelSet, ROLLED_BACK};

/// How long a version must judge without a failed pass before the one before is let go.
const ON_TRIAL: Duration = Duration::from_secs(60);

/// Versions that came in force a short while ago.
pub(super) struct Trial {
    before: ModelSet,
    /// Their models, digests, and the failed passes of each until then.
    models: Vec<(ModelName, String, u64)>,
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
        let renewed: Vec<(ModelName, String, u64)> = models
            .differing(&self.models)
            .map(|(name, loaded)| (name.clone(), loaded.digest.clone(), self.failed_passes(name)))
            .collect();
        if renewed.is_empty() {
            return Ok(0);
        }
        self.count(&renewed, LOADED);
        self.go_on_under(&self.config.clone(), models, EpochKind::Models, stopping).await?;
        self.count(&renewed, IN_FORCE);
        Ok(renewed.len())
    }

    /// Versions that differ from those `before` have come in force: they are on trial, with those that still were.
    pub(super) fn begin_trial(&mut self, before: &ModelSet) {
        let differing = self.models.differing(before).filter(|(name, _)| before.get(name).is_ok());
        let mut models: Vec<(ModelName, String, u64)> =
            differing.map(|(name, loaded)| (name.clone(), loaded.digest.clone(), self.failed_passes(name))).collect();
        if models.is_empty() {
            return;
        }
        let mut before = before.clone();
        if let Some(earlier) = self.trial.take() {
            // What was on trial goes back to what was before its own.
            before = before.with(earlier.models.iter().map(|(name, ..)| name), &earlier.before);
            let known: Vec<ModelName> = models.iter().map(|(name, ..)| name.clone()).collect();
            models.extend(earlier.models.into_iter().filter(|(name, ..)| !known.contains(name)));
        }
        self.trial = Some(Trial { before, models, ends: self.clock.now().plus(ON_TRIAL) });
    }

    /// Takes back versions on trial whose forward passes failed. Gives back whether it did.
    ///
    /// # Errors
    /// Where that cannot be done at the moment.
    pub async fn end_trial(&mut self, stopping: &watch::Receiver<bool>) -> Result<bool, StartError> {
        let Some(trial) = &self.trial else { return Ok(false) };
        let has_failed = |(name, _, passes): &(ModelName, String, u64)| self.failed_passes(name) > *passes;
        let failed: Vec<_> = trial.models.iter().filter(|model| has_failed(model)).cloned().collect();
        if failed.is_empty() {
            if self.clock.now() >= trial.ends {
                self.trial = None;
                self.models.keep(&self.library);
            }
            return Ok(false);
        }
        for (name, digest, _) in &failed {
            if self.avoided.insert(digest.clone())
                && let Err(error) = self.library.note_failure(digest)
            {
                tracing::warn!(model = %name, %error, "the next start does not know that it failed");
            }
        }
        let before = self.models.with(failed.iter().map(|(name, ..)| name), &trial.before);
        self.go_on_under(&self.config.clone(), before, EpochKind::Models, stopping).await?;
        self.trial = None;
        self.count(&failed, ROLLED_BACK);
        for (name, ..) in &failed {
            tracing::error!(model = %name, "its forward passes failed; the version before is in force again");
        }
        Ok(true)
    }

    fn failed_passes(&self, model: &ModelName) -> u64 {
        self.telemetry().counter(Metric::InferenceErrors, &[model.as_str()]).get()
    }

    fn count(&self, models: &[(ModelName, String, u64)], outcome: &str) {
        for (name, ..) in models {
            self.telemetry().counter(Metric::ModelChanges, &[name.as_str(), outcome]).inc();
        }
    }
}
