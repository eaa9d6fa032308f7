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
    ("[models]", "models/src/artefact/mod.rs", "ModelsConfig"),
    ("[models.online]", "models/src/recent.rs", "OnlineConfig"),
    ("[[stream]]", "config/src/raw.rs", "RawStream"),
    ("[[stream]] windows", "crates/window/src/config.rs", "WindowConfig"),
    ("[[rule]]", "actors/src/config.rs", "RuleConfig"),
    ("[[rule]] publish", "actors/src/config.rs", "PublishConfig"),
    ("[rollup]", "actors/src/config.rs", "RollUpConfig"),
    ("[privacy]", "crates/privacy/src/keys.rs", "PrivacyConfig"),
    ("[deadletters]", "crates/deadletters/src/config.rs", "DeadLettersConfig"),
    ("[outbox]", "crates/outbox/src/config.rs", "OutboxConfig"),
    ("[uplink]", "crates/uplink/src/config.rs", "UplinkConfig"),
    ("[console]", "crates/console/src/server.rs", "ConsoleConfig"),
];

/// Where choices stand that a section's own file does not hold.
const CHOICES: &[&str] = &["crates/privacy/src/seal.rs"];

/// Keys of a struct that count as another's where they are not stated: section, file and struct of the defaults.
const BORROWED: &[(&str, &str, &str)] = &[("RawStream", "crates/window/src/config.rs", "GuardConfig")];

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
    let read = |file: &str| super::read(&root.join(file));
    let mut choices = String::new();
    for file in SECTIONS.iter().map(|(_, file, _)| *file).chain(CHOICES.iter().copied()) {
        choices.push_str(&read(file)?);
    }
    for (title, file, name) in SECTIONS {
        let text = read(file)?;
        let mut known = defaults(&text, name);
        for (_, file, borrowed) in BORROWED.iter().filter(|(borrower, _, _)| borrower == name) {
            known.extend(defaults(&read(file)?, borrowed));
        }
        let section =
            section(title, &text, name, &known, &choices).ok_or_else(|| format!("{file}: no struct {name}"))?;
        out.push_str(&section);
    }
    Ok(out)
}

struct Key {
    name: String,
    /// The Rust type.
    kind: String,
    doc: String,
    /// Whether it may be left out.
    is_optional: bool,
}

/// A section from the source of its struct.
fn section(title: &str, source: &str, name: &str, defaults: &[(String, String)], choices: &str) -> Option<String> {
    let (doc, keys) = keys(source, name)?;
    let mut out = format!("\n## `{title}`\n\n{doc}\n\n| key | type | default | what it says |\n|---|---|---|---|\n");
    for key in keys {
        let stated = defaults.iter().find(|(known, _)| *known == key.name).map(|(_, value)| value.clone());
        let default = match stated {
            Some(default) => default,
            None if !key.is_optional => "required".to_owned(),
            None => default_of_type(&key.kind, choices),
        };
        let kind = kind_in_words(&key.kind);
        // Writing into a string cannot fail.
        let _ = writeln!(out, "| `{}` | {kind} | {default} | {} |", key.name, key.doc.replace('|', "\\|"));
    }
    Some(out)
}

/// What a key of this type is where nothing is stated: `Default` of the type. Empty where that is nothing.
fn default_of_type(kind: &str, choices: &str) -> String {
    match kind {
        "bool" => "`false`".to_owned(),
        "HumanDuration" => "`0s`".to_owned(),
        kind if kind.starts_with("Vec<") => "none".to_owned(),
        kind if kind.starts_with(['O', 'B']) => String::new(),
        kind => {
            let body = choices.split_once(&format!("enum {kind} {{")).map_or("", |(_, body)| body);
            let body = body.split_once("\n}").map_or("", |(body, _)| body);
            let lines = body.lines().map(str::trim).skip_while(|line| *line != "#[default]").skip(1);
            for line in lines.filter(|line| !line.starts_with("///")) {
                let renamed = line.strip_prefix("#[serde(rename = \"").and_then(|rest| rest.split('"').next());
                match renamed {
                    Some(name) => return format!("`{name}`"),
                    None if line.starts_with("#[") => {}
                    None => return format!("`{}`", snake(line.trim_end_matches(','))),
                }
            }
            String::new()
        }
    }
}

/// The doc comment of a struct, and its fields with theirs.
fn keys(source: &str, name: &str) -> Option<(String, Vec<Key>)> {
    let lines: Vec<&str> = source.lines().collect();
    let header = |line: &&str| line.contains("struct ") && line.contains(&format!("{name} {{"));
    let at = lines.iter().position(header)?;
    let above = || lines[..at].iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
    let mut doc: Vec<&str> = above().filter_map(|line| line.strip_prefix("///")).map(str::trim).collect();
    doc.reverse();
    let all_optional = above().any(|line| line.starts_with("#[serde(") && line.contains("default"));
    let mut keys = Vec::new();
    let (mut words, mut is_optional): (Vec<&str>, bool) = (Vec::new(), all_optional);
    for line in lines[at + 1..].iter().map(|line| line.trim()).take_while(|line| *line != "}") {
        if let Some(word) = line.strip_prefix("///") {
            words.push(word.trim());
        } else if line.starts_with("#[serde(default") {
            is_optional = true;
        } else if let Some((name, kind)) =
            line.strip_suffix(',').filter(|_| line.starts_with("pub")).and_then(|l| l.split_once(": "))
        {
            let name = name.rsplit(' ').next().unwrap_or(name).to_owned();
            keys.push(Key { name, kind: kind.to_owned(), doc: words.join(" "), is_optional });
            words.clear();
            is_optional = all_optional;
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
        kind if kind.ends_with("TlsConfig") || kind == "OnlineConfig" => "table".to_owned(),
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
            for pair in outer_commas(pairs) {
                if let Some((key, value)) = pair.split_once(": ") {
                    found.push((key.trim().to_owned(), readable(value.trim())));
                }
            }
        }
    }
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let Some(rest) = line.trim().split_once("fn default_").map(|(_, rest)| rest) else { continue };
        let key = rest.split('(').next().unwrap_or("").to_owned();
        let value = lines.next().map(str::trim).unwrap_or_default();
        // A value that knows its place in the file.
        let inner = value.strip_prefix("unwritten(").and_then(|rest| rest.strip_suffix(')'));
        let value = readable(inner.unwrap_or(value));
        found.push((key, value));
    }
    found
}

/// The parts between commas that stand in no brackets.
fn outer_commas(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// `HumanDuration::secs(60)` as `60s`, `ByteSize::mib(64)` as `64MiB`, and so on.
fn readable(value: &str) -> String {
    let call = |prefix: &str| value.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(')'));
    let text = if let Some(n) = call("HumanDuration::secs(") {
        seconds(n)
    } else if let Some(n) = call("HumanDuration::millis(") {
        format!("{n}ms")
    } else if let Some(n) = call("ByteSize::mib(") {
        binary(n, "MiB", "GiB")
    } else if let Some(n) = call("ByteSize::kib(") {
        binary(n, "KiB", "MiB")
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

/// A size in its unit, or in the next where it is whole there.
fn binary(n: &str, unit: &str, next: &str) -> String {
    let n = n.replace('_', "");
    match n.parse::<u64>() {
        Ok(number) if number > 0 && number % 1_024 == 0 => format!("{}{next}", number / 1_024),
        _ => format!("{n}{unit}"),
    }
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
        let source = "/// `[x]`: things.\n#[serde(default)]\npub struct X {\n    /// How many | at most.\n    pub most: usize,\n    /// Where.\n    pub listen: SocketAddr,\n    /// How long.\n    pub wait: HumanDuration,\n}\n\nimpl Default for X {\n    fn default() -> Self {\n        Self { most: 10_000, listen: SocketAddr::from(([127, 0, 0, 1], 80)), wait: HumanDuration::secs(120) }\n    }\n}\n";
        let text = section("[x]", source, "X", &defaults(source, "X"), "").unwrap();
        assert!(text.contains("| `most` | whole number | `10000` | How many \\| at most. |"), "{text}");
        assert!(text.contains("| `listen` | address | `127.0.0.1:80` | Where. |"), "{text}");
        assert!(text.contains("| `wait` | duration | `2m` | How long. |"), "{text}");
    }

    #[test]
    fn what_may_be_left_out_says_what_it_is_then() {
        let source = "pub struct X {\n    /// Name.\n    pub name: String,\n    /// Kept.\n    #[serde(default)]\n    pub keep: bool,\n    /// When.\n    #[serde(default)]\n    pub on: Subject,\n    /// Unit.\n    #[serde(default)]\n    pub unit: Option<String>,\n    /// Which.\n    #[serde(default)]\n    pub version: Version,\n}\n";
        let choices = "pub enum Subject {\n    /// Each.\n    #[default]\n    Finding,\n    Summary,\n}\npub enum Version {\n    #[default]\n    #[serde(rename = \"1.2\")]\n    V1_2,\n}\n";
        let text = section("[x]", source, "X", &[], choices).unwrap();
        for row in [
            "`name` | text | required |",
            "`keep` | true or false | `false` |",
            "`on` | text | `finding` |",
            "`unit` | text |  |",
            "`version` | text | `1.2` |",
        ] {
            assert!(text.contains(row), "{row} in {text}");
        }
    }
}
