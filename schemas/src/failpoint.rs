//! Places where a test may end the program as `kill -9` would, or have it panic, to see what that leaves at just that moment.
//!
//! Only builds with debug assertions have them; a release build has nothing here to call.

/// Ends the process at once where the environment says `NEARSIDE_FAILPOINT=PLACE:N` and this is the `N`th time that `place` is met; panics
/// where it says `PLACE:N:panic`.
#[cfg(debug_assertions)]
pub fn failpoint(place: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, u64, bool)>> = OnceLock::new();
    static MET: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("NEARSIDE_FAILPOINT").ok()?;
        let (place, times) = text.split_once(':')?;
        let (times, how) = times.split_once(':').unwrap_or((times, ""));
        Some((place.to_owned(), times.parse().ok()?, how == "panic"))
    });
    if let Some((wanted, times, panics)) = wanted
        && wanted == place
        && MET.fetch_add(1, Ordering::SeqCst) + 1 == *times
    {
        assert!(!panics, "a test wants it");
        std::process::abort();
    }
}

/// Nothing, in a build without debug assertions.
#[cfg(not(debug_assertions))]
pub const fn failpoint(_: &str) {}
