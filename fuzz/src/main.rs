//! The fuzzer: libFuzzer around the target that `NEARSIDE_FUZZ_TARGET` names. See `fuzz/run.sh`.

#![no_main]

#[cfg(feature = "site")]
#[path = "../targets/site.rs"]
mod site;
#[path = "../targets/mod.rs"]
mod targets;

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    TARGET.get_or_init(target)(bytes);
});

fn target() -> fn(&[u8]) {
    // libFuzzer's hook ends the process at every panic, also at those of a library that a codec fences and counts. One that comes out of
    // a target still ends it.
    drop(std::panic::take_hook());
    let name = std::env::var("NEARSIDE_FUZZ_TARGET").unwrap_or_default();
    let all = targets::TARGETS.iter();
    #[cfg(feature = "site")]
    let all = all.chain(site::TARGETS);
    let names: Vec<&str> = all.clone().map(|target| target.0).collect();
    let found = all.clone().find(|target| target.0 == name);
    found.unwrap_or_else(|| panic!("NEARSIDE_FUZZ_TARGET is one of {names:?}")).1
}
