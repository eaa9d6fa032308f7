//! `nearside open`: events in, one a line; the same events out with every encrypted value decrypted.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use nearside_privacy::{KeyRing, open_event};

use crate::error::StartError;

/// Decrypts events.
#[derive(Args, Debug)]
pub struct OpenArgs {
    /// The site's key file.
    #[arg(long)]
    key: PathBuf,
    /// A file of events, one JSON object a line; standard input where none is named.
    input: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &OpenArgs) -> Result<(), StartError> {
    let keys = KeyRing::load(&args.key)?;
    let name = args.input.clone().unwrap_or_else(|| PathBuf::from("standard input"));
    let input: Box<dyn Read> = match &args.input {
        Some(path) => Box::new(std::fs::File::open(path).map_err(StartError::file(path))?),
        None => Box::new(std::io::stdin()),
    };
    let mut out = std::io::stdout().lock();
    for (n, line) in BufReader::new(input).lines().enumerate() {
        let line = line.map_err(StartError::file(&name))?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |why: String| StartError::Input { path: name.clone(), why: format!("line {}: {why}", n + 1) };
        let event = serde_json::from_str(&line).map_err(|error| wrong(format!("no JSON ({:?})", error.classify())))?;
        let opened = open_event(event, &keys).map_err(|error| wrong(error.to_string()))?;
        writeln!(out, "{opened}").map_err(StartError::file(Path::new("standard output")))?;
    }
    Ok(())
}
