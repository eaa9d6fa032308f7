//! Checks passwords. A hash is made to cost time, so few are computed at once, off the connections' threads; a password that was
//! right is remembered, as a keyed hash in memory, so that a site whose devices all come back at once does not wait for them.
//!
//! Promise: whoever tries passwords keeps nobody at another address from being let in: addresses take turns, what waits of one is bounded,
//! and a name that was tried with wrong passwords from an address is not tried from there for a while.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::failures::Failures;
use super::turns::Turns;
use super::users::hash_password;
use crate::config::BrokerError;

/// Passwords remembered; past it all are forgotten.
const REMEMBERED: usize = 100_000;

/// What a check came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Checked {
    Right,
    Wrong,
    /// It was not checked: too many wait, or too many were wrong.
    Busy,
}

/// A name and a password, and from where; the console's come from nowhere.
pub(super) struct Attempt<'a> {
    pub(super) from: Option<IpAddr>,
    pub(super) name: &'a str,
    pub(super) password: Bytes,
}

type Digest = [u8; 32];

#[derive(Default)]
struct Known {
    right: HashSet<Digest>,
    /// Being checked: who brings the same waits for the answer.
    in_check: HashMap<Digest, watch::Receiver<Option<Checked>>>,
}

pub(super) struct Passwords {
    turns: Turns,
    failures: Mutex<Failures>,
    known: Mutex<Known>,
    key: [u8; 32],
    /// Compared with where there is no such user: an answer must not tell by its time who exists.
    nobody: Arc<str>,
}

/// Takes a check off the list of those that run.
struct InCheck<'a>(&'a Passwords, Digest);

impl Drop for InCheck<'_> {
    fn drop(&mut self) {
        self.0.known.lock().in_check.remove(&self.1);
    }
}

impl Passwords {
    pub(super) fn new() -> Result<Self, BrokerError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| BrokerError::Password)?;
        let salt = [0; 16];
        let nobody = hash_password(&key, &salt)?.into();
        Ok(Self { turns: Turns::default(), failures: Mutex::default(), known: Mutex::default(), key, nobody })
    }

    /// Whether the password is the one that was hashed. `None`: there is no such user, or one without a password.
    pub(super) async fn check(&self, hash: Option<Arc<str>>, attempt: Attempt<'_>) -> Checked {
        let exists = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        let mut digest = blake3::Hasher::new_keyed(&self.key);
        digest.update(&(hash.len() as u64).to_le_bytes()).update(hash.as_bytes()).update(&attempt.password);
        let digest = *digest.finalize().as_bytes();
        let (tell, mut others) = {
            let mut known = self.known.lock();
            if known.right.contains(&digest) {
                return if exists { Checked::Right } else { Checked::Wrong };
            }
            match known.in_check.get(&digest) {
                Some(others) => (None, others.clone()),
                None => {
                    let (tell, told) = watch::channel(None);
                    known.in_check.insert(digest, told.clone());
                    (Some(tell), told)
                }
            }
        };
        let Some(tell) = tell else {
            let told = others.wait_for(Option::is_some).await;
            return told.ok().and_then(|checked| *checked).unwrap_or(Checked::Busy);
        };
        let in_check = InCheck(self, digest);
        let checked = self.verify(exists, hash, attempt).await;
        if checked == Checked::Right {
            let mut known = self.known.lock();
            if known.right.len() >= REMEMBERED {
                known.right.clear();
            }
            known.right.insert(digest);
        }
        drop(in_check);
        tell.send_replace(Some(checked));
        checked
    }

    async fn verify(&self, exists: bool, hash: Arc<str>, Attempt { from, name, password }: Attempt<'_>) -> Checked {
        if from.is_some_and(|from| self.failures.lock().is_barred(from, name, Instant::now())) {
            return Checked::Busy;
        }
        let Some(turn) = self.turns.take(from, name).await else { return Checked::Busy };
        let verify = move || {
            // To the end, also where whoever asked has gone.
            let _turn = turn;
            PasswordHash::new(&hash).is_ok_and(|hash| Argon2::default().verify_password(&password, &hash).is_ok())
        };
        let right = exists & tokio::task::spawn_blocking(verify).await.unwrap_or(false);
        if let Some(from) = from {
            self.failures.lock().note(from, name, right, Instant::now());
        }
        if right { Checked::Right } else { Checked::Wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A site's devices that share a name and come all at once are let in by one check.
    #[tokio::test]
    async fn the_same_password_is_checked_once_at_a_time() {
        let passwords = Passwords::new().unwrap();
        let hash: Arc<str> = hash_password(b"right", &[7; 16]).unwrap().into();
        let from = Some(IpAddr::from([10, 0, 0, 1]));
        let check = || {
            let attempt = Attempt { from, name: "ann", password: Bytes::from("right") };
            passwords.check(Some(hash.clone()), attempt)
        };
        let mut held = Vec::new();
        while held.len() < 2 {
            held.extend(passwords.turns.take(None, "").await);
        }
        let begins = async {
            tokio::task::yield_now().await;
            held.clear();
        };
        let (a, b, c, d, ()) = tokio::join!(check(), check(), check(), check(), begins);
        assert_eq!([a, b, c, d], [Checked::Right; 4]);
        assert!(passwords.known.lock().in_check.is_empty());
        // Now it is known.
        assert_eq!(check().await, Checked::Right);
    }
}
