//! Labelled recordings of invented people, to train and to test on.
//!
//! Promises: crowd, seed and number of a person decide every sample. The people of [`Crowd::Test`] are drawn from other ranges than
//! those of [`Crowd::Training`]: weaker steps, softer falls, patches more askew, backs further from flat.

use std::time::Duration;

use nearside_schemas::Timestamp;

use super::patch::{HZ, Patch, Person};
use super::pose::{FALL_SECONDS, Pose, Posture, any_side};
use crate::random::Random;

/// Whom a recording is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crowd {
    /// People to learn from; the patients of the simulated ward are like them.
    Training,
    /// Others, who differ in what they are like too.
    Test,
}

/// What was so in one second of a recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MotionTruth {
    /// What the person did.
    pub posture: Posture,
    /// Whether the person fell in it.
    pub is_falling: bool,
    /// Whether the person slept.
    pub is_asleep: bool,
}

/// Acceleration at the breastbone, with what was so.
#[derive(Clone, PartialEq, Debug)]
pub struct MotionRecording {
    /// The time of the first sample.
    pub start: Timestamp,
    /// Samples a second.
    pub hz: f64,
    /// x (to the head), y (to the left), z (forward), in g.
    pub samples: Vec<[f32; 3]>,
    /// One a second.
    pub truth: Vec<MotionTruth>,
}

/// Somebody does this from here on, until the next.
#[derive(Clone, Copy)]
struct Segment {
    from: f64,
    pose: Pose,
    is_fall: bool,
}

impl MotionRecording {
    /// Up to `minutes` of a busy day: all postures, hard seats, knocks, and a fall every ten minutes or so.
    pub fn day(crowd: Crowd, seed: u64, person: u64, minutes: u64) -> Self {
        Plan::day(crowd, seed, person, minutes).record()
    }

    /// A night in bed from 22:00 to about 7:00, up for the last hour: some sleep soon and well, others do not.
    pub fn night(crowd: Crowd, seed: u64, person: u64) -> Self {
        Plan::night(crowd, seed, person).record()
    }

    /// How long it is.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.samples.len() as f64 / self.hz)
    }
}

/// What somebody will do.
struct Plan {
    who: Person,
    segments: Vec<Segment>,
    /// Seconds.
    end: f64,
    start: Timestamp,
    random: Random,
}

impl Plan {
    fn day(crowd: Crowd, seed: u64, person: u64, minutes: u64) -> Self {
        let mut random = source(crowd, seed, person, 0);
        let who = crowd.person(&mut random);
        let habits = crowd.habits(&mut random);
        let end = (minutes * 60) as f64;
        let mut segments: Vec<Segment> = Vec::new();
        let mut from = 0.0;
        let mut pose = Pose::upright(Posture::Sitting, habits.slump);
        while from < end {
            segments.push(Segment { from, pose, is_fall: false });
            from += random.between(15.0, 200.0);
            let is_up = matches!(pose.posture, Posture::Standing | Posture::Walking);
            if is_up && random.chance(0.3) {
                segments.push(Segment { from, pose: Pose::fallen(random.between(-3.0, 3.0), 0.0), is_fall: true });
                from += random.between(30.0, 180.0);
            }
            pose = habits.next(pose.posture, &mut random);
        }
        // 8 o'clock on a Monday.
        Self { who, segments, end, start: Timestamp::from_secs(1_704_096_000), random }
    }

    fn night(crowd: Crowd, seed: u64, person: u64) -> Self {
        let mut random = source(crowd, seed, person, 1);
        let who = crowd.person(&mut random);
        let habits = crowd.habits(&mut random);
        let (up_again, end) = (9.0 * 3_600.0, 10.0 * 3_600.0);
        // From a good sleeper to one who hardly sleeps.
        let trouble = random.uniform().powi(2);
        let mut segments =
            vec![Segment { from: 0.0, pose: Pose::upright(Posture::Sitting, habits.slump), is_fall: false }];
        let mut from = 300.0;
        let latency = 300.0 + 3_600.0 * trouble * random.uniform() + random.exponential(600.0);
        let asleep_from = from + latency;
        while from < up_again {
            let is_asleep = from >= asleep_from && random.chance(0.93 - 0.45 * trouble);
            let stay = if is_asleep {
                random.between(600.0, 2_700.0)
            } else {
                random.between(90.0, 420.0 + 1_500.0 * trouble)
            };
            let stay = if from < asleep_from { stay.min(asleep_from - from).max(60.0) } else { stay };
            if !is_asleep && from > asleep_from && random.chance(0.12) {
                let pose = Pose::upright(Posture::Walking, 0.05);
                segments.push(Segment { from, pose, is_fall: false });
                from += random.between(90.0, 300.0);
            }
            let pose = Pose::lying(habits.elevation, any_side(&mut random), is_asleep);
            segments.push(Segment { from, pose, is_fall: false });
            from += stay;
        }
        let mut pose = Pose::upright(Posture::Sitting, habits.slump);
        while from < end {
            segments.push(Segment { from, pose, is_fall: false });
            from += random.between(60.0, 400.0);
            pose = Pose { is_asleep: false, ..habits.next_up(pose.posture, &mut random) };
        }
        Self { who, segments, end, start: Timestamp::from_secs(1_704_060_000), random }
    }

    fn record(self) -> MotionRecording {
        let Self { who, segments, end, start, mut random } = self;
        let mut samples = Vec::with_capacity((end * HZ as f64) as usize);
        let mut truth = Vec::with_capacity(end as usize);
        let mut at = 0;
        let first = Pose::upright(Posture::Sitting, 0.2);
        let mut patch = Patch::new(who, segments.first().map_or(&first, |segment| &segment.pose), &mut random);
        for second in 0..end as usize {
            let mut falling = false;
            let mut now = first;
            for part in 0..HZ {
                let t = second as f64 + part as f64 / HZ as f64;
                while segments.get(at + 1).is_some_and(|next| next.from <= t) {
                    at += 1;
                }
                let Some(segment) = segments.get(at) else { break };
                let since = t - segment.from;
                now = Pose { since_fall: segment.is_fall.then_some(since), ..segment.pose };
                falling |= segment.is_fall && since < FALL_SECONDS;
                samples.push(patch.sample(&now, &mut random).map(|value| value as f32));
            }
            truth.push(MotionTruth { posture: now.posture, is_falling: falling, is_asleep: now.is_asleep });
        }
        MotionRecording { start, hz: HZ as f64, samples, truth }
    }
}

fn source(crowd: Crowd, seed: u64, person: u64, part: u64) -> Random {
    let side = u64::from(crowd == Crowd::Test);
    // Far from the streams of a fleet's devices and patients.
    Random::new(seed, (1 << 60) + 4 * person + 2 * side + part)
}

/// How somebody sits and lies.
#[derive(Clone, Copy)]
pub(crate) struct Habits {
    /// How far the trunk leans back on a chair, radians.
    pub(crate) slump: f64,
    /// How far the head of the bed is raised, radians.
    pub(crate) elevation: f64,
}

impl Habits {
    fn next(self, before: Posture, random: &mut Random) -> Pose {
        if random.chance(0.25) && before != Posture::Lying {
            return Pose::lying(self.elevation, any_side(random), random.chance(0.5));
        }
        self.next_up(before, random)
    }

    /// Another upright posture.
    pub(crate) fn next_up(self, before: Posture, random: &mut Random) -> Pose {
        let next = match before {
            Posture::Lying => random.pick(&[Posture::Sitting, Posture::Sitting, Posture::Standing]),
            Posture::Sitting => random.pick(&[Posture::Standing, Posture::Walking]),
            Posture::Standing => random.pick(&[Posture::Walking, Posture::Walking, Posture::Sitting]),
            Posture::Walking => random.pick(&[Posture::Sitting, Posture::Standing]),
        };
        let lean = if next == Posture::Sitting { self.slump } else { 0.05 };
        Pose::upright(next, lean + random.between(-0.12, 0.12))
    }
}

impl Crowd {
    pub(crate) fn habits(self, random: &mut Random) -> Habits {
        match self {
            Self::Training => Habits { slump: random.between(0.05, 0.5), elevation: random.between(0.0, 0.55) },
            Self::Test => Habits { slump: random.between(0.1, 0.6), elevation: random.between(0.1, 0.65) },
        }
    }

    pub(crate) fn person(self, random: &mut Random) -> Person {
        let askew = if self == Self::Training { 0.12 } else { 0.17 };
        let mount = std::array::from_fn(|_| askew * random.normal());
        let mut between = |training: (f64, f64), test: (f64, f64)| {
            let (low, high) = if self == Self::Training { training } else { test };
            random.between(low, high)
        };
        Person {
            mount,
            breath: (between((0.2, 0.34), (0.16, 0.42)), between((0.008, 0.02), (0.007, 0.025))),
            gait: (between((1.4, 2.1), (1.15, 2.0)), between((0.1, 0.33), (0.07, 0.28))),
            noise_g: between((0.002, 0.0035), (0.002, 0.0045)),
            restlessness: between((0.4, 2.0), (0.25, 1.6)),
            twitches: between((0.04, 0.14), (0.05, 0.22)),
            knocks: between((0.0, 12.0), (0.0, 20.0)),
            hard_seats: between((0.0, 0.6), (0.0, 0.8)),
            impact: if self == Self::Training { (1.4, 4.5) } else { (1.1, 3.8) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crowd_seed_and_person_decide() {
        let day = |crowd, seed, person| MotionRecording::day(crowd, seed, person, 3);
        let one = day(Crowd::Training, 1, 0);
        assert_eq!(one, day(Crowd::Training, 1, 0));
        assert_ne!(one.samples, day(Crowd::Training, 1, 1).samples);
        assert_ne!(one.samples, day(Crowd::Test, 1, 0).samples);
        assert_ne!(one.samples, day(Crowd::Training, 2, 0).samples);
        assert_eq!((one.samples.len(), one.truth.len()), (180 * HZ, 180));
        assert!(one.samples.iter().flatten().all(|value| value.is_finite()));
    }

    #[test]
    fn days_hold_everything_and_nights_differ() {
        let segments: Vec<Segment> =
            (0..12).flat_map(|person| Plan::day(Crowd::Training, 1, person, 30).segments).collect();
        for posture in [Posture::Lying, Posture::Sitting, Posture::Standing, Posture::Walking] {
            assert!(segments.iter().filter(|one| one.pose.posture == posture).count() > 20, "{posture:?}");
        }
        assert!(segments.iter().filter(|one| one.is_fall).count() > 5);
        let asleep: Vec<f64> = (0..30)
            .map(|person| {
                let plan = Plan::night(Crowd::Training, 1, person);
                let asleep = plan.segments.windows(2).filter(|pair| pair[0].pose.is_asleep);
                asleep.map(|pair| pair[1].from - pair[0].from).sum::<f64>() / plan.end
            })
            .collect();
        let (low, high) =
            asleep.iter().fold((1.0f64, 0.0f64), |(low, high), share| (low.min(*share), high.max(*share)));
        assert!(high > 0.75 && low < 0.65, "{asleep:?}");
    }
}
