//! Every metric that a dashboard or an alert names is a row of the table of metrics.

use std::path::Path;

use nearside_telemetry::{Kind, TABLE};

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
                offences
                    .extend(unknown(&text).into_iter().map(|name| format!("{}: no metric `{name}`", path.display())));
            }
        }
    }
    Ok(offences)
}

/// The names in `text` that are no metric.
fn unknown(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("nearside_") && !is_known(word))
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

fn is_known(name: &str) -> bool {
    TABLE.iter().any(|row| match row.kind {
        Kind::Histogram(_) => {
            let suffix = name.strip_prefix(row.name);
            matches!(suffix, Some("_bucket" | "_sum" | "_count"))
        }
        _ => row.name == name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_with_the_table() {
        let text = "rate(nearside_readings_total[1m]) nearside_nothing nearside_journal_sync_seconds_bucket";
        assert_eq!(unknown(text), ["nearside_nothing"]);
    }
}
