//! The reference of the configuration, docs/configuration.md, made from the doc comments and defaults of the structs that
//! hold it.

use std::fmt::Write;
use std::path::Path;

/// Title, file and struct, in the order of the reference.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("[site]", "config/src/raw.rs", "RawSiteSection"),
    ("[broker]", "crates/broker/src/config.rs", "BrokerConfig"),
    ("[broker.tls]", "crates/broker/src/config.rs", "TlsConfig"),
    ("[journal]", "crates/journal/src/config.rs", "JournalConfig"),
    ("[streams]", "actors/src/config.rs", "StreamsConfig"),
    ("[inference]", "actors/src/config.rs", "InferenceConfig"),
    ("[[stream]]", "config/src/raw.rs", "RawStream"),
    ("[[stream]] windows", "crates/window/src/config.rs", "WindowConfig"),
    ("[[rule]]", "actors/src/config.rs", "RuleConfig"),
    ("[[rule]] publish", "actors/src/config.rs", "PublishConfig"),
    ("[rollup]", "actors/src/config.rs", "RollUpConfig"),
    ("[privacy]", "crates/privacy/src/keys.rs", "PrivacyConfig"),
    ("[outbox]", "crates/outbox/src/outbox.rs", "OutboxConfig"),
    ("[uplink]", "crates/uplink/src/config.rs", "UplinkConfig"),
    ("[console]", "crates/console/src/server.rs", "ConsoleConfig"),
];

const FILE: &str = "docs/configuration.md";

pub(crate) fn check(root: &Path, write: bool) -> Result<Vec<String>, String> {
    let made = make(root)?;
    let path = root.join(FILE);
    if write {
        std::fs::write(&path, made).map_err(|error| format!("{FILE}: {error}"))?;
        return Ok(Vec::new());
    }
    let known = super::read(&path)?;
    let same = known == made;
    Ok(if same { Vec::new() } else { vec![format!("{FILE}: out of date; run cargo run -p xtask -- tidy --write")] })
}

fn make(root: &Path) -> Result<String, String> {
    let mut out = String::from(
        "# Configuration\n\nOne TOML file a site. Unknown keys are refused. Durations are written `250ms`, `2s`, `5m`, `1h`, `7d`; \
         sizes `512B`, `64KiB`, `16MiB`, `2GiB`. This file is made from the source: do not edit it.\n",
    );
    for (title, file, name) in SECTIONS {
        let text = super::read(&root.join(file))?;
        let section = section(title, &text, name).ok_or_else(|| format!("{file}: no struct {name}"))?;
        out.push_str(&section);
    }
    Ok(out)
}

struct Key {
    name: String,
    kind: String,
    doc: String,
}

/// A section from the source of its struct.
fn section(title: &str, source: &str, name: &str) -> Option<String> {
    let (doc, keys) = keys(source, name)?;
    let defaults = defaults(source, name);
    let mut out = format!("\n## `{title}`\n\n{doc}\n\n| key | type | default | what it says |\n|---|---|---|---|\n");
    for key in keys {
        let default = defaults.iter().find(|(known, _)| *known == key.name).map_or("", |(_, value)| value);
        // Writing into a string cannot fail.
        let _ = writeln!(out, "| `{}` | {} | {} | {} |", key.name, key.kind, default, key.doc.replace('|', "\\|"));
    }
    Some(out)
}

/// The doc comment of a struct, and its fields with theirs.
fn keys(source: &str, name: &str) -> Option<(String, Vec<Key>)> {
    let lines: Vec<&str> = source.lines().collect();
    let header = |line: &&str| line.contains("struct ") && line.contains(&format!("{name} {{"));
    let at = lines.iter().position(header)?;
    let above = lines[..at].iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
    let mut doc: Vec<&str> = above.filter_map(|line| line.strip_prefix("///")).map(str::trim).collect();
    doc.reverse();
    let mut keys = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    for line in lines[at + 1..].iter().map(|line| line.trim()).take_while(|line| *line != "}") {
        if let Some(word) = line.strip_prefix("///") {
            words.push(word.trim());
        } else if let Some((name, kind)) =
            line.strip_suffix(',').filter(|_| line.starts_with("pub")).and_then(|l| l.split_once(": "))
        {
            let name = name.rsplit(' ').next().unwrap_or(name).to_owned();
            keys.push(Key { name, kind: kind_in_words(kind), doc: words.join(" ") });
            words.clear();
        }
    }
    Some((doc.join(" "), keys))
}

/// A Rust type as people say it.
fn kind_in_words(kind: &str) -> String {
    let inner = |prefix: &str| kind.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inner("Option<") {
        return kind_in_words(inner);
    }
    if let Some(inner) = inner("Spanned<") {
        return kind_in_words(inner);
    }
    if let Some(inner) = inner("Vec<") {
        return format!("list of {}", kind_in_words(inner));
    }
    match kind {
        "HumanDuration" => "duration".to_owned(),
        "ByteSize" => "size".to_owned(),
        "bool" => "true or false".to_owned(),
        "f64" => "number".to_owned(),
        "SocketAddr" => "address".to_owned(),
        "PathBuf" => "path".to_owned(),
        kind if kind.starts_with(['u', 'i']) && kind[1..].chars().all(char::is_alphanumeric) => {
            "whole number".to_owned()
        }
        kind if kind.starts_with("BTreeMap") || kind.ends_with("Table") || kind.ends_with("PublishConfig") => {
            "table".to_owned()
        }
        kind if kind.ends_with("WindowConfig") => "tables".to_owned(),
        kind if kind.ends_with("TlsConfig") => "table".to_owned(),
        "QoS" => "0 or 1".to_owned(),
        _ => "text".to_owned(),
    }
}

/// The values of `impl Default` and of `default_…` functions, as the source has them, made readable.
fn defaults(source: &str, name: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if let Some((_, body)) = source.split_once(&format!("impl Default for {name} {{")) {
        for line in body.lines().take_while(|line| *line != "}") {
            let pairs = line.trim().trim_start_matches("Self {").trim_end_matches(['}', ' ']);
            // Several pairs share a line only where the whole value does.
            let whole = line.trim().starts_with("Self {");
            let split: Vec<&str> = if whole { pairs.split(", ").collect() } else { vec![pairs] };
            for pair in split {
                if let Some((key, value)) = pair.split_once(": ") {
                    found.push((key.trim().to_owned(), readable(value.trim_end_matches(','))));
                }
            }
        }
    }
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let Some(rest) = line.trim().split_once("fn default_").map(|(_, rest)| rest) else { continue };
        let key = rest.split('(').next().unwrap_or("").to_owned();
        let value = lines.next().map(|line| readable(line.trim())).unwrap_or_default();
        found.push((key, value));
    }
    found
}

/// `HumanDuration::secs(60)` as `60s`, `ByteSize::mib(64)` as `64MiB`, and so on.
fn readable(value: &str) -> String {
    let call = |prefix: &str| value.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(')'));
    let text = if let Some(n) = call("HumanDuration::secs(") {
        seconds(n)
    } else if let Some(n) = call("HumanDuration::millis(") {
        format!("{n}ms")
    } else if let Some(n) = call("ByteSize::mib(") {
        format!("{n}MiB")
    } else if let Some(n) = call("ByteSize::kib(") {
        format!("{n}KiB")
    } else if let Some(n) = call("SocketAddr::from(([127, 0, 0, 1], ").map(|n| n.trim_end_matches(')')) {
        format!("127.0.0.1:{n}")
    } else if let Some(text) = call("PathBuf::from(") {
        text.trim_matches('"').to_owned()
    } else if let Some(text) = value.strip_suffix(".to_owned()") {
        text.trim_matches('"').to_owned()
    } else if let Some((_, variant)) = value.split_once("::") {
        if variant.contains('(') { String::new() } else { snake(variant) }
    } else if value == "None" {
        String::new()
    } else {
        value.replace('_', "")
    };
    if text.is_empty() { text } else { format!("`{text}`") }
}

fn seconds(n: &str) -> String {
    let product: u64 = n.split(" * ").filter_map(|part| part.replace('_', "").parse::<u64>().ok()).product();
    match product {
        n if n > 0 && n % 86_400 == 0 => format!("{}d", n / 86_400),
        n if n > 0 && n % 3_600 == 0 => format!("{}h", n / 3_600),
        n if n > 0 && n % 60 == 0 => format!("{}m", n / 60),
        n => format!("{n}s"),
    }
}

fn snake(name: &str) -> String {
    if name == "AtLeastOnce" {
        return "1".to_owned();
    }
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_has_keys_defaults_and_words() {
        let source = "/// `[x]`: things.\npub struct X {\n    /// How many | at most.\n    pub most: usize,\n    /// How long.\n    pub wait: HumanDuration,\n}\n\nimpl Default for X {\n    fn default() -> Self {\n        Self { most: 10_000, wait: HumanDuration::secs(120) }\n    }\n}\n";
        let text = section("[x]", source, "X").unwrap();
        assert!(text.contains("| `most` | whole number | `10000` | How many \\| at most. |"), "{text}");
        assert!(text.contains("| `wait` | duration | `2m` | How long. |"), "{text}");
    }
}
