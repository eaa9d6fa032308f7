//! Records in the WFDB format of PhysioNet: header (`.hea`), signals in formats 212 and 16 (`.dat`), annotations (`.atr`).
//!
//! Formats after the WFDB Applications Guide, "header(5)", "signal(5)" and "annot(5)" (G. Moody, PhysioNet). Read: one
//! segment, one sample of each signal a frame, signals of one file in one format. Promises: damaged or hostile files are an error that names the file; what is
//! allocated is bounded by the files' sizes; no path in a header leads out of the folder. Never: writes.

use std::path::{Path, PathBuf};

use crate::ModelError;

/// Signals of a record that are read at most.
const MOST_SIGNALS: usize = 32;
/// A larger file is refused.
const MOST_BYTES: u64 = 1 << 30;
/// The gain where a header states none, in units a millivolt.
const DEFAULT_GAIN: f64 = 200.0;

/// How samples are packed in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Two samples of 12 bits in three bytes.
    Bits12,
    /// Two bytes, the lower first.
    Bits16,
}

impl Format {
    /// The sample that stands for none.
    const fn none(self) -> i32 {
        match self {
            Self::Bits12 => -2_048,
            Self::Bits16 => -32_768,
        }
    }

    /// The sample at a place of a file.
    fn sample(self, bytes: &[u8], at: usize) -> Option<i32> {
        match self {
            Self::Bits12 => sample_212(bytes, at),
            Self::Bits16 => {
                let pair = [*bytes.get(2 * at)?, *bytes.get(2 * at + 1)?];
                Some(i32::from(i16::from_le_bytes(pair)))
            }
        }
    }
}

/// A recording of a patient.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Samples a second.
    pub rate_hz: f64,
    /// The leads, in the order of the header; all of the same length.
    pub leads: Vec<Lead>,
    /// What cardiologists wrote beside it; `None` where there is no `.atr` file.
    pub annotations: Option<Vec<Annotation>>,
}

/// A signal of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Lead {
    /// What the header calls it, such as `MLII`.
    pub name: String,
    /// Millivolts (the header's physical unit); NaN where there is no sample.
    pub samples: Vec<f32>,
}

/// An annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// The sample it stands at, from 0.
    pub sample: u64,
    /// Its type, 1 to 49, as `ecgcodes.h` of the WFDB library numbers them.
    pub code: u8,
}

/// The names of all records of a folder (files that end in `.hea`), sorted.
pub fn record_names(folder: &Path) -> Result<Vec<String>, ModelError> {
    let file = |source| ModelError::File { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(file)? {
        let path = entry.map_err(file)?.path();
        if path.extension().is_some_and(|extension| extension == "hea") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    if names.is_empty() {
        return Err(data(folder, "there is no record (.hea) in this folder"));
    }
    Ok(names)
}

/// Reads a record of a folder.
pub fn read_record(folder: &Path, name: &str) -> Result<Record, ModelError> {
    let record = read_signals(folder, name)?;
    Ok(Record { annotations: read_annotations(folder, name)?, ..record })
}

/// Reads a record's signals, as if there were no annotations.
pub fn read_signals(folder: &Path, name: &str) -> Result<Record, ModelError> {
    let path = folder.join(format!("{name}.hea"));
    let header = read_bounded(&path)?;
    let header = Header::parse(&String::from_utf8_lossy(&header)).map_err(|why| data(&path, &why))?;
    let mut leads: Vec<Option<Lead>> = vec![None; header.signals.len()];
    for file in header.files() {
        let bytes = read_bounded(&folder.join(file))?;
        let offset = header.signals.iter().find(|signal| signal.file == file).map_or(0, |signal| signal.offset);
        let bytes = bytes.get(offset..).unwrap_or_default();
        let columns: Vec<usize> = (0..leads.len()).filter(|index| header.signals[*index].file == file).collect();
        if columns.windows(2).any(|pair| header.signals[pair[0]].format != header.signals[pair[1]].format) {
            return Err(data(&path, "signals of one file have several formats"));
        }
        for (place, index) in columns.iter().enumerate() {
            let signal = &header.signals[*index];
            let samples = (place..).step_by(columns.len()).map_while(|at| signal.format.sample(bytes, at));
            let samples =
                samples.take(header.samples.unwrap_or(usize::MAX)).map(|raw| signal.millivolts(raw)).collect();
            leads[*index] = Some(Lead { name: signal.name.clone(), samples });
        }
    }
    let mut leads: Vec<Lead> = leads.into_iter().flatten().collect();
    let shortest = leads.iter().map(|lead| lead.samples.len()).min().unwrap_or(0);
    if header.samples.is_some_and(|stated| stated > shortest) {
        return Err(data(&path, &format!("the signals end after {shortest} samples, before the header says")));
    }
    if shortest == 0 {
        return Err(data(&path, "the signals have no sample"));
    }
    leads.iter_mut().for_each(|lead| lead.samples.truncate(shortest));
    Ok(Record { name: name.to_owned(), rate_hz: header.rate_hz, leads, annotations: None })
}

/// Reads a record's annotations; `None` where it has none.
pub fn read_annotations(folder: &Path, name: &str) -> Result<Option<Vec<Annotation>>, ModelError> {
    let path = folder.join(format!("{name}.atr"));
    if !path.exists() {
        return Ok(None);
    }
    parse_annotations(&read_bounded(&path)?).map(Some).map_err(|why| data(&path, &why))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, ModelError> {
    let file = |source| ModelError::File { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(file)?.len();
    if size > MOST_BYTES {
        return Err(data(path, &format!("{size} bytes; at most {MOST_BYTES} are read")));
    }
    std::fs::read(path).map_err(file)
}

fn data(path: &Path, why: &str) -> ModelError {
    ModelError::Data { path: PathBuf::from(path), why: why.to_owned() }
}

/// What a header says.
#[derive(Debug, PartialEq)]
struct Header {
    rate_hz: f64,
    samples: Option<usize>,
    signals: Vec<Signal>,
}

#[derive(Debug, PartialEq)]
struct Signal {
    file: String,
    format: Format,
    /// Bytes of the file before the first sample.
    offset: usize,
    /// Units a millivolt.
    gain: f64,
    /// The unit that stands for 0 mV.
    baseline: f64,
    name: String,
}

impl Signal {
    fn millivolts(&self, raw: i32) -> f32 {
        if raw == self.format.none() { f32::NAN } else { ((f64::from(raw) - self.baseline) / self.gain) as f32 }
    }

    /// `file format gain(baseline)/unit resolution zero initial checksum block description…`
    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let file = words.next().unwrap_or_default();
        if Path::new(file).file_name().is_none_or(|name| name != file) {
            return Err(String::from("a signal's file is not a plain name"));
        }
        let stated = words.next().unwrap_or("none");
        let (packed, offset) = stated.split_once('+').unwrap_or((stated, "0"));
        let format = match packed {
            "212" => Format::Bits12,
            "16" => Format::Bits16,
            _ => return Err(format!("a signal has format {stated}; 212 and 16 are read")),
        };
        let offset = offset.parse().map_err(|_| format!("a signal has format {stated}; 212 and 16 are read"))?;
        let gain = words.next().unwrap_or_default().split('/').next().unwrap_or_default();
        let (gain, baseline) = match gain.trim_end_matches(')').split_once('(') {
            Some((gain, baseline)) => (gain, Some(number(baseline)?)),
            None => (gain, None),
        };
        let gain = if gain.is_empty() { 0.0 } else { number(gain)? };
        let zero = words.nth(1).map(number).transpose()?;
        let name = words.skip(3).collect::<Vec<_>>().join(" ");
        Ok(Self {
            file: file.to_owned(),
            format,
            offset,
            gain: if gain == 0.0 { DEFAULT_GAIN } else { gain },
            baseline: baseline.or(zero).unwrap_or(0.0),
            name,
        })
    }
}

impl Header {
    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut words = lines.next().ok_or("the header is empty")?.split_whitespace();
        if words.next().is_some_and(|name| name.contains('/')) {
            return Err(String::from("records of several segments are not read"));
        }
        let count = words.next().and_then(|word| word.parse::<usize>().ok()).ok_or("no number of signals")?;
        if !(1..=MOST_SIGNALS).contains(&count) {
            return Err(format!("{count} signals; 1 to {MOST_SIGNALS} are read"));
        }
        // The rate may be followed by that of a counter: `360/360(0)`.
        let rate = words.next().and_then(|word| word.split('/').next()).ok_or("no sampling rate")?;
        let rate_hz = number(rate)?;
        if rate_hz <= 0.0 {
            return Err(String::from("the sampling rate is not above 0"));
        }
        let stated = words.next().map(|word| word.parse::<usize>().map_err(|_| "no number of samples")).transpose()?;
        let signals = lines.take(count).map(Signal::parse).collect::<Result<Vec<_>, _>>()?;
        if signals.len() < count {
            return Err(format!("{count} signals stated, {} described", signals.len()));
        }
        Ok(Self { rate_hz, samples: stated.filter(|samples| *samples > 0), signals })
    }

    /// The files of the signals, each once.
    fn files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = Vec::new();
        for signal in &self.signals {
            if !files.contains(&signal.file.as_str()) {
                files.push(&signal.file);
            }
        }
        files
    }
}

fn number(word: &str) -> Result<f64, String> {
    match word.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(String::from("a field of the header is not a number")),
    }
}

/// The sample at a place of a format 212 file: two samples of 12 bits in three bytes, two's complement.
fn sample_212(bytes: &[u8], at: usize) -> Option<i32> {
    let first = at / 2 * 3;
    let (low, high) = if at.is_multiple_of(2) {
        (*bytes.get(first)?, *bytes.get(first + 1)? & 0x0f)
    } else {
        (*bytes.get(first + 2)?, *bytes.get(first + 1)? >> 4)
    };
    let raw = i32::from(high) << 8 | i32::from(low);
    Some(if raw > 2_047 { raw - 4_096 } else { raw })
}

/// Pseudo-annotations of the MIT format: a long interval, fields that are not kept, text.
const SKIP: u8 = 59;
const NUMBER: u8 = 60;
const AUX: u8 = 63;

/// Annotations in the MIT format: words of 16 bits, the type in the upper 6, the interval in samples in the lower 10.
fn parse_annotations(bytes: &[u8]) -> Result<Vec<Annotation>, String> {
    let mut words = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let mut found = Vec::new();
    let mut at: i64 = 0;
    while let Some(word) = words.next() {
        let (code, interval) = ((word >> 10) as u8, word & 0x3ff);
        match code {
            0 if interval == 0 => break,
            SKIP => {
                let (Some(high), Some(low)) = (words.next(), words.next()) else {
                    return Err(String::from("the annotations end within a long interval"));
                };
                at = at.saturating_add(i64::from((u32::from(high) << 16 | u32::from(low)).cast_signed()));
            }
            AUX => {
                let text = usize::from(interval).div_ceil(2);
                if words.by_ref().take(text).count() < text {
                    return Err(String::from("the annotations end within a text"));
                }
            }
            NUMBER..AUX => {}
            _ => {
                at = at.saturating_add(i64::from(interval));
                let sample = u64::try_from(at).map_err(|_| "an annotation stands before the first sample")?;
                found.push(Annotation { sample, code });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "wfdb_tests.rs"]
mod tests;
