//! What can go wrong between the simulator and a broker.

use std::io;

/// An error of the simulator. It holds no password and no payload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulatorError {
    /// The caller's fault: an address that cannot be read.
    #[error("the broker's address is not usable: {reason}; write mqtt://host:1883 or mqtt://user:password@host:1883")]
    Address {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The caller's fault: a setting that makes no sense.
    #[error("{setting} {hint}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What it has to be.
        hint: &'static str,
    },
    /// The broker said no to CONNECT.
    #[error("the broker refused the connection with code {code} ({meaning}); check user, password and its limits")]
    Refused {
        /// The return code of CONNACK (MQTT 3.1.1 section 3.2.2.3).
        code: u8,
        /// The code in words.
        meaning: &'static str,
    },
    /// The network's or the broker's fault: it cannot be reached, or the connection broke.
    #[error("the connection to the broker failed: {0}; is it running and reachable?")]
    Connection(#[from] io::Error),
    /// The broker's fault: it did not keep to MQTT 3.1.1.
    #[error("the broker broke the protocol: {what}")]
    Protocol {
        /// What it did.
        what: &'static str,
    },
    /// A bug of the simulator's: one of its tasks ended early.
    #[error("a connection's task ended before its work was done; please report this")]
    Task,
}

impl SimulatorError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            // 3 is "server unavailable".
            Self::Refused { code, .. } => *code == 3,
            Self::Connection(_) => true,
            Self::Address { .. } | Self::Setting { .. } | Self::Protocol { .. } | Self::Task => false,
        }
    }

    /// A CONNACK's code as an error.
    pub(crate) const fn refused(code: u8) -> Self {
        let meaning = match code {
            1 => "protocol version not supported",
            2 => "client id not accepted",
            3 => "server unavailable",
            4 => "bad user name or password",
            5 => "not authorised",
            _ => "a code that MQTT 3.1.1 does not know",
        };
        Self::Refused { code, meaning }
    }
}
