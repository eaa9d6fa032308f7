//! The kept corpus of every fuzz target, and a bounded number of mutations of it, in every build. The run led by coverage is
//! `fuzz/run.sh`.
//!
//! `NEARSIDE_FUZZ_RUNS` says how many mutations each target gets, `NEARSIDE_FUZZ_SEED` from which seed; both are printed.
//! `NEARSIDE_FUZZ_TARGET` names one target, and the others are left out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../fuzz/targets/site.rs"]
mod site;
#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use targets::Target;

/// The longest input that mutations make.
const LONGEST: usize = 4_096;

fn all() -> impl Iterator<Item = &'static Target> {
    let wanted = std::env::var("NEARSIDE_FUZZ_TARGET").ok();
    let all = targets::TARGETS.iter().chain(site::TARGETS);
    all.filter(move |(name, _)| wanted.as_ref().is_none_or(|wanted| wanted == name))
}

fn folder(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}

/// The inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<_> = std::fs::read_dir(folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// An environment variable's number.
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn every_target_holds_on_its_corpus() {
    for (name, target) in all() {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "{name} has a corpus");
        for (path, bytes) in inputs {
            assert!(catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_ok(), "{}", path.display());
        }
    }
}

#[test]
fn every_target_holds_on_mutations_of_its_corpus() {
    let (runs, seed) = (number("NEARSIDE_FUZZ_RUNS", 2_000), number("NEARSIDE_FUZZ_SEED", 1));
    for (name, target) in all() {
        println!("{name}: NEARSIDE_FUZZ_RUNS={runs} NEARSIDE_FUZZ_SEED={seed}");
        let inputs: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, bytes)| bytes).collect();
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..runs {
            let bytes = mutated(&inputs, &mut random);
            if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
                let found = std::env::temp_dir().join(format!("nearside-{name}-{seed}"));
                std::fs::write(&found, &bytes).unwrap();
                panic!("{name}: the input is in {}; it belongs into {}", found.display(), folder(name).display());
            }
        }
    }
}

/// An input of the corpus, changed in one to eight places.
fn mutated(inputs: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = inputs.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..=8) {
        let at = random.random_range(0..=bytes.len());
        let until = random.random_range(at..=bytes.len().min(at + 32));
        match random.random_range(0..8) {
            0 => drop(bytes.drain(at..until)),
            1 => bytes.insert(at, random.random()),
            2 => {
                let copy = bytes[at..until].to_vec();
                let to = random.random_range(0..=bytes.len());
                drop(bytes.splice(to..to, copy));
            }
            3 => {
                let other = inputs.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                let piece = &other[from..other.len().min(from + 64)];
                drop(bytes.splice(at..until, piece.iter().copied()));
            }
            kind => {
                let Some(byte) = bytes.get_mut(at) else { continue };
                *byte = match kind {
                    4 => *byte ^ (1 << random.random_range(0..8)),
                    5 => *[0, 1, 0x7F, 0x80, 0xFF].choose(random).unwrap(),
                    6 => byte.wrapping_add(random.random_range(0..=8)).wrapping_sub(4),
                    _ => random.random(),
                };
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}
