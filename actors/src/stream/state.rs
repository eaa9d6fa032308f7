//! What outlives a stream's actor, and its bytes in a checkpoint. Version 3, little endian: see [`StreamState::encode`]. Version 1, which
//! had no flags, and version 2, which had no anchor, are read for ever.
//!
//! Never: a state leaves the process but encrypted; it holds the stream's key and the rows of its windows (promise I2).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use nearside_schemas::{Finding, KeyValues, ModelName, Personal, StreamName, Timestamp};
use serde::{Deserialize, Serialize};

use super::feedback::FeedbackLog;
use super::silence::Silence;

const VERSION: u8 = 3;
/// The version without an anchor.
const UNANCHORED: u8 = 2;
/// The flag of [`StreamState::windows_closed`].
const WINDOWS_CLOSED: u8 = 1;
/// The flag of [`StreamState::is_parked`].
const PARKED: u8 = 2;

/// The state of a stream that has nothing unjudged.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StreamState {
    /// When it wants a tick: the end of idle windows' patience.
    pub deadline: Option<Timestamp>,
    /// What that patience counts from, the latest of all: later than now where the clock has gone back.
    pub anchor: Option<Timestamp>,
    /// The windows' part, the stream's own part, and each model's.
    pub parts: Vec<Vec<u8>>,
    /// Whether its windows are closed for good: what stands in the first part are windows of a definition that is no more.
    pub windows_closed: bool,
    /// Whether it was given up after too many panics.
    pub is_parked: bool,
}

/// The stream's own part: what neither windows nor models keep.
#[derive(Serialize, Deserialize, Default)]
pub(super) struct OwnPart {
    pub(super) heard_at: Timestamp,
    pub(super) last_received: Timestamp,
    /// Of version 1; since then it is a flag of the state.
    #[serde(default)]
    pub(super) parked: bool,
    pub(super) skipped: VecDeque<(Timestamp, usize)>,
    pub(super) latest_finding: Timestamp,
    pub(super) findings: VecDeque<Finding>,
    #[serde(default)]
    pub(super) silence: Silence,
    /// By model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) feedback: BTreeMap<ModelName, FeedbackLog>,
}

impl StreamState {
    /// Its windows were closed for good, because their definition changed. A stream that was parked is tried again.
    pub const fn windows_are_closed(&mut self) {
        self.windows_closed = true;
        self.is_parked = false;
        (self.deadline, self.anchor) = (None, None);
    }

    /// How many bytes it takes.
    pub fn size(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// Version; flags (bit 0: the windows are closed for good; bit 1: parked); the definition's name; number of key parts, each; deadline, anchor (the largest number: none); number of parts, each. Counts
    /// and lengths have 32 bits.
    pub fn encode(&self, definition: &StreamName, key: &KeyValues) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.size());
        out.push(VERSION);
        let closed = if self.windows_closed { WINDOWS_CLOSED } else { 0 };
        out.push(closed | if self.is_parked { PARKED } else { 0 });
        put(&mut out, definition.as_str().as_bytes());
        out.extend((key.len() as u32).to_le_bytes());
        // Exposed for the checkpoint, which encrypts it: without the key a restarted gateway could not answer the device.
        key.iter().for_each(|part| put(&mut out, part.expose().as_bytes()));
        for time in [self.deadline, self.anchor] {
            out.extend(time.unwrap_or(Timestamp::MAX).as_micros().to_le_bytes());
        }
        out.extend((self.parts.len() as u32).to_le_bytes());
        self.parts.iter().for_each(|part| put(&mut out, part));
        out
    }

    /// Reads back definition, key and state; `None` where the bytes are not what [`StreamState::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Option<(StreamName, KeyValues, Self)> {
        let mut rest = bytes;
        let version = take(&mut rest, 1)?[0];
        let flags = match version {
            1 => 0,
            UNANCHORED | VERSION => take(&mut rest, 1)?[0],
            _ => return None,
        };
        let (windows_closed, is_parked) = (flags & WINDOWS_CLOSED != 0, flags & PARKED != 0);
        let name = StreamName::new(std::str::from_utf8(get(&mut rest)?).ok()?).ok()?;
        let mut key = KeyValues::new();
        for _ in 0..count(&mut rest)? {
            key.push(Personal::new(Arc::from(std::str::from_utf8(get(&mut rest)?).ok()?)));
        }
        let some = |time: Timestamp| (time != Timestamp::MAX).then_some(time);
        let deadline = some(time(&mut rest)?);
        // The anchor is before the deadline; how long, earlier versions did not say.
        let anchor = if version == VERSION { some(time(&mut rest)?) } else { deadline };
        let mut parts = Vec::new();
        for _ in 0..count(&mut rest)? {
            parts.push(get(&mut rest)?.to_vec());
        }
        rest.is_empty().then_some((name, key, Self { deadline, anchor, parts, windows_closed, is_parked }))
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

fn time(rest: &mut &[u8]) -> Option<Timestamp> {
    Some(Timestamp::from_micros(i64::from_le_bytes(take(rest, 8)?.try_into().ok()?)))
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
        let mut state = StreamState {
            deadline: Some(Timestamp::from_secs(9)),
            anchor: Some(Timestamp::from_secs(8)),
            parts: vec![vec![1, 2, 3], Vec::new(), vec![4]],
            windows_closed: false,
            is_parked: false,
        };
        let name = StreamName::new("vitals").unwrap();
        let bytes = state.encode(&name, &key);
        assert_eq!(StreamState::decode(&bytes), Some((name.clone(), key.clone(), state.clone())));
        for end in 0..bytes.len() {
            assert_eq!(StreamState::decode(&bytes[..end]), None, "{end}");
        }
        // Version 2 had no anchor, version 1 no flags either.
        let anchor = 8_000_000_i64.to_le_bytes();
        let at = bytes.windows(8).position(|eight| eight == anchor).unwrap();
        let rest = [&bytes[2..at], &bytes[at + 8..]].concat();
        let earlier = StreamState { anchor: state.deadline, ..state.clone() };
        for head in [&[1][..], &[2, 0]] {
            let read = StreamState::decode(&[head, &rest].concat());
            assert_eq!(read, Some((name.clone(), key.clone(), earlier.clone())), "{head:?}");
        }
        state.is_parked = true;
        let parked = StreamState::decode(&state.encode(&name, &key)).unwrap().2;
        assert!(parked.is_parked && !parked.windows_closed);
        state.windows_are_closed();
        assert!(!state.is_parked, "another definition is another try");
        assert_eq!(StreamState::decode(&state.encode(&name, &key)), Some((name, key, state)));
    }
}
