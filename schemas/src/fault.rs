//! What is wrong with a section of the configuration, key by key.
//!
//! Promises: all faults of a section are found together, in the order of its checks, and at most one for each key.
//! Never: a fault without what to write instead.

use std::borrow::Cow;

/// A value with which the gateway would start and then not work. The fault of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}{key}` {why}", prefix(section))]
pub struct ConfigFault {
    /// The section; empty where the place says which one of several is meant.
    pub section: &'static str,
    /// The key within the section, such as `listen` or `online.every`.
    pub key: &'static str,
    /// What is wrong and what to write.
    pub why: Cow<'static, str>,
}

fn prefix(section: &str) -> String {
    if section.is_empty() { String::new() } else { format!("{section}.") }
}

/// Collects the faults of one section.
#[derive(Debug)]
pub struct Faults {
    section: &'static str,
    found: Vec<ConfigFault>,
}

impl Faults {
    /// None yet, of this section.
    pub const fn of(section: &'static str) -> Self {
        Self { section, found: Vec::new() }
    }

    /// Adds a fault where the value is wrong, and nothing is said of its key yet.
    #[must_use]
    pub fn check(mut self, key: &'static str, is_wrong: bool, why: impl Into<Cow<'static, str>>) -> Self {
        if is_wrong && !self.found.iter().any(|fault| fault.key == key) {
            self.found.push(ConfigFault { section: self.section, key, why: why.into() });
        }
        self
    }

    /// Adds the fault of each of these keys whose value is zero.
    #[must_use]
    pub fn above_zero(self, keys: &[(&'static str, bool)]) -> Self {
        keys.iter().fold(self, |faults, (key, is_zero)| faults.check(key, *is_zero, "must be above zero"))
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<ConfigFault> {
        self.found
    }

    /// The first, for whoever needs one good value and not a list.
    pub fn first(self) -> Result<(), ConfigFault> {
        self.found.into_iter().next().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_said_and_each_once() {
        let faults = Faults::of("broker")
            .above_zero(&[("inflight", true), ("threads", false)])
            .check("inflight", true, "is said already")
            .check("listen", true, "is odd");
        let said: Vec<String> = faults.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(said, ["`broker.inflight` must be above zero", "`broker.listen` is odd"]);
        assert_eq!(Faults::of("").check("when", true, "is odd").first().unwrap_err().to_string(), "`when` is odd");
    }
}
