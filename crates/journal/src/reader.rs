//! Reads a journal back: every record in order, and every damaged place.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use nearside_schemas::KeySource;

use crate::config::JournalError;
use crate::frame::{FRAME_HEADER, FRAME_MARK, FrameHeader, SEGMENT_HEADER, SegmentCipher, SegmentHeader};
use crate::record::{Lsn, Record};
use crate::storage::Storage;

/// What kind of damage a place has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DamageKind {
    /// The segment's header is not one, or the file cannot be read.
    Segment,
    /// The last frame of a segment is cut short: what was being written when the machine stopped.
    TornTail,
    /// A frame in the middle is not what was written.
    Frame,
    /// Records are missing between two frames.
    Gap,
    /// A record inside an intact frame cannot be read.
    Record,
    /// A record of a kind this version does not know was skipped.
    UnknownRecord,
}

impl DamageKind {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::TornTail => "torn_tail",
            Self::Frame => "frame",
            Self::Gap => "gap",
            Self::Record => "record",
            Self::UnknownRecord => "unknown_record",
        }
    }
}

/// A damaged place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The segment's file name.
    pub segment: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What kind.
    pub kind: DamageKind,
}

/// What a reader gives.
#[derive(Clone, PartialEq, Debug)]
pub enum Item {
    /// A record and its number.
    Record(Lsn, Record),
    /// A place where records are missing.
    Damage(Damage),
}

/// Reads all segments of a journal in order.
pub struct Reader {
    storage: Arc<dyn Storage>,
    keys: Arc<dyn KeySource>,
    segments: VecDeque<String>,
    queue: VecDeque<Item>,
    next: Option<Lsn>,
}

/// Reads the journal in `storage`.
///
/// # Errors
/// Where the folder cannot be listed; damage inside is an [`Item`].
pub fn read(storage: Arc<dyn Storage>, keys: Arc<dyn KeySource>) -> Result<Reader, JournalError> {
    let segments = storage.list().map_err(|source| JournalError::Storage { path: "segments".into(), source })?;
    Ok(Reader { storage, keys, segments: segments.into(), queue: VecDeque::new(), next: None })
}

/// Reads one segment.
pub(crate) fn read_one(storage: Arc<dyn Storage>, keys: Arc<dyn KeySource>, segment: &str) -> Reader {
    let segments = VecDeque::from([segment.to_owned()]);
    Reader { storage, keys, segments, queue: VecDeque::new(), next: None }
}

impl Iterator for Reader {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.queue.pop_front() {
                return Some(item);
            }
            let name = self.segments.pop_front()?;
            self.read_segment(&name);
        }
    }
}

impl Reader {
    fn read_segment(&mut self, name: &str) {
        let Ok(bytes) = self.storage.read(name) else {
            return self.damage(name, 0, DamageKind::Segment);
        };
        let Some(header) = SegmentHeader::decode(&bytes) else {
            // A segment that was being made when the machine stopped is empty or cut short.
            let kind = if bytes.len() < SEGMENT_HEADER { DamageKind::TornTail } else { DamageKind::Segment };
            return self.damage(name, 0, kind);
        };
        if self.next.is_some_and(|next| next < header.first) {
            self.damage(name, 0, DamageKind::Gap);
        }
        self.next = Some(header.first);
        let cipher = SegmentCipher::new(self.keys.as_ref(), &header.id);
        // Zeros ahead of what was written.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut offset = SEGMENT_HEADER;
        while offset < end {
            match open_frame(&cipher, &bytes, offset) {
                Some((frame, plain, end)) => {
                    self.take_frame(name, offset, frame, Bytes::from(plain));
                    offset = end;
                }
                None => {
                    let next = next_frame(&cipher, &bytes, offset + 1);
                    let kind = if next.is_some() { DamageKind::Frame } else { DamageKind::TornTail };
                    self.damage(name, offset, kind);
                    if next.is_none() {
                        // Numbers that may have been lost here are not given again; that they are missing is said.
                        self.next = None;
                        return;
                    }
                    offset = next.unwrap_or(bytes.len());
                }
            }
        }
        // A segment takes the number it is named by, even if nothing was written to it.
        self.next = self.next.max(Some(Lsn(header.first.0 + 1)));
    }

    fn take_frame(&mut self, name: &str, offset: usize, frame: FrameHeader, mut plain: Bytes) {
        if self.next.is_some_and(|next| next < frame.first) {
            self.damage(name, offset, DamageKind::Gap);
        }
        for n in 0..u64::from(frame.count) {
            match Record::decode(&mut plain) {
                Ok(Some(record)) => self.queue.push_back(Item::Record(Lsn(frame.first.0 + n), record)),
                Ok(None) => self.damage(name, offset, DamageKind::UnknownRecord),
                Err(_) => {
                    self.damage(name, offset, DamageKind::Record);
                    break;
                }
            }
        }
        self.next = Some(Lsn(frame.first.0 + u64::from(frame.count)));
    }

    fn damage(&mut self, segment: &str, offset: usize, kind: DamageKind) {
        let damage = Damage { segment: segment.to_owned(), offset: offset as u64, kind };
        self.queue.push_back(Item::Damage(damage));
    }
}

/// The frame at `offset`, opened, and where it ends.
fn open_frame(cipher: &SegmentCipher, bytes: &[u8], offset: usize) -> Option<(FrameHeader, Vec<u8>, usize)> {
    let header = FrameHeader::decode(bytes.get(offset..)?)?;
    let start = offset + FRAME_HEADER;
    let end = start.checked_add(header.sealed as usize)?;
    let sealed = bytes.get(start..end)?;
    let plain = cipher.open(offset as u64, &bytes[offset..start], sealed)?;
    Some((header, plain, end))
}

/// Where the next frame that opens begins.
fn next_frame(cipher: &SegmentCipher, bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at + FRAME_HEADER <= bytes.len() {
        if bytes[at..at + 4] == FRAME_MARK && open_frame(cipher, bytes, at).is_some() {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// What a check of a journal found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckReport {
    /// Records that can be read.
    pub records: u64,
    /// The first and last of their numbers.
    pub span: Option<(Lsn, Lsn)>,
    /// Damaged places.
    pub damage: Vec<Damage>,
}

/// Reads the whole journal and says what is there.
///
/// # Errors
/// Where the folder cannot be listed.
pub fn check(storage: Arc<dyn Storage>, keys: Arc<dyn KeySource>) -> Result<CheckReport, JournalError> {
    let mut report = CheckReport::default();
    for item in read(storage, keys)? {
        match item {
            Item::Record(lsn, _) => {
                report.records += 1;
                report.span = Some((report.span.map_or(lsn, |span| span.0), lsn));
            }
            Item::Damage(damage) => report.damage.push(damage),
        }
    }
    Ok(report)
}
