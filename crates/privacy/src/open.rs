//! Opening: the holder of the site's key reads what was encrypted.

use serde_json::Value;

use crate::envelope::{Context, Envelope};
use crate::error::PrivacyError;
use crate::keys::KeyRing;

/// The event with every envelope in its `data.key` and `data.texts` replaced by what it holds.
///
/// # Errors
/// Where it is no event of Nearside's, or an envelope does not open with this key in this place.
pub fn open_event(mut event: Value, keys: &KeyRing) -> Result<Value, PrivacyError> {
    let text = |event: &Value, name: &str| event.get(name).and_then(Value::as_str).map(str::to_owned);
    let item = text(&event, "id").ok_or(PrivacyError::Event { what: "it has no `id`" })?;
    let source = text(&event, "source").ok_or(PrivacyError::Event { what: "it has no `source`" })?;
    let site = source.strip_prefix("nearside/").ok_or(PrivacyError::Event { what: "its `source` is not nearside" })?;
    let data = event.get_mut("data").ok_or(PrivacyError::Event { what: "it has no `data`" })?;
    for group in ["key", "texts"] {
        let Some(Value::Object(fields)) = data.get_mut(group) else { continue };
        for (field, value) in fields {
            let context = Context { site, item: &item, field };
            match value {
                Value::Array(values) => {
                    for value in values {
                        open_value(value, keys, context)?;
                    }
                }
                value => open_value(value, keys, context)?,
            }
        }
    }
    Ok(event)
}

fn open_value(value: &mut Value, keys: &KeyRing, context: Context<'_>) -> Result<(), PrivacyError> {
    if value.is_object()
        && let Ok(envelope) = serde_json::from_value::<Envelope>(value.clone())
    {
        *value = Value::from(envelope.open(keys, context)?);
    }
    Ok(())
}
