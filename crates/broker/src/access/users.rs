//! The user file: who there is, with which role, and what roles and users may do.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use argon2::password_hash::{PasswordHash, SaltString};
use argon2::{Argon2, PasswordHasher};
use nearside_schemas::{Role, utf8};
use serde::Deserialize;

use super::acl::Grant;
use crate::config::BrokerError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUsers {
    #[serde(default)]
    roles: HashMap<Role, Grant>,
    #[serde(default)]
    anonymous: Option<Grant>,
    #[serde(default)]
    users: HashMap<String, RawUser>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUser {
    role: Role,
    /// Without one the user needs a certificate.
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    publish: Vec<super::acl::Pattern>,
    #[serde(default)]
    subscribe: Vec<super::acl::Pattern>,
}

/// One user.
#[derive(Clone, Debug)]
pub struct User {
    /// The role.
    pub role: Role,
    /// The password's hash in the PHC form; without one the user needs a certificate.
    pub(crate) password: Option<Arc<str>>,
    pub(crate) grant: Arc<Grant>,
}

impl User {
    /// Whether it may come with a password; else it needs a certificate.
    pub const fn has_password(&self) -> bool {
        self.password.is_some()
    }
}

/// The users of a site.
#[derive(Clone, Debug, Default)]
pub struct Users {
    roles: HashMap<Role, Arc<Grant>>,
    anonymous: Option<Arc<Grant>>,
    users: HashMap<String, User>,
}

/// What is wrong and in which line, without the line and without a value that stands in it: it may be a password.
fn without_values(error: &toml::de::Error, text: &str) -> String {
    let what = error.message().split('"').next().unwrap_or_default().trim_end();
    match error.span() {
        Some(span) => format!("line {}: {what}", 1 + text[..span.start.min(text.len())].matches('\n').count()),
        None => what.to_owned(),
    }
}

impl Users {
    /// Reads a user file.
    ///
    /// # Errors
    /// Where it cannot be read or says something that makes no sense.
    pub fn load(path: &Path) -> Result<Self, BrokerError> {
        let wrong = |why: String| BrokerError::Users { path: path.to_owned(), why };
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let text = utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
        Self::parse(text).map_err(wrong)
    }

    /// Reads the text of a user file.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: RawUsers = toml::from_str(text).map_err(|error| without_values(&error, text))?;
        let mut users = HashMap::new();
        for (name, user) in raw.users {
            if !is_name(&name) {
                return Err(format!("`{name}` is no user name: {NAME_RULE}"));
            }
            let hash = user.password.as_deref().map(PasswordHash::new).transpose();
            if hash.is_err() || hash.is_ok_and(|hash| hash.is_some_and(|hash| hash.algorithm.as_str() != "argon2id")) {
                return Err(format!("the password of `{name}` is no argon2id hash: set it with `nearside users add`"));
            }
            let grant = Arc::new(Grant { publish: user.publish, subscribe: user.subscribe });
            users.insert(name, User { role: user.role, password: user.password.map(Into::into), grant });
        }
        let roles = raw.roles.into_iter().map(|(role, grant)| (role, Arc::new(grant))).collect();
        Ok(Self { roles, anonymous: raw.anonymous.map(Arc::new), users })
    }

    /// The user of that name.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// Names and users, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &User)> {
        let mut users: Vec<_> = self.users.iter().map(|(name, user)| (name.as_str(), user)).collect();
        users.sort_by_key(|(name, _)| *name);
        users.into_iter()
    }

    pub(crate) fn anonymous(&self) -> Option<Arc<Grant>> {
        self.anonymous.clone()
    }

    pub(crate) fn role(&self, role: Role) -> Option<Arc<Grant>> {
        self.roles.get(&role).cloned()
    }

    /// What a new user file says: what each role may do, to be changed as the site needs.
    pub const TEMPLATE: &str = r##"# Who may connect to the broker and what they may do. What is not granted here is refused.
# In a filter the level {user} stands for the user's name and {client} for the client id.

[roles.device]
publish = ["+/{user}/#"]
subscribe = ["+/{user}/#"]

[roles.operator]
publish = ["#", "$nearside/feedback"]
subscribe = ["#", "$SYS/#", "$nearside/#"]

[roles.viewer]
subscribe = ["#", "$SYS/#"]

[roles.fleet]
subscribe = ["$SYS/#"]
"##;

    /// Whether a name may be used.
    ///
    /// # Errors
    /// With the rule that it breaks.
    pub fn check_name(name: &str) -> Result<(), String> {
        if is_name(name) { Ok(()) } else { Err(format!("`{name}` is no user name: {NAME_RULE}")) }
    }
}

const NAME_RULE: &str =
    "1 to 128 characters, without control characters, quotes, backslash, `/`, `+`, `#`, and not `$` in front";

/// A name can stand for a level of a topic and in a TOML key.
fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.chars().count())
        && !name.starts_with('$')
        && !name.contains(|c: char| c.is_control() || matches!(c, '"' | '\\' | '/' | '+' | '#' | '{' | '}'))
}

/// The hash of a password in the PHC form: Argon2id (RFC 9106) with 19 MiB, 2 passes, 1 lane, as OWASP advises. `salt` is random.
///
/// # Errors
/// Where the password is longer than Argon2 takes.
pub fn hash_password(password: &[u8], salt: &[u8; 16]) -> Result<String, BrokerError> {
    let salt = SaltString::encode_b64(salt).map_err(|_| BrokerError::Password)?;
    let hash = Argon2::default().hash_password(password, &salt).map_err(|_| BrokerError::Password)?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_user_file() {
        let users = Users::parse(Users::TEMPLATE).unwrap();
        assert_eq!(users.roles.len(), 4);
        assert!(users.anonymous.is_none() && users.users.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "[users.a]\nrole = \"king\"",
            "[users.\"a/b\"]\nrole = \"device\"",
            "[users.a]\nrole = \"device\"\npassword = \"secret\"",
            "[users.a]\nrole = \"device\"\npublish = [\"a/#/b\"]",
            "[users.a]\nrole = \"device\"\npubish = []",
            "[roles.device]\nsubscribe = [\"{usr}\"]",
        ] {
            assert!(Users::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_a_password() {
        for (bad, line) in
            [("[users.a]\nrole = \"device\"\npassword = hunter2", "line 3: "), ("[users]\na = \"hunter2\"", "line 2: ")]
        {
            let Err(said) = Users::parse(bad) else { panic!("{bad}") };
            assert!(said.starts_with(line) && !said.contains("hunter2"), "{said}");
        }
    }
}
