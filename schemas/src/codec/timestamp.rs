//! Timestamps as devices write them.

use chrono::{DateTime, NaiveDate};

use super::TimestampUnit;
use crate::time::Timestamp;

/// Reads a timestamp from text: a number in `unit`, RFC 3339, or `2014-04-10 00:04:00` with or without a fraction, which
/// counts as UTC. `None` where it is none of these or lies outside what a [`Timestamp`] can hold.
pub fn parse_timestamp(text: &str, unit: TimestampUnit) -> Option<Timestamp> {
    let text = text.trim();
    if let Some(at) = plain_date_time(text.as_bytes()) {
        return Some(at);
    }
    if let Ok(number) = text.parse::<i64>() {
        return from_integer(number, unit);
    }
    if let Ok(number) = text.parse::<f64>() {
        return from_number(number, unit);
    }
    DateTime::parse_from_rfc3339(text).ok().map(|at| Timestamp::from_micros(at.timestamp_micros()))
}

/// Reads a timestamp from a number.
pub(super) fn from_number(number: f64, unit: TimestampUnit) -> Option<Timestamp> {
    // Beyond 2^53 a float has no exact integers; such numbers are nanoseconds and lose less than a microsecond.
    if number.fract() == 0.0 && number.abs() < 9e18 {
        return from_integer(number as i64, unit);
    }
    let micros = number * micros_of(unit_of(number, unit));
    (micros.is_finite() && micros.abs() < 9e18).then(|| Timestamp::from_micros(micros.round() as i64))
}

fn from_integer(number: i64, unit: TimestampUnit) -> Option<Timestamp> {
    let micros = match unit_of(number as f64, unit) {
        TimestampUnit::Seconds | TimestampUnit::Auto => number.checked_mul(1_000_000)?,
        TimestampUnit::Millis => number.checked_mul(1_000)?,
        TimestampUnit::Micros => number,
        TimestampUnit::Nanos => number.div_euclid(1_000),
    };
    Some(Timestamp::from_micros(micros))
}

const fn micros_of(unit: TimestampUnit) -> f64 {
    match unit {
        TimestampUnit::Seconds | TimestampUnit::Auto => 1e6,
        TimestampUnit::Millis => 1e3,
        TimestampUnit::Micros => 1.0,
        TimestampUnit::Nanos => 1e-3,
    }
}

/// The unit of a bare number by its size: the four cannot be confused between the years 1973 and 5138.
fn unit_of(number: f64, unit: TimestampUnit) -> TimestampUnit {
    if unit != TimestampUnit::Auto {
        return unit;
    }
    match number.abs() {
        size if size < 1e11 => TimestampUnit::Seconds,
        size if size < 1e14 => TimestampUnit::Millis,
        size if size < 1e17 => TimestampUnit::Micros,
        _ => TimestampUnit::Nanos,
    }
}

/// `YYYY-MM-DD HH:MM:SS` with a space or `T`, perhaps a fraction, perhaps `Z`: the common forms, without the general parser.
fn plain_date_time(text: &[u8]) -> Option<Timestamp> {
    let digits = |range: std::ops::Range<usize>| -> Option<u32> {
        text.get(range)?.iter().try_fold(0u32, |n, byte| byte.is_ascii_digit().then(|| n * 10 + u32::from(byte - b'0')))
    };
    let at = |place: usize, any: &[u8]| text.get(place).is_some_and(|byte| any.contains(byte));
    if !(at(4, b"-") && at(7, b"-") && at(10, b" T") && at(13, b":") && at(16, b":")) {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(digits(0..4)? as i32, digits(5..7)?, digits(8..10)?)?;
    let seconds = date.and_hms_opt(digits(11..13)?, digits(14..16)?, digits(17..19)?)?.and_utc().timestamp();
    let mut rest = &text[19..];
    let mut micros = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            return None;
        }
        let digits = fraction[..length].iter().map(|byte| i64::from(byte - b'0'));
        for digit in digits.chain(std::iter::repeat(0)).take(6) {
            micros = micros * 10 + digit;
        }
        rest = &fraction[length..];
    }
    matches!(rest, b"" | b"Z" | b"z").then(|| Timestamp::from_micros(seconds * 1_000_000 + micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_forms_are_read() {
        let auto = |text: &str| parse_timestamp(text, TimestampUnit::Auto).map(|at| at.to_string());
        for (text, expected) in [
            ("2014-04-10 00:04:00", "2014-04-10T00:04:00Z"),
            ("2014-04-10T00:04:00.25", "2014-04-10T00:04:00.250Z"),
            ("2014-04-10T00:04:00Z", "2014-04-10T00:04:00Z"),
            ("2014-04-10T08:04:00+08:00", "2014-04-10T00:04:00Z"),
            ("1397088240", "2014-04-10T00:04:00Z"),
            ("1397088240000", "2014-04-10T00:04:00Z"),
            ("1397088240000000", "2014-04-10T00:04:00Z"),
            ("1397088240000000000", "2014-04-10T00:04:00Z"),
            ("1397088240.5", "2014-04-10T00:04:00.500Z"),
        ] {
            assert_eq!(auto(text).as_deref(), Some(expected), "{text}");
        }
        for bad in
            ["", "yesterday", "2014-13-01 00:00:00", "2014-04-10 25:00:00", "nan", "1e300", "2014-04-10 00:00:00."]
        {
            assert_eq!(auto(bad), None, "{bad}");
        }
    }
}
