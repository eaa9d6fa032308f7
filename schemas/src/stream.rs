//! What a stream definition says of the data: its topic, key, fields and their privacy.

use serde::{Deserialize, Serialize};

use crate::codec::{CodecSpec, TimestampSpec};
use crate::ids::{FieldName, StreamName};
use crate::topic::TopicTemplate;

/// What happens to a personal field or key part before anything leaves the site (promise I2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum FieldPolicy {
    /// Leaves as it is: the value is not personal.
    Clear,
    /// Leaves only as AES-256-GCM ciphertext, bound to site, stream, window and field.
    Encrypt,
    /// Leaves only as a keyed pseudonym: equal values stay equal, nothing else can be learnt.
    Pseudonym,
    /// Does not leave at all.
    Drop,
}

/// Whether a field holds numbers or text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// A finite number; truth values count as 0 and 1.
    Number,
    /// Text.
    Text,
}

/// One field of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldSpec {
    /// Its name, which models, rules and summaries use.
    pub name: FieldName,
    /// Number or text.
    pub kind: FieldKind,
    /// The unit in UCUM or plain words, such as `km/h`; shown to people, never converted.
    pub unit: Option<String>,
    /// What may leave of it. Text that no policy names is dropped.
    pub policy: FieldPolicy,
}

/// One part of a stream's key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPartSpec {
    /// Its name, such as `patient`.
    pub name: FieldName,
    /// Where in the payload it stands, such as `$.id`; `None` where it is a part of the topic.
    pub path: Option<String>,
    /// What may leave of it. A key part that no policy names leaves as a pseudonym.
    pub policy: FieldPolicy,
}

/// A stream definition as decoding, windows and models see it. One definition has many streams, one for each key.
#[derive(Clone, PartialEq, Debug)]
pub struct StreamSpec {
    /// Its name.
    pub name: StreamName,
    /// Which topics belong to it, with the key parts that stand in the topic.
    pub topic: TopicTemplate,
    /// The payload's format and where the fields stand in it.
    pub codec: CodecSpec,
    /// Where the event time stands and how it is written; `None`: the time of receipt counts.
    pub timestamp: Option<TimestampSpec>,
    /// Where the device's sequence number stands in the payload.
    pub sequence: Option<String>,
    /// The fields, in the order that readings and Arrow columns have.
    pub fields: Vec<FieldSpec>,
    /// The key parts, in the order of the key: those of the topic first, in topic order.
    pub key: Vec<KeyPartSpec>,
    /// The group that roll-ups put this definition in; its own name where none is stated.
    pub group: String,
}

impl StreamSpec {
    /// The index of the field called `name`.
    pub fn field_index(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name.as_str() == name)
    }
}
