//! When what is flagged on every row for as long as it lasts was over, so that it begins again.
//!
//! Promises: it was over once rows did without it for a stretch of event time, so one row that dips below a limit, or a pause in which
//! nothing was measured, ends nothing. A late row neither begins nor ends anything. What is not known is taken to go on.

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// One thing that lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spell {
    /// Event time of the last row with it, microseconds.
    last: Option<i64>,
    /// Event time of the first row without it since then, microseconds.
    calm_since: Option<i64>,
    /// Whether it was over and is there again, and that was not told.
    is_new: bool,
}

impl Spell {
    /// Takes a row on which it is there or not; it was over where it was not there for `calm` microseconds.
    pub(crate) fn see(&mut self, at: i64, is_there: bool, calm: i64) {
        if !is_there {
            let earliest = self.last.map_or(at, |last| last.max(at));
            self.calm_since.get_or_insert(earliest);
            return;
        }
        if self.calm_since.is_some_and(|since| at < since) {
            return;
        }
        self.last = self.last.max(Some(at));
        let since = self.calm_since.take();
        self.is_new |= since.is_some_and(|since| at.saturating_sub(since) >= calm);
    }

    /// It is told: whether for the first time since it was over.
    pub(crate) const fn tell(&mut self) -> bool {
        std::mem::replace(&mut self.is_new, false)
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        let Self { last, calm_since, is_new } = self;
        writer.u8(u8::from(last.is_some()) | u8::from(calm_since.is_some()) << 1 | u8::from(*is_new) << 2);
        writer.i64(last.unwrap_or(0));
        writer.i64(calm_since.unwrap_or(0));
    }

    /// Reads itself back.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let flags = reader.u8()?;
        let mut time = |bit: u8| Ok::<_, ModelError>(Some(reader.i64()?).filter(|_| flags & bit != 0));
        Ok(Self { last: time(1)?, calm_since: time(2)?, is_new: flags & 4 != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: [i64; 0] = [];

    /// The seconds at which it is told to begin, of rows with it (`true`) and without.
    fn begins(rows: &[(i64, bool)]) -> Vec<i64> {
        let mut spell = Spell::default();
        let mut told = Vec::new();
        for (at, is_there) in rows {
            spell.see(*at, *is_there, 60);
            let kept = spell.clone_by_snapshot();
            assert_eq!(kept, spell);
            if *is_there && spell.tell() {
                told.push(*at);
            }
        }
        told
    }

    impl Spell {
        fn clone_by_snapshot(&self) -> Self {
            let mut writer = Writer::new(1);
            self.write(&mut writer);
            Self::read(&mut Reader::new("m", 1, &writer.finish()).unwrap()).unwrap()
        }
    }

    #[test]
    fn it_begins_again_after_a_calm_stretch_and_not_after_a_dip_or_a_pause() {
        assert_eq!(begins(&[(0, true), (10, false), (20, true), (30, true)]), NEVER, "a dip");
        assert_eq!(begins(&[(0, true), (500, true)]), NEVER, "nothing was measured between");
        assert_eq!(begins(&[(0, true), (10, false), (40, false), (69, true)]), NEVER);
        assert_eq!(begins(&[(0, true), (10, false), (40, false), (70, true), (80, true)]), [70]);
        assert_eq!(begins(&[(0, false), (100, true), (110, false), (200, true)]), [100, 200]);
    }

    #[test]
    fn a_late_row_neither_begins_nor_ends_it() {
        assert_eq!(begins(&[(1_000, true), (100, false), (1_010, true)]), NEVER);
        assert_eq!(begins(&[(1_000, true), (1_010, false), (100, true), (1_080, true)]), [1_080]);
    }

    #[test]
    fn what_was_not_told_when_it_began_is_told_later() {
        let mut spell = Spell::default();
        spell.see(0, false, 60);
        spell.see(100, true, 60);
        spell.see(110, true, 60);
        assert!(spell.tell() && !spell.tell());
    }
}
