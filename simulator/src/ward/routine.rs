//! What a patient does all day: in bed from half past nine in the evening until after six, and changing places between.

use std::collections::VecDeque;
use std::time::Duration;

use nearside_schemas::Timestamp;

use crate::incident::{Effect, IncidentKind};
use crate::motion::Posture;
use crate::motion::pose::{Pose, any_side};
use crate::random::Random;
use crate::rhythm;

/// Devices of one patient are read minutes apart at most.
const REMEMBERED: Duration = Duration::from_secs(1_800);
/// Who falls walks first, this long.
const WALK_BEFORE_FALL: Duration = Duration::from_secs(20);

/// One patient's places.
pub(super) struct Routine {
    random: Random,
    slump: f64,
    elevation: f64,
    /// From when on what is done, in order of time.
    segments: VecDeque<(Timestamp, Pose)>,
    /// Until when `segments` says it.
    known_until: Timestamp,
}

impl Routine {
    pub(super) fn new(start: Timestamp, mut random: Random) -> Self {
        let (slump, elevation) = (random.between(0.1, 0.4), random.between(0.1, 0.5));
        Self { random, slump, elevation, segments: VecDeque::new(), known_until: start }
    }

    /// What the patient does at `at`, effects of incidents included.
    pub(super) fn pose(&mut self, at: Timestamp, effects: &[Effect]) -> Pose {
        let active = effects.iter().filter(|effect| effect.level(at) > 0.0);
        active.filter_map(|effect| self.forced(effect, at)).next().unwrap_or_else(|| self.usual(at))
    }

    /// What an incident makes of it.
    fn forced(&self, effect: &Effect, at: Timestamp) -> Option<Pose> {
        let since = at.since(effect.from);
        let left = effect.until.since(at);
        let edge = Pose::upright(Posture::Sitting, 0.1);
        match effect.kind {
            IncidentKind::Fall if since < WALK_BEFORE_FALL => Some(Pose::upright(Posture::Walking, 0.05)),
            IncidentKind::Fall => Some(Pose::fallen(0.8, since.saturating_sub(WALK_BEFORE_FALL).as_secs_f64())),
            IncidentKind::BedExit if since < Duration::from_secs(15) => Some(edge),
            IncidentKind::BedExit if left < Duration::from_secs(30) => Some(edge),
            IncidentKind::BedExit => Some(Pose::upright(Posture::Walking, 0.05)),
            IncidentKind::Immobility => Some(Pose::lying(self.elevation, 0.1, true)),
            // Who is that ill keeps to the bed.
            IncidentKind::Deterioration if effect.level(at) > 0.3 => Some(Pose::lying(self.elevation, 0.2, false)),
            _ => None,
        }
    }

    fn usual(&mut self, at: Timestamp) -> Pose {
        while self.known_until <= at {
            let before = self.segments.back().map_or(Posture::Lying, |(_, pose)| pose.posture);
            let (pose, minutes) = self.next(self.known_until, before);
            self.segments.push_back((self.known_until, pose));
            self.known_until = self.known_until.plus(Duration::from_secs_f64(60.0 * minutes));
        }
        let oldest = at.minus(REMEMBERED);
        while self.segments.get(1).is_some_and(|(from, _)| *from <= oldest) {
            self.segments.pop_front();
        }
        let now = self.segments.iter().rev().find(|(from, _)| *from <= at).or(self.segments.front());
        now.map_or(Pose::lying(self.elevation, 0.0, false), |(_, pose)| *pose)
    }

    /// What comes next, and for how many minutes.
    fn next(&mut self, at: Timestamp, before: Posture) -> (Pose, f64) {
        let random = &mut self.random;
        let hour = rhythm::hour(at);
        let lying = |random: &mut Random, is_asleep: bool| Pose::lying(self.elevation, any_side(random), is_asleep);
        if !(6.25..21.5).contains(&hour) {
            let is_asleep = random.chance(0.94);
            let minutes = if is_asleep { random.between(15.0, 45.0) } else { random.between(2.0, 8.0) };
            return (lying(random, is_asleep), minutes);
        }
        let up = |posture: Posture, random: &mut Random, lean: f64| {
            Pose::upright(posture, lean + random.between(-0.08, 0.08))
        };
        let slump = self.slump;
        let next = match before {
            Posture::Lying => random.pick(&[Posture::Sitting, Posture::Sitting, Posture::Lying]),
            Posture::Sitting => random.pick(&[Posture::Lying, Posture::Standing, Posture::Walking, Posture::Sitting]),
            Posture::Standing => random.pick(&[Posture::Walking, Posture::Sitting]),
            Posture::Walking => random.pick(&[Posture::Sitting, Posture::Sitting, Posture::Standing]),
        };
        match next {
            Posture::Lying => {
                let is_nap = (13.0..14.5).contains(&hour) && random.chance(0.7);
                (lying(random, is_nap), random.between(8.0, 30.0))
            }
            Posture::Sitting => (up(next, random, slump), random.between(6.0, 20.0)),
            Posture::Standing => (up(next, random, 0.0), random.between(0.5, 3.0)),
            Posture::Walking => (up(next, random, 0.05), random.between(1.0, 4.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::FRAC_PI_2;

    use super::*;

    /// 2024-01-01, a Monday.
    const START: Timestamp = Timestamp::from_micros(1_704_067_200_000_000);

    #[test]
    fn nights_are_spent_in_bed_and_nobody_lies_still_for_an_hour() {
        let mut routine = Routine::new(START, Random::new(1, 1));
        let mut since = (START, 0.0);
        let mut walked = 0;
        for minute in 0..2 * 1_440 {
            let at = START.plus(Duration::from_secs(60 * minute));
            let pose = routine.pose(at, &[]);
            let hour = rhythm::hour(at);
            if !(6.25..22.0).contains(&hour) {
                assert_eq!(pose.posture, Posture::Lying, "{hour}");
            }
            walked += u32::from(pose.posture == Posture::Walking);
            let side = pose.roll + 10.0 * (FRAC_PI_2 - pose.recline);
            if (side - since.1).abs() > 1e-9 {
                since = (at, side);
            }
            assert!(at.since(since.0) < Duration::from_secs(3_600));
        }
        assert!(walked > 60 && routine.segments.len() < 200, "{walked}");
    }

    #[test]
    fn earlier_instants_are_answered_alike() {
        let mut routine = Routine::new(START, Random::new(2, 1));
        let at = |minute: u64| START.plus(Duration::from_secs(60 * minute));
        let first = routine.pose(at(600), &[]);
        routine.pose(at(620), &[]);
        assert_eq!(routine.pose(at(600), &[]), first);
    }

    #[test]
    fn who_falls_walked_before() {
        let from = START.plus(Duration::from_secs(10 * 3_600));
        let until = from.plus(Duration::from_secs(480));
        let effect = [Effect { kind: IncidentKind::Fall, from, until, strength: 1.0 }];
        let mut routine = Routine::new(START, Random::new(1, 1));
        assert_eq!(routine.pose(from.plus(Duration::from_secs(5)), &effect).posture, Posture::Walking);
        let fallen = routine.pose(from.plus(Duration::from_secs(21)), &effect);
        assert_eq!((fallen.posture, fallen.since_fall), (Posture::Lying, Some(1.0)));
    }
}
