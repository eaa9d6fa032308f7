//! What a rule's expressions name and give, held against what there is: a misspelt name would never hold, and leave no trace.
//!
//! Promises: an attribute that the subject does not have, a field or key part that no stream of the rule has, a label that no model
//! gives, and a condition that is no truth value are said before anything starts.
//! Never: an expression is refused for a value that the sample happens to have, such as a division by zero.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};
use cel::{ExecutionError, IdedExpr, Program, Value};
use nearside_models::catalog;
use nearside_schemas::{
    CloseCause, Contribution, FieldKind, FieldPolicy, FieldSummary, Finding, ModelName, ModelRef, Personal, Quantiles,
    SetAsideCounts, Severity, SiteId, StreamId, StreamSpec, Summary, Timestamp, Verdict, WindowDefinition, WindowId,
    unknown_name,
};

use super::explain;
use super::subject::{Origin, SubjectContext, finding_context, finding_tree, summary_context, summary_tree};
use super::template::PayloadTemplate;
use crate::config::RuleSubject;

/// A sample of what the rule sees of one stream: every field seen, each with the value 1.
struct Sample {
    /// The names that expressions may use, as a tree.
    names: serde_json::Value,
    context: SubjectContext,
}

/// Checks what a rule's expressions name and give against samples of its streams: the keys that are wrong, each once, and why.
pub(super) fn expression_faults(
    on: RuleSubject,
    when: Option<&Program>,
    payload: Option<&PayloadTemplate>,
    streams: &[&StreamSpec],
) -> Vec<(&'static str, String)> {
    let samples: Vec<Sample> = streams.iter().filter_map(|stream| Sample::of(stream, on)).collect();
    if samples.is_empty() {
        return Vec::new();
    }
    let names = Names { samples: &samples, streams };
    let when = when.and_then(|when| condition_fault(when, &names).err());
    let payload = payload.and_then(|payload| payload.programs().find_map(|one| value_fault(one, &names).err()));
    when.map(|why| ("when", why)).into_iter().chain(payload.map(|why| ("publish.payload", why))).collect()
}

fn condition_fault(when: &Program, names: &Names<'_>) -> Result<(), String> {
    names.check(when.expression())?;
    names.samples.iter().try_for_each(|sample| is_truth_value(when, sample))
}

fn value_fault(program: &Program, names: &Names<'_>) -> Result<(), String> {
    names.check(program.expression())?;
    names.samples.iter().try_for_each(|sample| type_fault(program.execute(&sample.context).as_ref().err()))
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
    streams: &'a [&'a StreamSpec],
}

impl Names<'_> {
    fn check(&self, expression: &IdedExpr) -> Result<(), String> {
        match &expression.expr {
            Expr::Select(select) => {
                self.check(&select.operand)?;
                self.check_path(expression)
            }
            Expr::Call(call) => {
                let parts = call.target.iter().map(|target| &**target).chain(&call.args);
                parts.clone().try_for_each(|part| self.check(part))?;
                self.check_path(expression)?;
                self.check_literals(call)
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.check(element)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => self.check(&entry.key).and_then(|()| self.check(&entry.value)),
                EntryExpr::StructField(field) => self.check(&field.value),
            }),
            Expr::Comprehension(loops) => {
                [&loops.iter_range, &loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result]
                    .into_iter()
                    .try_for_each(|part| self.check(part))
            }
            _ => Ok(()),
        }
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
            ["finding", "seen"] => "the streams of this rule have no field",
            ["summary", "fields"] => "in summaries of this rule's streams there is no clear numeric field",
            ["key"] => "the streams of this rule have no key part",
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
    fn check_literals(&self, call: &CallExpr) -> Result<(), String> {
        let [left, right] = call.args.as_slice() else { return Ok(()) };
        let compared = match call.func_name.as_str() {
            operators::EQUALS | operators::NOT_EQUALS => vec![(left, right), (right, left)],
            operators::IN => vec![(left, right)],
            _ => return Ok(()),
        };
        for (name, literal) in compared {
            let Some(path) = path(name) else { continue };
            let Some((what, known)) = self.words(&path) else { continue };
            let words: Vec<&str> = match &literal.expr {
                Expr::List(list) => list.elements.iter().filter_map(text).collect(),
                _ => text(literal).into_iter().collect(),
            };
            if let Some(word) = words.into_iter().find(|word| !known.contains(*word)) {
                return Err(unknown_name(what, word, known.iter().map(String::as_str)));
            }
        }
        Ok(())
    }

    /// The words that an attribute may have, where they are known.
    fn words(&self, path: &[&str]) -> Option<(&'static str, BTreeSet<String>)> {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Some(match path {
            ["finding", "label"] => ("no model gives the label", labels()),
            ["finding", "model"] => ("there is no model", catalog::names().map(str::to_owned).collect()),
            ["finding", "severity"] => ("there is no severity", set(&["notice", "warning", "critical"])),
            ["finding" | "summary", "stream"] => {
                ("this rule looks at no stream", self.streams.iter().map(|stream| stream.name.to_string()).collect())
            }
            ["summary", "verdict"] => ("there is no verdict", set(&["judged", "unjudged"])),
            _ => return None,
        })
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

/// Every label that a model's card names. Its outputs are sentences: labels, each perhaps with words in brackets, and after a semicolon
/// what comes with them.
fn labels() -> BTreeSet<String> {
    let cards = catalog::names().filter_map(|name| catalog::card(name, None).ok());
    let mut labels = BTreeSet::new();
    for output in cards.flat_map(|card| card.outputs) {
        let listed = output.split(';').next().unwrap_or_default();
        let outside = listed.split('(').enumerate().map(|(n, part)| match part.split_once(')') {
            Some((_, after)) if n > 0 => after,
            _ => part,
        });
        labels.extend(outside.flat_map(|part| part.split([',', ' '])).filter(|word| word.len() > 2).map(str::to_owned));
    }
    labels
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
