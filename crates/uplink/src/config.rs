//! `[uplink]` and what can go wrong on the way to the cloud.

use std::path::PathBuf;
use std::str::FromStr;

use nearside_privacy::SummaryFormat;
use nearside_schemas::{ByteSize, HumanDuration};
use serde::{Deserialize, Serialize};

/// `[uplink]`: the cloud. Without this section summaries wait in the outbox, up to its quota.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkConfig {
    /// Where the cloud's MQTT broker is: `mqtt://host:1883`, or `mqtts://host:8883` for TLS.
    pub url: String,
    /// The topic that items go to; `{site}` and `{class}` (`alert`, `summary`, `rollup`) are filled in.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// How summaries are written: `json` or `arrow`.
    #[serde(default)]
    pub format: SummaryFormat,
    /// The client id; `nearside-SITE` where none is stated.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The user name.
    #[serde(default)]
    pub username: Option<String>,
    /// A file that holds the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// How often an idle connection is checked.
    #[serde(default = "default_keep_alive")]
    pub keep_alive: HumanDuration,
    /// Most items that are sent and not yet acknowledged.
    #[serde(default = "default_inflight")]
    pub inflight: u16,
    /// The largest item that is sent.
    #[serde(default = "default_max_item")]
    pub max_item: ByteSize,
    /// The first pause after a failure.
    #[serde(default = "default_backoff_min")]
    pub backoff_min: HumanDuration,
    /// The longest pause between tries.
    #[serde(default = "default_backoff_max")]
    pub backoff_max: HumanDuration,
}

fn default_topic() -> String {
    "nearside/{site}/{class}".to_owned()
}
const fn default_keep_alive() -> HumanDuration {
    HumanDuration::secs(30)
}
const fn default_inflight() -> u16 {
    256
}
const fn default_max_item() -> ByteSize {
    ByteSize::mib(4)
}
const fn default_backoff_min() -> HumanDuration {
    HumanDuration::millis(500)
}
const fn default_backoff_max() -> HumanDuration {
    HumanDuration::secs(60)
}

/// Where a broker is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloudUrl {
    /// Whether TLS is used.
    pub tls: bool,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl FromStr for CloudUrl {
    type Err = UplinkError;

    fn from_str(url: &str) -> Result<Self, UplinkError> {
        let wrong = || UplinkError::Config {
            key: "url",
            why: format!("`{url}` is not a broker's address; write mqtt://host:1883 or mqtts://host:8883"),
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (tls, default_port) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (rest, default_port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err(wrong());
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

/// The retry class is the method [`UplinkError::is_transient`].
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The configuration is wrong.
    #[error("uplink.{key}: {why}")]
    Config {
        /// Which key.
        key: &'static str,
        /// What is wrong and what to write.
        why: String,
    },
    /// The password file cannot be read.
    #[error("uplink.password_file {path}: {source}")]
    PasswordFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The cloud cannot be reached or closed the connection.
    #[error("the cloud is away: {0}")]
    Away(String),
    /// The cloud refused the connection: credentials or client id.
    #[error("the cloud refused the connection: {0}; check user name, password and client id")]
    Refused(String),
    /// The outbox cannot be read.
    #[error(transparent)]
    Outbox(#[from] nearside_outbox::OutboxError),
}

impl UplinkError {
    /// Whether trying again may help. A refusal is tried again too, at the longest pause: the cloud's side may be
    /// mended without us being told.
    pub const fn is_transient(&self) -> bool {
        !matches!(self, Self::Config { .. } | Self::PasswordFile { .. })
    }

    /// The metric label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Config { .. } | Self::PasswordFile { .. } => "config",
            Self::Away(_) => "away",
            Self::Refused(_) => "refused",
            Self::Outbox(_) => "outbox",
        }
    }
}

impl UplinkConfig {
    /// The configuration for a URL, all else as by default.
    pub fn to(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            topic: default_topic(),
            format: SummaryFormat::default(),
            client_id: None,
            username: None,
            password_file: None,
            keep_alive: default_keep_alive(),
            inflight: default_inflight(),
            max_item: default_max_item(),
            backoff_min: default_backoff_min(),
            backoff_max: default_backoff_max(),
        }
    }

    /// Checks the values that types cannot.
    pub fn validate(&self) -> Result<(), UplinkError> {
        let wrong = |key, why: &str| Err(UplinkError::Config { key, why: why.to_owned() });
        self.url.parse::<CloudUrl>()?;
        let filled = self.topic.replace("{site}", "s").replace("{class}", "c");
        if filled.is_empty() || filled.contains(['+', '#', '{', '}', '\0']) {
            return wrong("topic", "write a topic without wildcards; only {site} and {class} are filled in");
        }
        // The MQTT client counts whole seconds, in 16 bits.
        if !(1..=65_535).contains(&self.keep_alive.get().as_secs()) {
            return wrong("keep_alive", "must be between 1s and 65535s");
        }
        if self.max_item < ByteSize::kib(1) || self.max_item > ByteSize::mib(255) {
            return wrong("max_item", "must be between 1KiB and 255MiB");
        }
        if self.inflight == 0 {
            return wrong("inflight", "must be above zero");
        }
        if self.password_file.is_some() && self.username.is_none() {
            return wrong("username", "a password needs a user name");
        }
        if self.backoff_min.get().is_zero() || self.backoff_max < self.backoff_min {
            return wrong("backoff_min", "must be above zero and not above backoff_max");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_cannot_do_is_refused() {
        let wrong = |change: fn(&mut UplinkConfig)| {
            let mut config = UplinkConfig::to("mqtt://cloud.example");
            assert!(config.validate().is_ok());
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(wrong(|config| config.keep_alive = HumanDuration::millis(500)).contains("keep_alive"));
        assert!(wrong(|config| config.keep_alive = HumanDuration::secs(70_000)).contains("keep_alive"));
        assert!(wrong(|config| config.max_item = ByteSize::kib(0)).contains("max_item"));
    }

    #[test]
    fn addresses_are_read() {
        let url = |text: &str| text.parse::<CloudUrl>().map(|url| (url.tls, url.host, url.port)).ok();
        assert_eq!(url("mqtt://cloud.example"), Some((false, "cloud.example".into(), 1883)));
        assert_eq!(url("mqtts://cloud.example:9999/"), Some((true, "cloud.example".into(), 9999)));
        assert_eq!(url("mqtt://[::1]:1884"), Some((false, "::1".into(), 1884)));
        for bad in ["cloud.example", "http://x", "mqtt://", "mqtt://x:notaport", "mqtt://u@x", "mqtt://a/b"] {
            assert_eq!(url(bad), None, "{bad}");
        }
    }
}
