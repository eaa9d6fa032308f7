//! The board: the last findings and commands and the figures of each stream definition, for the console and for the closing
//! report of a run. Bounded; the newest push out the oldest.

use std::collections::VecDeque;

use nearside_schemas::{FieldName, Finding, StreamName, Timestamp};
use parking_lot::Mutex;

/// A finding and where it was seen.
#[derive(Clone, Debug)]
pub struct PostedFinding {
    /// The stream definition.
    pub stream: StreamName,
    /// The finding.
    pub finding: Finding,
    /// The parts of the stream's key that may be shown, as they may be.
    pub key: Vec<(FieldName, String)>,
}

/// A command and what became of it.
#[derive(Clone, Debug)]
pub struct PostedCommand {
    /// The rule.
    pub rule: String,
    /// The command's id.
    pub id: String,
    /// `sent`, `expired`, `failed`.
    pub outcome: &'static str,
    /// When.
    pub at: Timestamp,
}

/// A step of a model that learns online.
#[derive(Clone, Debug)]
pub struct PostedStep {
    /// The model.
    pub model: String,
    /// What it came to.
    pub outcome: &'static str,
    /// In figures.
    pub text: String,
    /// When.
    pub at: Timestamp,
}

/// The board.
pub struct Board {
    bound: usize,
    steps: Mutex<VecDeque<PostedStep>>,
    findings: Mutex<VecDeque<PostedFinding>>,
    commands: Mutex<VecDeque<PostedCommand>>,
}

impl Board {
    /// A board for `bound` findings and as many commands.
    pub fn new(bound: usize) -> Self {
        Self { bound: bound.max(1), steps: Mutex::default(), findings: Mutex::default(), commands: Mutex::default() }
    }

    /// Posts a finding.
    pub fn post_finding(&self, posted: PostedFinding) {
        push(&mut self.findings.lock(), posted, self.bound);
    }

    /// Posts a command.
    pub fn post_command(&self, posted: PostedCommand) {
        push(&mut self.commands.lock(), posted, self.bound);
    }

    /// Posts a step of a model that learns online.
    pub fn post_step(&self, posted: PostedStep) {
        push(&mut self.steps.lock(), posted, self.bound);
    }

    /// The last `most` steps of models that learn online, newest first.
    pub fn steps(&self, most: usize) -> Vec<PostedStep> {
        self.steps.lock().iter().rev().take(most).cloned().collect()
    }

    /// The last `most` findings, newest first.
    pub fn findings(&self, most: usize) -> Vec<PostedFinding> {
        self.findings.lock().iter().rev().take(most).cloned().collect()
    }

    /// The last `most` commands, newest first.
    pub fn commands(&self, most: usize) -> Vec<PostedCommand> {
        self.commands.lock().iter().rev().take(most).cloned().collect()
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, bound: usize) {
    if queue.len() == bound {
        queue.pop_front();
    }
    queue.push_back(item);
}
