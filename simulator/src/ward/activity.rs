//! An activity tracker: steps and posture.

use nearside_schemas::Timestamp;

use crate::payload::millis;
use crate::random::Random;
use crate::rhythm;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Posture {
    Lying,
    Sitting,
    Standing,
    Walking,
}

impl Posture {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Lying => "lying",
            Self::Sitting => "sitting",
            Self::Standing => "standing",
            Self::Walking => "walking",
        }
    }

    /// Steps a minute on average. Even lying people move the sensor now and then.
    const fn steps(self) -> f64 {
        match self {
            Self::Lying => 0.05,
            Self::Sitting => 0.4,
            Self::Standing => 4.0,
            Self::Walking => 62.0,
        }
    }
}

/// A tracker on one patient's wrist.
pub(crate) struct Tracker {
    posture: Posture,
    last: Timestamp,
}

impl Tracker {
    pub(crate) fn new(start: Timestamp) -> Self {
        let posture = if rhythm::night(start) > 0.3 { Posture::Lying } else { Posture::Sitting };
        Self { posture, last: start }
    }

    /// The CSV line `ts_ms,steps,posture`; steps since the line before.
    pub(crate) fn read(&mut self, at: Timestamp, random: &mut Random) -> Vec<u8> {
        let minutes = at.since(self.last).as_secs_f64() / 60.0;
        self.last = at;
        self.turn(at, minutes, random);
        let steps = random.poisson(self.posture.steps() * minutes);
        format!("{},{steps},{}", millis(at), self.posture.as_str()).into_bytes()
    }

    /// People change their posture every twenty minutes or so, at night hardly ever, and walk for a few minutes only.
    fn turn(&mut self, at: Timestamp, minutes: f64, random: &mut Random) {
        let awake = 1.0 - rhythm::night(at);
        let usual = match self.posture {
            Posture::Walking | Posture::Standing => 4.0,
            _ => 20.0 / awake.max(0.1),
        };
        if !random.chance(1.0 - (-minutes / usual).exp()) {
            return;
        }
        self.posture = if random.chance(0.55 * (1.0 - awake)) {
            Posture::Lying
        } else {
            match self.posture {
                Posture::Lying => Posture::Sitting,
                Posture::Sitting => random.pick(&[Posture::Lying, Posture::Standing, Posture::Walking]),
                Posture::Standing => random.pick(&[Posture::Walking, Posture::Sitting]),
                Posture::Walking => random.pick(&[Posture::Sitting, Posture::Standing]),
            }
        };
    }
}
