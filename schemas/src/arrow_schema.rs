//! The Arrow schema of a stream's windows: `time`, `received`, `sequence`, then one column a field.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::stream::{FieldKind, FieldSpec};

/// Column of the event time: timestamp in microseconds, UTC, never null.
pub const TIME: usize = 0;
/// Column of the time of receipt: timestamp in microseconds, UTC, never null.
pub const RECEIVED: usize = 1;
/// Column of the device's sequence number: unsigned 64 bits, null where there is none.
pub const SEQUENCE: usize = 2;
/// The first field's column; the fields follow in the order of the stream definition.
pub const FIRST_FIELD: usize = 3;

/// The type of the two time columns.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The schema of a window with these fields: numbers are nullable `Float64`, text is nullable `Utf8`.
pub fn window_schema(fields: &[FieldSpec]) -> SchemaRef {
    let mut columns = vec![
        Field::new("time", timestamp_type(), false),
        Field::new("received", timestamp_type(), false),
        Field::new("sequence", DataType::UInt64, true),
    ];
    columns.extend(fields.iter().map(|field| {
        let kind = match field.kind {
            FieldKind::Number => DataType::Float64,
            FieldKind::Text => DataType::Utf8,
        };
        Field::new(field.name.as_str(), kind, true)
    }));
    Arc::new(Schema::new(columns))
}
