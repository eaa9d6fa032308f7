//! Opening: the holder of the site's key reads what was encrypted.

use serde_json::Value;

use crate::envelope::{Context, Envelope};
use crate::error::PrivacyError;
use crate::keys::KeyRing;

/// The event with every envelope in its `data` replaced by what it holds.
///
/// # Errors
/// Where it is no event of Nearside's, or an envelope does not open with this key in this place.
pub fn open_event(mut event: Value, keys: &KeyRing) -> Result<Value, PrivacyError> {
    let text = |event: &Value, name: &str| event.get(name).and_then(Value::as_str).map(str::to_owned);
    let item = text(&event, "id").ok_or(PrivacyError::Event { what: "it has no `id`" })?;
    let source = text(&event, "source").ok_or(PrivacyError::Event { what: "it has no `source`" })?;
    let site = source.strip_prefix("nearside/").ok_or(PrivacyError::Event { what: "its `source` is not nearside" })?;
    let data = event.get_mut("data").ok_or(PrivacyError::Event { what: "it has no `data`" })?;
    Opener { site, item: &item, keys }.open(data, &mut String::new())?;
    Ok(event)
}

struct Opener<'a> {
    site: &'a str,
    item: &'a str,
    keys: &'a KeyRing,
}

impl Opener<'_> {
    /// Recursion is as deep as the JSON, which its parser bounds.
    fn open(&self, value: &mut Value, place: &mut String) -> Result<(), PrivacyError> {
        match value {
            // Nothing else of Nearside's has a member `enc`, so one that is no envelope is damage and not passed over.
            Value::Object(members) if members.contains_key("enc") => {
                let envelope: Envelope =
                    serde_json::from_value(value.clone()).map_err(|_| PrivacyError::Sealed { place: place.clone() })?;
                *value = envelope.open(self.keys, Context { site: self.site, item: self.item, place })?;
            }
            Value::Object(members) => {
                for (name, member) in members {
                    self.below(member, place, name)?;
                }
            }
            Value::Array(elements) => {
                for (index, element) in elements.iter_mut().enumerate() {
                    self.below(element, place, &index.to_string())?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn below(&self, value: &mut Value, place: &mut String, step: &str) -> Result<(), PrivacyError> {
        let length = place.len();
        place.push('/');
        place.push_str(step);
        let opened = self.open(value, place);
        place.truncate(length);
        opened
    }
}
