//! What an event says of a finding.
//!
//! A finding explains itself with the values it is about (promise I6), and some of those may be personal: a position, a level of
//! consciousness. What a hidden field contributed leaves inside an envelope where its policy is `encrypt`, else not at all (I2); the
//! sentence, which may tell the same in words, goes the same way. That a field contributed, the label and the score always leave: they
//! are the judgement, and a judgement nobody hears of helps nobody.

use nearside_schemas::{FieldPolicy, Finding, StreamSpec};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::PrivacyError;
use crate::view::{Outgoing, policy_of};

/// The finding after its stream's policies; `place` is where in the event's data it stands, as a JSON pointer.
pub(crate) fn finding_view(
    finding: &Finding,
    spec: &StreamSpec,
    outgoing: &Outgoing<'_>,
    place: &str,
) -> Result<Value, PrivacyError> {
    let mut view = to_value(finding)?;
    let mut contributions = Vec::with_capacity(finding.contributions.len());
    let mut strictest = FieldPolicy::Clear;
    for (index, contribution) in finding.contributions.iter().enumerate() {
        let policy = policy_of(spec, &contribution.field);
        if policy == FieldPolicy::Clear {
            contributions.push(to_value(contribution)?);
            continue;
        }
        let mut hidden = Map::new();
        hidden.insert("field".to_owned(), Value::from(contribution.field.as_str()));
        if policy == FieldPolicy::Encrypt {
            let place = format!("{place}/contributions/{index}/sealed");
            hidden.insert("sealed".to_owned(), outgoing.encrypt(&place, contribution)?);
        } else {
            hidden.insert("withheld".to_owned(), Value::from(true));
        }
        // A number has no pseudonym: few values are possible, and who knows one pair knows them all.
        let hides_all = policy != FieldPolicy::Encrypt || strictest == FieldPolicy::Drop;
        strictest = if hides_all { FieldPolicy::Drop } else { FieldPolicy::Encrypt };
        contributions.push(Value::Object(hidden));
    }
    if let Value::Object(members) = &mut view {
        members.insert("contributions".to_owned(), Value::Array(contributions));
        let text = match strictest {
            FieldPolicy::Clear => Value::from(finding.text.as_str()),
            FieldPolicy::Encrypt => outgoing.encrypt(&format!("{place}/text"), &finding.text)?,
            FieldPolicy::Pseudonym | FieldPolicy::Drop => {
                Value::from("Withheld: it tells of a field that does not leave.")
            }
        };
        members.insert("text".to_owned(), text);
    }
    Ok(view)
}

fn to_value(value: &impl Serialize) -> Result<Value, PrivacyError> {
    serde_json::to_value(value).map_err(|_| PrivacyError::Encode { format: "JSON" })
}
