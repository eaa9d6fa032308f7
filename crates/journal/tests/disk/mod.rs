//! A disk in memory that forgets what was not synced, in part.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use nearside_journal::{SegmentFile, Storage};

/// Numbers from a seed (xorshift; Marsaglia 2003).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

#[derive(Default, Clone)]
struct Contents {
    bytes: Vec<u8>,
    synced: usize,
}

/// A folder whose power fails after some operations.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

struct State {
    files: BTreeMap<String, Contents>,
    operations_left: u64,
    random: Random,
}

impl State {
    /// Whether the power is still there for one more operation.
    fn operate(&mut self) -> io::Result<()> {
        self.operations_left = self.operations_left.saturating_sub(1);
        if self.operations_left == 0 { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }
}

impl Disk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { files: BTreeMap::new(), operations_left: 0, random: Random(seed) })))
    }

    /// The power is there, for at most so many operations.
    pub fn power_on(&self, most: u64) {
        let mut state = self.0.lock().unwrap();
        state.operations_left = 1 + state.random.below(most);
    }

    /// What a disk may hold after the power came back.
    pub fn power_lost(&self) {
        let mut state = self.0.lock().unwrap();
        let mut random = state.random.clone();
        for contents in state.files.values_mut() {
            let unsynced = contents.bytes.len() - contents.synced;
            let kept = contents.synced + random.below(unsynced as u64 + 1) as usize;
            contents.bytes.truncate(kept);
            match random.below(3) {
                // The length was written before the bytes.
                0 => contents.bytes.extend(vec![0; random.below(100) as usize]),
                // A sector of something else.
                1 if kept > contents.synced => contents.bytes[kept - 1] ^= 0x55,
                _ => {}
            }
            contents.synced = contents.bytes.len();
        }
        state.random = random;
        state.operations_left = u64::MAX;
    }
}

struct DiskFile {
    name: String,
    disk: Disk,
}

impl SegmentFile for DiskFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        let lost = state.operate();
        // The power may fail in the middle of a write.
        let written = if lost.is_ok() { bytes.len() } else { state.random.below(bytes.len() as u64 + 1) as usize };
        state.files.get_mut(&self.name).unwrap().bytes.extend(&bytes[..written]);
        lost
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        state.operate()?;
        let contents = state.files.get_mut(&self.name).unwrap();
        contents.synced = contents.bytes.len();
        Ok(())
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        state.operate()?;
        let contents = state.files.get_mut(&self.name).unwrap();
        contents.bytes.truncate(bytes as usize);
        contents.synced = contents.bytes.len();
        Ok(())
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().files.keys().cloned().collect())
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn SegmentFile>> {
        let mut state = self.0.lock().unwrap();
        state.operate()?;
        let known = state.files.insert(name.to_owned(), Contents::default());
        assert!(known.is_none(), "{name} is made twice");
        Ok(Box::new(DiskFile { name: name.to_owned(), disk: self.clone() }))
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().unwrap().files[name].bytes.clone())
    }
    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().files[name].bytes.len() as u64)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.operate()?;
        state.files.remove(name);
        Ok(())
    }
}
