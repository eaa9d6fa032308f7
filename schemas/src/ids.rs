//! Identifiers. Each is its own type; none holds personal data in the clear.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A name that breaks the rules for names: 1 to 64 bytes of `a-z A-Z 0-9 _ - .`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a valid {what}: use 1 to 64 of a-z A-Z 0-9 _ - .")]
pub struct InvalidName {
    /// What was being named.
    pub what: &'static str,
    /// The name as given, cut to 80 characters.
    pub name: String,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and takes a name: 1 to 64 bytes of `a-z A-Z 0-9 _ - .`.
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                let fits = (1..=64).contains(&name.len())
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
                if fits {
                    Ok(Self(name.into()))
                } else {
                    Err(InvalidName { what: $what, name: name.chars().take(80).collect() })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(&name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($type), self.0)
            }
        }
    };
}

name_type!(
    /// The site this gateway serves, such as `ward-7`.
    SiteId,
    "site id"
);
name_type!(
    /// The name of a `[[stream]]` definition, such as `ecg`. One definition has many streams.
    StreamName,
    "stream name"
);
name_type!(
    /// The name of a field of a stream, such as `heart_rate`.
    FieldName,
    "field name"
);
name_type!(
    /// The name of a rule. Rule names may not hold spaces; their text for people is elsewhere.
    RuleName,
    "rule name"
);
name_type!(
    /// The name of a model in the catalogue, such as `forecaster`.
    ModelName,
    "model name"
);
name_type!(
    /// The name of a window definition of a stream, such as `10s` or `hopping-10s-5s`.
    WindowDefinition,
    "window definition"
);

/// One sensor stream: a keyed hash of its definition's name and its key.
///
/// The key itself (a patient, a licence plate) never leaves the stream's actor; ids, metric labels, log
/// lines and outbox keys hold this instead (promise I2). 128 bits, printed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId([u8; 16]);

/// An id is a keyed hash already; the half that [`StreamId::bucket`] does not use is enough for a table.
impl std::hash::Hash for StreamId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.half(8));
    }
}

/// Hashes a [`StreamId`] to its own bits: nobody outside can choose them.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamIdHasher(u64);

impl std::hash::Hasher for StreamIdHasher {
    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map by stream.
pub type StreamMap<T> = std::collections::HashMap<StreamId, T, std::hash::BuildHasherDefault<StreamIdHasher>>;

impl StreamId {
    /// Derives the id of the stream of `definition` whose key parts are `key`, in the order the
    /// definition states them: BLAKE3 in keyed mode, cut to 128 bits. Parts are length-prefixed, so
    /// `("a", "bc")` and `("ab", "c")` differ.
    pub fn derive<'a>(secret: &[u8; 32], definition: &StreamName, key: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(secret);
        let mut part = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        part(definition.as_str());
        key.into_iter().for_each(part);
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }

    /// The id of these bytes, as stored.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for storing.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A number spread evenly over `0..buckets`, the same for the same id in every run.
    /// `buckets` of 0 counts as 1.
    pub fn bucket(&self, buckets: usize) -> usize {
        (self.half(0) % buckets.max(1) as u64) as usize
    }

    /// Eight of its bytes.
    fn half(&self, from: usize) -> u64 {
        let mut half = [0; 8];
        half.copy_from_slice(&self.0[from..from + 8]);
        u64::from_le_bytes(half)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

impl Serialize for StreamId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(serde::de::Error::custom("a stream id has 32 hexadecimal digits"));
        }
        let number = u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// A digest of bytes, the same in every run (BLAKE3).
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// One window of one stream: stream, window definition and start.
///
/// Printed `STREAM:DEFINITION:START` with the start in microseconds since 1970. A count window's start is
/// the time of its first row in event-time order; a session window's is its earliest row.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct WindowId {
    /// The stream.
    pub stream: StreamId,
    /// The window definition of the stream.
    pub definition: WindowDefinition,
    /// The first instant that belongs to the window.
    pub start: Timestamp,
}

impl fmt::Display for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.stream, self.definition, self.start.as_micros())
    }
}

/// Which episode of its kind in its window something is about, counted from 1.
///
/// The first is the one that it always was: it is printed as nothing and written nowhere, so ids and records of before there were others
/// are read as the first. The others are printed `#2`, `#3` and so on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct Nth(NonZeroU32);

impl Nth {
    /// The first.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// Whether it is the first.
    pub const fn is_first(&self) -> bool {
        self.0.get() == 1
    }

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl Default for Nth {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Nth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_first() { Ok(()) } else { write!(f, "#{}", self.0) }
    }
}

/// What tells a finding from the first of its label in its window: the model, the field and which of its kind it is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct Further {
    /// The model that judged.
    pub model: ModelRef,
    /// On which field; `None` where the model judges the row as a whole.
    pub field: Option<FieldName>,
    /// Which of these in the window.
    pub nth: Nth,
}

impl fmt::Display for Further {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ":{}", self.model)?;
        self.field.iter().try_for_each(|field| write!(f, ":{field}"))?;
        self.nth.fmt(f)
    }
}

/// The identity of a command: rule, window, the window's revision and, of a finding, its label and what tells it from the first of that
/// label in the window (promise I8).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct CommandId {
    /// The rule that asked for it.
    pub rule: RuleName,
    /// The window whose finding or summary fired the rule.
    pub window: WindowId,
    /// The window's revision.
    pub revision: u32,
    /// The label of the finding that fired the rule; `None` of a summary. A model's word: nothing of a device.
    pub label: Option<Arc<str>>,
    /// Of a finding that is not the window's first with this label. The first command's id is what it was before there were others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub further: Option<Further>,
}

impl CommandId {
    /// How it stands in journals of before labels were part of it, when a window had one command of a rule whatever its findings.
    pub fn without_label(&self) -> String {
        format!("{}:{}:r{}", self.rule, self.window, self.revision)
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:r{}", self.rule, self.window, self.revision)?;
        self.label.iter().try_for_each(|label| write!(f, ":{label}"))?;
        self.further.iter().try_for_each(|further| further.fmt(f))
    }
}

/// A model and the version of it that judged.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct ModelRef {
    /// The model's name in the catalogue.
    pub name: ModelName,
    /// The card's version.
    pub version: Arc<str>,
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// The MQTT client identifier of a connection. Any UTF-8 text; may be personal, so it is not printed
/// by `Debug`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// Takes a client id as the client sent it.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The id as the client sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(StreamName::new("ecg-1.raw_x").is_ok());
        for bad in ["", "a b", "城市", &"x".repeat(65)] {
            assert!(StreamName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stream_ids_keep_part_borders_apart() {
        let name = StreamName::new("s").unwrap();
        let id = |parts: &[&str]| StreamId::derive(&[7; 32], &name, parts.iter().copied());
        assert_ne!(id(&["a", "bc"]), id(&["ab", "c"]));
        assert_ne!(id(&["a"]), StreamId::derive(&[8; 32], &name, ["a"]));
        assert_eq!(id(&["a"]), id(&["a"]));
    }

    #[test]
    fn stream_id_survives_json() {
        let id = StreamId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(text, "\"000102030405060708090a0b0c0d0eff\"");
        assert_eq!(serde_json::from_str::<StreamId>(&text).unwrap(), id);
        assert!(serde_json::from_str::<StreamId>("\"+00102030405060708090a0b0c0d0eff\"").is_err());
    }
}
