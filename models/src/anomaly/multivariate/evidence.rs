//! What a person would see at once in the rows themselves, without a network: a value that leaps ([`super::trace`]), a relation
//! between fields that breaks, and a field that slowly leaves the others ([`super::residual`]).
//!
//! It depends on rows alone. Nothing is told in the first `warm_up` rows of the stream; the relation is learnt in them, and the usual
//! residuals in their second half.

use super::relation::Relation;
use super::residual::{ORDINARY, Residual};
use super::trace::{LEVELS, Leap, Trace};
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// What remains of a correlation.
const KEPT: f64 = 0.99;
/// Distances beyond this were not met when the relation was learnt: residuals count for less by as much.
const FAMILIAR: f64 = 3.0;
/// The ratio below which a relation is whole again.
pub(super) const WHOLE: f64 = 0.3;

/// What is known of a stream's rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Evidence {
    warm_up: u32,
    rows: u32,
    traces: Vec<Trace>,
    relations: [Relation; LEVELS],
    /// Of each level, one for each field.
    residuals: [Vec<Residual>; LEVELS],
}

/// What a row shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// The field that leapt farthest, with its value.
    pub(super) leap: Option<(usize, f64, Leap)>,
    /// A relation that is not whole.
    pub(super) parting: Option<Parting>,
}

impl Seen {
    /// The row's values, but for what leapt: that as far as is no leap.
    pub(super) fn without_leap(&self, mut values: Vec<Option<f64>>) -> Vec<Option<f64>> {
        if let Some((field, _, leap)) = &self.leap {
            values[*field] = Some(leap.expected + leap.margin.copysign(leap.ratio));
        }
        values
    }
}

/// A relation that is not whole.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parting {
    /// From 1 on it is told.
    pub(super) ratio: f64,
    /// Whether it came slowly.
    pub(super) drifts: bool,
    /// The fields that it is about, the most likely first.
    pub(super) parts: Vec<Part>,
}

/// A field of a relation that is not whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Part {
    /// Which of the stream's numeric fields.
    pub(super) field: usize,
    pub(super) value: f64,
    /// What the other fields say; of the 12-row mean, or of the row.
    pub(super) expected: f64,
    /// How far from it is ordinary.
    pub(super) margin: f64,
    /// Usual residuals from what the others say.
    pub(super) residuals: f64,
    /// Its part of the blame, 0 to 1.
    pub(super) share: f64,
}

/// The residuals of one row at one level.
struct Left {
    level: usize,
    z: Vec<Option<f64>>,
    /// `P z`, and `P_ii`.
    apart: Vec<f64>,
    precision: Vec<f64>,
}

impl Evidence {
    /// Nothing seen yet of this many fields.
    pub(super) fn new(fields: usize, warm_up: u32) -> Self {
        Self {
            warm_up,
            rows: 0,
            traces: vec![Trace::default(); fields],
            relations: std::array::from_fn(|_| Relation::new(fields)),
            residuals: std::array::from_fn(|_| vec![Residual::default(); fields]),
        }
    }

    /// Takes a row's values, in the order of the fields.
    pub(super) fn observe(&mut self, values: &[Option<f64>]) -> Seen {
        self.rows = self.rows.saturating_add(1);
        let is_warm = self.rows > self.warm_up;
        let mut seen = Seen::default();
        for (field, (trace, value)) in self.traces.iter_mut().zip(values).enumerate() {
            let Some(leap) = trace.observe(*value, self.warm_up, is_warm) else { continue };
            let farthest = seen.leap.map_or(0.0, |(.., leap)| leap.ratio.abs());
            if leap.ratio.abs() > farthest {
                seen.leap = Some((field, value.unwrap_or_default(), leap));
            }
        }
        let left = std::array::from_fn::<_, LEVELS, _>(|level| self.left_at(level, values));
        if is_warm {
            let all = left.iter().flatten();
            let found = all.filter_map(|left| self.parting(left));
            seen.parting = found.max_by(|a, b| a.ratio.total_cmp(&b.ratio));
        }
        seen
    }

    /// Takes the row's residuals at a level, then learns the relation from the row; `None` while nothing is known.
    fn left_at(&mut self, level: usize, values: &[Option<f64>]) -> Option<Left> {
        let present = |trace: &Trace| trace.is_present().then(|| trace.z(level));
        let learnt: Vec<Option<f64>> = self.traces.iter().map(present).collect();
        // A state, a setting and what has only just come say nothing of the others: every residual would look small beside them.
        let is_known: Vec<bool> = self.traces.iter().map(|trace| trace.is_known(self.warm_up)).collect();
        let z: Vec<Option<f64>> = learnt.iter().zip(&is_known).map(|(z, is_known)| z.filter(|_| *is_known)).collect();
        let known = (self.rows > self.warm_up / 2).then(|| {
            let there: Vec<bool> = z.iter().map(Option::is_some).collect();
            let conditional = self.relations[level].conditional_of(KEPT, &there);
            let plain: Vec<f64> = z.iter().map(|z| z.unwrap_or(0.0)).collect();
            let precision = (0..z.len()).map(|field| conditional.precision(field)).collect();
            Left { level, apart: conditional.apply(&plain), precision, z }
        });
        if let Some(left) = &known {
            let unfamiliar = left.z.iter().flatten().fold(1.0_f64, |most, z| most.max(z.abs() / FAMILIAR));
            let is_warm = self.rows > self.warm_up;
            for (field, residual) in self.residuals[level].iter_mut().enumerate() {
                // A value that was held because the row has none says nothing new.
                if values[field].is_some() && is_known[field] {
                    residual.observe(left.apart(field) / unfamiliar, left.precision[field], is_warm);
                }
            }
        }
        self.learn(level, &learnt);
        known
    }

    /// The relation is learnt from whole rows: from rows with parts of it, correlations would come to contradict each other.
    fn learn(&mut self, level: usize, z: &[Option<f64>]) {
        let relation = &mut self.relations[level];
        let gone = |field: &usize| self.traces[*field].is_gone();
        (0..z.len()).filter(gone).for_each(|field| relation.forget(field));
        if (0..z.len()).all(|field| z[field].is_some() || gone(&field)) {
            relation.learn(z.iter().map(|z| z.unwrap_or(0.0)));
        }
    }

    fn parting(&self, left: &Left) -> Option<Parting> {
        let residuals = &self.residuals[left.level];
        let fields = (0..residuals.len()).filter(|field| self.traces[*field].is_known(self.warm_up));
        let worst = fields.max_by(|a, b| residuals[*a].ratio().total_cmp(&residuals[*b].ratio()))?;
        let ratio = residuals[worst].ratio();
        if ratio < WHOLE {
            return None;
        }
        // A field with a value and residual: dropping the field with the largest one explains most of the row.
        let there: Vec<usize> = (0..residuals.len()).filter(|field| left.z[*field].is_some()).collect();
        let all: f64 = there.iter().map(|field| residuals[*field].power()).sum();
        let mut parts: Vec<Part> =
            there.iter().map(|field| self.part(*field, left, all.max(f64::MIN_POSITIVE))).collect();
        parts.sort_by(|a, b| b.share.total_cmp(&a.share));
        Some(Parting { ratio, drifts: residuals[worst].drifts(), parts }).filter(|parting| !parting.parts.is_empty())
    }

    fn part(&self, field: usize, left: &Left, all: f64) -> Part {
        let (trace, residual) = (&self.traces[field], &self.residuals[left.level][field]);
        let (z, precision) = (left.z[field].unwrap_or(0.0), left.precision[field]);
        let at = |z: f64| trace.value_at(left.level, z);
        let margin = at(ORDINARY * residual.size() / precision.sqrt()) - at(0.0);
        Part {
            field,
            value: trace.last_value(),
            expected: at(z - left.apart[field] / precision),
            margin,
            residuals: left.apart(field) / residual.size(),
            share: residual.power() / all,
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.rows);
        self.traces.iter().for_each(|trace| trace.write(writer));
        self.relations.iter().for_each(|relation| relation.write(writer));
        self.residuals.iter().flatten().for_each(|residual| residual.write(writer));
    }

    /// Reads itself back, from a snapshot of this version of the model's.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>, version: u8) -> Result<(), ModelError> {
        self.rows = reader.u32()?;
        for trace in &mut self.traces {
            *trace = Trace::read(reader, version)?;
        }
        for relation in &mut self.relations {
            *relation = Relation::read(self.traces.len(), reader)?;
        }
        for residual in self.residuals.iter_mut().flatten() {
            *residual = Residual::read(reader)?;
        }
        Ok(())
    }
}

impl Left {
    /// The residual of a field, in deviations that the relation leaves open.
    fn apart(&self, field: usize) -> f64 {
        self.apart[field] / self.precision[field].sqrt()
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Two fields that follow one cause, one that goes its own way.
    fn row(at: u32, rng: &mut ChaCha8Rng) -> [Option<f64>; 3] {
        let cause = (f64::from(at) / 20.0).sin();
        let mut noise = || rng.random_range(-1.7..1.7);
        [cause + 0.1 * noise(), -5.0 * cause + 0.5 * noise(), noise()].map(Some)
    }

    /// The row at which a relation is first told to have parted, and its fields.
    fn parted(rows: u32, change: impl Fn(u32, &mut [Option<f64>; 3])) -> Option<(u32, Vec<usize>)> {
        let (mut evidence, mut rng) = (Evidence::new(3, 400), ChaCha8Rng::seed_from_u64(7));
        (0..rows).find_map(|at| {
            let mut values = row(at, &mut rng);
            change(at, &mut values);
            let parting = evidence.observe(&values).parting.filter(|parting| parting.ratio >= 1.0)?;
            Some((at, parting.parts.iter().map(|part| part.field).collect()))
        })
    }

    #[test]
    fn a_relation_that_breaks_is_told_and_a_field_of_its_own_is_not_in_it() {
        assert_eq!(parted(6_000, |_, _| ()), None);
        let (at, fields) = parted(3_000, |at, values| {
            if at >= 1_000 {
                values[1] = values[1].map(|value| -value);
            }
        })
        .unwrap();
        assert!((1_000..1_060).contains(&at) && fields[2] == 2, "{at} {fields:?}");
    }

    #[test]
    fn fields_that_are_gone_part_from_nobody_and_what_comes_back_is_known_again() {
        let gone = |at: u32, values: &mut [Option<f64>; 3]| {
            if (900..1_800).contains(&at) {
                values[0] = None;
            }
            if !at.is_multiple_of(3) {
                values[2] = None;
            }
        };
        assert_eq!(parted(4_000, gone), None);
        let (at, _) = parted(4_000, |at, values| {
            gone(at, values);
            if at >= 2_000 {
                values[0] = values[0].map(|value| -value);
            }
        })
        .unwrap();
        assert!((2_000..2_060).contains(&at), "{at}");
    }

    #[test]
    fn what_stood_still_in_the_warm_up_hides_nothing_later_and_is_not_blamed() {
        let later: [fn(u32, f64) -> Option<f64>; 5] = [
            |at, _| Some(if at < 600 { 0.0 } else { 1.0 }),
            |at, _| Some(f64::from(at / 50 % 2)),
            |at, noise| Some(if at < 1_000 { 3.0 } else { 3.0 + noise }),
            |at, noise| Some(if at < 1_000 { 3.0 } else { 40.0 + f64::from(at / 100 % 5) + noise }),
            |at, noise| (at >= 1_000).then_some(noise),
        ];
        for (index, later) in later.into_iter().enumerate() {
            let third = |at: u32, values: &mut [Option<f64>; 3]| values[2] = later(at, values[2].unwrap());
            assert_eq!(parted(6_000, third), None, "{index}");
            let (at, fields) = parted(4_000, |at, values| {
                third(at, values);
                if at >= 3_000 {
                    values[1] = values[1].map(|value| -value);
                }
            })
            .unwrap_or_else(|| panic!("{index}"));
            assert!((3_000..3_060).contains(&at) && fields[0] != 2, "{index} {at} {fields:?}");
        }
    }

    #[test]
    fn all_fields_together_may_go_where_they_never_were() {
        assert_eq!(
            parted(3_000, |at, values| {
                if at >= 1_000 {
                    let farther = 3.0 * (f64::from(at) / 20.0).sin();
                    values[0] = values[0].map(|value| value + farther);
                    values[1] = values[1].map(|value| value - 5.0 * farther);
                }
            }),
            None
        );
    }
}
