//! What is fuzzed: one function a target, from bytes to nothing. It panics where a promise is broken.
//!
//! Promises: the same bytes do the same; a target reads no file and no network.
//! Used by the fuzzer in `fuzz/src`, which coverage leads, and by `tests/fuzz.rs`, which runs the kept corpus and a bounded number of
//! its mutations on every change. What needs the whole house to be built is in `site.rs`.

mod codecs;
mod disk;
mod envelope;
mod mqtt;

use std::sync::OnceLock;

use nearside_privacy::KeyRing;
use nearside_schemas::SecretKey;

/// A target: its name, which is that of its corpus's folder, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// The targets that need few crates.
pub const TARGETS: &[Target] = &[
    ("packets", mqtt::packets),
    ("sessions", mqtt::sessions),
    ("users", mqtt::users),
    ("codecs", codecs::codecs),
    ("journal", disk::journal),
    ("records", disk::records),
    ("windows", disk::windows),
    ("deadletters", disk::deadletters),
    ("outbox", envelope::outbox),
    ("envelope", envelope::envelope),
];

/// The keys under which the corpus is sealed.
fn keys() -> &'static KeyRing {
    static KEYS: OnceLock<KeyRing> = OnceLock::new();
    KEYS.get_or_init(|| KeyRing::from_master(SecretKey::new([7; 32])))
}

/// The first byte, and the rest: for targets whose first byte chooses.
fn choice(bytes: &[u8]) -> (usize, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (usize::from(*first), rest))
}
