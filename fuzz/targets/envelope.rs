//! What was sealed: events of the cloud's side, items of the outbox.

use nearside_privacy::{Context, Envelope, SealedItem, open_event};
use serde_json::Value;

/// An event that somebody opens. Where the bytes are JSON of another kind, it is sealed and opened.
pub(super) fn envelope(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let _ = open_event(value.clone(), super::keys());
    let here = Context { site: "s", item: "i:r0", place: "/a" };
    let Ok(envelope) = Envelope::seal(super::keys(), here, &value) else { return };
    assert!(envelope.open(super::keys(), here).is_ok_and(|opened| opened == value), "a value comes back");
    let elsewhere = Context { place: "/b", ..here };
    assert!(envelope.open(super::keys(), elsewhere).is_err(), "it opens only where it belongs");
}

/// Stored items: one by itself, and as many as are found in a damaged file.
pub(super) fn outbox(bytes: &[u8]) {
    let _ = SealedItem::identity_of_stored(bytes);
    let loaded = SealedItem::load(bytes, super::keys()).is_ok();
    let mut found = 0;
    SealedItem::find_stored(bytes, bytes.len(), super::keys(), &mut |_| found += 1);
    assert!(found <= bytes.len() / 32, "no more items than there is room for");
    // An item's event may be no JSON only if this crate did not make it.
    assert!(!loaded || found >= 1, "an item that loads is found");
}
