//! Rules: conditions in CEL over findings and summaries that publish commands to devices.
//!
//! Promises: a command's id is rule, window, revision, the finding's label and which of its kind it is in the window, and one id is issued once (promise I8); the cooldown is of
//! rule, stream and label, and counts from what was really sent; a rule that cannot be evaluated is counted and harms no other.
//! Never: a rule sees text a device sent, or the key of another stream; a command goes to a topic of the gateway's own (`$…`).

mod check;
mod engine;
mod subject;
mod template;

use std::collections::BTreeSet;

use nearside_schemas::{FieldName, ModelName, QoS, StreamName, StreamSpec, TopicTemplate, nearest, unknown_name};

#[cfg(test)]
pub(crate) use engine::tests::finding as sample_finding;
pub use engine::{Cooldown, Outcome, RuleFault, Rules};
pub use subject::Origin;

use crate::config::{RuleConfig, RuleSubject};
use template::PayloadTemplate;

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule `{rule}`: {why}")]
pub struct RuleError {
    /// The rule.
    pub rule: String,
    /// The key of the rule that is wrong, such as `when` or `publish.topic`.
    pub key: &'static str,
    /// What is wrong and what to write instead.
    pub why: String,
    /// Whether it may come of another one: which streams the rule looks at is not known.
    pub is_consequence: bool,
}

/// A rule with its expressions compiled.
struct CompiledRule {
    config: RuleConfig,
    when: cel::Program,
    topic: TopicTemplate,
    payload: PayloadTemplate,
}

/// The parts of a rule, each compiled by itself: what is wrong with one hides nothing of another.
struct Parts {
    when: Result<cel::Program, RuleError>,
    topic: Result<TopicTemplate, RuleError>,
    payload: Result<PayloadTemplate, RuleError>,
    qos: Result<(), RuleError>,
}

impl Parts {
    fn of(rule: &RuleConfig) -> Self {
        let wrong = |key| move |why| error(rule, key, why);
        let qos = match rule.publish.qos {
            QoS::ExactlyOnce => Err("commands are published with quality of service 0 or 1".to_owned()),
            QoS::AtMostOnce | QoS::AtLeastOnce => Ok(()),
        };
        Self {
            when: compile_expression(&rule.when, rule.on).map_err(wrong("when")),
            topic: topic(&rule.publish.topic).map_err(wrong("publish.topic")),
            payload: PayloadTemplate::parse(&rule.publish.payload, rule.on).map_err(wrong("publish.payload")),
            qos: qos.map_err(wrong("publish.qos")),
        }
    }
}

fn error(rule: &RuleConfig, key: &'static str, why: String) -> RuleError {
    RuleError { rule: rule.name.to_string(), key, why, is_consequence: false }
}

/// A stream definition as rules see it.
#[derive(Clone, PartialEq, Debug)]
pub struct RuleStream {
    /// Its fields and key.
    pub spec: StreamSpec,
    /// Its models.
    pub models: Vec<ModelName>,
    /// The labels that they give.
    pub labels: BTreeSet<String>,
    /// Whether one of them may give labels that nothing tells of before it is loaded: a text model of the site's own.
    pub gives_other_labels: bool,
}

/// What a rule is checked against.
#[derive(Clone, Copy, Debug)]
pub struct RuleSurroundings<'a> {
    /// The site's stream definitions.
    pub streams: &'a [RuleStream],
    /// Whether what the rule says of its streams could be read.
    pub knows_its_streams: bool,
}

/// Everything that is wrong with a rule, as the configuration says it before anything starts. Without the site's stream definitions, or
/// where those are not whole, it is what the rule says by itself.
pub fn check_rule(rule: &RuleConfig, surroundings: Option<RuleSurroundings<'_>>) -> Vec<RuleError> {
    let parts = Parts::of(rule);
    let mut found: Vec<RuleError> =
        [parts.when.as_ref().err(), parts.topic.as_ref().err(), parts.payload.as_ref().err(), parts.qos.as_ref().err()]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
    let Some(RuleSurroundings { streams, knows_its_streams }) = surroundings else { return found };
    let is_unknown = |name: &&StreamName| !streams.iter().any(|stream| stream.spec.name == **name);
    for name in rule.streams.iter().filter(is_unknown) {
        let known = streams.iter().map(|stream| stream.spec.name.as_str());
        found.push(error(rule, "streams", unknown_name("there is no stream", name.as_str(), known)));
    }
    let is_sure = knows_its_streams && !rule.streams.iter().any(|name| is_unknown(&name));
    let looked_at = if is_sure { seen_by(rule, streams) } else { streams.iter().collect() };
    let seen = check::Seen { streams: &looked_at, is_sure };
    let topic = parts.topic.as_ref().ok().and_then(|topic| placeholder_fault(topic, seen));
    let topic = topic.map(|why| ("publish.topic", why));
    let (when, payload) = (parts.when.as_ref().ok(), parts.payload.as_ref().ok());
    let faults = topic.into_iter().chain(check::expression_faults(rule.on, when, payload, seen));
    found.extend(faults.map(|(key, why)| RuleError { is_consequence: !is_sure, ..error(rule, key, why) }));
    found
}

/// The streams that a rule looks at.
fn seen_by<'s>(rule: &RuleConfig, streams: &'s [RuleStream]) -> Vec<&'s RuleStream> {
    streams.iter().filter(|stream| rule.streams.is_empty() || rule.streams.contains(&stream.spec.name)).collect()
}

/// The labels that a rule compares a finding's with and that no model of its streams gives, as far as is known: each is a condition that
/// never holds, unless a model of the site's own gives it.
pub fn unheard_labels(rule: &RuleConfig, streams: &[RuleStream]) -> BTreeSet<String> {
    let Parts { when, payload, .. } = Parts::of(rule);
    let in_payload = payload.iter().flat_map(PayloadTemplate::programs);
    check::unheard_labels(when.iter().chain(in_payload), &seen_by(rule, streams))
}

/// What is wrong with the placeholders of a command's topic, and which there are.
fn placeholder_fault(topic: &TopicTemplate, seen: check::Seen<'_>) -> Option<String> {
    let streams = || seen.streams.iter().map(|stream| &stream.spec);
    let has = |stream: &StreamSpec, part: &FieldName| stream.key.iter().any(|known| known.name == *part);
    topic.parts().find_map(|part| {
        let without = streams().find(|stream| !has(stream, part))?;
        if streams().any(|stream| has(stream, part)) {
            let why = "is not a key part of stream";
            let why = format!("`{{{part}}}` {why} `{}`; name the streams that have it in `streams`", without.name);
            return seen.is_sure.then_some(why);
        }
        let known: BTreeSet<&str> = streams().flat_map(|stream| &stream.key).map(|part| part.name.as_str()).collect();
        let hint = match nearest(part.as_str(), known.iter().copied()) {
            Some(near) => format!("did you mean `{{{near}}}`?"),
            None if known.is_empty() => "they have none: give a key part a place in their `topic` or `key`".to_owned(),
            None => {
                let known: Vec<String> = known.iter().map(|name| format!("`{{{name}}}`")).collect();
                format!("there is {}", known.join(", "))
            }
        };
        let whose = if seen.is_sure { "the streams of this rule" } else { "any stream" };
        Some(format!("`{{{part}}}` is not a key part of {whose}; {hint}"))
    })
}

fn topic(text: &str) -> Result<TopicTemplate, String> {
    let topic = TopicTemplate::parse(text).map_err(|error| error.to_string())?;
    if text.starts_with('$') {
        return Err(
            "a command goes to devices: topics that begin with `$` are the gateway's own, and what it says there \
                    would be believed; choose another"
                .to_owned(),
        );
    }
    if text.split('/').any(|level| level == "+") {
        return Err("a command goes to one topic: `+` cannot stand in it".to_owned());
    }
    Ok(topic)
}

fn compile(rule: &RuleConfig) -> Result<CompiledRule, RuleError> {
    let Parts { when, topic, payload, qos } = Parts::of(rule);
    qos?;
    Ok(CompiledRule { config: rule.clone(), when: when?, topic: topic?, payload: payload? })
}

/// Compiles a CEL expression and refuses names that the subject does not have.
fn compile_expression(source: &str, on: RuleSubject) -> Result<cel::Program, String> {
    let program = cel::Program::compile(source).map_err(|errors| format!("`{source}` is not CEL: {errors}"))?;
    let subject = match on {
        RuleSubject::Finding => "finding",
        RuleSubject::Summary => "summary",
    };
    for name in program.references().variables() {
        if name != subject && name != "key" {
            return Err(format!("`{name}` is not known here; a rule on a {subject} may use `{subject}` and `key`"));
        }
    }
    Ok(program)
}

/// An evaluation's error in words. CEL's own texts may quote a value, and a value may be a key (promise I2).
fn explain(error: &cel::ExecutionError) -> String {
    use cel::ExecutionError as E;
    match error {
        E::NoSuchOverload(_)
        | E::UnexpectedType { .. }
        | E::UndeclaredReference(_)
        | E::InvalidArgumentCount { .. } => error.to_string(),
        E::DivisionByZero(_) | E::RemainderByZero(_) => "a division by zero".to_owned(),
        E::NoSuchKey(_) => "a field that the subject does not have; ask has(…) first".to_owned(),
        _ => "an operation that these values do not have".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PublishConfig;
    use nearside_schemas::{HumanDuration, RuleName};

    fn rule(when: &str, topic: &str, payload: &str) -> RuleConfig {
        RuleConfig {
            name: RuleName::new("r").unwrap(),
            on: RuleSubject::Finding,
            streams: Vec::new(),
            when: when.to_owned(),
            publish: PublishConfig {
                topic: topic.to_owned(),
                payload: payload.to_owned(),
                qos: QoS::AtLeastOnce,
                retain: false,
            },
            cooldown: HumanDuration::secs(60),
            time_to_live: HumanDuration::secs(30),
        }
    }

    #[test]
    fn wrong_rules_name_the_key() {
        let keys = |r: RuleConfig| check_rule(&r, None).into_iter().map(|error| error.key).collect::<Vec<_>>();
        assert_eq!(keys(rule("finding.score >", "a", "x")), ["when"]);
        assert_eq!(keys(rule("summary.rows > 1", "a", "x")), ["when"]);
        assert_eq!(keys(rule("true", "a/+", "x")), ["publish.topic"]);
        assert_eq!(keys(rule("true", "a/#", "x")), ["publish.topic"]);
        assert_eq!(keys(rule("true", "$SYS/broker/version", "x")), ["publish.topic"]);
        assert_eq!(keys(rule("true", "$nearside/feedback", "x")), ["publish.topic"]);
        assert_eq!(keys(rule("true", "a", "${finding.")), ["publish.payload"]);
        assert_eq!(keys(rule("true", "a", "${1 +}")), ["publish.payload"]);
        assert_eq!(keys(rule("1 >", "a/#", "${1 +}")), ["when", "publish.topic", "publish.payload"]);
        assert!(keys(rule("true", "a", "x")).is_empty());
    }
}
