//! The rules stage: findings and summaries in, commands to devices out.
//!
//! Promises: a command is recorded in the journal before it is sent (promise I8); one that waited past its time to live is counted as
//! expired and not sent; what became of each command is counted and shown. After a crash the same findings fire the same rules at the
//! same times, so the same commands come out again: those that the journal says were given are left out, whether or not they
//! were sent, and the others are given now.

use std::collections::HashSet;
use std::sync::Arc;

use flume::Sender;
use nearside_journal::{CommitOutcome, JournalHandle, Lsn, Record};
use nearside_schemas::{BoxFuture, Clock, Command, CommandId, Summary, Timestamp, failpoint};
use nearside_telemetry::{Metric, Telemetry};

use crate::board::{Board, PostedCommand};
use crate::fence::{Panicked, fenced};
use crate::recall::Recall;
use crate::rules::{Origin, Outcome, RuleFault, Rules};
use crate::stream::Raised;

/// What the rules stage is told.
pub enum RulesMessage {
    /// A finding was first seen.
    Finding {
        /// The finding.
        raised: Box<Raised>,
        /// Its stream.
        origin: Origin,
        /// When it came about: what cooldown and time to live count from.
        at: Timestamp,
        /// The record of the message that brought it about.
        record: Option<Lsn>,
    },
    /// A window was judged.
    Summary {
        /// The summary.
        summary: Arc<Summary>,
        /// Its stream.
        origin: Origin,
        /// When it came about.
        at: Timestamp,
        /// The record of the message that brought it about.
        record: Option<Lsn>,
    },
    /// A journal is replayed from here on: commands are withheld.
    Replaying,
    /// The journal says that this command was given.
    Given(String),
    /// Replay is over: what was withheld and not given before is given now.
    Replayed,
    /// Other rules from here on.
    Reload(Box<Rules>),
    /// Say what a checkpoint keeps of rules.
    Save(Sender<Vec<u8>>),
}

/// The name of the rules' part in a checkpoint.
pub const SAVED_NAME: &str = "rules";

/// Whoever publishes commands to devices.
pub trait CommandPublisher: Send + Sync + 'static {
    /// Publishes once; an error says why it could not be taken.
    fn publish<'a>(&'a self, command: &'a Command) -> BoxFuture<'a, Result<(), String>>;
}

/// What rules answer.
type Answers = Vec<Result<Command, RuleFault>>;

/// The component and shell of the stage.
pub struct RulesStage {
    rules: Rules,
    journal: JournalHandle,
    recall: Recall,
    dispatcher: Sender<Command>,
    settled: flume::Receiver<(CommandId, Outcome)>,
    settle: Sender<(CommandId, Outcome)>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    /// While a journal is replayed: the commands that came out again, and the ids that it says were given.
    replay: Option<(Vec<Command>, HashSet<String>)>,
}

/// Counts from 0 what may happen to rules: whoever watches a counter sees its first step only if it was there before.
fn expect(rules: &Rules, telemetry: &Telemetry) {
    for rule in rules.names() {
        telemetry.counter(Metric::RulesFired, &[rule.as_str()]);
        telemetry.counter(Metric::RuleErrors, &[rule.as_str()]);
    }
}

impl RulesStage {
    /// A stage whose commands are sent by a [`CommandDispatcher`].
    pub fn new(
        rules: Rules,
        journal: JournalHandle,
        recall: Recall,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        queue: usize,
    ) -> (Self, CommandQueue) {
        let (dispatcher, commands) = flume::bounded(queue.max(1));
        let (settle, settled) = flume::unbounded();
        expect(&rules, &telemetry);
        let stage = Self {
            rules,
            journal,
            recall,
            dispatcher,
            settled,
            settle: settle.clone(),
            clock,
            telemetry,
            replay: None,
        };
        (stage, CommandQueue { commands, settle })
    }

    /// Goes on from what a checkpoint kept; false where it cannot be read.
    pub fn restore(&mut self, saved: &[u8]) -> bool {
        self.rules.resume_cooldowns(saved).is_ok()
    }

    /// Handles one message.
    pub fn handle(&mut self, message: RulesMessage) {
        while let Ok((id, outcome)) = self.settled.try_recv() {
            self.rules.settle(&id, outcome);
        }
        let answers = match message {
            RulesMessage::Finding { raised, origin, at, record } => {
                self.evaluate(&origin, record, |rules| rules.on_finding(&raised, &origin, at))
            }
            RulesMessage::Summary { summary, origin, at, record } => {
                self.evaluate(&origin, record, |rules| rules.on_summary(&summary, &origin, at))
            }
            RulesMessage::Replaying => return self.replay = Some(Default::default()),
            RulesMessage::Given(id) => {
                if let Some((_, given)) = &mut self.replay {
                    given.insert(id);
                }
                return;
            }
            RulesMessage::Replayed => return self.end_replay(),
            RulesMessage::Reload(rules) => {
                expect(&rules, &self.telemetry);
                return self.rules.replace_rules(*rules);
            }
            RulesMessage::Save(reply) => {
                let cooldowns = self.rules.cooldowns(self.clock.now());
                // Whoever asked may not wait any more. Ids and times always have a JSON form.
                let _ = reply.send(serde_json::to_vec(&cooldowns).unwrap_or_default());
                return;
            }
        };
        for answer in answers {
            match answer {
                Ok(command) => match &mut self.replay {
                    Some((withheld, _)) => withheld.push(command),
                    None => self.issue(command),
                },
                Err(RuleFault { rule, why }) => {
                    self.telemetry.counter(Metric::RuleErrors, &[rule.as_str()]).inc();
                    tracing::warn!(%rule, why, "a rule could not be evaluated");
                }
            }
        }
    }

    /// Evaluates rules behind a fence: after a panic the message that brought it about is set aside. Conditions and templates have no
    /// state, and what rules remember changes only once they have answered, so there is nothing to build again.
    fn evaluate(&mut self, origin: &Origin, record: Option<Lsn>, work: impl FnOnce(&mut Rules) -> Answers) -> Answers {
        let rules = &mut self.rules;
        fenced(|| work(rules)).unwrap_or_else(|Panicked| {
            self.telemetry.counter(Metric::StreamPanics, &["rules"]).inc();
            if let Some(record) = record {
                self.recall.set_aside(record, &origin.spec.name, "rules");
            }
            Vec::new()
        })
    }

    fn end_replay(&mut self) {
        let Some((withheld, given)) = self.replay.take() else { return };
        // Older journals hold ids without labels: then a window had one command of a rule.
        let was_given = |id: &CommandId| given.contains(&id.to_string()) || given.contains(&id.without_label());
        let (before, new): (Vec<_>, Vec<_>) = withheld.into_iter().partition(|one| was_given(&one.id));
        tracing::info!(given_before = before.len(), new = new.len(), "commands after replay");
        for command in new {
            self.issue(command);
        }
    }

    /// Records the command, then queues it for sending.
    fn issue(&self, command: Command) {
        self.telemetry.counter(Metric::RulesFired, &[command.id.rule.as_str()]).inc();
        let record = Record::Command { id: command.id.to_string(), at: command.created };
        let dispatcher = self.dispatcher.clone();
        let failed = self.telemetry.counter(Metric::Commands, &[command.id.rule.as_str(), "unrecorded"]);
        let settle = self.settle.clone();
        let done = Box::new(move |outcome: CommitOutcome, _: Vec<Record>| {
            // From the journal's thread: never waits. A full queue means the broker does not take commands.
            failpoint("command-recorded");
            let id = command.id.clone();
            let durable = matches!(outcome, CommitOutcome::Durable { .. });
            if !durable || dispatcher.try_send(command).is_err() {
                failed.inc();
                // What nobody got makes nobody quiet. The stage may have ended; then nobody counts cooldowns any more.
                let _ = settle.send((id, Outcome::NotSent));
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
    /// How many commands wait.
    pub fn watch_depth(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let commands = self.commands.clone();
        move || commands.len()
    }

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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{PublishConfig, RuleConfig, RuleSubject};
    use crate::rules::sample_finding;
    use bytes::Bytes;
    use nearside_deadletters::{DeadLetters, DeadLettersConfig, ids, read};
    use nearside_journal::{DirectoryStorage, Journal, JournalConfig};
    use nearside_privacy::KeyRing;
    use nearside_schemas::codec::{CodecSpec, Format};
    use nearside_schemas::{
        ClientId, Finding, HumanDuration, KeyValues, ManualClock, Publish, QoS, RuleName, SecretKey, StreamId,
        StreamName, StreamSpec, Topic, TopicTemplate,
    };

    fn origin() -> Origin {
        let codec = CodecSpec {
            format: Format::Number,
            paths: Vec::new(),
            rows: None,
            rate_hz: None,
            rate_path: None,
            max_payload_bytes: 1,
            max_readings: 1,
        };
        let spec = StreamSpec {
            name: StreamName::new("vitals").unwrap(),
            topic: TopicTemplate::parse("vitals").unwrap(),
            codec,
            timestamp: None,
            sequence: None,
            fields: Vec::new(),
            key: Vec::new(),
            group: "g".to_owned(),
        };
        Origin { spec: Arc::new(spec), key: KeyValues::new() }
    }

    fn keys() -> Arc<KeyRing> {
        Arc::new(KeyRing::from_master(SecretKey::new([3; 32])))
    }

    fn stage(folder: &Path, telemetry: &Telemetry, rules: &[RuleConfig]) -> (Journal, RulesStage, CommandQueue) {
        let (journal, _) = Journal::open(folder, JournalConfig::default(), keys(), telemetry, Lsn(0)).unwrap();
        let aside = folder.join("deadletters");
        let letters = DeadLetters::open(&aside, &DeadLettersConfig::default(), keys(), telemetry).unwrap();
        let storage = Arc::new(DirectoryStorage::open(folder, false).unwrap());
        let recall = Recall::start(storage, keys(), letters, telemetry).unwrap();
        let clock = Arc::new(ManualClock::default());
        let rules = Rules::new(rules).unwrap();
        let (stage, queue) = RulesStage::new(rules, journal.handle(), recall, clock, telemetry.clone(), 8);
        (journal, stage, queue)
    }

    fn rule() -> RuleConfig {
        let publish =
            PublishConfig { topic: "alarm".to_owned(), payload: "x".to_owned(), qos: QoS::AtLeastOnce, retain: false };
        RuleConfig {
            name: RuleName::new("alarm").unwrap(),
            on: RuleSubject::Finding,
            streams: Vec::new(),
            when: "true".to_owned(),
            publish,
            cooldown: HumanDuration::secs(60),
            time_to_live: HumanDuration::secs(30),
        }
    }

    fn finding(label: &str) -> RulesMessage {
        let at = Timestamp::from_secs(1);
        let finding = Finding { label: label.to_owned(), ..sample_finding(0, 95.0) };
        let raised = Box::new(Raised { finding, is_first_of_label: true });
        RulesMessage::Finding { raised, origin: origin(), at, record: None }
    }

    /// I8: of two labels in a window each has its command, and after a crash each that was given is left out by itself.
    #[tokio::test]
    async fn the_commands_of_two_labels_are_each_given_once_over_a_crash() {
        let id = |label: &str| format!("alarm:{}:1m:0:r0{label}", StreamId::from_bytes([1; 16]));
        let all = [id(":high"), id(":rising")];
        // A journal of before ids had labels: then the window had one command.
        let before = [id("")];
        for (given, expected) in
            [(&all[..0], &all[..]), (&all[..1], &all[1..]), (&all[..], &all[2..]), (&before[..], &all[2..])]
        {
            let folder = tempfile::tempdir().unwrap();
            let (_journal, mut stage, queue) = stage(folder.path(), &Telemetry::new(), &[rule()]);
            stage.handle(RulesMessage::Replaying);
            for message in [finding("high"), finding("rising"), finding("high")] {
                stage.handle(message);
            }
            given.iter().for_each(|id| stage.handle(RulesMessage::Given(id.clone())));
            stage.handle(RulesMessage::Replayed);
            let mut issued = Vec::new();
            while issued.len() < expected.len() {
                let next = queue.commands.recv_async();
                let command = tokio::time::timeout(std::time::Duration::from_secs(60), next).await.unwrap().unwrap();
                issued.push(command.id.to_string());
            }
            drop(stage);
            assert_eq!(issued, expected, "given: {given:?}");
            assert!(queue.commands.recv_async().await.is_err(), "and nothing else");
        }
    }

    /// I3: a panic in a rule costs its answer; the message that brought it about is set aside as it was sent.
    #[tokio::test]
    async fn a_panic_in_a_rule_sets_its_message_aside() {
        let folder = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::new();
        let keys = keys();
        let (journal, mut stage, _queue) = stage(folder.path(), &telemetry, &[]);
        let publish = Publish {
            client: ClientId::new("device"),
            topic: Topic::new("vitals").unwrap(),
            payload: Bytes::from_static(b"666"),
            qos: QoS::AtLeastOnce,
            packet_id: None,
            retain: false,
            received: Timestamp::from_secs(7),
        };
        let written = journal.handle().commit(vec![Record::Publish(publish)]).await;
        let CommitOutcome::Durable { first } = written else { panic!("{written:?}") };
        let aside = folder.path().join("deadletters");
        assert!(stage.evaluate(&origin(), Some(first), |_| panic!("inside")).is_empty());
        assert_eq!(telemetry.counter(Metric::StreamPanics, &["rules"]).get(), 1);
        let kept = async {
            while ids(&aside).unwrap().is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), kept).await.unwrap();
        let letter = read(&aside, ids(&aside).unwrap()[0], keys.as_ref()).unwrap();
        assert_eq!((letter.stage.as_str(), &letter.payload[..]), ("rules", b"666".as_slice()));
    }
}
