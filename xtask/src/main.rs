//! Checks that no compiler makes: `cargo run -p xtask -- tidy`.
//!
//! Promises: exits 0 where the house is in order, else 1 with every offence on a line of its own; `tidy --write` writes the
//! generated files instead of comparing them. Never: it changes anything else.

mod arrows;
mod dashboards;
mod dependencies;
mod expressions;
mod reference;
mod sources;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let write = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => false,
        ["tidy", "--write"] => true,
        _ => {
            eprintln!("usage: cargo run -p xtask -- tidy [--write]");
            return ExitCode::from(2);
        }
    };
    match tidy(write) {
        Ok(offences) if offences.is_empty() => {
            println!("tidy");
            ExitCode::SUCCESS
        }
        Ok(offences) => {
            offences.iter().for_each(|offence| eprintln!("{offence}"));
            eprintln!("{} offences", offences.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tidy(write: bool) -> Result<Vec<String>, String> {
    let root = root()?;
    let mut offences = arrows::check(&root)?;
    let files = tracked_files(&root)?;
    offences.extend(sources::check(&root, &files)?);
    offences.extend(dependencies::check(&root, &files)?);
    offences.extend(dashboards::check(&root)?);
    offences.extend(reference::check(&root, write)?);
    Ok(offences)
}

fn root() -> Result<PathBuf, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_owned).ok_or_else(|| "xtask has no parent folder".to_owned())
}

/// The files that git tracks, and those it would track.
fn tracked_files(root: &Path) -> Result<Vec<String>, String> {
    let listed = run(root, "git", &["ls-files", "--cached", "--others", "--exclude-standard"])?;
    Ok(listed.lines().filter(|name| root.join(name).is_file()).map(str::to_owned).collect())
}

fn run(root: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).current_dir(root).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{program}: {error}"))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
