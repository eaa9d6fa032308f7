//! The envelope of one personal value: AES-256-GCM under a key of its own, bound to where the value belongs.
//!
//! Each envelope has a random 128-bit salt; its key is derived from the site's key and the salt, and used once, so a nonce cannot
//! repeat under a key (promise I7). Site, stream, window, revision and the place in the event are authenticated with it: an envelope that is
//! moved to another event, field or row does not open. The text is padded, so neither a short word of a small
//! vocabulary nor which sentence a model wrote is known by its length.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nearside_schemas::{KeyPurpose, KeySource};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::error::PrivacyError;
use crate::keys::KeyRing;

/// The name of the algorithm as in RFC 7518 section 5.1.
const ALGORITHM: &str = "A256GCM";
/// Plaintexts are padded to a multiple of as many bytes: room for a model's sentence.
const PADDED_TO: usize = 256;

/// Where a value belongs.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The site.
    pub site: &'a str,
    /// The window, or whatever the item is, with its revision.
    pub item: &'a str,
    /// The place in the event's `data`, as a JSON pointer (RFC 6901) such as `/texts/note/0`.
    pub place: &'a str,
}

/// An encrypted value as it stands in an event.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The algorithm.
    pub enc: String,
    /// The id of the site's key.
    pub kid: String,
    /// The salt of the envelope's own key, base64url.
    pub salt: String,
    /// Ciphertext and tag, base64url.
    pub ct: String,
}

impl Envelope {
    /// Encrypts a value for its context.
    ///
    /// # Errors
    /// Where the system has no randomness, or the value cannot be written as JSON.
    pub fn seal(keys: &KeyRing, context: Context<'_>, value: &impl Serialize) -> Result<Self, PrivacyError> {
        let unwritable = |_| PrivacyError::Encode { format: "JSON" };
        let mut plain = Zeroizing::new(serde_json::to_vec(value).map_err(unwritable)?);
        // JSON ends in as much white space as one likes.
        let padded = plain.len().next_multiple_of(PADDED_TO);
        plain.resize(padded, b' ');
        let mut salt = [0u8; 16];
        getrandom::fill(&mut salt).map_err(|_| PrivacyError::Randomness)?;
        let bound = bound(context);
        let payload = Payload { msg: &plain, aad: &bound };
        let sealed = cipher(keys, &salt)
            .encrypt(&Nonce::from([0; 12]), payload)
            .map_err(|_| PrivacyError::Encode { format: "ciphertext" })?;
        Ok(Self {
            enc: ALGORITHM.to_owned(),
            kid: keys.id().to_owned(),
            salt: URL_SAFE_NO_PAD.encode(salt),
            ct: URL_SAFE_NO_PAD.encode(sealed),
        })
    }

    /// Decrypts the value.
    ///
    /// # Errors
    /// Where the key or the context is another, or a bit has changed.
    pub fn open(&self, keys: &KeyRing, context: Context<'_>) -> Result<Value, PrivacyError> {
        let refused = || PrivacyError::Sealed { place: context.place.to_owned() };
        if self.enc != ALGORITHM || self.kid != keys.id() {
            return Err(refused());
        }
        let salt: [u8; 16] =
            URL_SAFE_NO_PAD.decode(&self.salt).ok().and_then(|salt| salt.try_into().ok()).ok_or_else(refused)?;
        let sealed = URL_SAFE_NO_PAD.decode(&self.ct).map_err(|_| refused())?;
        let bound = bound(context);
        let payload = Payload { msg: &sealed, aad: &bound };
        let plain = cipher(keys, &salt).decrypt(&Nonce::from([0; 12]), payload).map_err(|_| refused())?;
        serde_json::from_slice(&Zeroizing::new(plain)).map_err(|_| refused())
    }
}

/// The pseudonym of a value of a field: equal values of one site have equal pseudonyms, and nothing else can be learnt from it.
pub(crate) fn pseudonym(keys: &KeyRing, field: &str, value: &str) -> String {
    let key = keys.derive(KeyPurpose::Pseudonyms, field.as_bytes());
    let digest = blake3::keyed_hash(key.as_bytes(), value.as_bytes());
    let digits: String = digest.as_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("p_{digits}")
}

fn cipher(keys: &KeyRing, salt: &[u8; 16]) -> Aes256Gcm {
    let key = keys.derive(KeyPurpose::Envelopes, salt);
    Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key.as_bytes()))
}

/// The context as bytes; lengths keep its parts apart.
fn bound(context: Context<'_>) -> Vec<u8> {
    let mut bytes = b"nearside envelope v1".to_vec();
    for part in [context.site, context.item, context.place] {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}
