//! The pipeline, read in one place: the table of stages in flow order, then the wiring from front to back.
//!
//! ```text
//! device ─▶ front door ─▶ journal ─▶ ingest ─▶ stream actor ─▶ inference ─▶ stream actor ─▶ seal ─▶ outbox ─▶ uplink ─▶ cloud
//!              ▲                                                    ├▶ rules ─▶ command ─▶ front door ─▶ device
//!              └── answers after the fsync                          └▶ roll-up ─▶ seal
//! ```
//!
//! Promises: what a stage does when the next is full stands in [`STAGES`]; stopping drains front to back, so that nothing
//! that was acknowledged is lost on the way.

mod back;
mod online;
mod renewal;
mod sending;
mod stopping;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nearside_actors::board::Board;
use nearside_actors::checkpoint::{CheckpointMetrics, Checkpointer};
use nearside_actors::feedback::FeedbackDesk;
use nearside_actors::guardian::Guardian;
use nearside_actors::handover::{self, PATIENCE};
use nearside_actors::ingest::Ingest;
use nearside_actors::recovery::Progress;
use nearside_actors::rollup::RollUpMessage;
use nearside_actors::rules::Rules;
use nearside_actors::rules_stage::RulesMessage;
use nearside_broker::{FrontDoor, Ports, Recovery, SessionStore};
use nearside_config::SiteConfig;
use nearside_console::Console;
use nearside_deadletters::DeadLetters;
use nearside_journal::{Checkpoint, CheckpointStore, CommitOutcome, EpochKind, Lsn, Reader, Record};
use nearside_models::artefact::Library;
use nearside_outbox::OutboxHandle;
use nearside_privacy::KeyRing;
use nearside_schemas::Clock;
use nearside_telemetry::{Metric, Telemetry};
use nearside_uplink::Uplink;
use tokio::{sync::watch, task::JoinHandle};

use self::back::Back;
use self::online::Learning;
pub use self::online::check_learning;
use crate::error::StartError;
use crate::feedback::{self, GiveFeedback};
use crate::heart::{Earlier, Heart, Start};
use crate::middle::{self, Around, Closed, Current, Middle, Recent};
use crate::model_set::{self, ModelSet, Resumed};
use crate::publisher::Publisher;
use crate::view::{GatewayView, Parts};

/// One stage of the pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// Its name in metrics, on the console and in docs/architecture.md.
    pub name: &'static str,
    /// What bounds its queue.
    pub bound: &'static str,
    /// What happens when the bound is met.
    pub when_full: &'static str,
    /// What it runs on.
    pub runs_on: &'static str,
}

/// The stages, in the order in which a reading meets them. Shutdown goes down this table.
pub const STAGES: &[Stage] = &[
    Stage {
        name: "front-door",
        bound: "broker.receive_maximum a connection",
        when_full: "the connection is not read",
        runs_on: "tokio",
    },
    Stage {
        name: "ingest",
        bound: "streams.shard_credit, streams.stream_credit",
        when_full: "the connection is not read",
        runs_on: "tokio",
    },
    Stage { name: "journal", bound: "journal.queue bytes", when_full: "ingest waits", runs_on: "1 thread" },
    Stage {
        name: "streams",
        bound: "credit",
        when_full: "cannot be: credit comes first",
        runs_on: "streams.shards arbiters",
    },
    Stage {
        name: "inference",
        bound: "credit; inference.queue rows for each priority",
        when_full: "rows stay unjudged and are counted",
        runs_on: "inference.threads a model",
    },
    Stage { name: "rules", bound: "4096 messages", when_full: "streams wait", runs_on: "1 thread" },
    Stage { name: "rollup", bound: "4096 messages", when_full: "streams wait", runs_on: "1 thread" },
    Stage { name: "seal", bound: "4096 messages", when_full: "streams wait", runs_on: "1 thread" },
    Stage {
        name: "outbox",
        bound: "outbox.queue items, outbox.quota bytes",
        when_full: "seal waits; past the quota the oldest of the least urgent class is shed",
        runs_on: "1 thread",
    },
    Stage { name: "uplink", bound: "uplink.inflight items", when_full: "items stay in the outbox", runs_on: "tokio" },
];

/// Messages that a stage with a thread of its own may have waiting.
const STAGE_BOUND: usize = 4_096;
/// Commands that may wait for the broker.
const COMMAND_BOUND: usize = 1_024;
/// Findings and commands that the console remembers.
pub const BOARD_BOUND: usize = 1_000;

/// What in the data folder is sealed with the site's key.
pub const SEALED: &[&str] = &["journal", "checkpoint.redb", "outbox.redb", "sessions.redb", "deadletters"];

/// What a gateway is given beside its configuration: everything that is not the same in every run (promise I5).
pub struct Surroundings {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The seed of the uplink's pauses.
    pub seed: u64,
    /// Where relative paths begin.
    pub base: PathBuf,
    /// Findings and commands that are remembered for the console and for a closing report; [`BOARD_BOUND`] is usual.
    pub board: usize,
}

/// A running gateway.
pub struct Gateway {
    front_door: FrontDoor,
    console: JoinHandle<()>,
    console_addr: std::net::SocketAddr,
    config: SiteConfig,
    library: Library,
    models: ModelSet,
    /// Digests of models that failed when they were in force.
    avoided: BTreeSet<String>,
    trial: Option<renewal::Trial>,
    has_waiting_models: bool,
    learning: Option<Learning>,
    current: Arc<Current>,
    around: Around,
    store: Arc<CheckpointStore>,
    outbox: OutboxHandle,
    uplink: Option<(JoinHandle<()>, watch::Sender<bool>)>,
    /// Recovers, then lets time pass and takes checkpoints; gives the checkpointer back for the last one. `None` once it has ended.
    heart: (Option<JoinHandle<Option<Checkpointer>>>, watch::Sender<bool>),
    /// Whether a heart stopped by a fault.
    has_failed: Arc<AtomicBool>,
    guardian: Arc<Guardian>,
    /// What a heart that has ended gave back.
    checkpointer: Option<Checkpointer>,
    /// Keeps readings out while a configuration is put in force.
    gate: Option<Closed>,
    progress: Arc<Progress>,
    recovery: Recovery,
    /// Sends commands; and how many wait.
    commands: (JoinHandle<()>, Box<dyn Fn() -> usize + Send + Sync>),
    stop: watch::Sender<bool>,
    clock: Arc<dyn Clock>,
}

impl Gateway {
    /// Starts every stage, back to front, and opens the front door last.
    ///
    /// # Errors
    /// Where a file, a port or a model cannot be used; nothing is left running then.
    pub async fn start(config: &SiteConfig, surroundings: Surroundings) -> Result<Self, StartError> {
        let Surroundings { clock, seed, base, board } = surroundings;
        let telemetry = Telemetry::new();
        let board = Arc::new(Board::new(board));
        let data = base.join(&config.site.data_dir);
        create_private(&data).map_err(|source| StartError::DataFolder { path: data.clone(), source })?;
        let keys = Arc::new(KeyRing::of_folder(&data, &data.join(&config.privacy.key_file), SEALED)?);
        let letters = DeadLetters::open(&data.join("deadletters"), &config.deadletters, keys.clone(), &telemetry)?;
        let library = model_set::library(config, &base, Some(keys.clone()));
        let mut back = Back::start(config, &base, &library, keys, letters.clone(), &clock, &telemetry)?;
        back.restore_board(&board);
        let (desk, answers) = FeedbackDesk::new(&telemetry, board.clone());
        let around = Around {
            journal: back.journal.clone(),
            keys: back.keys.clone(),
            letters,
            recall: back.recall.clone(),
            seal: back.seal.clone(),
            rules: back.rules.clone(),
            rollup: back.rollup.clone(),
            telemetry: telemetry.clone(),
            board: board.clone(),
            desk,
            recent: online::recent(config),
            awake: Arc::new(back.awake()),
        };
        let Resumed { models, tried, is_renewable, refusals } = ModelSet::resume(config, &library, &library.failed())?;
        model_set::report(&refusals, &telemetry);
        check_learning(&config.models.online, &library)?;
        let current = Current::new(Middle::build(config, &models, &around, back.begins_at)?);
        models.came_in_force(&ModelSet::default(), &telemetry);
        models.keep(&library, &tried);
        // Until recovery is over.
        let closed = current.close().await;
        let guardian = Arc::new(Guardian::default());
        guardian.watch("rules", back.rules.watch_life());
        guardian.watch("rollup", back.rollup.watch_life());
        guardian.watch("seal", back.seal.watch_life());
        guardian.watch("journal", back.journal.watch_life());
        guardian.watch("outbox", back.outbox.watch_life());
        let has_failed = Arc::new(AtomicBool::new(false));
        let heart = has_failed.clone();
        guardian.watch("heart", move || !heart.load(Ordering::Acquire));
        let watched = Arc::downgrade(&current);
        guardian.watch("streams", move || watched.upgrade().is_some_and(|current| current.get().is_alive()));
        let (stop, stopped) = watch::channel(false);
        let uplink = match &config.uplink {
            Some(uplink) => {
                let (mut uplink, site, outbox) = (uplink.clone(), config.site.id.clone(), back.outbox.clone());
                uplink.password_file = uplink.password_file.map(|path| base.join(path));
                let metrics = telemetry.clone();
                let make = move || Uplink::new(uplink.clone(), site.clone(), outbox.clone(), seed, &metrics);
                let mut first = Some(make()?);
                let (stop, stopped) = watch::channel(false);
                let run = move || {
                    let made = first.take().map_or_else(&make, Ok);
                    let stopped = stopped.clone();
                    async move {
                        match made {
                            Ok(uplink) => uplink.run(stopped, Duration::from_secs(5)).await,
                            Err(error) => tracing::error!(%error, "the uplink cannot be made again"),
                        }
                    }
                };
                let guarded = guardian.clone().guard("uplink", 5, clock.clone(), telemetry.clone(), run);
                Some((tokio::spawn(guarded), stop))
            }
            None => None,
        };
        let ports = Ports {
            intake: current.clone(),
            clock: clock.clone(),
            store: SessionStore::File { path: data.join("sessions.redb"), keys: back.keys.clone() },
            recovery: Recovery::expected(back.begins_at.0),
            base,
        };
        let recovery = ports.recovery.clone();
        let front_door = FrontDoor::open(config.broker.clone(), ports, &telemetry).await?;
        let publisher = Arc::new(Publisher(front_door.publisher()));
        let waiting = back.commands.watch_depth();
        tokio::spawn(feedback::publish_answers(answers, front_door.publisher()));
        let commands = tokio::spawn(back.commands.run(publisher, clock.clone(), telemetry.clone(), board.clone()));
        let sends = commands.abort_handle();
        guardian.watch("commands", move || !sends.is_finished());
        let progress = Arc::new(Progress::default());
        let parts = Parts {
            progress: progress.clone(),
            guardian: guardian.clone(),
            clock: clock.clone(),
            telemetry: telemetry.clone(),
            board: board.clone(),
            current: current.clone(),
            outbox: back.outbox.clone(),
            journal: back.journal.clone(),
            depths: vec![back.rules.watch_depth(), back.rollup.watch_depth(), back.seal.watch_depth()],
        };
        let view = GatewayView::new(config, parts);
        let giving = GiveFeedback {
            current: current.clone(),
            progress: progress.clone(),
            credentials: front_door.credentials(),
            clock: clock.clone(),
        };
        let console = Console::bind(config.console.clone(), Arc::new(view), Arc::new(giving)).await?;
        let console_addr = console.local_addr();
        let console = tokio::spawn(console.run(stopped));
        telemetry.gauge(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")]).set(1.0);
        telemetry.gauge(Metric::StartTime, &[]).set(clock.now().as_secs_f64());
        let mut gateway = Self {
            config: config.clone(),
            avoided: library.failed(),
            library,
            models,
            trial: None,
            has_waiting_models: is_renewable,
            learning: None,
            heart: (None, watch::Sender::new(true)),
            has_failed,
            guardian,
            checkpointer: None,
            gate: Some(closed),
            front_door,
            console,
            console_addr,
            current,
            around,
            store: back.store,
            outbox: back.outbox,
            uplink,
            progress,
            recovery,
            commands: (commands, Box::new(waiting)),
            stop,
            clock,
        };
        let earlier = back.earlier.map(|earlier| gateway.earlier(&earlier, back.begins_at)).transpose()?;
        gateway.start_heart(Start { checkpoint: back.checkpoint, reader: back.reader, earlier }, back.begins_at);
        gateway.note(EpochKind::Start, config, &gateway.models).await;
        gateway.models.note(&gateway.library);
        gateway.begin_trial(&tried);
        gateway.learning =
            Learning::start(&gateway.config.models.online, &gateway.library, &gateway.around, &gateway.clock)?;
        Ok(gateway)
    }

    /// Parts that have ended by a fault and that only another start puts together again: what is acknowledged meanwhile stays in the
    /// journal, and somebody should call [`Gateway::stop`].
    pub fn ended(&self) -> Vec<&'static str> {
        self.guardian.needs_a_start()
    }

    /// Items in the outbox, where there is a cloud to send them to; and whether it is connected.
    pub fn waiting_for_cloud(&self) -> (u64, bool) {
        let waiting = self.uplink.as_ref().map_or(0, |_| self.outbox.stats().waiting());
        (waiting, sending::is_connected(&self.around.telemetry))
    }

    /// Where devices connect.
    pub fn broker_addr(&self) -> std::net::SocketAddr {
        self.front_door.local_addr()
    }

    /// Where devices connect with TLS, if they can.
    pub const fn broker_tls_addr(&self) -> Option<std::net::SocketAddr> {
        self.front_door.tls_addr()
    }

    /// Where the console listens.
    pub const fn console_addr(&self) -> std::net::SocketAddr {
        self.console_addr
    }

    /// The metrics.
    pub const fn telemetry(&self) -> &Telemetry {
        &self.around.telemetry
    }

    /// The folder of models that the site brings itself.
    pub fn models_folder(&self) -> Option<&Path> {
        self.library.folder()
    }

    /// The last findings and commands.
    pub const fn board(&self) -> &Arc<Board> {
        &self.around.board
    }

    /// The intake, for figures.
    pub fn ingest(&self) -> Arc<Ingest> {
        self.current.get().ingest.clone()
    }

    /// The middle that takes in checkpoint and journal under the configuration from before.
    fn earlier(&self, config: &SiteConfig, begins_at: Lsn) -> Result<Earlier, StartError> {
        let (models, _) = ModelSet::load(config, &self.library, &self.models, &self.avoided)?;
        // Not what waits in the folder, but what was in force.
        let models = models.with(self.models.names(), &self.models);
        // Nothing is learnt from the streams of a configuration that goes.
        let around = Around { recent: Recent::new(), ..self.around.clone() };
        let middle = Arc::new(Middle::build(config, &models, &around, begins_at)?);
        Ok(Earlier {
            checkpointer: self.checkpointer_of(&middle),
            middle,
            changed: middle::changed_streams(config, &self.config),
            rules: Box::new(Rules::new(&self.config.rules).map_err(nearside_actors::ActorError::from)?),
            rollup: self.config.rollup.clone(),
            source: self.config.source.clone(),
        })
    }

    fn checkpointer_of(&self, middle: &Middle) -> Checkpointer {
        let Around { journal, seal, rules, rollup, telemetry, board, .. } = self.around.clone();
        Checkpointer {
            ingest: middle.ingest.clone(),
            plans: middle.plans.clone(),
            rules,
            rollup,
            seal,
            outbox: self.outbox.clone(),
            journal,
            store: self.store.clone(),
            board,
            forget: Vec::new(),
            covered: None,
            metrics: CheckpointMetrics::new(&telemetry),
        }
    }

    /// Starts to recover and to beat; readings are taken again once recovery is over.
    fn start_heart(&mut self, start: Start, begins_at: Lsn) {
        let heart = Heart {
            checkpointer: self.checkpointer_of(&self.current.get()),
            start,
            begins_at,
            progress: self.progress.clone(),
            recovery: self.recovery.clone(),
            clock: self.clock.clone(),
            tick: self.config.limits.tick.get(),
            telemetry: self.around.telemetry.clone(),
            has_failed: self.has_failed.clone(),
        };
        let (stop, stopped) = watch::channel(false);
        self.heart = (Some(tokio::spawn(heart.run(stopped, self.gate.take()))), stop);
    }

    /// Stops time; gives the checkpointer back, or `None` where recovery was not over. Who stops waiting may ask again.
    async fn stop_heart(&mut self) -> Option<Checkpointer> {
        self.heart.1.send_replace(true);
        if let Some(heart) = &mut self.heart.0 {
            self.checkpointer = heart.await.ok().flatten();
            self.heart.0 = None;
        }
        self.checkpointer.take()
    }

    /// Records that configuration and models are in force from here on. Everything recorded before has been handed on when this returns.
    /// The number is that of the next record.
    async fn note(&self, kind: EpochKind, config: &SiteConfig, models: &ModelSet) -> Option<Lsn> {
        let digest = nearside_schemas::digest(format!("{config:?}{:?}", models.digests()).as_bytes());
        let record = Record::Epoch { kind, digest, at: self.clock.now() };
        match self.around.journal.commit(vec![record]).await {
            CommitOutcome::Durable { first } => Some(Lsn(first.0 + 1)),
            CommitOutcome::QuotaExceeded | CommitOutcome::Failed => None,
        }
    }

    /// Goes on under another configuration of streams, rules, models and roll-ups: no connection ends, no reading is lost, windows of
    /// streams that are defined as before stay open. Gives back the sections that only another start puts in force. Gives up where
    /// `stopping` becomes true: then only [`Gateway::stop`] may follow.
    ///
    /// # Errors
    /// Where the configuration cannot be put in force; then everything is as before.
    pub async fn reload(
        &mut self,
        config: &SiteConfig,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Vec<&'static str>, StartError> {
        let (models, refusals) = ModelSet::load(config, &self.library, &self.models, &self.avoided)?;
        model_set::report(&refusals, self.telemetry());
        self.go_on_under(config, models, EpochKind::Configuration, stopping).await
    }

    /// Goes on under a configuration and models, as [`Gateway::reload`] says.
    async fn go_on_under(
        &mut self,
        config: &SiteConfig,
        models: ModelSet,
        kind: EpochKind,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Vec<&'static str>, StartError> {
        // What may be wrong with it is found before anything is touched.
        middle::plan(config, &models, &self.around.recent)?;
        let rules = Rules::new(&config.rules).map_err(nearside_actors::ActorError::from)?;
        if !self.progress.is_done() {
            return Err(StartError::Reload("the gateway is still taking in its journal"));
        }
        let closing = tokio::time::timeout(PATIENCE, self.current.close());
        let Ok(closed) = unless_stopping(stopping, closing).await? else {
            return Err(StartError::Reload("connections are waiting for full streams"));
        };
        self.gate = Some(closed);
        // Cut off at any place it leaves what `stop` can end: the gate is closed, and whatever streams have given is safe or in the journal.
        match unless_stopping(stopping, self.put_in_force(config, models, kind, rules)).await? {
            Ok(waits) => Ok(waits),
            Err(error) => {
                self.start_heart(Start::going_on(), Lsn(0));
                Err(error)
            }
        }
    }

    /// Replaces the middle, while the gate is closed.
    async fn put_in_force(
        &mut self,
        config: &SiteConfig,
        models: ModelSet,
        kind: EpochKind,
        rules: Rules,
    ) -> Result<Vec<&'static str>, StartError> {
        let Some(mut checkpointer) = self.stop_heart().await else {
            return Err(StartError::Reload("the last checkpoint ended by a fault; start again"));
        };
        let old = self.current.get();
        // Before any window is closed.
        let middle = Middle::build(config, &models, &self.around, Lsn(0))?;
        let (checkpoint, begins_at) = match self.hand_over(&mut checkpointer, config, &models, kind).await {
            Ok(handed_over) => handed_over,
            Err(error) => {
                middle.stop();
                return Err(error);
            }
        };
        middle.begin_at(begins_at).await;
        self.around.rules.send_async(RulesMessage::Reload(Box::new(rules))).await;
        self.around.rollup.send_async(RollUpMessage::Reload(config.rollup.clone())).await;
        self.current.replace(middle);
        old.stop();
        models.came_in_force(&self.models, &self.around.telemetry);
        let before = std::mem::replace(&mut self.models, models);
        // After the epoch: cut off in between, the next start goes on with the versions before, and there is nothing to take in again.
        self.models.note(&self.library);
        self.begin_trial(&before);
        let waits = middle::sections_that_wait(&self.config, config);
        let mut in_force = config.clone();
        let kept = self.config.clone();
        let SiteConfig { site, broker, journal, privacy, outbox, uplink, console, models, deadletters, .. } = kept;
        (in_force.site, in_force.broker, in_force.journal, in_force.privacy) = (site, broker, journal, privacy);
        (in_force.outbox, in_force.uplink, in_force.console, in_force.models) = (outbox, uplink, console, models);
        in_force.deadletters = deadletters;
        self.config = in_force;
        self.start_heart(Start { checkpoint, reader: Reader::empty(), earlier: None }, begins_at);
        Ok(waits)
    }

    /// Closes the windows of changed definitions and puts the other configuration in force on disk. Gives what its streams go on from, and
    /// the number of the next record.
    async fn hand_over(
        &self,
        checkpointer: &mut Checkpointer,
        config: &SiteConfig,
        models: &ModelSet,
        kind: EpochKind,
    ) -> Result<(Checkpoint, Lsn), StartError> {
        let changed = middle::changed_streams(&self.config, config);
        let unwritten = || StartError::Reload("not everything could be judged, or journal and checkpoint written");
        if !handover::close(checkpointer, &changed, self.clock.now(), false).await {
            return Err(unwritten());
        }
        let begins_at = self.note(kind, config, models).await.ok_or_else(unwritten)?;
        Ok((handover::commit(&self.store, &changed, &config.source)?, begins_at))
    }
}

/// What `work` gives, unless the gateway is told to stop first.
async fn unless_stopping<T>(stopping: &watch::Receiver<bool>, work: impl Future<Output = T>) -> Result<T, StartError> {
    let mut stopping = stopping.clone();
    tokio::select! {
        done = work => Ok(done),
        _ = stopping.wait_for(|stop| *stop) => Err(StartError::Reload("the gateway stops")),
    }
}

/// Makes a folder that only its owner can look into.
fn create_private(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
