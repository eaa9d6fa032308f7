//! Log lines: set up once by `main`, to standard error, so that standard output stays for programs.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("`{filter}` is no log filter: write a level such as `info`, or `nearside_broker=debug,info`")]
    Filter {
        /// The filter as given.
        filter: String,
    },
    /// A logger is already there.
    #[error("the log was set up twice")]
    Twice,
}

/// Sends log lines that `filter` lets through to standard error.
pub fn init_logging(filter: &str, format: LogFormat) -> Result<(), LoggingError> {
    // rumqttd logs topics and client ids, which may be personal (promise I2).
    let guarded = format!("{filter},rumqttd=off");
    let parsed = EnvFilter::try_new(guarded).map_err(|_| LoggingError::Filter { filter: filter.to_owned() })?;
    // Colours are for a screen: in a file or a journal they are noise. `NO_COLOR` (no-color.org) asks for none at all.
    let has_colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(has_colours).with_target(true);
    let result = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    result.map_err(|_| LoggingError::Twice)
}
