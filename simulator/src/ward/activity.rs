//! An activity tracker on the wrist: steps and posture.

use nearside_schemas::Timestamp;

use super::patient::Patient;
use crate::payload::millis;
use crate::random::Random;

/// A tracker on one patient's wrist.
pub(crate) struct Tracker {
    last: Timestamp,
}

impl Tracker {
    pub(crate) const fn new(start: Timestamp) -> Self {
        Self { last: start }
    }

    /// The CSV line `ts_ms,steps,posture`; steps since the line before.
    pub(crate) fn read(&mut self, at: Timestamp, patient: &mut Patient, random: &mut Random) -> Vec<u8> {
        let minutes = at.since(self.last).as_secs_f64() / 60.0;
        self.last = at;
        let posture = patient.pose(at).posture;
        let steps = random.poisson(posture.steps() * minutes);
        format!("{},{steps},{}", millis(at), posture.as_str()).into_bytes()
    }
}
