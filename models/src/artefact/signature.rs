//! Ed25519 signatures (RFC 8032) of models: who made a model, and that nobody changed it since.
//!
//! What is signed is `card.toml` as it stands; the card holds the SHA-256 of the weights, so one signature covers both, and
//! encrypting the weights at rest does not break it. `card.sig` has three lines: `nearside-model-signature-v1`, `key ed25519:` and
//! the public key, `signature` and the signature, both in hexadecimal. A key file has two lines: `nearside-signing-key-v1` and the
//! 32 secret bytes in hexadecimal.
//! Never: a secret key is shown; its `Debug` shows the public half.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The signature's file name in a model's folder.
pub const SIGNATURE_FILE: &str = "card.sig";

const SIGNATURE_HEADER: &str = "nearside-model-signature-v1";
const KEY_HEADER: &str = "nearside-signing-key-v1";
/// Keeps a model's signature from being one of anything else.
const DOMAIN: &[u8] = b"nearside model card v1\0";
const PREFIX: &str = "ed25519:";
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;

/// The public half of a signing key, written `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; KEY_BYTES]);

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}", to_hex(&self.0))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for PublicKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::str::FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text.trim().strip_prefix(PREFIX).and_then(from_hex);
        bytes.map(Self).ok_or_else(|| {
            format!("a key is written `{PREFIX}` and 64 hexadecimal digits, as `nearside models keygen` prints it")
        })
    }
}

/// Signs models. The secret half is wiped when it is dropped.
pub struct SigningKey {
    seed: Zeroizing<[u8; KEY_BYTES]>,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

impl SigningKey {
    /// Of 32 secret random bytes. `None` where the library refuses them, which it does for no bytes we know of.
    pub fn from_seed(seed: [u8; KEY_BYTES]) -> Option<Self> {
        let seed = Zeroizing::new(seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).ok()?;
        Some(Self { seed, pair })
    }

    /// Reads a key file's text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let seed = (lines.next()? == KEY_HEADER).then(|| lines.next()).flatten().and_then(from_hex)?;
        Self::from_seed(seed)
    }

    /// The key file's text.
    pub fn to_text(&self) -> Zeroizing<String> {
        let digits = Zeroizing::new(to_hex(self.seed.as_ref()));
        Zeroizing::new(format!("{KEY_HEADER}\n{}\n", digits.as_str()))
    }

    /// The half that everybody may know.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; KEY_BYTES];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// The text of `card.sig` for the text of a card.
    pub fn sign(&self, card: &[u8]) -> String {
        let signature = self.pair.sign(&signed_bytes(card));
        format!("{SIGNATURE_HEADER}\nkey {}\nsignature {}\n", self.public(), to_hex(signature.as_ref()))
    }
}

/// Whose signature `text`, the text of `card.sig`, is. Says what is wrong where it is no signature of this card.
pub fn verify(card: &[u8], text: &str) -> Result<PublicKey, String> {
    let parts = || {
        let mut lines = text.lines();
        let header = lines.next()? == SIGNATURE_HEADER;
        let key: PublicKey = lines.next()?.strip_prefix("key ")?.parse().ok()?;
        let signature: [u8; SIGNATURE_BYTES] = from_hex(lines.next()?.strip_prefix("signature ")?)?;
        header.then_some((key, signature))
    };
    let (key, signature) = parts().ok_or_else(|| format!("{SIGNATURE_FILE} is not a signature"))?;
    UnparsedPublicKey::new(&ED25519, key.0)
        .verify(&signed_bytes(card), &signature)
        .map(|()| key)
        .map_err(|_| format!("{SIGNATURE_FILE} is not the signature of this card: one of them was changed"))
}

fn signed_bytes(card: &[u8]) -> Vec<u8> {
    [DOMAIN, card].concat()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digits = digits.trim();
    if digits.len() != 2 * N || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, 7.1, test 1.
    #[test]
    fn the_public_key_is_the_standards() {
        let seed = from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let expected = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(SigningKey::from_seed(seed).unwrap().public().to_string(), expected);
    }

    #[test]
    fn a_signature_holds_for_its_card_alone() {
        let key = SigningKey::from_seed([7; 32]).unwrap();
        let signature = key.sign(b"card");
        assert_eq!(verify(b"card", &signature), Ok(key.public()));
        assert!(verify(b"cart", &signature).is_err());
        let other = SigningKey::from_seed([8; 32]).unwrap().public().to_string();
        let swapped = signature.replace(&key.public().to_string(), &other);
        assert!(verify(b"card", &swapped).is_err(), "another's name under it");
        for damaged in ["", "nearside-model-signature-v1\n", &signature[..signature.len() - 3]] {
            assert!(verify(b"card", damaged).is_err(), "{damaged}");
        }
    }

    #[test]
    fn keys_survive_being_written() {
        let key = SigningKey::from_seed([3; 32]).unwrap();
        assert_eq!(SigningKey::parse(&key.to_text()).unwrap().public(), key.public());
        assert_eq!(key.public().to_string().parse::<PublicKey>().unwrap(), key.public());
        assert!(SigningKey::parse("nearside-key-v1\n00\n").is_none());
        assert!("ed25519:12".parse::<PublicKey>().is_err());
        assert!(!format!("{key:?}").contains("0303"), "the secret is not shown");
    }
}
