//! Sealed items: what may leave the site.

use std::marker::PhantomData;

use nearside_schemas::{KeyPurpose, KeySource, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::PrivacyError;
use crate::keys::KeyRing;

/// How urgent an item is; the order is the order in which the cloud gets them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A finding.
    Alert = 0,
    /// A summary of a window.
    Summary = 1,
    /// A roll-up.
    RollUp = 2,
}

impl Class {
    /// All classes, most urgent first.
    pub const ALL: [Self; 3] = [Self::Alert, Self::Summary, Self::RollUp];

    /// The metric label and the last level of the topic.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Summary => "summary",
            Self::RollUp => "rollup",
        }
    }
}

/// A sealed item, whatever it was made of.
/// Its fields are private: outside this crate it can be read and passed on, not made or changed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedItem {
    pub(crate) class: Class,
    pub(crate) subject: String,
    pub(crate) revision: u32,
    pub(crate) time: Timestamp,
    pub(crate) content_type: String,
    pub(crate) bytes: Vec<u8>,
}

impl std::fmt::Debug for SealedItem {
    /// Without the bytes: they say nothing to a reader of a log and would fill it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedItem({}, {} bytes)", self.id(), self.bytes.len())
    }
}

/// Proof that a `T` went through the policies. Only this crate makes one (promise I2).
pub struct Sealed<T> {
    pub(crate) item: SealedItem,
    pub(crate) of: PhantomData<fn(T)>,
}

impl<T> Sealed<T> {
    /// The item, for the outbox.
    pub fn into_item(self) -> SealedItem {
        self.item
    }
}

const MAC_BYTES: usize = 32;
/// How every stored item begins: its first line is JSON with the class first.
const HEAD: &[u8] = b"{\"class\":\"";
/// More than any first line has.
const MAX_HEAD: usize = 4_096;

impl SealedItem {
    /// Its class.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// What it is, without the revision: a later revision of the same replaces an earlier one.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The revision.
    pub const fn revision(&self) -> u32 {
        self.revision
    }

    /// The end of its window, or the time of its finding.
    pub const fn time(&self) -> Timestamp {
        self.time
    }

    /// The media type of [`SealedItem::bytes`].
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// A CloudEvents 1.0 event in structured mode.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The item's id: what it is and its revision. The cloud takes each id once.
    pub fn id(&self) -> String {
        format!("{}:r{}", self.subject, self.revision)
    }

    /// The bytes that the outbox stores: the item and a proof that it was sealed on this site.
    ///
    /// # Errors
    /// Never for items of this crate; an error instead of a panic were serialisation ever to fail.
    pub fn store(&self, keys: &KeyRing) -> Result<Vec<u8>, PrivacyError> {
        let mut bytes = serde_json::to_vec(&Stored::from(self)).map_err(|_| PrivacyError::Encode { format: "JSON" })?;
        bytes.push(b'\n');
        bytes.extend(&self.bytes);
        let mac = mac(keys, &bytes);
        bytes.extend(mac);
        Ok(bytes)
    }

    /// What a stored item is and its revision, read without proof: only to find its place in an index.
    pub fn identity_of_stored(stored: &[u8]) -> Option<(String, u32)> {
        let line = stored.iter().position(|byte| *byte == b'\n')?;
        let head = serde_json::from_slice::<Stored>(stored.get(..line)?).ok()?;
        Some((head.subject, head.revision))
    }

    /// Shows every stored item that begins among the first `begins` bytes and is whole, wherever it stands: for a file whose
    /// structure is lost. Each carries its own proof.
    pub fn find_stored(bytes: &[u8], begins: usize, keys: &KeyRing, show: &mut dyn FnMut(Self)) {
        let mut at = 0;
        while at < begins.min(bytes.len()) {
            let rest = &bytes[at..];
            if !rest.starts_with(HEAD) {
                at += rest[1..].iter().position(|byte| *byte == HEAD[0]).map_or(rest.len(), |skip| skip + 1);
                continue;
            }
            match stored_length(rest).and_then(|length| Self::load(rest.get(..length)?, keys).ok().zip(Some(length))) {
                Some((item, length)) => {
                    show(item);
                    at += length;
                }
                None => at += 1,
            }
        }
    }

    /// Reads what [`SealedItem::store`] wrote.
    ///
    /// # Errors
    /// Where it is damaged or was not sealed with this site's key.
    pub fn load(stored: &[u8], keys: &KeyRing) -> Result<Self, PrivacyError> {
        let split = stored.len().checked_sub(MAC_BYTES).ok_or(PrivacyError::NotSealedHere)?;
        let (body, proof) = stored.split_at(split);
        if blake3::Hash::from(mac(keys, body)) != *proof {
            return Err(PrivacyError::NotSealedHere);
        }
        let line = body.iter().position(|byte| *byte == b'\n').ok_or(PrivacyError::NotSealedHere)?;
        let (head, bytes) = body.split_at(line);
        let head: Stored = serde_json::from_slice(head).map_err(|_| PrivacyError::NotSealedHere)?;
        Ok(Self {
            class: head.class,
            subject: head.subject,
            revision: head.revision,
            time: head.time,
            content_type: head.content_type,
            bytes: bytes.get(1..).unwrap_or_default().to_vec(),
        })
    }
}

/// The first line of a stored item.
#[derive(Serialize, Deserialize)]
struct Stored {
    class: Class,
    subject: String,
    revision: u32,
    time: Timestamp,
    content_type: String,
}

/// The length of the stored item that `bytes` begin with, if its parts are what they look like: a line, an event, a proof.
fn stored_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.iter().take(MAX_HEAD).position(|byte| *byte == b'\n')?;
    let mut event = serde_json::Deserializer::from_slice(bytes.get(line + 1..)?).into_iter::<serde::de::IgnoredAny>();
    event.next()?.ok()?;
    Some(line + 1 + event.byte_offset() + MAC_BYTES)
}

impl From<&SealedItem> for Stored {
    fn from(item: &SealedItem) -> Self {
        Self {
            class: item.class,
            subject: item.subject.clone(),
            revision: item.revision,
            time: item.time,
            content_type: item.content_type.clone(),
        }
    }
}

fn mac(keys: &KeyRing, bytes: &[u8]) -> [u8; MAC_BYTES] {
    let key = keys.derive(KeyPurpose::OutboxSeal, b"v1");
    *blake3::keyed_hash(key.as_bytes(), bytes).as_bytes()
}
