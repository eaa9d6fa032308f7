//! `nearside journal check|show|repair`: what is in a site's journal, whether it is whole, and making it whole.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use nearside_journal::{DirectoryStorage, Item, Record, Repair, check, read};
use nearside_privacy::KeyRing;
use serde_json::json;

use super::{counted, open_site};
use crate::error::StartError;

/// Looks at a site's journal, and repairs it.
#[derive(Args, Debug)]
pub struct JournalArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Reads everything and says what is damaged; exits 1 where something is.
    Check {
        /// The site's TOML file.
        site: PathBuf,
    },
    /// Writes damaged segments again with every record that can be read, under its number, and keeps the damaged files in `journal/damaged`.
    /// The gateway must not run. What the checkpoint does not hold of it the next start takes in.
    Repair {
        /// The site's TOML file.
        site: PathBuf,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints every record, one JSON object a line. Holds what devices sent: keep it to yourself.
    Show {
        /// The site's TOML file.
        site: PathBuf,
    },
}

/// Runs the command.
pub fn run(args: &JournalArgs) -> Result<(), StartError> {
    let (What::Check { site } | What::Show { site } | What::Repair { site, .. }) = &args.what;
    let (_, data, keys) = open_site(site)?;
    let keys = Arc::new(keys);
    let folder = data.join("journal");
    if let What::Repair { dry_run, .. } = &args.what {
        return repair(&folder, keys, *dry_run);
    }
    let storage = Arc::new(DirectoryStorage::open(&folder, false).map_err(StartError::file(&folder))?);
    match &args.what {
        What::Check { .. } => {
            let report = check(storage, keys)?;
            let (first, last) = report.span.map_or((0, 0), |(first, last)| (first.0, last.0));
            let (records, damage) = (counted(report.records, "record"), counted(report.damage.len(), "damaged place"));
            println!("{records}, numbers {first} to {last}, {damage}");
            for damage in &report.damage {
                println!("{} at byte {}: {}", damage.segment, damage.offset, damage.kind.label());
            }
            let whole = report.damage.is_empty();
            if whole { Ok(()) } else { Err(StartError::Damaged("journal")) }
        }
        What::Show { .. } | What::Repair { .. } => {
            let mut out = std::io::stdout().lock();
            for item in read(storage, keys)? {
                writeln!(out, "{}", line(item)).map_err(StartError::file(Path::new("standard output")))?;
            }
            Ok(())
        }
    }
}

fn repair(folder: &Path, keys: Arc<KeyRing>, is_dry: bool) -> Result<(), StartError> {
    let repair = Repair::open(folder, keys)?;
    let damaged = repair.survey()?;
    if damaged.is_empty() {
        println!("every segment is whole; nothing to do");
    }
    for segment in &damaged {
        for (offset, kind) in &segment.places {
            println!("{} at byte {offset}: {}", segment.name, kind.label());
        }
        println!(
            "  will keep {} records ({} frames behind damaged headers regained) in a new file of that name",
            segment.records(),
            segment.regained
        );
        for (first, last) in segment.vacant() {
            println!(
                "  will mark numbers {first} to {last} as vacant: nothing that can be read is there",
                first = first.0,
                last = last.0
            );
        }
        if let Some((first, last)) = segment.passed_over() {
            println!(
                "  will go on numbering behind {last}: whether {first} and the next few were given before the damage cannot be \
                 known, and no number is given twice",
                first = first.0,
                last = last.0
            );
        }
        if !is_dry {
            let kept = repair.mend(segment)?;
            println!("  done; the damaged file is {}", kept.display());
        }
    }
    Ok(())
}

fn line(item: Item) -> serde_json::Value {
    match item {
        Item::Damage(damage) => {
            json!({ "damage": damage.kind.label(), "segment": damage.segment, "offset": damage.offset })
        }
        Item::Record(lsn, Record::Publish(publish)) => json!({
            "number": lsn.0, "kind": "publish", "client": publish.client.as_str(), "topic": publish.topic.as_str(),
            "qos": u8::from(publish.qos), "received": publish.received,
            "payload": String::from_utf8_lossy(&publish.payload),
        }),
        Item::Record(lsn, Record::Tick(at)) => json!({ "number": lsn.0, "kind": "tick", "at": at }),
        Item::Record(lsn, Record::Command { id, at }) => {
            json!({ "number": lsn.0, "kind": "command", "id": id, "at": at })
        }
        Item::Record(lsn, Record::Epoch { kind, at, .. }) => {
            json!({ "number": lsn.0, "kind": format!("{kind:?}").to_lowercase(), "at": at })
        }
        Item::Record(lsn, Record::Close { streams, for_good, at }) => {
            let streams: Vec<&str> = streams.iter().map(nearside_schemas::StreamName::as_str).collect();
            json!({ "number": lsn.0, "kind": "close", "streams": streams, "for_good": for_good, "at": at })
        }
    }
}
