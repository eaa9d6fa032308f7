//! The reference: nothing is ever dropped, every question is answered by looking through all rows. Times in seconds.

use std::collections::BTreeMap;

use nearside_schemas::{CloseCause, HumanDuration, SetAsideReason};
use nearside_window::{GuardConfig, LatePolicy, WindowConfig, WindowKind};

const SECOND: i64 = 1_000_000;
/// Before all times, far enough from the edge to add to.
const NEVER: i64 = i64::MIN / 4;

#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub time: i64,
    pub received: i64,
    pub sequence: Option<u64>,
    pub value: u8,
}

/// A closed window; start and end in microseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    pub definition: String,
    pub start: i64,
    pub end: i64,
    pub revision: u32,
    pub cause: CloseCause,
    pub rows: Vec<Row>,
    pub set_aside: BTreeMap<SetAsideReason, u64>,
}

pub struct Model {
    past: i64,
    future: i64,
    definitions: Vec<Definition>,
}

#[derive(Default)]
struct Window {
    rows: Vec<Row>,
    emitted: u32,
}

struct Definition {
    name: String,
    kind: WindowKind,
    size: i64,
    step: i64,
    count: usize,
    lateness: i64,
    keep: Option<i64>,
    idle: i64,
    max_rows: usize,
    max_kept: usize,
    watermark: i64,
    floor: i64,
    active: i64,
    set_aside: BTreeMap<SetAsideReason, u64>,
    /// Tumbling and hopping: all windows that ever had a row, by start.
    windows: BTreeMap<i64, Window>,
    /// Session and count: the rows that are in no closed window.
    loose: Vec<Row>,
    /// Count: the start of the last closed window, in microseconds.
    last_start: Option<i64>,
}

fn whole(duration: Option<HumanDuration>) -> i64 {
    duration.map_or(0, |duration| duration.get().as_secs() as i64)
}

fn same(a: &Row, b: &Row) -> bool {
    a.time == b.time
        && match (a.sequence, b.sequence) {
            (Some(a), Some(b)) => a == b,
            (None, None) => a.value == b.value,
            _ => false,
        }
}

fn by_time(rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| row.time);
    rows
}

impl Model {
    pub fn new(configs: &[WindowConfig], guard: &GuardConfig) -> Self {
        let definition = |config: &WindowConfig| Definition {
            name: config.name.as_ref().unwrap().to_string(),
            kind: config.kind,
            size: whole(config.size.or(config.gap)),
            step: whole(config.step.or(config.size)),
            count: config.rows.unwrap_or(0),
            lateness: whole(Some(config.lateness)),
            keep: (config.late == LatePolicy::Revise).then(|| whole(Some(config.revise_for))),
            idle: whole(Some(guard.idle)).max(whole(config.size) + whole(Some(config.lateness))).max(whole(config.gap)),
            max_rows: guard.max_rows,
            max_kept: guard.max_kept,
            watermark: NEVER,
            floor: NEVER,
            active: NEVER,
            set_aside: BTreeMap::new(),
            windows: BTreeMap::new(),
            loose: Vec::new(),
            last_start: None,
        };
        Self {
            past: whole(Some(guard.past)),
            future: whole(Some(guard.future)),
            definitions: configs.iter().map(definition).collect(),
        }
    }

    pub fn push(&mut self, row: Row, out: &mut Vec<Output>) -> (bool, Vec<SetAsideReason>) {
        let guarded = if row.time > row.received + self.future {
            Some(SetAsideReason::Future)
        } else if row.time < row.received - self.past {
            Some(SetAsideReason::Past)
        } else {
            None
        };
        let (mut any, mut reasons) = (false, Vec::new());
        for definition in &mut self.definitions {
            let (placed, reason) = match guarded {
                Some(reason) => (false, Some(reason)),
                None => {
                    definition.watermark = definition.watermark.max(row.time - definition.lateness);
                    definition.close_due(CloseCause::Watermark, out);
                    definition.place(&row, out)
                }
            };
            if let Some(reason) = reason {
                *definition.set_aside.entry(reason).or_default() += 1;
                if guarded.is_none() {
                    reasons.push(reason);
                }
            }
            if placed {
                definition.active = definition.active.max(row.received);
            }
            any |= placed;
        }
        reasons.extend(guarded);
        (any, reasons)
    }

    pub fn tick(&mut self, now: i64, out: &mut Vec<Output>) {
        for definition in &mut self.definitions {
            if now >= definition.active + definition.idle {
                definition.close_all(CloseCause::Idle, out);
                if now >= definition.active + definition.idle + definition.keep.unwrap_or(0) {
                    definition.forget_all();
                }
            }
        }
    }

    pub fn drain(&mut self, out: &mut Vec<Output>) {
        for definition in &mut self.definitions {
            definition.close_all(CloseCause::Drain, out);
        }
    }
}

impl Definition {
    fn is_timed(&self) -> bool {
        matches!(self.kind, WindowKind::Tumbling | WindowKind::Hopping)
    }

    fn place(&mut self, row: &Row, out: &mut Vec<Output>) -> (bool, Option<SetAsideReason>) {
        let result = match self.kind {
            WindowKind::Session => self.place_session(row),
            WindowKind::Count => self.place_count(row, out),
            _ => {
                let starts =
                    (row.time - self.size + 1..=row.time).rev().filter(|start| start.rem_euclid(self.step) == 0);
                let results: Vec<_> =
                    starts.collect::<Vec<_>>().into_iter().map(|s| self.place_at(s, row, out)).collect();
                let reasons = || results.iter().filter_map(|result| result.err());
                let duplicate = reasons().find(|reason| *reason == SetAsideReason::Duplicate);
                return (results.iter().any(Result::is_ok), duplicate.or(reasons().next()));
            }
        };
        (result.is_ok(), result.err())
    }

    /// Whether a closed window with this end is beyond revision.
    fn is_gone(&self, end: i64) -> bool {
        self.keep.is_none_or(|keep| end <= self.floor || end + keep <= self.watermark)
    }

    fn place_at(&mut self, start: i64, row: &Row, out: &mut Vec<Output>) -> Result<(), SetAsideReason> {
        let end = start + self.size;
        let is_closed = end <= self.watermark;
        if is_closed && self.is_gone(end) {
            return Err(SetAsideReason::Late);
        }
        let window = self.windows.entry(start).or_default();
        if window.rows.iter().any(|other| same(other, row)) {
            return Err(SetAsideReason::Duplicate);
        }
        if window.rows.len() == self.max_rows {
            return Err(SetAsideReason::Overflow);
        }
        window.rows.push(row.clone());
        if is_closed {
            self.emit(start, CloseCause::Revision, out);
            self.bound_kept();
        }
        Ok(())
    }

    fn emit(&mut self, start: i64, cause: CloseCause, out: &mut Vec<Output>) {
        let window = self.windows.get_mut(&start).unwrap();
        out.push(Output {
            definition: self.name.clone(),
            start: start * SECOND,
            end: (start + self.size) * SECOND,
            revision: window.emitted,
            cause,
            rows: by_time(&window.rows),
            set_aside: std::mem::take(&mut self.set_aside),
        });
        window.emitted += 1;
    }

    /// Ends of the closed windows that may be revised, with their rows, oldest first.
    fn kept(&self) -> Vec<(i64, usize)> {
        let closed = self.windows.iter().filter(|(_, window)| window.emitted > 0);
        let ends = closed.map(|(start, window)| (start + self.size, window.rows.len()));
        ends.filter(|(end, _)| !self.is_gone(*end)).collect()
    }

    fn bound_kept(&mut self) {
        while self.kept().iter().map(|(_, rows)| rows).sum::<usize>() > self.max_kept {
            self.floor = self.kept()[0].0;
        }
    }

    fn forget_all(&mut self) {
        if self.is_timed()
            && let Some((end, _)) = self.kept().last()
        {
            self.floor = *end;
        }
    }

    fn close_due(&mut self, cause: CloseCause, out: &mut Vec<Output>) {
        if self.kind == WindowKind::Session {
            while let Some(first) = self.sessions().first().cloned()
                && first.last().unwrap().time + self.size <= self.watermark
            {
                self.floor = first.last().unwrap().time + self.size;
                self.close_loose(first, cause, out);
            }
        }
        let open = self.windows.iter().filter(|(_, window)| window.emitted == 0).map(|(start, _)| *start);
        for start in open.collect::<Vec<_>>() {
            if start + self.size <= self.watermark {
                self.emit(start, cause, out);
                self.bound_kept();
            }
        }
    }

    fn close_all(&mut self, cause: CloseCause, out: &mut Vec<Output>) {
        match self.kind {
            WindowKind::Session => {
                for session in self.sessions() {
                    self.floor = session.last().unwrap().time + 1;
                    self.close_loose(session, cause, out);
                }
            }
            WindowKind::Count if !self.loose.is_empty() => self.close_loose(by_time(&self.loose), cause, out),
            WindowKind::Count => {}
            _ => {
                let mut open = self.windows.iter().filter(|(_, window)| window.emitted == 0);
                if let Some((last, _)) = open.next_back() {
                    self.watermark = self.watermark.max(last + self.size);
                    self.close_due(cause, out);
                }
            }
        }
    }

    /// The open sessions: the loose rows by time, cut at every gap.
    fn sessions(&self) -> Vec<Vec<Row>> {
        by_time(&self.loose).chunk_by(|a, b| b.time - a.time < self.size).map(<[Row]>::to_vec).collect()
    }

    fn place_session(&mut self, row: &Row) -> Result<(), SetAsideReason> {
        if row.time < self.floor {
            return Err(SetAsideReason::Late);
        }
        let joins = self.loose.iter().any(|other| (other.time - row.time).abs() < self.size);
        if !joins && row.time + self.size <= self.watermark {
            return Err(SetAsideReason::Late);
        }
        if self.loose.iter().any(|other| same(other, row)) {
            return Err(SetAsideReason::Duplicate);
        }
        self.loose.push(row.clone());
        Ok(())
    }

    fn place_count(&mut self, row: &Row, out: &mut Vec<Output>) -> Result<(), SetAsideReason> {
        if self.loose.iter().any(|other| same(other, row)) {
            return Err(SetAsideReason::Duplicate);
        }
        self.loose.push(row.clone());
        if self.loose.len() == self.count {
            self.close_loose(by_time(&self.loose), CloseCause::Full, out);
        }
        Ok(())
    }

    fn close_loose(&mut self, rows: Vec<Row>, cause: CloseCause, out: &mut Vec<Output>) {
        let (first, last) = (rows[0].time * SECOND, rows.last().unwrap().time * SECOND);
        let is_session = self.kind == WindowKind::Session;
        let start = if is_session { first } else { self.last_start.map_or(first, |before| first.max(before + 1)) };
        self.last_start = Some(start);
        self.loose.retain(|row| !rows.contains(row));
        out.push(Output {
            definition: self.name.clone(),
            start,
            end: if is_session { last + self.size * SECOND } else { (last + 1).max(start + 1) },
            revision: 0,
            cause,
            rows,
            set_aside: std::mem::take(&mut self.set_aside),
        });
    }
}
