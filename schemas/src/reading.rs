//! A reading: one row of a sensor stream, decoded.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ids::FieldName;
use crate::personal::Personal;
use crate::time::Timestamp;

/// The value of one field in one reading.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// The message did not carry this field, or carried a JSON `null`.
    Missing,
    /// A finite number; truth values are 0 and 1. A codec never lets NaN or an infinity through.
    Number(f64),
    /// Text, kept as personal until a policy says otherwise.
    Text(Personal<Arc<str>>),
}

impl FieldValue {
    /// The number, where it is one.
    pub const fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// The values of a reading, in the order of the stream's fields.
pub type Values = SmallVec<[FieldValue; 2]>;

/// The key of a stream: the values of its key parts in the order the definition states them.
pub type KeyValues = SmallVec<[Personal<Arc<str>>; 2]>;

/// One decoded row. Which stream it belongs to is known by whoever holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Event time: the device's where it sent one, else the time of receipt.
    pub time: Timestamp,
    /// When the front door received the message that carried it.
    pub received: Timestamp,
    /// The device's sequence number, where the stream has one.
    pub sequence: Option<u64>,
    /// One value for each field of the stream, in its order.
    pub values: Values,
}

impl Reading {
    /// The number in the field at `index`, where there is one.
    pub fn number(&self, index: usize) -> Option<f64> {
        self.values.get(index).and_then(FieldValue::number)
    }

    /// The index of `name` in a list of fields.
    pub fn index_of(fields: &[crate::FieldSpec], name: &FieldName) -> Option<usize> {
        fields.iter().position(|field| field.name == *name)
    }
}
