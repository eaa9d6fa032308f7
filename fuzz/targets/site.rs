//! What needs the whole house: the configuration, the states of streams.

use std::path::Path;

use nearside_actors::stream::StreamState;

use crate::targets::Target;

/// These targets.
pub const TARGETS: &[Target] = &[("configuration", configuration), ("checkpoint", checkpoint)];

/// A site's file.
fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match nearside_config::parse(text, Path::new("site.toml")) {
        Ok(site) => assert!(!site.streams.is_empty(), "a site has a stream"),
        // Says what is wrong, whatever the text.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The state of a stream in a checkpoint, once it is decrypted.
fn checkpoint(bytes: &[u8]) {
    let Some((name, key, state)) = StreamState::decode(bytes) else { return };
    // Bytes of an earlier version are written as today's: from then on they stay as they are.
    let again = state.encode(&name, &key);
    let Some((name, key, state)) = StreamState::decode(&again) else { panic!("what is written is read") };
    assert_eq!(state.encode(&name, &key), again, "what is read is written as it was");
}
