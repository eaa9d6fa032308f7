//! What a city and a ward have in common: devices that can be read at an instant, and places for incidents.

use std::time::Duration;

use nearside_schemas::Timestamp;

use crate::incident::{Incident, Places, Slot};

/// When a device sends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Cadence {
    /// Every `period`, each message `lag` after the instant it speaks of.
    Every { period: Duration, lag: Duration },
    /// At random, this long apart on average.
    NowAndThen { mean: Duration },
}

impl Cadence {
    /// Every `secs` seconds, sent at once.
    pub(crate) const fn every(secs: u64) -> Self {
        Self::Every { period: Duration::from_secs(secs), lag: Duration::ZERO }
    }
}

/// A device from outside.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Outline {
    /// The stream definition.
    pub(crate) stream: &'static str,
    pub(crate) key: String,
    pub(crate) topic: String,
    pub(crate) cadence: Cadence,
}

/// A city or a ward. Devices are known by their index in [`Site::devices`].
pub(crate) trait Site: Send {
    /// The devices, which never change.
    fn devices(&self) -> &[Outline];

    /// Moves what the devices share (weather, bodies) on to `at`. Never back.
    fn advance(&mut self, at: Timestamp);

    /// What a device says at `at`; nothing for an index that is none.
    fn read(&mut self, device: usize, at: Timestamp) -> Vec<u8>;

    /// Where each kind of incident may happen. Variants of a kind are chosen by `variant`.
    fn places(&self, variant: u64) -> Vec<Places>;

    /// Devices of one group must not have two incidents at once.
    fn group(&self, device: usize) -> usize;

    /// Makes a planned incident happen, and says what it is. `periods` maps a device to its period in this fleet.
    fn apply(&mut self, slot: Slot, periods: &dyn Fn(usize) -> Duration) -> Option<Incident>;
}

/// The steps of a grid since the last call that lie at or before an instant: shared processes move on a grid of their
/// own, so that they do not depend on which devices are read.
pub(crate) struct Grid {
    next: Timestamp,
    step: Duration,
}

impl Grid {
    pub(crate) fn new(start: Timestamp, step: Duration) -> Self {
        Self { next: start.plus(step), step }
    }

    /// The next step to take on the way to `to`, if there is one.
    pub(crate) fn step_to(&mut self, to: Timestamp) -> Option<Timestamp> {
        (self.next <= to).then(|| {
            let now = self.next;
            self.next = now.plus(self.step);
            now
        })
    }
}
