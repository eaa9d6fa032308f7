//! What a stream's field looked like some rows ago: the network's inputs, bounded and scale-free.
//!
//! Kept of the past, as differences to the first value:
//! - the last [`GAP`] rows, waiting (of a young stream the later half): the forecast of a row is made from older rows alone, so
//!   an anomaly that lasts cannot become its own excuse;
//! - level `L` and scale `S`: exponential means of the value and of its distance to `L` over [`MEMORY`] rows;
//! - exponential means of the value over 1, 2, 4 … 256 rows;
//! - a daily and a weekly profile: what the value was at this time on earlier days and weeks. A bin learns when its pass is over
//!   (`bin += `[`LEARN`]` · (mean of the pass − bin)`), and how far off the profile has been lately.
//!
//! Inputs are `z = (v − L) / S`, cut to ±[`MOST_Z`], and once more as `sign(z) · ln(1 + |z|)`. Exponential means begin as plain means.

use nearside_schemas::Timestamp;

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Rows between a forecast and the newest row it is made from; half of the rows there are until there are twice as many.
pub const GAP: usize = 24;
/// Rows over which level and scale are averaged.
pub const MEMORY: f64 = 256.0;
/// How much a profile learns from one pass.
pub const LEARN: f64 = 0.4;
/// No normalised value is larger.
pub const MOST_Z: f64 = 20.0;
/// Differences to the first value are cut here so that sums of them stay finite.
const MOST: f64 = 1e30;

/// Rows of the exponential means that are inputs.
const MEANS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
const MICROS_PER_DAY: i64 = 86_400_000_000;
const DAY_BINS: usize = 48;
const WEEK_BINS: usize = 168;
/// Rows over which a profile's signed and absolute errors are averaged.
const PROFILE_BIAS: f64 = 32.0;
const PROFILE_ERROR: f64 = 256.0;

/// Normalised features of one row; each becomes two inputs.
const FEATURES: usize = MEANS.len() + 2 * 5 + 2;
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
    /// Rows taken in, waiting ones among them.
    rows: u32,
    /// Rows that came, newest overwriting oldest.
    waiting: Waiting,
    level: f64,
    spread: f64,
    means: [f64; MEANS.len()],
    day: Profile,
    week: Profile,
}

/// Times in microseconds and values, apart: together each pair would take a third more.
#[derive(Clone, Debug)]
struct Waiting {
    micros: [i64; GAP],
    values: [f32; GAP],
}

impl Waiting {
    const fn at(&self, row: u32) -> (i64, f32) {
        let place = row as usize % GAP;
        (self.micros[place], self.values[place])
    }

    const fn set(&mut self, row: u32, (micros, value): (i64, f32)) {
        let place = row as usize % GAP;
        (self.micros[place], self.values[place]) = (micros, value);
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            origin: 0.0,
            rows: 0,
            waiting: Waiting { micros: [0; GAP], values: [0.0; GAP] },
            level: 0.0,
            spread: 0.0,
            means: [0.0; MEANS.len()],
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

    /// What the value was at this hour of earlier weeks, as a difference to the first one; `None` before that is known for every hour.
    pub fn of_week(&self, time: Timestamp) -> Option<f64> {
        if self.week.known == WEEK_BINS as u32 { self.week.at(self.week.pass_of(time)) } else { None }
    }

    /// Rows that the forecast is made from.
    fn learnt(&self) -> u32 {
        self.rows - (self.rows / 2).min(GAP as u32)
    }

    /// Level and scale of the past. The scale is at least a thousandth of the level: finer is the sensor's last digit.
    pub fn norm(&self) -> Norm {
        let least = 1e-3 * (self.origin + self.level).abs().min(MOST) + 1e-12;
        Norm { level: self.level, scale: self.spread.max(least) }
    }

    /// Appends the [`INPUTS`] of the row at `time`, from the rows that have waited.
    pub fn write_inputs(&self, time: Timestamp, norm: Norm, inputs: &mut Vec<f32>) {
        let mut put = |z: f64| {
            let z = z.clamp(-MOST_Z, MOST_Z) as f32;
            inputs.push(z);
            inputs.push(z.abs().ln_1p().copysign(z));
        };
        let z = |relative: f64| (relative - norm.level) / norm.scale;
        self.means.iter().for_each(|mean| put(z(*mean)));
        for profile in [&self.day, &self.week] {
            let now = profile.at(profile.pass_of(time));
            let next = profile.at(profile.pass_of(time).saturating_add(1)).or(now);
            put(now.map_or(0.0, z));
            put(if now.is_some() { 1.0 } else { 0.0 });
            put(now.map_or(0.0, |_| profile.bias / norm.scale));
            put(now.map_or(0.0, |_| profile.error / norm.scale));
            put(now.and(next).map_or(0.0, z));
        }
        put(self.day.fraction(time));
        put((f64::from(self.learnt()) / 128.0).min(1.0));
    }

    /// Takes a row in; it becomes part of the forecasts when it has waited.
    pub fn learn(&mut self, time: Timestamp, value: f64) {
        if self.rows == 0 {
            self.origin = value;
        }
        let value = self.relative(value);
        let before = self.learnt();
        let oldest = self.waiting.at(before);
        let newest = (time.as_micros(), value as f32);
        let is_first = self.rows == 0;
        self.waiting.set(self.rows, newest);
        self.rows = if self.rows < u32::MAX - GAP as u32 { self.rows + 1 } else { self.rows + 1 - GAP as u32 };
        if self.learnt() != before {
            let (time, value) = if is_first { newest } else { oldest };
            self.absorb(Timestamp::from_micros(time), f64::from(value));
        }
    }

    /// A row has waited long enough.
    fn absorb(&mut self, time: Timestamp, value: f64) {
        let start = 1.0 / f64::from(self.learnt().max(1));
        let rate = start.max(1.0 / MEMORY);
        self.spread += rate * ((value - self.level).abs() - self.spread);
        self.level += rate * (value - self.level);
        for (mean, rows) in self.means.iter_mut().zip(MEANS) {
            *mean += start.max(1.0 / rows) * (value - *mean);
        }
        self.day.learn(time, value);
        self.week.learn(time, value);
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64(self.origin);
        writer.u32(self.rows);
        for (time, value) in self.waiting.micros.into_iter().zip(self.waiting.values) {
            writer.i64(time);
            writer.f32(value);
        }
        writer.f64(self.level);
        writer.f64(self.spread);
        self.means.iter().for_each(|mean| writer.f64(*mean));
        self.day.write(writer);
        self.week.write(writer);
    }

    /// Reads itself back.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut history = Self { origin: reader.f64()?, rows: reader.u32()?, ..Self::default() };
        for at in 0..GAP as u32 {
            let row = (reader.i64()?, reader.f32()?);
            history.waiting.set(at, row);
        }
        history.level = reader.f64()?;
        history.spread = reader.f64()?;
        for mean in &mut history.means {
            *mean = reader.f64()?;
        }
        if history.spread < 0.0 {
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
    /// How many of them are known.
    known: u32,
    /// Which bin since 1970 the current pass is in.
    pass: i64,
    pass_sum: f64,
    pass_rows: u32,
    /// By how much values were above the profile lately.
    bias: f64,
    /// How far off values were.
    error: f64,
}

impl Profile {
    fn new(bins: usize) -> Self {
        let bins = vec![f32::NAN; bins].into_boxed_slice();
        Self { bins, known: 0, pass: 0, pass_sum: 0.0, pass_rows: 0, bias: 0.0, error: 0.0 }
    }

    /// Microseconds of one bin.
    fn width(&self) -> i64 {
        if self.bins.len() == DAY_BINS {
            MICROS_PER_DAY / DAY_BINS as i64
        } else {
            7 * MICROS_PER_DAY / WEEK_BINS as i64
        }
    }

    fn pass_of(&self, time: Timestamp) -> i64 {
        time.as_micros().div_euclid(self.width())
    }

    fn bin(&self, pass: i64) -> usize {
        pass.rem_euclid(self.bins.len() as i64) as usize
    }

    fn at(&self, pass: i64) -> Option<f64> {
        let known = self.bins[self.bin(pass)];
        (!known.is_nan()).then_some(f64::from(known))
    }

    /// How much of its bin is over, 0 to 1.
    fn fraction(&self, time: Timestamp) -> f64 {
        time.as_micros().rem_euclid(self.width()) as f64 / self.width() as f64
    }

    fn learn(&mut self, time: Timestamp, value: f64) {
        let pass = self.pass_of(time);
        if let Some(expected) = self.at(pass) {
            let error = value - expected;
            self.bias += (error - self.bias) / PROFILE_BIAS;
            self.error += (error.abs() - self.error) / PROFILE_ERROR;
        }
        if pass != self.pass {
            self.close_pass();
            self.pass = pass;
        }
        self.pass_sum += value;
        self.pass_rows = self.pass_rows.saturating_add(1);
    }

    fn close_pass(&mut self) {
        if self.pass_rows > 0 {
            let mean = self.pass_sum / f64::from(self.pass_rows);
            let index = self.bin(self.pass);
            let known = self.at(self.pass).unwrap_or_else(|| {
                self.known += 1;
                mean
            });
            self.bins[index] = (known + LEARN * (mean - known)) as f32;
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
        writer.f64(self.bias);
        writer.f64(self.error);
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        for bin in &mut self.bins {
            *bin = if reader.u8()? == 0 { f32::NAN } else { reader.f32()? };
        }
        self.known = self.bins.iter().filter(|bin| !bin.is_nan()).count() as u32;
        self.pass = reader.i64()?;
        self.pass_sum = reader.f64()?;
        self.pass_rows = reader.u32()?;
        self.bias = reader.f64()?;
        self.error = reader.f64()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_HOUR: i64 = 1_800;

    fn inputs(history: &History, secs: i64) -> Vec<f32> {
        let mut inputs = Vec::new();
        history.write_inputs(Timestamp::from_secs(secs), history.norm(), &mut inputs);
        inputs
    }

    #[test]
    fn the_newest_rows_are_not_seen() {
        let (mut calm, mut wild) = (History::default(), History::default());
        for row in 0..200 {
            let value = f64::from(row % 7);
            calm.learn(Timestamp::from_secs(i64::from(row) * 300), value);
            let value = if row >= 200 - GAP as i32 { 1e6 } else { value };
            wild.learn(Timestamp::from_secs(i64::from(row) * 300), value);
        }
        assert_eq!(inputs(&calm, 200 * 300), inputs(&wild, 200 * 300));
        wild.learn(Timestamp::from_secs(200 * 300), 0.0);
        assert_ne!(inputs(&calm, 201 * 300), inputs(&wild, 201 * 300));
    }

    #[test]
    fn the_width_is_the_stated_one_and_every_input_is_finite() {
        let mut history = History::default();
        assert_eq!(inputs(&history, 0).len(), INPUTS);
        for value in [f64::MAX, f64::MIN, 0.0, 1e-300, -1e300].iter().cycle().take(200) {
            history.learn(Timestamp::from_secs(0), *value);
            assert!(inputs(&history, 1).iter().all(|input| input.is_finite()));
        }
    }

    #[test]
    fn a_profile_knows_yesterday() {
        let mut profile = Profile::new(DAY_BINS);
        for half_hour in 0..3 * 48 {
            profile.learn(Timestamp::from_secs(half_hour * HALF_HOUR), (half_hour % 48) as f64);
        }
        let noon = profile.pass_of(Timestamp::from_secs(3 * 86_400 + 43_200));
        assert_eq!(profile.at(noon), Some(24.0));
        assert_eq!((profile.bias, profile.error), (0.0, 0.0));
    }

    #[test]
    fn inputs_do_not_depend_on_unit_and_offset() {
        let (mut one, mut other) = (History::default(), History::default());
        for row in 0..500_i64 {
            let value = ((row * row) % 97) as f64;
            one.learn(Timestamp::from_secs(row * 60), value);
            other.learn(Timestamp::from_secs(row * 60), 5.0 + 8.0 * value);
        }
        let pairs = inputs(&one, 40_000).into_iter().zip(inputs(&other, 40_000));
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-3));
    }
}
