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

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter};
use nearside_actors::board::Board;
use nearside_actors::credit::ShardCredit;
use nearside_actors::inference;
use nearside_actors::ingest::{Ingest, ShardHandle};
use nearside_actors::outlet::Outlet;
use nearside_actors::rollup::{RollUpMessage, RollUps};
use nearside_actors::rules::Rules;
use nearside_actors::rules_stage::{CommandPublisher, CommandQueue, RulesMessage, RulesStage};
use nearside_actors::seal::{SealMessage, Sealer};
use nearside_actors::stage::{self, StageSender};
use nearside_actors::stream::{DrainShard, PlannedModel, Shard, ShardSetup, StreamPlan};
use nearside_broker::{FrontDoor, LocalPublisher, Ports, SessionStore};
use nearside_config::SiteConfig;
use nearside_console::Console;
use nearside_journal::{Journal, JournalHandle};
use nearside_models::row_model::RowModel;
use nearside_outbox::{Outbox, OutboxHandle};
use nearside_privacy::KeyRing;
use nearside_schemas::{BoxFuture, Clock, Command, KeyPurpose, KeySource};
use nearside_telemetry::{Metric, Telemetry};
use nearside_uplink::Uplink;
use nearside_window::WindowPlan;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::StartError;
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
        bound: "credit",
        when_full: "cannot be: credit comes first",
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
const BOARD_BOUND: usize = 1_000;

/// What a gateway is given beside its configuration: everything that is not the same in every run (promise I5).
pub struct Surroundings {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The seed of the uplink's pauses.
    pub seed: u64,
    /// Where relative paths begin.
    pub base: PathBuf,
}

/// A running gateway.
pub struct Gateway {
    front_door: FrontDoor,
    console: JoinHandle<()>,
    console_addr: std::net::SocketAddr,
    ingest: Arc<Ingest>,
    shards: Vec<(Arbiter, Addr<Shard>)>,
    rules: StageSender<RulesMessage>,
    rollup: StageSender<RollUpMessage>,
    seal: StageSender<SealMessage>,
    outbox: OutboxHandle,
    uplink: Option<JoinHandle<()>>,
    ticks: JoinHandle<()>,
    commands: JoinHandle<()>,
    stop: watch::Sender<bool>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    board: Arc<Board>,
}

/// The stages behind the streams.
struct Back {
    journal: JournalHandle,
    outbox: OutboxHandle,
    keys: Arc<KeyRing>,
    seal: StageSender<SealMessage>,
    rules: StageSender<RulesMessage>,
    rules_want_summaries: bool,
    commands: CommandQueue,
    rollup: StageSender<RollUpMessage>,
}

/// The stream definitions made ready, and the models with a network, one a queue.
pub type Plans = (Vec<Arc<StreamPlan>>, Vec<Arc<dyn RowModel>>);

/// Loads the models and makes every stream definition ready.
pub fn plan(config: &SiteConfig) -> Result<Plans, StartError> {
    let mut networks: Vec<Arc<dyn RowModel>> = Vec::new();
    let mut plans = Vec::new();
    for (index, definition) in config.streams.iter().enumerate() {
        let windows = WindowPlan::new(&definition.spec.fields, &definition.windows, definition.guard.clone())
            .map_err(|source| StartError::Window { stream: definition.spec.name.to_string(), source })?;
        let mut models = Vec::new();
        for name in &definition.models {
            let model = nearside_models::catalog::load(name.as_str(), None)?;
            model.accepts(&definition.spec.fields)?;
            let queue = (model.input_width() > 0).then(|| queue_of(&mut networks, &model));
            models.push(PlannedModel { model, queue });
        }
        plans.push(Arc::new(StreamPlan {
            site: config.site.id.clone(),
            index,
            spec: Arc::new(definition.spec.clone()),
            finding_retention: windows.retention(),
            windows,
            models,
            min_rows: definition.min_rows,
            judge_deadline: config.inference.deadline.get(),
            panics_per_minute: config.limits.panics_per_minute,
        }));
    }
    Ok((plans, networks))
}

/// The queue of a model: streams that name the same model share it.
fn queue_of(networks: &mut Vec<Arc<dyn RowModel>>, model: &Arc<dyn RowModel>) -> usize {
    let known = networks.iter().position(|known| known.reference() == model.reference());
    known.unwrap_or_else(|| {
        networks.push(model.clone());
        networks.len() - 1
    })
}

impl Gateway {
    /// Starts every stage, back to front, and opens the front door last.
    ///
    /// # Errors
    /// Where a file, a port or a model cannot be used; nothing is left running then.
    pub async fn start(config: &SiteConfig, surroundings: Surroundings) -> Result<Self, StartError> {
        let Surroundings { clock, seed, base } = surroundings;
        let telemetry = Telemetry::new();
        let board = Arc::new(Board::new(BOARD_BOUND));
        let (plans, networks) = plan(config)?;
        let data = base.join(&config.site.data_dir);
        std::fs::create_dir_all(&data).map_err(|source| StartError::DataFolder { path: data.clone(), source })?;
        let back = Back::start(config, &data, &clock, &telemetry)?;
        let outlet = Arc::new(Outlet::new(
            &plans,
            &telemetry,
            back.seal.clone(),
            back.rules.clone(),
            back.rules_want_summaries,
            config.rollup.enabled.then(|| back.rollup.clone()),
            board.clone(),
        ));
        let (queues, _workers) = inference::start(&networks, &config.inference, &telemetry)?;
        let shards = start_shards(config, &plans, &queues, &outlet, &telemetry);
        let handles = shards.iter().map(|(_, handle)| handle.clone()).collect();
        let secret = back.keys.derive(KeyPurpose::StreamIds, b"v1");
        let ingest = Ingest::new(
            &plans,
            handles,
            back.journal.clone(),
            outlet.clone(),
            secret,
            config.limits.max_streams,
            &telemetry,
        )?;
        let ingest = Arc::new(ingest);
        let (stop, stopped) = watch::channel(false);
        let uplink = match &config.uplink {
            Some(uplink) => {
                let uplink =
                    Uplink::new(uplink.clone(), config.site.id.clone(), back.outbox.clone(), seed, &telemetry)?;
                Some(tokio::spawn(uplink.run(stopped.clone(), Duration::from_secs(5))))
            }
            None => None,
        };
        let ports = Ports {
            intake: ingest.clone(),
            clock: clock.clone(),
            store: SessionStore::File { path: data.join("sessions.redb"), keys: back.keys.clone() },
            base,
        };
        let front_door = FrontDoor::open(config.broker.clone(), ports, &telemetry).await?;
        let publisher = Arc::new(Publisher(front_door.publisher()));
        let commands = tokio::spawn(back.commands.run(publisher, clock.clone(), telemetry.clone(), board.clone()));
        let parts = Parts {
            clock: clock.clone(),
            telemetry: telemetry.clone(),
            board: board.clone(),
            ingest: ingest.clone(),
            outlet,
            outbox: back.outbox.clone(),
            journal: back.journal.clone(),
            queues,
            depths: vec![back.rules.watch_depth(), back.rollup.watch_depth(), back.seal.watch_depth()],
        };
        let view = GatewayView::new(config, parts);
        let console = Console::bind(config.console.clone(), Arc::new(view)).await?;
        let console_addr = console.local_addr();
        let console = tokio::spawn(console.run(stopped.clone()));
        let ticks =
            tokio::spawn(tick(ingest.clone(), back.rollup.clone(), clock.clone(), config.limits.tick.get(), stopped));
        telemetry.gauge(Metric::Ready, &[]).set(1.0);
        telemetry.gauge(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")]).set(1.0);
        telemetry.gauge(Metric::StartTime, &[]).set(clock.now().as_secs_f64());
        Ok(Self {
            front_door,
            console,
            console_addr,
            ingest,
            shards: shards.into_iter().map(|(arbiter, handle)| (arbiter, handle.address)).collect(),
            rules: back.rules,
            rollup: back.rollup,
            seal: back.seal,
            outbox: back.outbox,
            uplink,
            ticks,
            commands,
            stop,
            clock,
            telemetry,
            board,
        })
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
        &self.telemetry
    }

    /// The last findings and commands.
    pub const fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// The intake, for figures.
    pub const fn ingest(&self) -> &Arc<Ingest> {
        &self.ingest
    }

    /// Stops front to back: refuse, let every acknowledged reading be judged, close the windows, seal, commit, send for as
    /// long as `grace` lasts. What was not sent stays in the outbox.
    pub async fn stop(self, grace: Duration) {
        let Self {
            front_door, ingest, shards, rules, rollup, seal, outbox, uplink, ticks, commands, stop, clock, ..
        } = self;
        ticks.abort();
        ingest.refuse();
        front_door.drain(grace).await;
        let deadline = tokio::time::Instant::now() + grace;
        while ingest.in_flight() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for (_, shard) in &shards {
            if let Err(error) = shard.send(DrainShard(clock.now())).await {
                tracing::error!(%error, "a shard did not drain; its readings are in the journal");
            }
        }
        rollup.send_async(RollUpMessage::Drain).await;
        for flushed in [rules.flush().await, rollup.flush().await, seal.flush().await, outbox.flush().await] {
            if !flushed {
                tracing::error!("a stage had ended before the gateway stopped");
            }
        }
        // While the uplink may still send, at most until the grace ends.
        if let Some(uplink) = uplink {
            let until = tokio::time::Instant::now() + grace;
            while outbox.stats().items.iter().sum::<u64>() > 0 && tokio::time::Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            stop.send_replace(true);
            if tokio::time::timeout(grace, uplink).await.is_err() {
                tracing::warn!("the uplink did not end in time");
            }
        }
        stop.send_replace(true);
        commands.abort();
        self.console.abort();
        for (arbiter, _) in shards {
            arbiter.stop();
        }
    }
}

impl Back {
    fn start(
        config: &SiteConfig,
        data: &Path,
        clock: &Arc<dyn Clock>,
        telemetry: &Telemetry,
    ) -> Result<Self, StartError> {
        let keys = Arc::new(KeyRing::load_or_create(&data.join(&config.privacy.key_file))?);
        let (journal, report) = Journal::open(&data.join("journal"), config.journal.clone(), keys.clone(), telemetry)?;
        if !report.damage.is_empty() {
            tracing::warn!(places = report.damage.len(), records = report.records, "the journal has damaged places");
        }
        let journal = journal.handle();
        let outbox = Outbox::open(&data.join("outbox.redb"), &config.outbox, keys.clone(), clock.clone(), telemetry)?;
        let outbox = outbox.handle();
        let format = config.uplink.as_ref().map(|uplink| uplink.format).unwrap_or_default();
        let sealer = Sealer::new(keys.clone(), format, outbox.clone(), telemetry.clone());
        let (seal, _) = stage::start("seal", STAGE_BOUND, telemetry, move |message| sealer.seal(message))?;
        let rules = Rules::new(&config.rules).map_err(nearside_actors::ActorError::from)?;
        let rules_want_summaries = rules.looks_at_summaries();
        let (mut rules, commands) =
            RulesStage::new(rules, journal.clone(), clock.clone(), telemetry.clone(), COMMAND_BOUND);
        let (rules, _) = stage::start("rules", STAGE_BOUND, telemetry, move |message| rules.handle(&message))?;
        let rollups = RollUps::new(config.site.id.clone(), config.rollup.clone());
        let to_seal = seal.clone();
        let (rollup, _) = stage::start("rollup", STAGE_BOUND, telemetry, rollup_handler(rollups, to_seal))?;
        Ok(Self { journal, outbox, keys, seal, rules, rules_want_summaries, commands, rollup })
    }
}

fn rollup_handler(mut rollups: RollUps, seal: StageSender<SealMessage>) -> impl FnMut(RollUpMessage) {
    move |message| {
        let closed = match message {
            RollUpMessage::Summary(summary) => {
                rollups.on_summary(&summary);
                return;
            }
            RollUpMessage::Tick(now) => rollups.on_tick(now),
            RollUpMessage::Drain => rollups.drain(),
        };
        match closed {
            Ok(closed) => {
                for rollup in closed {
                    seal.send(SealMessage::RollUp(rollup));
                }
            }
            Err(error) => tracing::error!(%error, "roll-ups are missing"),
        }
    }
}

fn start_shards(
    config: &SiteConfig,
    plans: &[Arc<StreamPlan>],
    queues: &inference::InferenceQueues,
    outlet: &Arc<Outlet>,
    telemetry: &Telemetry,
) -> Vec<(Arbiter, ShardHandle)> {
    let limits = &config.limits;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = if limits.shards == 0 { cores } else { limits.shards };
    (0..count)
        .map(|index| {
            let gauge = telemetry.gauge(Metric::Credit, &[&index.to_string()]);
            let credit = ShardCredit::new(limits.shard_credit, limits.stream_credit, gauge);
            let setup = ShardSetup {
                index,
                plans: plans.to_vec(),
                queues: queues.clone(),
                outlet: outlet.clone(),
                credit: credit.clone(),
                // Every reading with credit may be a message of its own, its answer another.
                mailbox_bound: 2 * limits.shard_credit + 64,
                retire_after: limits.retire_after.get(),
            };
            let arbiter = Arbiter::new();
            let address = Shard::start_in_arbiter(&arbiter.handle(), move |_| Shard::new(setup));
            (arbiter, ShardHandle { address, credit })
        })
        .collect()
}

/// Lets time pass, as journal records.
async fn tick(
    ingest: Arc<Ingest>,
    rollup: StageSender<RollUpMessage>,
    clock: Arc<dyn Clock>,
    every: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let mut interval = tokio::time::interval(every.max(Duration::from_millis(10)));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {
                let now = clock.now();
                ingest.tick(now).await;
                // A roll-up that is behind hears of time at the next tick.
                rollup.offer(RollUpMessage::Tick(now));
            }
            _ = stop.changed() => return,
        }
    }
}

/// Commands go through the front door like any message to a device.
struct Publisher(LocalPublisher);

impl CommandPublisher for Publisher {
    fn publish<'a>(&'a self, command: &'a Command) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let payload = bytes::Bytes::copy_from_slice(&command.payload);
            self.0.publish(&command.topic, payload, command.qos, command.retain).map_err(|error| error.to_string())
        })
    }
}
