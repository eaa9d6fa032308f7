//! The score of the Numenta Anomaly Benchmark (Lavin & Ahmad, "Evaluating Real-time Anomaly Detection Algorithms", ICMLA 2015).
//!
//! A detection is a row whose score is at least the threshold. With `σ(y) = 2 / (1 + e^{5y}) − 1` (and −1 for y > 3):
//! - a window counts once, by its earliest detection at row `i`: `A_TP · σ(−(r − i + 1) / w) / σ(−1)` for a window of `w` rows
//!   whose last is `r`; a window without one costs `A_FN`;
//! - each detection outside windows counts `A_FP · σ((i − r) / (w − 1))` by its distance to the end `r` of the preceding
//!   window of `w` rows, and `−A_FP` where no window precedes it;
//! - the first 15 % of a file's rows, at most 750, are probation and count for nothing.
//!
//! The corpus score is `100 · (raw − null) / (perfect − null)`: `null` detects nothing (−A_FN a window), `perfect` detects
//! every window at its first row (A_TP a window). One threshold serves all files.

use serde::Serialize;

/// Weights of an application profile.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Profile {
    /// For a window that is detected.
    pub true_positive: f64,
    /// Against a window that is missed.
    pub false_negative: f64,
    /// Against a detection outside windows.
    pub false_positive: f64,
}

/// The standard profile.
pub const STANDARD: Profile = Profile { true_positive: 1.0, false_negative: 1.0, false_positive: 0.11 };

/// The share of a file that is probation.
const PROBATION: f64 = 0.15;
/// Files longer than this have no longer probation.
const PROBATION_ROWS: usize = 5_000;

/// How many rows at the start of a file of `rows` rows count for nothing.
pub fn probation(rows: usize) -> usize {
    (PROBATION * rows.min(PROBATION_ROWS) as f64).floor() as usize
}

/// One file's scores and its anomaly windows.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// One score a row, in order.
    pub scores: &'a [f64],
    /// First and last row of each window, in order, not overlapping.
    pub windows: &'a [(usize, usize)],
}

/// What a detector got.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Outcome {
    /// The normalised score: 0 for detecting nothing, 100 for perfection; below 0 for many false alarms. 0 without windows.
    pub score: f64,
    /// Before normalisation.
    pub raw: f64,
    /// Windows there are.
    pub windows: usize,
    /// Windows that were detected.
    pub detected: usize,
    /// Detections outside windows.
    pub false_alarms: usize,
    /// Rows that could have been detected: all but probation.
    pub rows: usize,
}

/// Scores a corpus at one threshold.
pub fn score(corpus: &[Scored<'_>], threshold: f64, profile: &Profile) -> Outcome {
    let mut sum = Outcome::default();
    for file in corpus {
        let mut best = vec![None; file.windows.len()];
        for point in points(file, profile).filter(|point| point.score >= threshold) {
            match point.window {
                Some(window) => best[window] = Some(point.value.max(best[window].unwrap_or(point.value))),
                None => {
                    sum.raw += point.value;
                    sum.false_alarms += 1;
                }
            }
        }
        sum.raw += best.iter().map(|best| best.unwrap_or(-profile.false_negative)).sum::<f64>();
        sum.windows += best.len();
        sum.detected += best.iter().flatten().count();
        sum.rows += file.scores.len() - probation(file.scores.len());
    }
    sum.score = normalised(sum.raw, sum.windows, profile);
    sum
}

/// The threshold with the highest score, among all scores that occur; the highest of equals. Above 1 where detecting
/// nothing is best.
pub fn best_threshold(corpus: &[Scored<'_>], profile: &Profile) -> (f64, f64) {
    let mut points: Vec<(f64, f64, Option<usize>)> = Vec::new();
    let mut windows = 0;
    for file in corpus {
        let base = windows;
        points.extend(
            self::points(file, profile).map(|point| (point.score, point.value, point.window.map(|w| base + w))),
        );
        windows += file.windows.len();
    }
    points.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut best_of: Vec<f64> = vec![-profile.false_negative; windows];
    let mut raw = -profile.false_negative * windows as f64;
    let mut best = (f64::INFINITY, raw);
    for (at, (score, value, window)) in points.iter().enumerate() {
        match window {
            Some(window) => {
                let better = value.max(best_of[*window]);
                raw += better - best_of[*window];
                best_of[*window] = better;
            }
            None => raw += value,
        }
        // Rows of equal score are detected together.
        let last_of_equals = points.get(at + 1).is_none_or(|next| next.0 < *score);
        if last_of_equals && raw > best.1 {
            best = (*score, raw);
        }
    }
    (best.0, normalised(best.1, windows, profile))
}

fn normalised(raw: f64, windows: usize, profile: &Profile) -> f64 {
    if windows == 0 {
        return 0.0;
    }
    let null = -profile.false_negative * windows as f64;
    let perfect = profile.true_positive * windows as f64;
    100.0 * (raw - null) / (perfect - null)
}

/// `2 / (1 + e^{5y}) − 1`, and −1 far behind a window.
fn scaled_sigmoid(y: f64) -> f64 {
    if y > 3.0 { -1.0 } else { 2.0 / (1.0 + (5.0 * y).exp()) - 1.0 }
}

/// What detecting one row is worth.
struct Point {
    score: f64,
    value: f64,
    window: Option<usize>,
}

/// The rows of a file after probation, with what detecting each is worth.
fn points<'a>(file: &'a Scored<'a>, profile: &'a Profile) -> impl Iterator<Item = Point> + 'a {
    let mut current = 0;
    let skipped = probation(file.scores.len());
    file.scores.iter().enumerate().filter_map(move |(row, score)| {
        while file.windows.get(current).is_some_and(|window| window.1 < row) {
            current += 1;
        }
        let inside = file.windows.get(current).filter(|window| window.0 <= row);
        let before = current.checked_sub(1).and_then(|before| file.windows.get(before));
        let value = match (inside, before) {
            (Some((first, last)), _) => {
                let position = -((last - row + 1) as f64) / (last - first + 1) as f64;
                profile.true_positive * scaled_sigmoid(position) / scaled_sigmoid(-1.0)
            }
            (None, None) => -profile.false_positive,
            (None, Some((first, last))) => {
                // A window of one row has no width to measure distance by: everything is far behind it.
                let width = (last - first) as f64;
                profile.false_positive * scaled_sigmoid((row - last) as f64 / width)
            }
        };
        (row >= skipped).then_some(Point { score: *score, value, window: inside.map(|_| current) })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 100 rows, so 15 of probation; a window of 10 rows at 50..=59.
    fn detecting(rows: &[usize]) -> Vec<f64> {
        (0..100).map(|row| if rows.contains(&row) { 1.0 } else { 0.0 }).collect()
    }

    fn raw(rows: &[usize], windows: &[(usize, usize)]) -> f64 {
        score(&[Scored { scores: &detecting(rows), windows }], 0.5, &STANDARD).raw
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    const ONE: &[(usize, usize)] = &[(50, 59)];

    #[test]
    fn probation_is_15_percent_and_at_most_750_rows() {
        assert_eq!([100, 4_032, 5_000, 18_050, 0].map(probation), [15, 604, 750, 750, 0]);
    }

    #[test]
    fn by_hand() {
        // σ(−1) = 0.986614298151430, σ(−0.5) = 0.848283639957513, σ(−0.1) = 0.244918662403709.
        assert!(close(raw(&[], ONE), -1.0), "a miss");
        assert!(close(raw(&[50], ONE), 1.0), "the first row of the window");
        assert!(close(raw(&[55], ONE), 0.848_283_639_957_513 / 0.986_614_298_151_430), "position -5/10");
        assert!(close(raw(&[59], ONE), 0.244_918_662_403_709 / 0.986_614_298_151_430), "the last row");
        assert!(close(raw(&[55, 57, 59], ONE), raw(&[55], ONE)), "the earliest counts, the others are free");
        assert!(close(raw(&[20], ONE), -1.0 - 0.11), "before any window");
        assert!(close(raw(&[14], ONE), -1.0), "in probation");
        assert!(close(raw(&[15], ONE), -1.11), "the first row after probation");
        // Past the window: (60 − 59) / 9 and (68 − 59) / 9 of the window's width; −1 beyond three widths.
        assert!(close(raw(&[50, 60], ONE), 1.0 - 0.11 * 0.270_847_118_516_721), "just behind the window");
        assert!(close(raw(&[50, 68], ONE), 1.0 - 0.11 * 0.986_614_298_151_430), "one width behind it");
        assert!(close(raw(&[50, 87], ONE), 1.0 - 0.11), "far behind it");
        assert!(close(raw(&[], &[(50, 59), (70, 79)]), -2.0));
        assert!(close(raw(&[20], &[]), -0.11), "a file without windows");
    }

    #[test]
    fn the_corpus_is_normalised_between_nothing_and_perfection() {
        let windows = [(50, 59), (70, 79)];
        let of = |rows: &[usize]| score(&[Scored { scores: &detecting(rows), windows: &windows }], 0.5, &STANDARD);
        assert!(close(of(&[]).score, 0.0));
        assert!(close(of(&[50, 70]).score, 100.0));
        let half = of(&[50, 20]);
        assert!(close(half.score, 100.0 * (1.0 - 1.0 - 0.11 + 2.0) / 4.0));
        assert_eq!((half.windows, half.detected, half.false_alarms, half.rows), (2, 1, 1, 85));
        assert_eq!(score(&[], 0.5, &STANDARD).score, 0.0);
    }

    #[test]
    fn detecting_nothing_can_be_best() {
        let scores = detecting(&[20]);
        assert_eq!(best_threshold(&[Scored { scores: &scores, windows: &[] }], &STANDARD).0, f64::INFINITY);
    }

    proptest! {
        /// The sweep against scoring at every threshold.
        #[test]
        fn the_best_threshold_is_the_best_of_all(
            a in prop::collection::vec(0..6u8, 40..120), b in prop::collection::vec(0..6u8, 40..120),
        ) {
            let [a, b] = [a, b].map(|scores| scores.into_iter().map(|s| f64::from(s) / 5.0).collect::<Vec<_>>());
            let corpus = [Scored { scores: &a, windows: &[(10, 19), (25, 30)] }, Scored { scores: &b, windows: &[(33, 33)] }];
            let (threshold, best) = best_threshold(&corpus, &STANDARD);
            prop_assert!((score(&corpus, threshold, &STANDARD).score - best).abs() < 1e-9);
            for step in 0..7 {
                prop_assert!(score(&corpus, f64::from(step) / 5.0, &STANDARD).score <= best + 1e-9);
            }
        }
    }
}
