//! Privacy: keys, envelopes, pseudonyms, and the sealing of what may leave the site.
//!
//! Promises: only a [`Sealed`] item can reach the uplink and only this crate makes one (promise I2); a personal value leaves as
//! ciphertext, pseudonym or not at all, as its policy says; keys at rest and towards the cloud are derived separately and no
//! nonce is used twice with a key (I7).
//! Never: a key, a plaintext or a pseudonym's source is logged or stands in an error.

mod envelope;
mod error;
mod finding;
mod folder_key;
mod keys;
mod open;
mod seal;
mod sealed;
mod view;

pub use envelope::{Context, Envelope};
pub use error::PrivacyError;
pub use keys::{KeyRing, PrivacyConfig};
pub use open::open_event;
pub use seal::{SummaryFormat, preview_finding, preview_summary, seal_finding, seal_rollup, seal_summary};
pub use sealed::{Class, Sealed, SealedItem};
pub use view::shown_key;
