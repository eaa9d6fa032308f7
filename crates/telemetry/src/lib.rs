//! Metric names and labels in one table, and the set-up of log lines.
//!
//! Promises: every metric of the gateway is a row of [`TABLE`]; a metric has a bounded number of label sets (promise
//! I4), the rest is counted under `other`; counting never blocks for longer than a short lock on first use.
//! Never: a label or a log line holds a stream's key, a client id, a topic or a payload (promise I2).

mod logging;
mod registry;
mod table;

pub use logging::{LogFormat, LoggingError, init_logging};
pub use registry::{Counter, Gauge, Histogram, Telemetry};
pub use table::{Kind, Metric, Row, TABLE};
