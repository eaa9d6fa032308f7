//! A row's time that is far from its receipt: what probably causes it, in words for who set the stream up.
//!
//! Never: a time or any other value of a device in the words (promise I2).

use nearside_schemas::Timestamp;
use nearside_schemas::codec::{TimestampSpec, TimestampUnit};

/// The units with their names in the configuration and their length in microseconds.
const UNITS: [(TimestampUnit, &str, f64); 4] = [
    (TimestampUnit::Seconds, "seconds", 1e6),
    (TimestampUnit::Millis, "millis", 1e3),
    (TimestampUnit::Micros, "micros", 1.0),
    (TimestampUnit::Nanos, "nanos", 1e-3),
];

/// How near to its receipt a time in the right unit is taken to be.
const NEAR_MICROS: f64 = 366.0 * 86_400.0 * 1e6;

/// A row that was set aside because of its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skew {
    /// The row's time.
    pub time: Timestamp,
    /// When it was received.
    pub received: Timestamp,
}

impl Skew {
    /// What probably causes it and what to write.
    pub fn hint(self, timestamp: Option<&TimestampSpec>) -> String {
        match timestamp.and_then(|spec| self.likely_unit(spec.unit)) {
            Some(unit) => format!("the timestamps look like {unit}: set the timestamp's unit = \"{unit}\""),
            None if self.time < self.received => {
                "rows are older than `past`: look at the device's clock, or raise `past`".to_owned()
            }
            None => "rows are further ahead than `future`: look at the device's clock, or raise `future`".to_owned(),
        }
    }

    /// The unit in which the time would be near its receipt, where that is not the one it was read in.
    fn likely_unit(self, read_as: TimestampUnit) -> Option<&'static str> {
        let (_, _, micros) = UNITS.iter().find(|(unit, ..)| *unit == read_as)?;
        let number = self.time.as_micros() as f64 / micros;
        let near = |length: &f64| (number * length - self.received.as_micros() as f64).abs() < NEAR_MICROS;
        UNITS.iter().find(|(unit, _, length)| *unit != read_as && near(length)).map(|(_, name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_unit_is_told_from_a_wrong_clock() {
        let received = Timestamp::from_secs(1_790_000_000);
        let hint = |time, unit| Skew { time, received }.hint(Some(&TimestampSpec { path: "$.ts".into(), unit }));
        // The number 1,790,000,000 read as milliseconds is a day in January 1970.
        let read_as_millis = Timestamp::from_micros(1_790_000_000 * 1_000);
        assert!(hint(read_as_millis, TimestampUnit::Millis).contains("look like seconds"));
        assert!(hint(Timestamp::from_micros(1_790_000_000_000), TimestampUnit::Micros).contains("look like millis"));
        for unit in [TimestampUnit::Millis, TimestampUnit::Auto] {
            assert!(hint(Timestamp::from_secs(0), unit).contains("`past`"));
            assert!(hint(Timestamp::from_secs(3_000_000_000), unit).contains("`future`"));
        }
    }
}
