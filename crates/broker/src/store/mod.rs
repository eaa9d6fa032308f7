//! What outlives the process: durable sessions with their queues and QoS 2 packet ids, and retained messages.
//!
//! Promises: what was handed over before a call of `then` is on disk when `then` is called with `true`, and comes back from
//! [`Storage::load`] after a crash (promise I1); changes take effect in the order in which they were handed over; a group of
//! changes is one transaction. Never: a payload, a topic or a client id is on disk in the clear (I2).

mod bytes;
mod disk;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use nearside_schemas::{KeySource, PacketId, Timestamp};

use crate::config::BrokerError;
use crate::message::Message;
use crate::packet::{Subscription, Will};
use crate::router::SessionNumber;

pub(crate) use bytes::fuzz;
pub(crate) use disk::Disk;
pub(crate) use writer::StoreHandle;

/// Where sessions and retained messages are kept.
#[derive(Clone, Default)]
pub enum SessionStore {
    /// In memory: they end with the process.
    #[default]
    Memory,
    /// In a file, encrypted with keys of this source.
    File {
        /// The file.
        path: PathBuf,
        /// Where its keys come from.
        keys: Arc<dyn KeySource>,
    },
}

/// A session without its queue: one that outlives its connections, or one with a will, so that the will outlives the gateway.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SessionRecord {
    pub(crate) number: SessionNumber,
    pub(crate) client: String,
    /// The user whose it is.
    pub(crate) owner: Option<String>,
    /// How long it outlives a connection.
    pub(crate) expiry_secs: u32,
    /// When its last connection ended; `None` while it has one.
    pub(crate) offline_since: Option<Timestamp>,
    /// What is published unless the client is back in time.
    pub(crate) will: Option<Will>,
    pub(crate) subscriptions: Vec<Subscription>,
    /// Messages up to this position were sent before its last connection ended; `None` where that is not known.
    pub(crate) sent: Option<u64>,
}

/// One change.
#[derive(Clone)]
pub(crate) enum Change {
    /// A session is new, or its record is another one now.
    Session(Box<SessionRecord>),
    /// A session ends, with all that belongs to it.
    End(SessionNumber),
    /// A message waits for a session, at a position.
    Enqueue(SessionNumber, u64, Message),
    /// The client has it; only the release is still owed.
    Released(SessionNumber, u64),
    /// It waits no longer.
    Dequeue(SessionNumber, u64),
    /// A QoS 2 packet id of the client is taken.
    Take(SessionNumber, PacketId),
    /// It is free again.
    Free(SessionNumber, PacketId),
    /// All QoS 2 messages of the session that stand in the journal below this number are known.
    Journalled(SessionNumber, u64),
    /// A message is retained, under its topic's number.
    Retain(u64, Message),
    /// No message is retained under that number.
    Forget(u64),
}

impl Change {
    /// The message that it keeps.
    fn message(&self) -> Option<&Message> {
        match self {
            Self::Enqueue(_, _, message) | Self::Retain(_, message) => Some(message),
            _ => None,
        }
    }
}

/// A message that waits, as it was stored; without the message where only its release is owed.
pub(crate) struct SavedMessage {
    pub(crate) position: u64,
    pub(crate) message: Option<Message>,
}

/// A session, as it was stored.
pub(crate) struct SavedSession {
    pub(crate) record: SessionRecord,
    /// In order of position.
    pub(crate) queue: Vec<SavedMessage>,
    pub(crate) taken: Vec<PacketId>,
    /// Those QoS 2 messages that stand in the journal below this number are known; all, where nothing was stored of it.
    pub(crate) journalled: u64,
}

/// Everything that was stored.
#[derive(Default)]
pub(crate) struct Saved {
    pub(crate) sessions: Vec<SavedSession>,
    pub(crate) retained: Vec<(u64, Message)>,
}

/// Something that keeps changes.
pub(crate) trait Storage: Send + 'static {
    /// Everything that was committed.
    fn load(&mut self) -> Result<Saved, BrokerError>;
    /// Makes the changes durable, all or none.
    fn commit(&mut self, changes: &[Change]) -> Result<(), BrokerError>;
}
