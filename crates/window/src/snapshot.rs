//! A stream's windows as bytes. Version 1, little endian: see [`write`]. Holds personal text: whoever stores it encrypts it.

use std::sync::Arc;

use nearside_schemas::{FieldValue, Personal, Reading, SetAsideCounts, SetAsideReason, StreamId, Timestamp, Values};

use crate::config::WindowError;
use crate::definition::{Definition, Held};
use crate::plan::WindowPlan;
use crate::stream::StreamWindows;

const VERSION: u8 = 1;

/// Version, latest, last received, number of definitions; for each its name, watermark, set-aside counts and windows; for each
/// window start, revision, closed, rows; for each row time, received, sequence, values.
pub(crate) fn write(windows: &StreamWindows) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_time(&mut out, windows.latest);
    put_time(&mut out, windows.last_received);
    put_len(&mut out, windows.definitions.len());
    for (definition, planned) in windows.definitions.iter().zip(&windows.plan.windows) {
        put_text(&mut out, planned.name.as_str());
        put_time(&mut out, definition.watermark);
        put_len(&mut out, definition.set_aside.iter().count());
        for (reason, count) in definition.set_aside.iter() {
            out.push(reason as u8);
            out.extend(count.to_le_bytes());
        }
        put_len(&mut out, definition.held.len());
        for window in &definition.held {
            put_time(&mut out, window.start);
            out.extend(window.revision.to_le_bytes());
            out.push(u8::from(window.closed));
            put_len(&mut out, window.rows.len());
            window.rows.iter().for_each(|row| put_row(&mut out, row));
        }
    }
    out
}

fn put_row(out: &mut Vec<u8>, row: &Reading) {
    put_time(out, row.time);
    put_time(out, row.received);
    out.push(u8::from(row.sequence.is_some()));
    out.extend(row.sequence.unwrap_or(0).to_le_bytes());
    put_len(out, row.values.len());
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

    fn row(&mut self, fields: usize) -> Result<Reading, WindowError> {
        let (time, received) = (self.time()?, self.time()?);
        let has_sequence = self.byte()? == 1;
        let sequence = self.u64()?;
        if self.len()? != fields {
            return Err(WindowError::Snapshot("the fields of the stream have changed"));
        }
        let mut values = Values::new();
        for _ in 0..fields {
            values.push(match self.byte()? {
                0 => FieldValue::Missing,
                1 => FieldValue::Number(f64::from_le_bytes(self.array()?)),
                2 => FieldValue::Text(Personal::new(Arc::from(self.text()?))),
                _ => return Err(WindowError::Snapshot("a value has an unknown type")),
            });
        }
        Ok(Reading { time, received, sequence: has_sequence.then_some(sequence), values })
    }
}

pub(crate) fn read(plan: Arc<WindowPlan>, stream: StreamId, bytes: &[u8]) -> Result<StreamWindows, WindowError> {
    let mut bytes = Bytes(bytes);
    if bytes.byte()? != VERSION {
        return Err(WindowError::Snapshot("it is of another version"));
    }
    let mut windows = StreamWindows::new(plan, stream);
    windows.latest = bytes.time()?;
    windows.last_received = bytes.time()?;
    if bytes.len()? != windows.definitions.len() {
        return Err(WindowError::Snapshot("the windows of the stream have changed"));
    }
    for index in 0..windows.definitions.len() {
        if bytes.text()? != windows.plan.windows[index].name.as_str() {
            return Err(WindowError::Snapshot("the windows of the stream have changed"));
        }
        windows.definitions[index] = read_definition(&mut bytes, windows.plan.fields.len())?;
    }
    Ok(windows)
}

fn read_definition(bytes: &mut Bytes<'_>, fields: usize) -> Result<Definition, WindowError> {
    let watermark = bytes.time()?;
    let mut set_aside = SetAsideCounts::default();
    for _ in 0..bytes.len()? {
        let code = usize::from(bytes.byte()?);
        let reason = SetAsideReason::ALL.get(code).ok_or(WindowError::Snapshot("an unknown reason"))?;
        set_aside.add(*reason, bytes.u64()?);
    }
    let mut held = Vec::new();
    for _ in 0..bytes.len()? {
        let mut window = Held::new(bytes.time()?);
        window.revision = u32::from_le_bytes(bytes.array()?);
        window.closed = bytes.byte()? == 1;
        for _ in 0..bytes.len()? {
            window.rows.push(bytes.row(fields)?);
        }
        held.push(window);
    }
    Ok(Definition { held, watermark, set_aside })
}
