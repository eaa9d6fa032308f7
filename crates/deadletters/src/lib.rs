//! Dead letters: messages that panicked the code that handled them, kept for inspection and replay.
//!
//! Promises: a letter is encrypted under a key of its own before it reaches the disk, topic and reason included, and its name says nothing
//! but its place in the order; the same message set aside again (the journal replayed after a crash) is kept once; the area is bounded, past
//! the bound the oldest goes, counted (promise I4); whoever sets a message aside never waits (I3).
//! Never: a payload or a topic in a log line, an error or a file name (I2); a nonce used twice with a key (I7).

mod area;
mod config;
#[doc(hidden)]
pub mod fuzz;
mod letter;
mod writer;

pub use area::{LetterId, ids, read, remove};
pub use config::{DeadLetterError, DeadLettersConfig};
pub use letter::DeadLetter;
pub use writer::DeadLetters;
