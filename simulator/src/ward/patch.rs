//! A patch on the breastbone: acceleration along three axes, ten seconds a message.

use std::time::Duration;

use nearside_schemas::Timestamp;

use super::patient::Patient;
use crate::motion::Crowd;
use crate::motion::patch::{HZ, Patch};
use crate::motion::pose::Pose;
use crate::payload::{millis, push_thousandths};
use crate::random::Random;

/// Seconds in one message.
pub(super) const STRIP_SECONDS: u64 = 10;
const SAMPLES: usize = HZ * STRIP_SECONDS as usize;

/// The patch of one patient.
pub(super) struct Accelerometer {
    patch: Patch,
}

impl Accelerometer {
    pub(super) fn new(random: &mut Random) -> Self {
        let person = Crowd::Training.person(random);
        Self { patch: Patch::new(person, &Pose::lying(0.3, 0.0, false), random) }
    }

    /// `{"ts":ms,"hz":25,"x":[…250 samples…],"y":[…],"z":[…]}` in g; `ts` is the time of the first sample.
    pub(super) fn read(&mut self, at: Timestamp, patient: &mut Patient, random: &mut Random) -> Vec<u8> {
        let step = Duration::from_secs(1) / HZ as u32;
        let samples: Vec<[f64; 3]> =
            (0..SAMPLES as u32).map(|i| self.patch.sample(&patient.pose(at.plus(step * i)), random)).collect();
        let mut out = Vec::with_capacity(3 * 7 * SAMPLES + 64);
        out.extend_from_slice(format!(r#"{{"ts":{},"hz":{HZ}"#, millis(at)).as_bytes());
        for (axis, name) in ["x", "y", "z"].into_iter().enumerate() {
            out.extend_from_slice(format!(r#","{name}":["#).as_bytes());
            for (i, sample) in samples.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                push_thousandths(&mut out, (sample[axis] * 1_000.0).round() as i32);
            }
            out.push(b']');
        }
        out.push(b'}');
        out
    }
}
