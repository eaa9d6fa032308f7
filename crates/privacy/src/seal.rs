//! Sealing: policies applied, written as a CloudEvents 1.0 event in structured mode.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nearside_schemas::{FieldSummary, Finding, KeyValues, RollUp, SiteId, StreamSpec, Summary, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::PrivacyError;
use crate::finding::{field_tag, finding_view};
use crate::keys::KeyRing;
use crate::sealed::{Class, Sealed, SealedItem};
use crate::view::{Hiding, Outgoing, clear_figures, key_view, summary_view};

/// How the figures of a summary are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SummaryFormat {
    /// As JSON in the event's `data`.
    #[default]
    Json,
    /// As JSON, with the fields' figures also as an Arrow IPC stream in `data_base64`-style member `fields_arrow`: one row a field.
    Arrow,
}

const EVENT_TYPE: &str = "application/cloudevents+json";

/// Seals a summary as its stream's policies say.
///
/// # Errors
/// Where the system has no randomness for envelopes.
pub fn seal_summary(
    summary: &Summary,
    spec: &StreamSpec,
    keys: &KeyRing,
    format: SummaryFormat,
) -> Result<Sealed<Summary>, PrivacyError> {
    let (site, kind, time) = (&summary.site, "io.nearside.summary.v1", summary.end);
    let (class, subject, revision) = (Class::Summary, summary.window.to_string(), summary.revision);
    let hiding = Hiding::Policies(keys);
    match format {
        // As it is, without a tree in between: there are many of these.
        SummaryFormat::Json => {
            let data = summary_view(summary, spec, &hiding)?;
            Event { site, kind, time, data }.seal(class, subject, revision)
        }
        SummaryFormat::Arrow => {
            let data = with_arrow(to_value(&summary_view(summary, spec, &hiding)?)?, summary, spec)?;
            Event { site, kind, time, data }.seal(class, subject, revision)
        }
    }
}

/// The summary's data as it would leave, but with the word `encrypted` in place of ciphertext: the same for the same
/// input (promise I5).
///
/// # Errors
/// Where it cannot be written as JSON.
pub fn preview_summary(summary: &Summary, spec: &StreamSpec, keys: &KeyRing) -> Result<Value, PrivacyError> {
    to_value(&summary_view(summary, spec, &Hiding::Preview(keys))?)
}

/// Seals a finding, which leaves ahead of its window's summary. It says whose it is as the summary will: by the parts of the stream's
/// `key` that may leave. What a field contributed that may not leave in the clear is encrypted or left out, as its policy says.
///
/// # Errors
/// Where it cannot be written as JSON, or the system has no randomness for envelopes.
pub fn seal_finding(
    finding: &Finding,
    key: &KeyValues,
    spec: &StreamSpec,
    site: &SiteId,
    keys: &KeyRing,
) -> Result<Sealed<Finding>, PrivacyError> {
    let mut subject = format!("{}:{}:{}", finding.window, finding.model, finding.label);
    if let Some(tag) = field_tag(finding, spec, keys) {
        subject.push(':');
        subject.push_str(&tag);
    }
    subject.push_str(&finding.nth.to_string());
    let item = format!("{subject}:r0");
    let outgoing = Outgoing { site: site.as_str(), item: &item, hiding: &Hiding::Policies(keys) };
    let mut data = finding_data(finding, spec, &outgoing)?;
    if let Value::Object(object) = &mut data {
        object.insert("key".to_owned(), to_value(&key_view(key, spec, &outgoing)?)?);
    }
    Event { site, kind: "io.nearside.finding.v1", time: finding.at, data }.seal(Class::Alert, subject, 0)
}

/// The finding's data as it leaves, but with the word `encrypted` in place of ciphertext (promise I5).
///
/// # Errors
/// Where it cannot be written as JSON.
pub fn preview_finding(finding: &Finding, spec: &StreamSpec) -> Result<Value, PrivacyError> {
    finding_data(finding, spec, &Outgoing { site: "", item: "", hiding: &Hiding::Placeholder })
}

fn finding_data(finding: &Finding, spec: &StreamSpec, outgoing: &Outgoing<'_>) -> Result<Value, PrivacyError> {
    let mut data = finding_view(finding, spec, outgoing, "")?;
    if let Value::Object(object) = &mut data {
        object.insert("stream".to_owned(), Value::from(spec.name.as_str()));
        object.insert("window".to_owned(), Value::from(finding.window.to_string()));
        object.insert("model".to_owned(), Value::from(finding.model.to_string()));
    }
    Ok(data)
}

/// Seals a roll-up. Roll-ups hold no key.
///
/// # Errors
/// Where it cannot be written as JSON.
pub fn seal_rollup(rollup: &RollUp, _keys: &KeyRing) -> Result<Sealed<RollUp>, PrivacyError> {
    let event = Event { site: &rollup.site, kind: "io.nearside.rollup.v1", time: rollup.end, data: to_value(rollup)? };
    event.seal(Class::RollUp, rollup.id.to_string(), rollup.revision)
}

/// The data with its figures as an Arrow stream in place of JSON.
fn with_arrow(mut data: Value, summary: &Summary, spec: &StreamSpec) -> Result<Value, PrivacyError> {
    if let Value::Object(object) = &mut data {
        object.insert("fields".to_owned(), Value::Null);
        let figures = arrow_stream(&clear_figures(summary, spec))?;
        object.insert("fields_arrow".to_owned(), Value::from(STANDARD.encode(figures)));
    }
    Ok(data)
}

fn to_value(value: &impl Serialize) -> Result<Value, PrivacyError> {
    serde_json::to_value(value).map_err(|_| PrivacyError::Encode { format: "JSON" })
}

struct Event<'a, D> {
    site: &'a SiteId,
    kind: &'static str,
    time: Timestamp,
    data: D,
}

/// The event as it is written.
#[derive(Serialize)]
struct CloudEvent<'a, D> {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: &'static str,
    subject: &'a str,
    time: Timestamp,
    datacontenttype: &'static str,
    data: D,
}

impl<D: Serialize> Event<'_, D> {
    fn seal<T>(self, class: Class, subject: String, revision: u32) -> Result<Sealed<T>, PrivacyError> {
        let event = CloudEvent {
            specversion: "1.0",
            id: format!("{subject}:r{revision}"),
            source: format!("nearside/{}", self.site),
            r#type: self.kind,
            subject: &subject,
            time: self.time,
            datacontenttype: "application/json",
            data: self.data,
        };
        let bytes = serde_json::to_vec(&event).map_err(|_| PrivacyError::Encode { format: "JSON" })?;
        let item = SealedItem { class, subject, revision, time: self.time, content_type: EVENT_TYPE.to_owned(), bytes };
        Ok(Sealed { item, of: PhantomData })
    }
}

/// One row a field: name, count, min, max, mean, std, p05, p25, p50, p75, p95.
fn arrow_stream(fields: &[&FieldSummary]) -> Result<Vec<u8>, PrivacyError> {
    let refused = |_| PrivacyError::Encode { format: "Arrow" };
    let numbers = |value: fn(&FieldSummary) -> f64| -> ArrayRef {
        Arc::new(fields.iter().copied().map(value).collect::<Float64Array>())
    };
    let names: StringArray = fields.iter().map(|field| Some(field.name.as_str())).collect();
    let counts: UInt64Array = fields.iter().map(|field| field.count).collect();
    let batch = RecordBatch::try_from_iter([
        ("name", Arc::new(names) as ArrayRef),
        ("count", Arc::new(counts) as ArrayRef),
        ("min", numbers(|field| field.min)),
        ("max", numbers(|field| field.max)),
        ("mean", numbers(|field| field.mean)),
        ("std", numbers(|field| field.std)),
        ("p05", numbers(|field| field.quantiles.p05)),
        ("p25", numbers(|field| field.quantiles.p25)),
        ("p50", numbers(|field| field.quantiles.p50)),
        ("p75", numbers(|field| field.quantiles.p75)),
        ("p95", numbers(|field| field.quantiles.p95)),
    ])
    .map_err(refused)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).map_err(refused)?;
    writer.write(&batch).map_err(refused)?;
    writer.into_inner().map_err(refused)
}
