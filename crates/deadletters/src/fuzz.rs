//! What fuzzing reaches of this crate's decoders. No part of the crate's interface.

use std::path::Path;

use nearside_schemas::KeySource;

use crate::letter::DeadLetter;

/// Reads `bytes` as a letter's file, and as what such a file holds once it is opened; what can be read is sealed and opened again.
///
/// # Panics
/// Where it is something else then.
pub fn letter(bytes: &[u8], keys: &dyn KeySource) {
    let path = Path::new("letter");
    let opened = DeadLetter::open(bytes, keys, path).ok();
    for letter in opened.into_iter().chain(DeadLetter::read(bytes)) {
        // Without randomness there is nothing to compare.
        let Ok(sealed) = letter.seal(keys) else { continue };
        assert!(DeadLetter::open(&sealed, keys, path).is_ok_and(|again| again == letter), "a letter comes back");
    }
}
