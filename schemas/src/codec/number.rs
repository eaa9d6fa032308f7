//! A bare number as text: the whole payload is one value of the stream's one field. Its time is that of receipt.

use super::layout::{Layout, finite, malformed};
use super::{CodecError, Decode, Decoded, DecodedRow};
use crate::reading::{KeyValues, Reading, Values};
use crate::stream::FieldKind;
use crate::time::Timestamp;

pub(super) struct Number {
    layout: Layout,
}

impl Number {
    pub(super) fn new(layout: Layout) -> Result<Self, CodecError> {
        let one_number = matches!(layout.fields.as_slice(), [slot] if slot.kind == FieldKind::Number);
        if !one_number || !layout.key.is_empty() || layout.timestamp.is_some() {
            let what = "format `number` carries one numeric field, no timestamp and no key: put the key in the topic";
            return Err(CodecError { what: what.to_owned() });
        }
        Ok(Self { layout })
    }
}

impl Decode for Number {
    fn decode(&self, payload: &[u8], received: Timestamp, out: &mut Decoded) {
        if !self.layout.admits(payload, out) {
            return;
        }
        let number = std::str::from_utf8(payload).ok().and_then(|text| text.trim().parse::<f64>().ok());
        match number.ok_or_else(|| malformed("expected a number")).and_then(|number| finite(number, "$")) {
            Ok(value) => {
                let values = Values::from_iter([value]);
                let reading = Reading { time: received, received, sequence: None, values };
                out.rows.push(DecodedRow { key: KeyValues::new(), reading });
            }
            Err(error) => out.errors.push(error),
        }
    }
}
