//! Recorded rows: CSV, JSON lines and Parquet files as readings of one stream definition.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::record_batch::RecordBatch;
use nearside_schemas::codec::{Decode, Decoded, TimestampUnit, decoder, parse_timestamp};
use nearside_schemas::{FieldKind, FieldValue, KeyValues, Personal, Reading, StreamSpec, Timestamp, Values};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::StartError;

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
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("input").to_owned();
    let wrong = |why: String| StartError::Input { path: path.to_owned(), why };
    let file = File::open(path).map_err(StartError::file(path))?;
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => csv_rows(path, file, spec, given, &stem),
        Some("jsonl" | "ndjson") => jsonl_rows(path, file, spec, given, &stem),
        Some("parquet") => parquet_rows(path, file, spec, given, &stem),
        _ => Err(wrong("its name must end in .csv, .jsonl or .parquet".to_owned())),
    }
}

/// Where the columns of a file are.
struct Columns {
    time: usize,
    unit: TimestampUnit,
    sequence: Option<usize>,
    /// For each field of the stream.
    fields: Vec<Option<usize>>,
    /// For each key part: a column, or a fixed value.
    key: Vec<Result<usize, Arc<str>>>,
    kinds: Vec<FieldKind>,
}

/// The last name in a path such as `$.a.b`.
fn last_name(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path).trim_start_matches('$')
}

impl Columns {
    fn find(
        path: &Path,
        spec: &StreamSpec,
        header: &[String],
        given: &[(String, String)],
        stem: &str,
    ) -> Result<Self, StartError> {
        let column = |name: &str| header.iter().position(|column| column == name);
        let wrong = |why: String| StartError::Input { path: path.to_owned(), why };
        let written = spec.timestamp.as_ref().map(|timestamp| last_name(&timestamp.path).to_owned());
        let candidates = written.iter().map(String::as_str).chain(["timestamp", "time", "ts", "datetime"]);
        let time = candidates.clone().find_map(column).ok_or_else(|| {
            wrong(format!("no column for the timestamp: looked for {}", candidates.collect::<Vec<_>>().join(", ")))
        })?;
        let fields: Vec<Option<usize>> = spec
            .fields
            .iter()
            .zip(&spec.codec.paths)
            .map(|(field, path)| column(field.name.as_str()).or_else(|| column(last_name(path))))
            .collect();
        if fields.iter().all(Option::is_none) {
            let names: Vec<&str> = spec.fields.iter().map(|field| field.name.as_str()).collect();
            return Err(wrong(format!("no column for any field; the stream has: {}", names.join(", "))));
        }
        let key = spec.key.iter().map(|part| {
            let name = part.name.as_str();
            if let Some((_, value)) = given.iter().find(|(given, _)| given == name) {
                return Err(Arc::from(value.as_str()));
            }
            column(name).ok_or_else(|| Arc::from(stem))
        });
        Ok(Self {
            time,
            unit: spec.timestamp.as_ref().map(|timestamp| timestamp.unit).unwrap_or_default(),
            sequence: spec.sequence.as_deref().and_then(|path| column(last_name(path))),
            fields,
            key: key.collect(),
            kinds: spec.fields.iter().map(|field| field.kind).collect(),
        })
    }

    /// A row of text cells.
    fn row(&self, cells: &[String]) -> Recorded {
        let cell = |at: usize| cells.get(at).map_or("", |cell| cell.trim());
        let key = self.key.iter().map(|part| match part {
            Ok(column) => Personal::new(Arc::from(cell(*column))),
            Err(fixed) => Personal::new(fixed.clone()),
        });
        let first =
            self.fields.iter().zip(&self.kinds).find(|(column, kind)| column.is_some() && **kind == FieldKind::Number);
        Recorded {
            timestamp_text: cell(self.time).to_owned(),
            value_text: first.and_then(|(column, _)| *column).map_or("", cell).to_owned(),
            key: key.collect(),
            reading: self.reading(&cell),
        }
    }

    fn reading<'c>(&self, cell: &impl Fn(usize) -> &'c str) -> Result<Reading, String> {
        let time = parse_timestamp(cell(self.time), self.unit).ok_or("the timestamp cannot be read")?;
        let mut values = Values::new();
        for (column, kind) in self.fields.iter().zip(&self.kinds) {
            let text = column.map_or("", cell);
            values.push(match kind {
                _ if text.is_empty() => FieldValue::Missing,
                FieldKind::Text => FieldValue::Text(Personal::new(Arc::from(text))),
                FieldKind::Number => match text.parse::<f64>() {
                    Ok(number) if number.is_finite() => FieldValue::Number(number),
                    _ => return Err("a number cannot be read".to_owned()),
                },
            });
        }
        if values.iter().all(|value| *value == FieldValue::Missing) {
            return Err("the row has no value".to_owned());
        }
        let sequence = self.sequence.and_then(|column| cell(column).parse().ok());
        Ok(Reading { time, received: time, sequence, values })
    }
}

fn csv_rows(
    path: &Path,
    file: File,
    spec: &StreamSpec,
    given: &[(String, String)],
    stem: &str,
) -> Result<RecordedRows, StartError> {
    let owned = path.to_owned();
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(BufReader::new(file));
    let broken = move |error: csv::Error| StartError::Input { path: owned.clone(), why: error.to_string() };
    let header = reader.headers().map_err(&broken)?.iter().map(|name| name.trim().to_owned()).collect::<Vec<_>>();
    let columns = Columns::find(path, spec, &header, given, stem)?;
    let rows = reader.into_records().map(move |record| {
        let record = record.map_err(&broken)?;
        Ok(columns.row(&record.iter().map(str::to_owned).collect::<Vec<_>>()))
    });
    Ok(Box::new(rows))
}

/// Each line goes through the stream's own decoder, as if it had come as a message.
fn jsonl_rows(
    path: &Path,
    file: File,
    spec: &StreamSpec,
    given: &[(String, String)],
    stem: &str,
) -> Result<RecordedRows, StartError> {
    let decoder: Arc<dyn Decode> =
        decoder(spec).map_err(|error| StartError::Input { path: path.to_owned(), why: error.to_string() })?;
    let parts: Vec<(bool, Arc<str>)> = spec
        .key
        .iter()
        .map(|part| {
            let fixed = given.iter().find(|(name, _)| name == part.name.as_str());
            (part.path.is_none(), Arc::from(fixed.map_or(stem, |(_, value)| value.as_str())))
        })
        .collect();
    let owned = path.to_owned();
    let rows = BufReader::new(file).lines().flat_map(move |line| -> Vec<Result<Recorded, StartError>> {
        let line = match line {
            Ok(line) if line.trim().is_empty() => return Vec::new(),
            Ok(line) => line,
            Err(error) => return vec![Err(StartError::file(&owned)(error))],
        };
        let mut decoded = Decoded::default();
        decoder.decode(line.as_bytes(), Timestamp::from_micros(0), &mut decoded);
        let rows = decoded.rows.into_iter().map(|row| {
            let mut from_payload = row.key.into_iter();
            let key = parts.iter().filter_map(|(from_topic, fixed)| {
                if *from_topic { Some(Personal::new(fixed.clone())) } else { from_payload.next() }
            });
            let value = row.reading.values.iter().find_map(FieldValue::number);
            Ok(Recorded {
                timestamp_text: row.reading.time.to_string(),
                value_text: value.map(|value| value.to_string()).unwrap_or_default(),
                key: key.collect(),
                reading: Ok(row.reading),
            })
        });
        let errors = decoded.errors.into_iter().map(|error| {
            let (timestamp_text, value_text) = (String::new(), String::new());
            Ok(Recorded { timestamp_text, value_text, key: KeyValues::new(), reading: Err(error.to_string()) })
        });
        rows.chain(errors).collect()
    });
    Ok(Box::new(rows))
}

fn parquet_rows(
    path: &Path,
    file: File,
    spec: &StreamSpec,
    given: &[(String, String)],
    stem: &str,
) -> Result<RecordedRows, StartError> {
    let owned = path.to_owned();
    let broken = move |why: String| StartError::Input { path: owned.clone(), why };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| broken(error.to_string()))?;
    let header: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let columns = Columns::find(path, spec, &header, given, stem)?;
    let reader = builder.build().map_err(|error| broken(error.to_string()))?;
    let rows = reader.flat_map(move |batch| -> Vec<Result<Recorded, StartError>> {
        match batch.map_err(|error| error.to_string()).and_then(|batch| text_cells(&batch)) {
            Ok(rows) => rows.iter().map(|cells| Ok(columns.row(cells))).collect(),
            Err(why) => vec![Err(broken(why))],
        }
    });
    Ok(Box::new(rows))
}

/// A batch as rows of text: timestamps as microseconds, numbers in the shortest form that reads back the same.
fn text_cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>, String> {
    let mut rows = vec![Vec::with_capacity(batch.num_columns()); batch.num_rows()];
    for column in batch.columns() {
        let cells = column_text(column.as_ref())?;
        for (row, cell) in rows.iter_mut().zip(cells) {
            row.push(cell);
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
