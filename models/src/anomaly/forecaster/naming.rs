//! What an alarm turns out to be, once it has lasted.
//!
//! The first row of a change looks like a spike whatever follows. So when an alarm begins it is noted how large a mean of [`LASTS`] errors
//! would be as rare as one in [`RARE`]'s power of ten by then, before the sketches take the new state for usual. `level_shift` follows
//! where within [`FRESH`] rows the last [`LASTS`] errors have a larger mean and hardly one of them is not to that side: forecasts are made
//! from older rows than that, so it is the value that stays away. `changed_variance` follows where the field has come to scatter more
//! ([`super::scatter`]).
//!
//! Promise: each name once an incident. Never: another alarm; the row that names one scores no higher for it.

use super::hold::Hold;
use super::likelihood::{ERRORS, Errors};
use super::slow::LEVEL_KNOWN;
use super::{CHANGED_VARIANCE, LEVEL_SHIFT};
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Errors that must be to one side, of the last [`ERRORS`].
const TO_ONE_SIDE: usize = 14;
/// Rows of an alarm before its level is named.
pub const LASTS: u32 = ERRORS as u32;
/// Rows of an alarm after which forecasts know too much of it.
const FRESH: u32 = LASTS + 8;
/// `-log10` of how rare a mean is at which a level is another.
const RARE: f64 = 3.0;
/// What share of that mean each error must reach to be to that side.
const SHARE: f64 = 0.5;

/// What has changed, and by how much.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Standing {
    /// The value stays away from where it was.
    Level,
    /// The value scatters so many times as much as before.
    Scatter(f64),
}

/// What an alarm was called so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Naming {
    /// The mean of the last errors from which on it is another level; 0 where nothing is waited for.
    bar: f64,
    /// Rows since that is waited for, the first one included.
    rows: u32,
    /// Whether the level has lasted, and whether each name was told.
    level_lasts: bool,
    level_told: bool,
    scatter_told: bool,
    /// How many slow blocks there were when a level last lasted.
    level_at: Option<u32>,
    /// A change of scatter that could not be told yet.
    scatter: Option<f64>,
}

/// A row as the naming sees it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// What it raises an alarm as, where it raises one.
    pub raised: Option<&'static str>,
    /// How many times as much as before the field has come to scatter, where it has.
    pub scatter: Option<f64>,
    /// Whether it has nothing else to tell.
    pub may_tell: bool,
    /// Slow blocks up to now.
    pub blocks: u32,
}

impl Naming {
    /// Whether another level is the one that was told already; `blocks`: slow ones up to now.
    pub fn knows_level(&self, blocks: u32) -> bool {
        self.level_at.is_some_and(|at| blocks.saturating_sub(at) <= LEVEL_KNOWN)
    }

    /// What the alarm that goes on turns out to be, or the field without one.
    pub fn take(&mut self, hold: &Hold, errors: &Errors, seen: Seen) -> Option<Standing> {
        self.scatter = seen.scatter.or(self.scatter);
        if !hold.goes_on() {
            *self = Self { level_at: self.level_at, scatter: self.scatter, ..Self::default() };
        }
        if let Some(label) = seen.raised {
            (self.rows, self.level_lasts, self.level_told) = (0, false, label == LEVEL_SHIFT);
            self.scatter_told |= label == CHANGED_VARIANCE;
        }
        if self.bar == 0.0 && hold.has_evidence() && !self.level_lasts {
            (self.bar, self.rows) = (errors.long_at(RARE).unwrap_or(0.0), 0);
        }
        if self.bar > 0.0 {
            self.rows += 1;
            self.level_lasts = self.rows >= LASTS && is_level(errors.last(), self.bar);
            if self.level_lasts {
                self.level_at = Some(seen.blocks);
            }
            if self.level_lasts || self.rows >= FRESH {
                self.bar = 0.0;
            }
        }
        self.name(seen.may_tell)
    }

    fn name(&mut self, may_tell: bool) -> Option<Standing> {
        if !may_tell {
            return None;
        }
        if self.level_lasts && !self.level_told {
            self.level_told = true;
            return Some(Standing::Level);
        }
        let times = self.scatter.take().filter(|_| !self.scatter_told)?;
        self.scatter_told = true;
        Some(Standing::Scatter(times))
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64(self.bar);
        writer.u32(self.rows);
        [self.level_lasts, self.level_told, self.scatter_told].into_iter().for_each(|is| writer.u8(u8::from(is)));
        writer.u8(u8::from(self.level_at.is_some()));
        writer.u32(self.level_at.unwrap_or(0));
        writer.f64(self.scatter.unwrap_or(0.0));
    }

    /// Reads itself back.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let (bar, rows) = (reader.f64()?.max(0.0), reader.count(FRESH as usize)? as u32);
        let [level_lasts, level_told, scatter_told] = [reader.u8()?, reader.u8()?, reader.u8()?].map(|is| is == 1);
        let level_at = (reader.u8()? == 1, reader.u32()?);
        let times = reader.f64()?;
        Ok(Self {
            bar,
            rows,
            level_lasts,
            level_told,
            scatter_told,
            level_at: level_at.0.then_some(level_at.1),
            scatter: (times > 0.0).then_some(times),
        })
    }
}

/// Whether these errors have a larger mean than the bar, and hardly one is not to that side.
fn is_level(errors: &[f32; ERRORS], bar: f64) -> bool {
    let mean = errors.iter().map(|error| f64::from(*error)).sum::<f64>() / ERRORS as f64;
    let to_side = errors.iter().filter(|error| f64::from(**error) * mean.signum() > SHARE * bar).count();
    mean.abs() > bar && to_side >= TO_ONE_SIDE
}
