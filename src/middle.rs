//! The middle of the pipeline: ingest, streams and inference. A reload replaces it as a whole while connections, journal and everything
//! behind the streams stay.
//!
//! Promises: nothing is taken while the middle is replaced; connections wait, unacknowledged (promise I1).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use actix::{Actor, Addr, Arbiter};
use nearside_actors::awake::Awake;
use nearside_actors::board::Board;
use nearside_actors::credit::ShardCredit;
use nearside_actors::feedback::{FeedbackDesk, FeedbackReply};
use nearside_actors::handover;
use nearside_actors::inference::{self, InferenceQueues};
use nearside_actors::ingest::{Ingest, IngestSetup, ShardHandle};
use nearside_actors::outlet::{Downstream, Outlet};
use nearside_actors::recall::Recall;
use nearside_actors::rollup::RollUpMessage;
use nearside_actors::rules::Rules;
use nearside_actors::rules_stage::RulesMessage;
use nearside_actors::seal::SealMessage;
use nearside_actors::stage::StageSender;
use nearside_actors::stream::{BeginAt, PlannedModel, Shard, ShardSetup, StreamPlan};
use nearside_config::SiteConfig;
use nearside_deadletters::DeadLetters;
use nearside_journal::{Checkpoint, JournalHandle, Lsn};
use nearside_models::ModelError;
use nearside_models::artefact::Library;
use nearside_models::recent::RecentRows;
use nearside_models::row_model::RowModel;
use nearside_privacy::KeyRing;
use nearside_schemas::{
    Answer, BoxFuture, Feedback, FeedbackOutcome, Intake, KeyPurpose, KeySource, ModelName, Publish, StreamName,
};
use nearside_telemetry::{Metric, Telemetry};
use nearside_window::WindowPlan;
use parking_lot::RwLock;
use tokio::sync::OwnedRwLockWriteGuard;

use crate::error::StartError;
use crate::model_set::ModelSet;

/// The stream definitions made ready, and the models with a network, one a queue.
pub type Plans = (Vec<Arc<StreamPlan>>, Vec<Arc<dyn RowModel>>);

/// The recent rows of models that learn online.
pub type Recent = BTreeMap<ModelName, Arc<RecentRows>>;

/// Makes every stream definition ready with its models.
pub fn plan(config: &SiteConfig, set: &ModelSet, recent: &Recent) -> Result<Plans, StartError> {
    let mut networks: Vec<Arc<dyn RowModel>> = Vec::new();
    let mut plans = Vec::new();
    for (index, definition) in config.streams.iter().enumerate() {
        let windows = WindowPlan::of_stream(&definition.spec, &definition.windows, definition.guard.clone())
            .map_err(|source| StartError::Window { stream: definition.spec.name.to_string(), source })?;
        let mut models = Vec::new();
        for name in &definition.models {
            let model = set.get(name)?.model.clone();
            model.accepts(&definition.spec.fields)?;
            let queue = (model.input_width() > 0).then(|| queue_of(&mut networks, &model));
            models.push(PlannedModel { model, queue, recent: recent.get(name).cloned() });
        }
        let is_of_patients = models.iter().any(|planned| planned.model.judges_patients());
        if let Some(learns) = models.iter().find(|planned| is_of_patients && planned.recent.is_some()) {
            let why = "it learns online, and a model for patients judges the same stream; take it out of [models.online], or use a copy \
                       of it under another name there";
            let model = learns.model.reference().name.to_string();
            return Err(ModelError::Unfit { model, why: why.to_owned() }.into());
        }
        plans.push(Arc::new(StreamPlan {
            site: config.site.id.clone(),
            index,
            spec: Arc::new(definition.spec.clone()),
            finding_retention: windows.retention(),
            windows,
            models,
            priority: definition.priority,
            min_rows: definition.min_rows,
            silent_after: definition.silent_after,
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

/// What the middle is built between; it outlives it.
#[derive(Clone)]
pub struct Around {
    /// Where messages are recorded.
    pub journal: JournalHandle,
    /// The keys.
    pub keys: Arc<KeyRing>,
    /// Where messages go that could not be read.
    pub letters: DeadLetters,
    /// Where messages go that panicked what is behind the journal.
    pub recall: Recall,
    /// The stages behind the streams.
    pub seal: StageSender<SealMessage>,
    /// See `seal`.
    pub rules: StageSender<RulesMessage>,
    /// See `seal`.
    pub rollup: StageSender<RollUpMessage>,
    /// The metrics.
    pub telemetry: Telemetry,
    /// The last findings and commands.
    pub board: Arc<Board>,
    /// Where feedback comes in.
    pub desk: Arc<FeedbackDesk>,
    /// The recent rows of models that learn online.
    pub recent: Recent,
    /// Since when the gateway has listened.
    pub awake: Arc<Awake>,
}

/// Ingest, streams and inference of one configuration.
pub struct Middle {
    /// The stream definitions.
    pub plans: Vec<Arc<StreamPlan>>,
    /// The intake.
    pub ingest: Arc<Ingest>,
    /// Where streams hand on what they have.
    pub outlet: Arc<Outlet>,
    /// The inference queues.
    pub queues: InferenceQueues,
    shards: Vec<(Arbiter, Addr<Shard>)>,
}

impl Middle {
    /// Builds and starts it; `begins_at` is the first record that it takes from devices.
    ///
    /// # Errors
    /// Where a model does not fit its stream or a thread cannot be started.
    pub fn build(config: &SiteConfig, set: &ModelSet, around: &Around, begins_at: Lsn) -> Result<Self, StartError> {
        let (plans, networks) = plan(config, set, &around.recent)?;
        let Around { journal, keys, letters, recall, seal, rules, rollup, telemetry, board, desk, awake, .. } = around;
        let to = Downstream {
            seal: seal.clone(),
            rules: rules.clone(),
            rules_want_summaries: config.rules.iter().any(|rule| rule.on == nearside_actors::RuleSubject::Summary),
            rollup: config.rollup.enabled.then(|| rollup.clone()),
            board: board.clone(),
            keys: keys.clone(),
            recall: recall.clone(),
        };
        let outlet = Arc::new(Outlet::new(&plans, telemetry, to));
        let (queues, _workers) = inference::start(&networks, &config.inference, telemetry)?;
        let shards = start_shards(config, &plans, &queues, &outlet, begins_at, telemetry);
        let handles = shards.iter().map(|(_, handle)| handle.clone()).collect();
        let setup = IngestSetup {
            journal: journal.clone(),
            outlet: outlet.clone(),
            letters: letters.clone(),
            stream_secret: keys.derive(KeyPurpose::StreamIds, b"v1"),
            max_streams: config.limits.max_streams,
            desk: desk.clone(),
            awake: awake.clone(),
        };
        let ingest = Ingest::new(&plans, handles, setup, telemetry)?;
        let shards = shards.into_iter().map(|(arbiter, handle)| (arbiter, handle.address)).collect();
        Ok(Self { plans, ingest: Arc::new(ingest), outlet, queues, shards })
    }

    /// Whether every thread is there.
    pub fn is_alive(&self) -> bool {
        self.ingest.shards_live() && self.queues.is_alive()
    }

    /// From now on the first record that it takes from devices is this one.
    pub async fn begin_at(&self, lsn: Lsn) {
        for (_, address) in &self.shards {
            // A shard that has ended is seen by health.
            let _ = address.send(BeginAt(lsn)).await;
        }
    }

    /// Ends its threads.
    pub fn stop(&self) {
        self.outlet.end();
        for (arbiter, _) in &self.shards {
            arbiter.stop();
        }
    }
}

fn start_shards(
    config: &SiteConfig,
    plans: &[Arc<StreamPlan>],
    queues: &InferenceQueues,
    outlet: &Arc<Outlet>,
    begins_at: Lsn,
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
                checkpoint_after: limits.checkpoint_after.get(),
                begins_at,
            };
            let arbiter = Arbiter::new();
            let address = Shard::start_in_arbiter(&arbiter.handle(), move |ctx| Shard::new(setup, ctx));
            (arbiter, ShardHandle { address, credit })
        })
        .collect()
}

/// The middle that is in force, and whether it takes readings.
pub struct Current {
    /// Held for reading by whoever hands a batch in, for writing while nothing may be taken.
    gate: Arc<tokio::sync::RwLock<()>>,
    middle: RwLock<Arc<Middle>>,
}

/// While it lives nothing is taken, and nobody is in the middle of handing a batch in.
pub type Closed = OwnedRwLockWriteGuard<()>;

impl Current {
    /// This one.
    pub fn new(middle: Middle) -> Arc<Self> {
        Arc::new(Self { gate: Arc::default(), middle: RwLock::new(Arc::new(middle)) })
    }

    /// The middle in force.
    pub fn get(&self) -> Arc<Middle> {
        self.middle.read().clone()
    }

    /// Another one from now on.
    pub fn replace(&self, middle: Middle) {
        *self.middle.write() = Arc::new(middle);
    }

    /// Takes feedback in, as [`Ingest::take_feedback`] says; on a stream that nobody knows it is answered without a record.
    pub async fn give_feedback(&self, publish: Publish, reply: FeedbackReply) {
        let _taken = self.gate.read().await;
        let middle = self.get();
        match Feedback::read(&publish.payload, publish.received) {
            Err(error) => reply(Ok(FeedbackOutcome::Malformed(error))),
            Ok(feedback) if !middle.ingest.knows(&feedback) => reply(Ok(FeedbackOutcome::Unknown)),
            Ok(_) => middle.ingest.take_feedback(publish, reply).await,
        }
    }

    /// Closes the gate once nobody is in it.
    pub async fn close(&self) -> Closed {
        self.gate.clone().write_owned().await
    }
}

impl Intake for Current {
    fn pass(&self, batch: &[Publish]) -> bool {
        self.gate.try_read().is_ok_and(|_taken| self.middle.read().ingest.pass(batch))
    }

    fn submit(&self, batch: Vec<Publish>, answer: Answer) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _taken = self.gate.read().await;
            self.get().ingest.take(batch, answer).await;
        })
    }
}

/// The names of definitions whose windows another configuration cannot go on with.
pub fn changed_streams(old: &SiteConfig, new: &SiteConfig) -> Vec<StreamName> {
    let goes_on = |name: &StreamName| {
        let of = |config: &SiteConfig| config.streams.iter().find(|stream| stream.spec.name == *name).cloned();
        let (old, new) = (of(old), of(new));
        old.zip(new).is_some_and(|(old, new)| (old.spec, old.windows, old.guard) == (new.spec, new.windows, new.guard))
    };
    old.streams.iter().map(|stream| stream.spec.name.clone()).filter(|name| !goes_on(name)).collect()
}

/// Sections that differ and that only another start puts in force.
pub fn sections_that_wait(old: &SiteConfig, new: &SiteConfig) -> Vec<&'static str> {
    let sections = [
        ("[site]", old.site != new.site),
        ("[broker]", old.broker != new.broker),
        ("[journal]", old.journal != new.journal),
        ("[privacy]", old.privacy != new.privacy),
        ("[deadletters]", old.deadletters != new.deadletters),
        ("[outbox]", old.outbox != new.outbox),
        ("[uplink]", old.uplink != new.uplink),
        ("[models]", old.models != new.models),
        ("[console]", old.console != new.console),
    ];
    sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// The text of the configuration in force, as a checkpoint holds it.
pub fn saved_configuration(checkpoint: &Checkpoint) -> Option<&[u8]> {
    checkpoint.part(handover::SAVED_NAME)
}

/// What the gateway ended under, with today's files and ports; `None` where `config` says the same of streams, rules and roll-ups, or
/// where it is not known or cannot be started any more.
pub fn ended_under(checkpoint: &Checkpoint, config: &SiteConfig, base: &Path, library: &Library) -> Option<SiteConfig> {
    let source = std::str::from_utf8(saved_configuration(checkpoint)?).ok()?;
    if source.is_empty() || source == &*config.source {
        return None;
    }
    let lost =
        "the configuration that the gateway ended under cannot be used: open windows of changed streams are lost";
    let saved = match nearside_config::parse(source, &base.join("configuration before")) {
        Ok(saved) => saved,
        Err(error) => {
            tracing::warn!(%error, "{lost}");
            return None;
        }
    };
    let earlier = SiteConfig { streams: saved.streams, rules: saved.rules, rollup: saved.rollup, ..config.clone() };
    let says_the_same =
        (&earlier.streams, &earlier.rules, &earlier.rollup) == (&config.streams, &config.rules, &config.rollup);
    if says_the_same {
        return None;
    }
    let models = ModelSet::load(&earlier, library, &ModelSet::default(), &library.failed());
    if models.is_ok_and(|(models, _)| plan(&earlier, &models, &Recent::new()).is_ok())
        && Rules::new(&earlier.rules).is_ok()
    {
        return Some(earlier);
    }
    tracing::warn!("{lost}");
    None
}
