//! Where the broker is, and who we are to it.

use std::fmt;
use std::str::FromStr;

use crate::error::SimulatorError;

/// A broker's address: `mqtt://[user[:password]@]host[:port]`, or `mqtts://` for TLS. The port is 1883, or 8883 with
/// TLS. User and password may be percent-encoded. Neither `Debug` nor `Display` shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Who connects, with the password.
    pub(crate) login: Option<(String, String)>,
}

impl BrokerUrl {
    /// Plain MQTT without a user.
    pub fn plain(host: &str, port: u16) -> Self {
        Self { tls: false, host: host.to_owned(), port, login: None }
    }

    /// The same broker for this user.
    #[must_use]
    pub fn with_login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }
}

impl FromStr for BrokerUrl {
    type Err = SimulatorError;

    fn from_str(text: &str) -> Result<Self, SimulatorError> {
        let error = |reason| SimulatorError::Address { reason };
        let (tls, rest) = match (text.strip_prefix("mqtt://"), text.strip_prefix("mqtts://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(error("it starts with neither mqtt:// nor mqtts://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(read_login(login)?), place),
            None => (None, rest),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or_else(|| error("`]` is missing"))?;
                (host, port.strip_prefix(':'))
            }
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
            return Err(error("the host is missing or holds what no host can hold"));
        }
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| error("the port is no port"))?,
            None if tls => 8_883,
            None => 1_883,
        };
        Ok(Self { tls, host: host.to_owned(), port, login })
    }
}

fn read_login(login: &str) -> Result<(String, String), SimulatorError> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let decode =
        |part| percent_decoded(part).ok_or(SimulatorError::Address { reason: "user or password holds a bad %" });
    Ok((decode(user)?, decode(password)?))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    let hex = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => u8::try_from(hex(bytes.next())? * 16 + hex(bytes.next())?).ok()?,
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let read = |text: &str| text.parse::<BrokerUrl>();
        assert_eq!(read("mqtt://gateway").unwrap(), BrokerUrl::plain("gateway", 1_883));
        assert_eq!(read("mqtt://[::1]:7000/").unwrap(), BrokerUrl::plain("::1", 7_000));
        let full = read("mqtts://a%40b:s%3Ae:c@10.0.0.1").unwrap();
        assert_eq!((full.tls, full.port), (true, 8_883));
        assert_eq!(full.login, Some(("a@b".to_owned(), "s:e:c".to_owned())));
        for bad in
            ["", "gateway:1883", "http://x", "mqtt://", "mqtt://x:0", "mqtt://x:99999", "mqtt://[::1", "mqtt://%zz@x"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let url: BrokerUrl = "mqtt://nurse:s3cret@ward:1884".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "mqtt://ward:1884 mqtt://ward:1884");
    }
}
