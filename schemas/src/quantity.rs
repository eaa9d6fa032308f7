//! Quantities as people write them in the configuration: durations (`1.5s`, `2m`) and sizes (`64KiB`).

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A quantity that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: write {example}")]
pub struct QuantityError {
    /// What was expected.
    pub what: &'static str,
    /// What was written.
    pub text: String,
    /// How it is written.
    pub example: &'static str,
}

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (digits, unit) = text.split_at(at);
    let number: f64 = digits.parse().ok()?;
    number.is_finite().then_some((number, unit.trim()))
}

/// A duration, written as a number and one of `us ms s m h d`, such as `250ms` or `1.5s`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(into = "String")]
pub struct HumanDuration(pub Duration);

const DURATION_UNITS: [(&str, f64); 6] =
    [("d", 86_400.0), ("h", 3_600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)];

impl HumanDuration {
    /// From whole seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// From whole milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for HumanDuration {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error =
            || QuantityError { what: "duration", text: text.to_owned(), example: "`250ms`, `2s`, `5m`, `1h` or `7d`" };
        let (number, unit) = split(text).ok_or_else(error)?;
        let (_, seconds) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        let micros = (number * seconds * 1e6).round();
        // A century: beyond it, adding to a timestamp means nothing.
        if micros > 100.0 * 365.25 * 86_400.0 * 1e6 {
            return Err(error());
        }
        Ok(Self(Duration::from_micros(micros as u64)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        for (unit, seconds) in DURATION_UNITS {
            let size = (seconds * 1e6) as u128;
            if micros >= size && micros.is_multiple_of(size) {
                return write!(f, "{}{unit}", micros / size);
            }
        }
        write!(f, "0s")
    }
}

/// A number of bytes, written as a number and one of `B KiB MiB GiB`, such as `64KiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(into = "String")]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// From KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// From MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error =
            || QuantityError { what: "size", text: text.to_owned(), example: "`512B`, `64KiB`, `16MiB` or `2GiB`" };
        let (number, unit) = split(text).ok_or_else(error)?;
        let (_, size) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        let bytes = number * *size as f64;
        if bytes > (1u64 << 50) as f64 {
            return Err(error());
        }
        Ok(Self(bytes.round() as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in SIZE_UNITS {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

macro_rules! text_quantity {
    ($type:ident, $what:literal, $unit:literal) => {
        impl TryFrom<String> for $type {
            type Error = QuantityError;
            fn try_from(text: String) -> Result<Self, QuantityError> {
                text.parse()
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(InWords { what: $what, unit: $unit, of: PhantomData })
            }
        }

        impl From<$type> for String {
            fn from(quantity: $type) -> String {
                quantity.to_string()
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

text_quantity!(HumanDuration, "duration", "s");
text_quantity!(ByteSize, "size", "B");

/// Reads a quantity; a bare number is answered with how it is written.
struct InWords<T> {
    what: &'static str,
    /// The unit of the hint.
    unit: &'static str,
    of: PhantomData<T>,
}

impl<T: FromStr<Err = QuantityError>> Visitor<'_> for InWords<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} with its unit in quotes, such as \"60{}\"", self.what, self.unit)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        let Self { what, unit, .. } = self;
        Err(E::custom(format!("a {what} has a unit and stands in quotes: write \"{number}{unit}\"")))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_u64(number.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, millis) in [("250ms", 250), ("1.5s", 1_500), ("2m", 120_000), ("0s", 0), ("1 h", 3_600_000)] {
            let read: HumanDuration = text.parse().unwrap();
            assert_eq!(read.get(), Duration::from_millis(millis), "{text}");
            assert_eq!(read.to_string().parse::<HumanDuration>().unwrap(), read);
        }
        for bad in ["", "5", "s", "-1s", "1w", "1e3s", "999999d", "nan s"] {
            assert!(bad.parse::<HumanDuration>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("1.5MiB", 1_572_864), ("2GiB", 1 << 31)] {
            let read: ByteSize = text.parse().unwrap();
            assert_eq!(read.bytes(), bytes, "{text}");
            assert_eq!(read.to_string().parse::<ByteSize>().unwrap(), read);
        }
        for bad in ["", "5", "5KB", "5k", "-1B", "9999999GiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
