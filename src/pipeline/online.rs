//! Models that learn online: a thread of its own takes their steps, and what they come to is put in force like a new version of a folder.
//!
//! Promises: training and comparing take a quarter of one core at most, and what judges is never waited for; each step is logged, counted and shown;
//! a change of version is an epoch of the journal, behind a checkpoint of every stream, and a start goes on with the version that was in force.
//! Never: rows are written to disk; weights learnt from them are, encrypted with the site's key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use nearside_actors::board::{Board, PostedFinding, PostedStep};
use nearside_actors::fence::fenced;
use nearside_config::SiteConfig;
use nearside_models::ModelError;
use nearside_models::artefact::{Library, SALT};
use nearside_models::recent::{OnlineConfig, RecentRows};
use nearside_models::train::online::{self, Losses, OnlineLearner, Spoken, Step};
use nearside_schemas::{Clock, ModelName};
use nearside_telemetry::{Metric, Telemetry};

use crate::error::StartError;
use crate::middle::{Around, Recent};
use crate::model_set::ROLLED_BACK;

/// The seed of the order in which rows are learnt from.
const SEED: u64 = 1;
/// A pass is followed by so many times its own length of rest.
const REST: u32 = 3;

/// The recent rows of the models that learn.
pub(super) fn recent(config: &SiteConfig) -> Recent {
    let OnlineConfig { models, rows, series, .. } = &config.models.online;
    models.iter().map(|name| (name.clone(), Arc::new(RecentRows::new(*rows, *series)))).collect()
}

/// Says which model cannot learn.
pub fn check_learning(config: &OnlineConfig, library: &Library) -> Result<(), ModelError> {
    for name in &config.models {
        let model = library.load(name.as_str())?;
        let version = library.version(name.as_str(), &model.digest);
        if !version.is_some_and(|version| online::can_learn(version.card.method())) {
            let why = "it cannot learn online; a model with the method `forecaster` can".to_owned();
            return Err(ModelError::Unfit { model: name.to_string(), why });
        }
    }
    Ok(())
}

/// The thread that takes the steps. It ends when this is dropped.
pub(super) struct Learning {
    changed: Arc<AtomicBool>,
    _stop: Sender<()>,
}

impl Learning {
    /// Starts it, where any model learns.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub(super) fn start(
        config: &OnlineConfig,
        library: &Library,
        around: &Around,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<Self>, StartError> {
        if config.models.is_empty() {
            return Ok(None);
        }
        let (stop, stopped) = channel();
        let changed = Arc::new(AtomicBool::new(false));
        let settings = online::Learning {
            margin: config.margin,
            least_rows: config.least_rows,
            epochs: config.epochs,
            seed: SEED,
        };
        let thread = Thread {
            library: library.clone(),
            recent: around.recent.clone(),
            board: around.board.clone(),
            telemetry: around.telemetry.clone(),
            clock: clock.clone(),
            changed: changed.clone(),
            settings,
            every: config.every.get(),
        };
        let run = move || thread.run(&stopped);
        std::thread::Builder::new().name("online".to_owned()).spawn(run).map_err(StartError::Thread)?;
        Ok(Some(Self { changed, _stop: stop }))
    }

    /// Whether something was learnt, or is to be taken back, that is not in force yet.
    pub(super) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    /// It is in force.
    pub(super) fn is_in_force(&self) {
        self.changed.store(false, Ordering::Release);
    }
}

struct Thread {
    library: Library,
    recent: Recent,
    board: Arc<Board>,
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
    changed: Arc<AtomicBool>,
    settings: online::Learning,
    every: std::time::Duration,
}

impl Thread {
    fn run(self, stopped: &Receiver<()>) {
        let mut learners: BTreeMap<&ModelName, OnlineLearner> =
            self.recent.keys().map(|name| (name, OnlineLearner::new(self.settings))).collect();
        while stopped.recv_timeout(self.every) == Err(RecvTimeoutError::Timeout) {
            // What is not in force yet cannot be compared with.
            if self.changed.load(Ordering::Acquire) {
                continue;
            }
            for (name, learner) in &mut learners {
                let stepped = fenced(|| self.step(name, learner));
                let failed = match stepped {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "a panic".to_owned(),
                };
                *learner = OnlineLearner::new(self.settings);
                tracing::error!(model = %name, why = failed, "a step of online learning failed; it begins anew");
                self.tell(name, "failed", failed);
            }
        }
    }

    fn step(&self, name: &ModelName, learner: &mut OnlineLearner) -> Result<(), ModelError> {
        let Some(digest) = self.library.in_force().remove(name.as_str()) else { return Ok(()) };
        let version = self.library.version(name.as_str(), &digest);
        let (Some(in_force), Some(recent)) = (version, self.recent.get(name)) else { return Ok(()) };
        let mut pass = Instant::now();
        let mut rest = || {
            std::thread::sleep(pass.elapsed() * REST);
            pass = Instant::now();
        };
        let step = learner.step(&in_force, &recent.series(), &self.spoken(name), &mut rest)?;
        let before = in_force.card.version;
        match step {
            Step::Waits => {}
            Step::Shadowing(losses) => self.tell(name, "shadowing", says(&losses)),
            Step::Refused(losses) => self.tell(name, "refused", says(&losses)),
            Step::Settled(losses) => self.tell(name, "settled", says(&losses)),
            Step::Superseded => {
                // Were it to stay, it would be tried again with the next version that comes.
                self.library.go_back_to(name.as_str(), &digest)?;
                self.tell(name, "superseded", "another version came in force".to_owned());
            }
            Step::Promote(candidate, losses) => {
                let mut salt = [0; SALT];
                getrandom::fill(&mut salt).map_err(|error| unwritten(name, &error.to_string()))?;
                self.library.put_learnt(name.as_str(), &candidate, salt)?;
                self.changed.store(true, Ordering::Release);
                self.tell(name, "promoted", format!("{before} to {}; {}", candidate.card.version, says(&losses)));
            }
            Step::RollBack(version, losses) => {
                self.take_back(name, &version)?;
                self.changed.store(true, Ordering::Release);
                self.tell(name, ROLLED_BACK, format!("{before} to {}; {}", version.card.version, says(&losses)));
            }
        }
        Ok(())
    }

    /// The version before is of the folder, or ships, or was itself learnt.
    fn take_back(&self, name: &ModelName, version: &online::Version) -> Result<(), ModelError> {
        let base = self.library.base(name.as_str())?;
        if base.model.reference().version.as_ref() == version.card.version {
            return self.library.go_back_to(name.as_str(), &base.digest);
        }
        if self.library.go_back_to_version(name.as_str(), &version.card.version)? {
            return Ok(());
        }
        // It had proved itself, so its folder went when the one that is taken back did.
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(|error| unwritten(name, &error.to_string()))?;
        self.library.put_learnt(name.as_str(), version, salt)
    }

    /// What operators said of the model's findings lately.
    fn spoken(&self, name: &ModelName) -> Vec<Spoken> {
        let posted = self.board.findings(usize::MAX).into_iter();
        let of_model = posted.filter(|posted| posted.finding.model.name == *name);
        let spoken = of_model.filter_map(|PostedFinding { finding, opinion, .. }| {
            Some(Spoken { stream: finding.window.stream, field: finding.field?, at: finding.at, opinion: opinion? })
        });
        spoken.collect()
    }

    fn tell(&self, name: &ModelName, outcome: &'static str, text: String) {
        self.telemetry.counter(Metric::OnlineSteps, &[name.as_str(), outcome]).inc();
        if outcome == ROLLED_BACK {
            tracing::warn!(model = %name, outcome, text, "a version learnt online is taken back");
        } else {
            tracing::info!(model = %name, outcome, text, "a step of online learning");
        }
        self.board.post_step(PostedStep { model: name.to_string(), outcome, text, at: self.clock.now() });
    }
}

fn says(losses: &Losses) -> String {
    format!("loss {:.4} in force, {:.4} of the other, on {} rows", losses.in_force, losses.other, losses.rows)
}

fn unwritten(name: &ModelName, why: &str) -> ModelError {
    ModelError::Damaged { model: name.to_string(), why: format!("no fresh salt for its weights: {why}") }
}
