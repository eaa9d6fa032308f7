//! A crate names only dependencies that its sources use, and the workspace only those that a crate names.

use std::path::Path;

/// Dependencies that sources name otherwise, by manifest.
const EXCUSED: &[(&str, &str)] = &[
    // Its library is called `webpki`.
    ("crates/broker/Cargo.toml", "rustls-webpki"),
];

pub(crate) fn check(root: &Path, files: &[String]) -> Result<Vec<String>, String> {
    let mut offences = Vec::new();
    let manifests: Vec<&String> = files.iter().filter(|name| name.ends_with("Cargo.toml")).collect();
    let mut named: Vec<String> = Vec::new();
    for manifest in &manifests {
        let folder = manifest.trim_end_matches("Cargo.toml");
        // The root's own sources are those that are in no member's folder.
        let others: Vec<&str> = manifests
            .iter()
            .map(|name| name.trim_end_matches("Cargo.toml"))
            .filter(|other| !other.is_empty())
            .collect();
        let own = |name: &&String| {
            name.ends_with(".rs")
                && name.starts_with(folder)
                && !(folder.is_empty() && others.iter().any(|other| name.starts_with(other)))
        };
        let mut sources = String::new();
        for name in files.iter().filter(own) {
            sources.push_str(&super::read(&root.join(name))?);
        }
        let text = super::read(&root.join(manifest))?;
        let dependencies = dependencies(&text);
        let unused = unused(&dependencies, &sources);
        let unexcused = unused.iter().filter(|name| !EXCUSED.contains(&(manifest.as_str(), name.as_str())));
        offences.extend(unexcused.map(|name| format!("{manifest}: no source names the dependency {name}")));
        named.extend(dependencies);
    }
    let workspace = super::read(&root.join("Cargo.toml"))?;
    let listed = section(&workspace, "[workspace.dependencies]");
    let nobody = listed.into_iter().filter(|name| !named.contains(name));
    offences.extend(nobody.map(|name| format!("Cargo.toml: no crate uses the workspace's dependency {name}")));
    Ok(offences)
}

/// The dependencies of a manifest, those of tests and builds among them.
fn dependencies(manifest: &str) -> Vec<String> {
    let sections = ["[dependencies]", "[dev-dependencies]", "[build-dependencies]"];
    sections.iter().flat_map(|header| section(manifest, header)).collect()
}

/// The keys of a section.
fn section(manifest: &str, header: &str) -> Vec<String> {
    let lines = manifest.lines().map(str::trim).skip_while(|line| *line != header).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let names = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    names.filter_map(|line| line.split(['.', '=', ' ']).next()).map(str::to_owned).collect()
}

fn unused(dependencies: &[String], sources: &str) -> Vec<String> {
    let is_used = |name: &String| {
        let crate_name = name.replace('-', "_");
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        sources
            .match_indices(&crate_name)
            .any(|(at, _)| !sources[..at].ends_with(is_word) && !sources[at + crate_name.len()..].starts_with(is_word))
    };
    dependencies.iter().filter(|name| !is_used(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_that_no_source_names_are_found() {
        let manifest = "[package]\nname = \"x\"\n\n[dependencies]\nserde.workspace = true\n# Why.\nnear-side = { path = \"y\" }\n\n[dev-dependencies]\ntempfile = \"3\"\n\n[lints]\nworkspace = true\n";
        let found = dependencies(manifest);
        assert_eq!(found, ["serde", "near-side", "tempfile"]);
        assert_eq!(unused(&found, "use near_side::A; // my_serde serde_json"), ["serde", "tempfile"]);
        assert!(unused(&found, "use near_side::A; use serde::B; tempfile::tempdir()").is_empty());
    }
}
