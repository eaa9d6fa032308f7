//! At which pace a signal goes on after a gap.
//!
//! Devices send strips with gaps between them, and from one to the next a heart may have come to beat faster or more slowly. By what was
//! usual before, all beats of a faster strip are early, and none is ectopic. So the first [`INTERVALS`] of a strip are asked: where
//! fewer than half of them are what was usual, their median is the pace now. An even number: of early beats and the pauses after them, by turns,
//! it lies between the two.
//!
//! Never: a strip faster than [`FASTEST_RATE`] sets the pace. It may be a tachycardia whose beginning nobody saw, and it stands out
//! against what was before.

use super::qrs::median;

/// Seconds of a gap in which a heart may come to beat otherwise. After a shorter one what was usual before still says more.
pub(super) const LEAST_GAP: f64 = 5.0;
/// Intervals that say it, and the seconds from a strip's first sample after which fewer must do: a slow heart is told in time.
pub(super) const INTERVALS: usize = 6;
pub(super) const LONGEST: f64 = 7.0;
/// Of fewer than this nothing is said.
const LEAST_INTERVALS: usize = 4;
/// How near an interval is to a usual one, as a logarithm of the ratio.
const NEAR: f32 = 0.06;
/// Beats a minute.
const FASTEST_RATE: f32 = 130.0;

/// The usual interval of a strip that begins with these, oldest first, where `usual` was the usual one before, all in seconds; `None` where it
/// is still that one, or it cannot be said.
pub(super) fn pace(own: &[f32], usual: f32) -> Option<f32> {
    let own = &own[..own.len().min(INTERVALS) / 2 * 2];
    if own.len() < LEAST_INTERVALS {
        return None;
    }
    let near = own.iter().filter(|interval| (*interval / usual).ln().abs() < NEAR).count();
    let now = median(own)?;
    (2 * near < own.len() && now >= 60.0 / FASTEST_RATE).then_some(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faster_strip_has_a_pace_of_its_own_and_a_usual_one_has_not() {
        assert_eq!(pace(&[0.6, 0.61, 0.59, 0.6, 0.62, 0.58], 0.8), Some(0.6));
        assert_eq!(pace(&[1.0, 1.02, 1.01, 0.99], 0.8), Some(1.005));
        assert_eq!(pace(&[0.8, 0.78, 0.82, 0.81, 0.5, 0.9], 0.8), None, "one of them is early, the heart is as it was");
        assert_eq!(pace(&[0.6, 0.61, 0.59], 0.8), None, "too few");
    }

    #[test]
    fn early_beats_in_a_faster_strip_do_not_set_its_pace() {
        let third = pace(&[0.6, 0.42, 0.72, 0.61, 0.41, 0.73], 0.8).unwrap();
        let second = pace(&[0.42, 0.75, 0.4, 0.74, 0.43, 0.76, 0.4], 0.8).unwrap();
        assert!((third - 0.6).abs() < 0.02 && (second - 0.59).abs() < 0.02, "{third} {second}");
    }

    #[test]
    fn a_tachycardia_whose_beginning_nobody_saw_sets_no_pace() {
        assert_eq!(pace(&[0.4; 6], 0.8), None);
    }
}
