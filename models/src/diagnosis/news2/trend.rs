//! How a patient's total moved over the last hours of event time: earlier totals, their slope, and whether they rose.
//!
//! The span is cut into [`BUCKETS`] buckets, each the mean of its totals, so a patient costs under a kilobyte whatever the rate.
//! A total is compared only with earlier ones that knew the same observations on the same saturation scale: an observation that was not
//! made before is no rise of the patient, and one that is not made any more no fall. For a rise alone earlier totals may have known more,
//! for then the present one is a lower bound.
//!
//! A **rise**: the total is [`TrendSettings::rise`] points above the lowest bucket of the span, and was so for
//! [`CONFIRM`], or at once where observations come [`SPOT_CHECK`] apart. It is said once, and again for each further point.
//! A fall is context, never an alarm. That a trend tells more than the last value: M. M. Churpek, R. Adhikari, D. P. Edelson,
//! "The value of vital sign trends for detecting clinical deterioration on the wards", Resuscitation 102, 2016. The chart itself
//! gives no number for a rise; three points are what it calls urgent when one observation has them, and a choice of ours for a total.

use std::collections::VecDeque;

use nearside_schemas::Timestamp;

use crate::ModelError;
use crate::card::Card;
use crate::snapshot::{Reader, Writer};

/// Buckets of the span.
const BUCKETS: i64 = 48;
/// How long a rise must hold, in seconds.
const CONFIRM_SECONDS: i64 = 120;
/// Observations this far apart, in seconds, are single checks by a nurse: there is nothing to wait for.
const SPOT_CHECK_SECONDS: i64 = 600;
/// Earlier totals that a text repeats: this share of the span ago.
const REPEATED: [f64; 3] = [1.0, 0.5, 0.25];
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const SCORED: usize = 7;

/// The card's settings of the trend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TrendSettings {
    /// How far back it looks, in microseconds.
    span: i64,
    /// Points above the lowest that are a rise.
    rise: f64,
}

impl TrendSettings {
    pub(super) fn of(card: &Card) -> Result<Self, ModelError> {
        let hours = card.option("trend_hours", 4.0, 0.5..=24.0)?;
        Ok(Self { span: (hours * 3.6e9) as i64, rise: card.option("rise_points", 3.0, 1.0..=10.0)? })
    }

    const fn bucket(&self) -> i64 {
        self.span / BUCKETS
    }
}

/// A row's total as the trend needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) time: Timestamp,
    pub(super) total: u32,
    /// In the order of the chart; `None` where not known.
    pub(super) points: [Option<u32>; SCORED],
    pub(super) scale_2: bool,
    /// Whether the chart has an urgent word for it by itself: then a rise need not be said.
    pub(super) is_urgent: bool,
}

impl Seen {
    fn known(&self) -> u8 {
        self.points.iter().enumerate().fold(0, |known, (i, points)| known | (u8::from(points.is_some()) << i))
    }
}

/// The totals of one bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    /// Which, by event time.
    number: i64,
    /// Event time of its last row, microseconds.
    at: i64,
    sum: u32,
    rows: u32,
    /// A bit for each observation that all its rows knew.
    known: u8,
    scale_2: bool,
    /// The points of its last row, two bits an observation.
    points: u16,
}

impl Bucket {
    fn mean(&self) -> f64 {
        f64::from(self.sum) / f64::from(self.rows.max(1))
    }

    fn is_comparable(&self, known: u8, scale_2: bool) -> bool {
        self.known & known == known && self.scale_2 == scale_2
    }

    fn points(&self) -> [Option<u32>; SCORED] {
        std::array::from_fn(|i| (self.known >> i & 1 == 1).then_some(u32::from(self.points >> (2 * i) & 3)))
    }
}

/// How the total moved, as a finding tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Course {
    /// Minutes ago, and the mean total then; the longest ago first.
    earlier: Vec<(i64, f64)>,
    /// Points an hour, by least squares over the span; `None` with fewer than three buckets.
    pub(super) slope: Option<f64>,
    /// The total, less the mean of the last bucket before its own.
    step: Option<f64>,
    span_minutes: i64,
    /// Where the total rose.
    pub(super) rise: Option<Rise>,
}

/// A rise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rise {
    /// The total from which on it is one.
    pub(super) flags_from: f64,
    /// When the lowest total was.
    pub(super) minutes_ago: i64,
    /// The points of then.
    pub(super) points: [Option<u32>; SCORED],
    /// Whether it was not said yet.
    pub(super) is_new: bool,
}

impl Course {
    /// What a text says of it; empty where nothing is known.
    pub(super) fn in_words(&self) -> String {
        if self.earlier.is_empty() {
            return String::new();
        }
        let earlier: Vec<String> = self
            .earlier
            .iter()
            .map(|(minutes, mean)| format!("{mean:.0} ({} before)", span_in_words(*minutes)))
            .collect();
        let mut text = format!(" Earlier totals: {}", earlier.join(", "));
        if let Some(slope) = self.slope {
            let over = slope * self.span_minutes as f64 / 60.0;
            let step = self.step.unwrap_or(0.0);
            // A word for the whole span only where what came last does not say otherwise: then the totals speak for themselves.
            text += &match over {
                over if over >= 1.0 && step > -1.0 => format!("; rising by {slope:.1} points an hour"),
                over if over <= -1.0 && step < 1.0 => format!("; falling by {:.1} points an hour", -slope),
                over if over.abs() < 1.0 && step.abs() < 1.0 => String::from("; steady"),
                _ => String::new(),
            };
        }
        text.push('.');
        text
    }
}

/// Minutes for people.
pub(super) fn span_in_words(minutes: i64) -> String {
    match minutes {
        0..=90 => format!("{minutes} min"),
        _ => format!("{:.1} h", minutes as f64 / 60.0),
    }
}

/// The recent totals of one patient.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trend {
    settings: TrendSettings,
    buckets: VecDeque<Bucket>,
    /// Event time of the last row, microseconds.
    last: Option<i64>,
    /// Since when the total is risen without a break.
    risen_since: Option<i64>,
    /// The total at which a rise was last said, or made needless by the chart's own word.
    told: Option<u32>,
}

impl Trend {
    pub(super) const fn new(settings: TrendSettings) -> Self {
        Self { settings, buckets: VecDeque::new(), last: None, risen_since: None, told: None }
    }

    /// Takes a row's total in and says how it stands to the earlier ones. A row older than the last changes nothing.
    pub(super) fn observe(&mut self, seen: &Seen) -> Course {
        let now = seen.time.as_micros();
        let is_late = self.last.is_some_and(|last| now < last);
        if !is_late {
            self.push(now, seen);
        }
        let mut course = self.course(now, seen);
        if !is_late {
            self.confirm(now, seen, &mut course);
            self.last = Some(now);
        } else {
            course.rise = None;
        }
        course
    }

    fn push(&mut self, now: i64, seen: &Seen) {
        let number = now.div_euclid(self.settings.bucket());
        let known = seen.known();
        let points = seen.points.iter().enumerate().fold(0, |packed, (i, points)| {
            // Three at most in the chart.
            packed | (points.unwrap_or(0).min(3) as u16) << (2 * i)
        });
        let fresh = Bucket { number, at: now, sum: seen.total, rows: 1, known, scale_2: seen.scale_2, points };
        match self.buckets.back_mut() {
            Some(last) if last.number == number && last.scale_2 == seen.scale_2 => {
                let (sum, rows) = (last.sum.saturating_add(seen.total), last.rows.saturating_add(1));
                *last = Bucket { sum, rows, known: last.known & known, ..fresh };
            }
            Some(last) if last.number == number => *last = fresh,
            _ => self.buckets.push_back(fresh),
        }
        let oldest = now.saturating_sub(self.settings.span);
        while self.buckets.len() > BUCKETS as usize + 1 || self.buckets.front().is_some_and(|first| first.at < oldest) {
            self.buckets.pop_front();
        }
    }

    fn course(&self, now: i64, seen: &Seen) -> Course {
        let known = seen.known();
        let number = now.div_euclid(self.settings.bucket());
        let comparable = || self.buckets.iter().filter(|one| one.is_comparable(known, seen.scale_2));
        let like: Vec<&Bucket> = comparable().filter(|one| one.known == known).collect();
        let is_before = |one: &&Bucket| one.number < number && one.at <= now;
        let minutes_ago = |one: &Bucket| now.saturating_sub(one.at) / MINUTE;
        let mut earlier: Vec<(i64, f64)> = Vec::new();
        for share in REPEATED {
            let wanted = now.saturating_sub((self.settings.span as f64 * share) as i64);
            let nearest = like.iter().copied().filter(is_before).min_by_key(|one| one.at.abs_diff(wanted));
            let near = nearest.filter(|one| one.at.abs_diff(wanted) <= (self.settings.span / 8) as u64);
            if let Some(one) = near.filter(|one| earlier.last().is_none_or(|last| last.0 > minutes_ago(one))) {
                earlier.push((minutes_ago(one), one.mean()));
            }
        }
        let lowest = comparable().filter(is_before).min_by(|a, b| a.mean().total_cmp(&b.mean()));
        let rise = lowest.and_then(|lowest| {
            let flags_from = lowest.mean() + self.settings.rise;
            let points = lowest.points();
            let rise = Rise { flags_from, minutes_ago: minutes_ago(lowest), points, is_new: false };
            (f64::from(seen.total) >= flags_from).then_some(rise)
        });
        let last = like.iter().copied().rfind(is_before);
        let step = last.map(|last| f64::from(seen.total) - last.mean());
        Course { earlier, slope: slope(&like), step, span_minutes: self.settings.span / MINUTE, rise }
    }

    /// Whether a rise held long enough and is to be said.
    fn confirm(&mut self, now: i64, seen: &Seen, course: &mut Course) {
        let Some(rise) = &mut course.rise else {
            self.risen_since = None;
            self.told = None;
            return;
        };
        let since = *self.risen_since.get_or_insert(now);
        let is_check = self.last.is_none_or(|last| now.saturating_sub(last) >= SPOT_CHECK_SECONDS * SECOND);
        let is_held = is_check || now.saturating_sub(since) >= CONFIRM_SECONDS * SECOND;
        let is_further = self.told.is_none_or(|told| seen.total > told);
        rise.is_new = is_held && is_further;
        if is_further && (rise.is_new || seen.is_urgent) {
            self.told = Some(seen.total);
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        for time in [self.last, self.risen_since, self.told.map(i64::from)] {
            writer.u8(u8::from(time.is_some()));
            writer.i64(time.unwrap_or(0));
        }
        writer.i64(self.settings.span);
        writer.u32(self.buckets.len() as u32);
        for bucket in &self.buckets {
            writer.i64(bucket.at);
            writer.u32(bucket.sum);
            writer.u32(bucket.rows);
            writer.u8(bucket.known | u8::from(bucket.scale_2) << SCORED);
            writer.u32(u32::from(bucket.points));
        }
    }

    /// What [`Trend::write`] wrote. Of another span only the last row is taken over: its buckets have another width.
    pub(super) fn read(settings: TrendSettings, reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let mut optional = || -> Result<Option<i64>, ModelError> {
            let is_there = reader.u8()? != 0;
            let value = reader.i64()?;
            Ok(is_there.then_some(value))
        };
        let (last, risen_since, told) = (optional()?, optional()?, optional()?);
        let is_same_span = reader.i64()? == settings.span;
        let mut trend = Self { last, ..Self::new(settings) };
        for _ in 0..reader.count(BUCKETS as usize + 1)? {
            let (at, sum, rows, flags) = (reader.i64()?, reader.u32()?, reader.u32()?, reader.u8()?);
            let points = u16::try_from(reader.u32()?).map_err(|_| reader.damaged("points are out of range"))?;
            let (number, known, scale_2) = (at.div_euclid(settings.bucket()), flags & 0x7F, flags >> SCORED == 1);
            trend.buckets.push_back(Bucket { number, at, sum, rows, known, scale_2, points });
        }
        if is_same_span {
            (trend.risen_since, trend.told) = (risen_since, told.and_then(|told| u32::try_from(told).ok()));
        } else {
            trend.buckets.clear();
        }
        Ok(trend)
    }
}

/// Points an hour through the buckets' means, by least squares.
fn slope(buckets: &[&Bucket]) -> Option<f64> {
    if buckets.len() < 3 {
        return None;
    }
    let origin = buckets.first()?.at;
    let count = buckets.len() as f64;
    let hours = |one: &&Bucket| one.at.saturating_sub(origin) as f64 / 3.6e9;
    let mean_hours = buckets.iter().map(hours).sum::<f64>() / count;
    let mean = buckets.iter().map(|one| one.mean()).sum::<f64>() / count;
    let over: f64 = buckets.iter().map(|one| (hours(one) - mean_hours) * (one.mean() - mean)).sum();
    let under: f64 = buckets.iter().map(|one| (hours(one) - mean_hours).powi(2)).sum();
    (under > 0.0).then(|| over / under)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: TrendSettings = TrendSettings { span: 4 * 3_600 * SECOND, rise: 3.0 };

    fn seen(minute: i64, total: u32) -> Seen {
        let points = std::array::from_fn(|i| Some(if i == 0 { total.min(3) } else { 0 }));
        Seen { time: Timestamp::from_secs(minute * 60), total, points, scale_2: false, is_urgent: false }
    }

    /// Minutes and totals; gives the minutes at which a rise was said.
    fn said(trend: &mut Trend, rows: impl IntoIterator<Item = (i64, u32)>) -> Vec<i64> {
        let said = |(minute, total)| {
            let course = trend.observe(&seen(minute, total));
            course.rise.is_some_and(|rise| rise.is_new).then_some(minute)
        };
        rows.into_iter().filter_map(said).collect()
    }

    #[test]
    fn a_nurses_checks_rise_at_once() {
        let mut trend = Trend::new(SETTINGS);
        assert_eq!(said(&mut trend, [(0, 1), (120, 2), (240, 4)]), [240], "1 to 4 within four hours");
        let mut trend = Trend::new(SETTINGS);
        assert!(said(&mut trend, [(0, 1), (120, 2), (241, 4)]).is_empty(), "the 1 is longer ago than the span");
    }

    #[test]
    fn a_monitors_rise_must_hold_and_is_said_once_for_each_point() {
        let mut trend = Trend::new(SETTINGS);
        let quiet = (0..60).map(|minute| (minute, 1));
        assert!(said(&mut trend, quiet).is_empty());
        assert!(said(&mut trend, [(60, 4), (61, 1)]).is_empty(), "a single row");
        // It stands at 4 from minute 62: said after two minutes, then silent, said again at 5.
        let rise = (62..80).map(|minute| (minute, if minute < 75 { 4 } else { 5 }));
        assert_eq!(said(&mut trend, rise), [64, 75]);
    }

    #[test]
    fn what_the_chart_says_is_not_said_twice() {
        let mut trend = Trend::new(SETTINGS);
        said(&mut trend, [(0, 1)]);
        trend.observe(&Seen { is_urgent: true, ..seen(60, 7) });
        assert!(said(&mut trend, [(120, 4), (125, 4), (130, 4)]).is_empty(), "it was 7 and is falling");
    }

    #[test]
    fn only_like_totals_are_compared() {
        let mut trend = Trend::new(SETTINGS);
        let mut partial = seen(0, 0);
        partial.points[1] = None;
        trend.observe(&partial);
        assert_eq!(trend.observe(&seen(60, 4)).rise, None, "an observation more is no rise");
        let mut trend = Trend::new(SETTINGS);
        trend.observe(&seen(0, 0));
        let mut partial = seen(60, 4);
        partial.points[1] = None;
        let course = trend.observe(&partial);
        assert!(course.rise.is_some(), "with fewer the total is a lower bound");
        assert_eq!(course.in_words(), "", "but it says nothing of how the total moved");
        let scaled = Seen { scale_2: true, ..seen(120, 5) };
        assert_eq!(trend.observe(&scaled).rise, None, "another scale");
    }

    #[test]
    fn a_sensor_that_went_away_is_no_fall() {
        let mut trend = Trend::new(SETTINGS);
        for minute in (0..120).step_by(10) {
            trend.observe(&seen(minute, 5));
        }
        let without = |minute| {
            let mut partial = seen(minute, 2);
            partial.points[0] = None;
            partial
        };
        let courses: Vec<Course> = (120..240).step_by(10).map(|minute| trend.observe(&without(minute))).collect();
        assert!(courses.iter().all(|course| !course.in_words().contains("falling")), "{courses:?}");
        assert_eq!(courses[0].in_words(), "");
        assert!(courses[11].in_words().ends_with("; steady."), "{}", courses[11].in_words());
    }

    #[test]
    fn the_slope_is_that_of_least_squares() {
        let mut trend = Trend::new(SETTINGS);
        for (minute, total) in [(0, 1), (60, 2), (120, 3)] {
            trend.observe(&seen(minute, total));
        }
        // Hours 0 1 2 3 with 1 2 3 6: mean 1.5 and 3; (-1.5·-2 + -0.5·-1 + 0 + 1.5·3) / 5 = 8 / 5.
        let course = trend.observe(&seen(180, 6));
        assert!((course.slope.unwrap() - 1.6).abs() < 1e-12, "{course:?}");
        assert_eq!(
            course.in_words(),
            " Earlier totals: 2 (2.0 h before), 3 (60 min before); rising by 1.6 points an hour."
        );
        let mut trend = Trend::new(SETTINGS);
        let falling: Vec<Course> = [(0, 7), (60, 5), (120, 3)].map(|(m, t)| trend.observe(&seen(m, t))).into();
        assert!(falling[2].in_words().contains("falling by 2.0 points an hour") && falling[2].rise.is_none());
    }

    #[test]
    fn a_word_for_the_whole_span_never_says_otherwise_than_the_last_total() {
        let mut trend = Trend::new(SETTINGS);
        let mut last = String::new();
        for minute in (0..120).step_by(10) {
            last = trend.observe(&seen(minute, 0)).in_words();
        }
        assert!(last.ends_with("; steady."), "{last}");
        let jumped = trend.observe(&seen(121, 5)).in_words();
        assert!(!jumped.contains("steady"), "{jumped}");
        let mut trend = Trend::new(SETTINGS);
        for (minute, total) in [(0, 1), (60, 6), (120, 14), (125, 15)] {
            last = trend.observe(&seen(minute, total)).in_words();
        }
        assert!(last.contains("rising"), "{last}");
        let fell = trend.observe(&seen(130, 8)).in_words();
        assert!(!fell.contains("rising"), "{fell}");
    }

    #[test]
    fn it_is_bounded_and_survives_a_restart() {
        let mut trend = Trend::new(SETTINGS);
        for minute in 0..10_000 {
            trend.observe(&seen(minute, u32::from(minute % 3 == 0)));
        }
        assert!(trend.buckets.len() <= BUCKETS as usize + 1);
        let mut writer = Writer::new(1);
        trend.write(&mut writer);
        let bytes = writer.finish();
        assert!(bytes.len() < 1_200, "{}", bytes.len());
        let mut reader = Reader::new("news2", 1, &bytes).unwrap();
        let mut again = Trend::read(SETTINGS, &mut reader).unwrap();
        assert_eq!(again, trend);
        let rows = || (10_000..10_010).map(|minute| (minute, 4));
        assert_eq!(said(&mut again, rows()), said(&mut trend, rows()));
        let mut reader = Reader::new("news2", 1, &bytes).unwrap();
        let wider = TrendSettings { span: 2 * SETTINGS.span, ..SETTINGS };
        assert!(Trend::read(wider, &mut reader).unwrap().buckets.is_empty());
    }

    #[test]
    fn a_late_row_changes_nothing() {
        let mut trend = Trend::new(SETTINGS);
        said(&mut trend, [(0, 1), (120, 2)]);
        let before = trend.clone();
        trend.observe(&seen(60, 9));
        assert_eq!(trend, before);
    }
}
