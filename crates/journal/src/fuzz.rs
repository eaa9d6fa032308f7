//! What fuzzing reaches of this crate's decoders. No part of the crate's interface.

use bytes::Bytes;
use nearside_schemas::KeySource;

use crate::frame::{FRAME_HEADER, SEGMENT_HEADER, SegmentCipher, SegmentHeader};
use crate::record::{Lsn, Record};
use crate::storage::segment_name;

/// A frame as a writer gone mad would have written it.
pub struct Frame<'a> {
    /// The number of its first record, as its header says it.
    pub first: u64,
    /// How many records it has, as its header says it.
    pub count: u32,
    /// The bytes of its records.
    pub records: &'a [u8],
}

/// The name and the bytes of a segment of these frames, with the right checksums and the right seals: without them fuzzing would not
/// come past the cipher.
pub fn segment(keys: &dyn KeySource, first: u64, frames: &[Frame<'_>]) -> (String, Vec<u8>) {
    let header = SegmentHeader { id: [9; 16], first: Lsn(first) };
    let cipher = SegmentCipher::new(keys, &header.id);
    let mut bytes = header.encode().to_vec();
    debug_assert_eq!(bytes.len(), SEGMENT_HEADER);
    for frame in frames {
        let mut buffer = vec![0; FRAME_HEADER];
        buffer.extend(frame.records);
        if cipher.seal(bytes.len() as u64, Lsn(frame.first), frame.count, &mut buffer) {
            bytes.extend(buffer);
        }
    }
    (segment_name(Lsn(first)), bytes)
}

/// The bytes of a record.
pub fn record(record: &Record) -> Vec<u8> {
    let mut out = Vec::new();
    record.encode(&mut out);
    out
}

/// Reads `bytes` as records, one after the other; what can be read is written and read again.
///
/// # Panics
/// Where it is something else then.
pub fn records(bytes: &[u8]) {
    let mut rest = Bytes::copy_from_slice(bytes);
    while let Ok(read) = Record::decode(&mut rest) {
        let Some(read) = read else { continue };
        let again = Record::decode(&mut Bytes::from(record(&read)));
        assert!(again == Ok(Some(read)), "a record comes back");
    }
}
