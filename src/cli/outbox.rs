//! `nearside outbox list|check|requeue|repair`: what waits for the cloud, looked at and mended while no gateway runs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use nearside_outbox::{DeadLetter, Inspector, OutboxConfig, WaitingItem, repair};
use nearside_privacy::KeyRing;
use serde_json::json;

use super::{counted, open_site};
use crate::error::StartError;

/// Looks at what waits for the cloud, and mends it. The gateway must not run on the same data folder; while it runs, its console
/// shows the figures.
#[derive(Args, Debug)]
pub struct OutboxArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Lists the items that wait, in the order in which the cloud gets them, then the dead letters.
    List {
        /// The site's TOML file.
        site: PathBuf,
        /// One JSON object a line instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Proves every page and every item; exits 1 where something is damaged.
    Check {
        /// The site's TOML file.
        site: PathBuf,
    },
    /// Puts dead letters back among the items that wait.
    Requeue {
        /// The site's TOML file.
        site: PathBuf,
        /// Their numbers, as `list` shows them; all where none is given.
        numbers: Vec<u64>,
    },
    /// Sets a file that does not open aside and saves every item in it that is whole. Some may have reached the cloud before: they are
    /// sent again under their old ids.
    Repair {
        /// The site's TOML file.
        site: PathBuf,
    },
}

/// Runs the command.
pub fn run(args: &OutboxArgs) -> Result<(), StartError> {
    match &args.what {
        What::List { site, json } => list(&open(site)?, *json),
        What::Check { site } => check(&open(site)?),
        What::Requeue { site, numbers } => {
            let done = open(site)?.requeue((!numbers.is_empty()).then_some(numbers))?;
            println!(
                "{} wait again, {} dropped because a newer revision waits or the cloud has it, {} damaged and kept, {} unknown numbers",
                done.requeued, done.superseded, done.damaged, done.unknown
            );
            Ok(())
        }
        What::Repair { site } => {
            let (path, config, keys) = parts(site)?;
            match repair(&path, &config, &keys)? {
                None => println!("{} opens; nothing was done", path.display()),
                Some(done) => println!(
                    "the damaged file is now {}; {} items found whole, {} wait again",
                    done.set_aside.display(),
                    done.found,
                    done.waiting
                ),
            }
            Ok(())
        }
    }
}

fn parts(site: &Path) -> Result<(PathBuf, OutboxConfig, Arc<KeyRing>), StartError> {
    let (config, data, keys) = open_site(site)?;
    Ok((data.join("outbox.redb"), config.outbox, Arc::new(keys)))
}

fn open(site: &Path) -> Result<Inspector, StartError> {
    let (path, config, keys) = parts(site)?;
    Ok(Inspector::open(&path, &config, keys)?)
}

fn list(outbox: &Inspector, json: bool) -> Result<(), StartError> {
    let mut out = std::io::stdout().lock();
    let mut written = Ok(());
    if !json {
        written = writeln!(out, "{:>10}  {:<8}  {:<27}  {:>9}  id", "number", "class", "since", "bytes");
    }
    outbox.for_each_waiting(|item| {
        if written.is_ok() {
            written = if json { writeln!(out, "{}", line("waiting", &item)) } else { waiting_row(&mut out, &item) };
        }
    })?;
    let dead = outbox.dead_letters()?;
    if !json && !dead.is_empty() && written.is_ok() {
        written =
            writeln!(out, "\ndead letters\n{:>10}  {:<9}  {:<27}  {:>9}  id", "number", "reason", "since", "bytes");
    }
    for letter in &dead {
        written = written
            .and_then(|()| if json { writeln!(out, "{}", line("dead", letter)) } else { dead_row(&mut out, letter) });
    }
    written.map_err(StartError::file(Path::new("standard output")))
}

/// A row as JSON, with `state` beside what it holds.
fn line(state: &str, row: &impl serde::Serialize) -> serde_json::Value {
    let mut line = json!(row);
    if let Some(members) = line.as_object_mut() {
        members.insert("state".to_owned(), state.into());
    }
    line
}

fn waiting_row(out: &mut impl Write, item: &WaitingItem) -> std::io::Result<()> {
    let class = item.class.map_or("?", |class| class.label());
    let id = item.id.as_deref().unwrap_or("?");
    let damaged = if item.whole { "" } else { "  (damaged)" };
    writeln!(out, "{:>10}  {class:<8}  {:<27}  {:>9}  {id}{damaged}", item.number, item.since.to_string(), item.bytes)
}

fn dead_row(out: &mut impl Write, letter: &DeadLetter) -> std::io::Result<()> {
    let id = letter.id.as_deref().unwrap_or("?");
    let (reason, since) = (letter.reason.label(), letter.at.to_string());
    writeln!(out, "{:>10}  {reason:<9}  {since:<27}  {:>9}  {id}: {}", letter.number, letter.bytes, letter.detail)
}

fn check(outbox: &Inspector) -> Result<(), StartError> {
    let report = outbox.check()?;
    let [alerts, summaries, rollups] = report.waiting;
    println!(
        "format {}: waiting: alerts {alerts}, summaries {summaries}, roll-ups {rollups} ({}); {}, {}",
        report.format,
        counted(report.bytes, "byte"),
        counted(report.dead, "dead letter"),
        counted(report.damaged.len(), "damaged item")
    );
    for number in &report.damaged {
        println!("item {number} is damaged; the gateway makes a dead letter of it when it comes to it");
    }
    if report.damaged.is_empty() { Ok(()) } else { Err(StartError::Damaged("outbox")) }
}
