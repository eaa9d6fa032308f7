//! A stream's windows as bytes. Version 2, little endian: see [`write`]. Holds personal text: whoever stores it encrypts it.

use std::sync::Arc;

use nearside_schemas::{FieldValue, Personal, Reading, SetAsideCounts, SetAsideReason, StreamId, Timestamp, Values};

use crate::config::WindowError;
use crate::definition::{Definition, Held, REMEMBERED_STARTS};
use crate::plan::{Planned, WindowPlan};
use crate::rows::Rows;
use crate::stream::StreamWindows;

const VERSION: u8 = 2;

/// Version, shape of the fields, latest, number of definitions; for each its name, shape, watermark, floor, activity, set-aside
/// counts, remembered starts, open windows, kept windows; for each window start, end, revision, rows in order of time; for each
/// row time, received, sequence, values. Counts, lengths and revisions have 32 bits; texts their length first.
pub(crate) fn write(windows: &StreamWindows) -> Vec<u8> {
    let mut out = vec![VERSION];
    let plan = &windows.plan;
    put_text(&mut out, &plan.fields_shape);
    put_time(&mut out, windows.latest);
    put_len(&mut out, windows.definitions.len());
    for (definition, planned) in windows.definitions.iter().zip(&plan.windows) {
        put_text(&mut out, planned.name.as_str());
        put_text(&mut out, &planned.shape);
        for time in [definition.watermark, definition.floor, definition.active] {
            put_time(&mut out, time);
        }
        put_len(&mut out, definition.set_aside.iter().count());
        for (reason, count) in definition.set_aside.iter() {
            put_text(&mut out, reason.label());
            out.extend(count.to_le_bytes());
        }
        put_len(&mut out, definition.starts.len());
        definition.starts.iter().for_each(|start| put_time(&mut out, *start));
        put_windows(&mut out, plan, definition.open.len(), definition.open.iter());
        put_windows(&mut out, plan, definition.kept.len(), definition.kept.iter());
    }
    out
}

fn put_windows<'a>(out: &mut Vec<u8>, plan: &WindowPlan, count: usize, windows: impl Iterator<Item = &'a Held>) {
    put_len(out, count);
    for window in windows {
        put_time(out, window.start);
        put_time(out, window.end);
        out.extend(window.revision.to_le_bytes());
        put_len(out, window.rows.len());
        window.rows.readings(plan).for_each(|row| put_row(out, &row));
    }
}

fn put_row(out: &mut Vec<u8>, row: &Reading) {
    put_time(out, row.time);
    put_time(out, row.received);
    match row.sequence {
        None => out.push(0),
        Some(sequence) => {
            out.push(1);
            out.extend(sequence.to_le_bytes());
        }
    }
    for value in &row.values {
        match value {
            FieldValue::Missing => out.push(0),
            FieldValue::Number(number) => {
                out.push(1);
                out.extend(number.to_le_bytes());
            }
            FieldValue::Text(text) => {
                out.push(2);
                put_text(out, text.expose());
            }
        }
    }
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend(time.as_micros().to_le_bytes());
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend((len as u32).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend(text.as_bytes());
}

struct Bytes<'a>(&'a [u8]);

const SHORT: WindowError = WindowError::Snapshot("it is cut short");

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], WindowError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WindowError> {
        self.take(N)?.try_into().map_err(|_| SHORT)
    }

    fn byte(&mut self) -> Result<u8, WindowError> {
        Ok(self.array::<1>()?[0])
    }

    fn time(&mut self) -> Result<Timestamp, WindowError> {
        Ok(Timestamp::from_micros(i64::from_le_bytes(self.array()?)))
    }

    fn u64(&mut self) -> Result<u64, WindowError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least one byte each, so that a damaged count cannot ask for more memory than there are bytes.
    fn len(&mut self) -> Result<usize, WindowError> {
        let len = u32::from_le_bytes(self.array()?) as usize;
        if len > self.0.len() { Err(SHORT) } else { Ok(len) }
    }

    fn text(&mut self) -> Result<&'a str, WindowError> {
        let len = self.len()?;
        std::str::from_utf8(self.take(len)?).map_err(|_| WindowError::Snapshot("a text is not UTF-8"))
    }

    fn row(&mut self, plan: &WindowPlan) -> Result<Reading, WindowError> {
        let (time, received) = (self.time()?, self.time()?);
        let sequence = match self.byte()? {
            0 => None,
            _ => Some(self.u64()?),
        };
        let mut values = Values::new();
        for _ in &plan.fields {
            values.push(match self.byte()? {
                0 => FieldValue::Missing,
                1 => FieldValue::Number(f64::from_le_bytes(self.array()?)),
                2 => FieldValue::Text(Personal::new(Arc::from(self.text()?))),
                _ => return Err(WindowError::Snapshot("a value has an unknown type")),
            });
        }
        Ok(Reading { time, received, sequence, values })
    }
}

const CHANGED: WindowError = WindowError::Snapshot("the windows of the stream have changed");
const DISORDER: WindowError = WindowError::Snapshot("windows or rows are out of order");

pub(crate) fn read(plan: Arc<WindowPlan>, stream: StreamId, bytes: &[u8]) -> Result<StreamWindows, WindowError> {
    let mut bytes = Bytes(bytes);
    if bytes.byte()? != VERSION {
        return Err(WindowError::Snapshot("it is of another version"));
    }
    if bytes.text()? != plan.fields_shape {
        return Err(WindowError::Snapshot("the fields of the stream have changed"));
    }
    let latest = bytes.time()?;
    if bytes.len()? != plan.windows.len() {
        return Err(CHANGED);
    }
    let definitions =
        plan.windows.iter().map(|planned| read_definition(&mut bytes, &plan, planned)).collect::<Result<_, _>>()?;
    if !bytes.0.is_empty() {
        return Err(WindowError::Snapshot("it is too long"));
    }
    Ok(StreamWindows { plan, stream, definitions, latest })
}

/// What is over for good, from a snapshot whose windows were all closed: each definition's name, watermark and floor.
pub(crate) fn read_marks(bytes: &[u8]) -> Result<Vec<(String, Timestamp, Timestamp)>, WindowError> {
    let mut bytes = Bytes(bytes);
    if bytes.byte()? != VERSION {
        return Err(WindowError::Snapshot("it is of another version"));
    }
    bytes.text()?;
    bytes.time()?;
    let mut marks = Vec::new();
    for _ in 0..bytes.len()? {
        let name = bytes.text()?.to_owned();
        bytes.text()?;
        let (watermark, floor) = (bytes.time()?, bytes.time()?);
        bytes.time()?;
        read_set_aside(&mut bytes)?;
        for _ in 0..bytes.len()? {
            bytes.time()?;
        }
        if bytes.len()? + bytes.len()? > 0 {
            return Err(WindowError::Snapshot("it has windows that are not closed"));
        }
        marks.push((name, watermark, floor));
    }
    Ok(marks)
}

fn read_definition(bytes: &mut Bytes<'_>, plan: &WindowPlan, planned: &Planned) -> Result<Definition, WindowError> {
    if bytes.text()? != planned.name.as_str() || bytes.text()? != planned.shape {
        return Err(CHANGED);
    }
    let mut definition = Definition {
        watermark: bytes.time()?,
        floor: bytes.time()?,
        active: bytes.time()?,
        set_aside: read_set_aside(bytes)?,
        ..Definition::default()
    };
    let starts = bytes.len()?;
    if starts > REMEMBERED_STARTS {
        return Err(WindowError::Snapshot("it remembers too many windows"));
    }
    for _ in 0..starts {
        definition.starts.push_back(bytes.time()?);
    }
    definition.open = read_windows(bytes, plan)?;
    definition.kept = read_windows(bytes, plan)?.into();
    definition.kept_rows = definition.kept.iter().map(|window| window.rows.len()).sum();
    Ok(definition)
}

fn read_set_aside(bytes: &mut Bytes<'_>) -> Result<SetAsideCounts, WindowError> {
    let mut counts = SetAsideCounts::default();
    for _ in 0..bytes.len()? {
        let label = bytes.text()?;
        let reason = SetAsideReason::ALL.into_iter().find(|reason| reason.label() == label);
        counts.add(reason.ok_or(WindowError::Snapshot("an unknown reason"))?, bytes.u64()?);
    }
    Ok(counts)
}

/// Windows in order of start, each with at least one row, in order of time: what the rest of this crate relies on.
fn read_windows(bytes: &mut Bytes<'_>, plan: &WindowPlan) -> Result<Vec<Held>, WindowError> {
    let mut windows: Vec<Held> = Vec::new();
    for _ in 0..bytes.len()? {
        let (start, end) = (bytes.time()?, bytes.time()?);
        let revision = u32::from_le_bytes(bytes.array()?);
        let mut rows = Rows::default();
        for _ in 0..bytes.len()? {
            let row = bytes.row(plan)?;
            if rows.last().is_some_and(|last| row.time < last) {
                return Err(DISORDER);
            }
            rows.append(plan, &row);
        }
        if rows.len() == 0 || end <= start || windows.last().is_some_and(|last| start <= last.start) {
            return Err(DISORDER);
        }
        windows.push(Held { start, end, revision, rows });
    }
    Ok(windows)
}
