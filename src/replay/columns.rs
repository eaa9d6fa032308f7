//! Where the timestamp, the fields and the key of a stream stand in a recorded row: matched by name, whatever the file's format.

use std::path::Path;
use std::sync::Arc;

use nearside_schemas::codec::{TimestampUnit, parse_timestamp};
use nearside_schemas::{FieldKind, FieldValue, Personal, Reading, StreamSpec, Values};

use super::input::Recorded;
use crate::error::StartError;

/// Names that a timestamp's column has where the stream names none of the file's.
const TIME_NAMES: [&str; 4] = ["timestamp", "time", "ts", "datetime"];

/// Names of a file's columns that an error lists, and how much of each.
const MOST_NAMES: usize = 12;
const MOST_OF_NAME: usize = 40;

/// What stands in for key parts that are no column.
#[derive(Clone)]
pub struct GivenKey {
    given: Vec<(String, String)>,
    stem: Arc<str>,
}

impl GivenKey {
    /// Values by name, and the file's name for the parts that have none.
    ///
    /// # Errors
    /// Where a name is no key part of the stream.
    pub fn new(spec: &StreamSpec, given: &[(String, String)], path: &Path) -> Result<Self, StartError> {
        let known: Vec<&str> = spec.key.iter().map(|part| part.name.as_str()).collect();
        if let Some((name, _)) = given.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            let (stream, known) = (&spec.name, if known.is_empty() { "none".to_owned() } else { known.join(", ") });
            return Err(StartError::Usage(format!("--key {name}=…: stream `{stream}` has the key parts: {known}")));
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("input");
        Ok(Self { given: given.to_vec(), stem: Arc::from(stem) })
    }

    /// The value that was given for a part.
    pub fn value(&self, name: &str) -> Option<Arc<str>> {
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| Arc::from(value.as_str()))
    }

    /// The file's name.
    pub const fn stem(&self) -> &Arc<str> {
        &self.stem
    }
}

/// Where the columns of a file are.
pub struct Columns {
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

/// The names of a file's columns, for an error.
fn found(header: &[String]) -> String {
    let mut names: Vec<String> =
        header.iter().take(MOST_NAMES).map(|name| name.chars().take(MOST_OF_NAME).collect()).collect();
    names.extend((header.len() > MOST_NAMES).then(|| String::from("…")));
    format!("the file has: {}", names.join(", "))
}

impl Columns {
    /// Matches a stream's definition with the names of a file's columns, whatever their case where none is the same. An error says what is
    /// missing and what is there.
    pub fn find(spec: &StreamSpec, header: &[String], given: &GivenKey) -> Result<Self, String> {
        let exactly = |name: &str| header.iter().position(|column| column == name);
        let column =
            |name: &str| exactly(name).or_else(|| header.iter().position(|column| column.eq_ignore_ascii_case(name)));
        let written = spec.timestamp.as_ref().map(|timestamp| last_name(&timestamp.path).to_owned());
        let written = written.as_deref();
        let candidates = written.into_iter().chain(TIME_NAMES.into_iter().filter(|name| Some(*name) != written));
        let time = candidates.clone().find_map(column).ok_or_else(|| {
            let looked_for = candidates.collect::<Vec<_>>().join(", ");
            format!("no column for the timestamp: looked for {looked_for}; {}", found(header))
        })?;
        let paths = spec.fields.iter().zip(&spec.codec.paths);
        let fields: Vec<Option<usize>> =
            paths.map(|(field, path)| column(field.name.as_str()).or_else(|| column(last_name(path)))).collect();
        if fields.iter().all(Option::is_none) {
            let names: Vec<&str> = spec.fields.iter().map(|field| field.name.as_str()).collect();
            return Err(format!("no column for any field; the stream has: {}; {}", names.join(", "), found(header)));
        }
        let key = spec.key.iter().map(|part| {
            let name = part.name.as_str();
            let by_path = || part.path.as_deref().and_then(|path| column(last_name(path)));
            match given.value(name) {
                Some(value) => Err(value),
                None => column(name).or_else(by_path).ok_or_else(|| given.stem().clone()),
            }
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

    /// Whether anything is read from the column at `index`.
    pub fn reads(&self, index: usize) -> bool {
        let key = self.key.iter().filter_map(|part| part.as_ref().ok());
        let one = self.fields.iter().flatten().chain(key).chain(&self.sequence).any(|column| *column == index);
        one || self.time == index
    }

    /// A row of text cells; `fault` says why it is no reading whatever it holds.
    pub fn row(&self, cells: &[String], fault: Option<&str>) -> Recorded {
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
            reading: fault.map_or_else(|| self.reading(&cell), |fault| Err(fault.to_owned())),
        }
    }

    fn reading<'c>(&self, cell: &impl Fn(usize) -> &'c str) -> Result<Reading, String> {
        let time = parse_timestamp(cell(self.time), self.unit).ok_or("the timestamp cannot be read")?;
        if self.key.iter().any(|part| part.as_ref().is_ok_and(|column| cell(*column).is_empty())) {
            return Err("a key part is empty".to_owned());
        }
        let mut values = Values::new();
        for (column, kind) in self.fields.iter().zip(&self.kinds) {
            let text = column.map_or("", cell);
            values.push(match (kind, text) {
                (_, "") => FieldValue::Missing,
                (FieldKind::Text, text) => FieldValue::Text(Personal::new(Arc::from(text))),
                (FieldKind::Number, "true") => FieldValue::Number(1.0),
                (FieldKind::Number, "false") => FieldValue::Number(0.0),
                (FieldKind::Number, text) => match text.parse::<f64>() {
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
