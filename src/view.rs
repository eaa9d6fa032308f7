//! What the console shows of a running gateway.

use std::sync::Arc;

use nearside_actors::board::Board;
use nearside_actors::guardian::Guardian;
use nearside_actors::recovery::Progress;
use nearside_actors::stage::Depth;
use nearside_config::SiteConfig;
use nearside_console::{CommandRow, FindingRow, Health, LearningRow, PageData, Readiness, StageRow, StreamRow, View};
use nearside_journal::JournalHandle;
use nearside_outbox::{OutboxHandle, Trouble};
use nearside_schemas::{Clock, Contribution, Opinion};
use nearside_telemetry::{Metric, Telemetry};

use crate::middle::Current;
use crate::pipeline::STAGES;

/// Findings and commands on the page.
const SHOWN: usize = 30;

/// The gateway as the console sees it.
pub struct GatewayView {
    site: String,
    has_uplink: bool,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    board: Arc<Board>,
    current: Arc<Current>,
    outbox: OutboxHandle,
    journal: JournalHandle,
    depths: Vec<Depth>,
    progress: Arc<Progress>,
    guardian: Arc<Guardian>,
}

/// The parts that a view looks at.
pub struct Parts {
    /// How far recovery is.
    pub progress: Arc<Progress>,
    /// Who knows what has ended.
    pub guardian: Arc<Guardian>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub telemetry: Telemetry,
    /// The last findings and commands.
    pub board: Arc<Board>,
    /// The streams that are in force.
    pub current: Arc<Current>,
    /// The outbox.
    pub outbox: OutboxHandle,
    /// The journal.
    pub journal: JournalHandle,
    /// The depths of the stages with a thread of their own.
    pub depths: Vec<Depth>,
}

impl GatewayView {
    /// A view of a gateway.
    pub fn new(config: &SiteConfig, parts: Parts) -> Self {
        let Parts { progress, guardian, clock, telemetry, board, current, outbox, journal, depths } = parts;
        Self {
            site: config.site.id.to_string(),
            has_uplink: config.uplink.is_some(),
            clock,
            telemetry,
            board,
            current,
            outbox,
            journal,
            depths,
            progress,
            guardian,
        }
    }

    fn depth(&self, stage: &str) -> Option<u64> {
        let depth = match stage {
            "ingest" => self.current.get().ingest.in_flight(),
            "journal" => self.journal.queued_bytes(),
            "inference" => self.current.get().queues.depth(),
            "outbox" => self.outbox.stats().items.iter().sum::<u64>() as usize,
            name => self.depths.iter().find(|depth| depth.stage() == name)?.get(),
        };
        Some(depth as u64)
    }

    fn streams(&self) -> Vec<StreamRow> {
        let middle = self.current.get();
        let models = middle
            .plans
            .iter()
            .map(|plan| plan.models.iter().map(|planned| planned.model.reference().name.to_string()).collect());
        let rows = middle.outlet.figures().into_iter().zip(middle.ingest.readings()).zip(models);
        rows.map(|((figures, readings), models)| StreamRow {
            name: figures.name,
            active: figures.active,
            parked: figures.parked,
            readings,
            set_aside: figures.set_aside.total(),
            set_aside_by: figures.set_aside.iter().map(|(reason, count)| (reason.label(), count)).collect(),
            windows: figures.windows,
            models,
        })
        .collect()
    }

    fn findings(&self) -> Vec<FindingRow> {
        let rows = self.board.findings(SHOWN).into_iter().map(|posted| {
            let finding = posted.finding;
            FindingRow {
                feedback: posted.opinion.map(Opinion::as_str),
                id: finding.tag().to_string(),
                at: finding.at.to_string(),
                stream: posted.stream.to_string(),
                key: posted.key.into_iter().map(|(part, shown)| (part.to_string(), shown)).collect(),
                stream_id: finding.window.stream.to_string(),
                label: finding.label,
                severity: finding.severity.to_string(),
                score: finding.score,
                threshold: finding.threshold,
                model: finding.model.to_string(),
                text: finding.text,
                reasons: finding.contributions.iter().map(reason).collect(),
            }
        });
        rows.collect()
    }
}

/// A contribution in words.
fn reason(part: &Contribution) -> String {
    let mut text = format!("{}: seen {:.4}", part.field, part.seen);
    if let Some(expected) = part.expected {
        text.push_str(&format!(", expected {expected:.4}"));
    }
    if let Some((low, high)) = part.band {
        text.push_str(&format!(" ({low:.4} to {high:.4})"));
    }
    if let Some(note) = &part.note {
        text.push_str(&format!(", {note}"));
    }
    text
}

impl View for GatewayView {
    fn metrics(&self) -> String {
        // Gauges of queues and parts are set when somebody looks.
        self.guardian.ended(&self.telemetry);
        for stage in STAGES {
            self.depth(stage.name);
        }
        self.telemetry.render()
    }

    fn health(&self) -> Health {
        if self.telemetry.gauge(Metric::JournalFailing, &[]).get() > 0.0 {
            let why = "the journal cannot write: is the disk full? Nothing is acknowledged until it can; it is tried again every second";
            return Health::Failing(why.to_owned());
        }
        match self.outbox.trouble() {
            Some(Trouble::Poisoned) => {
                return Health::Failing(
                    "the outbox cannot write; what is sealed waits in the journal for a restart".to_owned(),
                );
            }
            Some(Trouble::DiskFull) => {
                return Health::Failing(
                    "the disk is full and the outbox's reserve is spent; sealing waits for room".to_owned(),
                );
            }
            None => {}
        }
        let ended = self.guardian.ended(&self.telemetry);
        if !ended.is_empty() {
            return Health::Failing(format!("{} ended; what it held is in the journal: start again", ended.join(", ")));
        }
        Health::Healthy
    }

    fn readiness(&self) -> Readiness {
        match self.health() {
            Health::Healthy if !self.progress.is_done() => {
                let (done, all) = self.progress.records();
                Readiness::NotReady(format!("taking in the journal again: {done} of {all} records"))
            }
            Health::Healthy => Readiness::Ready,
            Health::Failing(why) => Readiness::NotReady(why),
        }
    }

    fn page(&self) -> PageData {
        let stats = self.outbox.stats();
        let connected = self.telemetry.gauge(Metric::UplinkConnected, &[]).get() > 0.0;
        let uplink = match (self.has_uplink, connected) {
            (false, _) => "none",
            (true, true) => "connected",
            (true, false) => "away",
        };
        let stages = STAGES.iter().map(|stage| StageRow {
            name: stage.name.to_owned(),
            depth: self.depth(stage.name),
            bound: stage.bound.to_owned(),
            when_full: stage.when_full.to_owned(),
            runs_on: stage.runs_on.to_owned(),
        });
        let commands = self.board.commands(SHOWN).into_iter().map(|posted| CommandRow {
            at: posted.at.to_string(),
            rule: posted.rule,
            outcome: posted.outcome.to_owned(),
        });
        let learning = self.board.steps(SHOWN).into_iter().map(|posted| LearningRow {
            at: posted.at.to_string(),
            model: posted.model,
            outcome: posted.outcome.to_owned(),
            text: posted.text,
        });
        PageData {
            site: self.site.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: self.clock.now().to_string(),
            ready: self.readiness() == Readiness::Ready,
            streams: self.streams(),
            stages: stages.collect(),
            findings: self.findings(),
            commands: commands.collect(),
            learning: learning.collect(),
            outbox_items: stats.items.iter().sum(),
            outbox_bytes: stats.bytes,
            uplink: uplink.to_owned(),
        }
    }
}
