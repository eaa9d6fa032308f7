//! The parts of the configuration that belong to the actors.

use std::time::Duration;

use nearside_schemas::{Faults, HumanDuration, QoS, RuleName, StreamName};
use serde::{Deserialize, Serialize};

/// Most threads of one kind: beyond it the system refuses them.
const MOST_THREADS: usize = 1_024;
/// Time is looked at no more often.
const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// `[streams]`: how streams are spread and bounded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamsConfig {
    /// Threads that stream actors are spread over by hash of the stream; 0: one for each core.
    pub shards: usize,
    /// Most readings a shard may have admitted and not yet handled. When met, connections that publish to it wait.
    pub shard_credit: usize,
    /// Most readings one stream may have admitted and not yet handled. When met, connections that publish to it wait.
    /// A message with more readings than this is still taken, alone.
    pub stream_credit: usize,
    /// Most streams with state: those that rest count too, over restarts, for as long as their definition is there, because what is known of
    /// them is kept. Readings of further streams are set aside as `overflow`.
    pub max_streams: usize,
    /// A stream without readings for this long and without open windows gives up its actor; its state is kept.
    pub retire_after: HumanDuration,
    /// How often idle windows are looked for.
    pub tick: HumanDuration,
    /// Panics a minute after which a stream is parked: its readings are set aside as `panicked`.
    pub panics_per_minute: u32,
    /// How long after it changed a stream's state is written to the checkpoint; up to ten times as long where the state is large. A start
    /// takes in again what the journal holds since.
    pub checkpoint_after: HumanDuration,
    /// What happens to open windows when the gateway stops: `keep` or `close`.
    pub on_stop: OnStop,
}

/// What happens to open windows when the gateway stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStop {
    /// They stay open and go on after the next start.
    #[default]
    Keep,
    /// They are closed and summarised as they are; later rows of theirs are late: they make a further revision where the definition says
    /// `late = "revise"`, else they are set aside.
    Close,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            shards: 0,
            shard_credit: 65_536,
            stream_credit: 16_384,
            max_streams: 200_000,
            retire_after: HumanDuration::secs(600),
            tick: HumanDuration::millis(250),
            panics_per_minute: 5,
            checkpoint_after: HumanDuration::secs(30),
            on_stop: OnStop::Keep,
        }
    }
}

impl StreamsConfig {
    /// Whatever would keep readings from passing.
    pub fn faults(&self) -> Faults {
        Faults::of("streams")
            .check("shards", self.shards > MOST_THREADS, "must not be above 1024; 0 is one for each core")
            .above_zero(&[
                ("shard_credit", self.shard_credit == 0),
                ("stream_credit", self.stream_credit == 0),
                ("max_streams", self.max_streams == 0),
            ])
            .check("retire_after", self.retire_after.get().is_zero(), "must be above zero, such as \"10m\"")
            .check("tick", self.tick.get() < SHORTEST_TICK, "must be at least 10ms")
    }
}

/// `[inference]`: the worker threads that run the networks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InferenceConfig {
    /// Worker threads; each runs one forward pass at a time on one core.
    pub threads: usize,
    /// Most rows in one forward pass.
    pub max_batch: usize,
    /// How long a row waits for others to share its forward pass.
    pub max_wait: HumanDuration,
    /// Most rows that wait for a model, of medical streams and of the others each. Rows beyond it stay unjudged and are counted.
    pub queue: usize,
    /// A window whose rows are not judged this long after it closed is summarised as `unjudged`.
    pub deadline: HumanDuration,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self {
            threads: 1,
            max_batch: 64,
            max_wait: HumanDuration::millis(5),
            queue: 1 << 20,
            deadline: HumanDuration::secs(2),
        }
    }
}

impl InferenceConfig {
    /// Whatever would keep rows from being judged in time.
    pub fn faults(&self) -> Faults {
        let too_late = "must be below `deadline`, or no window is judged in time";
        Faults::of("inference")
            .check("threads", !(1..=MOST_THREADS).contains(&self.threads), "must be between 1 and 1024")
            .above_zero(&[("max_batch", self.max_batch == 0)])
            .check("queue", self.queue < self.max_batch, "must not be below `max_batch`")
            .check("max_wait", self.max_wait >= self.deadline, too_late)
    }
}

/// `[rollup]`: cross-stream figures by group and field.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RollUpConfig {
    /// Whether there are roll-ups.
    pub enabled: bool,
    /// The span of one roll-up.
    pub every: HumanDuration,
    /// How long after its end a roll-up waits for windows that close late.
    pub lateness: HumanDuration,
    /// How long after that a late window still makes a new revision; then it is counted and left out.
    pub revise_for: HumanDuration,
    /// Most windows held; beyond it the oldest roll-up is closed early.
    pub max_windows: usize,
}

impl Default for RollUpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            every: HumanDuration::secs(60),
            lateness: HumanDuration::secs(30),
            revise_for: HumanDuration::secs(300),
            max_windows: 500_000,
        }
    }
}

impl RollUpConfig {
    /// Whatever would leave a roll-up without a span or without windows.
    pub fn faults(&self) -> Faults {
        Faults::of("rollup")
            .check("every", self.every.get().is_zero(), "must be above zero, such as \"1m\"")
            .above_zero(&[("max_windows", self.max_windows == 0)])
    }
}

/// What a rule looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleSubject {
    /// Each finding when it is first seen in its window.
    #[default]
    Finding,
    /// Each summary when its window is judged.
    Summary,
}

/// `[[rule]]`: when something holds, publish a command to a device.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Its name, part of each command's id.
    pub name: RuleName,
    /// Whether it looks at findings or at summaries.
    #[serde(default)]
    pub on: RuleSubject,
    /// The stream definitions it looks at; all where none is stated.
    #[serde(default)]
    pub streams: Vec<StreamName>,
    /// The condition, in CEL. Findings: `finding.label`, `.score`, `.threshold`, `.severity`, `.stream`, `.model`, `.rows`, `.text`,
    /// `.seen.FIELD`, `.id` (for feedback), `.nth` (2 where it was over and came again in its window). Summaries: `summary.stream`, `.rows`, `.fields.FIELD.mean` (`min max std p05 … p95 count`),
    /// `.findings`, `.verdict`, `.set_aside`.
    /// A finding is looked at once, as it was when it was raised: `seen` holds the values of its first row. What
    /// was over and comes again is another finding.
    pub when: String,
    /// What to publish.
    pub publish: PublishConfig,
    /// After a command was sent, how long the rule is silent for the same stream and the same label; a finding with another label is another
    /// matter. A rule on summaries is silent for the same stream.
    #[serde(default = "default_cooldown")]
    pub cooldown: HumanDuration,
    /// How long a command may wait to be sent; after that it is counted as expired and not sent.
    #[serde(default = "default_time_to_live")]
    pub time_to_live: HumanDuration,
}

impl RuleConfig {
    /// Whatever would expire a command before it is sent. Condition, topic and payload are checked against the streams.
    pub fn faults(&self) -> Faults {
        let expired = "must be above zero, such as \"30s\": every command would be expired before it is sent";
        Faults::of("").check("time_to_live", self.time_to_live.get().is_zero(), expired)
    }
}

fn default_cooldown() -> HumanDuration {
    HumanDuration::secs(60)
}

fn default_time_to_live() -> HumanDuration {
    HumanDuration::secs(30)
}

/// What a rule publishes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishConfig {
    /// The topic, with key parts of the stream in braces, such as `ward/{patient}/alarm`.
    pub topic: String,
    /// The payload. `${…}` holds a CEL expression over the same names as the condition, and `key.PART` for key parts;
    /// its value is written as JSON.
    pub payload: String,
    /// Quality of service, 0 or 1.
    #[serde(default = "default_qos")]
    pub qos: QoS,
    /// Whether the broker keeps the message for later subscribers.
    #[serde(default)]
    pub retain: bool,
}

fn default_qos() -> QoS {
    QoS::AtLeastOnce
}
