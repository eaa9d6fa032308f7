//! How the fields of a stream usually go together, so that a field is held against what the others say of it.
//!
//! Kept: the correlations `R` of the 12-row means' distances, learnt with the distances cut to ±[`MOST`], and drawn a little towards 0. By
//! the rule of conditional normals, with `P = R⁻¹`, field `i` is expected at `z_i − (P z)_i / P_ii` and deviates from that by
//! `(P z)_i / √P_ii` usual deviations.

use super::field::RATE;
use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Distances are cut here before they are learnt: one wild row says nothing of how fields go together.
const MOST: f64 = 3.0;
/// What remains of a correlation.
const KEPT: f64 = 0.95;
/// Rows before anything is learnt.
const BLIND: u32 = 30;

/// The usual correlations of some fields.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Relation {
    fields: usize,
    rows: u32,
    /// Mean products of distances, row-major.
    products: Vec<f64>,
}

impl Relation {
    pub(super) fn new(fields: usize) -> Self {
        Self { fields, rows: 0, products: vec![0.0; fields * fields] }
    }

    /// Takes in the distances of a row; 0 for a field without a value.
    pub(super) fn learn(&mut self, distances: impl Iterator<Item = f64>) {
        self.rows = self.rows.saturating_add(1);
        let Some(rows) = self.rows.checked_sub(BLIND).filter(|rows| *rows > 0) else { return };
        let z: Vec<f64> = distances.map(|z| z.clamp(-MOST, MOST)).collect();
        let rate = (1.0 / f64::from(rows)).max(RATE);
        for (products, a) in self.products.chunks_exact_mut(self.fields).zip(&z) {
            products.iter_mut().zip(&z).for_each(|(product, b)| *product += rate * (a * b - *product));
        }
    }

    /// Forgets how a field goes with the others.
    pub(super) fn forget(&mut self, field: usize) {
        let n = self.fields;
        for other in (0..n).filter(|other| *other != field) {
            self.products[field * n + other] = 0.0;
            self.products[other * n + field] = 0.0;
        }
    }

    /// What each field says once the others are known.
    pub(super) fn conditional(&self) -> Conditional {
        self.conditional_of(KEPT, &vec![true; self.fields])
    }

    /// The same with `kept` of each correlation, and of the fields that are `there` alone.
    pub(super) fn conditional_of(&self, kept: f64, there: &[bool]) -> Conditional {
        let n = self.fields;
        let scale: Vec<f64> = (0..n).map(|i| self.products[i * n + i].max(1e-18).sqrt()).collect();
        // The Cholesky factor L of R, in place; R is positive definite because it was drawn towards the identity.
        let mut lower = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let r = match (i == j, there[i] && there[j]) {
                    (true, _) => 1.0,
                    (false, true) => kept * self.products[i * n + j] / (scale[i] * scale[j]),
                    (false, false) => 0.0,
                };
                let sum: f64 = r - (0..j).map(|k| lower[i * n + k] * lower[j * n + k]).sum::<f64>();
                lower[i * n + j] = if i == j { sum.max(1e-6).sqrt() } else { sum / lower[j * n + j] };
            }
        }
        let mut inverse = vec![0.0; n * n];
        for j in 0..n {
            inverse[j * n + j] = 1.0 / lower[j * n + j];
            for i in j + 1..n {
                let sum: f64 = (j..i).map(|k| lower[i * n + k] * inverse[k * n + j]).sum();
                inverse[i * n + j] = -sum / lower[i * n + i];
            }
        }
        let precision = (0..n).map(|i| (i..n).map(|k| inverse[k * n + i] * inverse[k * n + i]).sum()).collect();
        Conditional { inverse, precision }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.rows);
        let rows = self.products.chunks_exact(self.fields).enumerate();
        rows.for_each(|(i, row)| row[..=i].iter().for_each(|product| writer.f64(*product)));
    }

    pub(super) fn read(fields: usize, reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut relation = Self { rows: reader.u32()?, ..Self::new(fields) };
        for i in 0..fields {
            for j in 0..=i {
                let product = reader.f64()?;
                relation.products[i * fields + j] = product;
                relation.products[j * fields + i] = product;
            }
        }
        Ok(relation)
    }
}

/// The inverse of the correlations.
pub(super) struct Conditional {
    /// `L⁻¹`, row-major.
    inverse: Vec<f64>,
    /// The diagonal of `P = L⁻ᵀ L⁻¹`.
    precision: Vec<f64>,
}

impl Conditional {
    /// `P z`.
    pub(super) fn apply(&self, z: &[f64]) -> Vec<f64> {
        let n = z.len();
        let half: Vec<f64> = (0..n).map(|i| (0..=i).map(|k| self.inverse[i * n + k] * z[k]).sum()).collect();
        (0..n).map(|i| (i..n).map(|k| self.inverse[k * n + i] * half[k]).sum()).collect()
    }

    /// `P_ii`: how much the others narrow down field `i`; 1 where they say nothing.
    pub(super) fn precision(&self, field: usize) -> f64 {
        self.precision[field]
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Of deviation 1.
    fn noise(rng: &mut ChaCha8Rng) -> f64 {
        rng.random_range(-1.7..1.7)
    }

    #[test]
    fn a_field_is_expected_where_the_other_says() {
        let (mut relation, mut rng) = (Relation::new(3), ChaCha8Rng::seed_from_u64(1));
        for _ in 0..4_000 {
            let a = noise(&mut rng);
            relation.learn([a, a + 0.1 * noise(&mut rng), noise(&mut rng)].into_iter());
        }
        let conditional = relation.conditional();
        let z = [2.0, 2.0, 0.0];
        let together = conditional.apply(&z);
        let apart = conditional.apply(&[2.0, -2.0, 0.0]);
        assert!(together[1].abs() < 0.2 * apart[1].abs(), "{together:?} {apart:?}");
        let expected = z[1] - together[1] / conditional.precision(1);
        assert!((expected - 2.0).abs() < 0.4, "{expected}");
        assert!((conditional.precision(2) - 1.0).abs() < 0.1, "the third goes its own way");
    }

    #[test]
    fn it_is_the_inverse() {
        let (mut relation, mut rng) = (Relation::new(4), ChaCha8Rng::seed_from_u64(2));
        for _ in 0..500 {
            let common = noise(&mut rng);
            relation.learn((0..4).map(|_| common + noise(&mut rng)));
        }
        let conditional = relation.conditional();
        let scale: Vec<f64> = (0..4).map(|i| relation.products[i * 5].sqrt()).collect();
        for column in 0..4 {
            let r: Vec<f64> = (0..4)
                .map(|i| {
                    let off = KEPT * relation.products[i * 4 + column] / (scale[i] * scale[column]);
                    if i == column { 1.0 } else { off }
                })
                .collect();
            for (row, value) in conditional.apply(&r).into_iter().enumerate() {
                assert!((value - if row == column { 1.0 } else { 0.0 }).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn nothing_learnt_and_equal_fields_are_borne() {
        assert_eq!(Relation::new(2).conditional().apply(&[1.0, -2.0]), [1.0, -2.0]);
        let (mut relation, mut rng) = (Relation::new(3), ChaCha8Rng::seed_from_u64(3));
        (0..1_000).for_each(|_| relation.learn([noise(&mut rng); 3].into_iter()));
        assert!(relation.conditional().apply(&[3.0, -3.0, 3.0]).iter().all(|value| value.is_finite()));
    }
}
