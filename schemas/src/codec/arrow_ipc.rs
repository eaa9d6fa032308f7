//! Arrow IPC streams: fields are columns by name.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, Float64Array, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::ipc::reader::StreamReader;
use arrow::record_batch::RecordBatch;

use super::layout::{Layout, bad_timestamp, finite, key_text, malformed};
use super::timestamp::from_number;
use super::{CodecError, Decode, DecodeError, Decoded, DecodedRow};
use crate::personal::Personal;
use crate::reading::{FieldValue, KeyValues, Reading, Values};
use crate::stream::FieldKind;
use crate::time::Timestamp;

pub(super) struct ArrowIpc {
    layout: Layout,
    names: Vec<String>,
}

fn name(path: &str) -> String {
    path.trim_start_matches('$').trim_start_matches('.').to_owned()
}

impl ArrowIpc {
    pub(super) fn new(layout: Layout) -> Result<Self, CodecError> {
        if layout.rows.is_some() || layout.rate.is_some() || layout.rate_hz.is_some() {
            let what = "format `arrow_ipc` has rows of its own: leave `rows` and `rate_hz` out";
            return Err(CodecError { what: what.to_owned() });
        }
        let names = layout.fields.iter().map(|slot| name(slot.path.text())).collect();
        Ok(Self { layout, names })
    }

    fn read(&self, payload: &[u8], received: Timestamp, out: &mut Decoded) -> Result<(), DecodeError> {
        let broken = || malformed("the Arrow IPC stream is broken");
        let before = out.rows.len();
        for batch in StreamReader::try_new(payload, None).map_err(|_| broken())? {
            self.take_batch(&batch.map_err(|_| broken())?, received, before, out)?;
        }
        Ok(())
    }

    fn take_batch(
        &self,
        batch: &RecordBatch,
        received: Timestamp,
        before: usize,
        out: &mut Decoded,
    ) -> Result<(), DecodeError> {
        let mut columns = Vec::new();
        for (slot, name) in self.layout.fields.iter().zip(&self.names) {
            let column = batch.column_by_name(name).map(|column| ColumnOf::new(column.as_ref(), slot.kind, name));
            columns.push(column.transpose()?);
        }
        if columns.iter().all(Option::is_none) {
            return Err(malformed("no column is a field of the stream"));
        }
        let key_columns = self.layout.key.iter().map(|path| text_column(batch, &name(path.text())));
        let key_columns: Vec<StringArray> = key_columns.collect::<Result<_, _>>()?;
        let times = self.times(batch)?;
        let sequences = self.layout.sequence.as_ref().and_then(|path| {
            let column = batch.column_by_name(&name(path.text()))?;
            cast(column, &DataType::UInt64).ok()?.as_any().downcast_ref::<UInt64Array>().cloned()
        });
        for row in 0..batch.num_rows() {
            if !self.layout.has_room(before, out) {
                return Ok(());
            }
            let time = match &times {
                None => Ok(received),
                Some(times) => times[row].ok_or_else(|| bad_timestamp("time")),
            };
            let sequence = sequences.as_ref().filter(|s| s.is_valid(row)).map(|s| s.value(row));
            match self.row(row, &columns, &key_columns, time, received, sequence) {
                Ok(decoded) => out.rows.push(decoded),
                Err(error) => out.errors.push(error),
            }
        }
        Ok(())
    }

    fn row(
        &self,
        row: usize,
        columns: &[Option<ColumnOf>],
        key: &[StringArray],
        time: Result<Timestamp, DecodeError>,
        received: Timestamp,
        sequence: Option<u64>,
    ) -> Result<DecodedRow, DecodeError> {
        let mut values = Values::new();
        for (column, name) in columns.iter().zip(&self.names) {
            values.push(column.as_ref().map_or(Ok(FieldValue::Missing), |column| column.value(row, name))?);
        }
        if values.iter().all(|value| *value == FieldValue::Missing) {
            return Err(malformed("no field of the row has a value"));
        }
        let part =
            |column: &StringArray| if column.is_valid(row) { column.value(row).to_owned() } else { String::new() };
        let key = key.iter().map(|column| key_text(&part(column), "key")).collect::<Result<KeyValues, _>>()?;
        Ok(DecodedRow { key, reading: Reading { time: time?, received, sequence, values } })
    }

    fn times(&self, batch: &RecordBatch) -> Result<Option<Vec<Option<Timestamp>>>, DecodeError> {
        let Some((path, spec)) = &self.layout.timestamp else { return Ok(None) };
        let wrong = || bad_timestamp(path.text());
        let column = batch.column_by_name(&name(path.text())).ok_or_else(wrong)?;
        if matches!(column.data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) {
            let cast = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(|_| wrong())?;
            let times = cast.as_any().downcast_ref::<TimestampMicrosecondArray>().ok_or_else(wrong)?;
            return Ok(Some(times.iter().map(|time| time.map(Timestamp::from_micros)).collect()));
        }
        let cast = cast(column, &DataType::Float64).map_err(|_| wrong())?;
        let numbers = cast.as_any().downcast_ref::<Float64Array>().ok_or_else(wrong)?;
        Ok(Some(numbers.iter().map(|number| number.and_then(|number| from_number(number, spec.unit))).collect()))
    }
}

fn text_column(batch: &RecordBatch, name: &str) -> Result<StringArray, DecodeError> {
    let wrong = || malformed(format!("column {name}: expected the key"));
    let column = batch.column_by_name(name).ok_or_else(wrong)?;
    let cast = cast(column, &DataType::Utf8).map_err(|_| wrong())?;
    cast.as_any().downcast_ref::<StringArray>().cloned().ok_or_else(wrong)
}

enum ColumnOf {
    Numbers(Float64Array),
    Texts(StringArray),
}

impl ColumnOf {
    fn new(column: &dyn Array, kind: FieldKind, name: &str) -> Result<Self, DecodeError> {
        let wrong = || malformed(format!("column {name}: cannot be read as the field's kind"));
        let is_text = matches!(column.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        match kind {
            FieldKind::Number if !is_text => {
                let cast = cast(column, &DataType::Float64).map_err(|_| wrong())?;
                cast.as_any().downcast_ref::<Float64Array>().cloned().map(Self::Numbers).ok_or_else(wrong)
            }
            FieldKind::Text if is_text => {
                let cast = cast(column, &DataType::Utf8).map_err(|_| wrong())?;
                cast.as_any().downcast_ref::<StringArray>().cloned().map(Self::Texts).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
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
        // arrow-rs checks lengths of a stream, but a panic in its reader must stay a bad payload.
        let result = catch_unwind(AssertUnwindSafe(|| self.read(payload, received, out)));
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => out.errors.push(error),
            Err(_) => out.errors.push(malformed("the Arrow IPC stream is broken")),
        }
    }
}
