//! The arrows between rooms: who may import whom. Anything else is an offence.

use std::path::Path;

use serde::Deserialize;

/// Each room and the rooms it may import.
const ARROWS: &[(&str, &[&str])] = &[
    ("nearside-schemas", &[]),
    ("nearside-telemetry", &["schemas"]),
    ("nearside-window", &["schemas", "telemetry"]),
    ("nearside-journal", &["schemas", "telemetry"]),
    ("nearside-broker", &["schemas", "telemetry"]),
    ("nearside-privacy", &["schemas", "telemetry"]),
    ("nearside-models", &["schemas", "telemetry"]),
    // Outbox and uplink know `Sealed`, which only privacy can make; the uplink takes from the outbox.
    ("nearside-outbox", &["schemas", "telemetry", "privacy"]),
    ("nearside-uplink", &["schemas", "telemetry", "privacy", "outbox"]),
    ("nearside-console", &["schemas", "telemetry"]),
    ("nearside-deadletters", &["schemas", "telemetry"]),
    (
        "nearside-actors",
        &[
            "schemas",
            "telemetry",
            "window",
            "journal",
            "broker",
            "privacy",
            "models",
            "outbox",
            "uplink",
            "deadletters",
        ],
    ),
    (
        "nearside-config",
        &[
            "schemas",
            "telemetry",
            "window",
            "journal",
            "broker",
            "privacy",
            "models",
            "outbox",
            "uplink",
            "deadletters",
            "actors",
            "console",
        ],
    ),
    ("nearside-simulator", &["schemas"]),
    ("xtask", &["telemetry"]),
];

/// Crates that only one room may name.
const QUARANTINED: &[(&str, &[&str])] = &[
    ("rumqttd", &["nearside-broker"]),
    ("actix", &["nearside-actors", "nearside"]),
    ("polars", &["nearside-actors"]),
    ("redb", &["nearside-outbox", "nearside-journal", "nearside-broker"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let text = super::run(root, "cargo", &["metadata", "--format-version", "1", "--no-deps", "--offline"])?;
    offences(&text)
}

fn offences(metadata: &str) -> Result<Vec<String>, String> {
    let metadata: Metadata = serde_json::from_str(metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    let mut offences = Vec::new();
    for package in &metadata.packages {
        // Tests may stand a neighbour in; what ships may not.
        let shipped = package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev"));
        for dependency in shipped {
            offences.extend(offence(&package.name, &dependency.name));
        }
    }
    Ok(offences)
}

fn offence(from: &str, to: &str) -> Option<String> {
    if let Some((_, rooms)) = QUARANTINED.iter().find(|(name, _)| *name == to)
        && !rooms.contains(&from)
    {
        return Some(format!("{from} names {to}; only {} may", rooms.join(", ")));
    }
    let room = to.strip_prefix("nearside-")?;
    if from == "nearside" {
        return None;
    }
    match ARROWS.iter().find(|(name, _)| *name == from) {
        None => Some(format!("{from} has no row in the table of arrows (xtask/src/arrows.rs)")),
        Some((_, allowed)) if allowed.contains(&room) => None,
        Some(_) => Some(format!("{from} imports {to}, which is no arrow of the house")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_arrows_are_found() {
        let metadata = r#"{"packages":[
            {"name":"nearside-window","dependencies":[{"name":"nearside-journal","kind":null},{"name":"nearside-schemas","kind":null}]},
            {"name":"nearside-journal","dependencies":[{"name":"nearside-window","kind":"dev"},{"name":"rumqttd","kind":null}]},
            {"name":"nearside-new","dependencies":[{"name":"nearside-schemas","kind":null}]},
            {"name":"nearside","dependencies":[{"name":"nearside-config","kind":null}]}]}"#;
        let found = offences(metadata).unwrap();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("nearside-window imports nearside-journal"));
        assert!(found[1].contains("rumqttd"));
        assert!(found[2].contains("nearside-new has no row"));
    }
}
