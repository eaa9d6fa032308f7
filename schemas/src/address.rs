//! Addresses to listen at, as people write them in the configuration and on the command line.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Deserializer, de};

/// An address that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address and port: write {example}")]
pub struct AddressError {
    /// What was written.
    pub text: String,
    /// How it is written.
    pub example: String,
}

/// Reads `127.0.0.1:1883`, `[::1]:1883` or `localhost:1883`, which is the first.
///
/// # Errors
/// Where it is something else, with what to write.
pub fn parse_address(text: &str) -> Result<SocketAddr, AddressError> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    if let Some(port) = local {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| {
        let port = text.trim_start_matches(':').parse::<u16>().unwrap_or(1883);
        AddressError { text: text.to_owned(), example: format!("127.0.0.1:{port}") }
    })
}

/// [`parse_address`] for a configuration's key.
///
/// # Errors
/// Where it is something else, with what to write.
pub fn deserialize_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Port(u16),
    }
    let text = match Written::deserialize(deserializer).map_err(|_| de::Error::custom(MEANT))? {
        Written::Text(text) => text,
        Written::Port(port) => port.to_string(),
    };
    parse_address(&text).map_err(de::Error::custom)
}

/// [`deserialize_address`] for a key that may be left out.
///
/// # Errors
/// Where it is something else, with what to write.
pub fn deserialize_optional_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    deserialize_address(deserializer).map(Some)
}

const MEANT: &str = "expected an address and port such as \"127.0.0.1:1883\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_what_is_none_is_answered_with_one() {
        for (text, read) in
            [("127.0.0.1:80", "127.0.0.1:80"), ("localhost:80", "127.0.0.1:80"), ("[::1]:80", "[::1]:80")]
        {
            assert_eq!(parse_address(text).unwrap().to_string(), read);
        }
        for (text, example) in [
            ("8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
            ("localhost", "127.0.0.1:1883"),
            ("", "127.0.0.1:1883"),
        ] {
            assert!(parse_address(text).unwrap_err().to_string().ends_with(&format!("write {example}")), "{text}");
        }
    }
}
