//! The stages behind the streams, started back to front: journal, checkpoint, outbox, seal, rules, roll-ups.

use std::path::Path;
use std::sync::Arc;

use nearside_actors::awake::{self, Awake};
use nearside_actors::board::{self, Board};
use nearside_actors::handover;
use nearside_actors::recall::Recall;
use nearside_actors::rollup::{RollUpMessage, RollUps};
use nearside_actors::rules::Rules;
use nearside_actors::rules_stage::{CommandQueue, RulesMessage, RulesStage};
use nearside_actors::seal::{SealMessage, Sealer};
use nearside_actors::stage::{self, StageSender};
use nearside_config::SiteConfig;
use nearside_deadletters::DeadLetters;
use nearside_journal::{Checkpoint, CheckpointStore, DirectoryStorage, Journal, JournalHandle, Lsn, Reader};
use nearside_models::artefact::Library;
use nearside_outbox::{Outbox, OutboxHandle};
use nearside_privacy::KeyRing;
use nearside_schemas::Clock;
use nearside_telemetry::{Counter, Metric, Telemetry};

use super::{COMMAND_BOUND, STAGE_BOUND};
use crate::error::StartError;
use crate::middle;

/// The stages behind the streams.
pub(super) struct Back {
    pub(super) journal: JournalHandle,
    pub(super) recall: Recall,
    pub(super) store: Arc<CheckpointStore>,
    pub(super) checkpoint: Checkpoint,
    /// What the gateway ended under, where the file now says something else of streams, rules or roll-ups.
    pub(super) earlier: Option<SiteConfig>,
    /// The first record of this run.
    pub(super) begins_at: Lsn,
    /// Where the journal's records of earlier runs are read.
    pub(super) reader: Reader,
    pub(super) outbox: OutboxHandle,
    pub(super) keys: Arc<KeyRing>,
    pub(super) seal: StageSender<SealMessage>,
    pub(super) rules: StageSender<RulesMessage>,
    pub(super) commands: CommandQueue,
    pub(super) rollup: StageSender<RollUpMessage>,
}

impl Back {
    pub(super) fn start(
        config: &SiteConfig,
        base: &Path,
        library: &Library,
        keys: Arc<KeyRing>,
        letters: DeadLetters,
        clock: &Arc<dyn Clock>,
        telemetry: &Telemetry,
    ) -> Result<Self, StartError> {
        let data = base.join(&config.site.data_dir);
        // The checkpoint is read first: were the journal's new segment made and this then failed, nothing would be lost either, but
        // each failed start would leave a segment.
        let (store, mut checkpoint) = CheckpointStore::open(&data.join("checkpoint.redb"), keys.clone())?;
        let folder = data.join("journal");
        let reached = checkpoint.reached();
        let (journal, report) = Journal::open(&folder, config.journal.clone(), keys.clone(), telemetry, reached)?;
        if let Some(Lsn(ends)) = report.ends_early {
            tracing::error!(
                ends,
                reached = reached.0,
                "records that the checkpoint knows of are missing at the journal's end: its folder was lost or is an older copy; \
                 acknowledged readings may be gone, numbers go on past those that were given"
            );
        }
        let segments = DirectoryStorage::open(&folder, false)
            .map_err(|source| StartError::DataFolder { path: folder.clone(), source })?;
        let segments = Arc::new(segments);
        let reader = nearside_journal::read_from(segments.clone(), keys.clone(), checkpoint.covers, report.next)?;
        let recall = Recall::start(segments, keys.clone(), letters, telemetry)?;
        if !report.damage.is_empty() {
            tracing::warn!(places = report.damage.len(), records = report.records, "the journal has damaged places");
        }
        let journal = journal.handle();
        let outbox = Outbox::open(&data.join("outbox.redb"), &config.outbox, keys.clone(), clock.clone(), telemetry)?;
        let outbox = outbox.handle();
        let format = config.uplink.as_ref().map(|uplink| uplink.format).unwrap_or_default();
        let sealer = Sealer::new(keys.clone(), format, outbox.clone(), telemetry.clone());
        let (seal, _) = stage::start("seal", STAGE_BOUND, telemetry, move |message| sealer.seal(message))?;
        let earlier = middle::ended_under(&checkpoint, config, base, library);
        let in_force = earlier.as_ref().unwrap_or(config);
        if earlier.is_none() && middle::saved_configuration(&checkpoint) != Some(config.source.as_bytes()) {
            store.put(handover::SAVED_NAME, config.source.as_bytes())?;
        }
        let rules = Rules::new(&in_force.rules).map_err(nearside_actors::ActorError::from)?;
        let (mut rules, commands) =
            RulesStage::new(rules, journal.clone(), recall.clone(), clock.clone(), telemetry.clone(), COMMAND_BOUND);
        let mut rollups = RollUps::new(config.site.id.clone(), in_force.rollup.clone());
        let (of_rollups, others): (Vec<_>, Vec<_>) = std::mem::take(&mut checkpoint.parts)
            .into_iter()
            .partition(|(name, _)| name.starts_with(nearside_actors::rollup::SAVED_PREFIX));
        checkpoint.damaged += rollups.restore(&of_rollups, checkpoint.starts);
        checkpoint.parts = others;
        let of_rules = checkpoint.part(nearside_actors::rules_stage::SAVED_NAME);
        checkpoint.damaged += u64::from(of_rules.is_some_and(|saved| !rules.restore(saved)));
        let (rules, _) = stage::start("rules", STAGE_BOUND, telemetry, move |message| rules.handle(message))?;
        let to_seal = seal.clone();
        let faults = telemetry.counter(Metric::StreamPanics, &["rollup"]);
        let (rollup, _) = stage::start("rollup", STAGE_BOUND, telemetry, rollup_handler(rollups, to_seal, faults))?;
        let (store, begins_at) = (Arc::new(store), report.next);
        Ok(Self {
            journal,
            recall,
            store,
            checkpoint,
            earlier,
            begins_at,
            reader,
            outbox,
            keys,
            seal,
            rules,
            commands,
            rollup,
        })
    }
}

impl Back {
    /// Since when the run before had listened.
    pub(super) fn awake(&self) -> Awake {
        Awake::restored(self.checkpoint.part(awake::SAVED_NAME))
    }

    /// Shows the last findings of the run before.
    pub(super) fn restore_board(&mut self, board: &Board) {
        let is_damaged = self.checkpoint.part(board::SAVED_NAME).is_some_and(|saved| !board.restore(saved));
        self.checkpoint.damaged += u64::from(is_damaged);
    }
}

fn rollup_handler(mut rollups: RollUps, seal: StageSender<SealMessage>, faults: Counter) -> impl FnMut(RollUpMessage) {
    move |message| {
        let closed = match message {
            RollUpMessage::Summary(summary) => {
                rollups.on_summary(&summary);
                return;
            }
            RollUpMessage::Tick(now) => rollups.on_tick(now),
            RollUpMessage::Drain => rollups.drain(),
            RollUpMessage::Restored => return rollups.restored(),
            RollUpMessage::Saved => return rollups.saved(),
            RollUpMessage::Reload(config) => return rollups.reload(config),
            RollUpMessage::Save(reply) => {
                // Whoever asked may not wait any more.
                let _ = reply.send(rollups.save());
                return;
            }
        };
        for rollup in closed.rollups {
            seal.send(SealMessage::RollUp(rollup));
        }
        for error in closed.faults {
            faults.inc();
            tracing::error!(%error, "a roll-up is missing");
        }
    }
}
