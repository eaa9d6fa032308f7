//! The bytes of a segment, version 1, little endian.
//!
//! A segment begins with a header: `NSJ1`, its random id (16 bytes), the number of its first record (8), CRC-32C of those (4).
//! Frames follow, each one commit: a header (`NSFR`, length of the sealed part (4), number of its first record (8), count of
//! records (4), CRC-32C of those (4)), then the records sealed with AES-256-GCM. The key belongs to the segment's id, the nonce is
//! the frame's offset in the file, which no other frame of the segment has (promise I7), and the frame's header is bound to it.
//! A frame without records whose count is above zero says that its numbers are vacant: a repair writes it.

use aes_gcm::aead::{Aead, AeadInOut, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use nearside_schemas::{KeyPurpose, KeySource};

use crate::record::Lsn;

pub(crate) const SEGMENT_HEADER: usize = 32;
pub(crate) const FRAME_HEADER: usize = 24;
pub(crate) const TAG: usize = 16;
pub(crate) const FRAME_MARK: [u8; 4] = *b"NSFR";
const SEGMENT_MARK: [u8; 4] = *b"NSJ1";

pub(crate) struct SegmentHeader {
    pub(crate) id: [u8; 16],
    pub(crate) first: Lsn,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        out[..4].copy_from_slice(&SEGMENT_MARK);
        out[4..20].copy_from_slice(&self.id);
        out[20..28].copy_from_slice(&self.first.0.to_le_bytes());
        let crc = crc32c::crc32c(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; SEGMENT_HEADER] = bytes.get(..SEGMENT_HEADER)?.try_into().ok()?;
        let crc = crc32c::crc32c(&header[..28]).to_le_bytes();
        if header[..4] != SEGMENT_MARK || header[28..] != crc {
            return None;
        }
        let first = Lsn(u64::from_le_bytes(header[20..28].try_into().ok()?));
        Some(Self { id: header[4..20].try_into().ok()?, first })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) sealed: u32,
    pub(crate) first: Lsn,
    pub(crate) count: u32,
}

impl FrameHeader {
    pub(crate) fn encode(self) -> [u8; FRAME_HEADER] {
        let mut out = [0; FRAME_HEADER];
        out[..4].copy_from_slice(&FRAME_MARK);
        out[4..8].copy_from_slice(&self.sealed.to_le_bytes());
        out[8..16].copy_from_slice(&self.first.0.to_le_bytes());
        out[16..20].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32c::crc32c(&out[..20]);
        out[20..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; FRAME_HEADER] = bytes.get(..FRAME_HEADER)?.try_into().ok()?;
        if header[..4] != FRAME_MARK || header[20..] != crc32c::crc32c(&header[..20]).to_le_bytes() {
            return None;
        }
        let sealed = u32::from_le_bytes(header[4..8].try_into().ok()?);
        let first = u64::from_le_bytes(header[8..16].try_into().ok()?);
        let count = u32::from_le_bytes(header[16..20].try_into().ok()?);
        // No writer comes to the last number: readers may count on from any.
        first.checked_add(u64::from(count)).map(|_| Self { sealed, first: Lsn(first), count })
    }
}

/// The cipher of one segment.
pub(crate) struct SegmentCipher(Aes256Gcm);

impl SegmentCipher {
    pub(crate) fn new(keys: &dyn KeySource, segment: &[u8; 16]) -> Self {
        let key = keys.derive(KeyPurpose::JournalSegment, segment);
        Self(Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key.as_bytes())))
    }

    /// Seals `buffer[FRAME_HEADER..]` in place, puts the header before it and the tag behind. False where the cipher refuses,
    /// which it does only past 64 GiB.
    pub(crate) fn seal(&self, offset: u64, first: Lsn, count: u32, buffer: &mut Vec<u8>) -> bool {
        let sealed = (buffer.len() - FRAME_HEADER + TAG) as u32;
        let header = FrameHeader { sealed, first, count }.encode();
        let body = &mut buffer[FRAME_HEADER..];
        let Ok(tag) = self.0.encrypt_inout_detached(&nonce(offset), &header, body.into()) else { return false };
        buffer[..FRAME_HEADER].copy_from_slice(&header);
        buffer.extend_from_slice(&tag);
        true
    }

    /// Opens the sealed part of the frame at `offset`; `None` where it is not what was sealed there.
    pub(crate) fn open(&self, offset: u64, header: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(&nonce(offset), Payload { msg: sealed, aad: header }).ok()
    }
}

fn nonce(offset: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&offset.to_le_bytes());
    Nonce::from(bytes)
}
