//! CSV lines (RFC 4180): columns by number from 0, or by name where every payload begins with a line that names them.

use super::layout::{Layout, bad_timestamp, finite, key_text, malformed};
use super::path::Path;
use super::timestamp::parse_timestamp;
use super::{CodecError, Decode, DecodeError, Decoded, DecodedRow};
use crate::personal::Personal;
use crate::reading::{FieldValue, Reading, Values};
use crate::stream::FieldKind;
use crate::time::Timestamp;

#[derive(Clone, Debug)]
enum Column {
    Number(usize),
    Name(String),
}

/// Where in a line the columns stand; `None`: the header does not name it.
struct Places {
    fields: Vec<Option<usize>>,
    key: Vec<Option<usize>>,
    timestamp: Option<usize>,
    sequence: Option<usize>,
}

pub(super) struct Csv {
    layout: Layout,
    fields: Vec<Column>,
    key: Vec<Column>,
    timestamp: Option<Column>,
    sequence: Option<Column>,
    has_header: bool,
}

fn column(path: &Path) -> Result<Column, CodecError> {
    let text = path.text();
    let name = text.trim_start_matches('$').trim_start_matches('.');
    match name.parse() {
        Ok(number) => Ok(Column::Number(number)),
        // Written as for JSON, where nothing has to announce the names: here a payload without a header line has none.
        Err(_) if text.starts_with('$') => Err(CodecError {
            what: format!(
                "`{text}` is no CSV column: number the columns from 0, such as \"0\", or where every payload begins with a \
                 header line name them, such as \"value\""
            ),
        }),
        Err(_) => Ok(Column::Name(name.to_owned())),
    }
}

impl Csv {
    pub(super) fn new(layout: Layout) -> Result<Self, CodecError> {
        let fields: Vec<Column> = layout.fields.iter().map(|slot| column(&slot.path)).collect::<Result<_, _>>()?;
        let key: Vec<Column> = layout.key.iter().map(column).collect::<Result<_, _>>()?;
        let timestamp = layout.timestamp.as_ref().map(|(path, _)| column(path)).transpose()?;
        let sequence = layout.sequence.as_ref().map(column).transpose()?;
        let all = fields.iter().chain(&key).chain(&timestamp).chain(&sequence);
        let named = all.clone().filter(|column| matches!(column, Column::Name(_))).count();
        if named != 0 && named != all.count() {
            let what = "name all CSV columns (the payload then begins with a header line) or number all of them from 0";
            return Err(CodecError { what: what.to_owned() });
        }
        Ok(Self { layout, fields, key, timestamp, sequence, has_header: named > 0 })
    }

    /// Where the columns stand under this header.
    fn places(&self, header: &[String]) -> Places {
        let place = |column: &Column| match column {
            Column::Number(at) => Some(*at),
            Column::Name(name) => header.iter().position(|cell| cell.trim() == name),
        };
        Places {
            fields: self.fields.iter().map(place).collect(),
            key: self.key.iter().map(place).collect(),
            timestamp: self.timestamp.as_ref().and_then(place),
            sequence: self.sequence.as_ref().and_then(place),
        }
    }

    fn read(&self, cells: &[String], places: &Places, received: Timestamp) -> Result<DecodedRow, DecodeError> {
        let cell = |place: Option<usize>| place.and_then(|at| cells.get(at)).map(|cell| cell.trim());
        let mut values = Values::new();
        for (slot, place) in self.layout.fields.iter().zip(&places.fields) {
            let path = slot.path.text();
            values.push(match (slot.kind, cell(*place)) {
                (_, None | Some("")) => FieldValue::Missing,
                (FieldKind::Text, Some(text)) => FieldValue::Text(Personal::new(text.into())),
                (FieldKind::Number, Some("true")) => FieldValue::Number(1.0),
                (FieldKind::Number, Some("false")) => FieldValue::Number(0.0),
                (FieldKind::Number, Some(text)) => {
                    let number = text.parse().map_err(|_| malformed(format!("column {path}: expected a number")))?;
                    finite(number, path)?
                }
            });
        }
        if values.iter().all(|value| *value == FieldValue::Missing) {
            return Err(malformed("no column of the stream has a value"));
        }
        let key = places.key.iter().zip(&self.layout.key);
        let key =
            key.map(|(place, path)| key_text(cell(*place).unwrap_or(""), path.text())).collect::<Result<_, _>>()?;
        let time = match &self.layout.timestamp {
            Some((path, spec)) => cell(places.timestamp)
                .and_then(|text| parse_timestamp(text, spec.unit))
                .ok_or_else(|| bad_timestamp(path.text()))?,
            None => received,
        };
        let sequence = cell(places.sequence).and_then(|text| text.parse().ok());
        Ok(DecodedRow { key, reading: Reading { time, received, sequence, values } })
    }
}

impl Decode for Csv {
    fn decode(&self, payload: &[u8], received: Timestamp, out: &mut Decoded) {
        if !self.layout.admits(payload, out) {
            return;
        }
        let Ok(text) = std::str::from_utf8(payload) else {
            return out.errors.push(malformed("the payload is not UTF-8"));
        };
        let mut rows = Rows(text);
        let header = if self.has_header { rows.next().unwrap_or_default() } else { Vec::new() };
        let places = self.places(&header);
        let mut room = self.layout.room();
        let mut any = false;
        for cells in rows {
            any = true;
            if room.take() {
                out.push(self.read(&cells, &places, received));
            }
        }
        room.close(out);
        if !any {
            let header =
                "the payload has no line of values below its header; number the columns where it has no header";
            out.errors.push(malformed(if self.has_header { header } else { "the payload has no line of values" }));
        }
    }
}

/// The rows of a CSV text; a quoted cell may hold commas, line breaks and doubled quotes. Empty lines are passed over.
struct Rows<'t>(&'t str);

impl Iterator for Rows<'_> {
    type Item = Vec<String>;

    fn next(&mut self) -> Option<Vec<String>> {
        self.0 = self.0.trim_start_matches(['\r', '\n']);
        if self.0.is_empty() {
            return None;
        }
        let mut cells = vec![String::new()];
        let mut quoted = false;
        let mut chars = self.0.char_indices().peekable();
        let mut end = self.0.len();
        while let Some((at, c)) = chars.next() {
            let Some(cell) = cells.last_mut() else { break };
            match c {
                '"' if quoted && chars.peek().is_some_and(|(_, next)| *next == '"') => {
                    chars.next();
                    cell.push('"');
                }
                '"' if quoted || cell.is_empty() => quoted = !quoted,
                ',' if !quoted => cells.push(String::new()),
                '\n' if !quoted => {
                    end = at;
                    break;
                }
                '\r' if !quoted => {}
                c => cell.push(c),
            }
        }
        self.0 = &self.0[end..];
        Some(cells)
    }
}
