//! Weights at rest, encrypted for one site.
//!
//! File, format 1: the four bytes `NSMW`, one byte 1, 16 bytes of salt, then AES-256-GCM ciphertext and tag. The key is derived from
//! the site's key and the salt, the nonce is zeros (each key is used once, promise I7), and the first five bytes and the model's name
//! are authenticated: weights cannot be passed off as another model's.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use nearside_schemas::{KeyPurpose, KeySource};

/// Random bytes that make the key of one file.
pub const SALT: usize = 16;

const HEAD: &[u8; 5] = b"NSMW\x01";

/// Encrypts a model's weights; `salt` must never have been used before. `None` where the cipher refuses, which takes 64 GiB.
pub fn encrypt(keys: &dyn KeySource, salt: [u8; SALT], model: &str, weights: &[u8]) -> Option<Vec<u8>> {
    let aad = bound(model);
    let sealed = cipher(keys, &salt).encrypt(&Nonce::from([0; 12]), Payload { msg: weights, aad: &aad }).ok()?;
    Some([HEAD.as_slice(), &salt, &sealed].concat())
}

/// The weights of an encrypted file; `None` where the key is another or a bit has changed.
pub fn decrypt(keys: &dyn KeySource, model: &str, file: &[u8]) -> Option<Vec<u8>> {
    let rest = file.strip_prefix(HEAD.as_slice())?;
    let (salt, sealed) = rest.split_first_chunk::<SALT>()?;
    let aad = bound(model);
    cipher(keys, salt).decrypt(&Nonce::from([0; 12]), Payload { msg: sealed, aad: &aad }).ok()
}

fn cipher(keys: &dyn KeySource, salt: &[u8; SALT]) -> Aes256Gcm {
    let key = keys.derive(KeyPurpose::Models, salt);
    Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key.as_bytes()))
}

fn bound(model: &str) -> Vec<u8> {
    [HEAD.as_slice(), model.as_bytes()].concat()
}

#[cfg(test)]
pub(super) mod tests {
    use nearside_schemas::SecretKey;

    use super::*;

    /// Keys that differ by site and salt.
    pub(in crate::artefact) struct Site(pub(in crate::artefact) u8);

    impl KeySource for Site {
        fn derive(&self, _: KeyPurpose, context: &[u8]) -> SecretKey {
            let mut key = [self.0; 32];
            key[..context.len()].copy_from_slice(context);
            SecretKey::new(key)
        }
    }

    #[test]
    fn only_the_site_reads_its_own_model() {
        let file = encrypt(&Site(1), [9; SALT], "m", b"weights").unwrap();
        assert!(!file.windows(7).any(|part| part == b"weights"));
        assert_eq!(decrypt(&Site(1), "m", &file).unwrap(), b"weights");
        assert!(decrypt(&Site(2), "m", &file).is_none());
        assert!(decrypt(&Site(1), "n", &file).is_none(), "another model's");
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(decrypt(&Site(1), "m", &damaged).is_none(), "{at}");
            assert!(decrypt(&Site(1), "m", &file[..at]).is_none(), "{at}");
        }
    }
}
