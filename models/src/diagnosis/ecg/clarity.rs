//! Whether beats lie in a stretch of signal that a heart could have made: only such ones may count towards a finding.
//!
//! A heart repeats itself and noise does not. Each beat is held against the eight before it and the four after it, by its shape above
//! [`BASE_LINE_HZ`] and its size; it is *repeated* where [`REPEATS`] of them are like it. Beats are clear where
//!
//! - of the [`NEAR`] beats up to it and of the [`NEAR`] from it on a share of [`MOSTLY`] is repeated, and it is itself or lies in quiet. So
//!   of ventricular beats too: a run of them is regular in shape, and a single one lies among others that are;
//! - around it there are not twice as many of one shape but another size, or upside down: electrodes that move make such ones;
//! - most of the signal's energy lies in the complexes and not between them, as it does where tremor repeats itself;
//! - waves above [`SLOW_HZ`] do not outweigh the complexes [`MOST_SLOW`] times, as they do while a chest is compressed. Faster than a chest is
//!   compressed this is not asked: a ventricle that flutters makes slow waves too.
//!
//! In this it combines what is known of signal quality: agreement with a running template, and energy in against energy between the
//! complexes (Q. Li, R. Mark, G. Clifford, "Robust heart rate estimation from multiple noisy sources using a Kalman filter", Physiological
//! Measurement 29(1), 2008; C. Orphanidou et al., "Signal-quality indices for the electrocardiogram and photoplethysmogram", IEEE Journal of
//! Biomedical and Health Informatics 19(3), 2015). It looks ahead: a beat is judged when [`NEAR`] − 1 more are known, at most
//! [`LONGEST_WAIT`] seconds after it was told. What is known over a gap stays: strips go on where the last one ended.
//!
//! Promises: constant memory; depends on the samples and the beats found in them alone. Never: a beat's class plays a part.

use std::collections::VecDeque;

use super::beats::Beat;
use super::filter::{Biquad, Resampler, Ring};
use super::{MOST_LEADS, RATE_HZ};
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Beats that are looked at to either side, with the one itself.
const NEAR: usize = 5;
/// Beats before one that it is held against, and after it.
const BEFORE: usize = 16;
const AFTER: usize = NEAR - 1;
/// Of those so many are like it, where it is repeated.
const REPEATS: u32 = 2;
/// Share of the beats near one that are repeated where it is clear: two of five.
const MOSTLY: f64 = 0.4;
/// Correlation from which on two beats have one shape, and the ratio of their sizes that is no more than breathing makes.
const ALIKE: f32 = 0.8;
const SIZES: std::ops::Range<f32> = 0.6..1.67;
/// Shapes are of every second sample of the signal; what is below is taken out.
const BASE_LINE_HZ: f64 = 5.0;
/// A shape from 0.14 s before a beat's middle to 0.18 s after it, and how far two are moved to fit.
const LEN: usize = 29;
const MIDDLE: usize = 13;
const MOST_LAG: usize = 2;
const CUT: usize = LEN + 2 * MOST_LAG;
/// Samples that are kept: 9 s, for a beat that waited before it was told.
const KEPT: usize = 810;
/// Samples of a block whose energy is kept (0.1 s), and blocks: 12 s.
const BLOCK: u64 = 9;
const BLOCKS: usize = 120;
/// Blocks around two beats that belong to them and not to what lies between.
const OWN_BEFORE: u64 = 2;
const OWN_AFTER: u64 = 3;
/// Between beats the signal is at most this high, over the beats themselves, in the mean of the root of the square.
const MOST_BETWEEN: f32 = 0.5;
/// So many that are above it, and more than are not, are noise.
const LOUD: usize = 3;
/// And beside one that is not repeated at most this.
const QUIET: f32 = 0.3;
/// Slow waves, in hertz from and to, and samples of them: every fourth of the signal, 9 s of which are kept, from 0.18 s before a beat's
/// middle to 0.22 s after it.
const SLOW_HZ: (f64, f64) = (1.0, 15.0);
const SLOW_KEPT: usize = 405;
const SLOW_LEN: usize = 19;
const SLOW_BEFORE: usize = 8;
/// In the mean of the beats near one they are at most so many times as high as the complexes alone: in ventricular runs 1.8 times at most, in
/// compressions of 1.5 mV and more 2.1 and above. A narrow QRS complex has about 1.
const MOST_SLOW: f32 = 2.1;
/// Seconds between beats, in the mean, below which no chest is compressed.
const FAST_INTERVAL: f32 = 0.42;
/// Beyond any lead's voltage, in any unit: a larger sample is taken for this.
const MOST: f64 = 1e6;
/// Seconds that a beat waits for those after it.
const LONGEST_WAIT: f64 = 3.0;
/// Seconds of signal without a clear beat after which that is said.
pub(super) const UNCLEAR_SECONDS: u32 = 10;
const UNCLEAR: u64 = UNCLEAR_SECONDS as u64 * RATE_HZ as u64;
/// Samples of a piece in which no beat is told yet: 2.5 s.
const LISTENED: u64 = 450;
/// Beats that may wait at once.
const MOST_BEATS: usize = BEFORE + NEAR + 8;

/// What is known of a beat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Clearness {
    /// Event time of the beat in microseconds.
    pub at: i64,
    /// Whether it may count.
    pub is_clear: bool,
    /// Whether what lies between it and the one before is quiet: noise may hide beats.
    pub is_quiet_before: bool,
}

/// A beat that is held against others.
#[derive(Clone, Debug)]
struct Watched {
    at: i64,
    /// The sample at which it was told; 0 for one of before a gap.
    told: u64,
    /// What lies between it and the one before over itself; `None` where they are too near.
    between: Option<f32>,
    /// Beats that are like it, and those of its shape that are not.
    same: u32,
    odd: u32,
    /// [`CUT`] samples of each lead.
    shape: Vec<f32>,
    energy: f32,
    /// How high slow waves and the complex are together, and seconds since the beat before, 0 where that is not known.
    slow: f32,
    interval: f32,
}

/// The signal of late, and the beats in it.
#[derive(Clone, Debug)]
pub(super) struct Clarity {
    leads: Vec<Lead>,
    /// Samples of the unbroken signal at [`RATE_HZ`].
    pushed: u64,
    /// Sum of the squares of the block at hand.
    block: f64,
    blocks: Ring,
    beats: VecDeque<Watched>,
    /// How many of them are judged.
    judged: usize,
    last: Option<u64>,
    /// Samples since a beat was clear, without a piece's first and those while the signal was lost.
    unclear: u64,
}

/// The signal of a lead.
#[derive(Clone, Debug)]
struct Lead {
    resampler: Resampler,
    high_pass: Biquad,
    kept: Ring,
    /// See [`SLOW_HZ`].
    slow_pass: (Biquad, Biquad),
    slow: Ring,
}

impl Lead {
    fn new(rate_hz: f64) -> Self {
        Self {
            resampler: Resampler::new(rate_hz),
            high_pass: Biquad::high_pass(BASE_LINE_HZ, RATE_HZ),
            kept: Ring::new(KEPT),
            slow_pass: (Biquad::high_pass(SLOW_HZ.0, RATE_HZ), Biquad::low_pass(SLOW_HZ.1, RATE_HZ)),
            slow: Ring::new(SLOW_KEPT),
        }
    }
}

impl Clarity {
    /// For a signal at this rate, of so many leads, of which so many samples at [`RATE_HZ`] have been.
    pub(super) fn new(rate_hz: f64, leads: usize, pushed: u64) -> Self {
        Self {
            leads: vec![Lead::new(rate_hz); leads.clamp(1, MOST_LEADS)],
            pushed,
            block: 0.0,
            blocks: Ring::new(BLOCKS),
            beats: VecDeque::new(),
            judged: 0,
            last: None,
            unclear: 0,
        }
    }

    /// After a gap the signal begins anew, at this rate. What waits must have been told ([`Clarity::flush`]).
    pub(super) fn restart(&mut self, rate_hz: f64) {
        let beats = std::mem::take(&mut self.beats);
        let (judged, unclear) = (self.judged, self.unclear);
        *self = Self { beats, judged, unclear, ..Self::new(rate_hz, self.leads.len(), 0) };
        self.beats.iter_mut().for_each(|beat| beat.told = 0);
    }

    /// Takes a sample of each lead, and whether the signal is lost; true once there has been no clear beat for [`UNCLEAR_SECONDS`].
    pub(super) fn push(&mut self, samples: &[f64], is_lost: bool) -> bool {
        let was = self.unclear;
        let mut given = [const { Vec::new() }; MOST_LEADS];
        for ((lead, sample), given) in self.leads.iter_mut().zip(samples).zip(&mut given) {
            lead.resampler.push(sample.clamp(-MOST, MOST), given);
        }
        let given = &given[..self.leads.len()];
        for index in 0..given.iter().map(Vec::len).min().unwrap_or(0) {
            let (is_kept, is_slow) = (self.pushed.is_multiple_of(2), self.pushed.is_multiple_of(4));
            for (lead, given) in self.leads.iter_mut().zip(given) {
                let passed = lead.high_pass.next(given[index]);
                if is_kept {
                    lead.kept.push(passed as f32);
                    self.block += passed * passed;
                }
                let slow = lead.slow_pass.1.next(lead.slow_pass.0.next(given[index]));
                if is_slow {
                    lead.slow.push(slow as f32);
                }
            }
            self.pushed += 1;
            if self.pushed.is_multiple_of(2 * BLOCK) {
                self.blocks.push((std::mem::take(&mut self.block) / BLOCK as f64) as f32);
            }
            let is_heard = self.pushed > LISTENED && !is_lost;
            self.unclear = self.unclear.saturating_add(u64::from(is_heard));
        }
        was < UNCLEAR && self.unclear >= UNCLEAR
    }

    /// Takes a beat that was found in what was pushed, with its event time; it is judged later.
    pub(super) fn add(&mut self, beat: &Beat, at: i64) {
        let middle = (beat.at * RATE_HZ).round() as u64;
        let newest = self.pushed.saturating_sub(1) / 2;
        let back = newest.saturating_sub(middle / 2) as usize;
        let cut = |lead: &Lead| -> [f32; CUT] {
            std::array::from_fn(|index| lead.kept.newest((back + MIDDLE + MOST_LAG).saturating_sub(index)))
        };
        let shape: Vec<f32> = self.leads.iter().flat_map(cut).collect();
        let energy = energy(&shape);
        let between = self.last.replace(middle).and_then(|last| self.between(last, middle));
        let between = between.map(|between| (between / energy.max(f32::MIN_POSITIVE)).sqrt());
        let (slow, interval) = (self.slow(middle), beat.interval.map_or(0.0, |interval| interval as f32));
        let mut watched = Watched { at, told: self.pushed, between, same: 0, odd: 0, shape, energy, slow, interval };
        for (distance, other) in (1..=BEFORE).zip(self.beats.iter_mut().rev()) {
            let (same, odd) = alike(&watched, other);
            watched.same += u32::from(same);
            watched.odd += u32::from(odd);
            if distance <= AFTER {
                other.same += u32::from(same);
                other.odd += u32::from(odd);
            }
        }
        self.beats.push_back(watched);
        if self.beats.len() > MOST_BEATS {
            self.beats.pop_front();
            self.judged = self.judged.saturating_sub(1);
        }
    }

    /// The root of the mean square of slow waves around a beat's middle, of all leads together.
    fn slow(&self, middle: u64) -> f32 {
        let back = (self.pushed.saturating_sub(1) / 4).saturating_sub(middle / 4) as usize;
        let of_lead = |lead: &Lead| -> f32 {
            let sample = |index: usize| lead.slow.newest((back + SLOW_BEFORE).saturating_sub(index));
            (0..SLOW_LEN).map(|index| sample(index).powi(2)).sum()
        };
        (self.leads.iter().map(of_lead).sum::<f32>() / SLOW_LEN as f32).sqrt()
    }

    /// The mean square of the signal between two beats, as far back as it is known; `None` where they are too near.
    fn between(&self, last: u64, middle: u64) -> Option<f32> {
        let count = self.pushed / (2 * BLOCK);
        let (from, to) = (last / (2 * BLOCK) + OWN_AFTER, (middle / (2 * BLOCK)).saturating_sub(OWN_BEFORE).min(count));
        let from = from.max(count.saturating_sub(BLOCKS as u64));
        let blocks = (from..to).map(|block| self.blocks.newest((count - 1 - block) as usize));
        (to > from).then(|| blocks.sum::<f32>() / (to - from) as f32)
    }

    /// Appends what is now known of beats, in order of time.
    pub(super) fn ready(&mut self, known: &mut Vec<Clearness>) {
        let longest = (LONGEST_WAIT * RATE_HZ) as u64;
        while let Some(beat) = self.beats.get(self.judged) {
            let is_followed = self.beats.len() - self.judged >= NEAR;
            if !is_followed && self.pushed < beat.told + longest {
                break;
            }
            self.judge(known);
        }
    }

    /// Appends what is known of all: the signal ends.
    pub(super) fn flush(&mut self, known: &mut Vec<Clearness>) {
        while self.judged < self.beats.len() {
            self.judge(known);
        }
    }

    /// Judges the first that waits.
    fn judge(&mut self, known: &mut Vec<Clearness>) {
        let index = self.judged;
        let Some(beat) = self.beats.get(index) else { return };
        let before = index.saturating_sub(NEAR - 1);
        let is_clear = self.is_repeated(before..index + 1)
            && self.is_repeated(index..(index + NEAR).min(self.beats.len()))
            && (beat.same >= REPEATS || self.is_quiet(index))
            && self.is_even(before..(index + NEAR).min(self.beats.len()))
            && !self.is_slow(before..(index + NEAR).min(self.beats.len()));
        let is_quiet_before = beat.between.is_none_or(|between| between < MOST_BETWEEN);
        if is_clear {
            self.unclear = 0;
        }
        known.push(Clearness { at: beat.at, is_clear, is_quiet_before });
        self.judged += 1;
        while self.judged > BEFORE {
            self.beats.pop_front();
            self.judged -= 1;
        }
    }

    /// Whether most of these are repeated.
    fn is_repeated(&self, range: std::ops::Range<usize>) -> bool {
        let count = self.beats.range(range.clone()).filter(|beat| beat.same >= REPEATS).count();
        count as f64 >= MOSTLY * range.len() as f64
    }

    /// Whether these are of one size and little lies between them.
    fn is_even(&self, range: std::ops::Range<usize>) -> bool {
        let near = self.beats.range(range);
        let (same, odd) = near.clone().fold((0, 0), |(same, odd), beat| (same + beat.same, odd + beat.odd));
        let between = near.filter_map(|beat| beat.between);
        let loud = between.clone().filter(|between| *between >= MOST_BETWEEN).count();
        2 * same > odd && (loud < LOUD || 2 * loud <= between.count())
    }

    /// Whether slow waves outweigh the complexes of these.
    fn is_slow(&self, range: std::ops::Range<usize>) -> bool {
        let near = self.beats.range(range);
        let (slow, high) =
            near.clone().fold((0.0, 0.0), |(slow, high), beat| (slow + beat.slow, high + beat.energy.sqrt()));
        let intervals = near.map(|beat| beat.interval).filter(|interval| *interval > 0.0);
        let (sum, count) =
            intervals.fold((0.0, 0.0_f32), |(sum, count), interval| (sum + interval.min(1.5), count + 1.0));
        slow > MOST_SLOW * high && sum >= FAST_INTERVAL * count
    }

    /// Whether one that is not repeated stands alone in quiet.
    fn is_quiet(&self, index: usize) -> bool {
        let mut around = self.beats.range(index..(index + 2).min(self.beats.len()));
        around.all(|beat| beat.between.is_none_or(|between| between < QUIET))
    }
}

impl Clarity {
    /// Appends itself to a snapshot.
    pub(super) fn write(&self, writer: &mut Writer) {
        for lead in &self.leads {
            lead.resampler.write(writer);
            lead.high_pass.write(writer);
            lead.kept.write(writer);
        }
        writer.i64(self.pushed as i64);
        writer.f64(self.block);
        self.blocks.write(writer);
        writer.i64(self.last.map_or(-1, |last| last as i64));
        writer.i64(self.unclear as i64);
        writer.u32(self.judged as u32);
        writer.u32(self.beats.len() as u32);
        for beat in &self.beats {
            writer.i64(beat.at);
            writer.i64(beat.told as i64);
            writer.f32(beat.between.unwrap_or(-1.0));
            writer.u32(beat.same);
            writer.u32(beat.odd);
            beat.shape.iter().for_each(|value| writer.f32(*value));
        }
    }

    /// Reads itself back, for so many leads.
    pub(super) fn read(reader: &mut Reader<'_>, leads: usize) -> Result<Self, ModelError> {
        let mut clarity = Self::new(RATE_HZ, leads, 0);
        for lead in &mut clarity.leads {
            lead.resampler = Resampler::read(reader)?;
            lead.high_pass.read(reader)?;
            lead.kept.read(reader)?;
        }
        let most = u64::MAX >> 1;
        clarity.pushed = reader.index(most)?;
        clarity.block = reader.f64()?;
        clarity.blocks.read(reader)?;
        clarity.last = u64::try_from(reader.i64()?).ok();
        clarity.unclear = reader.index(most)?;
        clarity.judged = reader.count(MOST_BEATS)?;
        for _ in 0..reader.count(MOST_BEATS)? {
            let (at, told) = (reader.i64()?, reader.index(clarity.pushed)?);
            let between = Some(reader.f32()?).filter(|between| *between >= 0.0);
            let (same, odd) = (reader.count(MOST_BEATS)? as u32, reader.count(MOST_BEATS)? as u32);
            let shape = (0..CUT * clarity.leads.len()).map(|_| reader.f32()).collect::<Result<Vec<_>, ModelError>>()?;
            let energy = energy(&shape);
            let (slow, interval) = (0.0, 0.0);
            clarity.beats.push_back(Watched { at, told, between, same, odd, shape, energy, slow, interval });
        }
        if clarity.judged > clarity.beats.len() {
            return Err(reader.damaged("more beats are judged than known"));
        }
        Ok(clarity)
    }

    /// Appends what it knows of slow waves, which stands apart in a snapshot: earlier versions lack it, and nothing is slow there.
    pub(super) fn write_slow(&self, writer: &mut Writer) {
        for lead in &self.leads {
            lead.slow_pass.0.write(writer);
            lead.slow_pass.1.write(writer);
            lead.slow.write(writer);
        }
        for beat in &self.beats {
            writer.f32(beat.slow);
            writer.f32(beat.interval);
        }
    }

    /// Reads that back.
    pub(super) fn read_slow(&mut self, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        for lead in &mut self.leads {
            lead.slow_pass.0.read(reader)?;
            lead.slow_pass.1.read(reader)?;
            lead.slow.read(reader)?;
        }
        for beat in &mut self.beats {
            (beat.slow, beat.interval) = (reader.f32()?, reader.f32()?);
        }
        Ok(())
    }
}

/// Whether two beats have one shape and one size, and whether one shape and another size.
fn alike(one: &Watched, other: &Watched) -> (bool, bool) {
    if one.shape.len() != other.shape.len() {
        return (false, false);
    }
    let (mut most, mut least) = (-1.0_f32, 1.0_f32);
    for lag in 0..=2 * MOST_LAG {
        let correlation = correlation(&one.shape, &other.shape, lag);
        (most, least) = (most.max(correlation), least.min(correlation));
    }
    let size = (one.energy / other.energy.max(f32::MIN_POSITIVE)).sqrt();
    let is_same = most >= ALIKE && SIZES.contains(&size);
    (is_same, !is_same && most.max(-least) >= ALIKE)
}

/// Of the middles of all leads, the second moved by a lag.
fn correlation(one: &[f32], other: &[f32], lag: usize) -> f32 {
    let (mut both, mut left, mut right) = (0.0_f32, 0.0_f32, 0.0_f32);
    for (one, other) in one.chunks_exact(CUT).zip(other.chunks_exact(CUT)) {
        for (a, b) in one[MOST_LAG..][..LEN].iter().zip(&other[lag..][..LEN]) {
            both += a * b;
            left += a * a;
            right += b * b;
        }
    }
    let size = (left * right).sqrt();
    if size > f32::MIN_POSITIVE { both / size } else { 0.0 }
}

/// The mean square over time, of all leads together.
fn energy(shape: &[f32]) -> f32 {
    shape.iter().map(|value| value * value).sum::<f32>() / CUT as f32
}
