//! Every metric that a dashboard or an alert names is a row of the table of metrics, and every label one of that metric's.

use std::path::Path;

use serde_json::Value;

use crate::expressions::{faults, metric};

pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut offences = Vec::new();
    let mut folders = vec![root.join("dashboards")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = super::read(&path)?;
                let names = unknown(&text).into_iter().map(|name| format!("no metric `{name}`"));
                let labels =
                    expressions(&text).into_iter().flat_map(|(expression, legend)| faults(&expression, &legend));
                offences.extend(names.chain(labels).map(|what| format!("{}: {what}", path.display())));
            }
        }
    }
    Ok(offences)
}

/// The expressions of a dashboard (JSON) or of alerts (YAML, one expression a line), with their legends.
fn expressions(text: &str) -> Vec<(String, String)> {
    if let Ok(dashboard) = serde_json::from_str::<Value>(text) {
        let mut found = Vec::new();
        collect(&dashboard, &mut found);
        return found;
    }
    let alerts = text.lines().filter_map(|line| line.trim().strip_prefix("expr:"));
    alerts.map(|expression| (expression.trim().to_owned(), String::new())).collect()
}

fn collect(value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            if let Some(expression) = members.get("expr").and_then(Value::as_str) {
                let legend = members.get("legendFormat").and_then(Value::as_str).unwrap_or("");
                found.push((expression.to_owned(), legend.to_owned()));
            }
            members.values().for_each(|member| collect(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

/// The names in `text` that are no metric.
fn unknown(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("nearside_") && metric(word).is_none())
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_with_the_table() {
        let text = "rate(nearside_readings_total[1m]) nearside_nothing nearside_journal_sync_seconds_bucket";
        assert_eq!(unknown(text), ["nearside_nothing"]);
    }

    #[test]
    fn expressions_are_found_in_dashboards_and_alerts() {
        let dashboard = r#"{"panels":[{"targets":[{"expr":"nearside_ready","legendFormat":"up"}]}]}"#;
        assert_eq!(expressions(dashboard), [("nearside_ready".to_owned(), "up".to_owned())]);
        assert_eq!(
            expressions("  - alert: A\n    expr: nearside_ready == 0\n"),
            [("nearside_ready == 0".to_owned(), String::new())]
        );
    }
}
