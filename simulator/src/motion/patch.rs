//! An accelerometer on the breastbone: gravity, breath, steps, fidgets, knocks and falls, through a sensor that sits a little askew.

use std::f64::consts::{PI, TAU};

use super::pose::{FALL_SECONDS, Pose, Posture};
use crate::random::Random;

/// Samples a second.
pub(crate) const HZ: usize = 25;

/// What differs between people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Person {
    /// How the patch sits: angles about its three axes, radians.
    pub(crate) mount: [f64; 3],
    /// Breaths a second, and how far they move the breastbone, g.
    pub(crate) breath: (f64, f64),
    /// Steps a second, and how strong they are, g.
    pub(crate) gait: (f64, f64),
    /// The sensor's own noise, g.
    pub(crate) noise_g: f64,
    /// Fidgets a minute, lying awake.
    pub(crate) restlessness: f64,
    /// Fidgets a minute, asleep.
    pub(crate) twitches: f64,
    /// Knocks at the sensor an hour.
    pub(crate) knocks: f64,
    /// How often a seat is met hard, from 0 to 1.
    pub(crate) hard_seats: f64,
    /// The peak of a fall's impact, g.
    pub(crate) impact: (f64, f64),
}

/// A short strong ringing: a knock, a hard seat, an impact.
#[derive(Clone, Copy)]
struct Ringing {
    /// Seconds until it begins.
    wait: f64,
    g: [f64; 3],
    since: f64,
}

const RING_SECONDS: f64 = 0.5;

/// The patch on one person.
pub(crate) struct Patch {
    person: Person,
    up: [f64; 3],
    before: Option<Posture>,
    was_falling: bool,
    ringing: Option<Ringing>,
    breath: f64,
    step: f64,
    /// Seconds left of a fidget, its strength in g, and its shaking now.
    fidget: (f64, f64, [f64; 3]),
}

impl Patch {
    pub(crate) fn new(person: Person, pose: &Pose, random: &mut Random) -> Self {
        Self {
            person,
            up: pose.up(),
            before: None,
            was_falling: false,
            ringing: None,
            breath: random.uniform(),
            step: 0.0,
            fidget: (0.0, 0.0, [0.0; 3]),
        }
    }

    /// The next sample, `1 / HZ` seconds after the last: x, y, z in g as the sensor sees them.
    pub(crate) fn sample(&mut self, pose: &Pose, random: &mut Random) -> [f64; 3] {
        let dt = 1.0 / HZ as f64;
        let falling = pose.since_fall.filter(|since| *since < FALL_SECONDS);
        self.turn(pose, falling.is_some(), dt);
        self.begin(pose, falling.is_some(), random);
        // In free fall the sensor weighs less.
        let weight = match falling {
            Some(since) if since < 0.55 => 1.0 - 0.65 * (PI * since / 0.55).sin(),
            _ => 1.0,
        };
        let mut g = self.up.map(|up| up * weight);
        self.breathe(&mut g, dt);
        self.walk(pose, &mut g, random, dt);
        self.fidget(pose, &mut g, random, dt);
        self.ring(&mut g, dt);
        self.before = Some(pose.posture);
        let noise = self.person.noise_g;
        mounted(g, self.person.mount).map(|value| value + noise * random.normal())
    }

    /// The trunk goes where the pose has it, in a second or so.
    fn turn(&mut self, pose: &Pose, is_falling: bool, dt: f64) {
        let share = 1.0 - (-dt / if is_falling { 0.22 } else { 0.8 }).exp();
        let aim = pose.up();
        let mut up: [f64; 3] = std::array::from_fn(|i| self.up[i] + share * (aim[i] - self.up[i]));
        let length = up.iter().map(|v| v * v).sum::<f64>().sqrt();
        // Halfway between opposite directions there is none; the next step leaves it.
        if length > 0.1 {
            up = up.map(|v| v / length);
        }
        self.up = up;
    }

    /// Things that begin now.
    fn begin(&mut self, pose: &Pose, is_falling: bool, random: &mut Random) {
        let any = |strength: f64, random: &mut Random| -> [f64; 3] {
            let axes: [f64; 3] = std::array::from_fn(|_| random.normal());
            let length = axes.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-3);
            axes.map(|v| strength * v / length)
        };
        if is_falling && !self.was_falling {
            let strength = random.between(self.person.impact.0, self.person.impact.1);
            self.ringing = Some(Ringing { wait: 0.55, g: any(strength, random), since: 0.0 });
        }
        self.was_falling = is_falling;
        let was_up = matches!(self.before, Some(Posture::Standing | Posture::Walking));
        if was_up && pose.posture == Posture::Sitting && random.chance(self.person.hard_seats) {
            let strength = random.between(0.4, 1.3);
            self.ringing = Some(Ringing { wait: 1.2, g: [strength, 0.2 * strength, 0.3 * strength], since: 0.0 });
        }
        if self.ringing.is_none() && random.chance(self.person.knocks / 3_600.0 / HZ as f64) {
            let strength = random.between(0.6, 2.8);
            self.ringing = Some(Ringing { wait: 0.0, g: any(strength, random), since: 0.0 });
        }
    }

    fn breathe(&mut self, g: &mut [f64; 3], dt: f64) {
        let (hz, depth) = self.person.breath;
        self.breath = (self.breath + hz * dt).fract();
        let swing = depth * (TAU * self.breath).sin();
        g[2] += swing;
        g[0] += 0.5 * swing;
    }

    fn walk(&mut self, pose: &Pose, g: &mut [f64; 3], random: &mut Random, dt: f64) {
        if pose.posture != Posture::Walking {
            return;
        }
        let (hz, strength) = self.person.gait;
        // Two steps are a stride, which rocks to both sides.
        self.step = (self.step + hz * (1.0 + 0.2 * random.normal()) * dt).rem_euclid(2.0);
        let angle = TAU * self.step;
        g[0] += strength * (angle.sin() + 0.4 * (2.0 * angle + 0.7).sin());
        g[2] += 0.5 * strength * (angle + 1.1).sin();
        g[1] += 0.35 * strength * (0.5 * angle).sin();
    }

    fn fidget(&mut self, pose: &Pose, g: &mut [f64; 3], random: &mut Random, dt: f64) {
        let a_minute = match pose.posture {
            _ if pose.is_asleep => self.person.twitches,
            Posture::Lying => self.person.restlessness,
            Posture::Sitting => 2.0 * self.person.restlessness,
            Posture::Standing | Posture::Walking => 4.0 * self.person.restlessness,
        };
        // Who turns over shakes while turning; who stands sways.
        let is_turning = self.before.is_some_and(|before| before != pose.posture);
        if is_turning || random.chance(a_minute / 60.0 * dt) {
            let strength = if pose.is_asleep { random.between(0.01, 0.07) } else { random.between(0.02, 0.16) };
            self.fidget.0 = random.between(0.4, if pose.is_asleep { 2.0 } else { 4.0 });
            self.fidget.1 = strength;
        }
        let sway = if pose.posture == Posture::Standing { 0.006 } else { 0.0 };
        self.fidget.0 -= dt;
        let strength = if self.fidget.0 > 0.0 { self.fidget.1 } else { sway };
        for (value, shaking) in g.iter_mut().zip(&mut self.fidget.2) {
            *shaking = if strength > 0.0 { 0.6 * *shaking + 0.8 * strength * random.normal() } else { 0.0 };
            *value += *shaking;
        }
    }

    fn ring(&mut self, g: &mut [f64; 3], dt: f64) {
        let Some(ringing) = &mut self.ringing else { return };
        ringing.wait -= dt;
        if ringing.wait > 0.0 {
            return;
        }
        let part = (-ringing.since / 0.07).exp() * (TAU * 6.0 * ringing.since).cos();
        g.iter_mut().zip(ringing.g).for_each(|(value, ring)| *value += ring * part);
        ringing.since += dt;
        if ringing.since > RING_SECONDS {
            self.ringing = None;
        }
    }
}

/// Turned about x, then y, then z.
fn mounted([x, y, z]: [f64; 3], [a, b, c]: [f64; 3]) -> [f64; 3] {
    let (y, z) = (a.cos() * y - a.sin() * z, a.sin() * y + a.cos() * z);
    let (x, z) = (b.cos() * x + b.sin() * z, b.cos() * z - b.sin() * x);
    [c.cos() * x - c.sin() * y, c.sin() * x + c.cos() * y, z]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person() -> Person {
        Person {
            mount: [0.0; 3],
            breath: (0.25, 0.012),
            gait: (1.7, 0.2),
            noise_g: 0.003,
            restlessness: 1.0,
            twitches: 0.08,
            knocks: 0.0,
            hard_seats: 0.0,
            impact: (3.0, 3.0),
        }
    }

    /// Magnitudes in g over some seconds of one pose.
    fn run(pose: Pose, seconds: usize) -> Vec<[f64; 3]> {
        let mut random = Random::new(3, 3);
        let mut patch = Patch::new(person(), &pose, &mut random);
        (0..seconds * HZ).map(|_| patch.sample(&pose, &mut random)).collect()
    }

    fn mean(samples: &[[f64; 3]], axis: usize) -> f64 {
        samples.iter().map(|sample| sample[axis]).sum::<f64>() / samples.len() as f64
    }

    #[test]
    fn gravity_stands_where_the_pose_has_it() {
        let upright = run(Pose::upright(Posture::Standing, 0.0), 20);
        assert!((mean(&upright, 0) - 1.0).abs() < 0.05 && mean(&upright, 2).abs() < 0.05);
        let flat = run(Pose::lying(0.0, 0.0, true), 20);
        assert!(mean(&flat, 0).abs() < 0.05 && (mean(&flat, 2) - 1.0).abs() < 0.05);
        let side = run(Pose::lying(0.0, PI / 2.0, true), 20);
        assert!((mean(&side, 1) - 1.0).abs() < 0.05);
        // A quarter turn about z makes x look along y.
        let [x, y, _] = mounted([1.0, 0.0, 0.0], [0.0, 0.0, PI / 2.0]);
        assert!(x.abs() < 1e-9 && (y - 1.0).abs() < 1e-9);
    }

    #[test]
    fn walking_shakes_and_a_fall_weighs_less_then_hits() {
        let spread = |samples: &[[f64; 3]]| {
            let middle = mean(samples, 0);
            (samples.iter().map(|s| (s[0] - middle).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
        };
        let walking = spread(&run(Pose::upright(Posture::Walking, 0.0), 20));
        let lying = spread(&run(Pose::lying(0.2, 0.0, true), 20));
        assert!(walking > 0.12 && lying < 0.04, "{walking} {lying}");
        let mut random = Random::new(4, 4);
        let standing = Pose::upright(Posture::Standing, 0.0);
        let mut patch = Patch::new(person(), &standing, &mut random);
        let size = |g: [f64; 3]| g.iter().map(|v| v * v).sum::<f64>().sqrt();
        let fall: Vec<f64> =
            (0..3 * HZ).map(|i| size(patch.sample(&Pose::fallen(0.5, i as f64 / HZ as f64), &mut random))).collect();
        let (low, high) = fall.iter().fold((9.0f64, 0.0f64), |(low, high), g| (low.min(*g), high.max(*g)));
        assert!(low < 0.6 && high > 2.2, "{low} {high}");
    }
}
