//! What an event says of a summary: the JSON that leaves.

use std::collections::BTreeMap;

use nearside_schemas::{
    CloseCause, FieldKind, FieldName, FieldPolicy, FieldSummary, KeyPartSpec, KeyValues, ModelRef, Personal,
    SetAsideCounts, StreamSpec, Summary, Timestamp, Verdict,
};
use serde::Serialize;
use serde_json::Value;

use crate::envelope::{Context, Envelope, pseudonym};
use crate::error::PrivacyError;
use crate::finding::finding_view;
use crate::keys::KeyRing;

/// A summary after its policies.
#[derive(Serialize)]
pub(crate) struct SummaryView<'a> {
    site: &'a str,
    stream: &'a str,
    group: &'a str,
    window: String,
    revision: u32,
    start: Timestamp,
    end: Timestamp,
    cause: CloseCause,
    rows: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    key: BTreeMap<&'a str, Value>,
    #[serde(skip_serializing_if = "SetAsideCounts::is_empty")]
    set_aside: &'a SetAsideCounts,
    fields: Vec<&'a FieldSummary>,
    /// By field: the figures that leave as ciphertext.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sealed_fields: BTreeMap<&'a str, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    texts: BTreeMap<&'a str, Vec<Value>>,
    findings: Vec<Value>,
    verdict: &'a Verdict,
    models: &'a [ModelRef],
}

/// What becomes of personal values.
pub(crate) enum Hiding<'a> {
    /// As the policies say.
    Policies(&'a KeyRing),
    /// As the policies say, but without ciphertext, which differs in every run: for replay (promise I5).
    Preview(&'a KeyRing),
    /// As for a preview where no key part and no text is at hand, so that no key is needed either.
    Placeholder,
}

/// An event on its way out: whose it is and what becomes of its personal values.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) site: &'a str,
    /// The event's id.
    pub(crate) item: &'a str,
    pub(crate) hiding: &'a Hiding<'a>,
}

impl Outgoing<'_> {
    /// An envelope of the value at this place of the event's data.
    pub(crate) fn encrypt(&self, place: &str, value: &impl Serialize) -> Result<Value, PrivacyError> {
        match self.hiding {
            Hiding::Preview(_) | Hiding::Placeholder => Ok(Value::from("encrypted")),
            Hiding::Policies(keys) => {
                let context = Context { site: self.site, item: self.item, place };
                serde_json::to_value(Envelope::seal(keys, context, value)?)
                    .map_err(|_| PrivacyError::Encode { format: "JSON" })
            }
        }
    }

    /// What a value of a field leaves as; `None`: it does not leave.
    fn hide(
        &self,
        policy: FieldPolicy,
        field: &str,
        place: &str,
        value: &Personal<std::sync::Arc<str>>,
    ) -> Result<Option<Value>, PrivacyError> {
        let value = value.expose().as_ref();
        Ok(match policy {
            FieldPolicy::Clear => Some(Value::from(value)),
            FieldPolicy::Pseudonym => match self.hiding {
                Hiding::Policies(keys) | Hiding::Preview(keys) => Some(Value::from(pseudonym(keys, field, value))),
                Hiding::Placeholder => None,
            },
            FieldPolicy::Drop => None,
            FieldPolicy::Encrypt => Some(self.encrypt(place, &value)?),
        })
    }
}

/// What may leave of a field. One that the definition does not know has no policy and so does not leave.
pub(crate) fn policy_of(spec: &StreamSpec, field: &FieldName) -> FieldPolicy {
    spec.fields.iter().find(|known| known.name == *field).map_or(FieldPolicy::Drop, |known| known.policy)
}

/// What leaves of a stream's key.
pub(crate) fn key_view<'a>(
    key: &KeyValues,
    spec: &'a StreamSpec,
    outgoing: &Outgoing<'_>,
) -> Result<BTreeMap<&'a str, Value>, PrivacyError> {
    let mut view = BTreeMap::new();
    for (part, value) in spec.key.iter().zip(key) {
        let name = part.name.as_str();
        if let Some(hidden) = outgoing.hide(part.policy, name, &format!("/key/{name}"), value)? {
            view.insert(name, hidden);
        }
    }
    Ok(view)
}

/// What may be shown of a stream's key at the site: clear parts as they are, and parts that leave as a pseudonym as that same pseudonym.
/// Parts that are encrypted or do not leave are not shown.
pub fn shown_key<'a>(key: &KeyValues, spec: &'a StreamSpec, keys: &KeyRing) -> Vec<(&'a FieldName, String)> {
    let shown = |(part, value): (&'a KeyPartSpec, &Personal<std::sync::Arc<str>>)| {
        let value = value.expose().as_ref();
        match part.policy {
            FieldPolicy::Clear => Some((&part.name, value.to_owned())),
            FieldPolicy::Pseudonym => Some((&part.name, pseudonym(keys, part.name.as_str(), value))),
            FieldPolicy::Encrypt | FieldPolicy::Drop => None,
        }
    };
    spec.key.iter().zip(key).filter_map(shown).collect()
}

pub(crate) fn summary_view<'a>(
    summary: &'a Summary,
    spec: &'a StreamSpec,
    hiding: &Hiding<'_>,
) -> Result<SummaryView<'a>, PrivacyError> {
    let item = format!("{}:r{}", summary.window, summary.revision);
    let outgoing = Outgoing { site: summary.site.as_str(), item: &item, hiding };
    let key = key_view(&summary.key, spec, &outgoing)?;
    let mut texts = BTreeMap::new();
    for (name, values) in &summary.texts {
        let policy = policy_of(spec, name);
        let mut hidden = Vec::new();
        for value in values {
            let place = format!("/texts/{name}/{}", hidden.len());
            hidden.extend(outgoing.hide(policy, name.as_str(), &place, value)?);
        }
        if !hidden.is_empty() {
            texts.insert(name.as_str(), hidden);
        }
    }
    let mut sealed_fields = BTreeMap::new();
    for (name, figures) in &summary.hidden_fields {
        // Whoever made the summary has left others out; were that forgotten, they still do not leave.
        if policy_of(spec, name) == FieldPolicy::Encrypt {
            sealed_fields.insert(name.as_str(), outgoing.encrypt(&format!("/sealed_fields/{name}"), figures.expose())?);
        }
    }
    let mut findings = Vec::with_capacity(summary.findings.len());
    for (index, finding) in summary.findings.iter().enumerate() {
        findings.push(finding_view(finding, spec, &outgoing, &format!("/findings/{index}"))?);
    }
    Ok(SummaryView {
        site: summary.site.as_str(),
        stream: summary.stream.as_str(),
        group: &summary.group,
        window: summary.window.to_string(),
        revision: summary.revision,
        start: summary.window.start,
        end: summary.end,
        cause: summary.cause,
        rows: summary.rows,
        key,
        set_aside: &summary.set_aside,
        fields: clear_figures(summary, spec),
        sealed_fields,
        texts,
        findings,
        verdict: &summary.verdict,
        models: &summary.models,
    })
}

/// The figures of numeric fields that may leave as they are. Whoever made the summary has left the others out; were that forgotten, they
/// still do not leave (promise I2).
pub(crate) fn clear_figures<'a>(summary: &'a Summary, spec: &StreamSpec) -> Vec<&'a FieldSummary> {
    let clear = |name: &FieldName| {
        spec.fields
            .iter()
            .any(|field| field.name == *name && field.kind == FieldKind::Number && field.policy == FieldPolicy::Clear)
    };
    summary.fields.iter().filter(|figures| clear(&figures.name)).collect()
}
