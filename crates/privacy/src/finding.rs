//! What an event says of a finding.
//!
//! A finding explains itself with the values it is about (promise I6), and some of those may be personal: a position, a level of
//! consciousness. What a hidden field contributed leaves inside an envelope where its policy is `encrypt`, else not at all (I2); the
//! score and the sentence, which may tell the same, go the same way. A total less the shares of the fields that are shown is the
//! share of the one that is not, and an order by share tells which is the larger: so beside a hidden field no share leaves, and the
//! contributions stand in the order of the stream's fields, and the field that it was seen on is not named: its id holds a tag of that
//! field that only the key's holder can make. That a field contributed, the label and the severity always leave: they
//! are the judgement, and a judgement nobody hears of helps nobody.

use nearside_schemas::{Contribution, FieldKind, FieldPolicy, Finding, KeyPurpose, KeySource, StreamSpec};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::PrivacyError;
use crate::keys::KeyRing;
use crate::view::{Outgoing, policy_of};

/// The finding after its stream's policies; `place` is where in the event's data it stands, as a JSON pointer.
pub(crate) fn finding_view(
    finding: &Finding,
    spec: &StreamSpec,
    outgoing: &Outgoing<'_>,
    place: &str,
) -> Result<Value, PrivacyError> {
    let mut view = to_value(finding)?;
    let strictest = strictest(finding, spec);
    if let (Value::Object(members), true) = (&mut view, strictest != FieldPolicy::Clear) {
        members.insert("contributions".to_owned(), contributions(finding, spec, outgoing, place)?);
        members.remove("score");
        members.remove("field");
        if strictest == FieldPolicy::Encrypt {
            members.insert("score".to_owned(), outgoing.encrypt(&format!("{place}/score"), &finding.score)?);
            members.insert("text".to_owned(), outgoing.encrypt(&format!("{place}/text"), &finding.text)?);
        } else {
            members.insert("text".to_owned(), Value::from("Withheld: it tells of a field that does not leave."));
        }
    }
    Ok(view)
}

/// What tells findings of one label on different fields of a window apart: the field's name, or beside a hidden field a keyed tag that
/// says nothing, and nothing of other windows.
pub(crate) fn field_tag(finding: &Finding, spec: &StreamSpec, keys: &KeyRing) -> Option<String> {
    let field = finding.field.as_ref()?;
    if strictest(finding, spec) == FieldPolicy::Clear {
        return Some(field.to_string());
    }
    let key = keys.derive(KeyPurpose::Pseudonyms, b"field of a finding");
    let named = format!("{}:{field}", finding.window);
    let tag = blake3::keyed_hash(key.as_bytes(), named.as_bytes());
    Some(tag.to_hex()[..16].to_owned())
}

/// How far a finding's score and words must be hidden: as its most hidden field. A model may have looked at any number of the stream,
/// so hidden numbers count whether or not they are among the contributions.
fn strictest(finding: &Finding, spec: &StreamSpec) -> FieldPolicy {
    let contributed = finding.contributions.iter().map(|part| policy_of(spec, &part.field));
    let numbers = spec.fields.iter().filter(|field| field.kind == FieldKind::Number).map(|field| field.policy);
    contributed.chain(numbers).fold(FieldPolicy::Clear, |strictest, policy| match (strictest, policy) {
        (strictest, FieldPolicy::Clear) => strictest,
        (FieldPolicy::Clear | FieldPolicy::Encrypt, FieldPolicy::Encrypt) => FieldPolicy::Encrypt,
        // A number has no pseudonym: few values are possible, and who knows one pair knows them all.
        _ => FieldPolicy::Drop,
    })
}

/// The contributions beside a hidden field, in the order of the stream's fields.
fn contributions(
    finding: &Finding,
    spec: &StreamSpec,
    outgoing: &Outgoing<'_>,
    place: &str,
) -> Result<Value, PrivacyError> {
    let mut parts: Vec<&Contribution> = finding.contributions.iter().collect();
    parts.sort_by_key(|part| spec.field_index(part.field.as_str()));
    let mut views = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let policy = policy_of(spec, &part.field);
        let mut view = Map::new();
        view.insert("field".to_owned(), Value::from(part.field.as_str()));
        match policy {
            FieldPolicy::Clear => {
                // Not its share, and not its note, which may tell of another field.
                view.insert("seen".to_owned(), Value::from(part.seen));
                view.extend(part.expected.map(|expected| ("expected".to_owned(), Value::from(expected))));
                view.extend(part.band.map(|(low, high)| ("band".to_owned(), Value::from(vec![low, high]))));
            }
            FieldPolicy::Encrypt => {
                let place = format!("{place}/contributions/{index}/sealed");
                view.insert("sealed".to_owned(), outgoing.encrypt(&place, part)?);
            }
            FieldPolicy::Pseudonym | FieldPolicy::Drop => {
                view.insert("withheld".to_owned(), Value::from(true));
            }
        }
        views.push(Value::Object(view));
    }
    Ok(Value::Array(views))
}

fn to_value(value: &impl Serialize) -> Result<Value, PrivacyError> {
    serde_json::to_value(value).map_err(|_| PrivacyError::Encode { format: "JSON" })
}
