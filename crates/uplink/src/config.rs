//! `[uplink]` and what can go wrong on the way to the cloud.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use nearside_privacy::SummaryFormat;
use nearside_schemas::{ByteSize, ConfigFault, Faults, HumanDuration};
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;

/// `[uplink]`: the cloud. Without this section summaries wait in the outbox, up to its quota.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkConfig {
    /// Where the cloud's MQTT broker is: `mqtt://host:1883`, or `mqtts://host:8883` for TLS.
    pub url: String,
    /// Further addresses, tried in this order where the first fails; all else is the same for each. An item whose acknowledgement was lost on
    /// the way may reach two of them, under one id.
    #[serde(default)]
    pub fallback: Vec<String>,
    /// The version of MQTT: `5` (the default), or `3.1.1` for a broker that speaks no other. Only with 5 can the cloud say why it refuses
    /// an item.
    #[serde(default)]
    pub protocol: Protocol,
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
    /// A file that holds the password, relative to this one.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// How often an idle connection is checked.
    #[serde(default = "default_keep_alive")]
    pub keep_alive: HumanDuration,
    /// Most items that are sent and not yet acknowledged.
    #[serde(default = "default_inflight")]
    pub inflight: u16,
    /// The largest item that is sent; a larger one becomes a dead letter.
    #[serde(default = "default_max_item")]
    pub max_item: ByteSize,
    /// What waited while the cloud was away takes at most this share of `inflight` once it is back; the rest stays free for
    /// what is new.
    #[serde(default = "default_backlog_share")]
    pub backlog_share: f64,
    /// Most items a second of what waited while the cloud was away; 0: as many as it takes. What is new does not count.
    #[serde(default = "default_backlog_rate")]
    pub backlog_rate: u32,
    /// After so many tries in a row without an acknowledgement the next address is used.
    #[serde(default = "default_failover_after")]
    pub failover_after: u32,
    /// While a fallback is used, how often the first address is looked at; once it can be reached it is used again.
    #[serde(default = "default_failback_every")]
    pub failback_every: HumanDuration,
    /// The longest first pause after a failure; pauses are random below a bound that doubles with each failure.
    #[serde(default = "default_backoff_min")]
    pub backoff_min: HumanDuration,
    /// The longest pause between tries.
    #[serde(default = "default_backoff_max")]
    pub backoff_max: HumanDuration,
}

/// A version of MQTT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[default]
    #[serde(rename = "5")]
    V5,
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
const fn default_backlog_share() -> f64 {
    0.75
}
const fn default_backlog_rate() -> u32 {
    4_000
}
const fn default_failover_after() -> u32 {
    3
}
const fn default_failback_every() -> HumanDuration {
    HumanDuration::secs(60)
}
const fn default_backoff_min() -> HumanDuration {
    HumanDuration::millis(500)
}
const fn default_backoff_max() -> HumanDuration {
    HumanDuration::secs(60)
}

/// Why it is none. An address with a user in it is not shown: it holds a password (promise I2).
fn no_address(url: &str) -> String {
    if url.contains('@') {
        return "holds a user or a password, and an address has none: put the user in `username`, and the password in a file that \
                `password_file` names"
            .to_owned();
    }
    format!(
        "holds `{url}`, which is no broker's address: write mqtt://host:1883, mqtts://host:8883 or mqtt://[::1]:1883"
    )
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
        let wrong = || ConfigFault { section: "uplink", key: "url", why: no_address(url).into() };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (tls, default_port) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return Err(wrong().into()),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.strip_prefix('[') {
            // An IPv6 address stands in brackets, or its last part could be a port (RFC 3986, section 3.2.2).
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or_else(wrong)?;
                host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
                (host, port)
            }
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None if port.is_empty() => default_port,
            None => return Err(wrong().into()),
        };
        if host.is_empty() || host.contains(['/', '@', ' ', ']']) {
            return Err(wrong().into());
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

/// The retry class is the method [`UplinkError::is_transient`].
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigFault),
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
    /// The first address can be reached again.
    #[error("the first address can be reached again")]
    FirstIsBack,
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
            Self::FirstIsBack => "first_is_back",
            Self::Outbox(_) => "outbox",
        }
    }
}

impl UplinkConfig {
    /// The configuration for a URL, all else as by default.
    pub fn to(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            fallback: Vec::new(),
            protocol: Protocol::default(),
            topic: default_topic(),
            format: SummaryFormat::default(),
            client_id: None,
            username: None,
            password_file: None,
            keep_alive: default_keep_alive(),
            inflight: default_inflight(),
            max_item: default_max_item(),
            backlog_share: default_backlog_share(),
            backlog_rate: default_backlog_rate(),
            failover_after: default_failover_after(),
            failback_every: default_failback_every(),
            backoff_min: default_backoff_min(),
            backoff_max: default_backoff_max(),
        }
    }

    /// All addresses, the first first.
    pub(crate) fn urls(&self) -> Result<Vec<CloudUrl>, UplinkError> {
        std::iter::once(&self.url).chain(&self.fallback).map(|url| url.parse()).collect()
    }

    /// Whatever is wrong with the values, beyond what types say.
    pub fn faults(&self) -> Faults {
        let bad = |url: &&String| url.parse::<CloudUrl>().is_err();
        let bad_fallback = self.fallback.iter().find(bad);
        let topic = self.topic.replace("{site}", "s").replace("{class}", "c");
        let bad_topic = topic.is_empty() || topic.contains(['+', '#', '{', '}', '\0']);
        let seconds = self.keep_alive.get().as_secs();
        let bad_size = self.max_item < ByteSize::kib(1) || self.max_item > ByteSize::mib(255);
        let bad_share = !(self.backlog_share > 0.0 && self.backlog_share <= 1.0);
        let bad_backoff = self.backoff_min.get().is_zero() || self.backoff_max < self.backoff_min;
        Faults::of("uplink")
            .check("url", bad(&&self.url), no_address(&self.url))
            .check("fallback", bad_fallback.is_some(), bad_fallback.map(|url| no_address(url)).unwrap_or_default())
            .check("topic", bad_topic, "is no topic without wildcards; only {site} and {class} are filled in")
            // The MQTT client counts whole seconds, in 16 bits, and ends the program where there are fewer than five.
            .check("keep_alive", !(5..=65_535).contains(&seconds), "must be between 5s and 65535s; the default is 30s")
            .check("max_item", bad_size, "must be between 1KiB and 255MiB")
            .above_zero(&[("inflight", self.inflight == 0), ("failover_after", self.failover_after == 0)])
            .check("backlog_share", bad_share, "must be above 0 and at most 1")
            .check("failback_every", self.failback_every.get() < Duration::from_secs(1), "must be at least 1s")
            .check(
                "password_file",
                self.password_file.is_some() && self.username.is_none(),
                "needs `username` beside it: a password needs a user name",
            )
            .check("backoff_min", bad_backoff, "must be above zero and not above `backoff_max`")
    }

    /// Checks the values that types cannot.
    pub fn validate(&self) -> Result<(), UplinkError> {
        Ok(self.faults().first()?)
    }

    /// The pause policy with this seed.
    pub(crate) fn backoff(&self, seed: u64) -> Backoff {
        Backoff::new(self.backoff_min.get(), self.backoff_max.get(), seed)
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
        assert!(wrong(|config| config.keep_alive = HumanDuration::millis(4_999)).contains("between 5s and"));
        assert!(wrong(|config| config.keep_alive = HumanDuration::secs(70_000)).contains("keep_alive"));
        assert!(wrong(|config| config.max_item = ByteSize::kib(0)).contains("max_item"));
    }

    #[test]
    fn addresses_are_read() {
        let url = |text: &str| text.parse::<CloudUrl>().map(|url| (url.tls, url.host, url.port)).ok();
        assert_eq!(url("mqtt://cloud.example"), Some((false, "cloud.example".into(), 1883)));
        assert_eq!(url("mqtts://cloud.example:9999/"), Some((true, "cloud.example".into(), 9999)));
        assert_eq!(url("mqtt://[::1]:1884"), Some((false, "::1".into(), 1884)));
        assert_eq!(url("mqtts://[2001:db8::7]"), Some((true, "2001:db8::7".into(), 8883)));
        for bad in
            ["mqtt://::1", "mqtt://fe80::1:1883", "mqtt://[::1", "mqtt://::1]", "mqtt://[x]:1", "mqtt://[::1]1883"]
        {
            assert_eq!(url(bad), None, "{bad}");
        }
        let mut config = UplinkConfig::to("mqtt://a");
        config.fallback = vec!["mqtts://b".to_owned(), "c".to_owned()];
        assert!(config.validate().is_err_and(|error| error.to_string().starts_with("`uplink.fallback` holds `c`")));
        let login = "mqtt://user:hunter2@cloud.example".parse::<CloudUrl>().unwrap_err().to_string();
        assert!(login.contains("`password_file`") && !login.contains("hunter2"), "{login}");
        for bad in ["cloud.example", "http://x", "mqtt://", "mqtt://x:notaport", "mqtt://u@x", "mqtt://a/b"] {
            assert_eq!(url(bad), None, "{bad}");
        }
    }
}
