//! A disk in memory that forgets what was not synced, tears writes at sectors, fills up and fails on command.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use nearside_outbox::Medium;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redb::StorageBackend;

/// What a disk writes as a whole or not at all.
const SECTOR: usize = 512;

/// A disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What is there after a power loss, at least.
    durable: Vec<u8>,
    /// What was written since the last sync.
    unsynced: Vec<Change>,
    /// A storage that was given out before a power loss is dead.
    generation: u64,
    /// Writes and syncs until the power fails.
    until_cut: Option<u64>,
    /// The next sync fails, once.
    fail_sync: bool,
    /// Bytes of the file that the disk has room for.
    room: u64,
    reserve: bool,
    reserve_bytes: u64,
    pub syncs: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Length(u64),
    Write(u64, Vec<u8>),
}

impl Disk {
    /// An empty disk with endless room.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            seen: Vec::new(),
            durable: Vec::new(),
            unsynced: Vec::new(),
            generation: 0,
            until_cut: None,
            fail_sync: false,
            room: u64::MAX,
            reserve: false,
            reserve_bytes: 0,
            syncs: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The power fails after so many more writes and syncs.
    pub fn cut_after(&self, operations: u64) {
        self.state().until_cut = Some(operations);
    }

    /// The power fails now, if it has not; of what was not synced any part may be there. The disk is then as after a start.
    pub fn lose_power(&self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut state = self.state();
        let mut image = std::mem::take(&mut state.durable);
        for change in std::mem::take(&mut state.unsynced) {
            match change {
                Change::Length(length) if rng.random::<bool>() => image.resize(length as usize, 0),
                Change::Length(_) => {}
                Change::Write(at, bytes) => write_part(&mut image, at as usize, &bytes, &mut rng),
            }
        }
        state.seen.clone_from(&image);
        state.durable = image;
        state.generation += 1;
        state.until_cut = None;
    }

    /// The next sync fails.
    pub fn fail_next_sync(&self) {
        self.state().fail_sync = true;
    }

    /// The disk has room for so many bytes more than the file has now, of which `reserve` are set aside when asked.
    pub fn limit(&self, more: u64, reserve: u64) {
        let mut state = self.state();
        state.room = state.seen.len() as u64 + more;
        state.reserve_bytes = reserve;
    }
}

/// Each sector of a write is there or not; past the end of the file it lengthens it, as a file system does that lost the length.
fn write_part(image: &mut Vec<u8>, at: usize, bytes: &[u8], rng: &mut StdRng) {
    let mut from = 0;
    while from < bytes.len() {
        let to = ((at + from) / SECTOR * SECTOR + SECTOR - at).min(bytes.len());
        if rng.random::<bool>() {
            if image.len() < at + to {
                image.resize(at + to, 0);
            }
            image[at + from..at + to].copy_from_slice(&bytes[from..to]);
        }
        from = to;
    }
}

impl Medium for Disk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        let generation = self.state().generation;
        Ok(Box::new(Storage { disk: self.clone(), generation }))
    }

    fn set_reserve(&self) -> io::Result<()> {
        let mut state = self.state();
        let needed = state.seen.len() as u64 + state.reserve_bytes;
        if !state.reserve && needed > state.room {
            return Err(ErrorKind::StorageFull.into());
        }
        state.reserve = true;
        Ok(())
    }

    fn release_reserve(&self) -> bool {
        std::mem::take(&mut self.state().reserve)
    }
}

#[derive(Debug)]
struct Storage {
    disk: Disk,
    generation: u64,
}

impl Storage {
    fn reading(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.generation != self.generation || state.until_cut == Some(0) {
            return Err(io::Error::other("the power is off"));
        }
        Ok(state)
    }

    fn writing(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.reading()?;
        if let Some(left) = &mut state.until_cut {
            *left -= 1;
        }
        Ok(state)
    }
}

impl StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.reading()?.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.reading()?;
        let from = offset as usize;
        let part = state.seen.get(from..from + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.writing()?;
        let taken = if state.reserve { state.reserve_bytes } else { 0 };
        if length > state.seen.len() as u64 && length + taken > state.room {
            return Err(ErrorKind::StorageFull.into());
        }
        state.seen.resize(length as usize, 0);
        state.unsynced.push(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.writing()?;
        if std::mem::take(&mut state.fail_sync) {
            return Err(io::Error::other("the disk did not sync"));
        }
        state.syncs += 1;
        let State { durable, unsynced, .. } = &mut *state;
        for change in unsynced.drain(..) {
            match change {
                Change::Length(length) => durable.resize(length as usize, 0),
                Change::Write(at, bytes) => durable[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.writing()?;
        let from = offset as usize;
        state.seen.get_mut(from..from + data.len()).ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        state.unsynced.push(Change::Write(offset, data.to_vec()));
        Ok(())
    }
}
