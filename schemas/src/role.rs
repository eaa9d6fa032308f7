//! Who somebody is to the gateway.

use serde::{Deserialize, Serialize};

/// The role of a user, for the broker and for the console alike. What a role may do on topics stands in the user file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Publishes what it measures and takes its commands.
    Device,
    /// Sees and does everything at this site.
    Operator,
    /// Sees everything at this site and changes nothing.
    Viewer,
    /// Manages many sites: their configuration and models.
    Fleet,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Device, Self::Operator, Self::Viewer, Self::Fleet];

    /// As it is written in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Fleet => "fleet",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is no role: use device, operator, viewer or fleet"))
    }
}
