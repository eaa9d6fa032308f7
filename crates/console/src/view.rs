//! What the console is told: a port that the gateway fills.

use std::collections::BTreeMap;

use serde::Serialize;

/// Whether the gateway works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    /// It does.
    Healthy,
    /// It does not; a restart may help.
    Failing(String),
}

/// Whether the gateway takes readings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// It does.
    Ready,
    /// Not yet, or not any more.
    NotReady(String),
}

/// One stream definition.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct StreamRow {
    /// Its name.
    pub name: String,
    /// Streams with an actor.
    pub active: u64,
    /// Streams given up after too many panics.
    pub parked: u64,
    /// Readings so far.
    pub readings: u64,
    /// Set aside so far.
    pub set_aside: u64,
    /// Of those, how many for which reason.
    pub set_aside_by: BTreeMap<&'static str, u64>,
    /// Windows closed so far.
    pub windows: u64,
    /// Its models.
    pub models: Vec<String>,
}

/// One stage of the pipeline.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct StageRow {
    /// Its name.
    pub name: String,
    /// What waits in it; `None` where it has no queue of its own.
    pub depth: Option<u64>,
    /// What bounds it.
    pub bound: String,
    /// What happens when it is full.
    pub when_full: String,
    /// What it runs on.
    pub runs_on: String,
}

/// One finding.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct FindingRow {
    /// Its name, for feedback.
    pub id: String,
    /// What an operator said of it: `false_alarm` or `confirmed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feedback: Option<&'static str>,
    /// Event time.
    pub at: String,
    /// The stream definition.
    pub stream: String,
    /// The parts of the stream's key that may be shown: clear ones, and pseudonyms as they leave for the cloud.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub key: BTreeMap<String, String>,
    /// The stream's id.
    pub stream_id: String,
    /// What was seen.
    pub label: String,
    /// `notice`, `warning`, `critical`.
    pub severity: String,
    /// 0 to 1.
    pub score: f64,
    /// From which score on the model flags.
    pub threshold: f64,
    /// The model and version.
    pub model: String,
    /// One sentence.
    pub text: String,
    /// What contributed, in words.
    pub reasons: Vec<String>,
}

/// One command.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct CommandRow {
    /// When.
    pub at: String,
    /// The rule.
    pub rule: String,
    /// `sent`, `expired`, `failed`.
    pub outcome: String,
}

/// A step of a model that learns online.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct LearningRow {
    /// When.
    pub at: String,
    /// The model.
    pub model: String,
    /// What it came to.
    pub outcome: String,
    /// In figures.
    pub text: String,
}

/// Everything the first page shows.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct PageData {
    /// The site's name.
    pub site: String,
    /// The program's version.
    pub version: String,
    /// The gateway's time.
    pub now: String,
    /// Whether it takes readings.
    pub ready: bool,
    /// The stream definitions.
    pub streams: Vec<StreamRow>,
    /// The stages, in flow order.
    pub stages: Vec<StageRow>,
    /// The last findings, newest first.
    pub findings: Vec<FindingRow>,
    /// The last commands, newest first.
    pub commands: Vec<CommandRow>,
    /// The last steps of models that learn online, newest first.
    pub learning: Vec<LearningRow>,
    /// Items that wait for the cloud.
    pub outbox_items: u64,
    /// Bytes that wait for the cloud.
    pub outbox_bytes: u64,
    /// `connected`, `away`, or `none` where no uplink is configured.
    pub uplink: String,
}

/// What the gateway shows.
pub trait View: Send + Sync + 'static {
    /// All metrics in the OpenMetrics text format.
    fn metrics(&self) -> String;
    /// Whether it works.
    fn health(&self) -> Health;
    /// Whether it takes readings.
    fn readiness(&self) -> Readiness;
    /// The first page.
    fn page(&self) -> PageData;
}
