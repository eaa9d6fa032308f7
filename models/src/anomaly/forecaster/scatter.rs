//! How much a field scatters from row to row, and that it has come to scatter otherwise and stays so.
//!
//! The absolute differences of successive values are averaged over blocks of [`ROWS`] rows, each difference cut at [`CUT`] usual ones: a
//! single jump is no scatter. A level or a rhythm that is slow next to the rows does not touch them. Blocks are held against the highest
//! and the lowest that there were, by their `log2`, so that what a field does by night and by day is both usual.
//!
//! A change is a mean of the last blocks that lies clearly beyond all those before them: of the last [`PENDING`], or of the last [`SOON`]
//! where more scatter explains an alarm. Without an alarm it takes [`KNOWN_BLOCKS`] blocks and two days before that, less scatter
//! too: a night must have been seen.
//!
//! Promise: what was told is usual from then on. Never: a change for blocks most rows of which repeat the value before.

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Rows of a block.
pub const ROWS: u32 = 16;
/// Blocks that are held against those before them, and how many of them are enough after an alarm.
const PENDING: usize = 4;
const SOON: usize = 2;
/// A difference counts for as many usual ones at most.
const CUT: f64 = 6.0;
/// Blocks before a change may explain an alarm, and before one is told without any.
const WARM_UP: u32 = 8;
const KNOWN_BLOCKS: u32 = 64;
const KNOWN_MICROS: i64 = 2 * 86_400 * 1_000_000;
/// By how many octaves a change exceeds all blocks before it, and usual ones.
const ABOVE: f32 = 0.3;
const BELOW: f32 = 0.5;
const LEAST: f32 = 1.0;
/// So much more or less than what was told is not told: the first blocks of a change, and cut differences, show only part of it.
const AGAIN: f32 = 1.5;
/// Blocks over which usual scatter is averaged, and the farthest that one is from it for that.
const MEMORY: f32 = 256.0;
const FAR: f32 = 0.5;
/// Extremes fade over so many blocks or so long a time, whichever is longer, and move by at most so much a block.
const FADING_BLOCKS: f64 = 512.0;
const FADING_MICROS: f64 = 14.0 * 86_400.0 * 1e6;
const STEP: f32 = 0.1;
/// No octave is farther: differences of finite values.
const MOST_OCTAVES: f32 = 2_000.0;

/// Blocks of one field.
#[derive(Clone, Debug, Default)]
pub struct Scatter {
    last: f64,
    /// When the first row came, and the first of the block.
    first: i64,
    began: i64,
    /// Differences in the block under way, their sum and how many of them are not 0.
    rows: u32,
    sum: f64,
    moved: u32,
    has_last: bool,
    /// Blocks that were learnt.
    blocks: u32,
    /// `log2` of usual scatter, and of the most and the least of a block.
    usual: f32,
    highest: f32,
    lowest: f32,
    /// The last blocks, not learnt yet, the newest last.
    pending: [f32; PENDING],
    waiting: u32,
}

impl Scatter {
    /// Takes a value in; where a block is over, how many times as much as usual the last ones scatter if that is a change.
    /// `explains`: whether an alarm goes on.
    pub fn take(&mut self, micros: i64, value: f64, explains: bool) -> Option<f64> {
        let difference = (value - std::mem::replace(&mut self.last, value)).abs();
        if !std::mem::replace(&mut self.has_last, true) {
            (self.first, self.began) = (micros, micros);
            return None;
        }
        let most = if self.blocks > 0 { CUT * f64::from(self.usual).exp2() } else { f64::MAX };
        self.rows += 1;
        self.sum += difference.min(most).min(f64::MAX / f64::from(ROWS));
        self.moved += u32::from(difference > 0.0);
        if self.rows < ROWS {
            return None;
        }
        let (mean, moved) = (self.sum / f64::from(ROWS), self.moved);
        let took = micros.saturating_sub(self.began).max(0) as f64;
        (self.rows, self.sum, self.moved, self.began) = (0, 0.0, 0, micros);
        if 2 * moved < ROWS {
            self.waiting = 0;
            return None;
        }
        self.close((mean.log2() as f32).clamp(-MOST_OCTAVES, MOST_OCTAVES), took);
        let is_known = self.blocks >= KNOWN_BLOCKS && micros.saturating_sub(self.first) >= KNOWN_MICROS;
        self.change(explains, is_known)
    }

    /// A block is over.
    fn close(&mut self, octaves: f32, took: f64) {
        let waiting = self.waiting as usize;
        if waiting < PENDING {
            self.pending[waiting] = octaves;
            self.waiting += 1;
            return;
        }
        let oldest = self.pending[0];
        self.pending.copy_within(1.., 0);
        self.pending[PENDING - 1] = octaves;
        self.learn(oldest, took);
    }

    fn learn(&mut self, octaves: f32, took: f64) {
        self.blocks = self.blocks.saturating_add(1);
        if self.blocks == 1 {
            (self.usual, self.highest, self.lowest) = (octaves, octaves, octaves);
            return;
        }
        let far = if self.blocks < WARM_UP { f32::MAX } else { FAR };
        let rate = (1.0 / MEMORY).max(1.0 / self.blocks as f32);
        self.usual += rate * (octaves - self.usual).clamp(-far, far);
        let fading = (1.0 / FADING_BLOCKS).min(took / FADING_MICROS) as f32;
        let step = if self.blocks < KNOWN_BLOCKS { f32::MAX } else { STEP };
        self.highest += (octaves - self.highest).clamp(fading * (self.usual - self.highest).min(0.0), step);
        self.lowest += (octaves - self.lowest).clamp(-step, fading * (self.usual - self.lowest).max(0.0));
    }

    fn change(&mut self, explains: bool, is_known: bool) -> Option<f64> {
        let last = |count: usize| {
            let from = (self.waiting as usize).checked_sub(count)?;
            Some(&self.pending[from..self.waiting as usize])
        };
        let mean = |blocks: &[f32]| blocks.iter().sum::<f32>() / blocks.len() as f32;
        let is_more = |blocks: &&[f32]| {
            let least = (self.highest + ABOVE).max(self.usual + LEAST);
            mean(blocks) > least && blocks.iter().all(|block| *block > self.highest)
        };
        let is_less = |blocks: &&[f32]| {
            let most = (self.lowest - BELOW).min(self.usual - LEAST);
            mean(blocks) < most && blocks.iter().all(|block| *block < self.lowest)
        };
        let soon = if explains && self.blocks >= WARM_UP { last(SOON).filter(is_more) } else { None };
        let late = if is_known { last(PENDING).filter(|blocks| is_more(blocks) || is_less(blocks)) } else { None };
        let now = mean(soon.or(late)?);
        let times = f64::from(now - self.usual).exp2();
        self.usual = now;
        if times > 1.0 {
            self.highest = self.highest.max(now + AGAIN);
        } else {
            self.lowest = self.lowest.min(now - AGAIN);
        }
        self.waiting = 0;
        Some(times)
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64(self.last);
        writer.i64(self.first);
        writer.i64(self.began);
        writer.u32(self.rows);
        writer.f64(self.sum);
        writer.u32(self.moved);
        writer.u8(u8::from(self.has_last));
        writer.u32(self.blocks);
        [self.usual, self.highest, self.lowest].into_iter().for_each(|octaves| writer.f32(octaves));
        self.pending.into_iter().for_each(|octaves| writer.f32(octaves));
        writer.u32(self.waiting);
    }

    /// Reads itself back.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut scatter = Self {
            last: reader.f64()?,
            first: reader.i64()?,
            began: reader.i64()?,
            rows: reader.count(ROWS as usize - 1)? as u32,
            sum: reader.f64()?,
            moved: reader.count(ROWS as usize - 1)? as u32,
            has_last: reader.u8()? == 1,
            blocks: reader.u32()?,
            ..Self::default()
        };
        let mut octaves = || {
            let octaves = reader.f32()?;
            if octaves.abs() <= MOST_OCTAVES { Ok(octaves) } else { Err(reader.damaged("a number is out of range")) }
        };
        (scatter.usual, scatter.highest, scatter.lowest) = (octaves()?, octaves()?, octaves()?);
        for block in &mut scatter.pending {
            *block = octaves()?;
        }
        scatter.waiting = reader.count(PENDING)? as u32;
        Ok(scatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;
    /// Two days and some hours.
    const KNOWN: usize = 3_200;

    /// Not random: -1 to 1.
    fn noise(row: usize) -> f64 {
        let mixed = (row as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / (1 << 23) as f64 - 1.0
    }

    /// Rows from `KNOWN` on at which a change is told, and how large.
    fn told(value: impl Fn(usize) -> f64, explains: bool) -> Vec<(usize, f64)> {
        let mut scatter = Scatter::default();
        let mut take = |row: usize| scatter.take(row as i64 * MINUTE, value(row), explains && row >= KNOWN);
        (0..2 * KNOWN).filter_map(|row| take(row).map(|times| (row.saturating_sub(KNOWN), times))).collect()
    }

    #[test]
    fn more_is_told_after_two_blocks_of_an_alarm_or_four_without_and_less_after_four() {
        for (times, explains, within) in [(4.0, true, 48), (4.0, false, 80), (0.15, true, 80), (0.15, false, 80)] {
            let value = |row: usize| if row >= KNOWN { times * noise(row) } else { noise(row) };
            let found = told(value, explains);
            let is_right = |found: &[(usize, f64)]| matches!(found, [(row, seen)] if *row < within && (0.5..2.0).contains(&(seen / times)));
            assert!(is_right(&found), "{times} {explains}: {found:?}");
        }
    }

    #[test]
    fn a_level_a_wave_one_value_and_the_nights_are_no_change() {
        let is_after = |row: usize| row >= KNOWN;
        let wave = |row: usize| if is_after(row) { 30.0 * (row as f64 / 200.0).sin() } else { 0.0 };
        assert_eq!(told(|row| noise(row) + if is_after(row) { 50.0 } else { 0.0 }, true), []);
        assert_eq!(told(|row| noise(row) + wave(row), true), []);
        assert_eq!(told(|row| if is_after(row) { 1.0 } else { noise(row) }, true), [], "a dead sensor");
        assert_eq!(told(|row| noise(row) * if row % 1_440 < 720 { 0.2 } else { 1.0 }, true), [], "nights");
        assert_eq!(told(|row| if row % 50 == 0 { 9.0 } else { 0.0 }, true), [], "a step now and then");
    }

    #[test]
    fn any_numbers_are_borne() {
        let mut scatter = Scatter::default();
        for row in 0..400 {
            let value = [1e30, -1e30, 5e-324, 0.0, 1e300, f64::MIN_POSITIVE][row % 6];
            scatter.take(-(row as i64) * (i64::MAX / 500), value, true);
            let mut writer = Writer::new(1);
            scatter.write(&mut writer);
            assert!(Scatter::read(&mut Reader::new("scatter", 1, &writer.finish()).unwrap()).is_ok());
        }
    }
}
