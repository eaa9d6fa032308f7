//! What a rule sees of a finding or a summary.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cel::Context;
use nearside_schemas::{FieldSummary, Finding, KeyValues, StreamSpec, Summary, Verdict};
use serde::Serialize;
use serde_json::json;

/// Where a finding or a summary comes from: its definition and its stream's key.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The stream definition.
    pub spec: Arc<StreamSpec>,
    /// The stream's key. It is shown to the rule because the command goes to the key's own device.
    pub key: KeyValues,
}

impl Origin {
    /// The key parts by name.
    pub(super) fn parts(&self) -> HashMap<&str, &str> {
        let values = self.key.iter().map(|value| value.expose().as_ref());
        self.spec.key.iter().map(|part| part.name.as_str()).zip(values).collect()
    }
}

#[derive(Serialize)]
struct FindingView<'a> {
    id: String,
    stream: &'a str,
    model: &'a str,
    label: &'a str,
    nth: u32,
    severity: String,
    score: f64,
    threshold: f64,
    rows: u64,
    text: &'a str,
    at_ms: i64,
    seen: BTreeMap<&'a str, f64>,
}

#[derive(Serialize)]
struct FieldView {
    count: u64,
    min: f64,
    max: f64,
    mean: f64,
    std: f64,
    p05: f64,
    p25: f64,
    p50: f64,
    p75: f64,
    p95: f64,
}

#[derive(Serialize)]
struct SummaryView<'a> {
    stream: &'a str,
    rows: u64,
    revision: u32,
    set_aside: u64,
    findings: u64,
    verdict: &'static str,
    fields: BTreeMap<&'a str, FieldView>,
}

/// What a rule's expressions are evaluated on.
pub(super) type SubjectContext = Context<'static, 'static>;

/// The CEL context for a finding.
pub(super) fn finding_context(finding: &Finding, origin: &Origin) -> Result<SubjectContext, String> {
    context("finding", &finding_view(finding, origin), origin)
}

/// The names of that context as a tree.
pub(super) fn finding_tree(finding: &Finding, origin: &Origin) -> serde_json::Value {
    json!({ "finding": finding_view(finding, origin), "key": origin.parts() })
}

fn finding_view<'a>(finding: &'a Finding, origin: &'a Origin) -> FindingView<'a> {
    FindingView {
        id: finding.tag().to_string(),
        stream: origin.spec.name.as_str(),
        model: finding.model.name.as_str(),
        label: &finding.label,
        nth: finding.nth.get(),
        severity: finding.severity.to_string(),
        score: finding.score,
        threshold: finding.threshold,
        rows: finding.rows,
        text: &finding.text,
        at_ms: finding.at.as_micros() / 1_000,
        seen: finding.contributions.iter().map(|part| (part.field.as_str(), part.seen)).collect(),
    }
}

/// The CEL context for a summary.
pub(super) fn summary_context(summary: &Summary, origin: &Origin) -> Result<SubjectContext, String> {
    context("summary", &summary_view(summary), origin)
}

/// The names of that context as a tree.
pub(super) fn summary_tree(summary: &Summary, origin: &Origin) -> serde_json::Value {
    json!({ "summary": summary_view(summary), "key": origin.parts() })
}

fn summary_view(summary: &Summary) -> SummaryView<'_> {
    SummaryView {
        stream: summary.stream.as_str(),
        rows: summary.rows,
        revision: summary.revision,
        set_aside: summary.set_aside.total(),
        findings: summary.findings.len() as u64,
        verdict: match summary.verdict {
            Verdict::Judged => "judged",
            Verdict::Unjudged { .. } => "unjudged",
        },
        fields: summary.fields.iter().map(|field| (field.name.as_str(), field_view(field))).collect(),
    }
}

fn field_view(field: &FieldSummary) -> FieldView {
    let q = field.quantiles;
    FieldView {
        count: field.count,
        min: field.min,
        max: field.max,
        mean: field.mean,
        std: field.std,
        p05: q.p05,
        p25: q.p25,
        p50: q.p50,
        p75: q.p75,
        p95: q.p95,
    }
}

fn context(name: &str, view: &impl Serialize, origin: &Origin) -> Result<SubjectContext, String> {
    let mut context = Context::default();
    for (name, value) in [(name, cel::to_value(view)), ("key", cel::to_value(origin.parts()))] {
        let value = value.map_err(|error| error.to_string())?;
        context.add_variable_from_value(name, value);
    }
    Ok(context)
}
