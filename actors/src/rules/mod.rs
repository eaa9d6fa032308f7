//! Rules: conditions in CEL over findings and summaries that publish commands to devices.
//!
//! Promises: a command's id is rule, window and revision, and one id is issued once (promise I8); the cooldown counts from
//! what was really sent; a rule that cannot be evaluated is counted and harms no other.
//! Never: a rule sees text a device sent, or the key of another stream.

mod check;
mod engine;
mod subject;
mod template;

use nearside_schemas::{QoS, StreamSpec, TopicTemplate};

pub use engine::{Outcome, RuleFault, Rules};
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
}

/// A rule with its expressions compiled.
struct CompiledRule {
    config: RuleConfig,
    when: cel::Program,
    topic: TopicTemplate,
    payload: PayloadTemplate,
}

/// Checks a rule against the stream definitions of the site, as the configuration does before anything starts.
pub fn check_rule(rule: &RuleConfig, streams: &[StreamSpec]) -> Result<(), RuleError> {
    let wrong = |key, why| RuleError { rule: rule.name.to_string(), key, why };
    for name in &rule.streams {
        if !streams.iter().any(|stream| stream.name == *name) {
            return Err(wrong("streams", format!("there is no stream `{name}`")));
        }
    }
    let compiled = compile(rule)?;
    let looked_at: Vec<&StreamSpec> =
        streams.iter().filter(|stream| rule.streams.is_empty() || rule.streams.contains(&stream.name)).collect();
    for stream in &looked_at {
        for part in compiled.topic.parts() {
            if !stream.key.iter().any(|known| known.name == *part) {
                let why = format!(
                    "`{{{part}}}` is not a key part of stream `{}`; name the streams that have it in `streams`",
                    stream.name
                );
                return Err(wrong("publish.topic", why));
            }
        }
    }
    check::check_expressions(&compiled, &looked_at).map_err(|(key, why)| wrong(key, why))
}

fn compile(rule: &RuleConfig) -> Result<CompiledRule, RuleError> {
    let wrong = |key, why| RuleError { rule: rule.name.to_string(), key, why };
    if rule.publish.qos == QoS::ExactlyOnce {
        return Err(wrong("publish.qos", "commands are published with quality of service 0 or 1".to_owned()));
    }
    let when = compile_expression(&rule.when, rule.on).map_err(|why| wrong("when", why))?;
    let topic = TopicTemplate::parse(&rule.publish.topic).map_err(|error| wrong("publish.topic", error.to_string()))?;
    if topic.filter().contains('+') && rule.publish.topic.split('/').any(|level| level == "+") {
        return Err(wrong("publish.topic", "a command goes to one topic: `+` cannot stand in it".to_owned()));
    }
    let payload =
        PayloadTemplate::parse(&rule.publish.payload, rule.on).map_err(|why| wrong("publish.payload", why))?;
    Ok(CompiledRule { config: rule.clone(), when, topic, payload })
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
        let key = |r: RuleConfig| check_rule(&r, &[]).unwrap_err().key;
        assert_eq!(key(rule("finding.score >", "a", "x")), "when");
        assert_eq!(key(rule("summary.rows > 1", "a", "x")), "when");
        assert_eq!(key(rule("true", "a/+", "x")), "publish.topic");
        assert_eq!(key(rule("true", "a/#", "x")), "publish.topic");
        assert_eq!(key(rule("true", "a", "${finding.")), "publish.payload");
        assert_eq!(key(rule("true", "a", "${1 +}")), "publish.payload");
        assert!(check_rule(&rule("true", "a", "x"), &[]).is_ok());
    }
}
