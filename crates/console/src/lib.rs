//! The HTTP side: metrics, health, state as JSON, and a plain page that shows what the site is doing.
//!
//! Promises: whatever a page shows is escaped; requests, bodies and connections are bounded (promise I4).
//! Never: it shows a key, a topic or a text of a device (I2); anything is changed but by an operator's feedback on a finding.

mod feedback;
mod page;
mod server;
mod view;

pub use feedback::FeedbackPort;
pub use server::{Console, ConsoleConfig, ConsoleError};
pub use view::{CommandRow, FindingRow, Health, LearningRow, PageData, Readiness, StageRow, StreamRow, View};
