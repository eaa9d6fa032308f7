//! The envelope of one personal value: AES-256-GCM under a key of its own, bound to where the value belongs.
//!
//! Each envelope has a random 128-bit salt; its key is derived from the site's key and the salt, and used once, so a nonce cannot
//! repeat under a key (promise I7). Site, stream, window, revision and field are authenticated with it: an envelope that is moved to another
//! place does not open.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nearside_schemas::{KeyPurpose, KeySource};
use serde::{Deserialize, Serialize};

use crate::error::PrivacyError;
use crate::keys::KeyRing;

/// The name of the algorithm as in RFC 7518 section 5.1.
const ALGORITHM: &str = "A256GCM";

/// Where a value belongs.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The site.
    pub site: &'a str,
    /// The window, or whatever the item is, with its revision.
    pub item: &'a str,
    /// The field.
    pub field: &'a str,
}

/// An encrypted value as it stands in an event.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
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
    /// Where the system has no randomness.
    pub fn seal(keys: &KeyRing, context: Context<'_>, plain: &str) -> Result<Self, PrivacyError> {
        let mut salt = [0u8; 16];
        getrandom::fill(&mut salt).map_err(|_| PrivacyError::Randomness)?;
        let bound = bound(context);
        let payload = Payload { msg: plain.as_bytes(), aad: &bound };
        let sealed = cipher(keys, &salt)
            .encrypt(&Nonce::from([0; 12]), payload)
            .map_err(|_| PrivacyError::Sealed { field: context.field.to_owned() })?;
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
    pub fn open(&self, keys: &KeyRing, context: Context<'_>) -> Result<String, PrivacyError> {
        let refused = || PrivacyError::Sealed { field: context.field.to_owned() };
        if self.enc != ALGORITHM || self.kid != keys.id() {
            return Err(refused());
        }
        let salt: [u8; 16] =
            URL_SAFE_NO_PAD.decode(&self.salt).ok().and_then(|salt| salt.try_into().ok()).ok_or_else(refused)?;
        let sealed = URL_SAFE_NO_PAD.decode(&self.ct).map_err(|_| refused())?;
        let bound = bound(context);
        let payload = Payload { msg: &sealed, aad: &bound };
        let plain = cipher(keys, &salt).decrypt(&Nonce::from([0; 12]), payload).map_err(|_| refused())?;
        String::from_utf8(plain).map_err(|_| refused())
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
    for part in [context.site, context.item, context.field] {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}
