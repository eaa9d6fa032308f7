//! How many readings a message may still bring.

use super::Decoded;
use super::layout::error;
use crate::set_aside::SetAsideReason;

/// The room of one message. A reading that is set aside takes room too, so that a message of bad rows makes no more errors than a
/// message of good ones makes readings.
pub(super) struct Room {
    bound: usize,
    left: usize,
    beyond: u64,
}

impl Room {
    pub(super) const fn new(bound: usize) -> Self {
        Self { bound, left: bound, beyond: 0 }
    }

    /// Whether one more reading has room; one that has none is counted.
    pub(super) const fn take(&mut self) -> bool {
        let has = self.left > 0;
        if has {
            self.left -= 1;
        } else {
            self.beyond += 1;
        }
        has
    }

    /// How many of `readings` readings have room; the rest is counted.
    pub(super) fn take_many(&mut self, readings: usize) -> usize {
        let taken = readings.min(self.left);
        self.left -= taken;
        self.beyond += (readings - taken) as u64;
        taken
    }

    /// Says, in one entry, how many readings had no room.
    pub(super) fn close(self, out: &mut Decoded) {
        if self.beyond > 0 {
            let detail = format!("the message carries more than {} readings", self.bound);
            let mut error = error(SetAsideReason::TooLarge, detail);
            error.readings = self.beyond;
            out.errors.push(error);
        }
    }
}
