//! Another configuration takes over from the one in force, while the gateway runs or between two runs: streams that are defined as before
//! go on, windows of the others close.
//!
//! Promises: the configuration in force stands beside the checkpoint, so that a start takes in the journal under the definitions that
//! its readings were acknowledged under, whatever the file says by then (promises I1, I5); it changes in the same commit that marks the
//! windows of changed definitions as closed. Whoever is cut off in between finds the configuration from before, and all of its windows,
//! at the next start.
//! Never: a reading is taken while this goes on.

use std::time::Duration;

use nearside_journal::{Checkpoint, CheckpointRound, CheckpointStore, JournalError};
use nearside_schemas::{StreamName, Timestamp};

use crate::checkpoint::Checkpointer;
use crate::stream::StreamState;

/// The name of the configuration in force in a checkpoint: its text as it was read.
pub const SAVED_NAME: &str = "configuration";

/// How long it waits for what is in flight.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Lets everything taken be judged, closes the windows of `changed` definitions, and puts every stream's state on disk. False where
/// something does not answer or the disk refuses: then streams go on as they are, and may be asked again. A disk that refuses the states
/// as they are is found before any window is closed. Where windows are not closed `for_good` and the disk refuses right after, later
/// rows revise them where their definition says so.
pub async fn close(checkpointer: &mut Checkpointer, changed: &[StreamName], now: Timestamp, for_good: bool) -> bool {
    let ingest = checkpointer.ingest.clone();
    // Everything recorded before is handed on once this is answered.
    checkpointer.journal.barrier().await
        && tokio::time::timeout(PATIENCE, ingest.judged_through()).await.is_ok()
        && checkpointer.finish().await
        && (changed.is_empty()
            || (ingest.close_windows(now, changed.to_vec(), for_good).await && checkpointer.finish().await))
}

/// Puts another configuration in force, on disk: its text, and that the windows of `changed` definitions are closed for good. Gives
/// what its streams go on from.
///
/// # Errors
/// Where the disk refuses; then the configuration from before is in force.
pub fn commit(store: &CheckpointStore, changed: &[StreamName], source: &str) -> Result<Checkpoint, JournalError> {
    let mut checkpoint = store.load()?;
    let mut closed = Vec::new();
    for stored in &mut checkpoint.streams {
        // What cannot be read is counted when it is adopted.
        let Some((definition, key, mut state)) = StreamState::decode(&stored.state) else { continue };
        if changed.contains(&definition) {
            state.windows_are_closed();
            stored.state = state.encode(&definition, &key);
            closed.push(stored.clone());
        }
    }
    let put = vec![(SAVED_NAME.to_owned(), source.as_bytes().to_vec())];
    store.commit(&CheckpointRound { covers: checkpoint.covers, streams: closed, put, ..CheckpointRound::default() })?;
    Ok(checkpoint)
}
