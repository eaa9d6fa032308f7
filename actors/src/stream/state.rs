//! What outlives a stream's actor, and its bytes in a checkpoint. Version 1, little endian: see [`StreamState::encode`].
//!
//! Never: a state leaves the process but encrypted; it holds the stream's key and the rows of its windows (promise I2).

use std::collections::VecDeque;
use std::sync::Arc;

use nearside_schemas::{Finding, KeyValues, Personal, StreamName, Timestamp};
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;

/// The state of a stream that has nothing unjudged.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StreamState {
    /// When it wants a tick: the end of idle windows' patience.
    pub deadline: Option<Timestamp>,
    /// The windows' part, the stream's own part, and each model's.
    pub parts: Vec<Vec<u8>>,
    /// Whether its windows are closed for good. Not kept: it is known where it matters.
    pub windows_closed: bool,
}

/// The stream's own part: what neither windows nor models keep.
#[derive(Serialize, Deserialize, Default)]
pub(super) struct OwnPart {
    pub(super) heard_at: Timestamp,
    pub(super) last_received: Timestamp,
    pub(super) parked: bool,
    pub(super) skipped: VecDeque<(Timestamp, usize)>,
    pub(super) latest_finding: Timestamp,
    pub(super) findings: VecDeque<Finding>,
}

impl StreamState {
    /// Its windows were closed for good, because their definition changed.
    pub const fn windows_are_closed(&mut self) {
        self.windows_closed = true;
        self.deadline = None;
    }

    /// How many bytes it takes.
    pub fn size(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// Version; the definition's name; number of key parts, each; deadline (the largest number: none); number of parts, each. Counts
    /// and lengths have 32 bits.
    pub fn encode(&self, definition: &StreamName, key: &KeyValues) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.size());
        out.push(VERSION);
        put(&mut out, definition.as_str().as_bytes());
        out.extend((key.len() as u32).to_le_bytes());
        // Exposed for the checkpoint, which encrypts it: without the key a restarted gateway could not answer the device.
        key.iter().for_each(|part| put(&mut out, part.expose().as_bytes()));
        out.extend(self.deadline.unwrap_or(Timestamp::MAX).as_micros().to_le_bytes());
        out.extend((self.parts.len() as u32).to_le_bytes());
        self.parts.iter().for_each(|part| put(&mut out, part));
        out
    }

    /// Reads back definition, key and state; `None` where the bytes are not what [`StreamState::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Option<(StreamName, KeyValues, Self)> {
        let mut rest = bytes;
        if take(&mut rest, 1)? != [VERSION] {
            return None;
        }
        let name = StreamName::new(std::str::from_utf8(get(&mut rest)?).ok()?).ok()?;
        let mut key = KeyValues::new();
        for _ in 0..count(&mut rest)? {
            key.push(Personal::new(Arc::from(std::str::from_utf8(get(&mut rest)?).ok()?)));
        }
        let deadline = Timestamp::from_micros(i64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?));
        let deadline = (deadline != Timestamp::MAX).then_some(deadline);
        let mut parts = Vec::new();
        for _ in 0..count(&mut rest)? {
            parts.push(get(&mut rest)?.to_vec());
        }
        rest.is_empty().then_some((name, key, Self { deadline, parts, windows_closed: false }))
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (front, back) = rest.split_at_checked(length)?;
    *rest = back;
    Some(front)
}

fn count(rest: &mut &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?) as usize)
}

fn get<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = count(rest)?;
    take(rest, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_hold_all_of_it_and_cut_bytes_are_refused() {
        let key: KeyValues = [Personal::new(Arc::from("床 7")), Personal::new(Arc::from(""))].into_iter().collect();
        let state = StreamState {
            deadline: Some(Timestamp::from_secs(9)),
            parts: vec![vec![1, 2, 3], Vec::new(), vec![4]],
            windows_closed: false,
        };
        let name = StreamName::new("vitals").unwrap();
        let bytes = state.encode(&name, &key);
        assert_eq!(StreamState::decode(&bytes), Some((name, key, state)));
        for end in 0..bytes.len() {
            assert_eq!(StreamState::decode(&bytes[..end]), None, "{end}");
        }
    }
}
