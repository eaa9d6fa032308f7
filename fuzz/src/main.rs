//! The fuzzer: libFuzzer around the target that `NEARSIDE_FUZZ_TARGET` names. See `fuzz/run.sh`.

#![no_main]

#[cfg(feature = "site")]
#[path = "../targets/site.rs"]
mod site;
#[path = "../targets/mod.rs"]
mod targets;

use std::panic::catch_unwind;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What the last panic said.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    if catch_unwind(|| TARGET.get_or_init(target)(bytes)).is_err() {
        eprintln!("{}", LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner));
        std::process::abort();
    }
});

fn target() -> fn(&[u8]) {
    // libFuzzer's hook ends the process at every panic, also at those of a library that a codec fences and counts. The standard
    // library's prints each with its backtrace, which takes longer than thousands of inputs. One that comes out of a target is printed
    // and ends the process.
    std::panic::set_hook(Box::new(|panic| {
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
    }));
    let name = std::env::var("NEARSIDE_FUZZ_TARGET").unwrap_or_default();
    let all = targets::TARGETS.iter();
    #[cfg(feature = "site")]
    let all = all.chain(site::TARGETS);
    let names: Vec<&str> = all.clone().map(|target| target.0).collect();
    let found = all.clone().find(|target| target.0 == name);
    found.unwrap_or_else(|| panic!("NEARSIDE_FUZZ_TARGET is one of {names:?}")).1
}
