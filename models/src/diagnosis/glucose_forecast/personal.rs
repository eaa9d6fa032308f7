//! What a patient's own forecasts that came due say of the next one.
//!
//! A ridge regression of the change that came on the network's forecast and a few inputs, learnt in closed form as readings
//! come: it starts as "the network is right" and moves only as far as [`PRIOR`] readings let it. Beside it the width of the band
//! is steered so that as many readings fall outside as should (Gibbs & Candès, "Adaptive conformal inference", 2021).

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// The network's forecast, a constant, and four of the inputs.
pub(super) const TERMS: usize = 6;
/// How many readings the network counts as.
const PRIOR: f64 = 100.0;
/// Changes are cut here, in the network's units: one wild reading teaches no more.
const MOST: f64 = 3.0;
/// How much a reading changes the band, and the share of readings outside of it.
const STEERING: f64 = 0.02;
const OUTSIDE: f64 = 0.1;
/// The narrowest and widest band, by the network's.
const WIDTHS: std::ops::RangeInclusive<f64> = 0.5..=3.0;

/// One patient's correction.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Personal {
    /// Sums of products of terms, with the prior.
    products: [[f64; TERMS]; TERMS],
    /// Sums of terms by changes, with the prior.
    targets: [f64; TERMS],
    /// What the sums give.
    weights: [f64; TERMS],
    /// The band by the network's.
    width: f64,
}

impl Default for Personal {
    fn default() -> Self {
        let mut personal =
            Self { products: [[0.0; TERMS]; TERMS], targets: [0.0; TERMS], weights: [0.0; TERMS], width: 1.0 };
        (0..TERMS).for_each(|term| personal.products[term][term] = PRIOR);
        (personal.targets[0], personal.weights[0]) = (PRIOR, 1.0);
        personal
    }
}

impl Personal {
    /// The corrected change.
    pub(super) fn change(&self, terms: &[f64; TERMS]) -> f64 {
        self.weights.iter().zip(terms).map(|(weight, term)| weight * term).sum()
    }

    /// The band by the network's.
    pub(super) const fn width(&self) -> f64 {
        self.width
    }

    /// Learns what came of a forecast.
    pub(super) fn learn(&mut self, terms: &[f64; TERMS], change: f64, was_inside: bool) {
        let change = change.clamp(-MOST, MOST);
        for ((products, target), a) in self.products.iter_mut().zip(&mut self.targets).zip(terms) {
            products.iter_mut().zip(terms).for_each(|(product, b)| *product += a * b);
            *target += a * change;
        }
        self.weights = solve(self.products, self.targets);
        let missed = if was_inside { 0.0 } else { 1.0 };
        self.width = (self.width * (STEERING * (missed - OUTSIDE)).exp()).clamp(*WIDTHS.start(), *WIDTHS.end());
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.products.iter().flatten().chain(&self.targets).for_each(|value| writer.f64(*value));
        writer.f64(self.width);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut personal = Self::default();
        for value in personal.products.iter_mut().flatten().chain(&mut personal.targets) {
            *value = reader.f64()?;
        }
        personal.width = reader.f64()?;
        if !WIDTHS.contains(&personal.width) || (0..TERMS).any(|term| personal.products[term][term] < PRIOR) {
            return Err(reader.damaged("a number is out of range"));
        }
        personal.weights = solve(personal.products, personal.targets);
        Ok(personal)
    }
}

/// Solves `A x = b` by elimination; `A` is positive definite because the prior is, so no pivot vanishes.
fn solve(mut a: [[f64; TERMS]; TERMS], mut b: [f64; TERMS]) -> [f64; TERMS] {
    for column in 0..TERMS {
        let pivot = a[column];
        for row in column + 1..TERMS {
            let factor = a[row][column] / pivot[column];
            a[row].iter_mut().zip(pivot).for_each(|(value, of_pivot)| *value -= factor * of_pivot);
            b[row] -= factor * b[column];
        }
    }
    for row in (0..TERMS).rev() {
        let known: f64 = (row + 1..TERMS).map(|column| a[row][column] * b[column]).sum();
        b[row] = (b[row] - known) / a[row][row];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(row: u32) -> [f64; TERMS] {
        let x = |k: u32| (f64::from(row * 7 + k) * 1.37).sin();
        [x(0), 1.0, x(10), x(20), x(30), x(40)]
    }

    #[test]
    fn it_begins_with_the_network_and_finds_what_is_the_patients_own() {
        let mut personal = Personal::default();
        assert_eq!(personal.change(&terms(3)), terms(3)[0]);
        let truth = |terms: &[f64; TERMS]| 0.5 * terms[0] + 0.3 - 0.4 * terms[2];
        (0..20).for_each(|row| personal.learn(&terms(row), truth(&terms(row)), true));
        assert!((personal.weights[0] - 1.0).abs() < 0.2, "twenty readings move it little");
        (0..5_000).for_each(|row| personal.learn(&terms(row), truth(&terms(row)), true));
        assert!((personal.change(&terms(9)) - truth(&terms(9))).abs() < 0.05);
    }

    #[test]
    fn the_band_widens_until_nine_of_ten_fall_inside() {
        let mut personal = Personal::default();
        // Errors are spread evenly to ±2 of the network's band.
        for row in 0..20_000_u32 {
            let error = 2.0 * f64::from(row * 7_919 % 1_000) / 1_000.0;
            personal.learn(&terms(row), 0.0, error < personal.width());
        }
        assert!((personal.width() - 1.8).abs() < 0.15, "{}", personal.width());
    }

    #[test]
    fn damaged_sums_are_refused() {
        let mut writer = Writer::new(1);
        Personal { products: [[0.0; TERMS]; TERMS], ..Personal::default() }.write(&mut writer);
        let bytes = writer.finish();
        assert!(Personal::read(&mut Reader::new("m", 1, &bytes).unwrap()).is_err());
    }
}
