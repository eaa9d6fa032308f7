//! What an event says of a summary: the JSON that leaves.

use std::collections::BTreeMap;

use nearside_schemas::{
    CloseCause, FieldPolicy, FieldSummary, Finding, ModelRef, Personal, SetAsideCounts, StreamSpec, Summary, Timestamp,
    Verdict,
};
use serde::Serialize;
use serde_json::Value;

use crate::envelope::{Context, Envelope, pseudonym};
use crate::error::PrivacyError;
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
    pub(crate) fields: &'a [FieldSummary],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    texts: BTreeMap<&'a str, Vec<Value>>,
    findings: &'a [Finding],
    verdict: &'a Verdict,
    models: &'a [ModelRef],
}

/// What becomes of personal values.
pub(crate) enum Hiding<'a> {
    /// As the policies say.
    Policies(&'a KeyRing),
    /// As the policies say, but without ciphertext, which differs in every run: for replay (promise I5).
    Preview(&'a KeyRing),
}

impl Hiding<'_> {
    /// What a value leaves as; `None`: it does not leave.
    fn hide(
        &self,
        policy: FieldPolicy,
        context: Context<'_>,
        value: &Personal<std::sync::Arc<str>>,
    ) -> Result<Option<Value>, PrivacyError> {
        let (Self::Policies(keys) | Self::Preview(keys)) = self;
        Ok(match policy {
            FieldPolicy::Clear => Some(Value::from(value.expose().as_ref())),
            FieldPolicy::Pseudonym => Some(Value::from(pseudonym(keys, context.field, value.expose()))),
            FieldPolicy::Drop => None,
            FieldPolicy::Encrypt => Some(match self {
                Self::Preview(_) => Value::from("encrypted"),
                Self::Policies(keys) => serde_json::to_value(Envelope::seal(keys, context, value.expose())?)
                    .map_err(|_| PrivacyError::Encode { format: "JSON" })?,
            }),
        })
    }
}

pub(crate) fn summary_view<'a>(
    summary: &'a Summary,
    spec: &'a StreamSpec,
    hiding: &Hiding<'_>,
) -> Result<SummaryView<'a>, PrivacyError> {
    let item = format!("{}:r{}", summary.window, summary.revision);
    let context = |field| Context { site: summary.site.as_str(), item: &item, field };
    let mut key = BTreeMap::new();
    for (part, value) in spec.key.iter().zip(&summary.key) {
        if let Some(hidden) = hiding.hide(part.policy, context(part.name.as_str()), value)? {
            key.insert(part.name.as_str(), hidden);
        }
    }
    let mut texts = BTreeMap::new();
    for (name, values) in &summary.texts {
        // Text of a field that the definition does not know has no policy and so does not leave.
        let policy =
            spec.fields.iter().find(|field| field.name == *name).map_or(FieldPolicy::Drop, |field| field.policy);
        let mut hidden = Vec::new();
        for value in values {
            hidden.extend(hiding.hide(policy, context(name.as_str()), value)?);
        }
        if !hidden.is_empty() {
            texts.insert(name.as_str(), hidden);
        }
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
        fields: &summary.fields,
        texts,
        findings: &summary.findings,
        verdict: &summary.verdict,
        models: &summary.models,
    })
}
