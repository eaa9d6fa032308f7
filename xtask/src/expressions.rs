//! Labels in PromQL expressions: each is a label of the metric that it is asked of, by the table of metrics.
//!
//! No parser of PromQL: it looks at selectors (`metric{label="x"}`), at groupings (`by`, `without`, `on`, `ignoring`) and at
//! legends, which is all that dashboards use.

use nearside_telemetry::{Kind, Row, TABLE};

/// Labels that Prometheus adds to everything it scrapes.
const ADDED: [&str; 2] = ["job", "instance"];

/// The row of the table that a name of an expression belongs to; a histogram is named by its parts.
pub(crate) fn metric(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| match row.kind {
        Kind::Histogram(_) => matches!(name.strip_prefix(row.name), Some("_bucket" | "_sum" | "_count")),
        _ => row.name == name,
    })
}

/// What is wrong with the labels of an expression and its legend, such as `{{stream}} {{reason}}`.
pub(crate) fn faults(expression: &str, legend: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, selector) in selectors(expression) {
        let labels = selector.split(',').filter_map(|matcher| matcher.split(['=', '!']).next()).map(str::trim);
        faults.extend(labels.filter(|label| !has(name, label)).map(|label| fault(name, label)));
    }
    let mut grouped: Option<Vec<&str>> = None;
    for (keyword, labels, argument) in groupings(expression) {
        for (name, _) in selectors(argument) {
            faults.extend(labels.iter().filter(|label| !has(name, label)).map(|label| fault(name, label)));
        }
        if keyword == "by" {
            grouped.get_or_insert_default().extend(labels);
        }
    }
    let shown = legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).map(str::trim);
    for label in shown {
        let known = match &grouped {
            Some(labels) => labels.contains(&label),
            None => selectors(expression).iter().all(|(name, _)| has(name, label)),
        };
        if !known {
            faults.push(format!("legend `{legend}`: the result of `{expression}` has no label `{label}`"));
        }
    }
    faults
}

fn fault(name: &str, label: &str) -> String {
    format!("`{name}` has no label `{label}`")
}

/// A name that is no metric is said elsewhere.
fn has(name: &str, label: &str) -> bool {
    metric(name).is_none_or(|row| {
        let is_bucket = label == "le" && matches!(row.kind, Kind::Histogram(_));
        label.is_empty() || is_bucket || row.labels.contains(&label) || ADDED.contains(&label)
    })
}

/// The metrics of an expression, each with what stands in the braces behind it.
fn selectors(expression: &str) -> Vec<(&str, &str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("nearside_") {
        let tail = &rest[at..];
        let end = tail.find(|c| !is_word(c)).unwrap_or(tail.len());
        let inside = tail[end..].strip_prefix('{').and_then(|braced| braced.split('}').next());
        found.push((&tail[..end], inside.unwrap_or("")));
        rest = &tail[end..];
    }
    found
}

/// The groupings of an expression: keyword, labels, and what is grouped (the whole expression where the grouping stands behind it).
fn groupings(expression: &str) -> Vec<(&'static str, Vec<&str>, &str)> {
    let mut found = Vec::new();
    for keyword in ["by", "without", "on", "ignoring"] {
        for (at, _) in expression.match_indices(keyword) {
            let is_whole_word = expression[..at].ends_with([' ', ')']);
            let Some(list) = expression[at + keyword.len()..].trim_start().strip_prefix('(').filter(|_| is_whole_word)
            else {
                continue;
            };
            let Some((labels, tail)) = list.split_once(')') else { continue };
            let argument = tail.trim_start();
            let argument = if argument.starts_with('(') { bracketed(argument) } else { expression };
            found.push((keyword, labels.split(',').map(str::trim).collect(), argument));
        }
    }
    found
}

/// From an opening bracket to the one that closes it.
fn bracketed(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..=at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_compared_with_the_table() {
        for good in [
            "sum by (stream, reason) (rate(nearside_readings_set_aside_total[1m]))",
            "sum(rate(nearside_readings_total{stream=\"ecg\",job=\"a\"}[1m])) by (stream)",
            "histogram_quantile(0.99, sum by (le, model) (rate(nearside_inference_forward_seconds_bucket[5m])))",
            "nearside_outbox_bytes",
        ] {
            assert_eq!(faults(good, ""), Vec::<String>::new(), "{good}");
        }
        for (bad, label) in [
            ("sum by (sensor) (rate(nearside_readings_total[1m]))", "sensor"),
            ("nearside_readings_total{site=\"a\"}", "site"),
            (
                "sum by (reason) (nearside_readings_set_aside_total) > sum by (reason) (nearside_readings_total)",
                "reason",
            ),
            ("sum (nearside_outbox_items) by (le)", "le"),
        ] {
            let found = faults(bad, "");
            assert!(found.len() == 1 && found[0].contains(&format!("no label `{label}`")), "{bad}: {found:?}");
        }
    }

    #[test]
    fn legends_show_labels_that_are_there() {
        let grouped = "sum by (stream) (nearside_readings_set_aside_total)";
        assert!(faults(grouped, "{{stream}}").is_empty());
        assert_eq!(faults(grouped, "{{stream}} {{reason}}").len(), 1, "summed away");
        assert_eq!(faults("nearside_outbox_items", "{{ class }}").len(), 0);
    }
}
