//! The ports between rooms: what the front door asks of whoever takes messages in, and where keys come from.

use std::future::Future;
use std::pin::Pin;

use zeroize::Zeroizing;

use crate::publish::Publish;

/// A boxed future, for the async methods of ports.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a batch was refused before it was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RefusalReason {
    /// The gateway is stopping.
    Draining,
    /// The journal's disk area is full and the policy is to refuse (v5 reason code 0x97).
    QuotaExceeded,
    /// The journal cannot write any more (v5 reason code 0x80).
    StorageFailed,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Durability {
    /// It is on disk: acknowledge it.
    Durable {
        /// Its messages stand in the journal under lower numbers than this; those of the connection's next batch do not.
        below: u64,
    },
    /// It is not and will not be: do not acknowledge it as taken.
    Refused(RefusalReason),
}

/// Called once with what became of a batch, from the journal's thread or before the batch's future is ready: it must return at once.
pub type Answer = Box<dyn FnOnce(Durability) + Send + 'static>;

/// Whoever takes messages in: the front door hands over batches and acknowledges when the answer says so (promise I1).
pub trait Intake: Send + Sync + 'static {
    /// Takes a connection's next messages if nothing of them has to be kept, and says so: they may be acknowledged then. It says nothing of
    /// the disk. Not to be asked while earlier messages of the connection wait for their answer, for acknowledgements come in the order of
    /// their messages [MQTT-4.6.0-2]; nor with one of QoS 2, whose packet id has to be kept.
    fn pass(&self, batch: &[Publish]) -> bool {
        let _ = batch;
        false
    }

    /// Takes the next messages of one connection, in order. The future is ready when the connection may be read
    /// further (credit, promise I4), which is usually before `answer` is called. Answers of one connection are
    /// called in the order of their batches. Dropping the future may lose an unanswered batch, never an answered one.
    fn submit(&self, batch: Vec<Publish>, answer: Answer) -> BoxFuture<'_, ()>;
}

/// What a key is for. Keys of different purposes are independent of each other (promise I7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyPurpose {
    /// One segment of the journal; the context is the segment's random id.
    JournalSegment,
    /// The ids of streams.
    StreamIds,
    /// Pseudonyms of personal fields.
    Pseudonyms,
    /// Envelopes that leave the site.
    Envelopes,
    /// The proof that an item in the outbox was sealed here.
    OutboxSeal,
    /// Checkpoints and stream state at rest.
    Checkpoints,
    /// Messages set aside for inspection.
    DeadLetters,
    /// Sessions of MQTT clients and retained messages at rest; the context is the number of the start.
    Sessions,
    /// Weights of models at rest; the context is the file's random salt.
    Models,
}

/// 256 secret bits, wiped when dropped.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; 32]>);

impl SecretKey {
    /// Takes key material.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for a cipher or a keyed hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// Where keys come from: derived from a master key that nothing else sees.
pub trait KeySource: Send + Sync + 'static {
    /// The key for a purpose and a context. The same arguments give the same key, other arguments an independent one.
    fn derive(&self, purpose: KeyPurpose, context: &[u8]) -> SecretKey;
}
