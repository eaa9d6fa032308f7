//! Windows over event time: tumbling, hopping, session and count, several for a stream.
//!
//! Promises: for each window definition a row is in every window it belongs to, or counted as set aside with a reason (promise I1);
//! a row far in the future or past moves nothing (I3); rows and windows held are bounded (I4); the same pushes and ticks give
//! the same windows (I5).
//! Never: it reads a clock; time comes with the rows (event time and time of receipt) and with ticks.

mod config;
mod count;
mod definition;
mod plan;
mod rows;
mod session;
mod snapshot;
mod stream;
#[cfg(test)]
mod tests;
mod timed;

pub use config::{GuardConfig, LatePolicy, WindowConfig, WindowError, WindowKind};
pub use plan::WindowPlan;
pub use stream::{CLOCK_SLACK, Placement, StreamWindows};
