//! The board: the last findings and commands and the figures of each stream definition, for the console and for the closing
//! report of a run. Bounded; the newest push out the oldest. The last findings, and what operators said of them, are part of the
//! checkpoint, so that they are there after a restart.

use std::collections::{HashSet, VecDeque};

use nearside_schemas::{FieldName, Finding, FindingTag, Opinion, StreamName, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The name of the board's part in a checkpoint.
pub const SAVED_NAME: &str = "board";
/// Most findings that a checkpoint holds.
const SAVED: usize = 30;

/// A finding and where it was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PostedFinding {
    /// The stream definition.
    pub stream: StreamName,
    /// The finding.
    pub finding: Finding,
    /// The parts of the stream's key that may be shown, as they may be.
    pub key: Vec<(FieldName, String)>,
    /// What an operator said of it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opinion: Option<Opinion>,
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

#[derive(Default)]
struct Findings {
    last: VecDeque<PostedFinding>,
    /// Those of an earlier run: its journal may bring them out again.
    earlier: HashSet<FindingTag>,
    /// How often they changed in this run, and how many of those changes the checkpoint knows of.
    changes: u64,
    saved: u64,
}

/// The board.
pub struct Board {
    bound: usize,
    steps: Mutex<VecDeque<PostedStep>>,
    findings: Mutex<Findings>,
    commands: Mutex<VecDeque<PostedCommand>>,
}

impl Board {
    /// A board for `bound` findings and as many commands.
    pub fn new(bound: usize) -> Self {
        Self { bound: bound.max(1), steps: Mutex::default(), findings: Mutex::default(), commands: Mutex::default() }
    }

    /// Posts a finding, unless it is there from an earlier run.
    pub fn post_finding(&self, posted: PostedFinding) {
        let mut findings = self.findings.lock();
        if !findings.earlier.is_empty() && findings.earlier.remove(&posted.finding.tag()) {
            return;
        }
        findings.changes += 1;
        push(&mut findings.last, posted, self.bound);
    }

    /// Notes what an operator said of a finding, where it is still here.
    pub(crate) fn note(&self, finding: &FindingTag, opinion: Opinion) {
        let mut findings = self.findings.lock();
        let known = findings.last.iter_mut().rev().find(|posted| posted.finding.tag() == *finding);
        if let Some(posted) = known
            && posted.opinion != Some(opinion)
        {
            posted.opinion = Some(opinion);
            findings.changes += 1;
        }
    }

    /// Whether there is something that the checkpoint does not know of.
    pub fn has_changed(&self) -> bool {
        let findings = self.findings.lock();
        findings.changes != findings.saved
    }

    /// What a checkpoint is to keep, and how many changes there were by now; `None` where it knows of all.
    pub fn to_save(&self) -> Option<(Vec<u8>, u64)> {
        let findings = self.findings.lock();
        if findings.changes == findings.saved {
            return None;
        }
        let first = findings.last.len().saturating_sub(SAVED);
        let last: Vec<&PostedFinding> = findings.last.range(first..).collect();
        // Texts and numbers always have a JSON form.
        Some((serde_json::to_vec(&last).unwrap_or_default(), findings.changes))
    }

    /// The checkpoint knows of so many changes.
    pub fn saved(&self, changes: u64) {
        self.findings.lock().saved = changes;
    }

    /// Shows what a checkpoint kept; false where it cannot be read.
    pub fn restore(&self, saved: &[u8]) -> bool {
        let Ok(saved) = serde_json::from_slice::<Vec<PostedFinding>>(saved) else { return false };
        let mut findings = self.findings.lock();
        for posted in saved {
            findings.earlier.insert(posted.finding.tag());
            push(&mut findings.last, posted, self.bound);
        }
        true
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
        self.findings.lock().last.iter().rev().take(most).cloned().collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::sample_finding;

    fn posted(at: i64) -> PostedFinding {
        let finding = sample_finding(at, 95.0);
        let key = vec![(FieldName::new("bed").unwrap(), "b3".to_owned())];
        PostedFinding { stream: StreamName::new("vitals").unwrap(), finding, key, opinion: None }
    }

    fn times(board: &Board) -> Vec<i64> {
        board.findings(usize::MAX).iter().map(|posted| posted.finding.at.as_micros() / 1_000_000).collect()
    }

    #[test]
    fn the_last_findings_are_there_after_a_restart_and_once() {
        let board = Board::new(100);
        (0..40).for_each(|n| board.post_finding(posted(n)));
        let (saved, so_far) = board.to_save().unwrap();
        board.saved(so_far);
        assert!(board.to_save().is_none(), "nothing new");
        let next = Board::new(100);
        assert!(next.restore(&saved) && !next.restore(b"?"));
        assert_eq!(next.findings(1), vec![posted(39)]);
        // The journal brings the last ones out again, then come new ones.
        (38..42).for_each(|n| next.post_finding(posted(n)));
        assert_eq!(times(&next), (10..42).rev().collect::<Vec<i64>>());
    }

    #[test]
    fn what_an_operator_said_is_there_after_a_restart() {
        let board = Board::new(100);
        (0..2).for_each(|n| board.post_finding(posted(n)));
        let (_, so_far) = board.to_save().unwrap();
        board.saved(so_far);
        let tag = posted(1).finding.tag();
        board.note(&tag, Opinion::FalseAlarm);
        let (saved, so_far) = board.to_save().expect("that is something new");
        board.saved(so_far);
        board.note(&tag, Opinion::FalseAlarm);
        board.note(&posted(7).finding.tag(), Opinion::Confirmed);
        assert!(board.to_save().is_none(), "said again, or of a finding that is not here");
        let next = Board::new(100);
        assert!(next.restore(&saved));
        // The journal brings it out again; it was said all the same.
        next.post_finding(posted(1));
        let opinions: Vec<_> = next.findings(9).into_iter().map(|posted| posted.opinion).collect();
        assert_eq!(opinions, [Some(Opinion::FalseAlarm), None]);
        let before = String::from_utf8(saved).unwrap().replace(",\"opinion\":\"false_alarm\"", "");
        assert!(Board::new(100).restore(before.as_bytes()), "checkpoints of before know of no opinions");
    }
}
