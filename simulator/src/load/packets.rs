//! Prepared PUBLISH packets: all streams of one connection in one piece of memory, copied in turn, with packet id, time
//! and value changed in place.

use super::wire;

/// `ts` in milliseconds since 1970 and a value around 20.5. Both have a fixed width, so that places do not move.
const PAYLOAD: &[u8] = br#"{"ts":0000000000000,"value":20.0000}"#;
/// From the end of a packet back to the start of each changed place.
const ID_BACK: usize = PAYLOAD.len() + 2;
const TIME_BACK: usize = PAYLOAD.len() - 6;
const TIME_DIGITS: usize = 13;
const VALUE_BACK: usize = 5;
const VALUE_DIGITS: usize = 4;
/// Has no common divisor with 10,000: the values of 10,000 messages in a row all differ, so that two messages of a
/// stream are never the same even within one millisecond.
const VALUE_STEP: u64 = 7_919;

/// The packets of one connection.
pub(super) struct Packets {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    next: usize,
    start: usize,
    value: u64,
    time: [u8; TIME_DIGITS],
}

impl Packets {
    /// Packets for these streams, at least one.
    pub(super) fn new(streams: impl Iterator<Item = usize>, seed: u64) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for stream in streams {
            wire::push_publish(&mut bytes, &format!("load/{stream}"), PAYLOAD);
            ends.push(bytes.len());
        }
        Self { bytes, ends, next: 0, start: 0, value: seed % 10_000, time: [b'0'; TIME_DIGITS] }
    }

    /// The time of all packets from here on.
    pub(super) fn set_time(&mut self, millis: i64) {
        write_digits(&mut self.time, millis.max(0).unsigned_abs());
    }

    /// Appends the next stream's packet.
    pub(super) fn push(&mut self, out: &mut Vec<u8>, id: u16) {
        let Some(&end) = self.ends.get(self.next) else { return };
        out.extend_from_slice(&self.bytes[self.start..end]);
        (self.start, self.next) = if self.next + 1 == self.ends.len() { (0, 0) } else { (end, self.next + 1) };
        self.value = (self.value + VALUE_STEP) % 10_000;
        let length = out.len();
        let id_at = length - ID_BACK;
        out[id_at..id_at + 2].copy_from_slice(&id.to_be_bytes());
        let time_at = length - TIME_BACK;
        out[time_at..time_at + TIME_DIGITS].copy_from_slice(&self.time);
        let value_at = length - VALUE_BACK;
        write_digits(&mut out[value_at..value_at + VALUE_DIGITS], self.value);
    }
}

/// Writes the last digits of a number, with leading zeros.
fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_take_turns_and_differ() {
        let mut packets = Packets::new([3, 40].into_iter(), 9);
        packets.set_time(1_704_186_000_123);
        let mut seen = std::collections::HashSet::new();
        for i in 0..10_000u16 {
            let mut out = Vec::new();
            packets.push(&mut out, i + 1);
            let topic = if i % 2 == 0 { "load/3" } else { "load/40" };
            let mut head = vec![0x32, (2 + topic.len() + 2 + PAYLOAD.len()) as u8, 0, topic.len() as u8];
            head.extend_from_slice(topic.as_bytes());
            head.extend((i + 1).to_be_bytes());
            assert!(out.starts_with(&head), "{out:?}");
            let value: serde_json::Value = serde_json::from_slice(&out[head.len()..]).unwrap();
            assert_eq!(value["ts"], 1_704_186_000_123i64);
            assert!((20.0..21.0).contains(&value["value"].as_f64().unwrap()));
            assert!(seen.insert(value.to_string()), "{value} came twice");
        }
    }
}
