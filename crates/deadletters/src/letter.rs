//! A letter and its bytes on disk.
//!
//! File, format 1: the four bytes `NSDL`, one byte 1, 16 bytes of salt, then AES-256-GCM ciphertext and tag under the key that is derived
//! from the site's key and the salt, with a nonce of zeros (each key is used once) and the first five bytes authenticated. The plaintext
//! is one line of JSON, all but the payload, and after it the payload as it came.

use std::borrow::Cow;
use std::path::Path;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use bytes::Bytes;
use nearside_schemas::{KeyPurpose, KeySource, QoS, SetAsideReason, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::DeadLetterError;

const MAGIC: &[u8; 4] = b"NSDL";
const FORMAT: u8 = 1;
const HEAD: usize = 5;
const SALT: usize = 16;

/// A message that could not be handled. Personal: `Debug` shows sizes only.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why, as its label: a reason of [`SetAsideReason`], or one of a later version.
    pub reason: String,
    /// What was wrong and where, in a sentence for people that quotes nothing of the payload; empty where nobody said.
    pub detail: String,
    /// Which part of the pipeline it was in, such as `decode` or `stream`.
    pub stage: String,
    /// The stream definition, where one claims it.
    pub stream: Option<String>,
    /// When the front door read it.
    pub received: Timestamp,
    /// The topic.
    pub topic: String,
    /// The quality of service.
    pub qos: QoS,
    /// Whether it was to be retained.
    pub retain: bool,
    /// The payload.
    pub payload: Bytes,
}

impl std::fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeadLetter({} in {}, {} bytes)", self.reason, self.stage, self.payload.len())
    }
}

/// The first line of the plaintext.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    reason: Cow<'a, str>,
    /// Letters of earlier versions have none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    detail: Cow<'a, str>,
    stage: Cow<'a, str>,
    stream: Option<Cow<'a, str>>,
    received: Timestamp,
    topic: Cow<'a, str>,
    qos: QoS,
    retain: bool,
}

/// What tells one message from another without telling of it.
pub(crate) type Digest = [u8; 16];

impl DeadLetter {
    /// A letter of a published message.
    pub fn of(
        publish: &nearside_schemas::Publish,
        stream: Option<&nearside_schemas::StreamName>,
        stage: &str,
        reason: SetAsideReason,
    ) -> Self {
        Self {
            reason: reason.label().to_owned(),
            detail: String::new(),
            stage: stage.to_owned(),
            stream: stream.map(ToString::to_string),
            received: publish.received,
            topic: publish.topic.as_str().to_owned(),
            qos: publish.qos,
            retain: publish.retain,
            payload: publish.payload.clone(),
        }
    }

    /// The letter with what was wrong in words. They must quote nothing of the payload: they are shown where it is not.
    #[must_use]
    pub fn because(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// The digest by which the same message is known again: keyed, for a payload may be guessed.
    pub(crate) fn digest(&self, keys: &dyn KeySource) -> Digest {
        let key = keys.derive(KeyPurpose::DeadLetters, b"names");
        let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
        let received = self.received.as_micros().to_le_bytes();
        for part in [self.stage.as_bytes(), self.topic.as_bytes(), &received, &self.payload] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut digest = Digest::default();
        hasher.finalize_xof().fill(&mut digest);
        digest
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub(crate) fn seal(&self, keys: &dyn KeySource) -> Result<Vec<u8>, DeadLetterError> {
        let head = Head {
            reason: self.reason.as_str().into(),
            detail: self.detail.as_str().into(),
            stage: self.stage.as_str().into(),
            stream: self.stream.as_deref().map(Cow::from),
            received: self.received,
            topic: self.topic.as_str().into(),
            qos: self.qos,
            retain: self.retain,
        };
        // Strings and numbers: writing them as JSON cannot fail; were it to, the letter would be refused like one without randomness.
        let line = Zeroizing::new(serde_json::to_vec(&head).map_err(|_| DeadLetterError::Randomness)?);
        let mut plain = Zeroizing::new(Vec::with_capacity(line.len() + 1 + self.payload.len()));
        plain.extend_from_slice(&line);
        plain.push(b'\n');
        plain.extend_from_slice(&self.payload);
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(|_| DeadLetterError::Randomness)?;
        let mut bytes = MAGIC.to_vec();
        bytes.push(FORMAT);
        let payload = Payload { msg: &plain, aad: &bytes };
        let sealed =
            cipher(keys, &salt).encrypt(&Nonce::from([0; 12]), payload).map_err(|_| DeadLetterError::Randomness)?;
        bytes.extend(salt);
        bytes.extend(sealed);
        Ok(bytes)
    }

    /// Reads what [`DeadLetter::seal`] wrote; `path` is for error texts.
    pub(crate) fn open(bytes: &[u8], keys: &dyn KeySource, path: &Path) -> Result<Self, DeadLetterError> {
        let refused = || DeadLetterError::Sealed { path: path.to_owned() };
        let (head, rest) = bytes.split_at_checked(HEAD).ok_or_else(refused)?;
        if &head[..4] != MAGIC || head[4] != FORMAT {
            let found = (&head[..4] == MAGIC).then_some(head[4]);
            return Err(DeadLetterError::Version { path: path.to_owned(), found });
        }
        let (salt, sealed) = rest.split_at_checked(SALT).ok_or_else(refused)?;
        let salt: [u8; SALT] = salt.try_into().map_err(|_| refused())?;
        let payload = Payload { msg: sealed, aad: head };
        let plain = cipher(keys, &salt).decrypt(&Nonce::from([0; 12]), payload).map_err(|_| refused())?;
        Self::read(&Zeroizing::new(plain)).ok_or_else(refused)
    }

    /// Reads the plaintext.
    pub(crate) fn read(plain: &[u8]) -> Option<Self> {
        let line = plain.iter().position(|byte| *byte == b'\n')?;
        let head: Head<'_> = serde_json::from_slice(&plain[..line]).ok()?;
        Some(Self {
            reason: head.reason.into_owned(),
            detail: head.detail.into_owned(),
            stage: head.stage.into_owned(),
            stream: head.stream.map(Cow::into_owned),
            received: head.received,
            topic: head.topic.into_owned(),
            qos: head.qos,
            retain: head.retain,
            payload: Bytes::copy_from_slice(&plain[line + 1..]),
        })
    }
}

fn cipher(keys: &dyn KeySource, salt: &[u8; SALT]) -> Aes256Gcm {
    // Apart from the key of the names, whose context is shorter than any salt.
    let key = keys.derive(KeyPurpose::DeadLetters, salt);
    Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key.as_bytes()))
}
