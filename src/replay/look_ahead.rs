//! Rows with the time of the reading that comes next, for the receive clock.

use std::collections::VecDeque;

use nearside_schemas::Timestamp;

use super::input::{Recorded, RecordedRows};
use crate::error::StartError;

/// Most rows that are looked at for the next reading.
const MOST: usize = 1_000;

/// Rows, each with the time of the next row that is a reading; `None` at the end, or where a thousand rows hold none.
pub struct LookAhead {
    rows: RecordedRows,
    ahead: VecDeque<Result<Recorded, StartError>>,
}

impl LookAhead {
    /// Looks ahead in these rows.
    pub const fn new(rows: RecordedRows) -> Self {
        Self { rows, ahead: VecDeque::new() }
    }

    fn next_time(&mut self) -> Option<Timestamp> {
        let time = |row: &Result<Recorded, StartError>| Some(row.as_ref().ok()?.reading.as_ref().ok()?.time);
        if let Some(known) = self.ahead.iter().find_map(time) {
            return Some(known);
        }
        while self.ahead.len() < MOST {
            self.ahead.push_back(self.rows.next()?);
            if let Some(found) = self.ahead.back().and_then(time) {
                return Some(found);
            }
        }
        None
    }
}

impl Iterator for LookAhead {
    type Item = Result<(Recorded, Option<Timestamp>), StartError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.ahead.pop_front().or_else(|| self.rows.next())?;
        Some(row.map(|row| {
            let next = if row.reading.is_ok() { self.next_time() } else { None };
            (row, next)
        }))
    }
}
