//! Payload templates: text with `${…}` in it, each a CEL expression whose value is written as JSON.

use cel::{Context, Program};

use super::{compile_expression, explain};
use crate::config::RuleSubject;

enum Part {
    Text(String),
    /// Written as a JSON value; within a JSON string, as the string's content.
    Value {
        program: Program,
        in_string: bool,
    },
}

/// A parsed payload template.
pub(super) struct PayloadTemplate(Vec<Part>);

impl PayloadTemplate {
    pub(super) fn parse(template: &str, on: RuleSubject) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = template;
        let mut in_string = false;
        while let Some(at) = rest.find("${") {
            let (text, tail) = rest.split_at(at);
            in_string = ends_in_string(text, in_string);
            parts.push(Part::Text(text.to_owned()));
            let inside = &tail[2..];
            let end = closing_brace(inside).ok_or_else(|| format!("`${{{inside}` has no closing brace"))?;
            let program = compile_expression(&inside[..end], on)?;
            parts.push(Part::Value { program, in_string });
            rest = &inside[end + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The expressions, in their order.
    pub(super) fn programs(&self) -> impl Iterator<Item = &Program> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Value { program, .. } => Some(program),
        })
    }

    pub(super) fn render(&self, context: &Context<'_, '_>) -> Result<Vec<u8>, String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value { program, in_string } => {
                    let value = program.execute(context).map_err(|error| explain(&error))?;
                    let json = value.json().map_err(|_| "the value cannot be written as JSON".to_owned())?;
                    push_value(&mut out, &json, *in_string);
                }
            }
        }
        Ok(out.into_bytes())
    }
}

fn push_value(out: &mut String, json: &serde_json::Value, in_string: bool) {
    let text = json.to_string();
    if !in_string {
        out.push_str(&text);
    } else if json.is_string() {
        out.push_str(&text[1..text.len() - 1]);
    } else {
        // Quotes of a list or an object would end the string they stand in.
        let quoted = serde_json::Value::String(text).to_string();
        out.push_str(&quoted[1..quoted.len() - 1]);
    }
}

/// Whether a JSON text that began inside a string (or not) ends inside one.
fn ends_in_string(text: &str, mut in_string: bool) -> bool {
    let mut escaped = false;
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
    }
    in_string
}

/// The position of the brace that closes an expression, past braces of map literals and of strings.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth == 0 => return Some(at),
            (None, '}') => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str) -> Result<String, String> {
        let mut context = Context::default();
        let finding = json!({"label": "say \"hi\"", "score": 0.5, "rows": 3, "seen": {"a": 1.5}});
        context.add_variable("finding", cel::to_value(finding).unwrap()).unwrap();
        PayloadTemplate::parse(template, RuleSubject::Finding)?
            .render(&context)
            .map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn values_are_json_wherever_they_stand() {
        for template in [
            r#"{"l": ${finding.label}, "s": ${finding.score}}"#,
            r#"{"l": "${finding.label}", "s": ${finding.score}}"#,
            r#"{"l": "a ${finding.seen} b", "x": ${finding.seen}}"#,
            r#"{"m": ${ {"k": finding.rows} }, "t": "\"${finding.rows}"}"#,
        ] {
            let text = render(template).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{template} → {text}: {e}"));
        }
        assert_eq!(render("plain").unwrap(), "plain");
        assert_eq!(render("${finding.rows}").unwrap(), "3");
    }

    #[test]
    fn what_fails_says_so() {
        assert!(render("${finding.nothing}").is_err());
        assert!(render("${finding.score").is_err());
        assert!(render("${other}").is_err());
    }
}
