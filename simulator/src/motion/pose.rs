//! What somebody does at an instant, and which way up the breastbone then is.

use crate::random::Random;

/// What somebody does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Posture {
    /// In bed, or on the floor.
    Lying,
    /// On a chair or the edge of the bed.
    Sitting,
    /// On their feet.
    Standing,
    /// Going somewhere.
    Walking,
}

impl Posture {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lying => "lying",
            Self::Sitting => "sitting",
            Self::Standing => "standing",
            Self::Walking => "walking",
        }
    }

    /// Steps a minute on average, as a tracker on the wrist counts them. Even lying people move it now and then.
    pub(crate) const fn steps(self) -> f64 {
        match self {
            Self::Lying => 0.05,
            Self::Sitting => 0.4,
            Self::Standing => 4.0,
            Self::Walking => 62.0,
        }
    }
}

/// What somebody does, and how.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Pose {
    pub(crate) posture: Posture,
    /// How far the trunk leans back from upright, radians; half a turn's quarter is flat on the back.
    pub(crate) recline: f64,
    /// How far it is turned about its long axis, radians; 0 is on the back.
    pub(crate) roll: f64,
    pub(crate) is_asleep: bool,
    /// Seconds since a fall began, while on the floor after it.
    pub(crate) since_fall: Option<f64>,
}

/// How long a fall takes, until the body lies: seconds.
pub(crate) const FALL_SECONDS: f64 = 3.0;

impl Pose {
    /// Upright in this posture.
    pub(crate) const fn upright(posture: Posture, recline: f64) -> Self {
        Self { posture, recline, roll: 0.0, is_asleep: false, since_fall: None }
    }

    /// Lying, with the back this far from flat.
    pub(crate) fn lying(elevation: f64, roll: f64, is_asleep: bool) -> Self {
        let recline = std::f64::consts::FRAC_PI_2 - elevation;
        Self { posture: Posture::Lying, recline, roll, is_asleep, since_fall: None }
    }

    /// On the floor after a fall that began `seconds` ago.
    pub(crate) fn fallen(roll: f64, seconds: f64) -> Self {
        Self { since_fall: Some(seconds), ..Self::lying(0.0, roll, false) }
    }

    /// Where gravity's reaction points, in the body's axes: x to the head, y to the left, z forward.
    pub(crate) fn up(&self) -> [f64; 3] {
        let (lean, level) = self.recline.sin_cos();
        let (side, front) = self.roll.sin_cos();
        [level, lean * side, lean * front]
    }
}

/// A side to lie on.
pub(crate) fn any_side(random: &mut Random) -> f64 {
    random.pick(&[0.0, 0.0, 1.2, -1.2]) + random.between(-0.25, 0.25)
}
