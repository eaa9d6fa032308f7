//! The typed configuration: one TOML file, read into the structs that each crate owns, and checked as a whole.
//!
//! Promises: whatever is wrong is said before anything starts, with file, line, column and a hint; a configuration that loads
//! can be started, but for what only the machine knows (a port in use, a folder without permission).
//! Never: a default that is not written in the reference; a password in what is said of a file (promise I2).

mod definition;
mod error;
mod raw;
mod salvage;
mod secret;
mod site;

pub use definition::StreamDefinition;
pub use error::{ConfigError, Problem};
pub use site::{SiteConfig, SiteSection, kept_models, load, load_with_files, parse};

/// The reference of every key, in Markdown.
pub fn reference() -> &'static str {
    include_str!("../../docs/configuration.md")
}
