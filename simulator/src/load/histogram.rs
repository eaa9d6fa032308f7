//! Latencies in buckets that are a 64th of their value wide: constant memory, quantiles within 1.6%.

use std::time::Duration;

const BITS: u32 = 6;
const PER_OCTAVE: usize = 1 << BITS;
const BUCKETS: usize = (64 - BITS as usize + 1) * PER_OCTAVE;

/// Counts of latencies in nanoseconds.
#[derive(Clone)]
pub(super) struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS].into_boxed_slice(), count: 0, max: 0 }
    }

    pub(super) fn add(&mut self, nanos: u64) {
        if let Some(bucket) = self.buckets.get_mut(index(nanos)) {
            *bucket += 1;
        }
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The latency that this share of all stayed within, at most 1.6% too high; zero where there is none.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(top(i).min(self.max));
            }
        }
        Duration::from_nanos(self.max)
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }
}

fn index(nanos: u64) -> usize {
    if nanos < PER_OCTAVE as u64 {
        return nanos as usize;
    }
    let exponent = 63 - nanos.leading_zeros();
    let within = (nanos >> (exponent - BITS)) as usize & (PER_OCTAVE - 1);
    (exponent - BITS + 1) as usize * PER_OCTAVE + within
}

/// The highest value of a bucket.
fn top(index: usize) -> u64 {
    if index < PER_OCTAVE {
        return index as u64;
    }
    let shift = (index / PER_OCTAVE - 1) as u32;
    let first = (PER_OCTAVE + index % PER_OCTAVE) as u64;
    (first << shift) + ((1u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket(nanos: u64) {
            let bucket = index(nanos);
            prop_assert!(bucket < BUCKETS);
            prop_assert!(nanos <= top(bucket));
            prop_assert!((top(bucket) - nanos) as f64 <= nanos as f64 / 64.0);
            prop_assert!(bucket == 0 || top(bucket - 1) < nanos);
        }

        #[test]
        fn quantiles_are_those_of_the_sorted_list(
            mut values in prop::collection::vec(0u64..5_000_000_000, 1..200), share in 0.01f64..1.0, split in 0usize..200,
        ) {
            let split = split.min(values.len());
            let (mut histogram, mut other) = (Histogram::new(), Histogram::new());
            values[..split].iter().for_each(|value| histogram.add(*value));
            values[split..].iter().for_each(|value| other.add(*value));
            histogram.merge(&other);
            values.sort_unstable();
            let exact = values[((values.len() as f64 * share).ceil() as usize).max(1) - 1];
            let found = histogram.quantile(share).as_nanos() as u64;
            prop_assert!(found >= exact && (found - exact) as f64 <= exact as f64 / 64.0 + 1.0, "{exact} {found}");
            prop_assert_eq!(histogram.max().as_nanos() as u64, *values.last().unwrap());
        }
    }
}
