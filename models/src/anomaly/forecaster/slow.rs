//! What changes too slowly for the error of any one row to stand out, and what is not there at all.
//!
//! Where the hour of the week says what a value should be, the differences to that are averaged over blocks of [`BLOCK_MICROS`]. From block to
//! block they move a little, by chance. `drift`: they move in one direction, block after block. `changed_season`: they move as the
//! day itself does, so that the day has become flatter, steeper or another. Which of these two explains the last [`BLOCKS`] moves clearly
//! better decides. What moves by less from block to block is a `drift` where a straight line goes through a day of blocks, or through four days
//! ([`super::trend`]). `level_shift`: they are steady, and far from where they were steady some hours ago, though no row stood out.
//!
//! (A whole week is waited for: on a first Saturday much goes another way.)
//!
//! `missing` is told by the row that comes after a gap: longer than a stream's pace and its own past make usual.
//!
//! Promise: each is told once an incident, and what has become usual is not told. Never: before a whole week is known.

use super::trend::Trend;
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Time that a block covers at least.
const BLOCK_MICROS: i64 = 80 * 60 * 1_000_000;
/// Rows in a block at least.
const BLOCK_ROWS: u32 = 4;
/// Moves from block to block that are looked at for a season; of a drift the last [`DRIFT`].
const BLOCKS: usize = 6;
const DRIFT: usize = 4;
/// Blocks before anything is told.
const WARM_UP: u32 = 24;
/// Rate at which the size of usual moves is learnt, and the largest that is learnt from, in such sizes.
const RATE: f32 = 1.0 / 48.0;
const CUT: f32 = 3.0;
/// No move of a drift is more than this share of them all.
const LARGEST: f32 = 0.6;
/// Each move of a drift is as large as this many usual ones, and those of a season are in the mean square.
const EACH: f32 = 1.5;
const SEASON: f32 = 3.0;
/// Share of the moves' squares that may be left unexplained by the season.
const UNEXPLAINED: f32 = 0.35;
/// Another level is so many usual moves away, and before and after differ by at most this share of that.
const LEVEL: f32 = 5.0;
const STEADY: f32 = 0.35;
/// One leaves at most this share unexplained of what the other does; else it is waited for.
const CLEARLY: f32 = 0.5;
/// Blocks for which it stays quiet after it told something: three days.
const QUIET: u32 = 54;
/// Blocks after which all that are looked at are of a level that came before them.
pub const LEVEL_KNOWN: u32 = BLOCKS as u32 + 2;
/// Blocks of a point of the longer trend, and blocks for which a trend must be over to be told again.
const PER_POINT: u32 = 4;
const TREND_OVER: u32 = 36;

/// What was noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The field moves away in one direction.
    Drift,
    /// The field does not follow the day as it used to.
    Season,
    /// The field is at another level.
    Level,
}

fn sum(moves: &[(f32, f32)], of: fn(&(f32, f32)) -> f32) -> f32 {
    moves.iter().map(of).sum()
}

/// Blocks of one field.
#[derive(Clone, Debug, Default)]
pub struct Slow {
    /// When the block under way began.
    began: i64,
    rows: u32,
    difference: f64,
    expected: f64,
    /// Means of the last blocks: difference to what was expected, and that. The newest last.
    blocks: [(f32, f32); BLOCKS + 1],
    /// How many blocks there were.
    count: u32,
    /// The size of a usual move.
    usual: f32,
    /// Blocks for which it is quiet, but for a season after what is no season and a drift after a level.
    quiet: u32,
    told_other: bool,
    told_level: bool,
    trends: Trends,
}

impl Slow {
    /// How many blocks there were.
    pub const fn blocks(&self) -> u32 {
        self.count
    }

    /// Takes a value that should have been `expected` by the hour of the week.
    pub fn take(&mut self, micros: i64, value: f64, expected: f64) -> Option<Kind> {
        if self.rows == 0 {
            self.began = micros;
        }
        let is_over = micros.saturating_sub(self.began) >= BLOCK_MICROS && self.rows >= BLOCK_ROWS;
        let told = if is_over { self.close(micros) } else { None };
        self.rows = self.rows.saturating_add(1);
        self.difference += value - expected;
        self.expected += expected;
        told
    }

    fn close(&mut self, micros: i64) -> Option<Kind> {
        let rows = f64::from(self.rows);
        let block = ((self.difference / rows) as f32, (self.expected / rows) as f32);
        (self.began, self.rows, self.difference, self.expected) = (micros, 0, 0.0, 0.0);
        self.blocks.copy_within(1.., 0);
        self.blocks[BLOCKS] = block;
        self.count = self.count.saturating_add(1);
        self.quiet = self.quiet.saturating_sub(1);
        let kind = if self.count >= WARM_UP { self.kind() } else { None };
        // What looked like a drift in the morning may turn out to be another day, and what looked like another level a drift.
        let kind = kind.filter(|kind| self.quiet == 0 || (self.told_other && *kind == Kind::Season));
        let kind = kind.filter(|kind| *kind != Kind::Drift || self.trends.told == 0);
        let may_drift = kind.is_none() && (self.quiet == 0 || self.told_level);
        let drifts = self.trends.take(block.0, may_drift, kind == Some(Kind::Drift));
        let kind = kind.or(drifts.then_some(Kind::Drift));
        if let Some(kind) = kind {
            (self.quiet, self.told_other, self.told_level) = (QUIET, kind != Kind::Season, kind == Kind::Level);
        }
        self.learn();
        kind
    }

    fn moves(&self) -> [(f32, f32); BLOCKS] {
        std::array::from_fn(|at| {
            let (before, after) = (self.blocks[at], self.blocks[at + 1]);
            (after.0 - before.0, after.1 - before.1)
        })
    }

    fn kind(&self) -> Option<Kind> {
        let moves = self.moves();
        let squares = sum(&moves, |m| m.0 * m.0);
        let (days, both) = (sum(&moves, |m| m.1 * m.1), sum(&moves, |m| m.0 * m.1));
        // What is left of the moves where they are a share of the day's, and where they are all alike, from some move on.
        let by_season = if days > 0.0 { squares - both * both / days } else { squares };
        let by_drift = (0..=BLOCKS - DRIFT).map(|begin| {
            let (before, since) = moves.split_at(begin);
            let alike = sum(since, |m| m.0).powi(2) / since.len() as f32;
            sum(before, |m| m.0 * m.0) + sum(since, |m| m.0 * m.0) - alike
        });
        let by_drift = by_drift.fold(squares, f32::min);
        let least = BLOCKS as f32 * (SEASON * self.usual).powi(2);
        let moves_by_day = days > least;
        if squares > least && moves_by_day && by_season < UNEXPLAINED * squares && by_season < CLEARLY * by_drift {
            return Some(Kind::Season);
        }
        if self.has_another_level() {
            return Some(Kind::Level);
        }
        let last = &moves[BLOCKS - DRIFT..];
        let is_one_way = |sign: f32| last.iter().all(|(step, _)| sign * step > EACH * self.usual);
        let is_even = {
            let steps = last.iter().map(|(step, _)| step.abs());
            let most = steps.clone().fold(0.0, f32::max);
            most < LARGEST * steps.sum::<f32>()
        };
        let is_clear = !moves_by_day || by_drift < CLEARLY * by_season;
        let is_drift = self.usual > 0.0 && is_even && is_clear && (is_one_way(1.0) || is_one_way(-1.0));
        is_drift.then_some(Kind::Drift)
    }

    /// Whether the last three blocks are alike, the first three too, and far from them; the one between may be partly either.
    fn has_another_level(&self) -> bool {
        let half = BLOCKS / 2;
        let of = |blocks: &[(f32, f32)]| {
            let (least, most) = blocks.iter().fold((f32::MAX, f32::MIN), |(least, most), (difference, _)| {
                (least.min(*difference), most.max(*difference))
            });
            (least + most, most - least)
        };
        let ((before, before_range), (after, after_range)) = (of(&self.blocks[..half]), of(&self.blocks[half + 1..]));
        let step = 0.5 * (after - before).abs();
        self.usual > 0.0 && step > LEVEL * self.usual && before_range.max(after_range) < STEADY * step
    }

    fn learn(&mut self) {
        if self.count < 2 {
            return;
        }
        let step = self.moves()[BLOCKS - 1].0.abs();
        let rate = RATE.max(1.0 / (self.count - 1) as f32);
        let step = if self.count > WARM_UP / 2 { step.min(CUT * self.usual) } else { step };
        self.usual += rate * (step - self.usual);
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.i64(self.began);
        writer.u32(self.rows);
        writer.f64(self.difference);
        writer.f64(self.expected);
        for (difference, expected) in self.blocks {
            writer.f32(difference);
            writer.f32(expected);
        }
        writer.u32(self.count);
        writer.f32(self.usual);
        writer.u32(self.quiet);
        writer.u8(u8::from(self.told_other) | u8::from(self.told_level) << 1);
        self.trends.write(writer);
    }

    /// Reads itself back, from a snapshot of this version of the model's.
    pub(crate) fn read(reader: &mut Reader<'_>, version: u8) -> Result<Self, ModelError> {
        let mut slow = Self { began: reader.i64()?, rows: reader.u32()?, ..Self::default() };
        (slow.difference, slow.expected) = (reader.f64()?, reader.f64()?);
        for block in &mut slow.blocks {
            *block = (reader.f32()?, reader.f32()?);
        }
        (slow.count, slow.usual, slow.quiet) = (reader.u32()?, reader.f32()?, reader.u32()?);
        let told = reader.u8()?;
        (slow.told_other, slow.told_level) = (told & 1 == 1, told & 2 == 2);
        if version >= 4 {
            slow.trends = Trends::read(reader)?;
        }
        Ok(slow)
    }
}

/// Lines through blocks: a day of them, and four days.
#[derive(Clone, Debug, Default)]
struct Trends {
    day: Trend,
    days: Trend,
    /// Blocks of the point of `days` under way and their sum.
    blocks: u32,
    sum: f32,
    /// Blocks until a trend is over that was told.
    told: u32,
}

impl Trends {
    /// Takes a block in; whether there is a drift to tell, where it may be told. `is_told`: it was told otherwise.
    fn take(&mut self, difference: f32, may_tell: bool, is_told: bool) -> bool {
        let mut drifts = self.day.take(difference);
        self.blocks += 1;
        self.sum += difference;
        if self.blocks >= PER_POINT {
            drifts |= self.days.take(self.sum / self.blocks as f32);
            (self.blocks, self.sum) = (0, 0.0);
        }
        let is_new = drifts && may_tell && self.told == 0;
        let goes_on = is_new || is_told || (drifts && self.told > 0);
        self.told = if goes_on { TREND_OVER } else { self.told.saturating_sub(1) };
        is_new
    }

    fn write(&self, writer: &mut Writer) {
        self.day.write(writer);
        self.days.write(writer);
        writer.u32(self.blocks);
        writer.f32(self.sum);
        writer.u32(self.told);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let (day, days) = (Trend::read(reader)?, Trend::read(reader)?);
        let blocks = reader.count(PER_POINT as usize)? as u32;
        Ok(Self { day, days, blocks, sum: reader.f32()?, told: reader.count(TREND_OVER as usize)? as u32 })
    }
}

/// A gap is as long as this many usual intervals at least.
const GAP_INTERVALS: f64 = 20.0;
/// A gap is as long as this many times the longest before.
const GAP_TIMES: f64 = 2.0;
/// The longest gap is forgotten by this much a row.
const GAP_FADES: f64 = 0.9995;
/// Rows before gaps are told.
const GAP_WARM_UP: u32 = 32;

/// The time between rows of one field.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gaps {
    last: i64,
    rows: u32,
    /// Seconds, fading.
    longest: f64,
}

impl Gaps {
    /// Takes a row's time; `usual` are the seconds between rows so far. Gives back how many seconds there was nothing where there should
    /// have been something.
    pub fn take(&mut self, micros: i64, usual: f64) -> Option<f64> {
        let gap = micros.saturating_sub(self.last) as f64 / 1e6;
        self.last = micros;
        self.rows = self.rows.saturating_add(1);
        if self.rows == 1 || gap < 0.0 {
            return None;
        }
        let is_told = self.rows > GAP_WARM_UP && gap > GAP_INTERVALS * usual && gap > GAP_TIMES * self.longest;
        self.longest = gap.max(GAP_FADES * self.longest);
        is_told.then_some(gap)
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.i64(self.last);
        writer.u32(self.rows);
        writer.f64(self.longest);
    }

    /// Reads itself back.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        Ok(Self { last: reader.i64()?, rows: reader.u32()?, longest: reader.f64()?.max(0.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_MINUTES: i64 = 300_000_000;
    const DAY: usize = 288;

    /// Not random, and without a rhythm.
    fn noise(row: usize) -> f64 {
        let mixed = (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / (1 << 23) as f64 - 1.0
    }

    fn day(row: usize) -> f64 {
        5.0 * (std::f64::consts::TAU * row as f64 / DAY as f64).sin()
    }

    /// What is told of twenty days, each with its row; `value` of a row and what its day would have it.
    fn told(value: impl Fn(usize, f64) -> f64) -> Vec<(usize, Kind)> {
        let mut slow = Slow::default();
        let rows = (0..20 * DAY).filter_map(|row| {
            let told = slow.take(row as i64 * FIVE_MINUTES, value(row, day(row)) + noise(row), day(row));
            told.map(|kind| (row, kind))
        });
        rows.collect()
    }

    #[test]
    fn an_ordinary_day_is_neither() {
        assert_eq!(told(|_, day| day), []);
        assert_eq!(told(|row, day| if row == 4_000 { 60.0 } else { day }), [], "one row far off");
    }

    #[test]
    fn another_level_is_told_once() {
        for row in [4_000, 4_007] {
            let told = told(|at, day| if at >= row { day + 3.0 } else { day });
            assert!(matches!(told[..], [(at, Kind::Level)] if (row..row + DAY / 2).contains(&at)), "{row}: {told:?}");
        }
    }

    #[test]
    fn what_moves_one_way_drifts() {
        for slope in [0.05, -0.03] {
            let told = told(|row, day| day + slope * row.saturating_sub(4_000) as f64);
            let is_right = |(row, kind): &(usize, Kind)| *kind == Kind::Drift && (4_000..4_000 + DAY).contains(row);
            assert!(told.first().is_some_and(is_right), "{slope}: {told:?}");
        }
    }

    #[test]
    fn what_moves_by_little_from_block_to_block_drifts_within_a_day_and_a_half_and_is_told_once() {
        for (per_day, within) in [(4.0, 3 * DAY / 2), (-6.0, 3 * DAY / 2), (12.0, 3 * DAY / 2)] {
            for start in [3_000, 3_500, 4_000] {
                let told = told(|row, day| day + per_day / DAY as f64 * row.saturating_sub(start) as f64);
                let drifts: Vec<usize> =
                    told.iter().filter(|(_, kind)| *kind == Kind::Drift).map(|(row, _)| *row).collect();
                let is_right = matches!(drifts[..], [row] if (start..start + within).contains(&row));
                assert!(is_right, "{per_day} from {start}: {told:?}");
            }
        }
    }

    #[test]
    fn a_day_that_is_flatter_steeper_or_another_has_changed() {
        for (name, share) in [("flatter", 0.3), ("gone", 0.0), ("steeper", 2.0), ("turned", -1.0)] {
            let told = told(|row, day| if row >= 4_032 { share * day } else { day });
            // For some hours it may look like a drift.
            let is_right = |(row, kind): &(usize, Kind)| *kind == Kind::Season && *row < 4_032 + DAY;
            assert!(told.iter().any(is_right) && told.iter().all(|(row, _)| *row >= 4_032), "{name}: {told:?}");
        }
    }

    #[test]
    fn it_goes_on_from_a_snapshot() {
        let (mut whole, mut parts) = (Slow::default(), Slow::default());
        for row in 0..10 * DAY {
            let value = noise(row) + if row > 8 * DAY { 0.3 * day(row) } else { day(row) };
            let micros = row as i64 * FIVE_MINUTES;
            assert_eq!(whole.take(micros, value, day(row)), parts.take(micros, value, day(row)));
            if row % 97 == 0 {
                let mut writer = Writer::new(1);
                parts.write(&mut writer);
                let bytes = writer.finish();
                parts = Slow::read(&mut Reader::new("slow", 1, &bytes).unwrap(), 4).unwrap();
            }
        }
    }

    #[test]
    fn a_gap_is_told_once_and_what_recurs_is_usual() {
        let mut gaps = Gaps::default();
        let mut at = 0;
        let mut after = |secs: i64| {
            at += secs * 1_000_000;
            gaps.take(at, 10.0)
        };
        (0..40).for_each(|_| assert_eq!(after(10), None));
        assert_eq!(after(150), None, "fifteen intervals");
        assert_eq!(after(3_600), Some(3_600.0));
        (0..100).for_each(|_| assert_eq!(after(10), None));
        assert_eq!(after(3_700), None, "as long as one before");
        assert_eq!(after(-60), None, "a clock that goes back");
    }
}
