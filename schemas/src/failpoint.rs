//! Places where a test may end the program as `kill -9` would, to see what a crash at just that moment leaves.
//!
//! Only builds with debug assertions have them; a release build has nothing here to call.

/// Ends the process at once where the environment says `NEARSIDE_FAILPOINT=PLACE:N` and this is the `N`th time that `place` is met.
#[cfg(debug_assertions)]
pub fn failpoint(place: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static MET: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("NEARSIDE_FAILPOINT").ok()?;
        let (place, times) = text.split_once(':')?;
        Some((place.to_owned(), times.parse().ok()?))
    });
    if let Some((wanted, times)) = wanted
        && wanted == place
        && MET.fetch_add(1, Ordering::SeqCst) + 1 == *times
    {
        std::process::abort();
    }
}

/// Nothing, in a build without debug assertions.
#[cfg(not(debug_assertions))]
pub const fn failpoint(_: &str) {}
