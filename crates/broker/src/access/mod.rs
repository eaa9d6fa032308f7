//! Who may connect, and what they may do.
//!
//! Promises: once there is a user file nobody may do what it does not grant; a password is only ever compared with its hash, and
//! that costs a bounded share of the machine whoever asks, and keeps others waiting no longer than their turn; a changed user file takes effect without a restart. Never: a
//! password is logged, or a name that the site does not know itself (promise I2).

mod acl;
mod failures;
mod password;
mod turns;
mod users;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use nearside_schemas::Role;
use parking_lot::RwLock;

use crate::config::{Anonymous, BrokerError};
use crate::packet::{Connect, Reason};
use crate::tls::Shown;
pub(crate) use acl::Grant;
use password::{Attempt, Checked, Passwords};
pub use users::{User, Users, hash_password};

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) address: IpAddr,
    /// The client's certificate, where it showed one that we trust.
    pub(crate) identity: Option<Arc<Shown>>,
}

/// Whose share of a common bound something counts to: a user's or, where no name was given, an address's.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Holder {
    User(Arc<str>),
    Address(IpAddr),
}

impl Holder {
    /// Of what belongs to this user, wherever it comes from.
    pub(crate) fn of(user: Option<&str>) -> Option<Self> {
        user.map(|user| Self::User(user.into()))
    }

    pub(crate) fn user(&self) -> Option<&str> {
        match self {
            Self::User(user) => Some(user),
            Self::Address(_) => None,
        }
    }
}

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub(crate) user: Option<String>,
    /// The certificate that it was let in by.
    pub(crate) certificate: Option<Arc<Shown>>,
    /// Where it is; `None` where it is away.
    pub(crate) address: Option<IpAddr>,
    client: String,
    rights: Rights,
}

#[derive(Clone, Debug, PartialEq)]
enum Rights {
    /// There is no user file.
    Everything,
    Granted(Vec<Arc<Grant>>),
}

impl Principal {
    /// Whether it may publish to the topic.
    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        self.is_granted(|grant| grant.publish.iter().any(|pattern| pattern.covers(topic, self.user(), &self.client)))
    }

    /// Whether it may have every message that the filter matches.
    pub(crate) fn may_subscribe(&self, filter: &str) -> bool {
        self.is_granted(|grant| grant.subscribe.iter().any(|pattern| pattern.covers(filter, self.user(), &self.client)))
    }

    fn is_granted(&self, mut by: impl FnMut(&Grant) -> bool) -> bool {
        match &self.rights {
            Rights::Everything => true,
            Rights::Granted(grants) => grants.iter().any(|grant| by(grant)),
        }
    }

    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// To whose share what it leaves here counts.
    pub(crate) fn holder(&self) -> Option<Holder> {
        Holder::of(self.user()).or_else(|| self.address.map(Holder::Address))
    }
}

/// The rules of who may connect.
pub(crate) struct Access {
    anonymous: Anonymous,
    file: Option<PathBuf>,
    users: RwLock<Option<Arc<Users>>>,
    passwords: Passwords,
}

impl Access {
    /// Reads the user file, where one is named.
    pub(crate) fn new(anonymous: Anonymous, file: Option<PathBuf>) -> Result<Self, BrokerError> {
        let users = file.as_ref().map(|path| Users::load(path)).transpose()?;
        Ok(Self { anonymous, file, users: RwLock::new(users.map(Arc::new)), passwords: Passwords::new()? })
    }

    /// Reads the user file again. What is wrong with it leaves the one before in force.
    pub(crate) fn reload(&self) -> Result<(), BrokerError> {
        if let Some(path) = &self.file {
            let users = Users::load(path)?;
            *self.users.write() = Some(Arc::new(users));
        }
        Ok(())
    }

    /// The users, where there is a user file.
    pub(crate) fn users(&self) -> Option<Arc<Users>> {
        self.users.read().clone()
    }

    /// The user file.
    pub(crate) const fn file(&self) -> Option<&PathBuf> {
        self.file.as_ref()
    }

    /// Lets a client in, or says why not. A certificate says more than a name; a name needs its password.
    pub(crate) async fn admit(&self, connect: &Connect, client: &str, origin: &Origin) -> Result<Principal, Reason> {
        let users = self.users();
        let user = match (&origin.identity, &connect.user, &users) {
            (Some(identity), _, _) => Some(identity.name.clone()),
            (None, Some(name), Some(users)) => {
                let password = connect.password.clone().unwrap_or_default();
                self.check(users, Attempt { from: Some(origin.address), name, password }).await?;
                Some(name.clone())
            }
            // A name that nobody can check is no name.
            (None, Some(_), None) | (None, None, _) => None,
        };
        if user.is_none() && !self.anonymous.allows(origin.address) {
            return Err(Reason::NotAuthorized);
        }
        let rights = rights(users.as_deref(), user.as_deref()).ok_or(Reason::NotAuthorized)?;
        let address = Some(origin.address);
        Ok(Principal { user, certificate: origin.identity.clone(), address, client: client.to_owned(), rights })
    }

    /// The name, where the site knows it.
    pub(crate) fn known(&self, name: Option<&str>) -> Option<String> {
        name.filter(|name| self.users().is_some_and(|users| users.get(name).is_some())).map(str::to_owned)
    }

    /// What somebody who is away may do now; `None` where its user is gone.
    pub(crate) fn of_absent(&self, user: Option<&str>, client: &str) -> Option<Principal> {
        let rights = rights(self.users().as_deref(), user)?;
        let user = user.map(str::to_owned);
        Some(Principal { user, certificate: None, address: None, client: client.to_owned(), rights })
    }

    /// Why a client was not let in, in words for whoever looks after the site, and its name where the site knows it.
    pub(crate) fn explain(&self, connect: &Connect, origin: &Origin, reason: Reason) -> (Option<String>, &'static str) {
        let users = self.users();
        if let Some(identity) = &origin.identity {
            return (
                Some(identity.name.clone()),
                "a client was not let in: its certificate's name is not in the user file",
            );
        }
        let Some(name) = &connect.user else {
            let why =
                "a client was not let in: it gave no user name, and [broker] anonymous does not allow that from there";
            return (None, why);
        };
        let Some(users) = users else {
            let why = "a client was not let in: it gave a user name, but there is no user file, and [broker] anonymous does not allow it";
            return (None, why);
        };
        if reason == Reason::ServerBusy {
            let why = "a client was not let in: too many passwords from its address were wrong, or wait to be checked";
            return (users.get(name).map(|_| name.clone()), why);
        }
        match users.get(name) {
            None => (None, "a client was not let in: its user name is not in the user file"),
            Some(user) if user.password.is_none() => {
                (Some(name.clone()), "a client was not let in: its user must show a certificate")
            }
            Some(_) if reason == Reason::Credentials => {
                (Some(name.clone()), "a client was not let in: its password is wrong")
            }
            Some(_) => (Some(name.clone()), "a client was not let in: its user may not connect"),
        }
    }

    /// Whether what somebody was let in with still holds.
    pub(crate) fn still_holds(&self, principal: &Principal) -> bool {
        rights(self.users().as_deref(), principal.user()).as_ref() == Some(&principal.rights)
    }

    async fn check(&self, users: &Arc<Users>, attempt: Attempt<'_>) -> Result<(), Reason> {
        let hash = users.get(attempt.name).and_then(|user| user.password.clone());
        match self.passwords.check(hash, attempt).await {
            Checked::Right => Ok(()),
            Checked::Wrong => Err(Reason::Credentials),
            Checked::Busy => Err(Reason::ServerBusy),
        }
    }
}

/// What the user file grants; `None` where it does not know the user.
fn rights(users: Option<&Users>, user: Option<&str>) -> Option<Rights> {
    let Some(users) = users else { return Some(Rights::Everything) };
    Some(Rights::Granted(match user {
        None => users.anonymous().into_iter().collect(),
        Some(name) => {
            let user = users.get(name)?;
            std::iter::once(user.grant.clone()).chain(users.role(user.role)).collect()
        }
    }))
}

impl Anonymous {
    fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Never => false,
            Self::Loopback => address.to_canonical().is_loopback(),
            Self::Always => true,
        }
    }
}

/// Checks names and passwords of people, for the console.
#[derive(Clone)]
pub struct Credentials(pub(crate) Arc<Access>);

impl Credentials {
    /// The role of a user who gave the right password; `None` for anybody else, and where there is no user file.
    pub async fn check(&self, name: &str, password: &str) -> Option<Role> {
        let users = self.0.users()?;
        let password = Bytes::copy_from_slice(password.as_bytes());
        self.0.check(&users, Attempt { from: None, name, password }).await.ok()?;
        users.get(name).map(|user| user.role)
    }

    /// Whether there is a user file at all.
    pub fn are_kept(&self) -> bool {
        self.0.users().is_some()
    }
}
