//! A damaged file: set aside as a whole, and every item in it that is whole put into a new one.
//!
//! The tree of a damaged file is not trusted. The bytes are searched for stored items, each of which carries its own proof, so what is
//! saved is what was sealed here and nothing else. Space that was freed and not yet written over is searched too, so items may be saved
//! that the cloud acknowledged before: they are sent again, and the cloud takes each id once. When an item was put is not part of its
//! proof; the end of its window stands in for it, and gives the order.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nearside_privacy::{KeyRing, SealedItem};
use serde::Serialize;

use crate::config::{OutboxConfig, OutboxError};
use crate::medium::{FileMedium, folder_of};
use crate::store::{Bounds, Put, Round, Store};

/// Bytes searched at a time, and how much longer than them the last item may be.
const STEP: usize = 16 << 20;
const LONGEST: usize = 16 << 20;
/// Items written in one transaction.
const GROUP: usize = 1_024;

/// What a repair did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Salvage {
    /// Where the damaged file is now.
    pub set_aside: PathBuf,
    /// Items found whole, each revision of each counted.
    pub found: u64,
    /// Items that wait in the new file.
    pub waiting: u64,
}

/// Repairs the outbox in `path` where it does not open; `None` where it opens, and nothing was done.
///
/// # Errors
/// Where there is none, a gateway uses it, it has a newer format, or the disk refuses.
pub fn repair(path: &Path, config: &OutboxConfig, keys: &Arc<KeyRing>) -> Result<Option<Salvage>, OutboxError> {
    if !path.exists() {
        return Err(OutboxError::Missing { path: path.to_owned() });
    }
    let medium = Arc::new(FileMedium::new(path, config.reserve.bytes()));
    match Store::open(medium.clone(), path, config) {
        Ok(_) => return Ok(None),
        Err(OutboxError::Damaged { .. } | OutboxError::Database(_)) => {}
        Err(other) => return Err(other),
    }
    let storage = |source| OutboxError::Storage { path: path.to_owned(), source };
    let set_aside = free_name(path);
    fs::rename(path, &set_aside).map_err(storage)?;
    File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(storage)?;
    let mut store = Store::open(medium, path, config)?;
    let bounds = Bounds { quota: config.quota.bytes(), dead_quota: config.dead_quota.bytes(), most_shed: u64::MAX };
    let mut found = 0;
    let mut refused = false;
    let mut puts = Vec::new();
    let mut file = File::open(&set_aside).map_err(storage)?;
    search(&mut file, keys, &mut |item| {
        found += 1;
        if let Ok(stored) = item.store(keys) {
            let at = item.time().as_micros();
            puts.push(Put { item, stored, at });
        }
        if puts.len() >= GROUP {
            refused |= put_all(&mut store, &mut puts, bounds);
        }
    })
    .map_err(storage)?;
    refused |= put_all(&mut store, &mut puts, bounds);
    if refused {
        let source =
            io::Error::other("the new file could not be written; the damaged one is beside it, run this again");
        return Err(storage(source));
    }
    let waiting = store.shared.state.lock().stats.waiting();
    Ok(Some(Salvage { set_aside, found, waiting }))
}

/// True where the disk refused.
fn put_all(store: &mut Store, puts: &mut Vec<Put>, bounds: Bounds) -> bool {
    let mut round = Round { puts: std::mem::take(puts), ..Round::default() };
    round.puts.sort_by_key(|put| put.at);
    !round.puts.is_empty() && store.apply(&round, bounds).is_err()
}

/// A name beside the file that nothing has yet.
fn free_name(path: &Path) -> PathBuf {
    let mut n = 1;
    loop {
        let candidate = path.with_extension(format!("damaged-{n}"));
        if !candidate.exists() {
            return candidate;
        }
        n += 1;
    }
}

/// Shows every whole item that begins anywhere in the file.
fn search(file: &mut File, keys: &KeyRing, show: &mut dyn FnMut(SealedItem)) -> io::Result<()> {
    let mut at = 0u64;
    let mut window = Vec::new();
    loop {
        file.seek(SeekFrom::Start(at))?;
        window.clear();
        file.by_ref().take((STEP + LONGEST) as u64).read_to_end(&mut window)?;
        if window.is_empty() {
            return Ok(());
        }
        SealedItem::find_stored(&window, STEP, keys, show);
        at += STEP as u64;
    }
}
