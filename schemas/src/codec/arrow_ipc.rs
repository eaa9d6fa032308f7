//! Arrow IPC streams: fields are columns by name.
//!
//! Promises: a payload costs memory and time in proportion to its bytes. A few bytes of Arrow can claim any number of rows, so
//! only columns are read whose every row has bytes of its own (numbers, truth values, times, plain text), the metadata is
//! measured before it is unfolded, and a batch is cut to the rows that have room before anything is made of it.
//! Never: a dictionary, a run-end encoded, a view, a nested or a null column is read; compressed buffers are not built in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow::ipc;
use arrow::ipc::reader::StreamReader;
use arrow::record_batch::RecordBatch;

use super::layout::{Layout, bad_timestamp, finite, key_text, malformed};
use super::room::Room;
use super::timestamp::{from_number, parse_timestamp};
use super::{CodecError, Decode, DecodeError, Decoded, DecodedRow, TimestampUnit};
use crate::personal::Personal;
use crate::reading::{FieldValue, KeyValues, Reading, Values};
use crate::stream::FieldKind;
use crate::time::Timestamp;

/// Most columns of a payload, those that no field names among them.
const MAX_COLUMNS: usize = 1_024;

pub(super) struct ArrowIpc {
    layout: Layout,
    fields: Vec<String>,
    key: Vec<String>,
    timestamp: Option<(String, TimestampUnit)>,
    sequence: Option<String>,
}

fn name(path: &str) -> String {
    path.trim_start_matches('$').trim_start_matches('.').to_owned()
}

fn broken() -> DecodeError {
    malformed("the Arrow IPC stream is broken")
}

impl ArrowIpc {
    pub(super) fn new(layout: Layout) -> Result<Self, CodecError> {
        if layout.rows.is_some() || layout.rate.is_some() || layout.rate_hz.is_some() {
            let what = "format `arrow_ipc` has rows of its own: leave `rows` and `rate_hz` out";
            return Err(CodecError { what: what.to_owned() });
        }
        Ok(Self {
            fields: layout.fields.iter().map(|slot| name(slot.path.text())).collect(),
            key: layout.key.iter().map(|path| name(path.text())).collect(),
            timestamp: layout.timestamp.as_ref().map(|(path, spec)| (name(path.text()), spec.unit)),
            sequence: layout.sequence.as_ref().map(|path| name(path.text())),
            layout,
        })
    }

    fn read(&self, payload: &[u8], received: Timestamp, room: &mut Room, out: &mut Decoded) -> Result<(), DecodeError> {
        check_schema(payload)?;
        let whole = StreamReader::try_new(payload, None).map_err(|_| broken())?.schema();
        let wanted = self.wanted(&whole)?;
        for batch in StreamReader::try_new(payload, Some(wanted)).map_err(|_| broken())? {
            self.take_batch(&batch.map_err(|_| broken())?, received, room, out);
        }
        Ok(())
    }

    /// The columns that are read, each of a plain kind.
    fn wanted(&self, schema: &Schema) -> Result<Vec<usize>, DecodeError> {
        let place = |name: &String| schema.fields().iter().position(|field| field.name() == name);
        if !self.fields.iter().any(|name| place(name).is_some()) {
            return Err(malformed("no column is a field of the stream"));
        }
        let others = self.key.iter().chain(&self.sequence).chain(self.timestamp.as_ref().map(|(name, _)| name));
        let mut wanted: Vec<usize> = self.fields.iter().chain(others).filter_map(place).collect();
        wanted.sort_unstable();
        wanted.dedup();
        for field in wanted.iter().map(|at| schema.field(*at)) {
            let kind = field.data_type();
            let plain = kind.is_primitive() || matches!(kind, DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8);
            if !plain {
                let name = field.name();
                let detail = format!("column {name}: expected plain numbers, truth values, times or text");
                return Err(malformed(detail));
            }
        }
        Ok(wanted)
    }

    fn take_batch(&self, batch: &RecordBatch, received: Timestamp, room: &mut Room, out: &mut Decoded) {
        let batch = batch.slice(0, room.take_many(batch.num_rows()));
        match self.columns(&batch) {
            Ok(columns) => (0..batch.num_rows()).for_each(|row| out.push(self.row(row, &columns, received))),
            Err(error) if batch.num_rows() > 0 => {
                out.errors.push(DecodeError { readings: batch.num_rows() as u64, ..error });
            }
            Err(_) => {}
        }
    }

    fn columns(&self, batch: &RecordBatch) -> Result<Columns, DecodeError> {
        let mut fields = Vec::new();
        for (slot, name) in self.layout.fields.iter().zip(&self.fields) {
            let column = batch.column_by_name(name).map(|column| FieldColumn::new(column, slot.kind, name));
            fields.push(column.transpose()?);
        }
        Ok(Columns {
            fields,
            key: self.key.iter().map(|name| key_column(batch, name)).collect::<Result<_, _>>()?,
            times: self.timestamp.as_ref().map(|(name, unit)| TimeColumn::new(batch, name, *unit)).transpose()?,
            sequence: self.sequence.as_ref().and_then(|name| {
                let column = batch.column_by_name(name)?;
                cast(column, &DataType::UInt64).ok()?.as_any().downcast_ref::<UInt64Array>().cloned()
            }),
        })
    }

    fn row(&self, row: usize, columns: &Columns, received: Timestamp) -> Result<DecodedRow, DecodeError> {
        let mut values = Values::new();
        for (column, name) in columns.fields.iter().zip(&self.fields) {
            values.push(column.as_ref().map_or(Ok(FieldValue::Missing), |column| column.value(row, name))?);
        }
        if values.iter().all(|value| *value == FieldValue::Missing) {
            return Err(malformed("no field of the row has a value"));
        }
        let part = |column: &StringArray| key_text(if column.is_valid(row) { column.value(row) } else { "" }, "key");
        let key = columns.key.iter().map(part).collect::<Result<KeyValues, _>>()?;
        let time = match &columns.times {
            None => received,
            Some(times) => times.value(row).ok_or_else(|| bad_timestamp("time"))?,
        };
        let sequence = columns.sequence.as_ref().filter(|s| s.is_valid(row)).map(|s| s.value(row));
        Ok(DecodedRow { key, reading: Reading { time, received, sequence, values } })
    }
}

/// Looks at the schema while it is still the flatbuffer that came in. Its parts may be shared, so that a few bytes unfold into
/// gigabytes of names and metadata: unfolded, it must take no more than the payload does.
fn check_schema(payload: &[u8]) -> Result<(), DecodeError> {
    fn text_bytes<'a>(pairs: Option<impl IntoIterator<Item = ipc::KeyValue<'a>>>) -> usize {
        let bytes = |text: Option<&str>| text.map_or(0, str::len);
        pairs.into_iter().flatten().map(|pair| bytes(pair.key()) + bytes(pair.value())).sum()
    }
    let framed = payload.strip_prefix(&[0xFF; 4]).unwrap_or(payload);
    let (length, rest) = framed.split_first_chunk::<4>().ok_or_else(broken)?;
    let metadata = rest.get(..u32::from_le_bytes(*length) as usize).ok_or_else(broken)?;
    let message = ipc::root_as_message(metadata).map_err(|_| broken())?;
    let schema = message.header_as_schema().ok_or_else(broken)?;
    let fields = schema.fields().ok_or_else(broken)?;
    if fields.len() > MAX_COLUMNS {
        return Err(malformed(format!("there are more than {MAX_COLUMNS} columns")));
    }
    let mut bytes = text_bytes(schema.custom_metadata());
    for field in fields {
        if field.dictionary().is_some() || field.children().is_some_and(|children| !children.is_empty()) {
            return Err(malformed("a column is nested or has a dictionary: write plain columns"));
        }
        bytes += field.name().map_or(0, str::len) + text_bytes(field.custom_metadata());
    }
    if bytes > payload.len() { Err(malformed("the schema unfolds into more than was sent")) } else { Ok(()) }
}

/// The columns of a batch, none longer than the room.
struct Columns {
    fields: Vec<Option<FieldColumn>>,
    key: Vec<StringArray>,
    times: Option<TimeColumn>,
    sequence: Option<UInt64Array>,
}

fn key_column(batch: &RecordBatch, name: &str) -> Result<StringArray, DecodeError> {
    let wrong = || malformed(format!("column {name}: expected the key"));
    texts(batch.column_by_name(name).ok_or_else(wrong)?).ok_or_else(wrong)
}

fn texts(column: &ArrayRef) -> Option<StringArray> {
    cast(column, &DataType::Utf8).ok()?.as_any().downcast_ref().cloned()
}

fn numbers(column: &ArrayRef) -> Option<Float64Array> {
    cast(column, &DataType::Float64).ok()?.as_any().downcast_ref().cloned()
}

const fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8)
}

enum TimeColumn {
    Micros(TimestampMicrosecondArray),
    Numbers(Float64Array, TimestampUnit),
    Texts(StringArray, TimestampUnit),
}

impl TimeColumn {
    fn new(batch: &RecordBatch, name: &str, unit: TimestampUnit) -> Result<Self, DecodeError> {
        let wrong = || bad_timestamp(name);
        let column = batch.column_by_name(name).ok_or_else(wrong)?;
        match column.data_type() {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
                let times = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(|_| wrong())?;
                times.as_any().downcast_ref().cloned().map(Self::Micros)
            }
            kind if is_text(kind) => texts(column).map(|texts| Self::Texts(texts, unit)),
            _ => numbers(column).map(|numbers| Self::Numbers(numbers, unit)),
        }
        .ok_or_else(wrong)
    }

    fn value(&self, row: usize) -> Option<Timestamp> {
        match self {
            Self::Micros(times) => times.is_valid(row).then(|| Timestamp::from_micros(times.value(row))),
            Self::Numbers(numbers, unit) => {
                numbers.is_valid(row).then(|| from_number(numbers.value(row), *unit)).flatten()
            }
            Self::Texts(texts, unit) => texts.is_valid(row).then(|| parse_timestamp(texts.value(row), *unit)).flatten(),
        }
    }
}

enum FieldColumn {
    Numbers(Float64Array),
    Texts(StringArray),
}

impl FieldColumn {
    fn new(column: &ArrayRef, kind: FieldKind, name: &str) -> Result<Self, DecodeError> {
        let column = match (kind, is_text(column.data_type())) {
            (FieldKind::Number, false) => numbers(column).map(Self::Numbers),
            (FieldKind::Text, true) => texts(column).map(Self::Texts),
            _ => None,
        };
        column.ok_or_else(|| malformed(format!("column {name}: cannot be read as the field's kind")))
    }

    fn value(&self, row: usize, name: &str) -> Result<FieldValue, DecodeError> {
        match self {
            Self::Numbers(numbers) if numbers.is_valid(row) => finite(numbers.value(row), name),
            Self::Texts(texts) if texts.is_valid(row) => {
                Ok(FieldValue::Text(Personal::new(Arc::from(texts.value(row)))))
            }
            _ => Ok(FieldValue::Missing),
        }
    }
}

impl Decode for ArrowIpc {
    fn decode(&self, payload: &[u8], received: Timestamp, out: &mut Decoded) {
        if !self.layout.admits(payload, out) {
            return;
        }
        let mut room = self.layout.room();
        // arrow-rs checks lengths of a stream, but a panic in its reader must stay a bad payload.
        let result = catch_unwind(AssertUnwindSafe(|| self.read(payload, received, &mut room, out)));
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => out.errors.push(error),
            Err(_) => out.errors.push(broken()),
        }
        room.close(out);
    }
}
