//! Checks passwords. A hash is made to cost time, so few are computed at once, off the connections' threads; a password that was
//! right is remembered, as a keyed hash in memory, so that a site whose devices all come back at once does not wait for them.

use std::collections::HashSet;
use std::sync::Arc;

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::users::hash_password;
use crate::config::BrokerError;

/// Hashes computed at a time.
const AT_ONCE: usize = 2;
/// Passwords remembered; past it all are forgotten.
const REMEMBERED: usize = 100_000;

pub(super) struct Passwords {
    turns: Semaphore,
    known: Mutex<HashSet<[u8; 32]>>,
    key: [u8; 32],
    /// Compared with where there is no such user: an answer must not tell by its time who exists.
    nobody: Arc<str>,
}

impl Passwords {
    pub(super) fn new() -> Result<Self, BrokerError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| BrokerError::Password)?;
        let salt = [0; 16];
        let nobody = hash_password(&key, &salt)?.into();
        Ok(Self { turns: Semaphore::new(AT_ONCE), known: Mutex::default(), key, nobody })
    }

    /// Whether the password is the one that was hashed. `None`: there is no such user, or one without a password.
    pub(super) async fn check(&self, hash: Option<Arc<str>>, password: Bytes) -> bool {
        let exists = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        let mut digest = blake3::Hasher::new_keyed(&self.key);
        digest.update(&(hash.len() as u64).to_le_bytes()).update(hash.as_bytes()).update(&password);
        let digest = *digest.finalize().as_bytes();
        if self.known.lock().contains(&digest) {
            return exists;
        }
        let Ok(_turn) = self.turns.acquire().await else { return false };
        let verify = move || {
            PasswordHash::new(&hash).is_ok_and(|hash| Argon2::default().verify_password(&password, &hash).is_ok())
        };
        let right = exists & tokio::task::spawn_blocking(verify).await.unwrap_or(false);
        if right {
            let mut known = self.known.lock();
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(digest);
        }
        right
    }
}
