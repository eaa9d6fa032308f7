//! What a stream knows of one model: its state, the rows that wait for their outputs, and which answers are on their way.
//!
//! Promises: inputs are numbered, and an answer names its own, so a row is given its outputs or none, whatever was given up or lost.

use std::collections::VecDeque;

use nearside_journal::Lsn;
use nearside_models::row_model::RowState;
use nearside_schemas::Timestamp;

use super::feedback::FeedbackLog;

/// A row whose verdict is not known yet.
pub(super) struct Pending {
    pub(super) time: Timestamp,
    pub(super) record: Option<Lsn>,
    /// The number of its first input, and how many it has.
    pub(super) first: u64,
    pub(super) inputs: usize,
}

/// One model on one stream.
pub(super) struct Judge {
    pub(super) state: Box<dyn RowState>,
    pub(super) pending: VecDeque<Pending>,
    pub(super) taken: u64,
    pub(super) judged: u64,
    /// What operators said of its findings.
    pub(super) feedback: FeedbackLog,
    /// Inputs that went to the network, and up to which of them it has answered.
    pub(super) asked: u64,
    pub(super) answered: u64,
}

impl Judge {
    pub(super) fn new(state: Box<dyn RowState>) -> Self {
        Self {
            state,
            pending: VecDeque::new(),
            taken: 0,
            judged: 0,
            feedback: FeedbackLog::default(),
            asked: 0,
            answered: 0,
        }
    }

    /// Takes a row with so many inputs; the number of the first.
    pub(super) fn push(&mut self, time: Timestamp, record: Option<Lsn>, inputs: usize) -> u64 {
        let first = self.asked;
        self.pending.push_back(Pending { time, record, first, inputs });
        self.taken += 1;
        self.asked += inputs as u64;
        first
    }

    /// The oldest row, where the answers up to input `end` settle it: first input and number of inputs. A row without inputs travels with
    /// the rows around it.
    pub(super) fn settled(&self, end: u64) -> Option<(u64, usize)> {
        let row = self.pending.front()?;
        (row.first < end || row.inputs == 0).then_some((row.first, row.inputs))
    }

    /// Whether all is judged and answered: an answer on its way would meet the rows of whoever takes the stream up again.
    pub(super) fn is_at_rest(&self) -> bool {
        self.pending.is_empty() && self.answered == self.asked
    }
}
