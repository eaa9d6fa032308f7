//! Ten seconds of three axes, described by numbers.
//!
//! Epochs lie on a grid of event time, so a restart or another batch cuts no other ones. An epoch with fewer than 8 s of samples, or a
//! hole of more than a second, is left out.

use super::angle;
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Length of an epoch, microseconds.
pub const EPOCH_MICROS: i64 = 10_000_000;
/// Numbers that describe an epoch.
pub const FEATURES: usize = 22;
/// An epoch needs this much of itself, microseconds …
const LEAST_SPAN: i64 = 8_000_000;
/// … and no longer hole than this.
const MOST_HOLE: i64 = 1_000_000;
const LEAST_SAMPLES: usize = 80;
/// 100 samples a second and some; further ones are not looked at.
const MOST_SAMPLES: usize = 1_100;
/// Acceleration along an axis is cut here, g: no sensor worn on the body tells more.
const MOST_G: f32 = 16.0;
/// What is shaken less than this does not count as movement, g.
const DEAD_BAND: f64 = 0.012;
/// A second whose most shaken axis stays below this standard deviation, g, is still.
const STILL: f64 = 0.022;
/// A step crosses its mean by this much, g.
const STEP: f64 = 0.035;

/// One epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// Which on the grid: its start is this many [`EPOCH_MICROS`] after 1970.
    pub number: i64,
    /// Where gravity's reaction points, of length 1.
    pub up: [f64; 3],
    /// What the network sees.
    pub features: [f32; FEATURES],
    /// Movement beyond gravity and noise, g·s.
    pub movement: f64,
    /// The share of seconds without movement.
    pub still: f64,
    /// The largest magnitude, g.
    pub peak: f64,
    /// The smallest standard deviation of an axis, g: what lies on a table has its noise alone.
    pub quietest: f64,
}

impl Epoch {
    /// Its end, microseconds since 1970.
    pub const fn end(&self) -> i64 {
        (self.number + 1) * EPOCH_MICROS
    }
}

/// What an epoch remembers of the one before.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Before {
    number: i64,
    up: [f64; 3],
    spread: f64,
    cadence: f64,
}

/// Gathers samples into epochs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gatherer {
    samples: Vec<(i64, [f32; 3])>,
    before: Option<Before>,
}

impl Gatherer {
    /// Takes a sample (microseconds, g) and gives the epoch that ended before it. A sample that is not later than the last is passed over.
    pub fn push(&mut self, micros: i64, g: [f32; 3]) -> Option<Epoch> {
        if self.samples.last().is_some_and(|(last, _)| micros <= *last) {
            return None;
        }
        let number = micros.div_euclid(EPOCH_MICROS);
        let is_next = self.samples.first().is_some_and(|(first, _)| first.div_euclid(EPOCH_MICROS) != number);
        let ended = if is_next { self.close() } else { None };
        if self.samples.len() < MOST_SAMPLES {
            self.samples.push((micros, g.map(|value| value.clamp(-MOST_G, MOST_G))));
        }
        ended
    }

    fn close(&mut self) -> Option<Epoch> {
        let samples = std::mem::take(&mut self.samples);
        let (first, last) = (samples.first()?.0, samples.last()?.0);
        let hole = samples.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or(i64::MAX);
        if samples.len() < LEAST_SAMPLES || last - first < LEAST_SPAN || hole > MOST_HOLE {
            return None;
        }
        let number = first.div_euclid(EPOCH_MICROS);
        let before = self.before.filter(|before| before.number + 1 == number);
        let (epoch, now) = describe(number, &samples, before.as_ref());
        self.before = Some(now);
        Some(epoch)
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.samples.len() as u32);
        for (micros, g) in &self.samples {
            writer.i64(*micros);
            g.iter().for_each(|value| writer.f32(*value));
        }
        writer.u8(u8::from(self.before.is_some()));
        if let Some(before) = &self.before {
            writer.i64(before.number);
            before.up.iter().chain([&before.spread, &before.cadence]).for_each(|value| writer.f64(*value));
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut samples = Vec::new();
        for _ in 0..reader.count(MOST_SAMPLES)? {
            samples.push((reader.i64()?, [reader.f32()?, reader.f32()?, reader.f32()?]));
        }
        let before = match reader.u8()? {
            0 => None,
            _ => Some(Before {
                number: reader.i64()?,
                up: [reader.f64()?, reader.f64()?, reader.f64()?],
                spread: reader.f64()?,
                cadence: reader.f64()?,
            }),
        };
        Ok(Self { samples, before })
    }
}

/// Mean and standard deviation.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let (count, sum) = values.clone().fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    let mean = sum / f64::max(count, 1.0);
    (mean, (values.map(|value| (value - mean).powi(2)).sum::<f64>() / f64::max(count, 1.0)).sqrt())
}

fn describe(number: i64, samples: &[(i64, [f32; 3])], before: Option<&Before>) -> (Epoch, Before) {
    let axis = |i: usize| samples.iter().map(move |(_, g)| f64::from(g[i]));
    let axes = [moments(axis(0)), moments(axis(1)), moments(axis(2))];
    let size = |g: &[f32; 3]| g.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let sizes: Vec<f64> = samples.iter().map(|(_, g)| size(g)).collect();
    let (mean, spread) = moments(sizes.iter().copied());
    let seconds = (samples[samples.len() - 1].0 - samples[0].0) as f64 / 1e6;
    let (peak, least) = sizes.iter().fold((0.0f64, f64::MAX), |(high, low), g| (high.max(*g), low.min(*g)));
    let jerk: f64 = samples
        .windows(2)
        .map(|pair| (0..3).map(|i| f64::from(pair[1].1[i] - pair[0].1[i]).powi(2)).sum::<f64>().sqrt())
        .sum::<f64>()
        / seconds;
    let movement = movement(samples, &sizes);
    let cadence = crossings(&sizes, mean) as f64 / seconds;
    let by_second = Seconds::of(samples, &sizes);
    let up = direction(axes.map(|(mean, _)| mean));
    let now = Before { number, up, spread, cadence };
    let earlier = *before.unwrap_or(&now);
    let turn_within = angle(by_second.early, by_second.late);
    let log = |value: f64| value.max(1e-4).ln();
    let numbers = [
        up[0],
        up[1],
        up[2],
        log(spread),
        log(axes[0].1),
        log(axes[1].1),
        log(axes[2].1),
        peak.min(6.0),
        least,
        log(jerk),
        cadence,
        by_second.still,
        turn_within,
        angle(up, earlier.up),
        log(movement),
        by_second.still_after_peak,
        log(by_second.most_shaken),
        earlier.up[0],
        earlier.up[1],
        earlier.up[2],
        log(earlier.spread),
        earlier.cadence,
    ];
    let quietest = axes.iter().map(|(_, spread)| *spread).fold(f64::MAX, f64::min);
    let features = numbers.map(|number| number as f32);
    (Epoch { number, up, features, movement, still: by_second.still, peak, quietest }, now)
}

fn direction(mean: [f64; 3]) -> [f64; 3] {
    let length = mean.iter().map(|value| value * value).sum::<f64>().sqrt();
    // Weightless on average is nothing that stays on a body; then any direction is as good.
    if length > 1e-6 { mean.map(|value| value / length) } else { [1.0, 0.0, 0.0] }
}

/// Distance of the magnitude from its own average of half a second, beyond the dead band, summed over time: g·s.
fn movement(samples: &[(i64, [f32; 3])], sizes: &[f64]) -> f64 {
    let mut average = sizes.first().copied().unwrap_or(0.0);
    let mut sum = 0.0;
    for (pair, size) in samples.windows(2).zip(sizes.iter().skip(1)) {
        let seconds = (pair[1].0 - pair[0].0) as f64 / 1e6;
        average += (1.0 - (-seconds / 0.5).exp()) * (size - average);
        sum += ((size - average).abs() - DEAD_BAND).max(0.0) * seconds;
    }
    sum
}

/// How often the magnitude goes from well below its mean to well above.
fn crossings(sizes: &[f64], mean: f64) -> u32 {
    let (mut below, mut count) = (false, 0);
    for size in sizes {
        if *size < mean - STEP {
            below = true;
        } else if *size > mean + STEP && below {
            below = false;
            count += 1;
        }
    }
    count
}

/// What single seconds tell.
struct Seconds {
    /// Directions of the first and the last two seconds.
    early: [f64; 3],
    late: [f64; 3],
    still: f64,
    still_after_peak: f64,
    /// The largest standard deviation of the magnitude in one second, g.
    most_shaken: f64,
}

impl Seconds {
    fn of(samples: &[(i64, [f32; 3])], sizes: &[f64]) -> Self {
        let first = samples[0].0;
        let second = |index: usize| (samples[index].0 - first) / 1_000_000;
        let mut seconds: Vec<(f64, f64, [f64; 3])> = Vec::with_capacity(10);
        let mut from = 0;
        while from < samples.len() {
            let number = second(from);
            let length = samples[from..].iter().take_while(|(at, _)| (at - first) / 1_000_000 == number).count();
            let part = &samples[from..from + length];
            let axes: [(f64, f64); 3] =
                std::array::from_fn(|i| moments(part.iter().map(move |(_, g)| f64::from(g[i]))));
            let shaken = axes.iter().map(|(_, spread)| *spread).fold(0.0, f64::max);
            let peak = sizes[from..from + length].iter().copied().fold(0.0, f64::max);
            seconds.push((shaken, peak, axes.map(|(mean, _)| mean)));
            from += length;
        }
        let stills = |part: &[(f64, f64, [f64; 3])]| part.iter().filter(|(shaken, ..)| *shaken < STILL).count() as f64;
        let highest = seconds.iter().enumerate().max_by(|a, b| a.1.1.total_cmp(&b.1.1)).map_or(0, |(at, _)| at);
        let after = seconds.get(highest + 1..).unwrap_or_default();
        let together = |part: &[(f64, f64, [f64; 3])]| {
            direction(part.iter().fold([0.0; 3], |sum, (.., mean)| std::array::from_fn(|i| sum[i] + mean[i])))
        };
        Self {
            early: together(&seconds[..seconds.len().min(2)]),
            late: together(&seconds[seconds.len().saturating_sub(2)..]),
            still: stills(&seconds) / seconds.len() as f64,
            still_after_peak: if after.is_empty() { 0.0 } else { stills(after) / after.len() as f64 },
            most_shaken: seconds.iter().map(|(shaken, ..)| *shaken).fold(0.0, f64::max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of a signal at 25 Hz, from a time on.
    fn feed(gatherer: &mut Gatherer, from_secs: i64, seconds: i64, g: impl Fn(f64) -> [f32; 3]) -> Vec<Epoch> {
        (0..seconds * 25)
            .filter_map(|i| gatherer.push(from_secs * 1_000_000 + i * 40_000, g(i as f64 / 25.0)))
            .collect()
    }

    #[test]
    fn stillness_is_still_and_points_up() {
        let epochs = feed(&mut Gatherer::default(), 1_000, 31, |_| [0.0, 0.0, 1.0]);
        assert_eq!(epochs.iter().map(|epoch| epoch.number).collect::<Vec<_>>(), [100, 101, 102]);
        let epoch = &epochs[0];
        assert_eq!((epoch.up, epoch.still, epoch.movement), ([0.0, 0.0, 1.0], 1.0, 0.0));
        assert!(epoch.features.iter().all(|number| number.is_finite()));
    }

    #[test]
    fn two_steps_a_second_are_counted() {
        let walk = |t: f64| [1.0 + 0.2 * (std::f64::consts::TAU * 2.0 * t).sin() as f32, 0.0, 0.0];
        let epoch = feed(&mut Gatherer::default(), 1_000, 11, walk).remove(0);
        assert!((epoch.features[10] - 2.0).abs() < 0.15, "{}", epoch.features[10]);
        assert_eq!(epoch.still, 0.0);
        // The mean of |0.2 sin| is 0.127 g, less the dead band and what the average follows.
        assert!((0.9..1.3).contains(&epoch.movement), "{}", epoch.movement);
    }

    #[test]
    fn a_turn_is_an_angle() {
        let turn = |t: f64| if t < 5.0 { [1.0, 0.0, 0.0] } else { [0.0, 0.0, 1.0] };
        let epochs = feed(&mut Gatherer::default(), 1_000, 31, turn);
        assert!((epochs[0].features[12] - std::f32::consts::FRAC_PI_2).abs() < 1e-3);
        assert!((epochs[1].features[13] - std::f32::consts::FRAC_PI_4).abs() < 0.05, "{}", epochs[1].features[13]);
        assert!(epochs[2].features[13].abs() < 1e-3);
    }

    #[test]
    fn holes_and_short_epochs_are_left_out() {
        let mut gatherer = Gatherer::default();
        let flat = |_: f64| [0.0, 0.0, 1.0];
        assert!(feed(&mut gatherer, 1_000, 6, flat).is_empty());
        assert!(feed(&mut gatherer, 1_008, 6, flat).is_empty(), "a hole of two seconds");
        assert_eq!(feed(&mut gatherer, 1_014, 7, flat).len(), 1, "from 1,010 on it is whole");
        assert_eq!(gatherer.push(5, [0.0; 3]), None, "late");
    }

    #[test]
    fn it_survives_a_restart_in_the_middle() {
        let walk = |t: f64| [1.0, 0.3 * (5.0 * t).sin() as f32, 0.1];
        let mut gatherer = Gatherer::default();
        feed(&mut gatherer, 1_000, 14, walk);
        let mut writer = Writer::new(1);
        gatherer.write(&mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::new("m", 1, &bytes).unwrap();
        let mut again = Gatherer::read(&mut reader).unwrap();
        assert_eq!(again, gatherer);
        assert_eq!(feed(&mut again, 1_014, 9, walk), feed(&mut gatherer, 1_014, 9, walk));
        assert!(bytes.len() < 8_192, "{}", bytes.len());
    }
}
