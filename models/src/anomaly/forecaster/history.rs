//! What a stream's field looked like before a row: the network's inputs, bounded and scale-free.
//!
//! Kept of the past, as differences to the first value so that 32 bits are enough:
//! - level `L` and scale `S`: exponential means of the value and of its distance to `L` over [`MEMORY`] rows (shorter at the start);
//! - the means of the last [`BLOCKS`] blocks of [`BLOCK`] rows;
//! - a daily and a weekly profile: what the value was at this time on earlier days and weeks. A bin learns when its pass
//!   is over (`bin += `[`LEARN`]` · (mean of the pass − bin)`), so the present never explains itself;
//! - how far the last rows were from each profile, as exponential means over 8 and 64 rows.
//!
//! Inputs are `z = (v − L) / S`, cut to ±[`MOST_Z`], and once more as `sign(z) · ln(1 + |z|)`. The newest [`GAP`] blocks are left
//! out: the forecast is made from older rows, so an anomaly that lasts cannot become its own excuse.

use nearside_schemas::Timestamp;

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Rows of a block.
pub const BLOCK: u8 = 8;
/// Blocks that are kept.
pub const BLOCKS: usize = 16;
/// The newest blocks, which the network does not see.
pub const GAP: usize = 2;
/// Rows over which level and scale are averaged.
pub const MEMORY: f64 = 128.0;
/// How much a profile learns from one pass.
pub const LEARN: f32 = 0.5;
/// No normalised value is larger.
pub const MOST_Z: f32 = 20.0;
/// Differences to the first value are cut here so that sums of them stay finite.
const MOST: f64 = 1e30;

const MICROS_PER_DAY: i64 = 86_400_000_000;
const DAY_BINS: usize = 48;
const WEEK_BINS: usize = 168;

/// Normalised features of one row; each becomes two inputs.
const FEATURES: usize = BLOCKS - GAP + 2 * 5 + 2;
/// Width of the network's input.
pub const INPUTS: usize = 2 * FEATURES;

/// Level and scale that a row's inputs and outputs are relative to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// What is subtracted.
    pub level: f64,
    /// What is divided by; positive.
    pub scale: f64,
}

/// The past of one field.
#[derive(Clone, Debug)]
pub struct History {
    origin: f64,
    rows: u32,
    level: f64,
    spread: f64,
    blocks: [f32; BLOCKS],
    next_block: u8,
    block_sum: f64,
    block_rows: u8,
    day: Profile,
    week: Profile,
}

impl Default for History {
    fn default() -> Self {
        Self {
            origin: 0.0,
            rows: 0,
            level: 0.0,
            spread: 0.0,
            blocks: [0.0; BLOCKS],
            next_block: 0,
            block_sum: 0.0,
            block_rows: 0,
            day: Profile::new(DAY_BINS),
            week: Profile::new(WEEK_BINS),
        }
    }
}

impl History {
    /// The value as a difference to the first one, in which everything here is measured.
    pub fn relative(&self, value: f64) -> f64 {
        if self.rows == 0 { 0.0 } else { (value - self.origin).clamp(-MOST, MOST) }
    }

    /// The first value.
    pub const fn origin(&self) -> f64 {
        self.origin
    }

    /// Rows so far.
    pub const fn rows(&self) -> u32 {
        self.rows
    }

    /// Level and scale of the past. The scale is at least a thousandth of the level: finer is the sensor's last digit.
    pub fn norm(&self) -> Norm {
        let least = 1e-3 * (self.origin + self.level).abs().min(MOST) + 1e-30;
        Norm { level: self.level, scale: self.spread.max(least) }
    }

    /// Appends the [`INPUTS`] of the row at `time`, from the rows before it alone.
    pub fn write_inputs(&self, time: Timestamp, norm: Norm, inputs: &mut Vec<f32>) {
        let z = |relative: f64| (((relative - norm.level) / norm.scale) as f32).clamp(-MOST_Z, MOST_Z);
        let mut put = |z: f32| {
            inputs.push(z);
            inputs.push(z.abs().ln_1p().copysign(z));
        };
        for back in GAP..BLOCKS {
            let index = (usize::from(self.next_block) + 2 * BLOCKS - 1 - back) % BLOCKS;
            put(if self.is_block_known(back) { z(f64::from(self.blocks[index])) } else { 0.0 });
        }
        for profile in [&self.day, &self.week] {
            let expected = profile.at(time);
            put(expected.map_or(0.0, |expected| z(f64::from(expected))));
            put(if expected.is_some() { 1.0 } else { 0.0 });
            for error in [profile.error_8, profile.error_64] {
                put((error / norm.scale as f32).clamp(-MOST_Z, MOST_Z));
            }
            let next = profile.at(Timestamp::from_micros(time.as_micros().saturating_add(profile.width())));
            put(next.map_or(0.0, |next| z(f64::from(next))));
        }
        put(self.day.fraction(time));
        put((self.rows as f32 / MEMORY as f32).min(1.0));
    }

    fn is_block_known(&self, back: usize) -> bool {
        self.rows as usize / usize::from(BLOCK) > back
    }

    /// Takes a row in. Afterwards it belongs to the past.
    pub fn learn(&mut self, time: Timestamp, value: f64) {
        if self.rows == 0 {
            self.origin = value;
        }
        let value = self.relative(value);
        self.rows = self.rows.saturating_add(1);
        let rate = (1.0 / MEMORY).max(1.0 / f64::from(self.rows));
        self.spread += rate * ((value - self.level).abs() - self.spread);
        self.level += rate * (value - self.level);
        self.block_sum += value;
        self.block_rows += 1;
        if self.block_rows == BLOCK {
            self.blocks[usize::from(self.next_block)] = (self.block_sum / f64::from(BLOCK)) as f32;
            self.next_block = (self.next_block + 1) % BLOCKS as u8;
            self.block_sum = 0.0;
            self.block_rows = 0;
        }
        self.day.learn(time, value);
        self.week.learn(time, value);
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64(self.origin);
        writer.u32(self.rows);
        writer.f64(self.level);
        writer.f64(self.spread);
        self.blocks.iter().for_each(|block| writer.f32(*block));
        writer.u8(self.next_block);
        writer.f64(self.block_sum);
        writer.u8(self.block_rows);
        self.day.write(writer);
        self.week.write(writer);
    }

    /// Reads itself back.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut history = Self { origin: reader.f64()?, rows: reader.u32()?, ..Self::default() };
        history.level = reader.f64()?;
        history.spread = reader.f64()?;
        for block in &mut history.blocks {
            *block = reader.f32()?;
        }
        history.next_block = reader.u8()?;
        history.block_sum = reader.f64()?;
        history.block_rows = reader.u8()?;
        if usize::from(history.next_block) >= BLOCKS || history.block_rows >= BLOCK || history.spread < 0.0 {
            return Err(reader.damaged("a number is out of range"));
        }
        history.day.read(reader)?;
        history.week.read(reader)?;
        Ok(history)
    }
}

/// What a value was at the same time of earlier days (30-minute bins) or weeks (1-hour bins).
#[derive(Clone, Debug)]
struct Profile {
    /// NaN where nothing is known yet.
    bins: Box<[f32]>,
    /// Which bin since 1970 the current pass is in.
    pass: i64,
    pass_sum: f64,
    pass_rows: u32,
    error_8: f32,
    error_64: f32,
}

impl Profile {
    fn new(bins: usize) -> Self {
        let bins = vec![f32::NAN; bins].into_boxed_slice();
        Self { bins, pass: 0, pass_sum: 0.0, pass_rows: 0, error_8: 0.0, error_64: 0.0 }
    }

    /// Microseconds of one bin.
    fn width(&self) -> i64 {
        if self.bins.len() == DAY_BINS {
            MICROS_PER_DAY / DAY_BINS as i64
        } else {
            7 * MICROS_PER_DAY / WEEK_BINS as i64
        }
    }

    fn bin(&self, pass: i64) -> usize {
        pass.rem_euclid(self.bins.len() as i64) as usize
    }

    fn at(&self, time: Timestamp) -> Option<f32> {
        let known = self.bins[self.bin(time.as_micros().div_euclid(self.width()))];
        (!known.is_nan()).then_some(known)
    }

    /// How much of its bin is over, 0 to 1.
    fn fraction(&self, time: Timestamp) -> f32 {
        time.as_micros().rem_euclid(self.width()) as f32 / self.width() as f32
    }

    fn learn(&mut self, time: Timestamp, value: f64) {
        let pass = time.as_micros().div_euclid(self.width());
        if pass != self.pass {
            self.close_pass();
            self.pass = pass;
        }
        let error = self.at(time).map_or(0.0, |expected| value as f32 - expected);
        self.error_8 += 2.0 / 9.0 * (error - self.error_8);
        self.error_64 += 2.0 / 65.0 * (error - self.error_64);
        self.pass_sum += value;
        self.pass_rows = self.pass_rows.saturating_add(1);
    }

    fn close_pass(&mut self) {
        if self.pass_rows > 0 {
            let mean = (self.pass_sum / f64::from(self.pass_rows)) as f32;
            let index = self.bin(self.pass);
            let bin = &mut self.bins[index];
            *bin = if bin.is_nan() { mean } else { *bin + LEARN * (mean - *bin) };
        }
        self.pass_sum = 0.0;
        self.pass_rows = 0;
    }

    fn write(&self, writer: &mut Writer) {
        for bin in &self.bins {
            writer.u8(u8::from(!bin.is_nan()));
            if !bin.is_nan() {
                writer.f32(*bin);
            }
        }
        writer.i64(self.pass);
        writer.f64(self.pass_sum);
        writer.u32(self.pass_rows);
        writer.f32(self.error_8);
        writer.f32(self.error_64);
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        for bin in &mut self.bins {
            *bin = if reader.u8()? == 0 { f32::NAN } else { reader.f32()? };
        }
        self.pass = reader.i64()?;
        self.pass_sum = reader.f64()?;
        self.pass_rows = reader.u32()?;
        self.error_8 = reader.f32()?;
        self.error_64 = reader.f32()?;
        Ok(())
    }
}
