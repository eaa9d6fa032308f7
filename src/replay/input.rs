//! Recorded rows: CSV, JSON lines and Parquet files as readings of one stream definition.
//!
//! Promises: a row that is no reading is given back with the reason, and the rows after it are read; only a file that cannot
//! be read on ends the rows.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use arrow::array::{Array, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::record_batch::RecordBatch;
use nearside_schemas::{KeyValues, Reading, StreamSpec, Timestamp};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::columns::{Columns, GivenKey};
use super::jsonl::JsonLines;
use crate::error::StartError;

/// What is said of a row with bytes that are no text.
pub(super) const NOT_TEXT: &str = "the row is not UTF-8";

/// One row of the input.
pub struct Recorded {
    /// The timestamp as it was written.
    pub timestamp_text: String,
    /// The first numeric field as it was written.
    pub value_text: String,
    /// The stream's key.
    pub key: KeyValues,
    /// The reading, or why it is none.
    pub reading: Result<Reading, String>,
}

/// An iterator of rows; an error ends it.
pub type RecordedRows = Box<dyn Iterator<Item = Result<Recorded, StartError>>>;

/// Opens a recorded file; its ending says what it is. `given` are key parts that are no column.
pub fn read_recorded(path: &Path, spec: &StreamSpec, given: &[(String, String)]) -> Result<RecordedRows, StartError> {
    let wrong = |why: String| StartError::Input { path: path.to_owned(), why };
    let given = GivenKey::new(spec, given, path)?;
    let file = File::open(path).map_err(StartError::file(path))?;
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => csv_rows(path, file, spec, &given),
        Some("jsonl" | "ndjson") => jsonl_rows(path, file, spec, given),
        Some("parquet") => parquet_rows(path, file, spec, &given),
        _ => Err(wrong("its name must end in .csv, .jsonl or .parquet".to_owned())),
    }
}

fn csv_rows(path: &Path, file: File, spec: &StreamSpec, given: &GivenKey) -> Result<RecordedRows, StartError> {
    let owned = path.to_owned();
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(BufReader::new(file));
    let broken = move |error: csv::Error| StartError::Input { path: owned.clone(), why: error.to_string() };
    let text = |cell: &[u8]| String::from_utf8_lossy(cell).into_owned();
    let header: Vec<String> =
        reader.byte_headers().map_err(&broken)?.iter().map(|name| text(name).trim().to_owned()).collect();
    let columns =
        Columns::find(spec, &header, given).map_err(|why| StartError::Input { path: path.to_owned(), why })?;
    let rows = reader.into_byte_records().map(move |record| {
        let record = record.map_err(&broken)?;
        let cells: Vec<String> = record.iter().map(text).collect();
        let is_text = record.iter().all(|cell| std::str::from_utf8(cell).is_ok());
        Ok(columns.row(&cells, (!is_text).then_some(NOT_TEXT)))
    });
    Ok(Box::new(rows))
}

fn jsonl_rows(path: &Path, file: File, spec: &StreamSpec, given: GivenKey) -> Result<RecordedRows, StartError> {
    let owned = path.to_owned();
    let mut lines =
        JsonLines::new(spec, given).map_err(|why| StartError::Input { path: path.to_owned(), why: why.to_string() })?;
    let rows = BufReader::new(file).split(b'\n').flat_map(move |line| -> Vec<Result<Recorded, StartError>> {
        match line {
            Ok(line) if line.trim_ascii().is_empty() => Vec::new(),
            Ok(line) => lines.rows(&line).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(StartError::file(&owned)(error))],
        }
    });
    Ok(Box::new(rows))
}

fn parquet_rows(path: &Path, file: File, spec: &StreamSpec, given: &GivenKey) -> Result<RecordedRows, StartError> {
    let owned = path.to_owned();
    let broken = move |why: String| StartError::Input { path: owned.clone(), why };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| broken(error.to_string()))?;
    let header: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let columns = Columns::find(spec, &header, given).map_err(&broken)?;
    let reader = builder.build().map_err(|error| broken(error.to_string()))?;
    let rows = reader.flat_map(move |batch| -> Vec<Result<Recorded, StartError>> {
        match batch.map_err(|error| error.to_string()).and_then(|batch| text_cells(&batch, &columns)) {
            Ok(rows) => rows.iter().map(|cells| Ok(columns.row(cells, None))).collect(),
            Err(why) => vec![Err(broken(why))],
        }
    });
    Ok(Box::new(rows))
}

/// A batch as rows of text: timestamps as microseconds, numbers in the shortest form that reads back the same. Columns that
/// nothing is read from stay empty, whatever they hold.
fn text_cells(batch: &RecordBatch, columns: &Columns) -> Result<Vec<Vec<String>>, String> {
    let mut rows = vec![vec![String::new(); batch.num_columns()]; batch.num_rows()];
    for (index, column) in batch.columns().iter().enumerate().filter(|(index, _)| columns.reads(*index)) {
        for (row, cell) in rows.iter_mut().zip(column_text(column.as_ref())?) {
            row[index] = cell;
        }
    }
    Ok(rows)
}

fn column_text(column: &dyn Array) -> Result<Vec<String>, String> {
    let missing = || "a column of the file cannot be read as time, number or text".to_owned();
    let cast_to = |kind: &DataType| cast(column, kind).map_err(|error| error.to_string());
    Ok(match column.data_type() {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let cast = cast_to(&DataType::Timestamp(TimeUnit::Microsecond, None))?;
            let times = cast.as_any().downcast_ref::<TimestampMicrosecondArray>().ok_or_else(missing)?;
            times.iter().map(|time| time.map(|t| Timestamp::from_micros(t).to_string()).unwrap_or_default()).collect()
        }
        kind if kind.is_floating() => {
            let cast = cast_to(&DataType::Float64)?;
            let numbers = cast.as_any().downcast_ref::<Float64Array>().ok_or_else(missing)?;
            numbers.iter().map(|number| number.map(|n| n.to_string()).unwrap_or_default()).collect()
        }
        _ => {
            let cast = cast_to(&DataType::Utf8)?;
            let texts = cast.as_any().downcast_ref::<StringArray>().ok_or_else(missing)?;
            texts.iter().map(|text| text.unwrap_or_default().to_owned()).collect()
        }
    })
}
