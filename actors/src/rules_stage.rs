//! The rules stage: findings and summaries in, commands to devices out.
//!
//! Promises: a command is recorded in the journal before it is sent (promise I8); one that waited past its time to live is counted as
//! expired and not sent; what became of each command is counted and shown.

use std::sync::Arc;

use flume::Sender;
use nearside_journal::{CommitOutcome, JournalHandle, Record};
use nearside_schemas::{BoxFuture, Clock, Command, CommandId, Finding, Summary};
use nearside_telemetry::{Metric, Telemetry};

use crate::board::{Board, PostedCommand};
use crate::rules::{Origin, Outcome, RuleFault, Rules};

/// What the rules stage is told.
pub enum RulesMessage {
    /// A finding was first seen in its window.
    Finding {
        /// The finding.
        finding: Arc<Finding>,
        /// Its stream.
        origin: Origin,
    },
    /// A window was judged.
    Summary {
        /// The summary.
        summary: Arc<Summary>,
        /// Its stream.
        origin: Origin,
    },
}

/// Whoever publishes commands to devices.
pub trait CommandPublisher: Send + Sync + 'static {
    /// Publishes once; an error says why it could not be taken.
    fn publish<'a>(&'a self, command: &'a Command) -> BoxFuture<'a, Result<(), String>>;
}

/// The component and shell of the stage.
pub struct RulesStage {
    rules: Rules,
    journal: JournalHandle,
    dispatcher: Sender<Command>,
    settled: flume::Receiver<(CommandId, Outcome)>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
}

impl RulesStage {
    /// A stage whose commands are sent by a [`CommandDispatcher`].
    pub fn new(
        rules: Rules,
        journal: JournalHandle,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        queue: usize,
    ) -> (Self, CommandQueue) {
        let (dispatcher, commands) = flume::bounded(queue.max(1));
        let (settle, settled) = flume::unbounded();
        let stage = Self { rules, journal, dispatcher, settled, clock, telemetry };
        (stage, CommandQueue { commands, settle })
    }

    /// Handles one message.
    pub fn handle(&mut self, message: &RulesMessage) {
        while let Ok((id, outcome)) = self.settled.try_recv() {
            self.rules.settle(&id, outcome);
        }
        let now = self.clock.now();
        let answers = match message {
            RulesMessage::Finding { finding, origin } => self.rules.on_finding(finding, 0, origin, now),
            RulesMessage::Summary { summary, origin } => self.rules.on_summary(summary, origin, now),
        };
        for answer in answers {
            match answer {
                Ok(command) => self.issue(command),
                Err(RuleFault { rule, why }) => {
                    self.telemetry.counter(Metric::RuleErrors, &[rule.as_str()]).inc();
                    tracing::warn!(%rule, why, "a rule could not be evaluated");
                }
            }
        }
    }

    /// Records the command, then queues it for sending.
    fn issue(&self, command: Command) {
        self.telemetry.counter(Metric::RulesFired, &[command.id.rule.as_str()]).inc();
        let record = Record::Command { id: command.id.to_string(), at: command.created };
        let dispatcher = self.dispatcher.clone();
        let failed = self.telemetry.counter(Metric::Commands, &[command.id.rule.as_str(), "unrecorded"]);
        let done = Box::new(move |outcome: CommitOutcome, _: Vec<Record>| {
            // From the journal's thread: never waits. A full queue means the broker does not take commands.
            let durable = matches!(outcome, CommitOutcome::Durable { .. });
            if !durable || dispatcher.try_send(command).is_err() {
                failed.inc();
            }
        });
        self.journal.append_blocking(vec![record], done);
    }
}

/// Recorded commands on their way to the broker.
pub struct CommandQueue {
    commands: flume::Receiver<Command>,
    settle: Sender<(CommandId, Outcome)>,
}

impl CommandQueue {
    /// Sends commands until the rules stage ends.
    pub async fn run(
        self,
        publisher: Arc<dyn CommandPublisher>,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        board: Arc<Board>,
    ) {
        while let Ok(command) = self.commands.recv_async().await {
            let now = clock.now();
            let (outcome, label) = if now >= command.expires {
                (Outcome::NotSent, "expired")
            } else {
                match publisher.publish(&command).await {
                    Ok(()) => (Outcome::Sent(now), "sent"),
                    Err(why) => {
                        tracing::warn!(rule = %command.id.rule, why, "a command was not taken by the broker");
                        (Outcome::NotSent, "failed")
                    }
                }
            };
            telemetry.counter(Metric::Commands, &[command.id.rule.as_str(), label]).inc();
            board.post_command(PostedCommand {
                rule: command.id.rule.to_string(),
                id: command.id.to_string(),
                outcome: label,
                at: now,
            });
            // The stage may have ended; then nobody counts cooldowns any more.
            let _ = self.settle.send((command.id, outcome));
        }
    }
}
