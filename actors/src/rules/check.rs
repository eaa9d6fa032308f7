//! What a rule's expressions name and give, held against what there is: a misspelt name would never hold, and leave no trace.
//!
//! Promises: an attribute that the subject does not have, a field or key part that no stream of the rule has, a label that no model
//! gives, and a condition that is no truth value are said before anything starts, all of them at once.
//! Never: an expression is refused for a value that the sample happens to have, such as a division by zero.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};
use cel::{ExecutionError, IdedExpr, Program, Value};
use nearside_models::catalog;
use nearside_schemas::{
    CloseCause, Contribution, FieldKind, FieldPolicy, FieldSummary, Finding, ModelName, ModelRef, Nth, Personal,
    Quantiles, SetAsideCounts, Severity, SiteId, StreamId, StreamSpec, Summary, Timestamp, Verdict, WindowDefinition,
    WindowId, unknown_name,
};

use super::subject::{Origin, SubjectContext, finding_context, finding_tree, summary_context, summary_tree};
use super::template::PayloadTemplate;
use super::{RuleStream, explain};
use crate::config::RuleSubject;

/// A sample of what the rule sees of one stream: every field seen, each with the value 1.
struct Sample {
    /// The names that expressions may use, as a tree.
    names: serde_json::Value,
    context: SubjectContext,
}

/// The streams that a rule looks at.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) streams: &'a [&'a RuleStream],
    /// Whether these are its streams. Where the rule does not say it in a way that can be understood they are all there are, and only what
    /// is wrong for each of them is certainly wrong.
    pub(super) is_sure: bool,
}

/// Checks what a rule's expressions name and give against samples of its streams: every key that is wrong, and why.
pub(super) fn expression_faults(
    on: RuleSubject,
    when: Option<&Program>,
    payload: Option<&PayloadTemplate>,
    seen: Seen<'_>,
) -> Vec<(&'static str, String)> {
    let samples: Vec<Sample> = seen.streams.iter().filter_map(|stream| Sample::of(&stream.spec, on)).collect();
    if samples.is_empty() {
        return Vec::new();
    }
    let names = Names { samples: &samples, seen };
    let mut faults: Vec<(&'static str, String)> = Vec::new();
    let found = when.into_iter().flat_map(|when| names.faults(when, is_truth_value));
    faults.extend(found.map(|why| ("when", why)));
    let value = |program: &Program, sample: &Sample| type_fault(program.execute(&sample.context).as_ref().err());
    let programs = payload.into_iter().flat_map(PayloadTemplate::programs);
    for why in programs.flat_map(|program| names.faults(program, value)) {
        let fault = ("publish.payload", why);
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    faults
}

/// The labels that expressions compare a finding's with and that no model of these streams gives.
pub(super) fn unheard_labels<'p>(
    programs: impl IntoIterator<Item = &'p Program>,
    streams: &[&RuleStream],
) -> BTreeSet<String> {
    let mut unheard = BTreeSet::new();
    for program in programs {
        for (path, words) in parts_of(program.expression()).into_iter().filter_map(call).flat_map(compared) {
            if path == ["finding", "label"] {
                let never = |word: &&str| !streams.iter().any(|stream| stream.labels.contains(*word));
                unheard.extend(words.into_iter().filter(never).map(str::to_owned));
            }
        }
    }
    unheard
}

/// Whether it adds up or the like: then it is no condition, whatever its values are.
fn is_arithmetic(expression: &IdedExpr) -> bool {
    const ARITHMETIC: [&str; 6] = [
        operators::ADD,
        operators::SUBSTRACT,
        operators::MULTIPLY,
        operators::DIVIDE,
        operators::MODULO,
        operators::NEGATE,
    ];
    matches!(&expression.expr, Expr::Call(call) if ARITHMETIC.contains(&call.func_name.as_str()))
}

fn is_truth_value(when: &Program, sample: &Sample) -> Result<(), String> {
    match when.execute(&sample.context) {
        Ok(Value::Bool(_)) => Ok(()),
        Ok(Value::Int(_) | Value::UInt(_) | Value::Float(_)) => Err(no_condition("a number")),
        Ok(Value::String(_)) => Err(no_condition("a text")),
        Ok(_) => Err(no_condition("something else")),
        // What does not add up would be no condition if it did.
        Err(error) if is_arithmetic(when.expression()) => {
            type_fault(Some(&error)).map_err(|_| no_condition("a calculation"))
        }
        Err(error) => type_fault(Some(&error)),
    }
}

fn no_condition(what: &str) -> String {
    format!(
        "a condition is true or false, and this is {what}: compare it with something, such as `finding.score > 0.5`"
    )
}

/// Faults that every value of these types would have.
fn type_fault(error: Option<&ExecutionError>) -> Result<(), String> {
    use ExecutionError as E;
    let is_number = |value: &Value| matches!(value, Value::Int(_) | Value::UInt(_) | Value::Float(_));
    match error {
        Some(E::UnsupportedBinaryOperator(_, left, right)) if is_number(left) && is_number(right) => {
            Err("a whole number and one with a point do not add up or the like: write `1.0` where it is `1`".into())
        }
        Some(
            error @ (E::NoSuchOverload(_)
            | E::UnexpectedType { .. }
            | E::UndeclaredReference(_)
            | E::InvalidArgumentCount { .. }
            | E::ValuesNotComparable(..)
            | E::UnsupportedBinaryOperator(..)
            | E::NotSupportedAsMethod { .. }),
        ) => Err(explain(error)),
        _ => Ok(()),
    }
}

struct Names<'a> {
    samples: &'a [Sample],
    seen: Seen<'a>,
}

impl Names<'_> {
    /// What is wrong with an expression: every name, and where all are known what it gives.
    fn faults(&self, program: &Program, gives: impl Fn(&Program, &Sample) -> Result<(), String>) -> Vec<String> {
        let mut faults: Vec<String> = Vec::new();
        for part in parts_of(program.expression()) {
            let path = self.check_path(part).err();
            let literals = call(part).map(|call| self.literal_faults(call)).unwrap_or_default();
            for why in path.into_iter().chain(literals) {
                if !faults.contains(&why) {
                    faults.push(why);
                }
            }
        }
        if faults.is_empty() {
            let wrong: Vec<String> = self.samples.iter().filter_map(|sample| gives(program, sample).err()).collect();
            if self.seen.is_sure || wrong.len() == self.samples.len() {
                faults.extend(wrong.into_iter().next());
            }
        }
        faults
    }

    /// Checks the last name of `finding.seen.speed`; those before it are expressions of their own.
    fn check_path(&self, expression: &IdedExpr) -> Result<(), String> {
        let Some(path) = path(expression) else { return Ok(()) };
        let Some((last, before)) = path.split_last() else { return Ok(()) };
        let found = |sample: &Sample| {
            let parent = before.iter().try_fold(&sample.names, |tree, name| tree.get(name))?;
            Some(parent.as_object()?.keys().cloned().collect::<Vec<String>>())
        };
        // A number has no names below it: what is asked of it is seen when it is evaluated.
        let known: BTreeSet<String> = self.samples.iter().filter_map(found).flatten().collect();
        if before.is_empty() || known.is_empty() && !before.last().is_some_and(|name| OPEN.contains(name)) {
            return Ok(());
        }
        if known.contains(*last) {
            return Ok(());
        }
        let what = match before {
            ["finding", "seen"] if self.seen.is_sure => "the streams of this rule have no field",
            ["finding", "seen"] => "no stream has the field",
            ["summary", "fields"] if self.seen.is_sure => {
                "in summaries of this rule's streams there is no clear numeric field"
            }
            ["summary", "fields"] => "in summaries of no stream there is the clear numeric field",
            ["key"] if self.seen.is_sure => "the streams of this rule have no key part",
            ["key"] => "no stream has the key part",
            _ => {
                return Err(unknown_name(
                    &format!("`{}` has no", before.join(".")),
                    last,
                    known.iter().map(String::as_str),
                ));
            }
        };
        Err(unknown_name(what, last, known.iter().map(String::as_str)))
    }

    /// Checks the words that `finding.label` and the like are compared with.
    fn literal_faults(&self, call: &CallExpr) -> Vec<String> {
        let mut faults = Vec::new();
        for (path, words) in compared(call) {
            let Some((what, known)) = self.words(&path) else { continue };
            let unknown = words.into_iter().filter(|word| !known.contains(*word));
            faults.extend(unknown.map(|word| unknown_name(what, word, known.iter().map(String::as_str))));
        }
        faults
    }

    /// The words that an attribute may have, where they are known.
    fn words(&self, path: &[&str]) -> Option<(&'static str, BTreeSet<String>)> {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let streams = self.seen.streams;
        Some(match path {
            ["finding", "label"] if streams.iter().any(|stream| stream.gives_other_labels) => return None,
            ["finding", "label"] => {
                let own = streams.iter().flat_map(|stream| stream.labels.iter().cloned());
                ("no model gives the label", shipped_labels().chain(own).collect())
            }
            ["finding", "model"] => {
                let own = streams.iter().flat_map(|stream| &stream.models).map(ToString::to_string);
                ("there is no model", catalog::names().map(str::to_owned).chain(own).collect())
            }
            ["finding", "severity"] => ("there is no severity", set(&["notice", "warning", "critical"])),
            ["finding" | "summary", "stream"] => {
                ("this rule looks at no stream", streams.iter().map(|stream| stream.spec.name.to_string()).collect())
            }
            ["summary", "verdict"] => ("there is no verdict", set(&["judged", "unjudged"])),
            _ => return None,
        })
    }
}

/// An expression and all that it is made of, what is inside before what it is inside of.
fn parts_of(expression: &IdedExpr) -> Vec<&IdedExpr> {
    let inside: Vec<&IdedExpr> = match &expression.expr {
        Expr::Select(select) => vec![&select.operand],
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            })
            .collect(),
        Expr::Comprehension(loops) => {
            vec![&loops.iter_range, &loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result]
        }
        _ => Vec::new(),
    };
    inside.into_iter().flat_map(parts_of).chain([expression]).collect()
}

const fn call(expression: &IdedExpr) -> Option<&CallExpr> {
    match &expression.expr {
        Expr::Call(call) => Some(call),
        _ => None,
    }
}

/// The attributes that a comparison looks at, each with the words that it is compared with.
fn compared(call: &CallExpr) -> Vec<(Vec<&str>, Vec<&str>)> {
    let [left, right] = call.args.as_slice() else { return Vec::new() };
    let sides = match call.func_name.as_str() {
        operators::EQUALS | operators::NOT_EQUALS => vec![(left, right), (right, left)],
        operators::IN => vec![(left, right)],
        _ => return Vec::new(),
    };
    sides.into_iter().filter_map(|(name, literal)| Some((path(name)?, texts(literal)))).collect()
}

/// The words that stand there, one by itself or several in a list.
fn texts(literal: &IdedExpr) -> Vec<&str> {
    match &literal.expr {
        Expr::List(list) => list.elements.iter().filter_map(text).collect(),
        _ => text(literal).into_iter().collect(),
    }
}

/// Where there may be no name at all, which is then none of those.
const OPEN: [&str; 3] = ["seen", "fields", "key"];

/// `finding.seen.speed` as its names, also where one stands in brackets.
fn path(expression: &IdedExpr) -> Option<Vec<&str>> {
    match &expression.expr {
        Expr::Ident(name) if ["finding", "summary", "key"].contains(&name.as_str()) => Some(vec![name]),
        Expr::Select(select) => {
            let mut names = path(&select.operand)?;
            names.push(&select.field);
            Some(names)
        }
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [base, index] = call.args.as_slice() else { return None };
            let mut names = path(base)?;
            names.push(text(index)?);
            Some(names)
        }
        _ => None,
    }
}

fn text(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// Every label of the models that ship.
fn shipped_labels() -> impl Iterator<Item = String> {
    catalog::names().flat_map(catalog::labels)
}

impl Sample {
    /// `None` where a sample cannot be made, which leaves the rule to its evaluation.
    fn of(spec: &StreamSpec, on: RuleSubject) -> Option<Self> {
        let key = spec.key.iter().map(|_| Personal::new(Arc::from("key"))).collect();
        let origin = Origin { spec: Arc::new(spec.clone()), key };
        let window = WindowId {
            stream: StreamId::from_bytes([0; 16]),
            definition: WindowDefinition::new("sample").ok()?,
            start: Timestamp::from_secs(0),
        };
        match on {
            RuleSubject::Finding => {
                let finding = finding(spec, window)?;
                Some(Self { names: finding_tree(&finding, &origin), context: finding_context(&finding, &origin).ok()? })
            }
            RuleSubject::Summary => {
                let summary = summary(spec, window)?;
                Some(Self { names: summary_tree(&summary, &origin), context: summary_context(&summary, &origin).ok()? })
            }
        }
    }
}

fn finding(spec: &StreamSpec, window: WindowId) -> Option<Finding> {
    let contribution = |field: &nearside_schemas::FieldSpec| Contribution {
        field: field.name.clone(),
        seen: 1.0,
        expected: None,
        band: None,
        share: 1.0,
        note: None,
    };
    Some(Finding {
        field: None,
        nth: Nth::FIRST,
        window,
        model: ModelRef { name: ModelName::new("sample").ok()?, version: "1".into() },
        label: "sample".to_owned(),
        severity: Severity::Notice,
        since: Timestamp::from_secs(0),
        at: Timestamp::from_secs(0),
        rows: 1,
        score: 1.0,
        threshold: 1.0,
        contributions: spec.fields.iter().map(contribution).collect(),
        text: "sample".to_owned(),
    })
}

fn summary(spec: &StreamSpec, window: WindowId) -> Option<Summary> {
    let clear = spec.fields.iter().filter(|f| f.kind == FieldKind::Number && f.policy == FieldPolicy::Clear);
    let quantiles = Quantiles { p05: 1.0, p25: 1.0, p50: 1.0, p75: 1.0, p95: 1.0 };
    let figures = |field: &nearside_schemas::FieldSpec| FieldSummary {
        name: field.name.clone(),
        unit: None,
        count: 1,
        min: 1.0,
        max: 1.0,
        mean: 1.0,
        std: 1.0,
        quantiles,
    };
    Some(Summary {
        site: SiteId::new("sample").ok()?,
        stream: spec.name.clone(),
        group: spec.group.clone(),
        key: Default::default(),
        window,
        revision: 0,
        end: Timestamp::from_secs(1),
        cause: CloseCause::Watermark,
        rows: 1,
        set_aside: SetAsideCounts::default(),
        fields: clear.map(figures).collect(),
        hidden_fields: Vec::new(),
        texts: Vec::new(),
        findings: Vec::new(),
        verdict: Verdict::Judged,
        models: Vec::new(),
    })
}
