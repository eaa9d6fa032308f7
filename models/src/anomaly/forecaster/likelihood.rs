//! From forecast errors to an anomaly likelihood, by what is usual for the stream.
//!
//! Four measures of the last errors `e` (value − forecast): `|e|`, the absolute mean of the last 4 and of the last 16, and the
//! mean of the last 8 `|e|`. Each has a [`Sketch`] of its own past that says how rare it is now: its evidence
//! `−log10 P(at least as large)`, at most [`MOST_EVIDENCE`]. The evidence of a row is their root mean square: 2 means as rare as one in a
//! hundred by all four at once. The idea of judging errors by their own recent distribution is that of Ahmad, Lavin, Purdy & Agha, "Unsupervised
//! real-time anomaly detection for streaming data", Neurocomputing 262 (2017).
//!
//! False alarms are felt by the day, not by the row: evidence of a stream with a row every 5 minutes counts as it is, that of a
//! faster one less and that of a slower one more (the [`Pace`]'s discount).
//!
//! Forecasts get better when the hours of a week are known: from then on errors count for more than those before ([`WEEK_KNOWN`]).
//!
//! What is odd must not become the measure of what is odd: one spike would make tails so heavy that none after it stands out. An
//! error with evidence above [`ODD`] is learnt as one at [`ODD`], a stretch of a few rows at a time and a few times in the
//! sketches' memory; what lasts longer or comes more often is learnt as it is, and becomes usual.
//!
//! An alarm is raised once an incident: see [`super::hold`].

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

/// Rows of a field before its errors are judged.
pub const WARM_UP: u32 = 24;
/// The first forecasts are made from next to nothing: their errors say nothing of the stream.
const BLIND: u32 = 8;
/// A measure's evidence is no larger.
pub const MOST_EVIDENCE: f64 = 6.0;
/// An error with more evidence than this, by its own size, is odd.
pub const ODD: f64 = 4.0;
/// Odd rows in a row: more are a new state of the stream and no slip.
const ODD_ROWS: u32 = 8;
/// Odd stretches in the sketches' memory: more are usual for the stream.
const ODD_STRETCHES: f32 = 4.0;

/// Evidence from a past of this many rows counts half.
const YOUNG: u32 = 20;

/// What a row weighs from the time on when the hours of a week are known, relative to those before: without them forecasts were off by
/// what is usual from hour to hour, and that would hide what is not for as long as the sketches remember.
const WEEK_KNOWN: f32 = 4.0;

/// Seconds between rows at which evidence counts as it is.
const SLOW: f64 = 300.0;
/// What evidence loses for each tenfold that rows come faster, and at most.
const PER_TENFOLD: f64 = 0.75;
const MOST_DISCOUNT: f64 = 1.7;
/// What evidence gains for each tenfold that rows come slower, and at most.
const PER_TENFOLD_SLOWER: f64 = 0.3;
const MOST_GAIN: f64 = 0.6;
/// Rows that the pace is averaged over.
const PACE_ROWS: f64 = 64.0;

/// Errors that are kept.
pub(super) const ERRORS: usize = 16;
/// Buckets of a sketch, four to a doubling.
const BUCKETS: usize = 80;
const PER_DOUBLING: f64 = 4.0;
/// What each row weighs more than the one before: the past fades over 2,000 rows.
const GROWTH: f32 = 1.0 / 0.9995;
/// Weights are scaled down when the newest weighs this much.
const HEAVY: f32 = 1e6;
/// No row weighs more.
const HEAVIEST: f32 = HEAVY * WEEK_KNOWN;
/// No bucket weighs more: the rows of a sketch's memory, all of them the heaviest, are 2,000 times as much.
const MOST_WEIGHT: f32 = 1e4 * HEAVIEST;
/// Beyond this share of the past, tails are extrapolated.
const TAIL: f64 = 0.003;
/// The tail's slope is taken from here to the tail.
const SHOULDER: f64 = 0.2;

/// How rare a value is among those seen before: a histogram of `log2` in fixed memory that forgets slowly.
///
/// Beyond the rarest values seen it goes on as a power law (a straight line of log probability over log value). The scale
/// follows the data an octave at a time, so one absurd value moves it by no more than that.
#[derive(Clone, Debug)]
pub struct Sketch {
    weights: [f32; BUCKETS],
    /// `log2 · 4` of the first bucket's lower edge; `None` before the first value above 0.
    base: Option<i32>,
    newest: f32,
    rows: u32,
}

/// The rarest part of a sketch's past.
struct Tail {
    /// The weight of the whole past.
    total: f64,
    /// Which share of it is the tail.
    share: f64,
    /// The place on the bucket scale from which on it lies.
    rare: f64,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { weights: [0.0; BUCKETS], base: None, newest: 1.0, rows: 0 }
    }
}

impl Sketch {
    /// `−log10` of the probability of a value at least this large; 0 where nothing is known.
    pub fn evidence(&self, value: f64) -> f64 {
        let (Some(base), Some(tail), true) = (self.base, self.tail(), value > 0.0) else { return 0.0 };
        let at = PER_DOUBLING * value.log2() - f64::from(base);
        if at <= tail.rare {
            return (tail.total / self.above(at)).clamp(1.0, 1.0 / tail.share).log10();
        }
        -tail.share.log10() + (at - tail.rare) / self.per_tenfold(&tail)
    }

    /// The value with this evidence, where that is more than the evidence of the rarest seen; else the rarest seen.
    fn value_at(&self, evidence: f64) -> Option<f64> {
        let (base, tail) = (self.base?, self.tail()?);
        let at = tail.rare + self.per_tenfold(&tail) * (evidence + tail.share.log10()).max(0.0);
        Some(((at + f64::from(base)) / PER_DOUBLING).exp2())
    }

    /// Where the tail begins; `None` where nothing is known.
    fn tail(&self) -> Option<Tail> {
        let total: f64 = self.weights.iter().map(|weight| f64::from(*weight)).sum();
        let share = TAIL.max(f64::from(self.newest) / total).min(1.0);
        (total > 0.0).then(|| Tail { total, share, rare: self.quantile(share * total) })
    }

    /// Places on the bucket scale by which a value in the tail is ten times rarer.
    fn per_tenfold(&self, tail: &Tail) -> f64 {
        let from = SHOULDER.max(2.0 * tail.share);
        let shoulder = self.quantile(from * tail.total);
        // At least a quarter of a doubling for each tenfold: a constant sensor's rounding is not rare.
        ((tail.rare - shoulder) / (from / tail.share).log10()).max(1.0)
    }

    /// The place on the bucket scale above which this much weight lies.
    fn quantile(&self, weight: f64) -> f64 {
        let mut above = 0.0;
        for (bucket, held) in self.weights.iter().enumerate().rev() {
            let held = f64::from(*held);
            if held > 0.0 && above + held >= weight {
                return bucket as f64 + 1.0 - (weight - above) / held;
            }
            above += held;
        }
        0.0
    }

    /// The weight above a place on the bucket scale.
    fn above(&self, at: f64) -> f64 {
        let at = at.clamp(0.0, BUCKETS as f64);
        let bucket = (at as usize).min(BUCKETS - 1);
        let whole: f64 = self.weights[bucket + 1..].iter().map(|weight| f64::from(*weight)).sum();
        whole + f64::from(self.weights[bucket]) * (bucket as f64 + 1.0 - at)
    }

    /// What comes from now on weighs this many times what came before.
    fn favour(&mut self, times: f32) {
        self.newest *= times;
    }

    /// Takes a value in.
    pub fn learn(&mut self, value: f64) {
        self.rows = self.rows.saturating_add(1);
        let bucket = if value > 0.0 { self.bucket(value) } else { 0 };
        self.weights[bucket] += self.newest;
        self.newest *= GROWTH;
        if self.newest > HEAVY {
            self.weights.iter_mut().for_each(|weight| *weight /= HEAVY);
            self.newest /= HEAVY;
        }
    }

    /// The bucket of a value above 0, after moving the scale towards it where it is off the scale.
    fn bucket(&mut self, value: f64) -> usize {
        let at = (PER_DOUBLING * value.log2()).floor() as i32;
        // The first value lies a fifth below the top: larger ones are likely, much smaller ones do not matter.
        let base = self.base.unwrap_or(at - (BUCKETS as i32) * 4 / 5);
        let octave = PER_DOUBLING as usize;
        let base = if at >= base + BUCKETS as i32 {
            let lost: f32 = self.weights[..octave].iter().sum();
            self.weights.copy_within(octave.., 0);
            self.weights[BUCKETS - octave..].fill(0.0);
            self.weights[0] += lost;
            base + octave as i32
        } else if at < base && self.is_top_unused() {
            self.weights.copy_within(..BUCKETS - octave, octave);
            self.weights[..octave].fill(0.0);
            base - octave as i32
        } else {
            base
        };
        self.base = Some(base);
        (at - base).clamp(0, BUCKETS as i32 - 1) as usize
    }

    /// Whether hardly anything lies in the uppermost octaves: then the scale may move down.
    fn is_top_unused(&self) -> bool {
        let top: f32 = self.weights[BUCKETS - 4 * PER_DOUBLING as usize..].iter().sum();
        let all: f32 = self.weights.iter().sum();
        top <= 0.02 * all
    }

    fn write(&self, writer: &mut Writer) {
        self.weights.iter().for_each(|weight| writer.f32(*weight));
        writer.u8(u8::from(self.base.is_some()));
        writer.i64(i64::from(self.base.unwrap_or(0)));
        writer.f32(self.newest);
        writer.u32(self.rows);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut sketch = Self::default();
        for weight in &mut sketch.weights {
            *weight = reader.f32()?;
        }
        let is_known = reader.u8()? == 1;
        let base = i32::try_from(reader.i64()?).map_err(|_| reader.damaged("a number is out of range"))?;
        sketch.base = is_known.then_some(base);
        sketch.newest = reader.f32()?;
        sketch.rows = reader.u32()?;
        let is_fit = sketch.newest > 0.0
            && sketch.newest <= HEAVIEST
            && sketch.weights.iter().all(|weight| (0.0..=MOST_WEIGHT).contains(weight))
            && base.abs() < 10_000;
        if is_fit { Ok(sketch) } else { Err(reader.damaged("a number is out of range")) }
    }
}

/// What of a row's errors is unusual.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Root mean square of the four.
    pub mean: f64,
    /// Of the row itself.
    pub now: f64,
    /// Of the last 4.
    pub short: f64,
    /// Of the last 16.
    pub long: f64,
    /// Of the unsteadiness of the last 8.
    pub unsteady: f64,
    /// Whether the row's own error is odd, see [`ODD`].
    pub is_odd: bool,
}

/// The last errors of one field and the sketches of their measures.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    last: [f32; ERRORS],
    /// The same as they are learnt: odd ones are cut.
    learnt: [f32; ERRORS],
    /// Odd rows up to now without one that is not.
    odd_rows: u32,
    /// Odd stretches, fading as the sketches do.
    odd_stretches: f32,
    /// Whether forecasts go by the hours of earlier weeks.
    knows_week: bool,
    rows: u32,
    now: Sketch,
    short: Sketch,
    long: Sketch,
    unsteady: Sketch,
}

impl Errors {
    /// Forecasts go by the hours of earlier weeks from now on.
    pub fn week_is_known(&mut self) {
        if !std::mem::replace(&mut self.knows_week, true) {
            let sketches = [&mut self.now, &mut self.short, &mut self.long, &mut self.unsteady];
            sketches.into_iter().for_each(|sketch| sketch.favour(WEEK_KNOWN));
        }
    }

    /// The last errors, the newest last.
    pub(super) const fn last(&self) -> &[f32; ERRORS] {
        &self.last
    }

    /// The absolute mean of all the last errors that has this evidence, by the past.
    pub(super) fn long_at(&self, evidence: f64) -> Option<f64> {
        self.long.value_at(evidence)
    }

    /// Judges an error by the past and takes it in.
    pub fn judge(&mut self, error: f64) -> Evidence {
        self.rows = self.rows.saturating_add(1);
        // An odd value among the first would stand in the longer measures after that, and they would take what is odd for usual.
        let error = if self.rows > BLIND { error.clamp(-1e30, 1e30) } else { 0.0 };
        let is_warm = self.rows > WARM_UP;
        let is_odd = is_warm && self.now.evidence(error.abs()) > ODD;
        let learnt = self.as_learnt(error, is_odd);
        for (errors, newest) in [(&mut self.last, error), (&mut self.learnt, learnt)] {
            errors.copy_within(1.., 0);
            errors[ERRORS - 1] = newest as f32;
        }
        let measures = [self.measures(&self.last, error), self.measures(&self.learnt, learnt)];
        let sketches = [&mut self.now, &mut self.short, &mut self.long, &mut self.unsteady];
        let mut each = [0.0; 4];
        for (index, (sketch, evidence)) in sketches.into_iter().zip(&mut each).enumerate() {
            let [judged, learnt] = measures.map(|measures| measures[index]);
            if is_warm {
                *evidence = sketch.evidence(judged).clamp(0.0, MOST_EVIDENCE);
            }
            if self.rows > BLIND {
                sketch.learn(learnt);
            }
        }
        // A short past knows little of its tails.
        let trust = f64::from(self.rows) / f64::from(self.rows + YOUNG);
        let [now, short, long, unsteady] = each.map(|evidence| trust * evidence);
        let mean = ((now * now + short * short + long * long + unsteady * unsteady) / 4.0).sqrt();
        Evidence { mean, now, short, long, unsteady, is_odd }
    }

    /// The error as the sketches learn it: an odd one is cut, unless that has lasted or has come often.
    fn as_learnt(&mut self, error: f64, is_odd: bool) -> f64 {
        self.odd_stretches /= GROWTH;
        self.odd_rows = if is_odd { self.odd_rows.saturating_add(1) } else { 0 };
        if self.odd_rows == 1 {
            self.odd_stretches += 1.0;
        }
        let is_slip = is_odd && self.odd_rows <= ODD_ROWS && self.odd_stretches <= ODD_STRETCHES;
        let most = if is_slip { self.now.value_at(ODD) } else { None };
        most.map_or(error, |most| error.clamp(-most, most))
    }

    /// The four measures of some errors, of which this is the newest.
    fn measures(&self, errors: &[f32; ERRORS], newest: f64) -> [f64; 4] {
        let mean = |count: usize, of: fn(f64) -> f64| {
            let count = count.min(self.rows as usize).max(1);
            errors[ERRORS - count..].iter().map(|error| of(f64::from(*error))).sum::<f64>() / count as f64
        };
        [newest.abs(), mean(4, |error| error).abs(), mean(16, |error| error).abs(), mean(8, f64::abs)]
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        self.last.iter().for_each(|error| writer.f32(*error));
        writer.u32(self.rows);
        [&self.now, &self.short, &self.long, &self.unsteady].into_iter().for_each(|sketch| sketch.write(writer));
        self.learnt.iter().for_each(|error| writer.f32(*error));
        writer.u32(self.odd_rows);
        writer.f32(self.odd_stretches);
        writer.u8(u8::from(self.knows_week));
    }

    /// Reads itself back, from a snapshot of this version of the model's.
    pub(crate) fn read(reader: &mut Reader<'_>, version: u8) -> Result<Self, ModelError> {
        let mut errors = Self::default();
        for error in &mut errors.last {
            *error = reader.f32()?;
        }
        errors.rows = reader.u32()?;
        errors.now = Sketch::read(reader)?;
        errors.short = Sketch::read(reader)?;
        errors.long = Sketch::read(reader)?;
        errors.unsteady = Sketch::read(reader)?;
        if version < 2 {
            // Until then errors were learnt as they came.
            errors.learnt = errors.last;
            return Ok(errors);
        }
        for error in &mut errors.learnt {
            *error = reader.f32()?;
        }
        errors.odd_rows = reader.u32()?;
        errors.odd_stretches = reader.f32()?;
        errors.knows_week = version >= 3 && reader.u8()? == 1;
        Ok(errors)
    }
}

/// How fast rows come: a mean of their intervals in event time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    last: i64,
    rows: u32,
    interval: f64,
}

impl Pace {
    /// Seconds between rows.
    pub const fn interval(&self) -> f64 {
        self.interval
    }

    /// Takes a row's time in microseconds and gives what evidence is discounted by: a share of the tenfolds by which the
    /// stream is faster than a row every 5 minutes; below 0 where it is slower.
    pub fn discount(&mut self, micros: i64) -> f64 {
        let interval = micros.saturating_sub(self.last) as f64 / 1e6;
        self.last = micros;
        if self.rows > 0 && interval >= 0.0 {
            let rate = (1.0 / f64::from(self.rows)).max(1.0 / PACE_ROWS);
            // A pause is no pace.
            let most = if self.rows > 1 { (10.0 * self.interval).max(1e-3) } else { SLOW };
            self.interval += rate * (interval.min(most) - self.interval);
        }
        self.rows = self.rows.saturating_add(1);
        let tenfolds = (SLOW / self.interval.max(1e-3)).log10();
        if tenfolds > 0.0 {
            (PER_TENFOLD * tenfolds).min(MOST_DISCOUNT)
        } else {
            (PER_TENFOLD_SLOWER * tenfolds).max(-MOST_GAIN)
        }
    }

    /// Evidence less such a discount. What is gained is gained in full from evidence 1 on: nothing unusual is nothing at any pace.
    pub fn discounted(evidence: f64, discount: f64) -> f64 {
        let share = if discount < 0.0 { evidence.min(1.0) } else { 1.0 };
        (evidence - discount * share).max(0.0)
    }

    /// Appends itself to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.i64(self.last);
        writer.u32(self.rows);
        writer.f64(self.interval);
    }

    /// Reads itself back.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        Ok(Self { last: reader.i64()?, rows: reader.u32()?, interval: reader.f64()?.max(0.0) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sketch_knows_how_rare_a_value_is() {
        let mut sketch = Sketch::default();
        for value in 1..=1_000 {
            sketch.learn(f64::from(value % 100) + 1.0);
        }
        assert!((sketch.evidence(90.0) - 1.0).abs() < 0.15, "one in ten: {}", sketch.evidence(90.0));
        assert!(sketch.evidence(1.0) < 0.05);
        assert!(sketch.evidence(1e4) > 4.0);
        assert_eq!(sketch.evidence(0.0), 0.0);
    }

    #[test]
    fn one_absurd_value_does_not_spoil_a_sketch() {
        let mut sketch = Sketch::default();
        (0..500).for_each(|value| sketch.learn(f64::from(value % 10) + 1.0));
        let before = sketch.evidence(10.0);
        sketch.learn(1e30);
        (0..20).for_each(|value| sketch.learn(f64::from(value % 10) + 1.0));
        assert!((sketch.evidence(10.0) - before).abs() < 0.2);
    }

    #[test]
    fn a_sketch_follows_its_sensor_over_many_orders() {
        for scale in [1e-4, 1e12] {
            let mut sketch = Sketch::default();
            (0..500).for_each(|value| sketch.learn(f64::from(value % 10) + 1.0));
            (0..8_000).for_each(|value| sketch.learn(scale * (f64::from(value % 10) + 1.0)));
            assert!((sketch.evidence(8.5 * scale) - 0.5).abs() < 0.3, "{}", sketch.evidence(8.5 * scale));
        }
    }

    #[test]
    fn a_faster_stream_needs_more_evidence_and_a_slower_one_less() {
        let after = |millis: i64| {
            let mut pace = Pace::default();
            (0..50).map(|row| pace.discount(row * millis * 1_000)).last().unwrap()
        };
        assert_eq!((after(300_000), after(86_400_000_000)), (0.0, -MOST_GAIN));
        assert!((after(3_000_000) + PER_TENFOLD_SLOWER).abs() < 0.01, "the first interval is not trusted");
        assert_eq!(
            [(0.0, -0.3), (0.5, -0.5), (2.0, -0.3), (2.0, 0.5), (0.2, 0.5)]
                .map(|(evidence, discount)| Pace::discounted(evidence, discount)),
            [0.0, 0.75, 2.3, 1.5, 0.0]
        );
        assert!((after(30_000) - PER_TENFOLD).abs() < 1e-9);
        assert_eq!(after(4), MOST_DISCOUNT);
        let mut paused = Pace::default();
        (0..200).for_each(|row| {
            paused.discount(row * 30_000_000);
        });
        assert!(paused.discount(86_400_000_000) > 0.8 * PER_TENFOLD);
    }

    #[test]
    fn a_sketch_that_cannot_be_is_refused() {
        let read_back = |sketch: &Sketch| {
            let mut writer = Writer::new(1);
            sketch.write(&mut writer);
            let snapshot = writer.finish();
            Sketch::read(&mut Reader::of_versions("sketch", 1..=1, &snapshot)?.0)
        };
        let mut sketch = Sketch::default();
        for row in 0..60_000 {
            sketch.learn(f64::from(row % 100));
            assert!(row % 100 > 0 || read_back(&sketch).is_ok(), "{row}");
        }
        sketch.newest = HEAVY;
        sketch.favour(WEEK_KNOWN);
        assert!(read_back(&sketch).is_ok());
        for newest in [f32::MAX, 2.0 * HEAVIEST, 0.0, -1.0] {
            assert!(read_back(&Sketch { newest, ..sketch.clone() }).is_err(), "{newest}");
        }
        sketch.weights[3] = f32::MAX;
        assert!(read_back(&sketch).is_err());
    }

    #[test]
    fn a_row_that_outweighs_the_past_is_borne() {
        let mut sketch = Sketch::default();
        sketch.learn(1.0);
        sketch.favour(WEEK_KNOWN);
        for value in [1e-9, 0.5, 1.0, 1e9] {
            assert!(sketch.evidence(value) >= 0.0, "{value}");
        }
    }

    /// Small errors that do not repeat.
    fn ordinary(row: usize) -> f64 {
        0.4 * (row as f64 * 1.7).sin() + 0.1 * (row * row % 7) as f64
    }

    #[test]
    fn one_odd_error_does_not_hide_the_next() {
        let mut errors = Errors::default();
        (0..60).for_each(|row| assert!(!errors.judge(ordinary(row)).is_odd));
        for height in [25.0, 25.0, 60.0] {
            let evidence = errors.judge(height);
            assert!(evidence.is_odd && evidence.mean > 3.0, "{height}: {evidence:?}");
            (0..20).for_each(|row| assert!(!errors.judge(ordinary(row)).is_odd));
        }
    }

    #[test]
    fn what_is_odd_again_and_again_becomes_usual_and_so_does_what_lasts() {
        let mut errors = Errors::default();
        let rows = (0..3_000).map(|row| if row > 60 && row % 40 == 0 { 25.0 } else { ordinary(row) });
        let odd: Vec<usize> =
            rows.enumerate().filter(|(_, error)| errors.judge(*error).is_odd).map(|(row, _)| row).collect();
        assert!((4..=12).contains(&odd.len()) && odd.last() < Some(&600), "{odd:?}");
        let mut errors = Errors::default();
        let rows = (0..400).map(|row| ordinary(row) + if row > 60 { 25.0 } else { 0.0 });
        let odd = rows.filter(|error| errors.judge(*error).is_odd).count();
        assert!(odd <= 30, "{odd}");
    }

    #[test]
    fn errors_from_before_the_week_is_known_hide_little_after() {
        let after = |knows: bool| {
            let mut errors = Errors::default();
            (0..1_000).for_each(|row| {
                errors.judge(10.0 * ordinary(row));
            });
            if knows {
                errors.week_is_known();
            }
            (0..1_000).for_each(|row| {
                errors.judge(ordinary(row));
            });
            errors.judge(4.0).now
        };
        assert!(after(true) > after(false) + 0.3, "{} {}", after(true), after(false));
    }

    proptest! {
        #[test]
        fn evidence_is_monotone_and_finite(
            past in prop::collection::vec(0.0..1e6_f64, 1..300), a in 0.0..1e9_f64, b in 0.0..1e9_f64,
        ) {
            let mut sketch = Sketch::default();
            past.iter().for_each(|value| sketch.learn(*value));
            let (low, high) = (sketch.evidence(a.min(b)), sketch.evidence(a.max(b)));
            prop_assert!(low.is_finite() && high.is_finite() && low >= 0.0);
            prop_assert!(low <= high + 1e-9, "{} {}", low, high);
        }

        #[test]
        fn any_errors_are_borne(errors in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::ZERO, 1..300)) {
            let mut state = Errors::default();
            for error in errors {
                let evidence = state.judge(error);
                prop_assert!((0.0..=MOST_EVIDENCE).contains(&evidence.mean));
            }
        }
    }
}
