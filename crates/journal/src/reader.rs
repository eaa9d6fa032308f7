//! Reads a journal back: every record in order, and every damaged place.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use nearside_schemas::KeySource;

use crate::config::JournalError;
use crate::frame::{FRAME_HEADER, FRAME_MARK, FrameHeader, SEGMENT_HEADER, SegmentCipher, SegmentHeader};
use crate::record::{Lsn, Record};
use crate::storage::{Storage, segment_name};

/// What kind of damage a place has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DamageKind {
    /// The segment's header is not one, or the file is gone.
    Segment,
    /// The system does not give the file's bytes: another try may.
    Unreadable,
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
            Self::Unreadable => "unreadable",
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

/// Reads segments of a journal in order, a frame at a time: what is in memory is one segment's bytes and one frame's records.
pub struct Reader {
    /// `None` where there is nothing to read.
    source: Option<(Arc<dyn Storage>, Arc<dyn KeySource>)>,
    segments: VecDeque<String>,
    open: Option<OpenSegment>,
    queue: VecDeque<Item>,
    /// The number after the last that was read.
    next: Option<Lsn>,
    /// Records before this one are not wanted.
    from: Lsn,
    /// What intact frames hold, where their records are not wanted.
    counted: Option<Counted>,
}

/// What intact frames hold.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counted {
    /// Their records.
    pub(crate) records: u64,
    /// The number after their last, vacant ones among them.
    pub(crate) reached: Lsn,
}

/// The segment that is being read.
struct OpenSegment {
    name: String,
    bytes: Vec<u8>,
    cipher: SegmentCipher,
    first: Lsn,
    offset: usize,
    /// Behind the last byte that was written; zeros follow.
    end: usize,
}

/// Reads the journal in `storage`.
///
/// # Errors
/// Where the folder cannot be listed; damage inside is an [`Item`].
pub fn read(storage: Arc<dyn Storage>, keys: Arc<dyn KeySource>) -> Result<Reader, JournalError> {
    read_from(storage, keys, Lsn(0), Lsn(u64::MAX))
}

/// Reads the records from `from` on, up to the segment that begins with `until`. Segments and frames before `from` are not opened.
///
/// # Errors
/// Where the folder cannot be listed; damage inside is an [`Item`].
pub fn read_from(
    storage: Arc<dyn Storage>,
    keys: Arc<dyn KeySource>,
    from: Lsn,
    until: Lsn,
) -> Result<Reader, JournalError> {
    let mut segments = storage.list().map_err(|source| JournalError::Storage { path: "segments".into(), source })?;
    segments.retain(|name| *name < segment_name(until));
    let wanted = segments.partition_point(|name| *name <= segment_name(from)).saturating_sub(1);
    let segments = segments.split_off(wanted).into();
    Ok(Reader {
        source: Some((storage, keys)),
        segments,
        open: None,
        queue: VecDeque::new(),
        next: None,
        from,
        counted: None,
    })
}

/// Reads one segment without decoding its records: where it is damaged, and what its intact frames hold.
pub(crate) fn survey_one(storage: Arc<dyn Storage>, keys: Arc<dyn KeySource>, segment: &str) -> (Vec<Damage>, Counted) {
    let mut reader = Reader { counted: Some(Counted::default()), ..read_one(storage, keys, segment) };
    let damage = reader.by_ref().filter_map(|item| match item {
        Item::Damage(damage) => Some(damage),
        Item::Record(..) => None,
    });
    (damage.collect(), reader.counted.unwrap_or_default())
}

/// Reads one segment.
pub(crate) fn read_one(storage: Arc<dyn Storage>, keys: Arc<dyn KeySource>, segment: &str) -> Reader {
    let segments = VecDeque::from([segment.to_owned()]);
    Reader {
        source: Some((storage, keys)),
        segments,
        open: None,
        queue: VecDeque::new(),
        next: None,
        from: Lsn(0),
        counted: None,
    }
}

impl Iterator for Reader {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.queue.pop_front() {
                return Some(item);
            }
            match self.open.take() {
                Some(segment) => self.read_frame(segment),
                None => {
                    let name = self.segments.pop_front()?;
                    self.open_segment(&name);
                }
            }
        }
    }
}

impl Reader {
    /// Reads nothing.
    pub fn empty() -> Self {
        Self {
            source: None,
            segments: VecDeque::new(),
            open: None,
            queue: VecDeque::new(),
            next: None,
            from: Lsn(0),
            counted: None,
        }
    }

    fn open_segment(&mut self, name: &str) {
        let Some((storage, keys)) = self.source.clone() else { return };
        let bytes = match storage.read(name) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return self.damage(name, 0, DamageKind::Segment);
            }
            Err(error) => {
                tracing::error!(segment = name, %error, "a segment of the journal cannot be read");
                return self.damage(name, 0, DamageKind::Unreadable);
            }
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
        let cipher = SegmentCipher::new(keys.as_ref(), &header.id);
        // Zeros ahead of what was written.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let (name, first) = (name.to_owned(), header.first);
        self.open = Some(OpenSegment { name, bytes, cipher, first, offset: SEGMENT_HEADER, end });
    }

    /// Takes the next frame's records and keeps the segment open, or ends it.
    fn read_frame(&mut self, mut segment: OpenSegment) {
        if segment.offset >= segment.end {
            // A segment takes the number it is named by, even if nothing was written to it.
            self.next = self.next.max(Some(Lsn(segment.first.0 + 1)));
            return;
        }
        if let Some((frame, end)) = self.unwanted(&segment) {
            self.next = Some(Lsn(frame.first.0 + u64::from(frame.count)));
            segment.offset = end;
            self.open = Some(segment);
            return;
        }
        match open_frame(&segment.cipher, &segment.bytes, segment.offset) {
            Some((frame, plain, end)) => {
                self.take_frame(&segment.name, segment.offset, frame, Bytes::from(plain));
                segment.offset = end;
            }
            None => {
                let next = next_frame(&segment.cipher, &segment.bytes, segment.offset + 1);
                let kind = if next.is_some() { DamageKind::Frame } else { DamageKind::TornTail };
                self.damage(&segment.name, segment.offset, kind);
                let Some(next) = next else {
                    // Numbers that may have been lost here are not given again; that they are missing is said.
                    self.next = None;
                    return;
                };
                segment.offset = next;
            }
        }
        self.open = Some(segment);
    }

    /// The frame at hand and its end, where all its records are before those that are wanted.
    fn unwanted(&self, segment: &OpenSegment) -> Option<(FrameHeader, usize)> {
        let frame = FrameHeader::decode(segment.bytes.get(segment.offset..)?)?;
        let end = (segment.offset + FRAME_HEADER).checked_add(frame.sealed as usize)?;
        let last = frame.first.0.checked_add(u64::from(frame.count))?;
        (last <= self.from.0 && end <= segment.bytes.len()).then_some((frame, end))
    }

    fn take_frame(&mut self, name: &str, offset: usize, frame: FrameHeader, mut plain: Bytes) {
        if self.next.is_some_and(|next| next < frame.first) {
            self.damage(name, offset, DamageKind::Gap);
        }
        // Vacant numbers: what cannot be read there was said when it was repaired.
        let count = if plain.is_empty() { 0 } else { u64::from(frame.count) };
        self.next = Some(Lsn(frame.first.0 + u64::from(frame.count)));
        if let Some(counted) = &mut self.counted {
            counted.records += count;
            counted.reached = Lsn(frame.first.0 + u64::from(frame.count));
            return;
        }
        for n in 0..count {
            match Record::decode(&mut plain) {
                Ok(Some(_)) if frame.first.0 + n < self.from.0 => {}
                Ok(Some(record)) => self.queue.push_back(Item::Record(Lsn(frame.first.0 + n), record)),
                Ok(None) => self.damage(name, offset, DamageKind::UnknownRecord),
                Err(_) => {
                    self.damage(name, offset, DamageKind::Record);
                    break;
                }
            }
        }
    }

    fn damage(&mut self, segment: &str, offset: usize, kind: DamageKind) {
        let damage = Damage { segment: segment.to_owned(), offset: offset as u64, kind };
        self.queue.push_back(Item::Damage(damage));
    }
}

/// The frame at `offset`, opened, and where it ends.
pub(crate) fn open_frame(cipher: &SegmentCipher, bytes: &[u8], offset: usize) -> Option<(FrameHeader, Vec<u8>, usize)> {
    let header = FrameHeader::decode(bytes.get(offset..)?)?;
    let start = offset + FRAME_HEADER;
    let end = start.checked_add(header.sealed as usize)?;
    let sealed = bytes.get(start..end)?;
    let plain = cipher.open(offset as u64, &bytes[offset..start], sealed)?;
    Some((header, plain, end))
}

/// Where the next frame that opens begins.
pub(crate) fn next_frame(cipher: &SegmentCipher, bytes: &[u8], from: usize) -> Option<usize> {
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
