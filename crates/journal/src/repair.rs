//! Repair: writes damaged segments again without the damaged places, so that what is behind them is read without search and a check
//! finds the journal whole.
//!
//! Promises: only what opens with the site's key is written; every record keeps its number; a number whose record cannot be read is
//! marked as vacant and never given again; the damaged segment's file is kept aside, and takes its place back if it is moved back.
//! A frame whose header alone is damaged is regained: what the header said follows from the frames around it, and the seal proves it.
//! Never: a segment is written to in place; two frames are sealed under one key and nonce (I7: a new segment id); it runs beside a gateway.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nearside_schemas::KeySource;

use crate::config::JournalError;
use crate::frame::{FRAME_HEADER, FrameHeader, SEGMENT_HEADER, SegmentCipher, SegmentHeader};
use crate::journal::LEAST_RECORD;
use crate::lock::JournalLock;
use crate::reader::{DamageKind, next_frame, open_frame};
use crate::record::Lsn;
use crate::storage::{DirectoryStorage, Storage, segment_number};

/// The folder, below the journal's, where damaged segments go.
const ASIDE: &str = "damaged";

/// A journal that no gateway uses, to be repaired.
pub struct Repair {
    folder: PathBuf,
    keys: Arc<dyn KeySource>,
    _lock: JournalLock,
}

/// A segment that is not whole, and what can be had of it.
pub struct DamagedSegment {
    /// Its file name.
    pub name: String,
    /// Its damaged places: offset and kind.
    pub places: Vec<(u64, DamageKind)>,
    /// Frames that had a damaged header and can be regained.
    pub regained: usize,
    /// The first number of the segment.
    first: Lsn,
    frames: Vec<Frame>,
    /// From this number on nothing tells whether there ever were records.
    unknown_from: Option<Lsn>,
}

/// A frame as it will be written.
struct Frame {
    first: Lsn,
    count: u32,
    /// Its records; empty where the numbers are vacant.
    plain: Vec<u8>,
}

impl DamagedSegment {
    /// Numbers that have a record that can be read.
    pub fn records(&self) -> u64 {
        self.frames.iter().filter(|frame| !frame.plain.is_empty()).map(|frame| u64::from(frame.count)).sum()
    }

    /// Ranges of numbers, the last included, that lie before a number that was given, and whose records cannot be read.
    pub fn vacant(&self) -> impl Iterator<Item = (Lsn, Lsn)> + '_ {
        self.empty().filter(move |(first, _)| self.unknown_from.is_none_or(|unknown| *first < unknown))
    }

    /// The numbers behind the last that was certainly given, the last included: they are not given again, for some may have been. There is
    /// room for so many in the bytes that are there; mostly no record had them.
    pub fn passed_over(&self) -> Option<(Lsn, Lsn)> {
        let first = self.unknown_from?;
        let (_, last) = self.empty().filter(|(from, _)| *from >= first).last()?;
        Some((first, last))
    }

    fn empty(&self) -> impl Iterator<Item = (Lsn, Lsn)> + '_ {
        let empty = self.frames.iter().filter(|frame| frame.plain.is_empty());
        empty.map(|frame| (frame.first, Lsn(frame.first.0 + u64::from(frame.count) - 1)))
    }
}

impl Repair {
    /// Opens the journal in `folder` and keeps gateways out.
    ///
    /// # Errors
    /// Where a gateway uses it or the folder cannot be read.
    pub fn open(folder: &Path, keys: Arc<dyn KeySource>) -> Result<Self, JournalError> {
        Ok(Self { folder: folder.to_owned(), keys, _lock: JournalLock::acquire(folder)? })
    }

    /// The segments that are not whole. Changes nothing.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn survey(&self) -> Result<Vec<DamagedSegment>, JournalError> {
        let failed = |source| JournalError::Storage { path: self.folder.clone(), source };
        let storage = DirectoryStorage::open(&self.folder, true).map_err(failed)?;
        let names = storage.list().map_err(failed)?;
        let mut damaged = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let Some(first) = segment_number(name) else { continue };
            let next = names.get(at + 1).and_then(|name| segment_number(name));
            let bytes = storage.read(name).map_err(failed)?;
            damaged.extend(Salvage::of(&bytes, first, next, self.keys.as_ref()).finish(name));
        }
        Ok(damaged)
    }

    /// Writes a segment again and keeps the damaged file aside; gives the path where that is.
    ///
    /// # Errors
    /// Where the disk refuses; the segment is then as it was.
    pub fn mend(&self, segment: &DamagedSegment) -> Result<PathBuf, JournalError> {
        self.try_mend(segment).map_err(|source| JournalError::Storage { path: self.folder.join(&segment.name), source })
    }

    fn try_mend(&self, segment: &DamagedSegment) -> io::Result<PathBuf> {
        let bytes = self.encode(segment)?;
        let draft = self.folder.join(format!(".{}.tmp", segment.name));
        write_new(&draft, &bytes)?;
        let aside = self.folder.join(ASIDE);
        fs::create_dir_all(&aside)?;
        let original = self.folder.join(&segment.name);
        let kept = (0..)
            .map(|n| if n == 0 { segment.name.clone() } else { format!("{}.{n}", segment.name) })
            .map(|name| aside.join(name))
            .find(|path| !path.exists())
            .unwrap_or_else(|| aside.join(&segment.name));
        // A second name for the damaged file first: at no moment is either missing.
        if fs::hard_link(&original, &kept).is_err() {
            fs::copy(&original, &kept)?;
            File::open(&kept)?.sync_all()?;
        }
        File::open(&aside)?.sync_all()?;
        fs::rename(&draft, &original)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(kept)
    }

    fn encode(&self, segment: &DamagedSegment) -> io::Result<Vec<u8>> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
        let cipher = SegmentCipher::new(self.keys.as_ref(), &id);
        let mut bytes = SegmentHeader { id, first: segment.first }.encode().to_vec();
        for frame in &segment.frames {
            let mut sealed = vec![0; FRAME_HEADER];
            sealed.extend_from_slice(&frame.plain);
            let offset = bytes.len();
            if !cipher.seal(offset as u64, frame.first, frame.count, &mut sealed) {
                return Err(io::Error::other("a frame could not be encrypted"));
            }
            bytes.extend_from_slice(&sealed);
            // What cannot be read back must not take the place of what can.
            if open_frame(&cipher, &bytes, offset).is_none_or(|(_, plain, _)| plain != frame.plain) {
                return Err(io::Error::other("a frame does not read back"));
            }
        }
        Ok(bytes)
    }
}

/// What is found while a segment's bytes are walked.
struct Salvage {
    first: Lsn,
    /// The number that comes next.
    next: Lsn,
    frames: Vec<Frame>,
    places: Vec<(u64, DamageKind)>,
    regained: usize,
    unknown_from: Option<Lsn>,
}

impl Salvage {
    /// Walks the segment that begins with `first`; the one after it begins with `follows`, where there is one.
    fn of(bytes: &[u8], first: Lsn, follows: Option<Lsn>, keys: &dyn KeySource) -> Self {
        let mut found =
            Self { first, next: first, frames: Vec::new(), places: Vec::new(), regained: 0, unknown_from: None };
        let id = match SegmentHeader::decode(bytes) {
            Some(header) if header.first == first => Some(header.id),
            _ => {
                let kind = if bytes.len() < SEGMENT_HEADER { DamageKind::TornTail } else { DamageKind::Segment };
                found.places.push((0, kind));
                // The rest of the header may be damaged and the id not: the frames say whether it is right.
                bytes.get(4..20).and_then(|id| id.try_into().ok())
            }
        };
        if let Some(id) = id {
            found.walk(bytes, &SegmentCipher::new(keys, &id), follows);
        }
        if found.places.is_empty() {
            // A segment takes the number that it is named by, even if nothing was written to it.
            found.next = found.next.max(Lsn(first.0 + 1));
        }
        match follows {
            Some(follows) => {
                if found.next < follows && found.places.is_empty() {
                    found.places.push((bytes.len() as u64, DamageKind::Gap));
                }
                found.vacate(follows);
            }
            // Records may have been there that cannot be read: their numbers are not given again.
            None if !found.places.is_empty() => {
                found.unknown_from = Some(found.next);
                found.vacate(Lsn(first.0 + 1 + bytes.len() as u64 / LEAST_RECORD));
            }
            None => {}
        }
        found
    }

    fn walk(&mut self, bytes: &[u8], cipher: &SegmentCipher, follows: Option<Lsn>) {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut offset = SEGMENT_HEADER;
        while offset < end {
            if let Some((header, plain, after)) = open_frame(cipher, bytes, offset) {
                if self.next < header.first {
                    if self.places.is_empty() {
                        self.places.push((offset as u64, DamageKind::Gap));
                    }
                    self.vacate(header.first);
                }
                self.take(header, plain);
                offset = after;
                continue;
            }
            let next = next_frame(cipher, bytes, offset + 1);
            let kind = if next.is_some() { DamageKind::Frame } else { DamageKind::TornTail };
            self.places.push((offset as u64, kind));
            let (until, following) = match next {
                Some(next) => (next..=next, FrameHeader::decode(&bytes[next..]).map(|header| header.first)),
                // The seal's last bytes may be zeros.
                None => (end..=bytes.len().min(end + 16), follows),
            };
            if let Some(following) = following {
                self.regain(cipher, bytes, offset, until, following);
            }
            let Some(next) = next else { return };
            offset = next;
        }
    }

    /// Opens a frame whose header is damaged: it holds the numbers from the next one up to `following`, and ends at one of `ends`.
    fn regain(
        &mut self,
        cipher: &SegmentCipher,
        bytes: &[u8],
        offset: usize,
        ends: std::ops::RangeInclusive<usize>,
        following: Lsn,
    ) {
        let Some(count) = following.0.checked_sub(self.next.0).and_then(|count| u32::try_from(count).ok()) else {
            return;
        };
        let start = offset + FRAME_HEADER;
        for end in ends {
            let Some(sealed) = bytes.get(start..end) else { continue };
            let header = FrameHeader { sealed: sealed.len() as u32, first: self.next, count };
            if let Some(plain) = cipher.open(offset as u64, &header.encode(), sealed) {
                self.regained += 1;
                return self.take(header, plain);
            }
        }
    }

    fn take(&mut self, header: FrameHeader, plain: Vec<u8>) {
        self.next = Lsn(header.first.0 + u64::from(header.count));
        self.frames.push(Frame { first: header.first, count: header.count, plain });
    }

    /// Marks the numbers up to `until` as vacant.
    fn vacate(&mut self, until: Lsn) {
        while self.next < until {
            let count = u32::try_from(until.0 - self.next.0).unwrap_or(u32::MAX);
            self.take(FrameHeader { sealed: 0, first: self.next, count }, Vec::new());
        }
    }

    fn finish(self, name: &str) -> Option<DamagedSegment> {
        let Self { first, frames, places, regained, unknown_from, .. } = self;
        let name = name.to_owned();
        (!places.is_empty()).then_some(DamagedSegment { name, places, regained, first, frames, unknown_from })
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
