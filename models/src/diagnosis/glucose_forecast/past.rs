//! The last two hours of a patient's glucose and the level of the last day: the network's inputs.
//!
//! Readings closer than [`LEAST_APART`] to the one before stand for now but are not kept, so a sensor that reads every minute costs no
//! more than one that reads every five.

use std::collections::VecDeque;

use nearside_schemas::Timestamp;

use crate::ModelError;
use crate::snapshot::{Reader, Writer};

const MINUTE: i64 = 60_000_000;
/// Minutes ago at which glucose is looked at; between readings it is interpolated.
const LAGS: [i64; 12] = [5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 90, 120];
/// The places of 5, 15 and 30 minutes in [`LAGS`].
const RECENT: [usize; 3] = [0, 2, 5];
/// Width of the network's input: differences to the lags, the level, the level by the day's, the day's spread, and by how much the last
/// two hours were lower and higher.
pub const INPUTS: usize = LAGS.len() + 5;
/// mg/dL that count as 1 in differences, and in levels.
pub const UNIT: f64 = 20.0;
const LEVEL_UNIT: f64 = 30.0;
/// mg/dL that levels are relative to.
const MIDDLE: f64 = 110.0;
/// Minutes of readings before a forecast, without a pause longer than `MOST_PAUSE`.
const LEAST_HISTORY: i64 = 60;
const MOST_PAUSE: i64 = 16;
/// Kept readings are at least this far apart.
const LEAST_APART: i64 = 150 * 1_000_000;
/// What is older is forgotten, but for one reading to interpolate to.
const HISTORY: i64 = 120 * MINUTE;
/// Kept readings of a day: the level and spread are averaged over as many.
const DAY_READINGS: f64 = 288.0;
/// The spread, mg/dL, before anything is known, and how many readings that counts as.
const SPREAD: (f64, f64) = (20.0, 20.0);

/// What is known of a patient's past.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    readings: VecDeque<(i64, f64)>,
    count: u32,
    level: f64,
    spread: f64,
}

/// The inputs of one reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inputs {
    /// As the network takes them.
    pub network: [f32; INPUTS],
    /// Differences to 5, 15 and 30 minutes ago and to the day's level, in the network's units: what a patient's own correction is
    /// made of.
    pub own: [f64; 4],
}

impl Past {
    /// Takes a reading in mg/dL; its inputs once there is an hour of history. A time that is not later than the last is passed over.
    pub fn observe(&mut self, time: Timestamp, mg_dl: f64) -> Option<Inputs> {
        let now = time.as_micros();
        if self.readings.back().is_some_and(|(last, _)| now <= *last) {
            return None;
        }
        let inputs = self.inputs(now, mg_dl);
        if self.readings.back().is_none_or(|(last, _)| now.saturating_sub(*last) >= LEAST_APART) {
            self.keep(now, mg_dl);
        }
        inputs
    }

    fn keep(&mut self, now: i64, mg_dl: f64) {
        self.readings.push_back((now, mg_dl));
        while self.readings.get(1).is_some_and(|(second, _)| now.saturating_sub(*second) >= HISTORY) {
            self.readings.pop_front();
        }
        self.count = self.count.saturating_add(1);
        let count = f64::from(self.count);
        if self.count == 1 {
            (self.level, self.spread) = (mg_dl, SPREAD.0);
        }
        self.level += (1.0 / count).max(1.0 / DAY_READINGS) * (mg_dl - self.level);
        let rate = (1.0 / (count + SPREAD.1)).max(1.0 / DAY_READINGS);
        self.spread += rate * ((mg_dl - self.level).abs() - self.spread);
    }

    fn inputs(&self, now: i64, mg_dl: f64) -> Option<Inputs> {
        if !self.is_enough(now) {
            return None;
        }
        let recent = self.readings.iter().filter(|(time, _)| now.saturating_sub(*time) <= HISTORY);
        let (least, most) =
            recent.fold((mg_dl, mg_dl), |(least, most), (_, value)| (least.min(*value), most.max(*value)));
        let changes = LAGS.map(|lag| (mg_dl - self.at(now.saturating_sub(lag * MINUTE), now, mg_dl)) / UNIT);
        let by_day = (mg_dl - self.level) / LEVEL_UNIT;
        let rest =
            [(mg_dl - MIDDLE) / LEVEL_UNIT, by_day, self.spread / UNIT, (mg_dl - least) / UNIT, (most - mg_dl) / UNIT];
        let mut network = [0.0; INPUTS];
        network.iter_mut().zip(changes.iter().chain(&rest)).for_each(|(input, value)| *input = *value as f32);
        let [five, fifteen, thirty] = RECENT.map(|place| changes[place]);
        Some(Inputs { network, own: [five, fifteen, thirty, by_day] })
    }

    /// Whether readings go back an hour without a long pause.
    fn is_enough(&self, now: i64) -> bool {
        let mut later = now;
        for (time, _) in self.readings.iter().rev() {
            if later.saturating_sub(*time) > MOST_PAUSE * MINUTE {
                return false;
            }
            later = *time;
            // Sensors keep their minutes to a few seconds.
            if now.saturating_sub(later) >= LEAST_HISTORY * MINUTE - LEAST_APART {
                return true;
            }
        }
        false
    }

    /// Glucose at a time of the past by linear interpolation; before the first reading it counts as that.
    fn at(&self, time: i64, now: i64, mg_dl: f64) -> f64 {
        let mut later = (now, mg_dl);
        for reading in self.readings.iter().rev() {
            if reading.0 <= time {
                let share = (time - reading.0) as f64 / (later.0 - reading.0).max(1) as f64;
                return reading.1 + share * (later.1 - reading.1);
            }
            later = *reading;
        }
        later.1
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.count);
        writer.f64(self.level);
        writer.f64(self.spread);
        writer.u32(self.readings.len() as u32);
        for (time, mg_dl) in &self.readings {
            writer.i64(*time);
            writer.f64(*mg_dl);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let (count, level, spread) = (reader.u32()?, reader.f64()?, reader.f64()?);
        let kept = reader.count((HISTORY / LEAST_APART) as usize + 2)?;
        let readings: VecDeque<(i64, f64)> =
            (0..kept).map(|_| Ok((reader.i64()?, reader.f64()?))).collect::<Result<_, ModelError>>()?;
        if readings.iter().zip(readings.iter().skip(1)).any(|(a, b)| a.0 >= b.0) {
            return Err(reader.damaged("readings are out of order"));
        }
        Ok(Self { readings, count, level, spread })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(minutes: i64) -> Timestamp {
        Timestamp::from_secs(minutes * 60)
    }

    #[test]
    fn differences_are_taken_by_time() {
        let mut past = Past::default();
        // 1 mg/dL a minute, read at uneven times.
        let times = [0, 5, 10, 16, 20, 31, 35, 40, 45, 50, 55];
        for time in times {
            assert_eq!(past.observe(minutes(time), 100.0 + time as f64), None, "{time}");
        }
        let inputs = past.observe(minutes(60), 160.0).unwrap();
        for (input, lag) in inputs.network.iter().zip(LAGS) {
            let expected = lag.min(60) as f64 / UNIT;
            assert!((f64::from(*input) - expected).abs() < 1e-6, "{lag} minutes: {input}");
        }
        assert_eq!(inputs.own[..3], [0.25, 0.75, 1.5]);
        assert_eq!(inputs.network[INPUTS - 2..], [3.0, 0.0], "above the lowest, at the highest");
    }

    #[test]
    fn a_pause_starts_the_hour_again_and_an_old_time_is_passed_over() {
        let mut past = Past::default();
        for row in 0..20 {
            past.observe(minutes(row * 5), 100.0);
        }
        assert!(past.observe(minutes(100), 100.0).is_some());
        assert_eq!(past.observe(minutes(100), 300.0), None, "the same time again");
        assert_eq!(past.observe(minutes(40), 300.0), None, "an old time");
        assert_eq!(past.observe(minutes(130), 100.0), None, "a pause of half an hour");
        let ready = (1..30).find(|row| past.observe(minutes(130 + row * 5), 100.0).is_some());
        assert_eq!(ready, Some(12), "an hour later");
    }

    #[test]
    fn a_fast_sensor_costs_no_more_and_says_the_same() {
        let curve = |minute: i64| 120.0 + 20.0 * (minute as f64 / 40.0).sin();
        let (mut slow, mut fast) = (Past::default(), Past::default());
        let (mut a, mut b) = (None, None);
        for minute in 0..=600 {
            b = fast.observe(minutes(minute), curve(minute));
            if minute % 5 == 0 {
                a = slow.observe(minutes(minute), curve(minute));
            }
        }
        let (a, b) = (a.unwrap(), b.unwrap());
        let lags = a.network[..LAGS.len()].iter().zip(b.network);
        assert!(lags.into_iter().all(|(a, b)| (a - b).abs() < 0.05), "{a:?} {b:?}");
        assert!(fast.readings.len() <= 50);
    }
}
